/*
 * ra_window.c
 *	  Requests sent before their answers are asked for.
 *
 * The windows of this backend are in one list, the youngest first: a query
 * may have several, and a function called by one query may run another.  All
 * of them together stay below the limit of one backend, and all are emptied
 * when the backend has to wait in line for a slot (window_yield), so that
 * nobody waits for slots while sitting on some.
 *
 * An ask goes NONE -> IN_FLIGHT -> DONE, and back to NONE when its row is
 * forgotten.  It also falls back to NONE, and the window notes that something
 * was lost, when it is dropped (portal suspended, ResourceOwner released), when
 * its slot was taken back because this backend did not come for the answer, or
 * when its answer says nothing about the image: NEED_MODEL, TOO_SMALL, an
 * engine that is not there.  The SQL function then asks itself, and gets
 * the error that is true at that moment.
 *
 * Slots belong to the ResourceOwner that was current when they were sent.
 * Its release drops them here before queue.c would, so a ticket in a window
 * is always one that the backend holds.
 */
#include "postgres.h"

#include "pg/clock.h"
#include "pg/compat.h"
#include "pg/ra_window.h"
#include "pg/settings.h"
#include "pg/shmem.h"
#include "pg/verdict.h"

static dlist_head windows = DLIST_STATIC_INIT(windows);

static inline DfxAhead *
window_at(DfxWindow *w, int row, int ask)
{
	return &w->ahead[row * w->nasks + ask];
}

int
dfx_window_limit(void)
{
	return dfx_ring == NULL ? 0 : Min(dfx_read_ahead, dfx_shared->nslots / 2);
}

/* ---- life of a window ---- */

static void
window_unlink(void *arg)
{
	DfxWindow  *w = arg;

	if (w->ahead == NULL)
		return;
	dlist_delete(&w->node);
	w->ahead = NULL;
}

void
dfx_window_open(DfxWindow *w, int nrows, int nasks, MemoryContext context)
{
	Assert(nasks <= DFX_WINDOW_MAX_ASKS && w->ahead == NULL);
	w->context = context;
	w->nrows = nrows;
	w->nasks = nasks;
	w->shown = -1;
	w->ahead = MemoryContextAllocZero(context, sizeof(DfxAhead) * nrows * nasks);
	for (int i = 0; i < nrows * nasks; i++)
		w->ahead[i].ticket = (DfxTicket) DFX_TICKET_INIT;
	dlist_push_head(&windows, &w->node);
	w->at_reset.func = window_unlink;
	w->at_reset.arg = w;
	MemoryContextRegisterResetCallback(context, &w->at_reset);
}

void
dfx_window_close(DfxWindow *w)
{
	if (w->ahead == NULL)
		return;
	for (int row = 0; row < w->nrows; row++)
		dfx_window_forget(w, row);
	window_unlink(w);
}

/* ---- sending ---- */

static void
window_question(const DfxCall *call, DfxQuestion *q)
{
	memset(q, 0, sizeof(*q));
	q->op = call->op;
	q->precision = dfx_wanted_precision;
	q->max_bytes = dfx_max_image_bytes;
	q->max_pixels = dfx_max_image_pixels;
	q->fast_decode = dfx_fast_decode;
	q->perturb = call->how.kind;
	q->perturb_value = call->how.value;
	memcpy(q->version, call->version, DFX_VERSION_LEN);
}

/* Can two of these be compared by their stored bytes?  Pointers into this process cannot. */
static bool
window_comparable(Datum image)
{
	struct varlena *v = (struct varlena *) DatumGetPointer(image);

	return !VARATT_IS_EXTERNAL(v) || VARATT_IS_EXTERNAL_ONDISK(v);
}

/* May this backend have one more request of that size in flight? */
static bool
window_has_room(const DfxWindow *w, Size bytes)
{
	Size		arena = (Size) dfx_shared->arena.npages * DFX_PAGE;

	return !w->hungry && dfx_queue_held() < dfx_window_limit() &&
		(w->held == 0 || w->held_bytes + bytes <= arena / 2);
}

