/*
 * run.c
 *	  The order of a run: networks one after the other, the features before the
 *	  head, the test at the end.
 *
 * All networks are built with the weights they start from before the first
 * one learns, so that a weight file that does not fit is found at once.  A
 * network that has learnt has its weights rounded to what will be stored:
 * whatever comes after (features, the head, the figures) is of the model as
 * it will be used.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/init.h"
#include "train/loss.h"
#include "train/run_priv.h"

DfxStatus
dfx_run_new(const DfxTrainConfig *config, const DfxTrainDevice *device, DfxRun **out, DfxErr *err)
{
	DfxRun *run = calloc(1, sizeof *run);

	*out = NULL;
	if (!run)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a training run");
	run->config = config;
	run->device = *device;
	run->backbone = dfx_backbone_find(config->backbone);
	if (!run->backbone)
	{
		free(run);
		return dfx_fail(err, DFX_EINVAL, "unknown backbone \"%s\"", config->backbone);
	}
	*out = run;
	return DFX_OK;
}

void
dfx_run_free(DfxRun *run)
{
	if (!run)
		return;
	dfx_learn_end(&run->learn);
	for (int i = 0; i < run->nnet; i++)
		dfx_graph_free(run->net[i].graph);
	for (int i = 0; i < run->ngiven; i++)
		dfx_st_free(&run->given[i].st);
	run_features_free(run);
	dfx_st_free(&run->resume);
	free(run->metrics);
	free(run);
}

/* --- what it starts from ------------------------------------------------- */

DfxStatus
dfx_run_give(DfxRun *run, const char *name, const uint8_t *bytes, uint64_t len, DfxErr *err)
{
	RunGiven *given = &run->given[run->ngiven];
	const char *backbone;
	DfxStatus st;

	if (name[0] && dfx_train_class_find(name) < 0)
		return dfx_fail(err, DFX_EINVAL, "weights to start from for \"%.32s\", which is no Base Model", name);
	for (int i = 0; i < run->ngiven; i++)
		if (strcmp(run->given[i].name, name) == 0)
			return dfx_fail(err, DFX_EINVAL, "weights to start from are given twice");
	st = dfx_st_view(bytes, len, &given->st, err);
	if (st != DFX_OK)
		return st;
	snprintf(given->name, sizeof given->name, "%s", name);
	run->ngiven++;
	backbone = dfx_st_meta(&given->st, "backbone");
	if (backbone && strcmp(backbone, run->backbone->name) != 0)
		return dfx_fail(err, DFX_EWEIGHTS, "weights to start from are of a %.32s, not of a %s", backbone,
		                run->backbone->name);
	return DFX_OK;
}

/* What net starts from: the file for it alone, else the one for all; NULL: none. */
static const DfxSafetensors *
run_given(const DfxRun *run, const RunNet *net)
{
	const DfxSafetensors *st = NULL;

	for (int i = 0; i < run->ngiven; i++)
		if ((run->given[i].name[0] == '\0' && !st) || strcmp(run->given[i].name, net->scope) == 0)
			st = &run->given[i].st;
	return net->task == RUN_HEAD ? NULL : st;
}

/* The prefix of net's tensors in a file: models of several networks have their scopes before the names. */
static DfxStatus
run_init_given(RunNet *net, const DfxSafetensors *st, DfxErr *err)
{
	const char *kind = dfx_st_meta(st, "kind");
	char prefix[DFX_TRAIN_PHASE + 1] = "";

	if (kind && (strcmp(kind, "trinet") == 0 || strcmp(kind, "hierarchy") == 0))
		snprintf(prefix, sizeof prefix, "%s.", net->scope);
	return dfx_init_from(net->graph, st->tensor, st->ntensor, prefix, err);
}

static DfxStatus
run_build(DfxRun *run, RunNet *net, DfxErr *err)
{
	const DfxSafetensors *given = run_given(run, net);
	const char *family = net->task == RUN_HEAD ? "head" : run->backbone->family;
	DfxStatus st;

	net->graph = dfx_graph_new();
	if (!net->graph)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a network");
	st = net->task == RUN_HEAD
	         ? dfx_build_head(net->graph, run->backbone->features, (int) run->config->head_stride, err)
	         : dfx_build_backbone(net->graph, run->backbone, net->nclass, err);
	if (st == DFX_OK)
		st = dfx_init_weights(net->graph, family, net->scope, run->config->seed, err);
	if (st != DFX_OK)
		return st;
	if (given)
		return run_init_given(net, given, err);
	if (!net->done)
		return DFX_OK;
	dfx_fail(err, DFX_EINVAL, "training of a head without the Base Model \"%s\"", net->scope);
	dfx_hint(err, "Give one complete model, or three Base Models.");
	return DFX_EINVAL;
}

