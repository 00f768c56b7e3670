/*
 * augment.c
 *	  Changes to training images, none by default: Wang et al., "CNN-generated
 *	  images are surprisingly easy to spot ... for now", CVPR 2020, blur and
 *	  compress so that a detector does not learn a file format.
 *
 * In the order crop, blur, JPEG, shuffle, turn, mirror, each drawn for itself,
 * on the 256 x 256 pixels that the network would see.  Shuffled tiles take away
 * what a picture shows and leave its texture, which is where generators betray
 * themselves (Zhong et al., "PatchCraft", arXiv:2311.12397).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image/filter.h"
#include "image/perturb.h"
#include "train/data.h"
#include "train/random.h"

/* Which draw is which. */
enum
{
	AUGMENT_FLIP = 0,
	AUGMENT_BLUR,
	AUGMENT_SIGMA,
	AUGMENT_JPEG,
	AUGMENT_QUALITY,
	AUGMENT_CROP,
	AUGMENT_SIDE,
	AUGMENT_LEFT,
	AUGMENT_TOP,
	AUGMENT_TURN,
	AUGMENT_QUARTERS,
	AUGMENT_SHUFFLE,
	AUGMENT_TILE /* and all numbers after it: one for each tile */
};

/* To a side, of a shuffled image. */
#define AUGMENT_TILES 4

static double
augment_draw(uint64_t key, uint64_t which)
{
	return dfx_unit64(dfx_draw_next(key, which));
}

/* With taps up to three sigma to each side; a sigma below 0.3 leaves all 256 parts in the middle. */
static DfxStatus
augment_blur(DfxImage *image, double sigma, DfxErr *err)
{
	return sigma < 0.3 ? DFX_OK : dfx_image_blur(image, 2 * (int) ceil(3 * sigma) + 1, sigma, err);
}

/* A random square part, enlarged to the whole again as an image is for the network. */
static DfxStatus
augment_crop(DfxImage *image, double part, uint64_t key, DfxErr *err)
{
	uint32_t side = image->width, cut = (uint32_t) (part * side + 0.5);
	uint32_t left = (uint32_t) (augment_draw(key, AUGMENT_LEFT) * (side - cut + 1));
	uint32_t top = (uint32_t) (augment_draw(key, AUGMENT_TOP) * (side - cut + 1));
	DfxImage square = {.width = cut, .height = cut, .pixels = malloc((size_t) cut * cut * 3)};
	DfxStatus st;

	if (!square.pixels)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a part of an image");
	for (uint32_t y = 0; y < cut; y++)
		memcpy(square.pixels + (size_t) y * cut * 3, image->pixels + ((size_t) (top + y) * side + left) * 3,
		       (size_t) cut * 3);
	st = dfx_image_resize(&square, side, side, image->pixels, err);
	dfx_image_free(&square);
	return st;
}

/* Where tile i of the result lies in the original: bytes from its first pixel. */
static size_t
augment_tile(uint32_t i, size_t side)
{
	return (i / AUGMENT_TILES * side + i % AUGMENT_TILES) * (side / AUGMENT_TILES) * 3;
}

/* Tiles in another order (Fisher-Yates); a rest at the right and at the bottom stays. */
static DfxStatus
augment_shuffle(DfxImage *image, uint64_t key, DfxErr *err)
{
	size_t side = image->width, row = side / AUGMENT_TILES * 3;
	uint32_t from[AUGMENT_TILES * AUGMENT_TILES];
	uint8_t *original = malloc(side * side * 3);

	if (!original)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a shuffled image");
	memcpy(original, image->pixels, side * side * 3);
	for (uint32_t i = 0; i < AUGMENT_TILES * AUGMENT_TILES; i++)
	{
		uint32_t j = (uint32_t) (augment_draw(key, AUGMENT_TILE + i) * (i + 1));

		from[i] = i;
		from[i] = from[j];
		from[j] = i;
	}
	for (uint32_t i = 0; i < AUGMENT_TILES * AUGMENT_TILES; i++)
		for (size_t y = 0; y < side / AUGMENT_TILES; y++)
			memcpy(image->pixels + augment_tile(i, side) + y * side * 3,
			       original + augment_tile(from[i], side) + y * side * 3, row);
	free(original);
	return DFX_OK;
}

/* By quarters of a circle, clockwise. */
static DfxStatus
augment_turn(DfxImage *image, int quarters, DfxErr *err)
{
	size_t side = image->width;
	uint8_t *turned = malloc(side * side * 3);

	if (!turned)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a turned image");
	for (size_t y = 0; y < side; y++)
		for (size_t x = 0; x < side; x++)
		{
			size_t from_y = quarters == 1 ? side - 1 - x : quarters == 2 ? side - 1 - y : x;
			size_t from_x = quarters == 1 ? y : quarters == 2 ? side - 1 - x : side - 1 - y;

			memcpy(turned + (y * side + x) * 3, image->pixels + (from_y * side + from_x) * 3, 3);
		}
	memcpy(image->pixels, turned, side * side * 3);
	free(turned);
	return DFX_OK;
}

static DfxStatus
augment_all(const DfxAugment *a, uint64_t key, DfxImage *image, DfxErr *err)
{
	static const DfxImageLimits limits = {
	    .max_bytes = UINT64_MAX, .max_pixels = UINT64_MAX, .max_scans = 100};
	DfxPerturbation jpeg = {.kind = DFX_PERTURB_JPEG}, flip = {.kind = DFX_PERTURB_FLIP, .value = DFX_FLIP_H};
	DfxStatus st = DFX_OK;

	if (augment_draw(key, AUGMENT_CROP) < a->crop)
		st = augment_crop(image, a->crop_min + augment_draw(key, AUGMENT_SIDE) * (1 - a->crop_min), key, err);
	if (st == DFX_OK && augment_draw(key, AUGMENT_BLUR) < a->blur)
		st = augment_blur(image, a->blur_min + augment_draw(key, AUGMENT_SIGMA) * (a->blur_max - a->blur_min),
		                  err);
	if (st == DFX_OK && augment_draw(key, AUGMENT_JPEG) < a->jpeg)
	{
		double qualities = (double) (a->jpeg_max - a->jpeg_min + 1);

		jpeg.value = (double) a->jpeg_min + floor(augment_draw(key, AUGMENT_QUALITY) * qualities);
		st = dfx_image_perturb(image, &jpeg, &limits, err);
	}
	if (st == DFX_OK && augment_draw(key, AUGMENT_SHUFFLE) < a->shuffle)
		st = augment_shuffle(image, key, err);
	if (st == DFX_OK && augment_draw(key, AUGMENT_TURN) < a->turn)
		st = augment_turn(image, 1 + (int) (augment_draw(key, AUGMENT_QUARTERS) * 3), err);
	if (st == DFX_OK && augment_draw(key, AUGMENT_FLIP) < a->flip)
		st = dfx_image_perturb(image, &flip, &limits, err);
	return st;
}

DfxStatus
dfx_augment(const DfxAugment *a, uint64_t key, uint8_t *pixels, uint32_t side, DfxErr *err)
{
	size_t bytes = (size_t) side * side * 3;
	DfxImage image = {.width = side, .height = side, .pixels = malloc(bytes)};
	DfxStatus st;

	if (!image.pixels)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for an image");
	memcpy(image.pixels, pixels, bytes);
	st = augment_all(a, key, &image, err);
	if (st == DFX_OK)
		memcpy(pixels, image.pixels, bytes);
	dfx_image_free(&image);
	return st;
}
