/*
 * train_files.c
 *	  `dfx-engine train --samples`: training from image files, without PostgreSQL.
 *
 * What a session is told in frames goes to stderr as lines; a checkpoint is a
 * file, replaced as a whole after every epoch, so that whatever ends this
 * process loses one epoch at most.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "engine/command.h"
#include "engine/output.h"
#include "engine/train_cmd.h"
#include "engine/train_list.h"

#define FILES_PROGRESS  10.0 /* seconds between two lines about the same epoch */
#define FILES_MODEL_MAX ((uint64_t) 64 << 30)
#define FILES_NGIVEN    (DFX_TRAIN_CLASSES + 1)

typedef struct Files
{
	DfxTrainCmd *t;
	DfxTrainList list;
	uint8_t *given[FILES_NGIVEN], *resume;
	int64_t unreadable;
	double told;
} Files;

/* --- samples ------------------------------------------------------------- */

static void
files_taken(void *arg, const DfxTrainSample *given, DfxStatus status, const DfxErr *err)
{
	Files *f = arg;

	if (status == DFX_OK)
		return;
	f->unreadable++;
	fprintf(stderr, "dfx-engine: \"%s\" is left out: %s (%s)\n", f->list.file[given->number].path, err->msg,
	        dfx_sqlstate(status));
}

static int
files_generator(const DfxTrainConfig *c, const char *name)
{
	int i = 0;

	if (!name)
		return -1;
	while (strcmp(c->generator[i], name) != 0)
		i++;
	return i;
}

static DfxStatus
files_put(Files *f, size_t i, DfxErr *err)
{
	const DfxTrainFile *file = &f->list.file[i];
	DfxTrainSample given = {.number = i, .label = (uint32_t) file->label, .split = (uint32_t) file->split};
	uint8_t *bytes;
	size_t len;
	DfxSha256 s;
	DfxErr why;

	given.generator = files_generator(&f->t->config, file->generator);
	if (file->grouped)
		memcpy(given.group, file->group, sizeof given.group);
	if (dfx_read_file(file->path, f->t->config.limits.max_bytes, &bytes, &len, &why) != DFX_OK)
	{
		files_taken(f, &given, why.code, &why);
		return DFX_OK;
	}
	dfx_sha256_init(&s);
	dfx_sha256_update(&s, bytes, len);
	dfx_sha256_final(&s, given.sha256);
	return dfx_intake_put(f->t->intake, &given, bytes, len, err);
}

static DfxStatus
files_samples(Files *f, DfxErr *err)
{
	DfxStatus st = dfx_train_cmd_begin(f->t, files_taken, f, err);

	for (size_t i = 0; i < f->list.n && st == DFX_OK; i++)
		st = files_put(f, i, err);
	return st == DFX_OK ? dfx_train_cmd_plan(f->t, err) : st;
}

/* --- weights and checkpoints --------------------------------------------- */

static DfxStatus
files_given(Files *f, DfxErr *err)
{
	const DfxOptions *o = f->t->options;
	const char *const path[FILES_NGIVEN] = {o->init_dm, o->init_gan, o->init_real, o->init};
	DfxStatus st = DFX_OK;

	for (int i = 0; i < FILES_NGIVEN && st == DFX_OK; i++)
	{
		size_t len;

		if (!path[i])
			continue;
		st = dfx_read_file(path[i], FILES_MODEL_MAX, &f->given[i], &len, err);
		if (st == DFX_OK)
			st = dfx_run_give(f->t->run, i < DFX_TRAIN_CLASSES ? dfx_train_class[i] : "", f->given[i], len,
			                  err);
	}
	return st;
}

static DfxStatus
files_resume(Files *f, DfxErr *err)
{
	size_t len;
	DfxStatus st;

	if (!f->t->options->resume)
		return DFX_OK;
	st = dfx_read_file(f->t->options->resume, FILES_MODEL_MAX, &f->resume, &len, err);
	return st == DFX_OK ? dfx_run_resume(f->t->run, f->resume, len, err) : st;
}

/* The old file stays until the new one is whole. */
static DfxStatus
files_replace(const char *path, const uint8_t *bytes, size_t len, DfxErr *err)
{
	char part[4096];
	DfxStatus st;

	if (snprintf(part, sizeof part, "%s.part", path) >= (int) sizeof part)
		return dfx_fail(err, DFX_EIO, "too long a name: \"%.100s\"", path);
	st = dfx_write_file(part, bytes, len, err);
	if (st == DFX_OK && rename(part, path) != 0)
		st = dfx_fail(err, DFX_EIO, "could not rename \"%.100s\": %s", part, strerror(errno));
	if (st != DFX_OK)
		remove(part);
	return st;
}

