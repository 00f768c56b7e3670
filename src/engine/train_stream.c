/*
 * train_stream.c
 *	  `dfx-engine train --stream`: training for a session, over descriptor 3 (proto_train.h).
 *
 *	conversation	this thread			others
 *	CONFIG .. END	reads frames		decode, send TAKEN
 *	PLAN .. GO		reads frames
 *	from GO on		trains				one reads (SAVED, end of file), one sends checkpoints
 *
 * The session's end is this process's end, whatever it is doing: end of file
 * and SIGTERM both lead to _exit(0), and the kernel frees the rest.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/command.h"
#include "engine/serve.h"
#include "engine/train_cmd.h"
#include "engine/train_wire.h"
#include "train/split.h"

#define STREAM_PLAN     65536 /* samples in a PLAN frame */
#define STREAM_PROGRESS 0.5   /* seconds between two PROGRESS frames, at least */

typedef struct Stream
{
	DfxTrainCmd *t;
	DfxWire wire;
	DfxWireBlob given[DFX_TRAIN_CLASSES + 1], checkpoint;
	int ngiven;
	double told; /* when the last PROGRESS was offered */

	/* checkpoints on their way: guarded by lock */
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint8_t *saving; /* to be sent; NULL: nothing */
	size_t saving_len;
	uint64_t sent, saved; /* checkpoints sent; SAVED frames received */
} Stream;

static DfxStatus
stream_unexpected(const DfxFrame *f, DfxErr *err)
{
	return dfx_fail(err, DFX_EINVAL,
	                "a frame of type %" PRIu32 " with %" PRIu64 " bytes where it means nothing", f->type,
	                f->len);
}

/* --- until PLAN ---------------------------------------------------------- */

static DfxStatus
stream_config(Stream *s, DfxErr *err)
{
	char text[DFX_TRAIN_TEXT];
	DfxFrame f;
	DfxStatus st = dfx_wire_next(&s->wire, &f, err);

	if (st != DFX_OK)
		return st;
	if (f.type != DFX_FRAME_CONFIG || f.len > sizeof text)
		return stream_unexpected(&f, err);
	dfx_wire_read(&s->wire, text, (size_t) f.len);
	return dfx_train_config_parse(&s->t->config, text, (size_t) f.len, err);
}

static void
stream_taken(void *arg, const DfxTrainSample *given, DfxStatus status, const DfxErr *err)
{
	Stream *s = arg;
	DfxTrainTaken taken = {.number = given->number, .status = (uint32_t) status};

	if (status != DFX_OK)
		snprintf(taken.msg, sizeof taken.msg, "%s", err->msg);
	dfx_wire_send(&s->wire, DFX_FRAME_TAKEN, &taken, sizeof taken, NULL, 0);
}

static DfxStatus
stream_ready(Stream *s, DfxErr *err)
{
	DfxTrainReady ready = {.version = DFX_TRAIN_VERSION};
	DfxStatus st = dfx_train_cmd_device(s->t, err);

	if (st == DFX_OK)
		st = dfx_train_cmd_begin(s->t, stream_taken, s, err);
	if (st != DFX_OK)
		return st;
	ready.threads = (uint32_t) s->t->threads;
	snprintf(ready.device, sizeof ready.device, "%s", s->t->device.info.name);
	dfx_wire_send(&s->wire, DFX_FRAME_READY, &ready, sizeof ready, NULL, 0);
	return DFX_OK;
}

/*
 * An image over the limit is not kept: its length alone tells, and no byte of
 * it is looked at.
 */
static DfxStatus
stream_sample(Stream *s, const DfxFrame *f, DfxErr *err)
{
	DfxTrainSample given;
	uint64_t len = f->len - sizeof given;
	bool whole;
	uint8_t *bytes;

	if (f->len < sizeof given)
		return stream_unexpected(f, err);
	dfx_wire_read(&s->wire, &given, sizeof given);
	whole = len <= s->t->config.limits.max_bytes;
	bytes = malloc(whole ? len + 1 : 1);
	if (!bytes)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for an image of %" PRIu64 " bytes", len);
	if (whole)
		dfx_wire_read(&s->wire, bytes, (size_t) len);
	else
		dfx_wire_skip(&s->wire, len);
	return dfx_intake_put(s->t->intake, &given, bytes, (size_t) len, err);
}

