/*
 * queue.c
 *	  The client side of the ring: from a DfxCall to a DfxReply.
 *
 * A backend claims a slot with a run of pages, copies its image there
 * (payload.c), submits, and waits on its latch: at most a second at a time, so
 * that a lost wake-up costs no more, and with interrupts served, so that
 * cancel, statement_timeout and terminate work at once.
 *
 * What this backend holds is kept in queue_held with the ResourceOwner that
 * was current: its release (ERROR, end of a subtransaction, FATAL) gives the
 * slots back.  The same list is the trusted memory of where a reply was
 * reserved.  A place in the line for a first slot belongs to a ResourceOwner
 * in the same way.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/resowner.h"

#include "pg/clock.h"
#include "pg/compat.h"
#include "pg/payload.h"
#include "pg/queue_priv.h"
#include "pg/reply.h"
#include "pg/settings.h"
#include "pg/slot.h"
#include "pg/wait_event.h"

#define QUEUE_ALONE_MS 10000	/* that a call waits for a supervisor; a new one comes after 1 s */

typedef struct QueueHeld
{
	int			slot;
	uint64		gen;			/* 0: not submitted yet */
	uint64		in_off;
	uint64		reply_off;
	Size		reply_cap;
	ResourceOwner owner;
} QueueHeld;

static QueueHeld queue_held[DFX_MAX_SLOTS];
static int	queue_nheld = 0;
static ResourceOwner queue_line_owner = NULL;	/* not NULL: in line for a first slot */
static void (*queue_yield) (void) = NULL;
static void (*queue_collect) (void) = NULL;

static uint64
queue_pages(Size bytes)
{
	/* Not (bytes + DFX_PAGE - 1): what the engine asks for may be any number. */
	return bytes / DFX_PAGE + (bytes % DFX_PAGE != 0);
}

/* Does a request fit into the arena at all? */
static bool
queue_fits(Size len, Size reply_cap)
{
	return queue_pages(len) + queue_pages(reply_cap) <= dfx_shared->arena.npages;
}

void
dfx_require_ring(void)
{
	if (dfx_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("deepfeaturex must be loaded via shared_preload_libraries"),
				 errhint("Add deepfeaturex to shared_preload_libraries and restart the server.")));
	if (dfx_ring == NULL)
		dfx_unavailable(dfx_ring_reason);
}

/*
 * Raises 57P03 when there has been no supervisor for some time, counted from
 * when one was missed first: after a long recovery it starts at the same time
 * as those who ask for it.
 */
static void
queue_require_supervisor(void)
{
	char		reason[DFX_REASON_LEN];
	bool		alone;

	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	alone = dfx_shared->supervisor_pid == 0;
	if (alone && dfx_shared->supervisor_missed == 0)
		dfx_shared->supervisor_missed = dfx_clock_ms();
	alone = alone && dfx_clock_ms() - dfx_shared->supervisor_missed >= QUEUE_ALONE_MS;
	strlcpy(reason, dfx_shared->engine[0].last_error, sizeof(reason));
	LWLockRelease(dfx_shared->lock);
	if (!alone)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("the deepfeaturex engine is not available"),
			 errdetail("%s", reason[0] != '\0' ? reason : "its supervisor is not running"),
			 errhint("The supervisor is a background worker: see the server log, and increase max_worker_processes"
					 " if it is too low.")));
}

/*
 * Raises as dfx_require_ring(), and 57P03 with the reason when no engine can be
 * started or nobody is there to start one.  Whoever waits calls it
 * every second.
 */
void
dfx_queue_require_engine(void)
{
	char		reason[DFX_REASONS_LEN];
	uint32		state;

	dfx_require_ring();
	state = pg_atomic_read_u32(&dfx_shared->state);
	if (state == DFX_ENGINE_DOWN)
		queue_require_supervisor();
	if (state != DFX_ENGINE_FAILED)
		return;
	dfx_engines_reason(reason, sizeof(reason));
	dfx_unavailable(reason);
}

