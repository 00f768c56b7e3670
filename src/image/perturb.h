/*
 * perturb.h
 *	  Images as they come back from elsewhere: compressed, blurred, scaled,
 *	  turned.  For evaluation (METHOD "Experiments") and for augmentation.
 */
#ifndef DFX_IMAGE_PERTURB_H
#define DFX_IMAGE_PERTURB_H

#include "base/perturbation.h"
#include "image/encode.h"
#include "image/image.h"

/*
 * Change image, which is consumed also on failure.  jpeg gives exactly the
 * pixels of Pillow with the same libjpeg, the others those of OpenCV 4 within
 * one level; nothing depends on the CPU.  Besides the image, one more of the
 * result's size is held, for jpeg the encoded bytes.
 * Errors: DFX_EINVAL (no such perturbation), DFX_ELIMIT (the result would be
 * over limits->max_pixels, or too large for JPEG), DFX_ENOMEM.
 */
extern DfxStatus
dfx_image_perturb(DfxImage *image, const DfxPerturbation *how, const DfxImageLimits *limits, DfxErr *err);

/*
 * The same, and encode the result: as JPEG for jpeg (the bytes whose decoding
 * is the perturbation), as PNG otherwise.  image is consumed.
 */
extern DfxStatus dfx_image_perturb_encode(DfxImage *image, const DfxPerturbation *how,
                                          const DfxImageLimits *limits, DfxEncoded *out, DfxErr *err);

/* Pixels of the larger of an image of that size and what it becomes. */
extern uint64_t dfx_perturb_pixels(const DfxPerturbation *how, uint32_t width, uint32_t height);

/* dfx_image_prepare() with a perturbation between decoding and resizing. */
extern DfxStatus
dfx_image_prepare_as(const void *bytes, size_t len, const DfxPerturbation *how, const DfxImageLimits *limits,
                     uint32_t input_size, uint8_t *dst, DfxErr *err);

#endif /* DFX_IMAGE_PERTURB_H */
