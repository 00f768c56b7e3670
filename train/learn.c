/*
 * learn.c
 *	  The loop of one network.
 */
#include "train/learn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "train/loss.h"
#include "train/random.h"
#include "train/schedule.h"

double
dfx_train_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* --- begin and end ------------------------------------------------------- */

static int
learn_output(const DfxGraph *g, const char *name)
{
	for (int i = 0; i < g->nout; i++)
		if (strcmp(g->out_name[i], name) == 0)
			return i;
	return -1;
}

static DfxStatus
learn_compile(DfxLearn *l, DfxErr *err)
{
	const DfxBackend *b = l->device->backend;
	DfxPlanOpts opts = {
	    .max_batch = (int) l->config->batch, .precision = l->config->precision, .train = true};
	DfxStatus st;

	if (!b->forward_train || !b->backward || !b->step || !b->read_params || !b->write_params)
		return dfx_fail(err, DFX_EUNSUPPORTED, "backend %s cannot train", b->name);
	st = b->compile(l->device->dev, l->graph, &opts, &l->plan, err);
	if (st != DFX_OK)
		return st;
	if (l->device->memory_limit && b->bytes(l->plan) > l->device->memory_limit)
	{
		dfx_fail(err, DFX_ENOMEM, "training with a batch of %d takes %zu MB, over the limit of %zu MB",
		         opts.max_batch, b->bytes(l->plan) >> 20, (size_t) (l->device->memory_limit >> 20));
		dfx_hint(err, "Take a smaller batch.");
		return DFX_ENOMEM;
	}
	return DFX_OK;
}

DfxStatus
dfx_learn_begin(DfxLearn *l, const DfxTrainConfig *config, const DfxLearnOpts *opts,
                const DfxTrainDevice *device, const DfxTrainWatch *watch, DfxGraph *graph,
                const DfxData *train, const DfxData *val, DfxErr *err)
{
	size_t batch = (size_t) config->batch, nclass = (size_t) opts->nclass;

	*l = (DfxLearn){.config = config,
	                .o = *opts,
	                .device = device,
	                .watch = *watch,
	                .graph = graph,
	                .train = train,
	                .val = val,
	                .best_loss = INFINITY};
	l->out = learn_output(graph, "logits");
	l->order = malloc(((train->n > val->n ? train->n : val->n) + 1) * sizeof *l->order);
	l->in = malloc(batch * train->bytes);
	l->label = malloc(batch);
	l->logits = malloc(batch * nclass * sizeof *l->logits);
	l->gradient = malloc(batch * nclass * sizeof *l->gradient);
	if (!l->order || !l->in || !l->label || !l->logits || !l->gradient)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a batch of %zu", batch);
	return learn_compile(l, err);
}

void
dfx_learn_end(DfxLearn *l)
{
	if (l->plan)
		l->device->backend->release(l->plan);
	free(l->order);
	free(l->in);
	free(l->label);
	free(l->logits);
	free(l->gradient);
	memset(l, 0, sizeof *l);
}

/* --- batches ------------------------------------------------------------- */

static DfxStatus
learn_diverged(const DfxLearn *l, DfxErr *err)
{
	dfx_fail(err, DFX_EINVAL, "training of \"%s\" diverged: the loss of epoch %zu is not a number",
	         l->o.phase, (size_t) l->epoch + 1);
	dfx_hint(err, "Lower learning_rate.");
	return DFX_EINVAL;
}

static DfxStatus
learn_load(DfxLearn *l, const DfxData *d, const uint32_t *item, size_t n, bool plain, DfxErr *err)
{
	uint64_t key =
	    dfx_draw_key(l->config->seed, DFX_DRAW_AUGMENT, dfx_draw_name(l->o.phase), (uint64_t) l->epoch);

	for (size_t i = 0; i < n; i++)
		l->label[i] = d->label[item[i]];
	return dfx_data_load(d, item, n, key, plain, l->in, err);
}

/* One step of Adam on items item[0 .. n-1]. */
static DfxStatus
learn_step(DfxLearn *l, const uint32_t *item, size_t n, double lr, DfxLossSum *sum, DfxErr *err)
{
	const DfxBackend *b = l->device->backend;
	const float *dout[DFX_MAX_OUT] = {NULL};
	float *out[DFX_MAX_OUT] = {NULL};
	uint64_t mask = dfx_draw_key(l->config->seed, DFX_DRAW_DROPOUT, dfx_draw_name(l->o.phase), l->step);
	DfxAdam adam = {.lr = lr,
	                .beta1 = 0.9,
	                .beta2 = 0.999,
	                .eps = 1e-8,
	                .weight_decay = l->config->weight_decay,
	                .step = l->step + 1};
	DfxStatus st = learn_load(l, l->train, item, n, false, err);

	out[l->out] = l->logits;
	dout[l->out] = l->gradient;
	if (st == DFX_OK)
		st = b->forward_train(l->plan, l->in, (int) n, mask, out, err);
	if (st != DFX_OK)
		return st;
	dfx_loss(l->logits, l->label, n, l->o.nclass, l->o.weight, l->gradient, sum);
	if (!isfinite(sum->loss))
		return learn_diverged(l, err);
	st = b->backward(l->plan, (int) n, dout, NULL, err);
	if (st == DFX_OK)
		st = b->step(l->plan, &adam, err);
	if (st == DFX_OK)
		l->step++;
	return st;
}

