/*
 * dnn.c
 *	  Convolutions by cuDNN's graph API, in plain C.
 *
 * An operation graph is conv, + bias, [+ residual], [ReLU]; what lies between
 * is virtual and fp32, so that one kernel does it all.  Heuristics list engine
 * configurations, best first; the first is taken that runs on tensor cores,
 * gives the same bits each time and needs no more workspace than there is.
 * The bias comes in half precision: with an fp32 one only kernels compiled at
 * run time are left.  A plan that was finalised can be written down as JSON and
 * made from it again in a millisecond.
 *
 * Instead of a handle the library may be opened on a description of a device
 * (gpu_dnn_open_described): then plans can be made, and tested, without a GPU.
 * Documentation: cuDNN, "Graph API", backend descriptor types.
 */
#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/load.h"

#define DNN_FUNCTIONS(f)                                                                                     \
	f(cudnnCreate) f(cudnnDestroy) f(cudnnSetStream) f(cudnnGetVersion) f(cudnnGetErrorString)               \
	    f(cudnnBackendCreateDescriptor) f(cudnnBackendDestroyDescriptor) f(cudnnBackendSetAttribute)         \
	        f(cudnnBackendGetAttribute) f(cudnnBackendFinalize) f(cudnnBackendExecute)
#define DNN_POINTER(name) __typeof__(&name) name;

#define DNN_CONFIGS 32 /* that heuristics may list */
#define DNN_TRIES   6  /* of which so many are built: some take seconds to compile */

typedef cudnnBackendDescriptor_t Desc;

typedef struct DnnLib
{
	GpuLib lib;
	cudnnHandle_t handle; /* NULL on a described device */
	Desc device;          /* the description, NULL on a real one */
	struct
	{
		DNN_FUNCTIONS(DNN_POINTER)
	} f;
} DnnLib;

typedef struct DnnPlan
{
	Desc plan;
	bool add;
} DnnPlan;

/* Unique ids of the tensors that have memory. */
enum
{
	DNN_X = 1,
	DNN_W,
	DNN_BIAS,
	DNN_ADD,
	DNN_Y,
	DNN_VIRTUAL
};

/* A graph being built; the first failure sticks, later calls do nothing. */
typedef struct DnnGraph
{
	DnnLib *dnn;
	Desc keep[96];
	int nkeep;
	Desc op[4];
	int nop;
	int64_t uid; /* of the next virtual tensor */
	cudnnStatus_t status;
	const char *what;
} DnnGraph;

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

/* ---- descriptors ---- */

static void
dnn_check(DnnGraph *g, cudnnStatus_t s, const char *what)
{
	if (g->status == CUDNN_STATUS_SUCCESS && s != CUDNN_STATUS_SUCCESS)
	{
		g->status = s;
		g->what = what;
	}
}

static Desc
dnn_new(DnnGraph *g, cudnnBackendDescriptorType_t type)
{
	Desc d = NULL;

	if (g->status != CUDNN_STATUS_SUCCESS)
		return NULL;
	if (g->nkeep == (int) (sizeof g->keep / sizeof g->keep[0]))
		dnn_check(g, CUDNN_STATUS_INTERNAL_ERROR, "too many descriptors");
	else
		dnn_check(g, g->dnn->f.cudnnBackendCreateDescriptor(type, &d), "creating a descriptor");
	if (d)
		g->keep[g->nkeep++] = d;
	return d;
}

static void
dnn_set(DnnGraph *g, Desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n,
        const void *value, const char *what)
{
	if (g->status == CUDNN_STATUS_SUCCESS)
		dnn_check(g, g->dnn->f.cudnnBackendSetAttribute(d, name, type, n, value), what);
}

static void
dnn_set_desc(DnnGraph *g, Desc d, cudnnBackendAttributeName_t name, Desc value, const char *what)
{
	dnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value, what);
}

static void
dnn_finalize(DnnGraph *g, Desc d, const char *what)
{
	if (g->status == CUDNN_STATUS_SUCCESS)
		dnn_check(g, g->dnn->f.cudnnBackendFinalize(d), what);
}

static void
dnn_free_graph(DnnGraph *g)
{
	while (g->nkeep > 0)
		g->dnn->f.cudnnBackendDestroyDescriptor(g->keep[--g->nkeep]);
}

