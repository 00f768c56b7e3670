/*
 * augment.c
 *	  Changes to training images, none by default: Wang et al., "CNN-generated
 *	  images are surprisingly easy to spot ... for now", CVPR 2020, blur and
 *	  compress so that a detector does not learn a file format.
 *
 * In the order blur, JPEG, mirror, each drawn for itself, on the 256 x 256
 * pixels that the network would see.
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
	AUGMENT_QUALITY
};

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

static DfxStatus
augment_all(const DfxAugment *a, uint64_t key, DfxImage *image, DfxErr *err)
{
	static const DfxImageLimits limits = {
	    .max_bytes = UINT64_MAX, .max_pixels = UINT64_MAX, .max_scans = 100};
	DfxPerturbation jpeg = {.kind = DFX_PERTURB_JPEG}, flip = {.kind = DFX_PERTURB_FLIP, .value = DFX_FLIP_H};
	DfxStatus st = DFX_OK;

	if (augment_draw(key, AUGMENT_BLUR) < a->blur)
		st = augment_blur(image, a->blur_min + augment_draw(key, AUGMENT_SIGMA) * (a->blur_max - a->blur_min),
		                  err);
	if (st == DFX_OK && augment_draw(key, AUGMENT_JPEG) < a->jpeg)
	{
		double qualities = (double) (a->jpeg_max - a->jpeg_min + 1);

		jpeg.value = (double) a->jpeg_min + floor(augment_draw(key, AUGMENT_QUALITY) * qualities);
		st = dfx_image_perturb(image, &jpeg, &limits, err);
	}
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