static DfxStatus
learn_validate(DfxLearn *l, DfxLossSum *sum, DfxErr *err)
{
	float *out[DFX_MAX_OUT] = {NULL};
	size_t batch = (size_t) l->config->batch;

	out[l->out] = l->logits;
	for (size_t i = 0; i < l->val->n; i++)
		l->order[i] = (uint32_t) i;
	for (size_t i = 0; i < l->val->n; i += batch)
	{
		size_t n = l->val->n - i < batch ? l->val->n - i : batch;
		DfxStatus st = learn_load(l, l->val, l->order + i, n, true, err);

		if (dfx_train_stopped(&l->watch))
			return dfx_fail(err, DFX_ECANCELED, "canceled");
		if (st == DFX_OK)
			st = l->device->backend->forward(l->plan, l->in, (int) n, out, err);
		if (st != DFX_OK)
			return st;
		dfx_loss(l->logits, l->label, n, l->o.nclass, l->o.weight, NULL, sum);
	}
	return isfinite(sum->loss) ? DFX_OK : learn_diverged(l, err);
}

/* --- epochs -------------------------------------------------------------- */

/* Fisher and Yates, from the order of sha256. */
static void
learn_shuffle(DfxLearn *l)
{
	uint64_t key = dfx_draw_key(l->config->seed, DFX_DRAW_SHUFFLE, dfx_draw_name(l->o.phase), l->epoch);

	for (size_t i = 0; i < l->train->n; i++)
		l->order[i] = (uint32_t) i;
	for (size_t i = l->train->n; i > 1; i--)
	{
		size_t k = (size_t) (dfx_unit64(dfx_draw_next(key, i)) * (double) i);
		uint32_t t = l->order[i - 1];

		l->order[i - 1] = l->order[k];
		l->order[k] = t;
	}
}

/* The training half of an epoch. */
static DfxStatus
learn_train(DfxLearn *l, double lr, double began, DfxLossSum *sum, DfxErr *err)
{
	size_t batch = (size_t) l->config->batch;
	size_t n = l->train->n - (l->train->n % batch == 1), done = 0;
	DfxTrainProgress p = {.epoch = (uint32_t) l->epoch + 1,
	                      .epochs = (uint32_t) l->o.epochs,
	                      .steps = (n + batch - 1) / batch,
	                      .seconds_left = -1};

	snprintf(p.phase, sizeof p.phase, "%s", l->o.phase);
	learn_shuffle(l);
	while (done < n)
	{
		size_t k = n - done < batch ? n - done : batch;
		DfxStatus st;

		if (dfx_train_stopped(&l->watch))
			return dfx_fail(err, DFX_ECANCELED, "canceled");
		st = learn_step(l, l->order + done, k, lr, sum, err);
		if (st != DFX_OK)
			return st;
		done += k;
		p.step++;
		p.loss = dfx_loss_mean(sum);
		p.images_per_second = (double) done / fmax(dfx_train_now() - began, 1e-9);
		l->watch.progress(l->watch.arg, &p);
	}
	return DFX_OK;
}

/* The network as it is becomes the best. */
static DfxStatus
learn_keep(DfxLearn *l, double loss, DfxErr *err)
{
	float **data = malloc(((size_t) l->graph->nparam + 1) * sizeof *data);
	DfxStatus st;

	if (!data)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the parameters of a network");
	for (int i = 0; i < l->graph->nparam; i++)
		data[i] = l->graph->param[i].data;
	st = l->device->backend->read_params(l->plan, DFX_STATE_VALUE, data, err);
	free(data);
	l->best_loss = loss;
	l->best_epoch = l->epoch;
	return st;
}

static DfxStatus
learn_epoch(DfxLearn *l, DfxErr *err)
{
	double began = dfx_train_now(), trained;
	DfxLossSum train = {0}, val = {0};
	DfxTrainEpoch e = {.epochs = (uint32_t) l->o.epochs};
	DfxStatus st;

	e.learning_rate = dfx_step_lr(l->config->learning_rate, l->config->step_size, l->config->gamma, l->epoch);
	st = learn_train(l, e.learning_rate, began, &train, err);
	trained = dfx_train_now();
	if (st == DFX_OK)
		st = learn_validate(l, &val, err);
	if (st != DFX_OK)
		return st;
	l->epoch++;
	snprintf(e.phase, sizeof e.phase, "%s", l->o.phase);
	e.epoch = (uint32_t) l->epoch;
	e.train_loss = dfx_loss_mean(&train);
	e.train_accuracy = dfx_loss_accuracy(&train);
	e.val_loss = dfx_loss_mean(&val);
	e.val_accuracy = dfx_loss_accuracy(&val);
	e.best = e.val_loss < l->best_loss;
	if (e.best)
		st = learn_keep(l, e.val_loss, err);
	e.seconds = dfx_train_now() - began;
	e.images_per_second = (double) train.n / fmax(trained - began, 1e-9);
	return st == DFX_OK ? l->watch.epoch(l->watch.arg, &e, err) : st;
}

DfxStatus
dfx_learn_run(DfxLearn *l, DfxErr *err)
{
	DfxStatus st = DFX_OK;

	while (st == DFX_OK && l->epoch < l->o.epochs)
		st = learn_epoch(l, err);
	return st;
}
