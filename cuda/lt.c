/*
 * lt.c
 *	  1x1 convolutions and linear layers by cuBLASLt.
 *
 * Rows of channels are the columns of cuBLAS's column-major matrices, so with
 * W (co x ci, row-major) and X (rows of ci, ldx apart) the call is
 *		Y (co x rows) = W' transposed (co x ci) X (ci x rows) + C
 * where C is the residual, if there is one, and the epilogue adds the bias and
 * cuts at zero.  Channel ranges of larger values are leading dimensions.
 * Documentation: cuBLAS library, "cublasLtMatmul()".
 */
#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/load.h"

/* The functions that are used, by their own names. */
#define LT_FUNCTIONS(f)                                                                                      \
	f(cublasLtCreate) f(cublasLtDestroy) f(cublasLtGetVersion) f(cublasLtGetStatusString) f(cublasLtMatmul)  \
	    f(cublasLtMatmulDescCreate) f(cublasLtMatmulDescDestroy) f(cublasLtMatmulDescSetAttribute)           \
	        f(cublasLtMatrixLayoutCreate) f(cublasLtMatrixLayoutDestroy) f(cublasLtMatmulPreferenceCreate)   \
	            f(cublasLtMatmulPreferenceDestroy) f(cublasLtMatmulPreferenceSetAttribute)                   \
	                f(cublasLtMatmulAlgoGetHeuristic)
#define LT_POINTER(name) __typeof__(&name) name;

typedef struct LtLib
{
	GpuLib lib;
	cublasLtHandle_t handle;
	struct
	{
		LT_FUNCTIONS(LT_POINTER)
	} f;
} LtLib;

typedef struct LtPlan
{
	cublasLtMatmulDesc_t op;
	cublasLtMatrixLayout_t w, x, c, y;
	cublasLtMatmulAlgo_t algo;
	bool add;
} LtPlan;

/*
 * What lt_fits() asks of operands.  The library supposes 256 unless it is told,
 * and an algorithm that counts on them faults on a channel range that begins
 * elsewhere; weights do begin at multiples of 256.
 */
#define LT_ALIGN 16u

static LtLib *
lt_self(GpuLib *lib)
{
	return (LtLib *) (void *) lib;
}

static DfxStatus
lt_fail(const LtLib *lt, cublasStatus_t s, const char *what, DfxErr *err)
{
	DfxStatus st = s == CUBLAS_STATUS_ALLOC_FAILED       ? DFX_ENOMEM
	               : s == CUBLAS_STATUS_EXECUTION_FAILED ? DFX_EDEVICE
	                                                     : DFX_EUNSUPPORTED;

	return s == CUBLAS_STATUS_SUCCESS
	           ? DFX_OK
	           : dfx_fail(err, st, "cuBLASLt: %s: %s", what, lt->f.cublasLtGetStatusString(s));
}

static bool
lt_aligned(const void *p)
{
	return (uintptr_t) p % LT_ALIGN == 0;
}

static bool
lt_fits(const GpuConvArgs *a, GpuType type)
{
	return type != GPU_F32 && a->uh <= 1 && a->uw <= 1 && a->groups == 1 && a->kh == 1 && a->kw == 1 &&
	       a->sh == 1 && a->sw == 1 && a->ph == 0 && a->pw == 0 && !a->pre_scale && !a->epi.scale &&
	       (a->epi.act == GPU_ACT_NONE || a->epi.act == GPU_ACT_RELU) && a->ci % 8 == 0 && a->co % 8 == 0 &&
	       a->ldx % 8 == 0 && a->ldy % 8 == 0 && a->epi.ldadd % 8 == 0 && lt_aligned(a->x) &&
	       lt_aligned(a->y) && lt_aligned(a->epi.add);
}

static void
lt_drop(GpuLib *lib, void *plan)
{
	LtLib *lt = lt_self(lib);
	LtPlan *p = plan;

	if (p->op)
		lt->f.cublasLtMatmulDescDestroy(p->op);
	if (p->w)
		lt->f.cublasLtMatrixLayoutDestroy(p->w);
	if (p->x)
		lt->f.cublasLtMatrixLayoutDestroy(p->x);
	if (p->c)
		lt->f.cublasLtMatrixLayoutDestroy(p->c);
	if (p->y)
		lt->f.cublasLtMatrixLayoutDestroy(p->y);
	free(p);
}

/* What is multiplied, and the epilogue; the bias's address comes with each run. */
static cublasStatus_t
lt_describe(LtLib *lt, const GpuConvArgs *a, cudaDataType_t type, size_t rows, LtPlan *p)
{
	cublasOperation_t transposed = CUBLAS_OP_T;
	cublasLtEpilogue_t epilogue =
	    a->epi.act == GPU_ACT_RELU ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
	int64_t ldc = p->add ? a->epi.ldadd : a->ldy;
	uint64_t ci = (uint64_t) a->ci, co = (uint64_t) a->co;
	cublasStatus_t s = lt->f.cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);

	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt->f.cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
		                                         sizeof transposed);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt->f.cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
		                                         sizeof epilogue);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt->f.cublasLtMatrixLayoutCreate(&p->w, type, ci, co, (int64_t) ci);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt->f.cublasLtMatrixLayoutCreate(&p->x, type, ci, rows, a->ldx);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt->f.cublasLtMatrixLayoutCreate(&p->c, type, co, rows, ldc);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt->f.cublasLtMatrixLayoutCreate(&p->y, type, co, rows, a->ldy);
	return s;
}

