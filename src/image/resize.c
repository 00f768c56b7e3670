/*
 * resize.c
 *	  Pillow's antialiased bilinear resize (libImaging/Resample.c), bit for bit.
 *
 * What makes it bit-exact: weights are computed and normalised in double in
 * Pillow's order of operations, rounded to 22-bit fixed point, the horizontal
 * pass comes first and its result is rounded to 8 bits, and a pass whose size
 * does not change is skipped.
 *
 * What is ours: Pillow keeps the whole image between the passes.  Here rows
 * are filtered along x just before the y pass needs them and wait in a ring of
 * as many rows as one output can reach, which stays in the cache and bounds
 * the memory for tall images.  The order of passes does not show in the
 * result, so this is the same function.
 *
 * The inner loops are kernels (resize.h): plain ones here, the oracle, and
 * vectorised ones chosen at run time.
 */
#include "image/resize.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- weights -------------------------------------------------------------------- */

static void
axis_free(DfxResizeAxis *a)
{
	free(a->start);
	free(a->count);
	free(a->weight);
	free(a->split);
}

/* Tent of half-width 1. */
static double
axis_tent(double x)
{
	if (x < 0.0)
		x = -x;
	return x < 1.0 ? 1.0 - x : 0.0;
}

/* The weights of output i, into weight[]; real[] is room for as many doubles. */
static void
axis_output(DfxResizeAxis *a, uint32_t i, uint32_t in_size, double *real)
{
	double scale = (double) in_size / a->size;
	double widen = scale < 1.0 ? 1.0 : scale; /* enlarging does not narrow the filter */
	double centre = (i + 0.5) * scale;
	double inverse = 1.0 / widen;
	double total = 0.0;
	int64_t first = (int64_t) (centre - widen + 0.5); /* truncates, as Pillow's cast does */
	int64_t end = (int64_t) (centre + widen + 0.5);
	int32_t *weight = a->weight + (size_t) i * a->taps;
	uint32_t n;

	if (first < 0)
		first = 0;
	if (end > (int64_t) in_size)
		end = in_size;
	n = (uint32_t) (end - first);
	for (uint32_t j = 0; j < n; j++)
	{
		/* Evaluated as Pillow does, (x + xmin - center + 0.5) * ss: doubles do not associate. */
		real[j] = axis_tent(((double) (int64_t) (j + first) - centre + 0.5) * inverse);
		total += real[j];
	}
	for (uint32_t j = 0; j < n; j++)
	{
		if (total != 0.0)
			real[j] /= total;
		weight[j] = (int32_t) (0.5 + real[j] * (1 << DFX_RESIZE_BITS));
	}
	a->start[i] = (uint32_t) first;
	a->count[i] = n;
}

static void
axis_split(DfxResizeAxis *a)
{
	size_t groups = (size_t) a->size * (a->taps / DFX_RESIZE_GROUP);

	for (size_t g = 0; g < groups; g++)
		for (int j = 0; j < DFX_RESIZE_GROUP; j++)
		{
			int32_t w = a->weight[g * DFX_RESIZE_GROUP + j];

			a->split[g * 8 + j] = (int16_t) (w & 0x7fff);
			a->split[g * 8 + 4 + j] = (int16_t) (w >> 15);
		}
}

