/*
 * learn.h
 *	  One network learns: epochs of batches, validation after each, the weights
 *	  of the lowest validation loss (METHOD "Base Models", "Complete model").
 *
 * An epoch takes the items in an order drawn anew, in batches of batch; an
 * item that would be a last batch of its own is left out of that epoch (BatchNorm
 * over one value has no variance, and PyTorch refuses it), another one each
 * time.  Validation runs in inference mode over all of its set.  Nothing of
 * an epoch depends on the ones before but the network's and Adam's state, so
 * that state, between two epochs, is all there is to save.
 */
#ifndef DFX_TRAIN_LEARN_H
#define DFX_TRAIN_LEARN_H

#include <stdatomic.h>

#include "base/training.h"
#include "nn/backend.h"
#include "train/data.h"

/* What one runs on. */
typedef struct DfxTrainDevice
{
	const DfxBackend *backend;
	DfxDev *dev;
	int threads;           /* for what is done beside the network */
	uint64_t memory_limit; /* bytes that a plan may hold; 0: no limit */
} DfxTrainDevice;

/* Who watches. */
typedef struct DfxTrainWatch
{
	void *arg;
	/* After every step. */
	void (*progress)(void *arg, const DfxTrainProgress *p);
	/* After every epoch; a failure ends the training. */
	DfxStatus (*epoch)(void *arg, const DfxTrainEpoch *e, DfxErr *err);
	const atomic_bool *stop; /* looked at before every step; NULL: none */
} DfxTrainWatch;

typedef struct DfxLearnOpts
{
	const char *phase; /* also names the stream of random choices */
	int nclass;
	const double *weight; /* of each class in the loss; NULL: all 1 */
	uint64_t epochs;
} DfxLearnOpts;

typedef struct DfxLearn
{
	const DfxTrainConfig *config;
	DfxLearnOpts o;
	const DfxTrainDevice *device;
	DfxTrainWatch watch;
	DfxGraph *graph; /* its parameters: the best so far, at first those to start from */
	const DfxData *train, *val;
	DfxPlan *plan;
	int out; /* the output "logits" */

	/* the state, besides the plan's parameters and moments */
	uint64_t epoch, step; /* finished */
	uint64_t best_epoch;  /* 0: none yet */
	double best_loss;

	/* of one batch */
	uint32_t *order;
	uint8_t *in, *label;
	float *logits, *gradient;
} DfxLearn;

/*
 * Compile the graph for training; l is to be ended also after a failure.  The
 * graph, which is not optimised and has its weights, and the data stay the
 * caller's.  Errors: the backend's; DFX_EUNSUPPORTED when it cannot train.
 */
extern DfxStatus dfx_learn_begin(DfxLearn *l, const DfxTrainConfig *config, const DfxLearnOpts *opts,
                                 const DfxTrainDevice *device, const DfxTrainWatch *watch, DfxGraph *graph,
                                 const DfxData *train, const DfxData *val, DfxErr *err);

/*
 * The epochs that are left.  Then the graph's parameters are the best.
 * DFX_ECANCELED when stopped, DFX_EINVAL when the loss is no number any more,
 * else the backend's.
 */
extern DfxStatus dfx_learn_run(DfxLearn *l, DfxErr *err);
extern void dfx_learn_end(DfxLearn *l);

static inline bool
dfx_train_stopped(const DfxTrainWatch *w)
{
	return w->stop && atomic_load(w->stop);
}

/* Seconds of a clock that only runs forward. */
extern double dfx_train_now(void);

#endif /* DFX_TRAIN_LEARN_H */