/* Weights to start from: only before the first sample, but that need not be checked. */
static DfxStatus
stream_given(Stream *s, const DfxFrame *f, DfxErr *err)
{
	DfxWireBlob *blob = &s->given[s->ngiven];
	DfxStatus st;

	if (s->ngiven == sizeof s->given / sizeof s->given[0])
		return dfx_fail(err, DFX_EINVAL, "more weights to start from than there are Base Models");
	st = dfx_wire_read_blob(&s->wire, f, blob, err);
	if (st != DFX_OK)
		return st;
	s->ngiven++;
	if (blob->head.kind != DFX_BLOB_INIT)
		return dfx_fail(err, DFX_EINVAL, "a blob of kind %" PRIu32 " before the samples", blob->head.kind);
	return dfx_run_give(s->t->run, blob->head.name, blob->bytes, blob->head.bytes, err);
}

static DfxStatus
stream_samples(Stream *s, DfxErr *err)
{
	DfxStatus st;
	DfxFrame f;

	for (;;)
	{
		st = dfx_wire_next(&s->wire, &f, err);
		if (st == DFX_OK && f.type == DFX_FRAME_END && f.len == 0)
			return DFX_OK;
		if (st == DFX_OK)
			st = f.type == DFX_FRAME_SAMPLE ? stream_sample(s, &f, err)
			     : f.type == DFX_FRAME_BLOB ? stream_given(s, &f, err)
			                                : stream_unexpected(&f, err);
		if (st != DFX_OK)
			return st;
	}
}

static DfxStatus
stream_plan(Stream *s, DfxErr *err)
{
	const DfxSamples *samples = &s->t->samples;
	DfxStatus st = dfx_train_cmd_plan(s->t, err);
	DfxTrainPlan *plan;

	if (st != DFX_OK)
		return st;
	while (s->ngiven > 0) /* the networks have been built */
		dfx_wire_free_blob(&s->given[--s->ngiven]);
	plan = calloc(samples->n + 1, sizeof *plan);
	if (!plan)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan of %zu samples", samples->n);
	for (size_t i = 0; i < samples->n; i++)
		plan[i] = (DfxTrainPlan){.number = samples->sample[i].given.number,
		                         .split = (uint32_t) samples->sample[i].split,
		                         .base = samples->sample[i].base};
	for (size_t i = 0; i < samples->n; i += STREAM_PLAN)
		dfx_wire_send(&s->wire, DFX_FRAME_PLAN, plan + i,
		              (samples->n - i < STREAM_PLAN ? samples->n - i : STREAM_PLAN) * sizeof *plan, NULL, 0);
	free(plan);
	return DFX_OK;
}

/* A checkpoint may come before GO. */
static DfxStatus
stream_go(Stream *s, DfxErr *err)
{
	DfxFrame f;
	DfxStatus st = dfx_wire_next(&s->wire, &f, err);

	if (st == DFX_OK && f.type == DFX_FRAME_BLOB)
	{
		st = dfx_wire_read_blob(&s->wire, &f, &s->checkpoint, err);
		if (st == DFX_OK && s->checkpoint.head.kind != DFX_BLOB_CHECKPOINT)
			st = dfx_fail(err, DFX_EINVAL, "a blob of kind %" PRIu32 " before GO", s->checkpoint.head.kind);
		if (st == DFX_OK)
			st = dfx_run_resume(s->t->run, s->checkpoint.bytes, s->checkpoint.head.bytes, err);
		if (st == DFX_OK)
			st = dfx_wire_next(&s->wire, &f, err);
	}
	if (st == DFX_OK && (f.type != DFX_FRAME_GO || f.len != 0))
		st = stream_unexpected(&f, err);
	return st;
}

/* --- from GO on ---------------------------------------------------------- */

/* Reads what the session still has to say; its end of file ends the process. */
static void *
stream_listen(void *arg)
{
	Stream *s = arg;
	DfxErr err;

	for (;;)
	{
		DfxFrame f;

		if (dfx_wire_next(&s->wire, &f, &err) != DFX_OK)
			break;
		pthread_mutex_lock(&s->lock);
		if (f.type != DFX_FRAME_SAVED || f.len != 0 || s->saved == s->sent)
		{
			pthread_mutex_unlock(&s->lock);
			stream_unexpected(&f, &err);
			break;
		}
		s->saved++;
		pthread_cond_broadcast(&s->moved);
		pthread_mutex_unlock(&s->lock);
	}
	dfx_wire_fail(&s->wire, &err);
	_exit(1);
}