static DfxStatus
axis_init(DfxResizeAxis *a, uint32_t in_size, uint32_t out_size, DfxErr *err)
{
	double widen = in_size > out_size ? (double) in_size / out_size : 1.0;
	uint64_t taps = (uint64_t) ceil(widen) * 2 + 1;
	uint64_t weights;
	double *real = NULL;

	memset(a, 0, sizeof *a);
	taps = (taps + DFX_RESIZE_GROUP - 1) / DFX_RESIZE_GROUP * DFX_RESIZE_GROUP;
	a->size = out_size;
	a->taps = (uint32_t) taps;
	if (taps <= UINT32_MAX && !__builtin_mul_overflow(taps, (uint64_t) out_size, &weights) &&
	    weights <= SIZE_MAX / sizeof(double))
	{
		real = malloc((size_t) taps * sizeof *real);
		a->start = malloc((size_t) out_size * sizeof *a->start);
		a->count = malloc((size_t) out_size * sizeof *a->count);
		a->weight = calloc((size_t) weights, sizeof *a->weight);
		a->split = malloc((size_t) weights * 2 * sizeof *a->split);
	}
	if (!real || !a->start || !a->count || !a->weight || !a->split)
	{
		free(real);
		axis_free(a);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the weights to resize %" PRIu32 " to %" PRIu32,
		                in_size, out_size);
	}
	for (uint32_t i = 0; i < out_size; i++)
		axis_output(a, i, in_size, real);
	axis_split(a);
	free(real);
	return DFX_OK;
}

/* --- the plain kernels ------------------------------------------------------------- */

static void
scalar_along_x(const DfxResizeAxis *a, const uint8_t *const src[DFX_RESIZE_ROWS],
               uint8_t *const dst[DFX_RESIZE_ROWS])
{
	for (int r = 0; r < DFX_RESIZE_ROWS; r++)
		for (uint32_t i = 0; i < a->size; i++)
		{
			const uint8_t *p = src[r] + (size_t) a->start[i] * 3;
			const int32_t *w = a->weight + (size_t) i * a->taps;
			int32_t red = DFX_RESIZE_HALF, green = DFX_RESIZE_HALF, blue = DFX_RESIZE_HALF;

			for (uint32_t j = 0; j < a->count[i]; j++, p += 3)
			{
				red += p[0] * w[j];
				green += p[1] * w[j];
				blue += p[2] * w[j];
			}
			dst[r][3 * (size_t) i] = dfx_resize_clip(red);
			dst[r][3 * (size_t) i + 1] = dfx_resize_clip(green);
			dst[r][3 * (size_t) i + 2] = dfx_resize_clip(blue);
		}
}

static void
scalar_along_y(const DfxResizeAxis *a, uint32_t i, const uint8_t *const *row, size_t nbytes, uint8_t *dst)
{
	const int32_t *w = a->weight + (size_t) i * a->taps;

	for (size_t x = 0; x < nbytes; x++)
	{
		int32_t sum = DFX_RESIZE_HALF;

		for (uint32_t j = 0; j < a->count[i]; j++)
			sum += row[j][x] * w[j];
		dst[x] = dfx_resize_clip(sum);
	}
}

const DfxResizeKernels dfx_resize_scalar = {"scalar", scalar_along_x, scalar_along_y};

/* --- the driver ----------------------------------------------------------------------- */

/*
 * Source rows filtered along x, kept in a ring: row y lies in slot y % slots.
 * Rows are made in order, DFX_RESIZE_ROWS at a time, each once.
 */
typedef struct RowRing
{
	const DfxResizeKernels *kernels;
	const DfxImage *src;
	const DfxResizeAxis *axis; /* along x; NULL when the width stays: rows are the source's own */
	uint8_t *rows;
	uint32_t slots;
	size_t nbytes;   /* of a row made */
	uint32_t next;   /* first source row not made yet */
	uint8_t *padded; /* copies of the last source rows, with slack behind them */
} RowRing;

static const uint8_t *
ring_row(const RowRing *ring, uint32_t y)
{
	if (!ring->axis)
		return ring->src->pixels + (size_t) y * ring->nbytes;
	return ring->rows + (size_t) (y % ring->slots) * ring->nbytes;
}

