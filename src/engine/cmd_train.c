/*
 * cmd_train.c
 *	  train: make a model of labelled images, for a session or from a shell.
 */
#include "engine/command.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "engine/train_cmd.h"
#include "train/split.h"

DfxStatus
dfx_train_cmd_device(DfxTrainCmd *t, DfxErr *err)
{
	DfxDeviceOpts dev = {
	    .spec = t->options->device, .threads = (int) t->options->threads, .memory = t->options->gpu_memory};
	DfxTrainDevice device;
	sigset_t all, before;
	DfxStatus st;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	st = dfx_device_open(&dev, &t->device, err);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (st != DFX_OK)
		return st;
	t->threads = t->options->threads > 0 ? (int) t->options->threads : t->device.info.threads;
	device = (DfxTrainDevice){.backend = t->device.backend,
	                          .dev = t->device.dev,
	                          .threads = t->threads,
	                          .memory_limit = t->device.info.memory ? t->options->gpu_memory : 0};
	return dfx_run_new(&t->config, &device, &t->run, err);
}

DfxStatus
dfx_train_cmd_begin(DfxTrainCmd *t, DfxIntakeDone done, void *arg, DfxErr *err)
{
	DfxIntakeOpts in = {.threads = t->threads,
	                    .limits = t->config.limits,
	                    .ngenerator = t->config.ngenerator,
	                    .done = done,
	                    .arg = arg};
	const char *dir = t->options->cache_dir ? t->options->cache_dir : "";
	DfxStatus st = dfx_store_open(&t->samples.store, dir, t->options->cache_limit, err);
	sigset_t all, before;

	if (st != DFX_OK)
		return st;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	st = dfx_intake_start(&t->samples, &in, &t->intake, err);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return st;
}

DfxStatus
dfx_train_cmd_plan(DfxTrainCmd *t, DfxErr *err)
{
	DfxStatus st = dfx_intake_end(t->intake, err);

	t->intake = NULL;
	if (st == DFX_OK)
		st = dfx_split(&t->samples, &t->config, err);
	return st == DFX_OK ? dfx_run_prepare(t->run, &t->samples, err) : st;
}

void
dfx_train_cmd_end(DfxTrainCmd *t)
{
	DfxErr ignored;

	if (t->intake)
		dfx_intake_end(t->intake, &ignored);
	dfx_run_free(t->run);
	dfx_samples_free(&t->samples);
	dfx_device_close(&t->device);
}

/* The training options of the command line, which are the configuration's keys with - for _. */
static DfxStatus
train_options(DfxTrainCmd *t, DfxErr *err)
{
	const DfxOptions *o = t->options;
	DfxStatus st = DFX_OK;

	dfx_train_config_init(&t->config);
	for (int i = 0; i < o->nset && st == DFX_OK; i++)
	{
		char key[64];

		snprintf(key, sizeof key, "%.*s", (int) o->set[i].len, o->set[i].key);
		for (char *p = key; *p; p++)
			*p = *p == '-' ? '_' : *p;
		st = dfx_train_config_set(&t->config, key, o->set[i].value, err);
	}
	return st == DFX_OK ? dfx_train_config_check(&t->config, err) : st;
}

int
dfx_cmd_train(const DfxOptions *o)
{
	DfxTrainCmd t = {.options = o, .samples.store.fd = -1};
	DfxErr err;

	/* A file at its size limit must be an error of the write, not this process's end. */
	signal(SIGXFSZ, SIG_IGN);
	if (o->stream)
		return dfx_train_stream(&t);
	if (!o->samples || !o->out)
	{
		fprintf(stderr, "dfx-engine train: %s is missing\n", o->samples ? "--out" : "--samples");
		return 2;
	}
	if (train_options(&t, &err) != DFX_OK)
	{
		dfx_complain(&err);
		return 2;
	}
	return dfx_train_files(&t);
}
