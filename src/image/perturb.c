/*
 * perturb.c
 *	  Perturbations of decoded pixels (perturb.h).
 *
 * Rotation follows OpenCV 4's fixed-point arithmetic (imgwarp.cpp), because
 * rounding its coordinates to 1/32 of a pixel shows in the result.  Blur and
 * flips work in place, the others need a second image.
 */
#include "image/perturb.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image/codec.h"
#include "image/filter.h"

#define PERTURB_PI 3.14159265358979323846

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

/* ---- scale ---- */

static uint32_t
perturb_side(uint32_t side, uint32_t percent)
{
	uint64_t scaled = ((uint64_t) side * percent + 50) / 100;

	return scaled == 0 ? 1 : (uint32_t) scaled;
}

static DfxStatus
perturb_scale(DfxImage *image, uint32_t percent, const DfxImageLimits *limits, DfxErr *err)
{
	uint32_t width = perturb_side(image->width, percent), height = perturb_side(image->height, percent);
	DfxStatus status = dfx_codec_check_size(width, height, limits, err);

	return status == DFX_OK ? dfx_image_scale(image, width, height, err) : status;
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
	DfxStatus status = dfx_image_alloc(&result, image->width, image->height, err);

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
	dfx_image_replace(image, &result);
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
				status = dfx_image_blur(image, (int) how->value, err);
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
		scaled = (uint64_t) perturb_side(width, (uint32_t) how->value) *
		         perturb_side(height, (uint32_t) how->value);
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
