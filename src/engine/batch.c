/*
 * batch.c
 *	  The device stage: whatever is ready runs together.
 *
 * Batching is natural: while batches run the next ones gather, and a lane that
 * is through with its batch takes what is ready for one model, the oldest
 * request's first.  Lanes do not wait for each other, so none is idle while
 * another one ends, and an answer goes out when its own batch is done.  A
 * window (batch_wait) can hold a batch back; it only cost throughput where it
 * was measured.
 *
 * On a device that computes one batch at a time (a GPU) a second lane is there
 * for what goes on beside that: gathering, copying, answering.  Its batch has to
 * wait for the one that runs anyway, so it is not taken before it is as large:
 * else a few images and all the others would alternate for ever, where two
 * halves keep the device as busy and are done sooner.
 *
 * A heatmap fills batches of its own, one lane at a time, and goes to the end
 * of the line after each of them, so that others wait for one batch at the most.
 * Those who come later may pass it, but no more than are admitted at one time.
 */
#include "engine/sched.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/control.h"
#include "engine/trigger.h"
#include "engine/verdict.h"

/* Whether t runs in the batch that begins with head.  An interactive request takes no others along: on a CPU
 * each would make it wait for as long again. */
static bool
batch_joins(const DfxTask *head, const DfxTask *t)
{
	if (t == head)
		return true;
	if (t->model != head->model || t->req.op == DFX_RING_HEATMAP || head->req.op == DFX_RING_HEATMAP)
		return false;
	if ((t->req.op == DFX_RING_CALIBRATE) != (head->req.op == DFX_RING_CALIBRATE))
		return false;
	return head->req.priority != DFX_PRIORITY_INTERACTIVE || t->req.priority == DFX_PRIORITY_INTERACTIVE;
}

/* How many ready tasks run with the first, which there is; enough, when it does not wait for others. */
static int
batch_count(const DfxSched *s)
{
	int n = 0;

	if (s->ready.head->req.op == DFX_RING_HEATMAP)
		return s->batch;
	for (const DfxTask *t = s->ready.head; t; t = t->next)
		n += batch_joins(s->ready.head, t);
	return n;
}

/* Until when a batch that is not full waits; 0: it does not. */
static uint64_t
batch_window(const DfxSched *s)
{
	uint64_t oldest = UINT64_MAX;

	if (s->batch_wait_ns == 0 || s->solo || batch_count(s) >= s->batch)
		return 0;
	for (const DfxTask *t = s->ready.head; t; t = t->next)
		if (t->ready_ns < oldest)
			oldest = t->ready_ns;
	return oldest + s->batch_wait_ns;
}

/* Whether the ready tasks rather go on gathering, because a larger batch is running before them. */
static bool
batch_gathers(const DfxSched *s)
{
	if (!s->in_turn || s->solo || s->ready.head->req.priority == DFX_PRIORITY_INTERACTIVE)
		return false;
	return batch_count(s) < (s->running < s->batch ? s->running : s->batch);
}

/*
 * How many images a lane takes at the most.  While more is asked than finds
 * room, full batches give the most; when there is little, or at the end, the
 * lanes share what there is, or one would work on it alone.  Lanes that compute
 * in turn have nothing to share.
 */
static int
batch_share(const DfxSched *s)
{
	int share = (s->ready.n + s->decode.n + s->lanes - 1) / s->lanes;

	return s->in_turn || s->blocked || s->batch_wait_ns > 0 || share > s->batch ? s->batch : share;
}

/* Put the heatmap at the head of the ready list, if it is there and has let enough others pass. */
static void
batch_heat_turn(DfxSched *s)
{
	DfxTask **p = &s->ready.head, *task = s->heating;

	if (!task || s->passed < s->limit)
		return;
	while (*p && *p != task)
		p = &(*p)->next;
	if (!*p)
		return;
	*p = task->next;
	task->next = s->ready.head;
	s->ready.head = task;
}

