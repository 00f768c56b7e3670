/*
 * sched.c
 *	  The scan: which waiting request is taken next, and what is answered at once.
 *
 * A pass collects the slots that wait, sorts them by rank (ring.h), and admits
 * them in that order until there is no room: it is the order of service, so
 * nothing small overtakes something large for ever.  Behind that point only
 * what costs nothing is answered (pings, cancelled requests, absent models).
 * Not so headers: an image can be made to have millions of them.  Requests for
 * a model that is being closed (cache.h) are passed over.
 */
#include "engine/sched.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/control.h"
#include "engine/verdict.h"

/* --- task lists ---------------------------------------------------------- */

void
dfx_task_insert(DfxTaskList *list, DfxTask *task)
{
	DfxTask **p = &list->head;

	while (*p && (*p)->req.rank <= task->req.rank)
		p = &(*p)->next;
	task->next = *p;
	*p = task;
	list->n++;
}

DfxTask *
dfx_task_pop(DfxTaskList *list)
{
	DfxTask *task = list->head;

	if (task)
	{
		list->head = task->next;
		list->n--;
	}
	return task;
}

void
dfx_task_finish(DfxSched *s, DfxTask *task, DfxStatus status, const DfxErr *err, uint32_t batch,
                uint64_t reply_len)
{
	bool kick;

	if (status == DFX_ECANCELED)
		atomic_fetch_add(&s->stats->canceled, 1);
	atomic_fetch_add(&s->stats->requests, 1);

	/*
	 * The model is let go first: whoever sees the answer may count on the
	 * model being idle.  The task stays busy until the answer is out: were it
	 * freed before, the scan could take the same request a second time.
	 */
	if (task->resident)
		dfx_cache_release(s->cache, task->resident, task->counted);
	task->resident = NULL;
	dfx_ring_answer(s->map, &task->req, status, err, batch, reply_len);

	pthread_mutex_lock(&s->lock);
	task->busy = false;
	if (task->counted)
		s->busy--;
	if (task->counted && task->req.solo)
		s->solo = false;
	if (s->heating == task)
		s->heating = NULL;
	if (task->pixels)
		s->pool_free[s->pool_nfree++] = task->pixels;
	task->counted = false;
	task->pixels = NULL;
	kick = s->blocked;
	pthread_mutex_unlock(&s->lock);
	if (kick)
		dfx_ring_kick(s->map);
}

/* --- requests answered by the scan --------------------------------------- */

/*
 * What can be said about a request on a model before its image is touched:
 * DFX_OK and the model held, DFX_BUSY when the request has to wait, or the
 * answer.
 */
static DfxStatus
sched_model(DfxSched *s, DfxTask *task, uint64_t *need, DfxErr *err)
{
	const DfxRequest *req = &task->req;
	DfxPrecision possible; /* the device can; what AUTO stands for is the model's to say */
	const DfxModel *m;
	DfxStatus st = dfx_device_precision(s->device, req->precision, &possible, err);

	if (st != DFX_OK)
		return st;
	st = dfx_cache_acquire(s->cache, req->version, req->precision, req->order, &task->resident);
	if (st != DFX_OK)
		return st;
	task->model = m = dfx_cache_model(task->resident);
	*need = req->op == DFX_RING_HEATMAP     ? DFX_REPLY_HEATMAP
	        : req->op == DFX_RING_CLASSIFY  ? sizeof(DfxVerdictReply)
	        : req->op == DFX_RING_CALIBRATE ? dfx_calibration_bytes(m)
	                                        : (uint64_t) m->features * sizeof(float);
	if (req->op == DFX_RING_CLASSIFY || (req->op == DFX_RING_HEATMAP && req->class == DFX_CLASS_ANY))
		st = dfx_verdict_check(&m->meta, err);
	else if (req->op == DFX_RING_HEATMAP)
		st = dfx_verdict_knows(&m->meta, req->class, err);
	else if (req->op == DFX_RING_CALIBRATE)
		st = dfx_model_check_calibration(m, err);
	if (st == DFX_OK && (m->input_size > DFX_MAX_INPUT_SIDE || m->features <= 0 ||
	                     m->features > DFX_MAX_FEATURES || m->nscale > DFX_MAX_FEATURES))
		st = dfx_fail(err, DFX_EUNSUPPORTED, "the model's input or output is larger than this engine takes");
	if (st == DFX_OK && req->reply_cap < *need)
		st = dfx_fail(err, DFX_TOO_SMALL, "the reply takes %" PRIu64 " bytes", *need);
	return st;
}