/* Sends checkpoints while the training goes on. */
static void *
stream_save(void *arg)
{
	Stream *s = arg;

	for (;;)
	{
		uint8_t *bytes;

		pthread_mutex_lock(&s->lock);
		while (!s->saving)
			pthread_cond_wait(&s->moved, &s->lock);
		bytes = s->saving;
		s->sent++; /* before the last byte is out, or SAVED could come too early */
		pthread_mutex_unlock(&s->lock);
		dfx_wire_send_blob(&s->wire, DFX_BLOB_CHECKPOINT, "", bytes, s->saving_len);
		free(bytes);
		pthread_mutex_lock(&s->lock);
		s->saving = NULL;
		pthread_cond_broadcast(&s->moved);
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

/* Until the session has written down every checkpoint that there was. */
static void
stream_settle(Stream *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->saving || s->saved < s->sent)
		pthread_cond_wait(&s->moved, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void
stream_progress(void *arg, const DfxTrainProgress *p)
{
	Stream *s = arg;
	double now = dfx_train_now();

	if (now - s->told < STREAM_PROGRESS && p->step > 1)
		return;
	s->told = now;
	dfx_wire_offer(&s->wire, DFX_FRAME_PROGRESS, p, sizeof *p);
}

static DfxStatus
stream_epoch(void *arg, const DfxTrainEpoch *e, DfxErr *err)
{
	Stream *s = arg;
	uint8_t *bytes;
	size_t len;
	DfxStatus st;

	dfx_wire_free_blob(&s->checkpoint); /* it was taken up before the first epoch */
	stream_settle(s);
	st = dfx_run_checkpoint(s->t->run, &bytes, &len, err);
	if (st != DFX_OK)
		return st;
	dfx_wire_send(&s->wire, DFX_FRAME_EPOCH, e, sizeof *e, NULL, 0);
	pthread_mutex_lock(&s->lock);
	s->saving = bytes;
	s->saving_len = len;
	pthread_cond_broadcast(&s->moved);
	pthread_mutex_unlock(&s->lock);
	return DFX_OK;
}

static DfxStatus
stream_threads(Stream *s, DfxErr *err)
{
	static void *(*const work[])(void *) = {stream_listen, stream_save};
	sigset_t all, before;
	int rc = 0;

	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->moved, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (size_t i = 0; i < sizeof work / sizeof work[0] && rc == 0; i++)
	{
		pthread_t thread;

		rc = pthread_create(&thread, NULL, work[i], s);
		if (rc == 0)
			pthread_detach(thread);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc == 0 ? DFX_OK : dfx_fail(err, DFX_EINTERNAL, "could not start a thread: %s", strerror(rc));
}

static DfxStatus
stream_result(Stream *s, DfxErr *err)
{
	const char *metrics = dfx_run_metrics(s->t->run);
	uint8_t version[DFX_VERSION_LEN], *bytes;
	size_t len;
	DfxStatus st = dfx_run_export(s->t->run, &bytes, &len, version, err);

	if (st != DFX_OK)
		return st;
	stream_settle(s);
	dfx_wire_send(&s->wire, DFX_FRAME_METRICS, metrics, strlen(metrics), NULL, 0);
	dfx_wire_send_blob(&s->wire, DFX_BLOB_MODEL, "", bytes, len);
	free(bytes);
	dfx_wire_send(&s->wire, DFX_FRAME_DONE, NULL, 0, NULL, 0);
	return DFX_OK;
}

static DfxStatus
stream_train(Stream *s, DfxErr *err)
{
	DfxTrainWatch watch = {.arg = s, .progress = stream_progress, .epoch = stream_epoch};
	DfxStatus st = stream_threads(s, err);

	if (st == DFX_OK)
		st = dfx_run_train(s->t->run, &watch, err);
	return st == DFX_OK ? stream_result(s, err) : st;
}

static DfxStatus
stream_converse(Stream *s, DfxErr *err)
{
	static DfxStatus (*const part[])(Stream * s, DfxErr * err) = {stream_config, stream_ready, stream_samples,
	                                                              stream_plan,   stream_go,    stream_train};
	DfxStatus st = DFX_OK;

	for (size_t i = 0; i < sizeof part / sizeof part[0] && st == DFX_OK; i++)
		st = part[i](s, err);
	return st;
}

static void
stream_log(char level, const char *message, void *arg)
{
	Stream *s = arg;

	dfx_wire_send(&s->wire, DFX_FRAME_LOG, &level, 1, message, strlen(message));
}

int
dfx_train_stream(DfxTrainCmd *t)
{
	static Stream s; /* threads may outlive this function, until the process ends */
	DfxErr err;

	s.t = t;
	dfx_serve_bind((long) t->options->parent);
	if (dfx_wire_open(&s.wire, DFX_TRAIN_FD, &err) != DFX_OK)
		return dfx_complain(&err);
	dfx_log_set_sink(stream_log, &s);
	if (stream_converse(&s, &err) == DFX_OK)
		_exit(0); /* the kernel is quicker with models and samples than free() */
	dfx_wire_fail(&s.wire, &err);
	_exit(1);
}