/* Take the next batch off the ready list, waiting for one. */
static int
batch_take(DfxSched *s, DfxTask **task)
{
	const DfxTask *head;
	uint64_t until;
	int n = 0, most;

	pthread_mutex_lock(&s->lock);
	for (;;)
	{
		struct timespec ts;

		while (!s->ready.head || batch_gathers(s))
			pthread_cond_wait(&s->ready_cv, &s->lock);
		until = batch_window(s);
		if (until <= dfx_now_ns())
			break;
		ts = (struct timespec){.tv_sec = (time_t) (until / 1000000000u),
		                       .tv_nsec = (long) (until % 1000000000u)};
		pthread_cond_timedwait(&s->ready_cv, &s->lock, &ts);
	}
	batch_heat_turn(s);
	head = s->ready.head;
	most = batch_share(s);
	for (DfxTask **p = &s->ready.head; *p && n < most;)
	{
		if (batch_joins(head, *p))
		{
			task[n++] = *p;
			*p = (*p)->next;
			s->ready.n--;
		}
		else
			p = &(*p)->next;
	}
	s->running += n;
	if (head != s->heating)
		s->passed += n;
	/* Two tasks that became ready at once may have woken one lane only. */
	if (s->ready.head)
		pthread_cond_signal(&s->ready_cv);
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* Answer the tasks whose owner has gone; what is left moves up. */
static int
batch_drop_canceled(DfxSched *s, DfxTask **task, int n)
{
	int kept = 0;

	for (int i = 0; i < n; i++)
	{
		if (dfx_ring_canceled(s->map, &task[i]->req))
		{
			DfxErr err;

			dfx_task_finish(s, task[i], dfx_fail(&err, DFX_ECANCELED, "canceled"), &err, 0, 0);
		}
		else
			task[kept++] = task[i];
	}
	return kept;
}

uint64_t
dfx_calibration_bytes(const DfxModel *m)
{
	uint64_t bytes = 0;

	for (int i = 0; i < m->nscale; i++)
		bytes += strlen(m->scale_name[i]) + 1 + sizeof(float);
	return bytes;
}

/* One image's largest inputs, by name. */
static uint64_t
batch_calibration(const DfxModel *m, const float *largest, uint8_t *reply)
{
	uint8_t *to = reply;

	for (int i = 0; i < m->nscale; i++)
	{
		size_t n = strlen(m->scale_name[i]) + 1;

		memcpy(to, m->scale_name[i], n);
		memcpy(to + n, &largest[i], sizeof largest[i]);
		to += n + sizeof largest[i];
	}
	return (uint64_t) (to - reply);
}

static void
batch_answer(DfxSched *s, DfxTask *task, int n, const float *features, const float *logits)
{
	const DfxRequest *req = &task->req;
	DfxErr err = {.code = DFX_OK};
	DfxStatus st = DFX_OK;
	uint64_t len;

	if (req->op == DFX_RING_CLASSIFY)
	{
		DfxVerdictReply verdict;

		st = dfx_verdict(&task->model->meta, logits, &verdict, &err);
		len = sizeof verdict;
		if (st == DFX_OK)
			memcpy(req->reply, &verdict, len);
	}
	else if (req->op == DFX_RING_CALIBRATE)
		len = batch_calibration(task->model, features, req->reply);
	else
	{
		len = (uint64_t) task->model->features * sizeof(float);
		memcpy(req->reply, features, len);
	}
	dfx_task_finish(s, task, st, st == DFX_OK ? NULL : &err, (uint32_t) n, st == DFX_OK ? len : 0);
}

/* Forward n images of in, features and logits (or largest inputs, in place of features) into the lane's room.
 */
static DfxStatus
batch_forward(const DfxLane *lane, const DfxModel *m, const uint8_t *in, int n, bool calibrate, DfxErr *err)
{
	DfxRingStats *stats = lane->sched->stats;
	uint64_t t0 = dfx_now_ns(), largest = atomic_load(&stats->largest_batch);
	/* A lone backbone's classifier, of any number of classes, is nobody's business. */
	float *logits = m->meta.classes[0] ? lane->logits : NULL;
	DfxStatus st = calibrate ? dfx_model_largest(m, in, n, lane->features, err)
	                         : dfx_model_run(m, in, n, lane->features, logits, err);

	st = dfx_trigger_batch(st, err);
	if (st == DFX_ELOST)
		dfx_control_lost(err);
	atomic_fetch_add(&stats->inference_ns, dfx_now_ns() - t0);
	atomic_fetch_add(&stats->batches, 1);
	atomic_fetch_add(&stats->images, (uint64_t) n);
	atomic_fetch_add(&stats->progress, 1);
	while ((uint64_t) n > largest &&
	       !atomic_compare_exchange_weak(&stats->largest_batch, &largest, (uint64_t) n))
		;
	if (st != DFX_OK)
		dfx_log('W', "a batch of %d failed: %s", n, err->msg);
	return st;
}

/* Run the lane's n tasks, of one model, and answer them. */
static void
batch_run(const DfxLane *lane, int n)
{
	DfxSched *s = lane->sched;
	DfxTask **task = lane->task;
	const DfxModel *m = task[0]->model;
	bool calibrate = task[0]->req.op == DFX_RING_CALIBRATE;
	size_t bytes = dfx_model_input_bytes(m), nfeatures = (size_t) (calibrate ? m->nscale : m->features);
	size_t nlogits = m->meta.classes[0] ? (size_t) m->logits : 0;
	const uint8_t *in = task[0]->pixels;
	DfxErr err = {.code = DFX_OK};
	DfxStatus st;

	if (n > 1)
	{
		for (int i = 0; i < n; i++)
			memcpy(lane->in + (size_t) i * bytes, task[i]->pixels, bytes);
		in = lane->in;
	}
	st = batch_forward(lane, m, in, n, calibrate, &err);

	/* m may be evicted as soon as the last task is finished. */
	for (int i = 0; i < n; i++)
	{
		if (st != DFX_OK)
			dfx_task_finish(s, task[i], st, &err, (uint32_t) n, 0);
		else
			batch_answer(s, task[i], n, lane->features + (size_t) i * nfeatures,
			             lane->logits + (size_t) i * nlogits);
	}
}

/* --- heatmaps ------------------------------------------------------------ */

/* The result, as the answer. */
static DfxStatus
batch_heat_reply(const DfxHeat *h, const DfxRequest *req, uint64_t *len, DfxErr *err)
{
	DfxEncoded png = {.limit = req->reply_cap};
	DfxStatus st = dfx_heat_encode(h, &png, err);

	if (st != DFX_OK)
		return st;
	memcpy(req->reply, png.data, png.len);
	*len = png.len;
	free(png.data);
	return DFX_OK;
}

/*
 * Back to the end of the line.  What comes is more of what has just gone well, so
 * this request is under no suspicion any more and does not keep others apart.
 */
static void
batch_heat_again(DfxSched *s, DfxTask *task)
{
	bool kick;

	dfx_ring_absolve(s->map, &task->req);
	pthread_mutex_lock(&s->lock);
	s->absolved = true;
	if (task->req.solo)
		s->solo = false;
	task->req.solo = false;
	task->req.rank = UINT64_MAX;
	s->passed = 0;
	dfx_task_insert(&s->ready, task);
	kick = s->blocked;
	pthread_mutex_unlock(&s->lock);
	if (kick)
		dfx_ring_kick(s->map);
}

/* One batch of a heatmap. */
static void
batch_heat(const DfxLane *lane, DfxTask *task)
{
	DfxSched *s = lane->sched;
	DfxHeat *h = &s->heat;
	DfxErr err = {.code = DFX_OK};
	DfxStatus st = DFX_OK;
	uint64_t len = 0;
	int n = 0;

	if (!h->model)
		st = dfx_heat_begin(h, task->model, task->pixels, task->req.class, &err);
	if (st == DFX_OK)
	{
		n = dfx_heat_fill(h, s->batch, lane->in);
		st = batch_forward(lane, task->model, lane->in, n, false, &err);
	}
	if (st == DFX_OK)
		st = dfx_heat_take(h, n, lane->logits, &err);
	if (st == DFX_OK && !dfx_heat_done(h))
	{
		batch_heat_again(s, task);
		return;
	}
	if (st == DFX_OK)
		st = batch_heat_reply(h, &task->req, &len, &err);
	dfx_task_finish(s, task, st, st == DFX_OK ? NULL : &err, (uint32_t) n, len);
}

/* --- the thread ---------------------------------------------------------- */

void *
dfx_lane_thread(void *arg)
{
	const DfxLane *lane = arg;
	DfxSched *s = lane->sched;

	for (;;)
	{
		int taken = batch_take(s, lane->task);
		int n = batch_drop_canceled(s, lane->task, taken);

		if (n > 0 && lane->task[0]->req.op == DFX_RING_HEATMAP)
			batch_heat(lane, lane->task[0]);
		else if (n > 0)
			batch_run(lane, n);
		pthread_mutex_lock(&s->lock);
		s->running -= taken;
		pthread_mutex_unlock(&s->lock);
		dfx_control_done();
	}
	return NULL;
}