/* dim and stride in the order n, c, h, w. */
static Desc
dnn_tensor(DnnGraph *g, int64_t uid, cudnnDataType_t type, const int64_t dim[4], const int64_t stride[4])
{
	Desc d = dnn_new(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
	int64_t align = 16;
	bool is_virtual = uid >= DNN_VIRTUAL;

	dnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, "a tensor's type");
	dnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim, "a tensor's dimensions");
	dnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride, "a tensor's strides");
	dnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, "a tensor's id");
	dnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align, "a tensor's alignment");
	dnn_set(g, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual, "a virtual tensor");
	dnn_finalize(g, d, "a tensor");
	return d;
}

/* Rows of c channels, ld apart; uid DNN_VIRTUAL: a new virtual one, in fp32. */
static Desc
dnn_rows(DnnGraph *g, int64_t uid, cudnnDataType_t type, int n, int c, int h, int w, int ld)
{
	int64_t dim[4] = {n, c, h, w}, stride[4] = {(int64_t) h * w * ld, 1, (int64_t) w * ld, ld};

	if (uid == DNN_VIRTUAL)
	{
		uid = g->uid++;
		type = CUDNN_DATA_FLOAT;
	}
	return dnn_tensor(g, uid, type, dim, stride);
}

/* ---- operations ---- */

static void
dnn_add_op(DnnGraph *g, Desc op, const char *what)
{
	dnn_finalize(g, op, what);
	g->op[g->nop++] = op;
}

static void
dnn_convolution(DnnGraph *g, const GpuConvArgs *a, Desc x, Desc w, Desc y)
{
	Desc c = dnn_new(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR), op;
	cudnnDataType_t compute = CUDNN_DATA_FLOAT;
	cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
	int64_t dims = 2, pad[2] = {a->ph, a->pw}, step[2] = {a->sh, a->sw}, dilation[2] = {1, 1};
	float one = 1, zero = 0;

	dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute, "a convolution");
	dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode, "a convolution");
	dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims, "a convolution");
	dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad, "a convolution's padding");
	dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad, "a convolution's padding");
	dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, step, "a convolution's stride");
	dnn_set(g, c, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation, "a convolution");
	dnn_finalize(g, c, "a convolution");

	op = dnn_new(g, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
	dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x, "a convolution's input");
	dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w, "a convolution's weights");
	dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y, "a convolution's output");
	dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, c, "a convolution");
	dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, &one, "alpha");
	dnn_set(g, op, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, &zero, "beta");
	dnn_add_op(g, op, "a convolution's operation");
}

/* y = x + b, or y = max(x, 0) when b is NULL. */
static void
dnn_pointwise(DnnGraph *g, Desc x, Desc b, Desc y)
{
	Desc p = dnn_new(g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR), op;
	cudnnPointwiseMode_t mode = b ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_RELU_FWD;
	cudnnDataType_t compute = CUDNN_DATA_FLOAT;

	dnn_set(g, p, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode, "a pointwise mode");
	dnn_set(g, p, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute, "a pointwise type");
	dnn_finalize(g, p, "a pointwise operation");

	op = dnn_new(g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
	dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, p, "a pointwise operation");
	dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x, "a pointwise input");
	if (b)
		dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b, "a pointwise input");
	dnn_set_desc(g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y, "a pointwise output");
	dnn_add_op(g, op, "a pointwise operation");
}

/* The whole: the operation graph, finalised. */
static Desc
dnn_graph(DnnGraph *g, const GpuConvArgs *a, cudnnDataType_t type, int n)
{
	int cig = a->ci / a->groups;
	int64_t wdim[4] = {a->co, cig, a->kh, a->kw};
	int64_t wstride[4] = {(int64_t) a->kh * a->kw * cig, 1, (int64_t) a->kw * cig, cig};
	bool relu = a->epi.act == GPU_ACT_RELU, add = a->epi.add != NULL;
	Desc x = dnn_rows(g, DNN_X, type, n, a->ci, a->ih, a->iw, a->ldx);
	Desc w = dnn_tensor(g, DNN_W, type, wdim, wstride);
	Desc bias = dnn_rows(g, DNN_BIAS, type, 1, a->co, 1, 1, a->co);
	Desc sum = dnn_rows(g, DNN_VIRTUAL, type, n, a->co, a->oh, a->ow, a->co);
	Desc y = dnn_rows(g, DNN_Y, type, n, a->co, a->oh, a->ow, a->ldy), at, graph;

	dnn_convolution(g, a, x, w, sum);
	at = relu || add ? dnn_rows(g, DNN_VIRTUAL, type, n, a->co, a->oh, a->ow, a->co) : y;
	dnn_pointwise(g, sum, bias, at);
	if (add)
	{
		Desc z = dnn_rows(g, DNN_ADD, type, n, a->co, a->oh, a->ow, a->epi.ldadd);
		Desc to = relu ? dnn_rows(g, DNN_VIRTUAL, type, n, a->co, a->oh, a->ow, a->co) : y;

		dnn_pointwise(g, at, z, to);
		at = to;
	}
	if (relu)
		dnn_pointwise(g, at, NULL, y);

	graph = dnn_new(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
	dnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->nop, g->op, "a graph");
	if (g->dnn->handle)
		dnn_set(g, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->dnn->handle, "a graph");
	dnn_finalize(g, graph, "an operation graph");
	return graph;
}

