/*
 * cublaslt.c
 *	  A libcublasLt.so.13 for test_cuda_lt.c: the functions that cuda/lt.c uses,
 *	  doing on the host what NVIDIA's documentation ("cuBLAS", "Using the
 *	  cuBLASLt API") says of them, in plain loops.
 *
 * It is as strict as the real one may be: an algorithm that the heuristic gave
 * for matrices so and so aligned is refused for others, and workspace beyond
 * what was allowed is not there.
 */
#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

/* The status of all products, for tests. */
__attribute__((visibility("default"))) cublasStatus_t stub_matmul_status = CUBLAS_STATUS_SUCCESS;

/* What hides behind the opaque handles. */
typedef struct Layout
{
	cudaDataType type;
	uint64_t rows, cols;
	int64_t ld;
} Layout;

typedef struct Desc
{
	cublasComputeType_t compute;
	cudaDataType_t scale;
	cublasOperation_t transa, transb;
	cublasLtEpilogue_t epilogue;
	const void *bias;
} Desc;

typedef struct Preference
{
	size_t work;
	uint32_t align[4]; /* of A, B, C, D */
} Preference;

size_t
cublasLtGetVersion(void)
{
	return 130100;
}

const char *
cublasLtGetStatusString(cublasStatus_t status)
{
	return status == CUBLAS_STATUS_NOT_SUPPORTED   ? "not supported"
	       : status == CUBLAS_STATUS_INVALID_VALUE ? "invalid value"
	                                               : "another status";
}

cublasStatus_t
cublasLtCreate(cublasLtHandle_t *handle)
{
	*handle = malloc(1);
	return *handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

cublasStatus_t
cublasLtDestroy(cublasLtHandle_t handle)
{
	free(handle);
	return CUBLAS_STATUS_SUCCESS;
}

/* ---- descriptors ---- */

/* What a handle hides, as a copy of its own. */
static cublasStatus_t
hide(void *handle, const void *from, size_t size)
{
	void *copy = malloc(size);

	if (!copy)
		return CUBLAS_STATUS_ALLOC_FAILED;
	memcpy(copy, from, size);
	memcpy(handle, &copy, sizeof copy);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType_t scale)
{
	Desc d = {.compute = compute, .scale = scale, .epilogue = CUBLASLT_EPILOGUE_DEFAULT};

	return hide(desc, &d, sizeof d);
}

cublasStatus_t
cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
	free(desc);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                               const void *value, size_t size)
{
	Desc *d = (Desc *) (void *) desc;
	struct
	{
		cublasLtMatmulDescAttributes_t attribute;
		void *to;
		size_t size;
	} known[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &d->transa, sizeof d->transa},
	             {CUBLASLT_MATMUL_DESC_TRANSB, &d->transb, sizeof d->transb},
	             {CUBLASLT_MATMUL_DESC_EPILOGUE, &d->epilogue, sizeof d->epilogue},
	             {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &d->bias, sizeof d->bias}};

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (known[i].attribute == attribute && known[i].size == size)
		{
			memcpy(known[i].to, value, size);
			return CUBLAS_STATUS_SUCCESS;
		}
	return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t
cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type, uint64_t rows, uint64_t cols,
                           int64_t ld)
{
	Layout l = {type, rows, cols, ld};

	return hide(layout, &l, sizeof l);
}

cublasStatus_t
cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
	free(layout);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
	Preference p = {0, {256, 256, 256, 256}};

	return hide(preference, &p, sizeof p);
}

cublasStatus_t
cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
	free(preference);
	return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                     cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                     size_t size)
{
	Preference *p = (Preference *) (void *) preference;
	int matrix = (int) attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;

	if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && size == sizeof p->work)
		memcpy(&p->work, value, size);
	else if (matrix >= 0 && matrix < 4 && size == sizeof p->align[0])
		memcpy(&p->align[matrix], value, size);
	else
		return CUBLAS_STATUS_INVALID_VALUE;
	return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ---- */

/* An algorithm, in the room that callers have for one. */
typedef struct Algo
{
	uint32_t align[4];
	size_t work;
} Algo;

