/*
 * batch.c
 *	  The device stage: whatever is ready runs together.
 *
 * Batching is natural: while one batch runs the next one gathers, and when
 * the device is free it takes all that is ready for one model, up to
 * max_batch, the oldest request's model first.  A window (batch_wait) can
 * hold a batch back; it only cost throughput where it was measured.
 */
#include "engine/sched.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "engine/control.h"
#include "engine/trigger.h"

/* How many ready tasks run on the model of the first. */
static int
batch_count(const DfxSched *s)
{
	int n = 0;

	for (const DfxTask *t = s->ready.head; t; t = t->next)
		n += t->model == s->ready.head->model;
	return n;
}

/* Until when a batch that is not full waits; 0: it does not. */
static uint64_t
batch_window(const DfxSched *s)
{
	uint64_t oldest = UINT64_MAX;

	if (s->batch_wait_ns == 0 || s->solo || batch_count(s) >= s->max_batch)
		return 0;
	for (const DfxTask *t = s->ready.head; t; t = t->next)
		if (t->ready_ns < oldest)
			oldest = t->ready_ns;
	return oldest + s->batch_wait_ns;
}

/* Take the next batch off the ready list, waiting for one. */
static int
batch_take(DfxSched *s, DfxTask **task)
{
	const DfxModel *model;
	uint64_t until;
	int n = 0;

	pthread_mutex_lock(&s->lock);
	while (!s->ready.head)
		pthread_cond_wait(&s->ready_cv, &s->lock);
	while ((until = batch_window(s)) > dfx_now_ns())
	{
		struct timespec ts = {.tv_sec = (time_t) (until / 1000000000u),
		                      .tv_nsec = (long) (until % 1000000000u)};

		if (pthread_cond_timedwait(&s->ready_cv, &s->lock, &ts) == ETIMEDOUT)
			break;
	}
	model = s->ready.head->model;
	for (DfxTask **p = &s->ready.head; *p && n < s->max_batch;)
	{
		if ((*p)->model == model)
		{
			task[n++] = *p;
			*p = (*p)->next;
			s->ready.n--;
		}
		else
			p = &(*p)->next;
	}
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

		st = dfx_verdict(logits, &verdict, &err);
		len = sizeof verdict;
		if (st == DFX_OK)
			memcpy(req->reply, &verdict, len);
	}
	else
	{
		len = (uint64_t) task->model->features * sizeof(float);
		memcpy(req->reply, features, len);
	}
	dfx_task_finish(s, task, st, st == DFX_OK ? NULL : &err, (uint32_t) n, st == DFX_OK ? len : 0);
}

/* Run n tasks of one model and answer them. */
static void
batch_run(DfxSched *s, int n)
{
	const DfxBatchRoom *room = &s->room;
	DfxTask **task = room->task;
	const DfxModel *m = task[0]->model;
	size_t bytes = dfx_model_input_bytes(m);
	const uint8_t *in = task[0]->pixels;
	DfxErr err = {.code = DFX_OK};
	uint64_t t0 = dfx_now_ns();
	DfxStatus st;

	if (n > 1)
	{
		for (int i = 0; i < n; i++)
			memcpy(room->in + (size_t) i * bytes, task[i]->pixels, bytes);
		in = room->in;
	}
	st = dfx_model_run(m, in, n, room->features, m->logits == DFX_NCLASS ? room->logits : NULL, &err);
	st = dfx_trigger_batch(st, &err);
	if (st == DFX_ELOST)
		dfx_control_lost(&err);
	atomic_fetch_add(&s->stats->inference_ns, dfx_now_ns() - t0);
	atomic_fetch_add(&s->stats->batches, 1);
	atomic_fetch_add(&s->stats->images, (uint64_t) n);
	atomic_fetch_add(&s->stats->progress, 1);
	if ((uint64_t) n > atomic_load(&s->stats->largest_batch))
		atomic_store(&s->stats->largest_batch, (uint64_t) n);
	if (st != DFX_OK)
		dfx_log('W', "a batch of %d failed: %s", n, err.msg);

	/* m may be evicted as soon as the last task is finished. */
	for (int i = 0; i < n; i++)
	{
		if (st != DFX_OK)
			dfx_task_finish(s, task[i], st, &err, (uint32_t) n, 0);
		else
			batch_answer(s, task[i], n, room->features + (size_t) i * (size_t) task[i]->model->features,
			             room->logits + (size_t) i * DFX_NCLASS);
	}
}

void *
dfx_batch_thread(void *sched)
{
	DfxSched *s = sched;

	for (;;)
	{
		int taken = batch_take(s, s->room.task);
		int n = batch_drop_canceled(s, s->room.task, taken);

		if (n > 0)
			batch_run(s, n);
		dfx_control_done();
	}
	return NULL;
}
