/*
 * tensor.h
 *	  A named tensor as it lies in a file, a table or the ring: a view, never
 *	  an owner.  Byte order is little-endian, layout row-major (PyTorch's).
 */
#ifndef DFX_BASE_TENSOR_H
#define DFX_BASE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Values are stored in plans and replies: append only. */
typedef enum DfxDtype
{
	DFX_F32 = 0,
	DFX_F16,
	DFX_BF16,
	DFX_I64, /* num_batches_tracked; carried, never computed with */
	DFX_DTYPE_COUNT
} DfxDtype;

#define DFX_MAX_RANK 8
#define DFX_NAME_LEN 128 /* with its NUL; longer names are refused */

typedef struct DfxTensor
{
	char name[DFX_NAME_LEN];
	DfxDtype dtype;
	uint32_t rank; /* 0 for a scalar */
	uint64_t dim[DFX_MAX_RANK];
	const void *data; /* NULL when only described */
	uint64_t nbytes;  /* product of dim x size of dtype */
} DfxTensor;

/* safetensors' spelling: "F32", "F16", "BF16", "I64". */
extern const char *dfx_dtype_name(DfxDtype dtype);
extern bool dfx_dtype_parse(const char *name, size_t len, DfxDtype *dtype);
extern size_t dfx_dtype_size(DfxDtype dtype);

/* Elements and bytes with overflow checked; false on overflow. */
extern bool dfx_tensor_count(const DfxTensor *t, uint64_t *elements, uint64_t *nbytes);

/* Convert n elements of t (F32, F16, BF16) from the element offset first to float; false for other dtypes. */
extern bool dfx_tensor_to_f32(const DfxTensor *t, uint64_t first, uint64_t n, float *out);

/*
 * n floats as F32, F16 or BF16, rounded to the nearest, halves to even; false
 * for other dtypes, and when a finite number became infinite.
 */
extern bool dfx_tensor_of_f32(DfxDtype dtype, const float *in, uint64_t n, void *out);

/* For qsort: tensors in byte order of name. */
extern int dfx_tensor_compare(const void *a, const void *b);

#endif /* DFX_BASE_TENSOR_H */
