/*
 * recipe.c
 *	  The kinds of runs: which networks they have and what those tell apart.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/run_priv.h"

enum
{
	CLASS_DM = 0, /* as dfx_train_class counts */
	CLASS_GAN,
	CLASS_REAL
};

static RunNet *
recipe_net(DfxRun *run, const char *scope, RunTask task, int class, int nclass)
{
	RunNet *net = &run->net[run->nnet++];

	*net = (RunNet){.task = task, .class = class, .nclass = nclass};
	snprintf(net->scope, sizeof net->scope, "%s", scope);
	return net;
}

/* --- generators ---------------------------------------------------------- */

/* Images that a network needs of a generator to know it. */
#define RECIPE_GENERATOR_TRAIN 2
#define RECIPE_GENERATOR_VAL   1

/* Number the generators of one class that have enough images. */
static int
recipe_generators(const DfxRun *run, int class, int label[DFX_GENERATORS])
{
	size_t train[DFX_GENERATORS] = {0}, val[DFX_GENERATORS] = {0};
	int n = 0;

	for (size_t i = 0; i < run->samples->norder; i++)
	{
		const DfxSample *s = &run->samples->sample[run->samples->order[i]];

		if (s->given.label != (uint32_t) class || s->given.generator < 0)
			continue;
		train[s->given.generator] += s->split == DFX_SPLIT_BASE_TRAIN;
		val[s->given.generator] += s->split == DFX_SPLIT_BASE_VAL;
	}
	for (int i = 0; i < run->config->ngenerator; i++)
	{
		label[i] = train[i] >= RECIPE_GENERATOR_TRAIN && val[i] >= RECIPE_GENERATOR_VAL ? n++ : -1;
		if (label[i] < 0 && train[i] + val[i] > 0)
			dfx_log('W', "generator \"%s\" of class \"%s\" has too few images to be told from others",
			        run->config->generator[i], dfx_train_class[class]);
	}
	return n;
}

/* A network for the generators of a class, and its list in the metadata; none where there is nothing to tell.
 */
static DfxStatus
recipe_generator_net(DfxRun *run, const char *scope, int class, char *classes, DfxErr *err)
{
	RunNet *net = &run->net[run->nnet];
	int label[DFX_GENERATORS], n = recipe_generators(run, class, label);
	size_t used = strlen(classes);

	if (n < 2)
		return DFX_OK;
	net = recipe_net(run, scope, RUN_GENERATOR, class, n);
	memcpy(net->generator, label, sizeof label);
	for (int i = 0; i < run->config->ngenerator; i++)
	{
		const char *name = run->config->generator[i];

		if (label[i] < 0)
			continue;
		if (!dfx_class_name_valid(name))
			return dfx_fail(err, DFX_EINVAL, "\"%s\" cannot be the name of a generator", name);
		used +=
		    (size_t) snprintf(classes + used, DFX_CLASSES_LEN - used, "%s%s", label[i] > 0 ? "," : "", name);
		if (used >= DFX_CLASSES_LEN)
			return dfx_fail(err, DFX_ELIMIT, "the names of all generators together have over %d bytes",
			                DFX_CLASSES_LEN - 1);
	}
	return DFX_OK;
}

static DfxStatus
recipe_hierarchy(DfxRun *run, DfxErr *err)
{
	char *classes = run->meta.classes;
	DfxStatus st;

	recipe_net(run, "ai", RUN_BINARY, 0, 2);
	recipe_net(run, "type", RUN_TYPE, 0, 2);
	strcpy(classes, "synthetic,real;dm,gan;");
	st = recipe_generator_net(run, "dm", CLASS_DM, classes, err);
	if (st != DFX_OK)
		return st;
	if (strlen(classes) + 2 > DFX_CLASSES_LEN)
		return dfx_fail(err, DFX_ELIMIT, "the names of all generators together are too long");
	strcat(classes, ";");
	return recipe_generator_net(run, "gan", CLASS_GAN, classes, err);
}

/* --- the recipes --------------------------------------------------------- */

static const char *
recipe_kind(DfxRecipe recipe)
{
	return recipe == DFX_RECIPE_HEAD ? "trinet" : dfx_recipe_name[recipe];
}

