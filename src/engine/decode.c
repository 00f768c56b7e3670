/*
 * decode.c
 *	  The decode stage: encoded bytes in the ring to pixels in the task's buffer.
 *
 * IMAGE_INFO ends here, with what the header says, and PERTURB, with an image.
 * Of an image that is only resized no more is held than its file and a PNG's
 * inflated bytes, at most four a pixel; one that is perturbed is held whole,
 * twice, so it counts twice against what may be decoded at one time.
 *
 * The only place in the project where a request's image bytes are decoded.
 * A crash here is blamed on the requests that have started, so start_gen is
 * set no earlier than when a thread takes the task up.
 */
#include "engine/sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/control.h"
#include "engine/trigger.h"
#include "image/perturb.h"

/* Wait until the image fits what may be decoded at one time; it always does when nothing else is. */
static void
decode_claim(DfxSched *s, uint64_t pixels)
{
	pthread_mutex_lock(&s->lock);
	while (s->decode_pixels > 0 && s->decode_pixels + pixels > DFX_DECODE_PIXELS)
		pthread_cond_wait(&s->pixels_cv, &s->lock);
	s->decode_pixels += pixels;
	pthread_mutex_unlock(&s->lock);
}

static void
decode_unclaim(DfxSched *s, uint64_t pixels)
{
	pthread_mutex_lock(&s->lock);
	s->decode_pixels -= pixels;
	pthread_cond_broadcast(&s->pixels_cv);
	pthread_mutex_unlock(&s->lock);
}

/* What a header says, as the reply to IMAGE_INFO. */
static DfxStatus
decode_info(const DfxRequest *req, const DfxImageInfo *info, uint64_t *reply_len, DfxErr *err)
{
	DfxInfoReply reply = {
	    .width = info->width, .height = info->height, .channels = info->channels, .bits = info->bits};

	*reply_len = sizeof reply;
	if (req->reply_cap < sizeof reply)
		return dfx_fail(err, DFX_TOO_SMALL, "the reply takes %zu bytes", sizeof reply);
	snprintf(reply.format, sizeof reply.format, "%s", dfx_format_name(info->format));
	memcpy(req->reply, &reply, sizeof reply);
	return DFX_OK;
}

/* A perturbed image as a file, as the reply to PERTURB. */
static DfxStatus
decode_perturbed(DfxSched *s, const DfxRequest *req, const uint8_t *bytes, uint64_t len, uint64_t *reply_len,
                 DfxErr *err)
{
	DfxEncoded encoded = {.limit = DFX_REPLY_IMAGE_MAX};
	DfxImage image;
	DfxStatus st;

	if (s->map->arena_bytes < encoded.limit)
		encoded.limit = s->map->arena_bytes;
	st = dfx_image_decode(bytes, len, &req->limits, &image, err);
	if (st != DFX_OK)
		return st;
	atomic_fetch_add(&s->stats->progress, 1); /* the other half may take as long */
	st = dfx_image_perturb_encode(&image, &req->how, &req->limits, &encoded, err);
	if (st != DFX_OK)
		return st;
	*reply_len = encoded.len;
	if (encoded.len > req->reply_cap)
		st = dfx_fail(err, DFX_TOO_SMALL, "the reply takes %zu bytes", encoded.len);
	else
		memcpy(req->reply, encoded.data, encoded.len);
	free(encoded.data);
	return st;
}

/* Is a request of that kind answered here? */
static bool
decode_answers(DfxRingOp op)
{
	return op == DFX_RING_IMAGE_INFO || op == DFX_RING_PERTURB;
}

/* What the network sees of an image. */
static DfxStatus
decode_input(const DfxTask *task, const uint8_t *bytes, uint64_t len, DfxErr *err)
{
	const DfxRequest *req = &task->req;
	uint32_t size = task->model->input_size;

	if (req->fast_decode && req->how.kind == DFX_PERTURB_RAW)
		return dfx_image_prepare_fast(bytes, len, &req->limits, size, task->pixels, err);
	return dfx_image_prepare_as(bytes, len, &req->how, &req->limits, size, task->pixels, err);
}

static DfxStatus
decode_image(DfxSched *s, DfxTask *task, uint64_t *reply_len, DfxErr *err)
{
	const DfxRequest *req = &task->req;
	const uint8_t *bytes = req->in;
	uint64_t len = req->in_len, pixels;
	DfxImageInfo info;
	DfxStatus st;

	dfx_trigger(&bytes, &len);
	st = dfx_image_info(bytes, len, &req->limits, &info, err);
	if (st != DFX_OK)
		return st;
	if (req->op == DFX_RING_IMAGE_INFO)
		return decode_info(req, &info, reply_len, err);
	pixels = (uint64_t) info.width * info.height;
	if (req->how.kind != DFX_PERTURB_RAW || req->op == DFX_RING_PERTURB)
		pixels += dfx_perturb_pixels(&req->how, info.width, info.height);
	decode_claim(s, pixels);
	if (req->op == DFX_RING_PERTURB)
		st = decode_perturbed(s, req, bytes, len, reply_len, err);
	else
		st = decode_input(task, bytes, len, err);
	decode_unclaim(s, pixels);
	return st;
}

/* Decode an admitted task and hand it on, or answer it. */
static void
decode_task(DfxSched *s, DfxTask *task)
{
	uint64_t t0 = dfx_now_ns(), reply_len = 0;
	DfxErr err = {.code = DFX_OK};
	DfxStatus st;

	if (dfx_ring_canceled(s->map, &task->req))
		st = dfx_fail(&err, DFX_ECANCELED, "canceled");
	else
	{
		dfx_ring_start(s->map, &task->req);
		st = decode_image(s, task, &reply_len, &err);
		atomic_fetch_add(&s->stats->decode_ns, dfx_now_ns() - t0);
	}
	atomic_fetch_add(&s->stats->progress, 1);
	if (st != DFX_OK || decode_answers(task->req.op))
	{
		if (st == DFX_EIMAGE || st == DFX_ELIMIT)
			atomic_fetch_add(&s->stats->image_errors, 1);
		dfx_task_finish(s, task, st, st == DFX_OK ? NULL : &err, 0, reply_len);
		dfx_control_done();
		return;
	}
	pthread_mutex_lock(&s->lock);
	task->ready_ns = dfx_now_ns();
	dfx_task_insert(&s->ready, task);
	pthread_cond_signal(&s->ready_cv);
	pthread_mutex_unlock(&s->lock);
}

void *
dfx_decode_thread(void *sched)
{
	DfxSched *s = sched;

	for (;;)
	{
		DfxTask *task;

		pthread_mutex_lock(&s->lock);
		while ((task = dfx_task_pop(&s->decode)) == NULL)
			pthread_cond_wait(&s->decode_cv, &s->lock);
		pthread_mutex_unlock(&s->lock);
		decode_task(s, task);
	}
	return NULL;
}