/* --- admission ----------------------------------------------------------- */

typedef enum SchedVerdict
{
	SCHED_GO,    /* admitted: dispatch it */
	SCHED_REPLY, /* answer it now */
	SCHED_SKIP,  /* must wait; others may go first */
	SCHED_FULL   /* must wait for room, and so must all behind it that take some */
} SchedVerdict;

/* Whether nothing runs that could take the blame for a crash, or bring one about. */
static bool
sched_idle(const DfxSched *s)
{
	return s->busy == (s->heating && s->absolved) && !s->task[s->map->nslots].busy;
}

/* Let go of the model of a task that is not picked after all. */
static void
sched_unhold(DfxSched *s, DfxTask *task)
{
	if (task->resident)
		dfx_cache_release(s->cache, task->resident, false);
	task->resident = NULL;
}

/* How many tasks may be busy for one more of that priority to be admitted. */
static int
sched_places(const DfxSched *s, DfxPriority priority)
{
	return priority == DFX_PRIORITY_INTERACTIVE ? s->limit + s->limit / 2 : s->limit;
}

/*
 * Decide about a task whose request was read with status st.  full: somebody
 * before it waits for room.  Unless it must wait, its model is held.
 */
static SchedVerdict
sched_judge(DfxSched *s, DfxTask *task, bool full, DfxStatus *st, uint64_t *need, DfxErr *err)
{
	bool apart = !s->solo && !s->solo_waits && (sched_idle(s) || !task->req.solo);
	bool room = apart && !full && s->busy < sched_places(s, task->req.priority);

	if (*st == DFX_OK && dfx_ring_canceled(s->map, &task->req))
		*st = dfx_fail(err, DFX_ECANCELED, "canceled");
	if (*st == DFX_OK && dfx_ring_wants_model(task->req.op))
		*st = sched_model(s, task, need, err);
	if (*st == DFX_OK && task->req.op == DFX_RING_HEATMAP && s->heating)
		*st = DFX_BUSY;
	if (*st != DFX_OK && *st != DFX_BUSY)
		return SCHED_REPLY;
	if (*st == DFX_OK && task->req.op == DFX_RING_PING)
		return SCHED_REPLY;
	if (*st == DFX_BUSY || !room)
	{
		sched_unhold(s, task);
		s->blocked = true;
		if (*st == DFX_BUSY)
			return SCHED_SKIP;
		s->solo_waits |= task->req.solo;
		return SCHED_FULL;
	}
	return SCHED_GO;
}

/* The same, and pick what need not wait: it is busy afterwards. */
static SchedVerdict
sched_admit(DfxSched *s, DfxTask *task, bool full, DfxStatus *st, uint64_t *need, DfxErr *err)
{
	SchedVerdict verdict = sched_judge(s, task, full, st, need, err);

	if (verdict != SCHED_GO && verdict != SCHED_REPLY)
		return verdict;
	if (!dfx_ring_pick(s->map, &task->req))
	{
		sched_unhold(s, task);
		return SCHED_SKIP;
	}
	task->busy = true;
	if (verdict == SCHED_REPLY)
		return verdict;
	task->counted = true;
	s->busy++;
	s->solo = task->req.solo;
	if (dfx_ring_wants_model(task->req.op))
		task->pixels = s->pool_free[--s->pool_nfree];
	if (task->req.op == DFX_RING_HEATMAP)
	{
		s->heating = task;
		s->heat.model = NULL;
		s->absolved = false;
		s->passed = 0;
	}
	return SCHED_GO;
}

/* Send an admitted image on its way. */
static void
sched_dispatch(DfxSched *s, DfxTask *task)
{
	pthread_mutex_lock(&s->lock);
	dfx_task_insert(&s->decode, task);
	pthread_cond_signal(&s->decode_cv);
	pthread_mutex_unlock(&s->lock);
}

/* --- the scan ------------------------------------------------------------ */

typedef struct SchedSlot
{
	uint32_t slot;
	uint64_t rank;
} SchedSlot;

static int
sched_compare(const void *a, const void *b)
{
	const SchedSlot *x = a, *y = b;

	return (x->rank > y->rank) - (x->rank < y->rank);
}

/* The slots that wait, in order of service. */
static uint32_t
sched_collect(const DfxSched *s, SchedSlot *found)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->map->nslots; i++)
		if (dfx_ring_pending(s->map, i) != 0)
		{
			found[n++] = (SchedSlot){i, dfx_ring_rank(s->map, i)};
		}
	if (n > 1)
		qsort(found, n, sizeof *found, sched_compare);
	return n;
}

