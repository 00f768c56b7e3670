/*
 * samples.h
 *	  The samples of a run: who they are, where their pixels lie, where they
 *	  go; and the way in, on which they are decoded.
 */
#ifndef DFX_TRAIN_SAMPLES_H
#define DFX_TRAIN_SAMPLES_H

#include "base/training.h"
#include "train/store.h"
#include "train/config.h"

typedef struct DfxSample
{
	DfxTrainSample given;
	size_t place; /* in the cache */
	bool copy;    /* of another sample's bytes */
	uint8_t base; /* bit per class: in that Base Model's subset */
	DfxSplit split;
} DfxSample;

typedef struct DfxSamples
{
	DfxSample *sample; /* as they came, less those that could not be read */
	size_t n, cap;
	uint32_t *order; /* set by dfx_split(): the samples that are no copies, by their sha256 */
	size_t norder;
	DfxStore store;
} DfxSamples;

extern void dfx_samples_free(DfxSamples *s);

/* Pixels of sample i. */
static inline const uint8_t *
dfx_sample_pixels(const DfxSamples *s, size_t i)
{
	return dfx_store_pixels(&s->store, s->sample[i].place);
}

/* ---- after dfx_split(): samples.c ---- */

/*
 * The indexes, in order of sha256, of the samples for which want() is true;
 * *list is malloc'd.
 */
typedef bool (*DfxSampleWant)(const DfxSample *s, const void *arg);
extern DfxStatus dfx_samples_list(const DfxSamples *s, DfxSampleWant want, const void *arg, uint32_t **list,
                                  size_t *n, DfxErr *err);

/*
 * Of a list, the same number of each class, that of the smallest which occurs:
 * shortened in place, order kept.  DFX_ENOMEM.
 */
extern DfxStatus
dfx_samples_balance(const DfxSamples *s, uint64_t seed, uint32_t *list, size_t *n, DfxErr *err);

/* SHA-256 over what the samples are and where they go: a checkpoint goes on only where it is the same. */
extern void dfx_samples_digest(const DfxSamples *s, uint8_t digest[32]);

/* ---- the way in: intake.c ---- */

typedef struct DfxIntake DfxIntake;

/* What became of a sample: called one at a time, in the order of put, from any thread. */
typedef void (*DfxIntakeDone)(void *arg, const DfxTrainSample *given, DfxStatus status, const DfxErr *err);

typedef struct DfxIntakeOpts
{
	int threads;
	DfxImageLimits limits;
	int ngenerator;
	DfxIntakeDone done;
	void *arg;
} DfxIntakeOpts;

/* s: its cache is open, nothing in it.  DFX_ENOMEM, DFX_EINTERNAL. */
extern DfxStatus dfx_intake_start(DfxSamples *s, const DfxIntakeOpts *opts, DfxIntake **in, DfxErr *err);

/*
 * Take a sample and its encoded image (malloc'd; freed in any case); waits
 * while the threads are behind.  An image that cannot be read is no error: done
 * hears of it.  DFX_EINVAL for a sample that cannot be; DFX_EIO, DFX_ELIMIT,
 * DFX_ENOMEM when the cache gave out, then or at an earlier sample.
 */
extern DfxStatus
dfx_intake_put(DfxIntake *in, const DfxTrainSample *given, uint8_t *bytes, size_t len, DfxErr *err);

/* Wait for all, end the threads, map the cache.  in is gone in any case.  Errors as of put. */
extern DfxStatus dfx_intake_end(DfxIntake *in, DfxErr *err);

#endif /* DFX_TRAIN_SAMPLES_H */
