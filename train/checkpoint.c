/*
 * checkpoint.c
 *	  A run's state between two epochs as a safetensors file, and back.
 *
 *	metadata	format (CHECKPOINT_FORMAT); config and samples, the digests of what
 *				the run depends on; network, the scope of the one that learns;
 *				epoch, step; best, of each network so far the best epoch and its loss
 *				("3 0x1.8p-1 7 0x1p-2 ")
 *	tensors		done.<scope>.<name>		networks that have finished
 *				best.<name>				of the network that learns: the best weights so far,
 *				value.<name>			those it goes on from,
 *				moment1.<name>			and Adam's averages
 *				moment2.<name>
 *
 * All F32.  Every random choice is a function of the seed and of epoch and
 * step, so there is no random state.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/run_priv.h"
#include "train/split.h"

#define CHECKPOINT_FORMAT "dfx-checkpoint-1"

static const char *const checkpoint_state[DFX_STATE_COUNT] = {
    [DFX_STATE_VALUE] = "value.",
    [DFX_STATE_MOMENT1] = "moment1.",
    [DFX_STATE_MOMENT2] = "moment2.",
};

/* --- writing ------------------------------------------------------------- */

typedef struct Writer
{
	DfxTensor *t;
	size_t n, cap;
} Writer;

/* A parameter under a prefix; no data yet, or the graph's. */
static DfxStatus
checkpoint_add(Writer *w, const char *prefix, const char *scope, const DfxParam *p, const void *data,
               DfxErr *err)
{
	DfxTensor *t = &w->t[w->n];
	int len;

	if (w->n == w->cap)
		return dfx_fail(err, DFX_EINTERNAL, "a checkpoint of more than %zu tensors", w->cap);
	*t = dfx_param_tensor(p);
	len = snprintf(t->name, sizeof t->name, "%s%s%s%s", prefix, scope, scope[0] ? "." : "", p->name);
	if (len >= (int) sizeof t->name)
		return dfx_fail(err, DFX_EINTERNAL, "parameter \"%s\" has too long a name for a checkpoint", p->name);
	t->data = data;
	w->n++;
	return DFX_OK;
}

/* All tensors described; those of the plan without data. */
static DfxStatus
checkpoint_describe(const DfxRun *run, Writer *w, DfxErr *err)
{
	const DfxGraph *g = run->net[run->at].graph;
	DfxStatus st = DFX_OK;

	for (int k = 0; k < run->at; k++)
		for (int i = 0; i < run->net[k].graph->nparam && st == DFX_OK; i++)
			st = checkpoint_add(w, "done.", run->net[k].scope, &run->net[k].graph->param[i],
			                    run->net[k].graph->param[i].data, err);
	for (int i = 0; i < g->nparam && st == DFX_OK; i++)
		st = checkpoint_add(w, "best.", "", &g->param[i], g->param[i].data, err);
	for (int s = 0; s < DFX_STATE_COUNT; s++)
		for (int i = 0; checkpoint_state[s] && i < g->nparam && st == DFX_OK; i++)
			if (s == DFX_STATE_VALUE || dfx_param_trained(&g->param[i]))
				st = checkpoint_add(w, checkpoint_state[s], "", &g->param[i], NULL, err);
	return st;
}

static DfxStatus
checkpoint_header(const DfxRun *run, const Writer *w, uint8_t **header, size_t *len, DfxErr *err)
{
	char config[65], samples[65], epoch[24], step[24], best[RUN_NETS * 64] = "";
	const char *keys[] = {"format", "config", "samples", "network", "epoch", "step", "best"};
	const char *values[] = {CHECKPOINT_FORMAT, config, samples, run->net[run->at].scope, epoch, step, best};
	uint8_t digest[32];

	dfx_train_config_digest(run->config, digest);
	dfx_version_hex(digest, config);
	dfx_samples_digest(run->samples, digest);
	dfx_version_hex(digest, samples);
	snprintf(epoch, sizeof epoch, "%" PRIu64, run->learn.epoch);
	snprintf(step, sizeof step, "%" PRIu64, run->learn.step);
	for (int k = 0; k <= run->at; k++)
		snprintf(best + strlen(best), sizeof best - strlen(best), "%" PRIu64 " %a ",
		         k < run->at ? run->net[k].best_epoch : run->learn.best_epoch,
		         k < run->at ? run->net[k].best_loss : run->learn.best_loss);
	return dfx_st_header(w->t, w->n, keys, values, sizeof keys / sizeof keys[0], header, len, err);
}