/* --- how long it will take ----------------------------------------------- */

/* Forward is one pass over an image, backward two more. */
#define RUN_TRAIN_PASSES 3

/* Arithmetic of one epoch of a network. */
static double
run_epoch_work(const DfxRun *run, const RunNet *net)
{
	return dfx_graph_flops(net->graph) *
	       ((double) RUN_TRAIN_PASSES * (double) run_count(run, net, run_train_split(net)) +
	        (double) run_count(run, net, run_val_split(net)));
}

static uint64_t
run_epochs(const DfxRun *run, const RunNet *net)
{
	return net->task == RUN_HEAD ? run->config->head_epochs : run->config->epochs;
}

static void
run_progress(void *arg, const DfxTrainProgress *given)
{
	DfxRun *run = arg;
	DfxTrainProgress p = *given;
	double units =
	    (run->learning ? (double) p.epoch - 1 : 0) + (double) p.step / (double) (p.steps ? p.steps : 1);
	double done = run->work_done + run->work_unit * units, spent = dfx_train_now() - run->work_began;

	if (done > run->work_before)
		p.seconds_left = (run->work_all - done) * spent / (done - run->work_before);
	run->outer.progress(run->outer.arg, &p);
}

static DfxStatus
run_epoch(void *arg, const DfxTrainEpoch *e, DfxErr *err)
{
	DfxRun *run = arg;

	return run->outer.epoch(run->outer.arg, e, err);
}

/* What is to be done in all, and what a checkpoint has done already. */
static void
run_measure(DfxRun *run)
{
	size_t ntest = 0;

	for (size_t i = 0; i < run->samples->norder; i++)
		ntest += run->samples->sample[run->samples->order[i]].split == DFX_SPLIT_TEST;
	run->work_all = 0;
	for (int i = 0; i < run->nnet; i++)
	{
		const RunNet *net = &run->net[i];

		if (i == run->at)
			run->work_done = run->work_all;
		if (net->nclass > 0)
			run->work_all += run_epoch_work(run, net) * (double) run_epochs(run, net);
		/* features of a Base Model, or the test */
		run->work_all += dfx_graph_flops(net->graph) * (double) ntest;
		if (run->net[run->nnet - 1].task == RUN_HEAD && net->task == RUN_BASE)
			run->work_all += dfx_graph_flops(net->graph) *
			                 (double) (run_count(run, &run->net[run->nnet - 1], DFX_SPLIT_HEAD_TRAIN) +
			                           run_count(run, &run->net[run->nnet - 1], DFX_SPLIT_HEAD_VAL));
	}
	run->work_before = run->work_done;
	run->work_began = dfx_train_now();
}

/* --- one network --------------------------------------------------------- */

static DfxStatus
run_data(const DfxRun *run, const RunNet *net, DfxSplit split, DfxData *d, DfxErr *err)
{
	RunWanted w = {net, split};
	DfxStatus st;

	if (net->task == RUN_HEAD)
		return run_head_data(run, split, d, err);
	st = dfx_data_images(d, run->samples, (uint32_t) run->backbone->input_size, run_label, &w, err);
	d->threads = run->device.threads;
	d->augment = &run->config->augment;
	return st;
}

static DfxStatus
run_learn_on(DfxRun *run, RunNet *net, const DfxData *train, const DfxData *val, DfxErr *err)
{
	double weight[DFX_GENERATORS];
	bool weighted = run->config->weighted && net->task != RUN_BASE;
	DfxLearnOpts o = {.phase = net->scope,
	                  .nclass = net->nclass,
	                  .weight = weighted ? weight : NULL,
	                  .epochs = run_epochs(run, net)};
	DfxStatus st;

	dfx_loss_weights(train->label, train->n, net->nclass, weight);
	run->work_unit = run_epoch_work(run, net);
	st =
	    dfx_learn_begin(&run->learn, run->config, &o, &run->device, &run->watch, net->graph, train, val, err);
	if (st == DFX_OK && run->resume.ntensor > 0)
		st = run_restore(run, err);
	run->learning = true;
	run->work_before += run->work_unit * (double) run->learn.epoch;
	if (st == DFX_OK)
		st = dfx_learn_run(&run->learn, err);
	run->learning = false;
	net->best_epoch = run->learn.best_epoch;
	net->best_loss = run->learn.best_loss;
	dfx_learn_end(&run->learn);
	run->work_done += run->work_unit * (double) o.epochs;
	return st;
}