/* Make rows until end is not beyond what is made. */
static void
ring_advance(RowRing *ring, uint32_t end)
{
	size_t stride = (size_t) ring->src->width * 3;
	size_t total = stride * ring->src->height;

	if (!ring->axis)
		return;
	while (ring->next < end)
	{
		const uint8_t *from[DFX_RESIZE_ROWS];
		uint8_t *to[DFX_RESIZE_ROWS];

		for (uint32_t r = 0; r < DFX_RESIZE_ROWS; r++)
		{
			/* Past the last row the kernel repeats it, into the slot it has. */
			uint32_t y = ring->next + r < ring->src->height ? ring->next + r : ring->src->height - 1;
			size_t offset = y * stride;

			from[r] = ring->src->pixels + offset;
			if (offset + stride + DFX_RESIZE_SLACK > total)
			{
				/* Reading on after this row would leave the image: read a copy that has room. */
				uint8_t *copy = ring->padded + r * (stride + DFX_RESIZE_SLACK);

				memcpy(copy, from[r], stride);
				from[r] = copy;
			}
			to[r] = ring->rows + (size_t) (y % ring->slots) * ring->nbytes;
		}
		ring->kernels->along_x(ring->axis, from, to);
		ring->next += DFX_RESIZE_ROWS;
	}
}

/* Both passes, or one of them; y is NULL when the height stays. */
static DfxStatus
resize_run(RowRing *ring, const DfxResizeAxis *y, uint8_t *dst, DfxErr *err)
{
	uint32_t reach = y ? y->taps : 1;
	size_t stride = (size_t) ring->src->width * 3;
	const uint8_t **row = malloc(reach * sizeof *row);
	DfxStatus status = DFX_OK;

	/* One output reaches at most taps rows back, and the ring runs at most a batch of rows ahead. */
	ring->slots = reach + DFX_RESIZE_ROWS;
	if (ring->axis)
	{
		ring->rows = malloc(ring->slots * ring->nbytes);
		ring->padded = calloc(DFX_RESIZE_ROWS, stride + DFX_RESIZE_SLACK);
	}
	if (!row || (ring->axis && (!ring->rows || !ring->padded)))
		status =
		    dfx_fail(err, DFX_ENOMEM, "out of memory for %" PRIu32 " rows of a resized image", ring->slots);
	else if (y)
	{
		ring->next = y->start[0]; /* rows before it are never used */
		for (uint32_t i = 0; i < y->size; i++)
		{
			ring_advance(ring, y->start[i] + y->count[i]);
			for (uint32_t j = 0; j < y->count[i]; j++)
				row[j] = ring_row(ring, y->start[i] + j);
			ring->kernels->along_y(y, i, row, ring->nbytes, dst + i * ring->nbytes);
		}
	}
	else
		for (uint32_t i = 0; i < ring->src->height; i++)
		{
			ring_advance(ring, i + 1);
			memcpy(dst + i * ring->nbytes, ring_row(ring, i), ring->nbytes);
		}
	free(row);
	free(ring->rows);
	free(ring->padded);
	return status;
}

DfxStatus
dfx_resize_with(const DfxResizeKernels *kernels, const DfxImage *src, uint32_t width, uint32_t height,
                uint8_t *dst, DfxErr *err)
{
	DfxResizeAxis x = {0}, y = {0};
	RowRing ring = {.kernels = kernels, .src = src, .nbytes = (size_t) width * 3};
	bool resize_x = width != src->width, resize_y = height != src->height;
	DfxStatus status = DFX_OK;

	if (width == 0 || height == 0 || src->width == 0 || src->height == 0)
		return dfx_fail(err, DFX_EINVAL, "cannot resize %" PRIu32 " x %" PRIu32 " to %" PRIu32 " x %" PRIu32,
		                src->width, src->height, width, height);
	if (resize_x)
		status = axis_init(&x, src->width, width, err);
	if (status == DFX_OK && resize_y)
		status = axis_init(&y, src->height, height, err);
	if (status == DFX_OK)
	{
		ring.axis = resize_x ? &x : NULL;
		status = resize_run(&ring, resize_y ? &y : NULL, dst, err);
	}
	axis_free(&x);
	axis_free(&y);
	return status;
}

DfxStatus
dfx_image_resize(const DfxImage *src, uint32_t width, uint32_t height, uint8_t *dst, DfxErr *err)
{
	const DfxResizeKernels *fast = dfx_resize_avx2();

	return dfx_resize_with(fast ? fast : &dfx_resize_scalar, src, width, height, dst, err);
}
