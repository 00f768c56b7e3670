/*
 * perturb.c
 *	  Perturbations of decoded pixels (perturb.h).
 *
 * Blur and rotation follow OpenCV 4's fixed-point arithmetic for 8-bit images
 * (smooth.dispatch.cpp, imgwarp.cpp), because rounding its coefficients and
 * coordinates shows in the result; scaling is done in single precision.
 * Blur and flips work in place, the others need a second image.
 */
#include "image/perturb.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image/codec.h"

#define PERTURB_PI 3.14159265358979323846

/* The result takes the place of the image, whose pixels are freed. */
static void
perturb_replace(DfxImage *image, DfxImage *result)
{
	free(image->pixels);
	*image = *result;
}

static DfxStatus
perturb_alloc(DfxImage *image, uint32_t width, uint32_t height, DfxErr *err)
{
	*image = (DfxImage){width, height, malloc((size_t) width * height * 3)};
	if (!image->pixels)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for an image of %" PRIu32 " x %" PRIu32 " pixels",
		                width, height);
	return DFX_OK;
}

/* ---- jpeg ---- */

static DfxStatus
perturb_jpeg(DfxImage *image, int quality, const DfxImageLimits *limits, DfxErr *err)
{
	uint64_t pixels = (uint64_t) image->width * image->height;
	/* 4:4:4 never takes more: three samples of at most 16 bits each, and edges filled up to whole blocks. */
	DfxEncoded encoded = {.limit = 8 * pixels + 4096 * ((size_t) image->width + image->height) + 65536};
	DfxImageLimits own = *limits;
	DfxStatus status = dfx_encode_jpeg(image, quality, &encoded, err);

	dfx_image_free(image);
	own.max_bytes = encoded.len; /* the limit is for what others send */
	if (status == DFX_OK)
		status = dfx_image_decode(encoded.data, encoded.len, &own, image, err);
	free(encoded.data);
	return status;
}

/* ---- blur ---- */

#define BLUR_MAX      31
#define BLUR_FRACTION 256 /* coefficients are 8-bit fixed point and sum up to this */

/* OpenCV's getGaussianKernel(side, sigma) in fixed point, sigma 0 being by default: halves are rounded,
 * carrying the error; the middle takes the rest. */
static void
blur_kernel(int side, double sigma, uint32_t *weight)
{
	bool small_table = sigma == 0 && side <= 7;
	static const double small[4][4] = {
	    {1}, {0.25, 0.5}, {0.0625, 0.25, 0.375}, {0.03125, 0.109375, 0.21875, 0.28125}};
	double exact[BLUR_MAX], sum = 0, carry = 0;
	int half = side / 2;
	uint32_t used = 0;

	if (sigma == 0)
		sigma = 0.3 * ((side - 1) * 0.5 - 1) + 0.8;
	for (int i = 0; i <= half; i++)
	{
		exact[i] = small_table ? small[half][i] : exp(-0.5 * (i - half) * (i - half) / (sigma * sigma));
		sum += i < half ? 2 * exact[i] : exact[i];
	}
	for (int i = 0; i < half; i++)
	{
		double want = exact[i] / sum * BLUR_FRACTION + carry;

		weight[i] = weight[side - 1 - i] = (uint32_t) rint(want);
		carry = want - weight[i];
		used += 2 * weight[i];
	}
	weight[half] = BLUR_FRACTION - used;
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
	uint32_t weight[BLUR_MAX];
	size_t bytes;     /* of a row */
	uint8_t *padded;  /* a row with its reflected borders */
	uint16_t *across; /* side rows filtered along x: row y lies in slot y % side */
	uint32_t *sum;    /* a row being filtered along y */
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

		for (size_t i = 0; i < b->bytes; i++)
			to[i] = (uint16_t) (to[i] + (a[i] + z[i]) * b->weight[k]);
	}
}

/* Filter along y into row y of the image, whose own content is not needed any more. */
static void
blur_column(Blur *b, DfxImage *image, uint32_t y)
{
	uint8_t *to = image->pixels + y * b->bytes;

	memset(b->sum, 0, b->bytes * sizeof *b->sum);
	for (int k = 0; k < b->side; k++)
	{
		uint32_t from = blur_reflect((int64_t) y + k - b->half, image->height);
		const uint16_t *row = b->across + (from % (uint32_t) b->side) * b->bytes;

		for (size_t i = 0; i < b->bytes; i++)
			b->sum[i] += row[i] * b->weight[k];
	}
	for (size_t i = 0; i < b->bytes; i++)
		to[i] = (uint8_t) ((b->sum[i] + BLUR_FRACTION * BLUR_FRACTION / 2) / (BLUR_FRACTION * BLUR_FRACTION));
}