/* Copy what has data, and let the plan write the rest to its places in the file. */
static DfxStatus
checkpoint_fill(const DfxRun *run, const Writer *w, uint8_t *at, DfxErr *err)
{
	const DfxGraph *g = run->net[run->at].graph;
	float **to = calloc((size_t) g->nparam + 1, sizeof *to);
	size_t k = 0;
	DfxStatus st = DFX_OK;

	if (!to)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a checkpoint");
	for (; k < w->n && w->t[k].data; k++)
	{
		memcpy(at, w->t[k].data, w->t[k].nbytes);
		at += w->t[k].nbytes;
	}
	for (int s = 0; s < DFX_STATE_COUNT && st == DFX_OK; s++)
	{
		if (!checkpoint_state[s])
			continue;
		for (int i = 0; i < g->nparam; i++)
		{
			to[i] = NULL;
			if (s != DFX_STATE_VALUE && !dfx_param_trained(&g->param[i]))
				continue;
			to[i] = (float *) (void *) at; /* the data begin at a multiple of 8, and all are floats */
			at += w->t[k++].nbytes;
		}
		st = run->device.backend->read_params(run->learn.plan, (DfxState) s, to, err);
	}
	free(to);
	return st;
}

DfxStatus
dfx_run_checkpoint(const DfxRun *run, uint8_t **bytes, size_t *len, DfxErr *err)
{
	Writer w = {0};
	uint8_t *file = NULL, *all;
	size_t data = 0;
	DfxStatus st;

	*bytes = NULL;
	if (!run->learning)
		return dfx_fail(err, DFX_EINTERNAL, "no network is learning");
	for (int k = 0; k <= run->at; k++)
		w.cap += (size_t) run->net[k].graph->nparam * (k == run->at ? 4 : 1);
	w.t = calloc(w.cap + 1, sizeof *w.t);
	st =
	    w.t ? checkpoint_describe(run, &w, err) : dfx_fail(err, DFX_ENOMEM, "out of memory for a checkpoint");
	if (st == DFX_OK)
		st = checkpoint_header(run, &w, &file, len, err);
	for (size_t i = 0; st == DFX_OK && i < w.n; i++)
		data += w.t[i].nbytes;
	if (st == DFX_OK)
	{
		all = realloc(file, *len + data);
		st = all ? checkpoint_fill(run, &w, all + *len, err)
		         : dfx_fail(err, DFX_ENOMEM, "out of memory for a checkpoint of %zu bytes", *len + data);
		file = all ? all : file;
	}
	free(w.t);
	if (st != DFX_OK)
	{
		free(file);
		return st;
	}
	*bytes = file;
	*len += data;
	return DFX_OK;
}

/* --- reading ------------------------------------------------------------- */

static DfxStatus
checkpoint_bad(DfxErr *err, const char *what, const char *which)
{
	return dfx_fail(err, DFX_EWEIGHTS, "not a checkpoint of training: %s \"%s\"", what, which);
}

/* Where the data of a parameter lie, under a prefix. */
static DfxStatus
checkpoint_find(const DfxSafetensors *st, const char *prefix, const char *scope, const DfxParam *p,
                const float **data, DfxErr *err)
{
	char name[2 * DFX_NAME_LEN];
	DfxTensor want = dfx_param_tensor(p);
	const DfxTensor *t;

	snprintf(name, sizeof name, "%s%s%s%s", prefix, scope, scope[0] ? "." : "", p->name);
	t = dfx_st_find(st, name);
	if (!t || t->dtype != DFX_F32 || t->rank != want.rank ||
	    memcmp(t->dim, want.dim, want.rank * sizeof *want.dim) != 0 ||
	    (uintptr_t) t->data % sizeof(float) != 0)
		return checkpoint_bad(err, "no such tensor, or not of its shape:", name);
	*data = t->data;
	return DFX_OK;
}

static DfxStatus
checkpoint_copy(const DfxSafetensors *st, const char *prefix, const char *scope, DfxGraph *g, DfxErr *err)
{
	for (int i = 0; i < g->nparam; i++)
	{
		const float *data;

		if (checkpoint_find(st, prefix, scope, &g->param[i], &data, err) != DFX_OK)
			return err->code;
		memcpy(g->param[i].data, data, dfx_param_count(&g->param[i]) * sizeof(float));
	}
	return DFX_OK;
}

static DfxStatus
checkpoint_same(const DfxSafetensors *st, const char *key, const uint8_t digest[32], const char *what,
                DfxErr *err)
{
	const char *value = dfx_st_meta(st, key);
	char hex[65];

	dfx_version_hex(digest, hex);
	if (!value)
		return checkpoint_bad(err, "no", key);
	if (strcmp(value, hex) == 0)
		return DFX_OK;
	dfx_fail(err, DFX_EINVAL, "the checkpoint is of a run with other %s", what);
	dfx_hint(err, "It goes on only where options, images, labels and splits are the same.");
	return DFX_EINVAL;
}