static QueueHeld *
queue_find(const DfxTicket *ticket)
{
	for (int i = 0; i < queue_nheld; i++)
		if (queue_held[i].slot == ticket->slot && queue_held[i].gen == ticket->gen)
			return &queue_held[i];
	elog(ERROR, "slot %d is not held by this backend", ticket->slot);
}

/* Give a slot back and forget it; false when it had been taken back. */
static bool
queue_let_go(QueueHeld *held)
{
	int			slot = held->slot;
	uint64		gen = held->gen;

	*held = queue_held[--queue_nheld];
	return dfx_slot_let_go(slot, gen);
}

/* Wait for room.  Returns -1 with nowait when there is none. */
static int
queue_claim(uint32 npages, bool nowait, uint64 *offset)
{
	int64		give_up = 0;

	for (;;)
	{
		int			slot = dfx_slot_claim(npages, !nowait, offset);
		int64		left;

		if (slot >= 0 || nowait)
		{
			queue_line_owner = NULL;
			return slot;
		}
		queue_line_owner = CurrentResourceOwner;
		if (give_up == 0)
			give_up = dfx_clock_ms() + dfx_queue_timeout;
		left = dfx_clock_left(give_up);
		if (left == 0)
		{
			queue_line_owner = NULL;
			dfx_slot_leave_line();
			dfx_slot_count(&dfx_shared->count.full);
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
					 errmsg("no room in the deepfeaturex queue within %d ms", dfx_queue_timeout),
					 errhint("Increase dfx.queue_timeout, dfx.queue_slots or dfx.queue_memory.")));
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, 1000), dfx_wait_event(DFX_WAIT_QUEUE));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		dfx_queue_require_engine();
	}
}

/*
 * The request words that come from the op and the session's settings; the
 * caller adds where the data is.
 */
void
dfx_queue_fill(int slot, DfxRingOp op, const uint8 *version)
{
	DfxSlot    *words = dfx_ring_words(slot);

	words->op = op;
	words->priority = dfx_priority;
	words->precision = dfx_wanted_precision;
	words->max_bytes = (uint64) dfx_max_image_bytes * 1024;
	words->max_pixels = dfx_max_image_pixels;
	words->how = (DfxPerturbation) {0};
	words->class = 0;
	words->fast_decode = dfx_fast_decode;
	if (version != NULL)
		memcpy(words->version, version, DFX_VERSION_LEN);
	else
		memset(words->version, 0, DFX_VERSION_LEN);
}

/* Is there any sense in submitting without waiting? */
static bool
queue_can_take(const DfxCall *call)
{
	return dfx_shared != NULL && dfx_ring != NULL &&
		pg_atomic_read_u32(&dfx_shared->state) != DFX_ENGINE_FAILED &&
		queue_fits(call->len, call->reply_cap);
}

bool
dfx_queue_submit(const DfxCall *call, DfxTicket *ticket, bool nowait)
{
	QueueHeld  *held;
	DfxSlot    *words;
	DfxPayload	payload;
	uint64		offset;
	bool		first;
	int			slot;

	Assert(ticket->slot < 0);
	if (!nowait)
		dfx_queue_require_engine();
	else if (!queue_can_take(call))
		return false;
	dfx_queue_at_exit();
	if (!nowait && queue_nheld > 0)
		elog(ERROR, "a backend that holds a slot must not wait for another one");
	if (!queue_fits(call->len, call->reply_cap))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a request of %zu bytes does not fit into the deepfeaturex queue", call->len),
				 errhint("Increase dfx.queue_memory.")));
	dfx_payload_open(&payload, call);
	slot = queue_claim(queue_pages(call->len) + queue_pages(call->reply_cap), nowait, &offset);
	if (slot < 0)
	{
		dfx_payload_close(&payload);
		return false;
	}

	held = &queue_held[queue_nheld++];
	held->slot = slot;
	held->gen = 0;
	held->in_off = offset;
	held->reply_off = offset + queue_pages(call->len) * DFX_PAGE;
	held->reply_cap = call->reply_cap;
	held->owner = CurrentResourceOwner;

	words = dfx_ring_words(slot);
	dfx_queue_fill(slot, call->op, call->version);
	words->in_off = held->in_off;
	words->in_len = call->len;
	words->reply_off = held->reply_off;
	words->reply_cap = held->reply_cap;
	words->how = call->how;
	words->class = call->class;
	if (call->op == DFX_RING_HEATMAP)
		words->priority = DFX_PRIORITY_BULK;
	dfx_payload_copy(&payload, (char *) dfx_ring + held->in_off);
	dfx_payload_close(&payload);

	first = ticket->order == 0;
	held->gen = dfx_slot_submit(slot, ticket->engine, queue_nheld - 1, &ticket->order, ticket->blame);
	ticket->slot = slot;
	ticket->gen = held->gen;
	if (first)
	{
		ticket->rounds = Max(1, call->rounds);
		ticket->deadline = dfx_clock_deadline((int64) dfx_request_timeout * ticket->rounds);
	}
	return true;
}