bool
dfx_window_send(DfxWindow *w, int row, int ask, Datum image, DfxRingOp op, const DfxPerturbation *how,
				const DfxModelRef *model)
{
	DfxAhead   *a = window_at(w, row, ask);
	DfxCall		call;
	bool		sent;

	if (a->state != DFX_AHEAD_NONE || !window_comparable(image) ||
		!dfx_image_call(image, op, how, model, &call))
		return true;
	a->bytes = call.len;
	if (!window_has_room(w, a->bytes))
		return false;
	if (w->held > 0 && w->owner != CurrentResourceOwner)
		dfx_window_suspend(w);

	window_question(&call, &a->question);
	sent = dfx_queue_submit(&call, &a->ticket, true);
	if (sent)
	{
		w->owner = CurrentResourceOwner;
		a->state = DFX_AHEAD_IN_FLIGHT;
		w->held++;
		w->held_bytes += a->bytes;
		w->max_held = Max(w->max_held, w->held);
	}
	return sent;
}

/* ---- collecting ---- */

/* The slot is given back already, or about to be. */
static void
window_landed(DfxWindow *w, DfxAhead *a, DfxAheadState state)
{
	a->state = state;
	w->held--;
	w->held_bytes -= a->bytes;
	if (state == DFX_AHEAD_NONE)
		w->lost = true;
}

static void
window_drop(DfxWindow *w, DfxAhead *a)
{
	dfx_queue_drop(&a->ticket);
	window_landed(w, a, DFX_AHEAD_NONE);
}

/* Does this status say something about the image, so that asking again gives the same? */
static bool
window_is_final(DfxStatus status)
{
	return status == DFX_OK || status == DFX_ECRASH || dfx_image_at_fault(status);
}

/* Take an answer that is there out of its slot. */
static void
window_harvest(DfxWindow *w, DfxAhead *a)
{
	MemoryContext old = MemoryContextSwitchTo(w->context);
	bool		taken = !dfx_queue_harvest(&a->ticket, &a->reply);

	MemoryContextSwitchTo(old);
	if (taken)
	{
		w->stalled = true;
		window_landed(w, a, DFX_AHEAD_NONE);
		return;
	}
	if (window_is_final(a->reply.status))
	{
		window_landed(w, a, DFX_AHEAD_DONE);
		w->answers += a->reply.batch > 0;
		w->batches += a->reply.batch;
		return;
	}
	if (a->reply.status == DFX_NEED_MODEL)
		w->hungry = true;
	window_landed(w, a, DFX_AHEAD_NONE);
}

void
dfx_window_collect(DfxWindow *w)
{
	for (int i = 0; w->held > 0 && i < w->nrows * w->nasks; i++)
		if (w->ahead[i].state == DFX_AHEAD_IN_FLIGHT && dfx_queue_done(&w->ahead[i].ticket))
			window_harvest(w, &w->ahead[i]);
}

/* While this backend waits for one answer, it takes in all others. */
static void
window_collect_all(void)
{
	dlist_iter	it;

	dlist_foreach(it, &windows)
		dfx_window_collect(dlist_container(DfxWindow, node, it.cur));
}

static void
window_drop_all(DfxWindow *w)
{
	for (int i = 0; w->held > 0 && i < w->nrows * w->nasks; i++)
		if (w->ahead[i].state == DFX_AHEAD_IN_FLIGHT)
			window_drop(w, &w->ahead[i]);
}

void
dfx_window_suspend(DfxWindow *w)
{
	dfx_window_collect(w);
	window_drop_all(w);
}

/* When a request for which the wait begins now has taken too long. */
static int64
window_deadline(void)
{
	return dfx_clock_deadline(dfx_request_timeout);
}

void
dfx_window_settle(DfxWindow *w)
{
	for (int i = 0; w->held > 0 && i < w->nrows * w->nasks; i++)
	{
		DfxAhead   *a = &w->ahead[i];

		if (a->state != DFX_AHEAD_IN_FLIGHT)
			continue;
		if (!dfx_queue_wait_until(&a->ticket, window_deadline()))
			window_drop(w, a);
		else if (a->state == DFX_AHEAD_IN_FLIGHT)
			window_harvest(w, a);
	}
}

