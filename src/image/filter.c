/*
 * filter.c
 *	  Blur and scaling of decoded pixels, as OpenCV does them (filter.h).
 *
 * Blur follows the fixed-point arithmetic of OpenCV 4 for 8-bit images
 * (smooth.dispatch.cpp), because rounding its coefficients to 1/256 shows in
 * the result; it works in place, over as many filtered rows as the kernel is
 * high.  Scaling is separable too, in single precision; of the rows filtered
 * along x two are kept, for the next output begins where this one ends.
 */
#include "image/filter.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- blur ---- */

#define BLUR_FRACTION 256 /* coefficients are 8-bit fixed point and sum up to this */

/* OpenCV's getGaussianKernel(side, 0) in fixed point: halves are rounded, carrying the error; the middle
 * takes the rest. */
static void
blur_kernel(int side, uint16_t *weight)
{
	static const double small[4][4] = {
	    {1}, {0.25, 0.5}, {0.0625, 0.25, 0.375}, {0.03125, 0.109375, 0.21875, 0.28125}};
	double sigma = 0.3 * ((side - 1) * 0.5 - 1) + 0.8, exact[DFX_BLUR_MAX], sum = 0, carry = 0;
	int half = side / 2;
	uint32_t used = 0;

	for (int i = 0; i <= half; i++)
	{
		exact[i] = side <= 7 ? small[half][i] : exp(-0.5 * (i - half) * (i - half) / (sigma * sigma));
		sum += i < half ? 2 * exact[i] : exact[i];
	}
	for (int i = 0; i < half; i++)
	{
		double want = exact[i] / sum * BLUR_FRACTION + carry;

		weight[i] = weight[side - 1 - i] = (uint16_t) rint(want);
		carry = want - weight[i];
		used += 2 * weight[i];
	}
	weight[half] = (uint16_t) (BLUR_FRACTION - used);
}

/* BORDER_REFLECT_101: gfedcb|abcdefgh|gfedcba, as often as it takes. */
static uint32_t
blur_reflect(int64_t at, uint32_t size)
{
	int64_t last = (int64_t) size - 1;

	if (last == 0)
		return 0;
	while (at < 0 || at > last)
		at = at < 0 ? -at : 2 * last - at;
	return (uint32_t) at;
}

typedef struct Blur
{
	int side, half;
	uint16_t weight[DFX_BLUR_MAX]; /* 16 bits, so that products of two are cheap in vectors */
	size_t bytes;                  /* of a row */
	uint8_t *padded;               /* a row with its reflected borders */
	uint16_t *across;              /* side rows filtered along x: row y lies in slot y % side */
	uint32_t *sum;                 /* a row being filtered along y */
} Blur;

/* Filter row y along x.  Exact in 16 bits: weights sum up to 256. */
static void
blur_row(Blur *b, const DfxImage *image, uint32_t y)
{
	const uint8_t *row = image->pixels + y * b->bytes, *p = b->padded;
	uint16_t *to = b->across + (y % (uint32_t) b->side) * b->bytes;
	size_t left = (size_t) b->half * 3;

	memcpy(b->padded + left, row, b->bytes);
	for (int i = 1; i <= b->half; i++)
	{
		memcpy(b->padded + left - 3 * (size_t) i, row + 3 * (size_t) blur_reflect(-i, image->width), 3);
		memcpy(b->padded + left + b->bytes + 3 * (size_t) (i - 1),
		       row + 3 * (size_t) blur_reflect((int64_t) image->width - 1 + i, image->width), 3);
	}
	for (size_t i = 0; i < b->bytes; i++)
		to[i] = (uint16_t) (p[i + left] * b->weight[b->half]);
	for (int k = 0; k < b->half; k++)
	{
		const uint8_t *a = p + 3 * (size_t) k, *z = p + 3 * (size_t) (b->side - 1 - k);
		uint16_t weight = b->weight[k];

		for (size_t i = 0; i < b->bytes; i++)
			to[i] = (uint16_t) (to[i] + (uint16_t) (a[i] + z[i]) * weight);
	}
}

