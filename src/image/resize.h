/*
 * resize.h
 *	  The seam between the resize driver and its kernels; private to src/image
 *	  and to the test that holds the kernels against each other.
 */
#ifndef DFX_IMAGE_RESIZE_H
#define DFX_IMAGE_RESIZE_H

#include "image/image.h"

/* Rows the horizontal kernel takes at once, so that coefficients are loaded once for all of them. */
#define DFX_RESIZE_ROWS 4

/* Bytes the horizontal kernel may read (not use) after the last byte of a row. */
#define DFX_RESIZE_SLACK 16

/* Taps per group of split coefficients. */
#define DFX_RESIZE_GROUP 4

/*
 * The filter along one axis: output i is the sum over j < count[i] of
 * input[start[i] + j] * weight[i * taps + j], in 22-bit fixed point.
 *
 * split holds the same weights for 16-bit multipliers, weight = high * 2^15 +
 * low: for each output taps/4 groups of 8 numbers, the low halves of 4 taps
 * and then their high halves.  taps is a multiple of 4; unused taps are 0.
 */
typedef struct DfxResizeAxis
{
	uint32_t size; /* outputs */
	uint32_t taps;
	uint32_t *start, *count;
	int32_t *weight;
	int16_t *split;
} DfxResizeAxis;

typedef struct DfxResizeKernels
{
	const char *name;

	/* Filter DFX_RESIZE_ROWS rows of RGB along x; each src row may be read DFX_RESIZE_SLACK too far. */
	void (*along_x)(const DfxResizeAxis *axis, const uint8_t *const src[DFX_RESIZE_ROWS],
	                uint8_t *const dst[DFX_RESIZE_ROWS]);

	/* Output i of the axis along y: row[j] is input row start[i] + j, nbytes long. */
	void (*along_y)(const DfxResizeAxis *axis, uint32_t i, const uint8_t *const *row, size_t nbytes,
	                uint8_t *dst);
} DfxResizeKernels;

/* The plain loops, which are Pillow's; what the CPU allows beyond them (NULL: nothing); the better of both.
 */
extern const DfxResizeKernels dfx_resize_scalar;
extern const DfxResizeKernels *dfx_resize_avx2(void);
extern const DfxResizeKernels *dfx_resize_best(void);

/* A resize in progress: source rows go in one by one, finished rows of the result appear in dst. */
typedef struct DfxResizer
{
	const DfxResizeKernels *kernels;
	DfxResizeAxis x, y; /* size 0 where that side stays as it is */
	uint32_t src_height, height;
	size_t src_bytes, dst_bytes; /* of a row */
	uint8_t *dst;

	uint8_t *staged; /* room for a batch of source rows, each with slack */
	const uint8_t *batch[DFX_RESIZE_ROWS];
	uint32_t nbatch;

	uint8_t *ring; /* rows filtered along x: row i lies in slot i % slots */
	uint32_t slots;
	uint32_t made;         /* rows filtered along x so far */
	uint32_t written;      /* rows of the result so far */
	const uint8_t **reach; /* the rows under one output of the y axis */
} DfxResizer;

/* dst: height x width x 3 bytes.  DFX_EINVAL for an empty size, DFX_ENOMEM.  dfx_resizer_end() also after
 * failure. */
extern DfxStatus
dfx_resizer_begin(DfxResizer *r, const DfxResizeKernels *kernels, uint32_t src_width, uint32_t src_height,
                  uint32_t width, uint32_t height, uint8_t *dst, DfxErr *err);

/* Where to write the next source row; commit when it is written. */
extern uint8_t *dfx_resizer_row(DfxResizer *r);
extern void dfx_resizer_commit(DfxResizer *r);

/* Instead of row and commit: a row that stays valid until the end and may be read DFX_RESIZE_SLACK too far.
 */
extern void dfx_resizer_lend(DfxResizer *r, const uint8_t *row);

extern void dfx_resizer_end(DfxResizer *r);

/* dfx_image_resize() with kernels of the caller's choice. */
extern DfxStatus dfx_resize_with(const DfxResizeKernels *kernels, const DfxImage *src, uint32_t width,
                                 uint32_t height, uint8_t *dst, DfxErr *err);

/* 22-bit fixed point to a byte. */
#define DFX_RESIZE_BITS 22
#define DFX_RESIZE_HALF (1 << (DFX_RESIZE_BITS - 1))

static inline uint8_t
dfx_resize_clip(int32_t sum)
{
	sum >>= DFX_RESIZE_BITS;
	return (uint8_t) (sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

#endif /* DFX_IMAGE_RESIZE_H */