/* ---- plans ---- */

/* The configurations that heuristics list for a graph; how many. */
static int64_t
dnn_configs(DnnGraph *g, Desc graph, Desc config[DNN_CONFIGS])
{
	Desc heuristics = dnn_new(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
	cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
	int64_t n = 0;

	dnn_set_desc(g, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph, "heuristics");
	dnn_set(g, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, "heuristics");
	if (g->dnn->device)
		dnn_set_desc(g, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, g->dnn->device, "heuristics");
	dnn_finalize(g, heuristics, "heuristics");
	for (int i = 0; i < DNN_CONFIGS; i++)
		config[i] = dnn_new(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
	if (g->status == CUDNN_STATUS_SUCCESS)
		dnn_check(g,
		          g->dnn->f.cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
		                                             CUDNN_TYPE_BACKEND_DESCRIPTOR, DNN_CONFIGS, &n, config),
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
	Desc config[DNN_CONFIGS], plan = NULL, graph = dnn_graph(g, a, type, n);
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
		dnn_check(g, CUDNN_STATUS_NOT_SUPPORTED,
		          tries ? "no plan can be made" : "no engine for tensor cores");
	return plan;
}

static bool
dnn_aligned(const void *p)
{
	return (uintptr_t) p % 16 == 0;
}

static bool
dnn_fits(const GpuConvArgs *a, GpuType type)
{
	bool product = a->groups == 1 && a->kh == 1 && a->kw == 1 && a->sh == 1 && a->sw == 1 && a->ph == 0 &&
	               a->pw == 0; /* cuBLASLt's */

	return type != GPU_F32 && a->uh <= 1 && a->uw <= 1 && !product && !a->pre_scale && !a->epi.scale &&
	       (a->epi.act == GPU_ACT_NONE || a->epi.act == GPU_ACT_RELU) && a->ldx % 8 == 0 && a->ldy % 8 == 0 &&
	       a->co % 8 == 0 && a->ci % 8 == 0 && a->epi.ldadd % 8 == 0 && dnn_aligned(a->x) &&
	       dnn_aligned(a->y) && dnn_aligned(a->epi.add);
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
	if (saved[0])
		p->plan = dnn_plan(g.dnn, NULL, saved, &g.status);
	else
		p->plan = dnn_find_plan(&g, a, type == GPU_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16, n);
	st = p->plan ? DFX_OK : dnn_fail(g.dnn, g.status, g.what ? g.what : "a kept plan", err);
	dnn_free_graph(&g);
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
	int64_t uid[5] = {DNN_X, DNN_W, DNN_BIAS, DNN_Y, DNN_ADD};
	const void *pointer[5] = {a->x, product->w, product->bias, a->y, a->epi.add};
	Desc pack = dnn_new(&g, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
	int n = p->add ? 5 : 4;

	(void) stream; /* the handle's */
	dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, uid, "operands");
	dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointer, "operands");
	dnn_set(&g, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &work, "a workspace");
	dnn_finalize(&g, pack, "operands");
	if (g.status == CUDNN_STATUS_SUCCESS)
		dnn_check(&g, g.dnn->f.cudnnBackendExecute(g.dnn->handle, p->plan, pack), "a convolution");
	dnn_free_graph(&g);
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
	dnn->device = dnn_new(&g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
	dnn_set(&g, dnn->device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
	        (int64_t) strlen(device), device, "a device's description");
	dnn_finalize(&g, dnn->device, "a device's description");
	st = dnn_fail(dnn, g.status, g.what, err);
	if (st == DFX_OK)
		*lib = &dnn->lib;
	else
		dnn_close(&dnn->lib);
	return st;
}
