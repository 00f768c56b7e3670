/*
 * dnn.c
 *	  Convolutions by cuDNN's graph API, in plain C.
 *
 * A product is a graph of operations (dnn_graph.c).  Heuristics list engine
 * configurations for it, best first; the first is taken that runs on tensor
 * cores, gives the same bits each time and needs no more workspace than there
 * is.  A plan that was finalised can be written down as JSON and made from it
 * again in a millisecond.
 *
 * Instead of a handle the library may be opened on a description of a device
 * (gpu_dnn_open_described): then plans can be made, and tested, without a GPU.
 * Documentation: cuDNN, "Graph API", backend descriptor types.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/dnn.h"

#define DNN_CONFIGS 32 /* that heuristics may list */
#define DNN_TRIES   6  /* of which so many are built: some take seconds to compile */

typedef struct DnnPlan
{
	Desc plan;
	bool add, pre;
} DnnPlan;

static DnnLib *
dnn_self(GpuLib *lib)
{
	return (DnnLib *) (void *) lib;
}

static DfxStatus
dnn_fail(const DnnLib *dnn, cudnnStatus_t s, const char *what, DfxErr *err)
{
	if (s == CUDNN_STATUS_SUCCESS)
		return DFX_OK;
	return dfx_fail(
	    err, CUDNN_STATUS_CATEGORY(s) == CUDNN_STATUS_EXECUTION_FAILED ? DFX_EDEVICE : DFX_EUNSUPPORTED,
	    "cuDNN: %s: %s", what, dnn->f.cudnnGetErrorString(s));
}

/* ---- plans ---- */

/* The configurations that heuristics list for a graph; how many. */
static int64_t
dnn_configs(DnnGraph *g, Desc graph, Desc config[DNN_CONFIGS])
{
	Desc heuristics = gpu_dnn_new(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
	cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
	int64_t n = 0;

	gpu_dnn_set_desc(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph, "heuristics");
	gpu_dnn_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, "heuristics");
	if (g->dnn->device)
		gpu_dnn_set_desc(g, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, g->dnn->device, "heuristics");
	gpu_dnn_finalize(g, heuristics, "heuristics");
	for (int i = 0; i < DNN_CONFIGS; i++)
		config[i] = gpu_dnn_new(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	if (g->status == CUDNN_STATUS_SUCCESS)
		gpu_dnn_check(g,
		              g->dnn->f.cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
		                                                 CUDNN_TYPE_BACKEND_DESCRIPTOR, DNN_CONFIGS, &n,
		                                                 config),
		              "asking heuristics");
	return g->status == CUDNN_STATUS_SUCCESS ? n : 0;
}

/* Whether a configuration's engine runs on tensor cores and gives the same bits each time. */
static bool
dnn_is_sound(const DnnLib *dnn, Desc config)
{
	cudnnBackendNumericalNote_t note[32];
	Desc engine = NULL;
	int64_t n = 0;
	bool tensor_core = false, repeatable = true;

	if (dnn->f.cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS)
		return false;
	if (dnn->f.cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
	                                    &n, &engine) != CUDNN_STATUS_SUCCESS ||
	    dnn->f.cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
	                                    sizeof note / sizeof note[0], &n, note) != CUDNN_STATUS_SUCCESS)
		n = 0;
	for (int64_t i = 0; i < n && i < (int64_t) (sizeof note / sizeof note[0]); i++)
	{
		tensor_core = tensor_core || note[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
		repeatable = repeatable && note[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
	}
	dnn->f.cudnnBackendDestroyDescriptor(engine);
	return tensor_core && repeatable;
}

/* A plan from a configuration, or from text when there is none; NULL with the reason in *s. */
static Desc
dnn_plan(DnnLib *dnn, Desc config, const char *text, cudnnStatus_t *s)
{
	Desc plan = NULL;
	int64_t work = 0, n = 0;

	*s = dnn->f.cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
	if (*s != CUDNN_STATUS_SUCCESS)
		return NULL;
	if (dnn->handle)
		*s = dnn->f.cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
		                                     &dnn->handle);
	else
		*s = dnn->f.cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
		                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &dnn->device);
	if (*s == CUDNN_STATUS_SUCCESS && config)
		*s = dnn->f.cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
		                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
	else if (*s == CUDNN_STATUS_SUCCESS)
		*s = dnn->f.cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
		                                     CUDNN_TYPE_CHAR, (int64_t) strlen(text), text);
	if (*s == CUDNN_STATUS_SUCCESS)
		*s = dnn->f.cudnnBackendFinalize(plan);
	if (*s == CUDNN_STATUS_SUCCESS)
		*s = dnn->f.cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
		                                     1, &n, &work);
	if (*s == CUDNN_STATUS_SUCCESS && work > (int64_t) GPU_WORK_BYTES)
		*s = CUDNN_STATUS_NOT_SUPPORTED;
	if (*s == CUDNN_STATUS_SUCCESS)
		return plan;
	dnn->f.cudnnBackendDestroyDescriptor(plan);
	return NULL;
}

