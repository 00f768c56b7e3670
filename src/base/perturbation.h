/*
 * perturbation.h
 *	  What can be done to an image before it is judged, as text and as numbers
 *	  (METHOD "Experiments": JPEG, blur, scaling, rotation, flips).
 *
 *	raw			nothing
 *	jpeg:Q		Pillow's JPEG encoder, 4:4:4, quality Q from 1 to 100, decoded again
 *	blur:K		OpenCV's GaussianBlur with a kernel of K x K, K odd from 1 to 31, sigma by default
 *	scale:P		OpenCV's resize to P percent of both sides, 1 to 1000, INTER_AREA
 *	rotate:D	by D degrees counter-clockwise about the centre, -360 to 360, same canvas, black outside
 *	flip		both axes; flip:h mirrors left and right, flip:v top and bottom
 *
 * Here is only what both programs must agree on; src/image/perturb.c does it.
 */
#ifndef DFX_BASE_PERTURBATION_H
#define DFX_BASE_PERTURBATION_H

#include <stdint.h>

#include "base/err.h"

/* Values cross the ring: append only, never renumber. */
typedef enum DfxPerturbKind
{
	DFX_PERTURB_RAW = 0,
	DFX_PERTURB_JPEG,   /* value: quality */
	DFX_PERTURB_BLUR,   /* value: side of the kernel */
	DFX_PERTURB_SCALE,  /* value: percent */
	DFX_PERTURB_ROTATE, /* value: degrees */
	DFX_PERTURB_FLIP,   /* value: DfxFlip */
	DFX_PERTURB_COUNT
} DfxPerturbKind;

typedef enum DfxFlip
{
	DFX_FLIP_BOTH = 0,
	DFX_FLIP_H,
	DFX_FLIP_V
} DfxFlip;

/* All zeroes is "raw". */
typedef struct DfxPerturbation
{
	uint32_t kind; /* DfxPerturbKind, as it came: dfx_perturbation_check() judges it */
	double value;
} DfxPerturbation;

/* From text, blanks not allowed.  DFX_EINVAL with what is allowed in the hint. */
extern DfxStatus dfx_perturbation_parse(const char *how, DfxPerturbation *p, DfxErr *err);

/* Is it one of those above?  DFX_EINVAL if not. */
extern DfxStatus dfx_perturbation_check(const DfxPerturbation *p, DfxErr *err);

#endif /* DFX_BASE_PERTURBATION_H */