DfxStatus
run_recipe(DfxRun *run, DfxErr *err)
{
	const DfxTrainConfig *c = run->config;
	DfxModelMeta *meta = &run->meta;
	DfxStatus st = DFX_OK;

	memset(meta, 0, sizeof *meta);
	snprintf(meta->kind, sizeof meta->kind, "%s", recipe_kind(c->recipe));
	snprintf(meta->backbone, sizeof meta->backbone, "%s", run->backbone->name);
	meta->input_size = (uint32_t) run->backbone->input_size;
	run->nnet = 0;
	switch (c->recipe)
	{
		case DFX_RECIPE_TRINET:
		case DFX_RECIPE_HEAD:
			for (int i = 0; i < DFX_TRAIN_CLASSES; i++)
			{
				recipe_net(run, dfx_train_class[i], RUN_BASE, i, c->recipe == DFX_RECIPE_HEAD ? 0 : 2);
				run->net[i].done = c->recipe == DFX_RECIPE_HEAD;
			}
			recipe_net(run, "head", RUN_HEAD, 0, DFX_TRAIN_CLASSES);
			strcpy(meta->classes, "dm,gan,real");
			meta->head_stride = (uint32_t) c->head_stride;
			break;
		case DFX_RECIPE_BASE:
			recipe_net(run, dfx_train_class[c->main_class], RUN_BASE, c->main_class, 2);
			snprintf(meta->classes, sizeof meta->classes, "others,%s", dfx_train_class[c->main_class]);
			break;
		case DFX_RECIPE_CLASSIFIER:
			recipe_net(run, "classifier", c->binary ? RUN_BINARY : RUN_THREE, 0, c->binary ? 2 : 3);
			strcpy(meta->classes, c->binary ? "synthetic,real" : "dm,gan,real");
			break;
		case DFX_RECIPE_HIERARCHY:
			st = recipe_hierarchy(run, err);
			break;
		case DFX_RECIPE_COUNT:
			st = dfx_fail(err, DFX_EINTERNAL, "no recipe");
			break;
	}
	return st;
}

/* --- labels -------------------------------------------------------------- */

DfxSplit
run_train_split(const RunNet *net)
{
	return net->task == RUN_HEAD ? DFX_SPLIT_HEAD_TRAIN : DFX_SPLIT_BASE_TRAIN;
}

DfxSplit
run_val_split(const RunNet *net)
{
	return net->task == RUN_HEAD ? DFX_SPLIT_HEAD_VAL : DFX_SPLIT_BASE_VAL;
}

int
run_label(const DfxSample *s, const void *arg)
{
	const RunWanted *w = arg;
	const RunNet *net = w->net;
	int class = (int) s->given.label;

	if (s->split != w->split)
		return -1;
	switch (net->task)
	{
		case RUN_BASE:
			if (w->split != DFX_SPLIT_TEST && !(s->base & 1u << net->class))
				return -1;
			return class == net->class;
		case RUN_HEAD:
		case RUN_THREE:
			return class;
		case RUN_BINARY:
			return class == CLASS_REAL;
		case RUN_TYPE:
			return class == CLASS_REAL ? -1 : class;
		case RUN_GENERATOR:
			return class == net->class && s->given.generator >= 0 ? net->generator[s->given.generator] : -1;
	}
	return -1;
}

const char *
run_class_name(const DfxRun *run, const RunNet *net, int i)
{
	switch (net->task)
	{
		case RUN_BASE:
			return i == 0 ? "others" : dfx_train_class[net->class];
		case RUN_BINARY:
			return i == 0 ? "synthetic" : "real";
		case RUN_GENERATOR:
			for (int k = 0; k < run->config->ngenerator; k++)
				if (net->generator[k] == i)
					return run->config->generator[k];
			break;
		case RUN_HEAD:
		case RUN_THREE:
		case RUN_TYPE:
			return dfx_train_class[i];
	}
	return "";
}

size_t
run_count(const DfxRun *run, const RunNet *net, DfxSplit split)
{
	RunWanted w = {net, split};
	size_t n = 0;

	for (size_t i = 0; i < run->samples->norder; i++)
		n += run_label(&run->samples->sample[run->samples->order[i]], &w) >= 0;
	return n;
}