/* The first sound configuration of which a plan can be made. */
static Desc
dnn_find_plan(DnnGraph *g, const GpuConvArgs *a, cudnnDataType_t type, int n)
{
	Desc config[DNN_CONFIGS], plan = NULL, graph = gpu_dnn_describe(g, a, type, n);
	int64_t count = dnn_configs(g, graph, config);
	int tries = 0;

	for (int64_t i = 0; i < count && !plan && tries < DNN_TRIES; i++)
	{
		cudnnStatus_t s;

		if (!dnn_is_sound(g->dnn, config[i]))
			continue;
		tries++;
		plan = dnn_plan(g->dnn, config[i], NULL, &s);
	}
	if (!plan)
		gpu_dnn_check(g, CUDNN_STATUS_NOT_SUPPORTED,
		              tries ? "no plan can be made" : "no engine for tensor cores");
	return plan;
}

static bool
dnn_aligned(const void *p)
{
	return (uintptr_t) p % 16 == 0;
}

static bool
dnn_cuts_at_zero(GpuAct act)
{
	return act == GPU_ACT_NONE || act == GPU_ACT_RELU;
}

/* Whether a product is one with a prologue that a graph can have, or one without that is not cuBLASLt's. */
static bool
dnn_fits_input(const GpuConvArgs *a)
{
	bool dense =
	    a->groups == 1 && a->kh == 1 && a->kw == 1 && a->sh == 1 && a->sw == 1 && a->ph == 0 && a->pw == 0;

	return a->pre_scale ? dense && dnn_cuts_at_zero(a->pre_act) && dnn_aligned(a->pre_scale) &&
	                          dnn_aligned(a->pre_shift)
	                    : !dense;
}

static bool
dnn_fits(const GpuConvArgs *a, GpuType type)
{
	return type != GPU_F32 && a->uh <= 1 && a->uw <= 1 && dnn_fits_input(a) && !a->epi.scale &&
	       dnn_cuts_at_zero(a->epi.act) && a->ldx % 8 == 0 && a->ldy % 8 == 0 && a->co % 8 == 0 &&
	       a->ci % 8 == 0 && a->epi.ldadd % 8 == 0 && dnn_aligned(a->x) && dnn_aligned(a->y) &&
	       dnn_aligned(a->epi.add);
}

static void
dnn_drop(GpuLib *lib, void *plan)
{
	DnnPlan *p = plan;

	if (p->plan)
		dnn_self(lib)->f.cudnnBackendDestroyDescriptor(p->plan);
	free(p);
}

static DfxStatus
dnn_build(GpuLib *lib, const GpuConvArgs *a, const GpuProduct *product, GpuType type, int n,
          const char *saved, void **plan, DfxErr *err)
{
	DnnGraph g = {.dnn = dnn_self(lib), .uid = DNN_VIRTUAL};
	DnnPlan *p = calloc(1, sizeof *p);
	DfxStatus st;

	(void) product;
	*plan = NULL;
	if (!p)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	p->add = a->epi.add != NULL;
	p->pre = a->pre_scale != NULL;
	if (saved[0])
		p->plan = dnn_plan(g.dnn, NULL, saved, &g.status);
	else
		p->plan = dnn_find_plan(&g, a, type == GPU_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16, n);
	st = p->plan ? DFX_OK : dnn_fail(g.dnn, g.status, g.what ? g.what : "a kept plan", err);
	gpu_dnn_free(&g);
	if (st == DFX_OK)
		*plan = p;
	else
		free(p);
	return st;
}

static DfxStatus
dnn_run(GpuLib *lib, void *plan, const GpuConvArgs *a, const GpuProduct *product, void *work, void *stream,
        DfxErr *err)
{
	const DnnPlan *p = plan;
	DnnGraph g = {.dnn = dnn_self(lib)};
	int64_t uid[DNN_OPERANDS] = {DNN_X, DNN_W, DNN_BIAS, DNN_Y};
	const void *pointer[DNN_OPERANDS] = {a->x, product->w, product->bias, a->y};
	Desc pack = gpu_dnn_new(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
	int n = 4;

	(void) stream; /* the handle's */
	if (p->add)
	{
		uid[n] = DNN_ADD;
		pointer[n++] = a->epi.add;
	}
	if (p->pre)
	{
		uid[n] = DNN_PRE_SCALE;
		pointer[n++] = a->pre_scale;
		uid[n] = DNN_PRE_SHIFT;
		pointer[n++] = a->pre_shift;
	}
	gpu_dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uid, "operands");
	gpu_dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointer, "operands");
	gpu_dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &work, "a workspace");
	gpu_dnn_finalize(&g, pack, "operands");
	if (g.status == CUDNN_STATUS_SUCCESS)
		gpu_dnn_check(&g, g.dnn->f.cudnnBackendExecute(g.dnn->handle, p->plan, pack), "a convolution");
	gpu_dnn_free(&g);
	return dnn_fail(g.dnn, g.status, g.what, err);
}

