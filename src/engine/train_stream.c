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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/command.h"
#include "engine/serve.h"
#include "engine/train_cmd.h"
#include "engine/train_wire.h"
#include "train/split.h"

typedef struct Stream
{
	DfxTrainCmd *t;
	DfxWire wire;
	DfxTrainPlan *plan; /* of each sample, by its place among those taken */
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
			st = f.type == DFX_FRAME_SAMPLE ? stream_sample(s, &f, err) : stream_unexpected(&f, err);
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
	plan = calloc(samples->n + 1, sizeof *plan);
	if (!plan)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan of %zu samples", samples->n);
	for (size_t i = 0; i < samples->n; i++)
		plan[i] = (DfxTrainPlan){.number = samples->sample[i].given.number,
		                         .split = (uint32_t) samples->sample[i].split,
		                         .base = samples->sample[i].base};
	dfx_wire_send(&s->wire, DFX_FRAME_PLAN, plan, samples->n * sizeof *plan, NULL, 0);
	free(plan);
	return DFX_OK;
}

/* --- from GO on ---------------------------------------------------------- */

static DfxStatus
stream_converse(Stream *s, DfxErr *err)
{
	DfxStatus st = stream_config(s, err);
	DfxFrame f;

	if (st == DFX_OK)
		st = stream_ready(s, err);
	if (st == DFX_OK)
		st = stream_samples(s, err);
	if (st == DFX_OK)
		st = stream_plan(s, err);
	if (st == DFX_OK)
		st = dfx_wire_next(&s->wire, &f, err);
	if (st == DFX_OK)
		st = dfx_fail(err, DFX_EUNSUPPORTED, "this engine plans, but does not train yet");
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
	Stream s = {.t = t};
	DfxErr err;

	dfx_serve_bind((long) t->options->parent);
	if (dfx_wire_open(&s.wire, DFX_TRAIN_FD, &err) != DFX_OK)
		return dfx_complain(&err);
	dfx_log_set_sink(stream_log, &s);
	if (stream_converse(&s, &err) == DFX_OK)
		return 0;
	dfx_wire_fail(&s.wire, &err);
	return 1;
}