_Static_assert(sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm fits");

/* Of one type, a transposed, and dimensions that fit together. */
static int
is_sound(const Desc *d, const Layout *a, const Layout *b, const Layout *c, const Layout *y)
{
	return d->compute == CUBLAS_COMPUTE_32F && d->scale == CUDA_R_32F && d->transa == CUBLAS_OP_T &&
	       d->transb == CUBLAS_OP_N && (a->type == CUDA_R_16F || a->type == CUDA_R_16BF) &&
	       a->type == b->type && a->type == c->type && a->type == y->type && a->rows == b->rows &&
	       y->rows == a->cols && y->cols == b->cols && c->rows == y->rows && c->cols == y->cols &&
	       a->ld >= (int64_t) a->rows && b->ld >= (int64_t) b->rows && c->ld >= (int64_t) c->rows &&
	       y->ld >= (int64_t) y->rows;
}

cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                               cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t y,
                               cublasLtMatmulPreference_t preference, int wanted,
                               cublasLtMatmulHeuristicResult_t result[], int *found)
{
	const Preference *p = (const Preference *) (const void *) preference;
	Algo algo = {.work = p->work};

	(void) handle;
	*found = 0;
	if (wanted < 1 || !is_sound((Desc *) (void *) desc, (Layout *) (void *) a, (Layout *) (void *) b,
	                            (Layout *) (void *) c, (Layout *) (void *) y))
		return CUBLAS_STATUS_INVALID_VALUE;
	memcpy(algo.align, p->align, sizeof algo.align);
	memset(result, 0, sizeof *result);
	memcpy(&result->algo, &algo, sizeof algo);
	result->state = CUBLAS_STATUS_SUCCESS;
	result->workspaceSize = p->work;
	*found = 1;
	return CUBLAS_STATUS_SUCCESS;
}

static float
get(const void *p, cudaDataType type, uint64_t i)
{
	uint32_t bits;
	float f;

	if (type == CUDA_R_16F)
		return (float) ((const _Float16 *) p)[i];
	bits = (uint32_t) ((const uint16_t *) p)[i] << 16;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static void
put(void *p, cudaDataType type, uint64_t i, float f)
{
	uint32_t bits;

	if (type == CUDA_R_16F)
	{
		((_Float16 *) p)[i] = (_Float16) f;
		return;
	}
	memcpy(&bits, &f, sizeof bits);
	((uint16_t *) p)[i] = (uint16_t) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Column-major: element (row, column) at row + column * ld. */
static void
multiply(const Desc *d, float alpha, float beta, const void *const at[3], void *y, const Layout *const l[4])
{
	for (uint64_t j = 0; j < l[3]->cols; j++)
		for (uint64_t i = 0; i < l[3]->rows; i++)
		{
			uint64_t in_c = i + j * (uint64_t) l[2]->ld;
			float sum = 0;

			for (uint64_t k = 0; k < l[0]->rows; k++)
				sum += get(at[0], l[0]->type, k + i * (uint64_t) l[0]->ld) *
				       get(at[1], l[1]->type, k + j * (uint64_t) l[1]->ld);
			sum = alpha * sum + (beta != 0 ? beta * get(at[2], l[2]->type, in_c) : 0);
			if (d->epilogue & CUBLASLT_EPILOGUE_BIAS)
				sum += get(d->bias, l[3]->type, i);
			if ((d->epilogue & CUBLASLT_EPILOGUE_RELU) && !(sum > 0))
				sum = 0;
			put(y, l[3]->type, i + j * (uint64_t) l[3]->ld, sum);
		}
}

cublasStatus_t
cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
               cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb, const void *beta,
               const void *c, cublasLtMatrixLayout_t lc, void *y, cublasLtMatrixLayout_t ly,
               const cublasLtMatmulAlgo_t *chosen, void *work, size_t work_bytes, cudaStream_t stream)
{
	const Desc *d = (const Desc *) (const void *) desc;
	const Layout *const l[4] = {(Layout *) (void *) la, (Layout *) (void *) lb, (Layout *) (void *) lc,
	                            (Layout *) (void *) ly};
	const void *const at[3] = {a, b, c}, *const all[4] = {a, b, c, y};
	Algo algo;

	(void) handle;
	(void) stream;
	memcpy(&algo, chosen, sizeof algo);
	if (!is_sound(d, l[0], l[1], l[2], l[3]) || work_bytes < algo.work || (algo.work > 0 && !work) ||
	    ((d->epilogue & CUBLASLT_EPILOGUE_BIAS) && !d->bias))
		return CUBLAS_STATUS_INVALID_VALUE;
	if (c == y && l[2]->ld != l[3]->ld) /* in place their layouts must be one */
		return CUBLAS_STATUS_INVALID_VALUE;
	for (int i = 0; i < 4; i++)
		if ((uintptr_t) all[i] % algo.align[i] != 0)
			return CUBLAS_STATUS_INVALID_VALUE;
	if (stub_matmul_status != CUBLAS_STATUS_SUCCESS)
		return stub_matmul_status;
	multiply(d, *(const float *) alpha, *(const float *) beta, at, y, l);
	return CUBLAS_STATUS_SUCCESS;
}