static char *
dnn_save(GpuLib *lib, void *plan)
{
	const DnnLib *dnn = dnn_self(lib);
	const DnnPlan *p = plan;
	int64_t n = 0, got = 0;
	char *text;

	if (dnn->f.cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
	                                    CUDNN_TYPE_CHAR, 0, &n, NULL) != CUDNN_STATUS_SUCCESS ||
	    n <= 0)
		return NULL;
	text = calloc(1, (size_t) n + 1);
	if (text && dnn->f.cudnnBackendGetAttribute(p->plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
	                                            CUDNN_TYPE_CHAR, n, &got, text) != CUDNN_STATUS_SUCCESS)
	{
		free(text);
		return NULL;
	}
	return text;
}

/* ---- the library ---- */

static void
dnn_close(GpuLib *lib)
{
	DnnLib *dnn = dnn_self(lib);

	if (dnn->device)
		dnn->f.cudnnBackendDestroyDescriptor(dnn->device);
	if (dnn->handle)
		dnn->f.cudnnDestroy(dnn->handle);
	free(dnn);
}

static const GpuLibOps dnn_ops = {
    .name = "cudnn",
    .close = dnn_close,
    .fits = dnn_fits,
    .build = dnn_build,
    .run = dnn_run,
    .save = dnn_save,
    .drop = dnn_drop,
};

static DfxStatus
dnn_new_lib(DnnLib **out, DfxErr *err)
{
	DnnLib *dnn = calloc(1, sizeof *dnn);

	*out = NULL;
	if (!dnn)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for cuDNN");
	dnn->lib.ops = &dnn_ops;
#define DNN_FIND(name)                                                                                       \
	dnn->f.name = (__typeof__(dnn->f.name)) gpu_load_dnn(#name);                                             \
	if (!dnn->f.name)                                                                                        \
	{                                                                                                        \
		free(dnn);                                                                                           \
		return dfx_fail(err, DFX_EDEVICE, "cuDNN has no function %s", #name);                                \
	}
	DNN_FUNCTIONS(DNN_FIND)
	*out = dnn;
	return DFX_OK;
}

DfxStatus
gpu_dnn_open(GpuRt *rt, GpuLib **lib, DfxErr *err)
{
	size_t used = strlen(rt->versions), version;
	DnnLib *dnn;
	DfxStatus st = dnn_new_lib(&dnn, err);
	cudnnStatus_t s;

	*lib = NULL;
	if (st != DFX_OK)
		return st;
	s = dnn->f.cudnnCreate(&dnn->handle);
	if (s == CUDNN_STATUS_SUCCESS)
		s = dnn->f.cudnnSetStream(dnn->handle, rt->stream);
	if (s != CUDNN_STATUS_SUCCESS)
	{
		dfx_fail(err, DFX_EDEVICE, "cuDNN does not start: %s", dnn->f.cudnnGetErrorString(s));
		dnn_close(&dnn->lib);
		return DFX_EDEVICE;
	}
	version = dnn->f.cudnnGetVersion();
	snprintf(rt->versions + used, sizeof rt->versions - used, ", cuDNN %zu.%zu.%zu", version / 10000,
	         version / 100 % 100, version % 100);
	*lib = &dnn->lib;
	return DFX_OK;
}

DfxStatus
gpu_dnn_open_described(const char *device, GpuLib **lib, DfxErr *err)
{
	DnnGraph g = {0};
	DnnLib *dnn;
	DfxStatus st = dnn_new_lib(&dnn, err);

	*lib = NULL;
	if (st != DFX_OK)
		return st;
	g.dnn = dnn;
	dnn->device = gpu_dnn_new(&g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
	gpu_dnn_set(&g, dnn->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
	            (int64_t) strlen(device), device, "a device's description");
	gpu_dnn_finalize(&g, dnn->device, "a device's description");
	st = dnn_fail(dnn, g.status, g.what, err);
	if (st == DFX_OK)
		*lib = &dnn->lib;
	else
		dnn_close(&dnn->lib);
	return st;
}