static DfxStatus
checkpoint_number(const DfxSafetensors *st, const char *key, uint64_t max, uint64_t *value, DfxErr *err)
{
	const char *text = dfx_st_meta(st, key);
	char *end = NULL;

	errno = 0;
	*value = text && text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
	if (!end || *end || errno || *value > max)
		return checkpoint_bad(err, "no, or a wrong", key);
	return DFX_OK;
}

/* The networks' best epochs and losses, up to that of number at. */
static DfxStatus
checkpoint_best(DfxRun *run, int at, DfxErr *err)
{
	const char *text = dfx_st_meta(&run->resume, "best");

	for (int k = 0; k <= at; k++)
	{
		RunNet *net = &run->net[k];
		int used = 0;

		if (!text || sscanf(text, "%" SCNu64 " %la %n", &net->best_epoch, &net->best_loss, &used) != 2 ||
		    !isfinite(net->best_loss))
			return checkpoint_bad(err, "no, or a wrong", "best");
		text += used;
	}
	return DFX_OK;
}

DfxStatus
dfx_run_resume(DfxRun *run, const uint8_t *bytes, uint64_t len, DfxErr *err)
{
	DfxStatus st = dfx_st_view(bytes, len, &run->resume, err);
	const char *format, *network;
	uint8_t digest[32];
	int at = 0;

	if (st != DFX_OK)
		return st;
	format = dfx_st_meta(&run->resume, "format");
	network = dfx_st_meta(&run->resume, "network");
	if (!format || strcmp(format, CHECKPOINT_FORMAT) != 0)
		return checkpoint_bad(err, "format", format ? format : "");
	dfx_train_config_digest(run->config, digest);
	st = checkpoint_same(&run->resume, "config", digest, "options", err);
	dfx_samples_digest(run->samples, digest);
	if (st == DFX_OK)
		st = checkpoint_same(&run->resume, "samples", digest, "samples", err);
	if (st != DFX_OK)
		return st;
	while (at < run->nnet && (!network || strcmp(run->net[at].scope, network) != 0))
		at++;
	if (at == run->nnet)
		return checkpoint_bad(err, "network", network ? network : "");
	for (int k = 0; k < at && st == DFX_OK; k++)
	{
		st = checkpoint_copy(&run->resume, "done.", run->net[k].scope, run->net[k].graph, err);
		run->net[k].done = true;
	}
	if (st == DFX_OK)
		st = checkpoint_best(run, at, err);
	if (st == DFX_OK)
		st = checkpoint_copy(&run->resume, "best.", "", run->net[at].graph, err);
	run->at = at;
	return st;
}

/* The plan's numbers of one state. */
static DfxStatus
checkpoint_load(DfxRun *run, DfxState s, const float **from, DfxErr *err)
{
	const DfxGraph *g = run->net[run->at].graph;

	for (int i = 0; i < g->nparam; i++)
	{
		from[i] = NULL;
		if (s != DFX_STATE_VALUE && !dfx_param_trained(&g->param[i]))
			continue;
		if (checkpoint_find(&run->resume, checkpoint_state[s], "", &g->param[i], &from[i], err) != DFX_OK)
			return err->code;
	}
	return run->device.backend->write_params(run->learn.plan, s, from, err);
}

DfxStatus
run_restore(DfxRun *run, DfxErr *err)
{
	const DfxSafetensors *file = &run->resume;
	DfxLearn *l = &run->learn;
	const float **from = calloc((size_t) l->graph->nparam + 1, sizeof *from);
	DfxStatus st = from ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory for a checkpoint");

	for (int s = 0; s < DFX_STATE_COUNT && st == DFX_OK; s++)
		if (checkpoint_state[s])
			st = checkpoint_load(run, (DfxState) s, from, err);
	free(from);
	if (st == DFX_OK)
		st = checkpoint_number(file, "epoch", l->o.epochs, &l->epoch, err);
	if (st == DFX_OK)
		st = checkpoint_number(file, "step", UINT64_MAX / 2, &l->step, err);
	if (st != DFX_OK)
		return st;
	l->best_epoch = run->net[run->at].best_epoch;
	l->best_loss = run->net[run->at].best_loss;
	if (l->epoch == 0 || l->best_epoch == 0 || l->best_epoch > l->epoch)
		return checkpoint_bad(err, "a wrong", "epoch");
	dfx_st_free(&run->resume);
	return DFX_OK;
}