static DfxStatus
files_checkpoint(Files *f, DfxErr *err)
{
	uint8_t *bytes;
	size_t len;
	DfxStatus st;

	if (!f->t->options->checkpoint)
		return DFX_OK;
	st = dfx_run_checkpoint(f->t->run, &bytes, &len, err);
	if (st == DFX_OK)
		st = files_replace(f->t->options->checkpoint, bytes, len, err);
	free(bytes);
	return st;
}

/* --- progress ------------------------------------------------------------ */

static void
files_left(double seconds)
{
	long s = lround(seconds);

	if (seconds >= 0)
		fprintf(stderr, ", %ld:%02ld:%02ld left", s / 3600, s / 60 % 60, s % 60);
	fputc('\n', stderr);
}

static void
files_progress(void *arg, const DfxTrainProgress *p)
{
	Files *f = arg;
	double now = dfx_train_now();

	if (f->told > 0 && now - f->told < FILES_PROGRESS)
		return;
	f->told = now;
	fprintf(stderr, "%s", p->phase);
	if (p->epochs > 0)
		fprintf(stderr, " epoch %u/%u", p->epoch, p->epochs);
	fprintf(stderr, " step %zu/%zu: %.3g images/s", (size_t) p->step, (size_t) p->steps,
	        p->images_per_second);
	if (isfinite(p->loss))
		fprintf(stderr, ", loss %.4f", p->loss);
	files_left(p->seconds_left);
}

static DfxStatus
files_epoch(void *arg, const DfxTrainEpoch *e, DfxErr *err)
{
	Files *f = arg;

	f->told = dfx_train_now();
	fprintf(stderr,
	        "%s epoch %u/%u: loss %.4f, accuracy %.4f; validation loss %.4f%s, accuracy %.4f; %.1f s, %.3g "
	        "images/s\n",
	        e->phase, e->epoch, e->epochs, e->train_loss, e->train_accuracy, e->val_loss,
	        e->best ? " (the lowest)" : "", e->val_accuracy, e->seconds, e->images_per_second);
	return files_checkpoint(f, err);
}

/* --- the whole ----------------------------------------------------------- */

static DfxStatus
files_result(Files *f, DfxErr *err)
{
	const DfxOptions *o = f->t->options;
	const DfxModelMeta *meta = dfx_run_meta(f->t->run);
	uint8_t version[DFX_VERSION_LEN], *bytes;
	char hex[DFX_VERSION_HEX_LEN];
	DfxOutput out;
	size_t len;
	DfxStatus st = dfx_run_export(f->t->run, &bytes, &len, version, err);

	if (st == DFX_OK)
		st = files_replace(o->out, bytes, len, err);
	free(bytes);
	if (st != DFX_OK)
		return st;
	dfx_version_hex(version, hex);
	dfx_out_begin(&out, o->json);
	dfx_out_text(&out, "out", o->out);
	dfx_out_text(&out, "kind", meta->kind);
	dfx_out_text(&out, "backbone", meta->backbone);
	dfx_out_text(&out, "classes", meta->classes);
	dfx_out_text(&out, "version", hex);
	dfx_out_int(&out, "samples", (int64_t) f->t->samples.norder);
	dfx_out_int(&out, "unreadable", f->unreadable);
	dfx_out_json(&out, "metrics", dfx_run_metrics(f->t->run));
	dfx_out_end(&out);
	return DFX_OK;
}

static DfxStatus
files_train(Files *f, DfxErr *err)
{
	DfxTrainWatch watch = {.arg = f, .progress = files_progress, .epoch = files_epoch};

	return dfx_run_train(f->t->run, &watch, err);
}

static DfxStatus
files_list(Files *f, DfxErr *err)
{
	DfxStatus st = dfx_train_list(f->t->options->samples, &f->list, err);

	if (st == DFX_OK)
		st = dfx_train_list_generators(&f->list, &f->t->config, err);
	return st == DFX_OK ? dfx_train_cmd_device(f->t, err) : st;
}

int
dfx_train_files(DfxTrainCmd *t)
{
	static DfxStatus (*const part[])(Files * f, DfxErr * err) = {files_list,   files_given, files_samples,
	                                                             files_resume, files_train, files_result};
	Files f = {.t = t};
	DfxErr err;
	DfxStatus st = DFX_OK;

	for (size_t i = 0; i < sizeof part / sizeof part[0] && st == DFX_OK; i++)
		st = part[i](&f, &err);
	dfx_train_cmd_end(t);
	dfx_train_list_free(&f.list);
	for (int i = 0; i < FILES_NGIVEN; i++)
		free(f.given[i]);
	free(f.resume);
	return st == DFX_OK ? 0 : dfx_complain(&err);
}