/* Take up slot i if it still waits.  *took: something was answered or started. */
static SchedVerdict
sched_slot(DfxSched *s, uint32_t i, bool full, bool *took)
{
	DfxTask *task = &s->task[i];
	DfxErr err = {.code = DFX_OK};
	SchedVerdict verdict = SCHED_SKIP;
	DfxStatus st = DFX_OK;
	uint64_t gen, need = 0;

	pthread_mutex_lock(&s->lock);
	gen = dfx_ring_pending(s->map, i);
	if (gen != 0 && task->busy)
		/* The next request in a slot whose task is just being put away: come back when it is. */
		s->blocked |= gen != task->req.gen;
	else if (gen != 0)
	{
		st = dfx_ring_read(s->map, i, gen, &task->req, &err);
		verdict = sched_admit(s, task, full, &st, &need, &err);
	}
	pthread_mutex_unlock(&s->lock);

	if (verdict == SCHED_REPLY)
	{
		dfx_task_finish(s, task, st, st == DFX_OK || st == DFX_NEED_MODEL ? NULL : &err, 0,
		                st == DFX_TOO_SMALL ? need : 0);
		s->answered = true;
	}
	else if (verdict == SCHED_GO)
		sched_dispatch(s, task);
	*took |= verdict == SCHED_REPLY || verdict == SCHED_GO;
	return verdict;
}

/* Hand the loader's slot to its thread.  It counts as in flight for solo requests, and waits for them. */
static bool
sched_loader(DfxSched *s)
{
	DfxTask *task = &s->task[s->map->nslots];
	DfxErr err = {.code = DFX_OK};
	DfxStatus st = DFX_OK;
	uint64_t gen;
	bool took = false;

	if (dfx_ring_pending(s->map, s->map->nslots) == 0)
		return false;
	pthread_mutex_lock(&s->lock);
	gen = dfx_ring_pending(s->map, s->map->nslots);
	if (gen != 0 && !task->busy && !s->solo && !s->solo_waits)
	{
		st = dfx_ring_read(s->map, s->map->nslots, gen, &task->req, &err);
		task->busy = took = dfx_ring_pick(s->map, &task->req);
		s->loader_work = took && st == DFX_OK;
		pthread_cond_signal(&s->loader_cv);
	}
	else if (gen != 0 && (!task->busy || gen != task->req.gen))
		s->blocked = true;
	pthread_mutex_unlock(&s->lock);
	if (took && st != DFX_OK)
	{
		dfx_task_finish(s, task, st, &err, 0, 0);
		s->answered = true;
	}
	return took;
}

/* One pass; whether it found anything to do. */
static bool
sched_pass(DfxSched *s)
{
	SchedSlot found[DFX_MAX_SLOTS];
	bool took = false, full = false;
	uint32_t n = sched_collect(s, found);

	pthread_mutex_lock(&s->lock);
	s->blocked = false;
	pthread_mutex_unlock(&s->lock);
	s->answered = s->solo_waits = false;
	for (uint32_t i = 0; i < n; i++)
		full |= sched_slot(s, found[i].slot, full, &took) == SCHED_FULL;
	took |= sched_loader(s);
	if (s->answered)
		dfx_control_done();
	return took;
}

void
dfx_sched_run(DfxSched *s)
{
	for (;;)
	{
		uint32_t seen = dfx_ring_wake_word(s->map);

		if (sched_pass(s))
			continue;
		dfx_ring_set_sleeping(s->map, true);
		if (!sched_pass(s))
			dfx_ring_sleep(s->map, seen);
		dfx_ring_set_sleeping(s->map, false);
	}
}

/* --- the loader's thread ------------------------------------------------- */

static void *
sched_loader_thread(void *arg)
{
	DfxSched *s = arg;
	DfxTask *task = &s->task[s->map->nslots];

	for (;;)
	{
		DfxErr err = {.code = DFX_OK};
		DfxRequest req;
		uint64_t reply_len = 0;
		DfxStatus st;

		pthread_mutex_lock(&s->lock);
		while (!s->loader_work)
			pthread_cond_wait(&s->loader_cv, &s->lock);
		s->loader_work = false;
		pthread_mutex_unlock(&s->lock);

		req = task->req; /* the task may be taken for the next one as soon as this one is answered */
		dfx_ring_start(s->map, &req);
		st = dfx_ring_canceled(s->map, &req) ? dfx_fail(&err, DFX_ECANCELED, "canceled")
		                                     : dfx_loader_run(s->loader, &req, &reply_len, &err);
		if (st == DFX_ELOST)
			dfx_control_lost(&err);
		dfx_task_finish(s, task, st, st == DFX_OK ? NULL : &err, 0, reply_len);

		/* Whoever gives up between two pieces says LOAD_ABORT; within one, this is all that tells. */
		if (dfx_ring_canceled(s->map, &req))
			dfx_loader_forget(s->loader);
		dfx_control_done();
		dfx_ring_kick(s->map); /* models came or went: requests that waited for that may go on */
	}
	return NULL;
}