bool
dfx_queue_done(const DfxTicket *ticket)
{
	return dfx_slot_done(ticket->slot, ticket->gen) || dfx_slot_taken(ticket->slot, ticket->gen);
}

/* Wait for the answer.  Raises on cancel and when the engine is gone for good. */
bool
dfx_queue_wait_until(const DfxTicket *ticket, int64 until)
{
	while (ticket->slot >= 0 && !dfx_queue_done(ticket))
	{
		int64		left = dfx_clock_left(until);

		if (left == 0)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(left, 1000), dfx_wait_event(DFX_WAIT_ANSWER));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();

		/* An answer in the last moment is still one. */
		if (!dfx_queue_done(ticket))
			dfx_queue_require_engine();
		if (queue_collect != NULL)
			queue_collect();	/* others may need those slots */
	}
	return true;
}

void
dfx_queue_wait(const DfxTicket *ticket)
{
	if (dfx_queue_wait_until(ticket, ticket->deadline))
		return;
	dfx_slot_count(&dfx_shared->count.timeouts);
	ereport(ERROR,
			(errcode(ERRCODE_SYSTEM_ERROR),
			 errmsg("the deepfeaturex engine did not answer within %lld ms",
					(long long) dfx_request_timeout * ticket->rounds),
			 errhint("See dfx_engine_status(), or increase dfx.request_timeout.")));
}

bool
dfx_queue_harvest(DfxTicket *ticket, DfxReply *reply)
{
	QueueHeld  *held = queue_find(ticket);
	int			blame;
	bool		mine;

	if (!dfx_queue_done(ticket))
		elog(ERROR, "the request in slot %d is not done", ticket->slot);

	/* Should the slot be taken back meanwhile, this reads somebody else's answer; then it does not count. */
	dfx_reply_read(held->slot, held->reply_off, held->reply_cap, reply);
	blame = dfx_slot_blame(held->slot);
	mine = queue_let_go(held);
	ticket->slot = -1;
	ticket->gen = 0;
	if (mine)
		ticket->blame = blame;
	else if (reply->data != NULL)
		pfree(reply->data);
	return mine;
}

void
dfx_queue_drop(DfxTicket *ticket)
{
	if (ticket->slot < 0)
		return;
	(void) queue_let_go(queue_find(ticket));
	ticket->slot = -1;
	ticket->gen = 0;
}

int
dfx_queue_held(void)
{
	return queue_nheld;
}

void
dfx_queue_on_wait(void (*yield) (void), void (*collect) (void))
{
	queue_yield = yield;
	queue_collect = collect;
}

/* Submit, for the first slot or for one more, by way of having none. */
static void
queue_submit_waiting(const DfxCall *call, DfxTicket *ticket)
{
	if (queue_nheld > 0 && queue_yield != NULL)
	{
		if (dfx_queue_submit(call, ticket, true))
			return;
		queue_yield();
	}
	(void) dfx_queue_submit(call, ticket, false);
}

static void
queue_fail(DfxReply *reply, DfxStatus status, const char *msg, const char *hint)
{
	memset(reply, 0, sizeof(*reply));
	reply->status = status;
	strlcpy(reply->msg, msg, sizeof(reply->msg));
	strlcpy(reply->hint, hint, sizeof(reply->hint));
}

/*
 * Make the model resident in the engine that asked for it, which is then also
 * asked again, lest every other one ask for it first; the time it takes moves
 * the deadline.
 */
