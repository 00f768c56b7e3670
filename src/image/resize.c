/*
 * resize.c
 *	  Pillow's antialiased bilinear resize (libImaging/Resample.c), bit for bit.
 *
 * What makes it bit-exact: weights are computed and normalised in double in
 * Pillow's order of operations, rounded to 22-bit fixed point, the horizontal
 * pass comes first and its result is rounded to 8 bits, and a pass whose size
 * does not change is skipped.
 *
 * What is ours: Pillow keeps the whole image before and between the passes.
 * Here source rows come one by one, are filtered along x and wait in a ring of
 * as many rows as one output can reach, which stays in the cache and bounds
 * the memory.  The order in which pixels are computed does not show in the
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
	memset(a, 0, sizeof *a);
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

const DfxResizeKernels *
dfx_resize_best(void)
{
	const DfxResizeKernels *fast = dfx_resize_avx2();

	return fast ? fast : &dfx_resize_scalar;
}

/* --- the driver ----------------------------------------------------------------------- */

static uint8_t *
resizer_slot(const DfxResizer *r, uint32_t row)
{
	return r->ring + (size_t) (row % r->slots) * r->dst_bytes;
}

/* Write every row of the result whose source rows are made. */
static void
resizer_emit(DfxResizer *r)
{
	for (; r->written < r->height; r->written++)
	{
		uint32_t i = r->written;
		uint8_t *dst = r->dst + (size_t) i * r->dst_bytes;

		if (r->y.size == 0)
		{
			if (i >= r->made)
				return;
			memcpy(dst, resizer_slot(r, i), r->dst_bytes);
			continue;
		}
		if (r->y.start[i] + r->y.count[i] > r->made)
			return;
		for (uint32_t j = 0; j < r->y.count[i]; j++)
			r->reach[j] = resizer_slot(r, r->y.start[i] + j);
		r->kernels->along_y(&r->y, i, r->reach, r->dst_bytes, dst);
	}
}

/* The batch is full, or the image ends with it: filter it along x. */
static void
resizer_run_batch(DfxResizer *r)
{
	const uint8_t *from[DFX_RESIZE_ROWS];
	uint8_t *to[DFX_RESIZE_ROWS];

	for (uint32_t k = 0; k < DFX_RESIZE_ROWS; k++)
	{
		/* The last batch may be short: its last row is done again, to the same place. */
		uint32_t row = k < r->nbatch ? k : r->nbatch - 1;

		from[k] = r->batch[row];
		to[k] = resizer_slot(r, r->made + row);
	}
	if (r->x.size > 0)
		r->kernels->along_x(&r->x, from, to);
	else
		for (uint32_t k = 0; k < r->nbatch; k++)
			memcpy(to[k], from[k], r->dst_bytes);
	r->made += r->nbatch;
	r->nbatch = 0;
	resizer_emit(r);
}

DfxStatus
dfx_resizer_begin(DfxResizer *r, const DfxResizeKernels *kernels, uint32_t src_width, uint32_t src_height,
                  uint32_t width, uint32_t height, uint8_t *dst, DfxErr *err)
{
	DfxStatus status = DFX_OK;
	uint32_t reach;

	*r = (DfxResizer){.kernels = kernels, .src_height = src_height, .height = height, .dst = dst};
	if (width == 0 || height == 0 || src_width == 0 || src_height == 0)
		return dfx_fail(err, DFX_EINVAL, "cannot resize %" PRIu32 " x %" PRIu32 " to %" PRIu32 " x %" PRIu32,
		                src_width, src_height, width, height);
	r->src_bytes = (size_t) src_width * 3;
	r->dst_bytes = (size_t) width * 3;
	if (width != src_width)
		status = axis_init(&r->x, src_width, width, err);
	if (status == DFX_OK && height != src_height)
		status = axis_init(&r->y, src_height, height, err);
	if (status != DFX_OK)
		return status;

	/*
	 * Before a batch is made, all outputs within the rows made were written;
	 * the next one reaches back less than its taps, the batch adds its rows.
	 */
	reach = r->y.size > 0 ? r->y.taps : 1;
	r->slots = reach + DFX_RESIZE_ROWS;
	r->staged = calloc(DFX_RESIZE_ROWS, r->src_bytes + DFX_RESIZE_SLACK);
	r->ring = malloc(r->slots * r->dst_bytes);
	r->reach = malloc(reach * sizeof *r->reach);
	if (!r->staged || !r->ring || !r->reach)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %" PRIu32 " rows of %" PRIu32 " pixels", r->slots,
		                width);
	return DFX_OK;
}

uint8_t *
dfx_resizer_row(DfxResizer *r)
{
	return r->staged + r->nbatch * (r->src_bytes + DFX_RESIZE_SLACK);
}

void
dfx_resizer_lend(DfxResizer *r, const uint8_t *row)
{
	r->batch[r->nbatch++] = row;
	if (r->nbatch == DFX_RESIZE_ROWS || r->made + r->nbatch == r->src_height)
		resizer_run_batch(r);
}

void
dfx_resizer_commit(DfxResizer *r)
{
	dfx_resizer_lend(r, dfx_resizer_row(r));
}

void
dfx_resizer_end(DfxResizer *r)
{
	axis_free(&r->x);
	axis_free(&r->y);
	free(r->staged);
	free(r->ring);
	free(r->reach);
	memset(r, 0, sizeof *r);
}

DfxStatus
dfx_resize_with(const DfxResizeKernels *kernels, const DfxImage *src, uint32_t width, uint32_t height,
                uint8_t *dst, DfxErr *err)
{
	size_t stride = (size_t) src->width * 3, total = stride * src->height;
	DfxResizer r;
	DfxStatus status = dfx_resizer_begin(&r, kernels, src->width, src->height, width, height, dst, err);

	if (status == DFX_OK)
		for (size_t at = 0; at < total; at += stride)
		{
			if (at + stride + DFX_RESIZE_SLACK <= total)
				dfx_resizer_lend(&r, src->pixels + at);
			else
			{
				/* Reading on after this row would leave the image: give a copy that has room. */
				memcpy(dfx_resizer_row(&r), src->pixels + at, stride);
				dfx_resizer_commit(&r);
			}
		}
	dfx_resizer_end(&r);
	return status;
}

DfxStatus
dfx_image_resize(const DfxImage *src, uint32_t width, uint32_t height, uint8_t *dst, DfxErr *err)
{
	return dfx_resize_with(dfx_resize_best(), src, width, height, dst, err);
}
