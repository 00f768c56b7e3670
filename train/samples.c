/*
 * samples.c
 *	  Questions to a set of samples whose splits have been drawn: which of them
 *	  serve for something, an equal number of each class, one hash of it all.
 */
#include "train/samples.h"

#include <stdlib.h>

#include "base/sha256.h"
#include "train/random.h"

DfxStatus
dfx_samples_list(const DfxSamples *s, DfxSampleWant want, const void *arg, uint32_t **list, size_t *n,
                 DfxErr *err)
{
	*n = 0;
	*list = malloc((s->norder + 1) * sizeof **list);
	if (!*list)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a list of %zu samples", s->norder);
	for (size_t i = 0; i < s->norder; i++)
		if (want(&s->sample[s->order[i]], arg))
			(*list)[(*n)++] = s->order[i];
	return DFX_OK;
}

static int
samples_by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

DfxStatus
dfx_samples_balance(const DfxSamples *s, uint64_t seed, uint32_t *list, size_t *n, DfxErr *err)
{
	uint64_t key = dfx_draw_key(seed, DFX_DRAW_BALANCE, 0, 0);
	uint64_t *hash[DFX_TRAIN_CLASSES] = {NULL}, *all = malloc((DFX_TRAIN_CLASSES * *n + 1) * sizeof *all);
	size_t count[DFX_TRAIN_CLASSES] = {0}, smallest = SIZE_MAX, kept = 0;

	if (!all)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a list of %zu samples", *n);
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
		hash[c] = all + (size_t) c * *n;
	for (size_t i = 0; i < *n; i++)
	{
		const DfxTrainSample *given = &s->sample[list[i]].given;

		hash[given->label][count[given->label]++] = dfx_draw_hash(key, given->sha256);
	}
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
	{
		qsort(hash[c], count[c], sizeof *all, samples_by_number);
		if (count[c] > 0 && count[c] < smallest)
			smallest = count[c];
	}
	for (size_t i = 0; i < *n; i++)
	{
		const DfxTrainSample *given = &s->sample[list[i]].given;

		if (dfx_draw_hash(key, given->sha256) <= hash[given->label][smallest - 1])
			list[kept++] = list[i];
	}
	*n = kept;
	free(all);
	return DFX_OK;
}

void
dfx_samples_digest(const DfxSamples *s, uint8_t digest[32])
{
	DfxSha256 h;

	dfx_sha256_init(&h);
	for (size_t i = 0; i < s->norder; i++)
	{
		const DfxSample *x = &s->sample[s->order[i]];
		uint8_t fate[5] = {(uint8_t) x->given.label, (uint8_t) x->split, x->base,
		                   (uint8_t) (x->given.generator + 1), (uint8_t) ((x->given.generator + 1) >> 8)};

		dfx_sha256_update(&h, x->given.sha256, 32);
		dfx_sha256_update(&h, fate, sizeof fate);
	}
	dfx_sha256_final(&h, digest);
}