/* Filter along y into row y of the image, whose own content is not needed any more. */
static void
blur_column(Blur *b, DfxImage *image, uint32_t y)
{
	uint8_t *to = image->pixels + y * b->bytes;
	uint32_t *sum = b->sum;

	memset(sum, 0, b->bytes * sizeof *sum);
	for (int k = 0; k < b->side; k++)
	{
		uint32_t from = blur_reflect((int64_t) y + k - b->half, image->height);
		const uint16_t *row = b->across + (from % (uint32_t) b->side) * b->bytes;
		uint16_t weight = b->weight[k];

		for (size_t i = 0; i < b->bytes; i++)
			sum[i] += (uint32_t) row[i] * weight;
	}
	for (size_t i = 0; i < b->bytes; i++)
		to[i] = (uint8_t) ((sum[i] + BLUR_FRACTION * BLUR_FRACTION / 2) / (BLUR_FRACTION * BLUR_FRACTION));
}

DfxStatus
dfx_image_blur(DfxImage *image, int side, DfxErr *err)
{
	Blur b = {.side = side, .half = side / 2, .bytes = (size_t) image->width * 3};
	uint32_t ahead = 0;
	DfxStatus status = DFX_OK;

	blur_kernel(side, b.weight);
	b.padded = malloc(b.bytes + (size_t) side * 3);
	b.across = malloc(b.bytes * (size_t) side * sizeof *b.across);
	b.sum = malloc(b.bytes * sizeof *b.sum);
	if (!b.padded || !b.across || !b.sum)
		status =
		    dfx_fail(err, DFX_ENOMEM, "out of memory for blurring rows of %" PRIu32 " pixels", image->width);
	for (uint32_t y = 0; status == DFX_OK && y < image->height; y++)
	{
		for (; ahead < image->height && ahead <= y + (uint32_t) b.half; ahead++)
			blur_row(&b, image, ahead);
		blur_column(&b, image, y);
	}
	free(b.padded);
	free(b.across);
	free(b.sum);
	return status;
}

/* ---- scale ---- */

/* Output i of an axis is the sum over j < count[i] of input start[i] + j times weight[i * taps + j]. */
typedef struct ScaleAxis
{
	uint32_t size, taps;
	uint32_t *start, *count;
	float *weight;
} ScaleAxis;

/* Smaller: each input counts by how much of it the output's interval covers. */
static void
scale_cover(ScaleAxis *a, uint32_t i, uint32_t from)
{
	double scale = (double) from / a->size, low = i * scale, high = low + scale;
	uint32_t end = (uint32_t) ceil(high - 1e-9);

	a->start[i] = (uint32_t) (low + 1e-9);
	end = end > from ? from : end;
	a->count[i] = end - a->start[i];
	for (uint32_t j = 0; j < a->count[i]; j++)
	{
		double s = a->start[i] + j;

		a->weight[i * a->taps + j] = (float) ((fmin(s + 1, high) - fmax(s, low)) / scale);
	}
}

/* Larger: OpenCV's own kind of linear interpolation under INTER_AREA, where flat parts stay flat. */
static void
scale_between(ScaleAxis *a, uint32_t i, uint32_t from)
{
	double back = (double) from / a->size, scale = (double) a->size / from;
	uint32_t s = (uint32_t) (i * back + 1e-9);
	double f = (i + 1) - (s + 1) * scale;

	f = f <= 0 ? 0 : f - floor(f);
	if (s + 1 >= from)
	{
		s = from - 1;
		f = 0;
	}
	a->start[i] = s;
	a->count[i] = f > 0 ? 2 : 1;
	a->weight[i * a->taps] = (float) (1 - f);
	if (f > 0)
		a->weight[i * a->taps + 1] = (float) f;
}