/*
 * This backend is going to wait in line: see everything in flight to its end,
 * rather than drop it and have it done twice.
 */
static void
window_yield(void)
{
	dlist_iter	it;

	dlist_foreach(it, &windows)
		dfx_window_settle(dlist_container(DfxWindow, node, it.cur));
}

static void
window_owner_released(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	dlist_iter	it;

	if (phase != RESOURCE_RELEASE_BEFORE_LOCKS)
		return;
	dlist_foreach(it, &windows)
	{
		DfxWindow  *w = dlist_container(DfxWindow, node, it.cur);

		if (w->held > 0 && w->owner == CurrentResourceOwner)
			window_drop_all(w);
	}
}

/* ---- rows ---- */

void
dfx_window_show(DfxWindow *w, int row)
{
	w->shown = row;
}

void
dfx_window_forget(DfxWindow *w, int row)
{
	if (w->shown == row)
		w->shown = -1;
	for (int ask = 0; ask < w->nasks; ask++)
	{
		DfxAhead   *a = window_at(w, row, ask);

		if (a->state == DFX_AHEAD_IN_FLIGHT)
		{
			bool		lost = w->lost;

			window_drop(w, a);
			w->lost = lost;		/* nobody wants it */
		}
		else if (a->state == DFX_AHEAD_DONE && a->reply.data != NULL)
			pfree(a->reply.data);
		a->state = DFX_AHEAD_NONE;
		a->ticket = (DfxTicket) DFX_TICKET_INIT;
	}
}

static bool
window_same_image(Datum a, Datum b)
{
	Pointer		p = DatumGetPointer(a),
				q = DatumGetPointer(b);

	return p == q ||
		(window_comparable(b) && VARSIZE_ANY(p) == VARSIZE_ANY(q) && memcmp(p, q, VARSIZE_ANY(p)) == 0);
}

/* Wait for an ask of the row shown.  False when its answer is of no use. */
static bool
window_finish(DfxWindow *w, DfxAhead *a)
{
	if (a->state == DFX_AHEAD_IN_FLIGHT)
	{
		/* Its time begins now, as if it were sent now: until here it waited behind its own kind. */
		a->ticket.deadline = window_deadline();
		dfx_queue_wait(&a->ticket);
		if (a->state == DFX_AHEAD_IN_FLIGHT)
			window_harvest(w, a);
	}
	return a->state == DFX_AHEAD_DONE;
}

static void
window_copy_reply(const DfxReply *from, DfxReply *to)
{
	*to = *from;
	if (from->data != NULL)
	{
		to->data = palloc(from->len);
		memcpy(to->data, from->data, from->len);
	}
}

bool
dfx_window_answer(const DfxCall *call, DfxTicket *ticket, DfxReply *reply)
{
	DfxQuestion q;
	dlist_iter	it;

	if (call->version == NULL || dlist_is_empty(&windows))
		return false;
	window_question(call, &q);
	dlist_foreach(it, &windows)
	{
		DfxWindow  *w = dlist_container(DfxWindow, node, it.cur);

		for (int ask = 0; w->shown >= 0 && ask < w->nasks; ask++)
		{
			DfxAhead   *a = window_at(w, w->shown, ask);

			if (a->ticket.order == 0 || w->no_image[ask] ||
				memcmp(&a->question, &q, sizeof(q)) != 0 || !window_same_image(w->image[ask], call->image))
				continue;
			if (window_finish(w, a))
			{
				window_copy_reply(&a->reply, reply);
				return true;
			}
			*ticket = a->ticket;
			ticket->deadline = window_deadline();
		}
		/* The caller asks now, and loads what is missing. */
		if (w->shown >= 0)
			w->hungry = false;
	}
	return false;
}

/* Called from _PG_init() when preloading. */
void
dfx_window_init(void)
{
	dfx_queue_on_wait(window_yield, window_collect_all);
	RegisterResourceReleaseCallback(window_owner_released, NULL);
}