static cublasStatus_t
lt_bias(LtLib *lt, LtPlan *p, const void *bias)
{
	return lt->f.cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
}

/* How much workspace there is, and how operands are aligned. */
static cublasStatus_t
lt_prefer(LtLib *lt, cublasLtMatmulPreference_t preference)
{
	static const cublasLtMatmulPreferenceAttributes_t operand[] = {
	    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
	    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
	uint64_t work = GPU_WORK_BYTES;
	uint32_t align = LT_ALIGN;
	cublasStatus_t s = lt->f.cublasLtMatmulPreferenceSetAttribute(
	    preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &work, sizeof work);

	for (size_t i = 0; s == CUBLAS_STATUS_SUCCESS && i < sizeof operand / sizeof operand[0]; i++)
		s = lt->f.cublasLtMatmulPreferenceSetAttribute(preference, operand[i], &align, sizeof align);
	return s;
}

/* The library's first suggestion. */
static cublasStatus_t
lt_suggest(LtLib *lt, LtPlan *p)
{
	cublasLtMatmulPreference_t preference = NULL;
	cublasLtMatmulHeuristicResult_t result;
	int found = 0;
	cublasStatus_t s = lt->f.cublasLtMatmulPreferenceCreate(&preference);

	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt_prefer(lt, preference);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt->f.cublasLtMatmulAlgoGetHeuristic(lt->handle, p->op, p->w, p->x, p->c, p->y, preference, 1,
		                                         &result, &found);
	if (preference)
		lt->f.cublasLtMatmulPreferenceDestroy(preference);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = found > 0 ? result.state : CUBLAS_STATUS_NOT_SUPPORTED;
	if (s == CUBLAS_STATUS_SUCCESS)
		p->algo = result.algo;
	return s;
}

static DfxStatus
lt_build(GpuLib *lib, const GpuConvArgs *a, const GpuProduct *product, GpuType type, int n, const char *saved,
         void **plan, DfxErr *err)
{
	LtLib *lt = lt_self(lib);
	LtPlan *p = calloc(1, sizeof *p);
	size_t rows = (size_t) n * (size_t) a->oh * (size_t) a->ow;
	cublasStatus_t s;

	(void) saved;
	*plan = NULL;
	if (!p)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	p->add = a->epi.add != NULL;
	s = lt_describe(lt, a, type == GPU_F16 ? CUDA_R_16F : CUDA_R_16BF, rows, p);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt_bias(lt, p, product->bias);
	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt_suggest(lt, p);
	if (s == CUBLAS_STATUS_SUCCESS)
		*plan = p;
	else
		lt_drop(lib, p);
	return lt_fail(lt, s, "making a plan", err);
}

static DfxStatus
lt_run(GpuLib *lib, void *plan, const GpuConvArgs *a, const GpuProduct *product, void *work, void *stream,
       DfxErr *err)
{
	LtLib *lt = lt_self(lib);
	LtPlan *p = plan;
	const float one = 1, zero = 0;
	cublasStatus_t s = lt_bias(lt, p, product->bias);

	if (s == CUBLAS_STATUS_SUCCESS)
		s = lt->f.cublasLtMatmul(lt->handle, p->op, &one, product->w, p->w, a->x, p->x, p->add ? &one : &zero,
		                         p->add ? a->epi.add : a->y, p->c, a->y, p->y, &p->algo, work, GPU_WORK_BYTES,
		                         stream);
	return lt_fail(lt, s, "a product", err);
}

static void
lt_close(GpuLib *lib)
{
	LtLib *lt = lt_self(lib);

	if (lt->handle)
		lt->f.cublasLtDestroy(lt->handle);
	free(lt);
}

static const GpuLibOps lt_ops = {
    .name = "cublaslt",
    .adds_in_place = true, /* C and D may be one matrix (cuBLAS library, "cublasLtMatmul()") */
    .close = lt_close,
    .fits = lt_fits,
    .build = lt_build,
    .run = lt_run,
    .drop = lt_drop,
};

DfxStatus
gpu_lt_open(GpuRt *rt, GpuLib **lib, DfxErr *err)
{
	LtLib *lt = calloc(1, sizeof *lt);
	size_t used = strlen(rt->versions), version;
	DfxStatus st;

	*lib = NULL;
	if (!lt)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for cuBLASLt");
	lt->lib.ops = &lt_ops;
#define LT_FIND(name)                                                                                        \
	lt->f.name = (__typeof__(lt->f.name)) gpu_load_lt(#name);                                                \
	if (!lt->f.name)                                                                                         \
	{                                                                                                        \
		lt_close(&lt->lib);                                                                                  \
		return dfx_fail(err, DFX_EDEVICE, "cuBLASLt has no function %s", #name);                             \
	}
	LT_FUNCTIONS(LT_FIND)
	st = lt_fail(lt, lt->f.cublasLtCreate(&lt->handle), "starting", err);
	if (st != DFX_OK)
	{
		lt_close(&lt->lib);
		return dfx_fail(err, DFX_EDEVICE, "cuBLASLt does not start");
	}
	version = lt->f.cublasLtGetVersion();
	snprintf(rt->versions + used, sizeof rt->versions - used, ", cuBLAS %zu.%zu", version / 10000,
	         version / 100 % 100);
	*lib = &lt->lib;
	return DFX_OK;
}