static DfxStatus
scale_axis(ScaleAxis *a, uint32_t from, uint32_t to, DfxErr *err)
{
	a->size = to;
	a->taps = to < from ? from / to + 3 : 2;
	a->start = malloc((size_t) to * sizeof *a->start);
	a->count = malloc((size_t) to * sizeof *a->count);
	a->weight = malloc((size_t) to * a->taps * sizeof *a->weight);
	if (!a->start || !a->count || !a->weight)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for scaling %" PRIu32 " pixels to %" PRIu32, from,
		                to);
	for (uint32_t i = 0; i < to; i++)
		if (to < from)
			scale_cover(a, i, from);
		else
			scale_between(a, i, from);
	return DFX_OK;
}

static void
scale_axis_free(ScaleAxis *a)
{
	free(a->start);
	free(a->count);
	free(a->weight);
}

/* Rows filtered along x, kept while the next output may need them again: row y lies in slot y % 2. */
typedef struct ScaleRows
{
	float *row[2];
	int64_t holds[2];
} ScaleRows;

static const float *
scale_row(ScaleRows *rows, const DfxImage *image, const ScaleAxis *x, uint32_t y)
{
	const uint8_t *from = image->pixels + (size_t) y * image->width * 3;
	float *to = rows->row[y % 2];

	if (rows->holds[y % 2] == y)
		return to;
	rows->holds[y % 2] = y;
	for (uint32_t i = 0; i < x->size; i++, to += 3)
	{
		const uint8_t *p = from + (size_t) x->start[i] * 3;
		const float *w = x->weight + (size_t) i * x->taps;

		to[0] = to[1] = to[2] = 0;
		for (uint32_t j = 0; j < x->count[i]; j++, p += 3)
			for (int c = 0; c < 3; c++)
				to[c] += w[j] * p[c];
	}
	return rows->row[y % 2];
}

static void
scale_run(const DfxImage *image, const ScaleAxis *x, const ScaleAxis *y, ScaleRows *rows, float *sum,
          DfxImage *result)
{
	size_t n = (size_t) x->size * 3;

	for (uint32_t i = 0; i < y->size; i++)
	{
		uint8_t *to = result->pixels + i * n;

		memset(sum, 0, n * sizeof *sum);
		for (uint32_t j = 0; j < y->count[i]; j++)
		{
			const float *row = scale_row(rows, image, x, y->start[i] + j);
			float w = y->weight[(size_t) i * y->taps + j];

			for (size_t k = 0; k < n; k++)
				sum[k] += w * row[k];
		}
		for (size_t k = 0; k < n; k++)
			to[k] = (uint8_t) lrintf(fminf(sum[k], 255.0f));
	}
}

DfxStatus
dfx_image_scale(DfxImage *image, uint32_t width, uint32_t height, DfxErr *err)
{
	size_t row = (size_t) width * 3 * sizeof(float);
	ScaleAxis x = {0}, y = {0};
	ScaleRows rows = {.holds = {-1, -1}};
	DfxImage result = {0};
	float *sum = NULL;
	DfxStatus status = scale_axis(&x, image->width, width, err);

	if (status == DFX_OK)
		status = scale_axis(&y, image->height, height, err);
	if (status == DFX_OK)
		status = dfx_image_alloc(&result, width, height, err);
	if (status == DFX_OK)
	{
		rows.row[0] = malloc(row);
		rows.row[1] = malloc(row);
		sum = malloc(row);
		if (!rows.row[0] || !rows.row[1] || !sum)
			status = dfx_fail(err, DFX_ENOMEM, "out of memory for rows of %" PRIu32 " pixels", width);
	}
	if (status == DFX_OK)
	{
		scale_run(image, &x, &y, &rows, sum, &result);
		dfx_image_replace(image, &result);
	}
	else
		dfx_image_free(&result);
	scale_axis_free(&x);
	scale_axis_free(&y);
	free(rows.row[0]);
	free(rows.row[1]);
	free(sum);
	return status;
}