static DfxStatus
perturb_blur(DfxImage *image, int side, double sigma, DfxErr *err)
{
	Blur b = {.side = side, .half = side / 2, .bytes = (size_t) image->width * 3};
	uint32_t ahead = 0;
	DfxStatus status = DFX_OK;

	blur_kernel(side, sigma, b.weight);
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

static uint32_t
scale_side(uint32_t side, uint32_t percent)
{
	uint64_t scaled = ((uint64_t) side * percent + 50) / 100;

	return scaled == 0 ? 1 : (uint32_t) scaled;
}

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

static DfxStatus
perturb_scale(DfxImage *image, uint32_t percent, const DfxImageLimits *limits, DfxErr *err)
{
	uint32_t width = scale_side(image->width, percent), height = scale_side(image->height, percent);
	size_t row = (size_t) width * 3 * sizeof(float);
	ScaleAxis x = {0}, y = {0};
	ScaleRows rows = {.holds = {-1, -1}};
	DfxImage result = {0};
	float *sum = NULL;
	DfxStatus status = dfx_codec_check_size(width, height, limits, err);

	if (status == DFX_OK)
		status = scale_axis(&x, image->width, width, err);
	if (status == DFX_OK)
		status = scale_axis(&y, image->height, height, err);
	if (status == DFX_OK)
		status = perturb_alloc(&result, width, height, err);
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
		perturb_replace(image, &result);
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

/* ---- rotate ---- */

#define ROTATE_UNIT   1024 /* fixed point of coordinates ... */
#define ROTATE_STEPS  32   /* ... which are then rounded to so many positions between two pixels */
#define ROTATE_ROUND  (ROTATE_UNIT / ROTATE_STEPS / 2)
#define ROTATE_WEIGHT (ROTATE_STEPS * ROTATE_STEPS)

/* A pixel, black outside of the image. */
static const uint8_t *
rotate_pixel(const DfxImage *image, int64_t x, int64_t y)
{
	static const uint8_t black[3] = {0, 0, 0};

	if (x < 0 || y < 0 || x >= image->width || y >= image->height)
		return black;
	return image->pixels + ((size_t) y * image->width + (size_t) x) * 3;
}

/* The image at (x, y), in 1/32 of a pixel. */
static void
rotate_sample(const DfxImage *image, int64_t x, int64_t y, uint8_t *to)
{
	/* floor, also of what is negative */
	int64_t left = x >> 5, top = y >> 5;
	uint32_t fx = (uint32_t) (x & (ROTATE_STEPS - 1)), fy = (uint32_t) (y & (ROTATE_STEPS - 1));
	const uint8_t *a = rotate_pixel(image, left, top), *b = rotate_pixel(image, left + 1, top);
	const uint8_t *c = rotate_pixel(image, left, top + 1), *d = rotate_pixel(image, left + 1, top + 1);

	for (int i = 0; i < 3; i++)
		to[i] = (uint8_t) ((((ROTATE_STEPS - fx) * a[i] + fx * b[i]) * (ROTATE_STEPS - fy) +
		                    ((ROTATE_STEPS - fx) * c[i] + fx * d[i]) * fy + ROTATE_WEIGHT / 2) /
		                   ROTATE_WEIGHT);
}

/* getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), degrees, 1), then warpAffine(): every pixel is fetched from
 * where it was. */
static DfxStatus
perturb_rotate(DfxImage *image, double degrees, DfxErr *err)
{
	double c = cos(degrees * PERTURB_PI / 180), s = sin(degrees * PERTURB_PI / 180);
	double cx = ((double) image->width - 1) / 2, cy = ((double) image->height - 1) / 2;
	double x0 = cx - c * cx + s * cy, y0 = cy - s * cx - c * cy;
	DfxImage result;
	DfxStatus status = perturb_alloc(&result, image->width, image->height, err);

	if (status != DFX_OK)
		return status;
	for (uint32_t y = 0; y < image->height; y++)
	{
		int64_t row_x = llrint((-s * y + x0) * ROTATE_UNIT) + ROTATE_ROUND;
		int64_t row_y = llrint((c * y + y0) * ROTATE_UNIT) + ROTATE_ROUND;
		uint8_t *to = result.pixels + (size_t) y * image->width * 3;

		for (uint32_t x = 0; x < image->width; x++, to += 3)
			rotate_sample(image, (row_x + llrint(c * x * ROTATE_UNIT)) >> 5,
			              (row_y + llrint(s * x * ROTATE_UNIT)) >> 5, to);
	}
	perturb_replace(image, &result);
	return DFX_OK;
}

/* ---- flip ---- */

static void
flip_pixels(uint8_t *a, uint8_t *b)
{
	for (; a < b; a += 3, b -= 3)
		for (int c = 0; c < 3; c++)
		{
			uint8_t t = a[c];

			a[c] = b[c];
			b[c] = t;
		}
}

static void
perturb_flip(DfxImage *image, DfxFlip flip)
{
	size_t bytes = (size_t) image->width * 3;
	uint8_t *p = image->pixels, *last = p + bytes * image->height;

	if (flip == DFX_FLIP_BOTH)
		flip_pixels(p, last - 3);
	else if (flip == DFX_FLIP_H)
		for (; p < last; p += bytes)
			flip_pixels(p, p + bytes - 3);
	else
		for (uint8_t *q = last - bytes; p < q; p += bytes, q -= bytes)
			for (size_t i = 0; i < bytes; i++)
			{
				uint8_t t = p[i];

				p[i] = q[i];
				q[i] = t;
			}
}

/* ---- public ---- */

DfxStatus
dfx_image_perturb(DfxImage *image, const DfxPerturbation *how, const DfxImageLimits *limits, DfxErr *err)
{
	DfxStatus status = dfx_perturbation_check(how, err);

	if (status == DFX_OK)
		switch ((DfxPerturbKind) how->kind)
		{
			case DFX_PERTURB_RAW:
			case DFX_PERTURB_COUNT:
				break;
			case DFX_PERTURB_JPEG:
				status = perturb_jpeg(image, (int) how->value, limits, err);
				break;
			case DFX_PERTURB_BLUR:
				status = perturb_blur(image, (int) how->value, 0, err);
				break;
			case DFX_PERTURB_SCALE:
				status = perturb_scale(image, (uint32_t) how->value, limits, err);
				break;
			case DFX_PERTURB_ROTATE:
				status = perturb_rotate(image, how->value, err);
				break;
			case DFX_PERTURB_FLIP:
				perturb_flip(image, (DfxFlip) how->value);
				break;
		}
	if (status != DFX_OK)
		dfx_image_free(image);
	return status;
}

DfxStatus
dfx_image_blur(DfxImage *image, double sigma, DfxErr *err)
{
	if (!(sigma >= 0 && sigma <= DFX_BLUR_SIGMA))
		return dfx_fail(err, DFX_EINVAL, "blur with a sigma of %g, at most %g", sigma, DFX_BLUR_SIGMA);
	/* Below that the middle has all 256 parts. */
	if (sigma < 0.3)
		return DFX_OK;
	return perturb_blur(image, 2 * (int) ceil(3 * sigma) + 1, sigma, err);
}

DfxStatus
dfx_image_perturb_encode(DfxImage *image, const DfxPerturbation *how, const DfxImageLimits *limits,
                         DfxEncoded *out, DfxErr *err)
{
	DfxStatus status = dfx_perturbation_check(how, err);

	if (status == DFX_OK && how->kind == DFX_PERTURB_JPEG)
		status = dfx_encode_jpeg(image, (int) how->value, out, err);
	else if (status == DFX_OK)
	{
		status = dfx_image_perturb(image, how, limits, err);
		if (status == DFX_OK)
			status = dfx_encode_png(image, out, err);
	}
	dfx_image_free(image);
	return status;
}

uint64_t
dfx_perturb_pixels(const DfxPerturbation *how, uint32_t width, uint32_t height)
{
	uint64_t pixels = (uint64_t) width * height, scaled = 0;

	if (how->kind == DFX_PERTURB_SCALE && dfx_perturbation_check(how, NULL) == DFX_OK)
		scaled =
		    (uint64_t) scale_side(width, (uint32_t) how->value) * scale_side(height, (uint32_t) how->value);
	return scaled > pixels ? scaled : pixels;
}

DfxStatus
dfx_image_prepare_as(const void *bytes, size_t len, const DfxPerturbation *how, const DfxImageLimits *limits,
                     uint32_t input_size, uint8_t *dst, DfxErr *err)
{
	DfxImage image;
	DfxStatus status;

	if (how->kind == DFX_PERTURB_RAW)
		return dfx_image_prepare(bytes, len, limits, input_size, dst, err);
	status = dfx_image_decode(bytes, len, limits, &image, err);
	if (status == DFX_OK)
		status = dfx_image_perturb(&image, how, limits, err);
	if (status == DFX_OK)
		status = dfx_image_fit(&image, input_size, dst, err);
	dfx_image_free(&image);
	return status;
}
