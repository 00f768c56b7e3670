/*
 * heat.h
 *	  A heatmap: what a model's verdict on one image rests on (image/occlude.h).
 *
 * The image and its copies, one a window, go through the network in whatever
 * batches the caller has room for: fill, run, take, until it is done.  The
 * score is the class's log odds, which tells what a part weighs also when the
 * model is all but certain.
 */
#ifndef DFX_ENGINE_HEAT_H
#define DFX_ENGINE_HEAT_H

#include "engine/model.h"
#include "image/encode.h"
#include "image/occlude.h"

#define DFX_HEAT_IMAGES (1 + DFX_OCCLUDE_WINDOWS)

/* Log odds that get full colour when nothing weighs more: below, a model is indifferent to what it sees. */
#define DFX_HEAT_LEAST 0.01

typedef struct DfxHeat
{
	const DfxModel *model;
	const uint8_t *pixels; /* the model's input */
	uint32_t class;        /* DFX_CLASS_*; from DFX_CLASS_ANY to the verdict's label with the first image */
	int done;              /* images that have run; the first is the image itself */
	double whole;          /* its log odds */
	float fall[DFX_OCCLUDE_WINDOWS];
} DfxHeat;

/* DFX_EINVAL when the model gives no verdicts, or knows nothing of the class. */
extern DfxStatus
dfx_heat_begin(DfxHeat *h, const DfxModel *model, const uint8_t *pixels, uint32_t class, DfxErr *err);

/* The next images, at most room of them, as the model's input; how many. */
extern int dfx_heat_fill(const DfxHeat *h, int room, uint8_t *in);

/* Their logits (n x model->logits).  DFX_EDEVICE. */
extern DfxStatus dfx_heat_take(DfxHeat *h, int n, const float *logits, DfxErr *err);

static inline bool
dfx_heat_done(const DfxHeat *h)
{
	return h->done == DFX_HEAT_IMAGES;
}

/* The result as a PNG of the size of the model's input; png->limit is set, its data to be freed. */
extern DfxStatus dfx_heat_encode(const DfxHeat *h, DfxEncoded *png, DfxErr *err);

#endif /* DFX_ENGINE_HEAT_H */