static void
queue_need_model(const DfxCall *call, DfxTicket *ticket, int engine)
{
	int64		before = dfx_clock_ms();

	if (queue_nheld > 0 && queue_yield != NULL)
		queue_yield();			/* others may wait for these slots; a load takes its time */
	call->need_model(call->version, ticket->order, engine, call->need_model_arg);
	ticket->engine = engine + 1;
	if (ticket->deadline != DFX_CLOCK_NEVER)
		ticket->deadline += dfx_clock_ms() - before;
}

/*
 * What one device cannot do, another one of the list may: ask the next that
 * has not refused, if there is one.
 */
static bool
queue_ask_another(DfxTicket *ticket, int engine)
{
	ticket->refused |= 1 << engine;
	for (int i = 0; i < dfx_nengines(); i++)
		if (!(ticket->refused & 1 << i) && dfx_engine_state(i) == DFX_ENGINE_READY)
		{
			ticket->engine = i + 1;
			return true;
		}
	return false;
}

void
dfx_queue_call(const DfxCall *call, DfxReply *reply)
{
	DfxTicket	ticket = DFX_TICKET_INIT;

	dfx_queue_go_on(call, &ticket, reply);
}

void
dfx_queue_go_on(const DfxCall *call, DfxTicket *ticket, DfxReply *reply)
{
	DfxCall		now = *call;

	dfx_require_ring();
	for (;;)
	{
		if (!queue_fits(now.len, now.reply_cap))
		{
			queue_fail(reply, DFX_ELIMIT, "the image does not fit into the deepfeaturex queue",
					   "Increase dfx.queue_memory.");
			return;
		}
		queue_submit_waiting(&now, ticket);
		dfx_queue_wait(ticket);
		if (!dfx_queue_harvest(ticket, reply))
			continue;

		if (reply->status == DFX_NEED_MODEL && now.need_model != NULL)
			queue_need_model(&now, ticket, reply->engine);
		else if (reply->status == DFX_TOO_SMALL && now.reply_cap == call->reply_cap &&
				 reply->len > now.reply_cap)
			now.reply_cap = reply->len;
		else if (reply->status != DFX_EUNSUPPORTED || !queue_ask_another(ticket, reply->engine))
			break;
	}
	if (reply->status == DFX_NEED_MODEL || reply->status == DFX_TOO_SMALL || reply->status == DFX_BUSY)
		queue_fail(reply, DFX_EINTERNAL, "the engine gave an answer that does not fit the request", "");
}

/* Give back all that owner (any, if NULL) holds. */
static void
queue_release(ResourceOwner owner)
{
	if (queue_line_owner != NULL && (owner == NULL || queue_line_owner == owner))
	{
		queue_line_owner = NULL;
		dfx_slot_leave_line();
	}
	for (int i = queue_nheld - 1; i >= 0; i--)
		if (owner == NULL || queue_held[i].owner == owner)
			(void) queue_let_go(&queue_held[i]);
	dfx_loader_release(owner);
}

static void
queue_owner_released(ResourceReleasePhase phase, bool isCommit, bool isTopLevel, void *arg)
{
	if (phase != RESOURCE_RELEASE_AFTER_LOCKS || dfx_ring == NULL)
		return;
	if (isCommit && queue_nheld > 0)
		for (int i = 0; i < queue_nheld; i++)
			if (queue_held[i].owner == CurrentResourceOwner)
				elog(WARNING, "deepfeaturex slot leak: slot %d was not given back", queue_held[i].slot);
	queue_release(CurrentResourceOwner);
}

static void
queue_exit(int code, Datum arg)
{
	queue_release(NULL);
}

/*
 * To be called before a process first holds anything: FATAL aborts the
 * transaction, which releases its owners, but nothing promises that in every
 * state, and a slot that is lost stays lost until the server restarts.
 */
void
dfx_queue_at_exit(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(queue_exit, 0);
	registered = true;
}

/* Called from _PG_init() when preloading; the registration is inherited by fork. */
void
dfx_queue_init(void)
{
	RegisterResourceReleaseCallback(queue_owner_released, NULL);
}
