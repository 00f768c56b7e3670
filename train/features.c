/*
 * features.c
 *	  Finished networks at work: inference over many items, and the features of
 *	  the three frozen Base Models, computed once an image.
 *
 * Frozen means inference mode (METHOD "Complete model"): the networks run as
 * they will in the finished model, optimised, with their running statistics.
 * The features lie in the file of decoded samples, behind the pixels: a
 * matrix for each Base Model, a row for each image.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/run_priv.h"

#define FEATURES_BATCH 32

DfxStatus
run_infer_graph(const DfxRun *run, const RunNet *net, DfxGraph **out, DfxErr *err)
{
	DfxGraph *g = dfx_graph_new();
	DfxTensor *t = NULL;
	DfxStatus st;

	*out = NULL;
	if (!g)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a network");
	st = net->task == RUN_HEAD
	         ? dfx_build_head(g, run->backbone->features, (int) run->config->head_stride, err)
	         : dfx_build_backbone(g, run->backbone, net->nclass, err);
	if (st == DFX_OK)
		st = dfx_graph_tensors(net->graph, &t, err);
	if (st == DFX_OK)
		st = dfx_weights_set(g, t, (size_t) net->graph->nparam, err);
	if (st == DFX_OK)
		st = dfx_graph_optimize(g, run->device.backend->supports, run->device.dev, err);
	free(t);
	if (st != DFX_OK)
	{
		dfx_graph_free(g);
		return st;
	}
	*out = g;
	return DFX_OK;
}

/* Items i .. i + n - 1, their outputs to their places in out. */
static DfxStatus
features_batch(const DfxRun *run, const DfxGraph *g, DfxPlan *plan, const DfxData *data, size_t i, size_t n,
               uint8_t *in, float *const *out, DfxErr *err)
{
	uint32_t item[FEATURES_BATCH];
	float *at[DFX_MAX_OUT] = {NULL};
	DfxStatus st;

	if (dfx_train_stopped(&run->watch))
		return dfx_fail(err, DFX_ECANCELED, "canceled");
	for (size_t k = 0; k < n; k++)
		item[k] = (uint32_t) (i + k);
	for (int k = 0; k < g->nout; k++)
	{
		const DfxValue *v = &g->val[g->out[k]];

		at[k] = out[k] ? out[k] + i * (size_t) v->c * (size_t) v->h * (size_t) v->w : NULL;
	}
	st = dfx_data_load(data, item, n, 0, true, in, err);
	return st == DFX_OK ? run->device.backend->forward(plan, in, (int) n, at, err) : st;
}

DfxStatus
run_infer(DfxRun *run, const char *phase, DfxGraph *g, const DfxData *data, float *const *out, DfxErr *err)
{
	const DfxBackend *b = run->device.backend;
	DfxPlanOpts opts = {.max_batch = FEATURES_BATCH, .precision = DFX_PRECISION_FP32};
	DfxTrainProgress p = {
	    .steps = (data->n + FEATURES_BATCH - 1) / FEATURES_BATCH, .loss = NAN, .seconds_left = -1};
	uint8_t *in = malloc(FEATURES_BATCH * data->bytes);
	double began = dfx_train_now();
	DfxPlan *plan = NULL;
	DfxStatus st = in ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory for a batch");

	snprintf(p.phase, sizeof p.phase, "%s", phase);
	if (st == DFX_OK)
		st = b->compile(run->device.dev, g, &opts, &plan, err);
	for (size_t i = 0; st == DFX_OK && i < data->n; i += FEATURES_BATCH)
	{
		size_t n = data->n - i < FEATURES_BATCH ? data->n - i : FEATURES_BATCH;

		st = features_batch(run, g, plan, data, i, n, in, out, err);
		if (st != DFX_OK)
			break;
		p.step++;
		p.images_per_second = (double) (i + n) / fmax(dfx_train_now() - began, 1e-9);
		run->watch.progress(run->watch.arg, &p);
	}
	if (plan)
		b->release(plan);
	free(in);
	return st;
}

/* --- of the Base Models -------------------------------------------------- */

static int
features_wanted(const DfxSample *s, const void *arg)
{
	(void) arg;
	return s->split == DFX_SPLIT_HEAD_TRAIN || s->split == DFX_SPLIT_HEAD_VAL || s->split == DFX_SPLIT_TEST
	           ? (int) s->given.label
	           : -1;
}

static DfxStatus
features_of(DfxRun *run, int class, DfxErr *err)
{
	const RunNet *net = &run->net[class];
	float *out[DFX_MAX_OUT] = {run->feature[class]};
	DfxGraph *g;
	DfxStatus st;

	if (net->nclass > 0)
	{
		run->base_logits[class] = out[1] = malloc((run->rows.n * (size_t) net->nclass + 1) * sizeof(float));
		if (!out[1])
			return dfx_fail(err, DFX_ENOMEM, "out of memory for the logits of %zu images", run->rows.n);
	}
	run->work_unit = dfx_graph_flops(net->graph) * (double) run->rows.n;
	st = run_infer_graph(run, net, &g, err);
	if (st == DFX_OK)
		st = run_infer(run, "features", g, &run->rows, out, err);
	run->work_done += run->work_unit;
	dfx_graph_free(g);
	return st;
}

DfxStatus
run_features(DfxRun *run, DfxErr *err)
{
	size_t features = (size_t) run->backbone->features;
	void *map;
	DfxStatus st = dfx_data_images(&run->rows, run->samples, (uint32_t) run->backbone->input_size,
	                               features_wanted, NULL, err);

	if (st != DFX_OK)
		return st;
	run->feature_bytes = DFX_TRAIN_CLASSES * run->rows.n * features * sizeof(float);
	st = dfx_store_extra(&run->samples->store, run->feature_bytes, &map, err);
	if (st != DFX_OK)
		return st;
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
		run->feature[c] = (float *) map + (size_t) c * run->rows.n * features;
	for (int c = 0; c < DFX_TRAIN_CLASSES && st == DFX_OK; c++)
		st = features_of(run, c, err);
	return st;
}

void
run_features_free(DfxRun *run)
{
	dfx_store_drop(run->feature[0], run->feature_bytes);
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
	{
		free(run->base_logits[c]);
		run->base_logits[c] = run->feature[c] = NULL;
	}
	dfx_data_free(&run->rows);
}

DfxStatus
run_head_data(const DfxRun *run, DfxSplit split, DfxData *d, DfxErr *err)
{
	*d = (DfxData){.features = (size_t) run->backbone->features};
	d->bytes = DFX_TRAIN_CLASSES * d->features * sizeof(float);
	d->sample = malloc((run->rows.n + 1) * sizeof *d->sample);
	d->label = malloc(run->rows.n + 1);
	if (!d->sample || !d->label)
	{
		dfx_data_free(d);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a list of %zu samples", run->rows.n);
	}
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
		d->feature[c] = run->feature[c];
	for (size_t i = 0; i < run->rows.n; i++)
		if (run->samples->sample[run->rows.sample[i]].split == split)
		{
			d->sample[d->n] = (uint32_t) i;
			d->label[d->n++] = run->rows.label[i];
		}
	return DFX_OK;
}