static DfxStatus
run_net(DfxRun *run, RunNet *net, DfxErr *err)
{
	DfxData train = {0}, val = {0};
	DfxStatus st = DFX_OK;

	if (net->task == RUN_HEAD)
		st = run_features(run, err);
	if (st == DFX_OK && !net->done)
	{
		st = run_data(run, net, run_train_split(net), &train, err);
		if (st == DFX_OK)
			st = run_data(run, net, run_val_split(net), &val, err);
		if (st == DFX_OK)
			st = run_learn_on(run, net, &train, &val, err);
		if (st == DFX_OK)
			st = dfx_weights_round(net->graph, run->config->storage, err);
		dfx_data_free(&train);
		dfx_data_free(&val);
	}
	net->done = st == DFX_OK;
	return st;
}

/* --- public -------------------------------------------------------------- */

DfxStatus
dfx_run_prepare(DfxRun *run, const DfxSamples *samples, DfxErr *err)
{
	DfxStatus st;

	run->samples = samples;
	st = run_recipe(run, err);
	for (int i = 0; i < run->nnet && st == DFX_OK; i++)
		st = run_build(run, &run->net[i], err);
	return st;
}

DfxStatus
dfx_run_train(DfxRun *run, const DfxTrainWatch *watch, DfxErr *err)
{
	DfxStatus st = DFX_OK;

	run->outer = *watch;
	run->watch =
	    (DfxTrainWatch){.arg = run, .progress = run_progress, .epoch = run_epoch, .stop = watch->stop};
	run_measure(run);
	for (; run->at < run->nnet && st == DFX_OK; run->at++)
		st = run_net(run, &run->net[run->at], err);
	return st == DFX_OK ? run_test(run, err) : st;
}

const char *
dfx_run_metrics(const DfxRun *run)
{
	return run->metrics;
}

const DfxModelMeta *
dfx_run_meta(const DfxRun *run)
{
	return &run->meta;
}

/* Whether the model's parameters have the networks' scopes before their names. */
static bool
run_scoped(const DfxRun *run)
{
	return run->config->recipe != DFX_RECIPE_BASE && run->config->recipe != DFX_RECIPE_CLASSIFIER;
}

static bool
run_in_model(const DfxGraph *model, const char *name)
{
	for (int i = 0; i < model->nparam; i++)
		if (strcmp(model->param[i].name, name) == 0)
			return true;
	return false;
}

/* Tensors of the finished model, sorted; of Base Models in a complete one without the classifiers. */
static DfxStatus
run_tensors(const DfxRun *run, const DfxGraph *model, DfxTensor **tensor, size_t *n, DfxErr *err)
{
	size_t cap = 0;
	DfxTensor *t;

	for (int i = 0; i < run->nnet; i++)
		cap += (size_t) run->net[i].graph->nparam;
	*n = 0;
	*tensor = t = calloc(cap + 1, sizeof *t);
	if (!t)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %zu tensors", cap);
	for (int i = 0; i < run->nnet; i++)
		for (int k = 0; k < run->net[i].graph->nparam; k++)
		{
			const DfxParam *p = &run->net[i].graph->param[k];
			bool scoped = run_scoped(run) && run->net[i].task != RUN_HEAD;

			t[*n] = dfx_param_tensor(p);
			snprintf(t[*n].name, sizeof t->name, "%s%s%.100s", scoped ? run->net[i].scope : "",
			         scoped ? "." : "", p->name);
			*n += run_in_model(model, t[*n].name);
		}
	qsort(t, *n, sizeof *t, dfx_tensor_compare);
	return DFX_OK;
}

DfxStatus
dfx_run_export(const DfxRun *run, uint8_t **bytes, size_t *len, uint8_t version[DFX_VERSION_LEN], DfxErr *err)
{
	DfxGraph *g = dfx_graph_new();
	DfxTensor *t = NULL;
	size_t n;
	DfxStatus st = g ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory for a network");

	*bytes = NULL;
	if (st == DFX_OK)
		st = dfx_build_model(g, &run->meta, 0, err);
	if (st == DFX_OK)
		st = run_tensors(run, g, &t, &n, err);
	if (st == DFX_OK)
		st = dfx_weights_set(g, t, n, err);
	if (st == DFX_OK)
		st = dfx_graph_export(g, &run->meta, run->config->storage, bytes, len, version, err);
	free(t);
	dfx_graph_free(g);
	return st;
}
