/*
 * data.c
 *	  Loading items.
 */
#include "train/data.h"

#include <stdlib.h>
#include <string.h>

#include "train/parallel.h"
#include "train/random.h"

DfxStatus
dfx_data_images(DfxData *d, const DfxSamples *s, uint32_t side, DfxLabelOf label_of, const void *arg,
                DfxErr *err)
{
	*d = (DfxData){.samples = s, .side = side, .threads = 1, .bytes = (size_t) side * side * 3};
	d->sample = malloc((s->norder + 1) * sizeof *d->sample);
	d->label = malloc(s->norder + 1);
	if (!d->sample || !d->label)
	{
		dfx_data_free(d);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a list of %zu samples", s->norder);
	}
	for (size_t i = 0; i < s->norder; i++)
	{
		int label = label_of(&s->sample[s->order[i]], arg);

		if (label < 0)
			continue;
		d->sample[d->n] = s->order[i];
		d->label[d->n++] = (uint8_t) label;
	}
	return DFX_OK;
}

void
dfx_data_free(DfxData *d)
{
	free(d->sample);
	free(d->label);
	d->sample = NULL;
	d->label = NULL;
	d->n = 0;
}

/* The middle of a decoded sample (ViT's crop), or all of it. */
static void
data_crop(const uint8_t *pixels, uint32_t side, uint8_t *to)
{
	uint32_t offset = (DFX_STORE_SIDE - side) / 2;

	for (uint32_t y = 0; y < side; y++)
		memcpy(to + (size_t) y * side * 3, pixels + ((size_t) (y + offset) * DFX_STORE_SIDE + offset) * 3,
		       (size_t) side * 3);
}

typedef struct Loading
{
	const DfxData *d;
	const uint32_t *item;
	uint64_t key;
	bool plain;
	uint8_t *to;
} Loading;

/*
 * Changes are made to the whole 256 x 256 pixels and keyed by the sample's
 * bytes, so that they depend neither on the batch nor on the thread.
 */
static DfxStatus
data_image(void *arg, size_t i, DfxErr *err)
{
	const Loading *l = arg;
	const DfxData *d = l->d;
	uint32_t k = d->sample[l->item[i]];
	const uint8_t *pixels = dfx_sample_pixels(d->samples, k);
	uint8_t *to = l->to + i * d->bytes, *changed;
	DfxStatus st;

	if (l->plain || !d->augment)
	{
		data_crop(pixels, d->side, to);
		return DFX_OK;
	}
	changed = malloc(DFX_STORE_BYTES);
	if (!changed)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for an image");
	memcpy(changed, pixels, DFX_STORE_BYTES);
	st = dfx_augment(d->augment, dfx_draw_hash(l->key, d->samples->sample[k].given.sha256), changed,
	                 DFX_STORE_SIDE, err);
	data_crop(changed, d->side, to);
	free(changed);
	return st;
}

/* The signal of 3 x features that the head takes. */
static void
data_vectors(const DfxData *d, const uint32_t *item, size_t n, uint8_t *to)
{
	size_t row = d->features * sizeof(float);

	for (size_t i = 0; i < n; i++)
		for (int c = 0; c < DFX_TRAIN_CLASSES; c++, to += row)
			memcpy(to, d->feature[c] + d->sample[item[i]] * d->features, row);
}

DfxStatus
dfx_data_load(const DfxData *d, const uint32_t *item, size_t n, uint64_t key, bool plain, uint8_t *to,
              DfxErr *err)
{
	Loading l = {d, item, key, plain, to};

	if (d->features)
	{
		data_vectors(d, item, n, to);
		return DFX_OK;
	}
	return dfx_parallel(n, plain || !d->augment ? 1 : d->threads, data_image, &l, err);
}
