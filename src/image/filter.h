/*
 * filter.h
 *	  Filters over decoded pixels; private to src/image.
 */
#ifndef DFX_IMAGE_FILTER_H
#define DFX_IMAGE_FILTER_H

#include "image/image.h"

#define DFX_BLUR_MAX 31 /* side of the largest kernel */

/* Pixels for an image of that size, not initialised; DFX_ENOMEM. */
extern DfxStatus dfx_image_alloc(DfxImage *image, uint32_t width, uint32_t height, DfxErr *err);

/* result takes the place of image, whose pixels are freed. */
extern void dfx_image_replace(DfxImage *image, DfxImage *result);

/*
 * OpenCV's GaussianBlur with side x side taps (odd, 1 .. DFX_BLUR_MAX), sigma by
 * default, BORDER_REFLECT_101; bit for bit.  DFX_ENOMEM leaves the image spoilt.
 */
extern DfxStatus dfx_image_blur(DfxImage *image, int side, DfxErr *err);

/* OpenCV's resize with INTER_AREA, within one level.  DFX_ENOMEM leaves the image as it is. */
extern DfxStatus dfx_image_scale(DfxImage *image, uint32_t width, uint32_t height, DfxErr *err);

#endif /* DFX_IMAGE_FILTER_H */
