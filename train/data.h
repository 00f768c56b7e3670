/*
 * data.h
 *	  What a network learns from: items with labels, loaded by number.
 *
 * Images come from the file of decoded samples, changed by augmentation when
 * they are trained on; the head's inputs are feature vectors that were
 * computed before.
 */
#ifndef DFX_TRAIN_DATA_H
#define DFX_TRAIN_DATA_H

#include "train/samples.h"

typedef struct DfxData
{
	size_t n;
	uint32_t *sample; /* of each item: its sample's index */
	uint8_t *label;   /* 0 .. nclass - 1 */
	size_t bytes;     /* of one item as the network takes it */

	/* images */
	const DfxSamples *samples;
	uint32_t side; /* of the network's square input */
	const DfxAugment *augment;
	int threads;

	/* or the Base Models' features: of each its matrix with a row of so many for what sample[] counts */
	const float *feature[DFX_TRAIN_CLASSES];
	size_t features;
} DfxData;

/* Chooses who is among the items, and as what. -1: it is not. */
typedef int (*DfxLabelOf)(const DfxSample *s, const void *arg);

/* The samples that label_of takes, in order of sha256, as images of side x side pixels.  DFX_ENOMEM. */
extern DfxStatus dfx_data_images(DfxData *d, const DfxSamples *s, uint32_t side, DfxLabelOf label_of,
                                 const void *arg, DfxErr *err);
extern void dfx_data_free(DfxData *d);

/*
 * Load items item[0 .. n-1] into to, n x bytes.  key: of the epoch's changes
 * to images; plain: no changes.  Errors: those of the changes.
 */
extern DfxStatus dfx_data_load(const DfxData *d, const uint32_t *item, size_t n, uint64_t key, bool plain,
                               uint8_t *to, DfxErr *err);

/* Change an image of side x side pixels in place, by the draws of key: augment.c.  DFX_ENOMEM. */
extern DfxStatus dfx_augment(const DfxAugment *a, uint64_t key, uint8_t *pixels, uint32_t side, DfxErr *err);

#endif /* DFX_TRAIN_DATA_H */