/* --- start --------------------------------------------------------------- */

static DfxStatus
sched_alloc_lane(DfxSched *s, DfxLane *lane, uint8_t *in, DfxErr *err)
{
	size_t batch = (size_t) s->batch;

	*lane = (DfxLane){.sched = s,
	                  .task = malloc(batch * sizeof *lane->task),
	                  .in = in,
	                  .features = malloc(batch * DFX_MAX_FEATURES * sizeof(float)),
	                  .logits = malloc(batch * DFX_MAX_LOGITS * sizeof(float))};
	if (!lane->task || !lane->features || !lane->logits)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for batches of %d", s->batch);
	return DFX_OK;
}

/* What is allocated stays: a scheduler that cannot start ends the program. */
static DfxStatus
sched_alloc(DfxSched *s, DfxErr *err)
{
	int places = sched_places(s, DFX_PRIORITY_INTERACTIVE);
	size_t in = (size_t) s->batch * DFX_PIXELS_BYTES, pool = (size_t) places * DFX_PIXELS_BYTES;
	DfxStatus st = DFX_OK;

	s->task = calloc((size_t) s->map->nslots + 1, sizeof *s->task);
	s->loader = calloc(1, sizeof *s->loader);
	s->lane = calloc((size_t) s->lanes, sizeof *s->lane);
	s->pool = dfx_device_alloc(s->device, pool + (size_t) s->lanes * in);
	s->pool_free = malloc((size_t) places * sizeof *s->pool_free);
	if (!s->task || !s->loader || !s->lane || !s->pool || !s->pool_free)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the scheduler");
	for (int i = 0; i < places; i++)
		s->pool_free[s->pool_nfree++] = s->pool + (size_t) i * DFX_PIXELS_BYTES;
	for (uint32_t i = 0; i <= s->map->nslots; i++)
		s->task[i].req.slot = i;
	*s->loader = (DfxLoader){.map = s->map, .device = s->device, .cache = s->cache, .max_batch = s->batch};
	for (int i = 0; i < s->lanes && st == DFX_OK; i++)
		st = sched_alloc_lane(s, &s->lane[i], s->pool + pool + (size_t) i * in, err);
	return st;
}

static DfxStatus
sched_thread(void *(*run)(void *), void *arg, DfxErr *err)
{
	pthread_t thread;
	int rc = pthread_create(&thread, NULL, run, arg);

	if (rc != 0)
		return dfx_fail(err, DFX_EINTERNAL, "could not start a thread: %s", strerror(rc));
	pthread_detach(thread);
	return DFX_OK;
}

DfxStatus
dfx_sched_start(DfxSched *s, const DfxSchedOpts *opts, DfxErr *err)
{
	pthread_condattr_t monotonic;
	DfxStatus st;

	*s = (DfxSched){.map = opts->map,
	                .stats = &opts->map->own->stats,
	                .cache = opts->cache,
	                .device = opts->device,
	                .lanes = opts->lanes,
	                .batch = opts->batch,
	                .in_turn = opts->in_turn,
	                .limit = (opts->in_turn ? opts->lanes + 1 : 2 * opts->lanes) * opts->batch,
	                .threads = opts->threads,
	                .batch_wait_ns = opts->batch_wait_ns};
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->decode_cv, NULL);
	pthread_cond_init(&s->pixels_cv, NULL);
	pthread_cond_init(&s->loader_cv, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&s->ready_cv, &monotonic);
	pthread_condattr_destroy(&monotonic);

	st = sched_alloc(s, err);
	for (int i = 0; i < s->threads && st == DFX_OK; i++)
		st = sched_thread(dfx_decode_thread, s, err);
	for (int i = 0; i < s->lanes && st == DFX_OK; i++)
		st = sched_thread(dfx_lane_thread, &s->lane[i], err);
	if (st == DFX_OK)
		st = sched_thread(sched_loader_thread, s, err);
	return st;
}
