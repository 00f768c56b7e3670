/*
 * loader.c
 *	  One backend at a time streams weights to the engine.
 *
 * The loader has a slot and a region of the ring of its own, so that a queue
 * full of images cannot keep out the weights they wait for.  Whoever wants a
 * version that is being loaded waits for the end of that attempt; whoever
 * wants another one waits for its turn.  (A backend waits here holding no
 * image slot, see dfx_queue_on_wait(), so images cannot keep the loader waiting
 * either.)
 *
 * The weights sent so far live and die with one engine.  The epoch, which
 * moves before each start, tells whether it is still the same: it is noted at
 * LOAD_BEGIN and compared after every answer.
 *
 * The loader's role belongs to a ResourceOwner like a slot does; its release
 * abandons what is in flight, has the engine forget what it got so far, and the
 * next loader waits for the engine to be through with that.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/resowner.h"

#include "pg/clock.h"
#include "pg/queue_priv.h"
#include "pg/reply.h"
#include "pg/settings.h"
#include "pg/slot.h"
#include "pg/wait_event.h"

/* The end of the region takes the replies, the longest of which lists tensors by name; the rest the data. */
#define LOADER_REPLY_CAP (128 * DFX_PAGE)
#define LOADER_DATA_CAP (DFX_LOADER_BYTES - LOADER_REPLY_CAP)

static ResourceOwner loader_owner = NULL;	/* not NULL: this backend is the loader */
static uint64 loader_gen = 0;	/* of its last request; 0: none yet */
static int	loader_engine = 0;	/* the engine's number ... */
static uint64 loader_epoch = 0; /* ... and epoch, when it got LOAD_BEGIN */
static bool loader_open = false;	/* that engine may hold a load that has begun and not ended */
static uint8 loader_version[DFX_VERSION_LEN];	/* of that load */

typedef enum LoaderTry
{
	LOADER_MINE,				/* this backend is the loader now */
	LOADER_BUSY,				/* somebody else is, or the last one's request is still in flight */
	LOADER_ENDED				/* the load that this backend followed has ended */
} LoaderTry;

/* A load of the version wanted, by another backend, whose end is waited for. */
typedef struct LoaderFollow
{
	bool		active;
	uint64		attempt;
} LoaderFollow;

static LoaderTry
loader_try(const uint8 *version, int engine, LoaderFollow *follow)
{
	DfxShared  *s = dfx_shared;
	LoaderTry	result = LOADER_BUSY;

	LWLockAcquire(s->lock, LW_EXCLUSIVE);
	if (follow->active && follow->attempt != s->loader_attempt)
		result = LOADER_ENDED;
	else if (s->loader_busy)
	{
		follow->active = s->loader_engine == engine &&
			memcmp(s->loader_version, version, DFX_VERSION_LEN) == 0;
		follow->attempt = s->loader_attempt;
	}
	else if (dfx_slot_claim_loader_locked())
	{
		s->loader_busy = true;
		s->loader_engine = engine;
		memcpy(s->loader_version, version, DFX_VERSION_LEN);
		result = LOADER_MINE;
	}
	LWLockRelease(s->lock);
	return result;
}

bool
dfx_loader_begin(const uint8 *version, int engine)
{
	LoaderFollow follow = {false, 0};
	LoaderTry	result;

	dfx_queue_require_engine();
	dfx_queue_at_exit();
	if (loader_owner != NULL)
		elog(ERROR, "this backend is the loader already");

	ConditionVariablePrepareToSleep(&dfx_shared->loader_cv);
	while ((result = loader_try(version, engine, &follow)) == LOADER_BUSY)
	{
		(void) ConditionVariableTimedSleep(&dfx_shared->loader_cv, 1000,
										   dfx_wait_event(DFX_WAIT_LOADER));
		CHECK_FOR_INTERRUPTS();
		dfx_queue_require_engine();
	}
	/* Nothing between becoming the loader and noting its owner may raise. */
	if (result == LOADER_MINE)
	{
		loader_owner = CurrentResourceOwner;
		loader_engine = engine;
		loader_gen = 0;
	}
	ConditionVariableCancelSleep();
	return result == LOADER_MINE;
}

char *
dfx_loader_buffer(Size *capacity)
{
	*capacity = LOADER_DATA_CAP;
	return (char *) dfx_ring + dfx_layout.loader_off;
}

static uint64
loader_epoch_now(void)
{
	return pg_atomic_read_u64(&dfx_shared->engine[loader_engine].epoch);
}

/*
 * A load begins with an engine that is there, which a request would wait for
 * as long.  If no engine can be started that raises; if only this one cannot,
 * the answer is false.
 */
static bool
loader_wait_for_engine(void)
{
	int64		give_up = dfx_clock_deadline(dfx_request_timeout);

	ConditionVariablePrepareToSleep(&dfx_shared->loader_cv);
	while (dfx_engine_state(loader_engine) != DFX_ENGINE_READY)
	{
		int64		left = dfx_clock_left(give_up);

		dfx_queue_require_engine();
		if (dfx_engine_state(loader_engine) == DFX_ENGINE_FAILED)
			break;
		if (left == 0)
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("the deepfeaturex engine was not ready within %d ms", dfx_request_timeout),
					 errhint("See dfx_engine_status(), or increase dfx.request_timeout.")));
		(void) ConditionVariableTimedSleep(&dfx_shared->loader_cv, Min(left, 1000),
										   dfx_wait_event(DFX_WAIT_LOADER));
		CHECK_FOR_INTERRUPTS();
	}
	ConditionVariableCancelSleep();
	return dfx_engine_state(loader_engine) != DFX_ENGINE_FAILED;
}

static void
loader_unavailable(DfxReply *reply, const char *why)
{
	reply->status = DFX_EUNAVAILABLE;
	strlcpy(reply->msg, why, sizeof(reply->msg));
	reply->hint[0] = '\0';
}

/* After an answer: does the engine expect more of this load?  A failure has ended it. */
static bool
loader_goes_on(DfxRingOp op, const DfxReply *reply)
{
	if (reply->status != DFX_OK)
		return false;
	if (op == DFX_RING_LOAD_BEGIN)
		return reply->len == sizeof(DfxLoadReply) && ((DfxLoadReply *) reply->data)->resident == 0;
	return op == DFX_RING_LOAD_DATA;
}

void
dfx_loader_send(DfxRingOp op, const uint8 *version, Size len, DfxReply *reply)
{
	int			slot = dfx_shared->nslots;
	DfxSlot    *words = dfx_ring_words(slot);
	DfxTicket	ticket = {.slot = slot, .deadline = DFX_CLOCK_NEVER};
	uint64		reply_off = dfx_layout.loader_off + LOADER_DATA_CAP;

	if (loader_owner == NULL || len > LOADER_DATA_CAP)
		elog(ERROR, "not the loader, or more than its room");
	dfx_queue_require_engine();
	if (op == DFX_RING_LOAD_BEGIN)
	{
		if (!loader_wait_for_engine())
		{
			memset(reply, 0, sizeof(*reply));
			loader_unavailable(reply, "the engine cannot be started");
			return;
		}
		loader_epoch = loader_epoch_now();
	}

	dfx_queue_fill(slot, op, version);
	words->in_off = dfx_layout.loader_off;
	words->in_len = len;
	words->reply_off = reply_off;
	words->reply_cap = LOADER_REPLY_CAP;
	loader_open = op != DFX_RING_EVICT; /* should the wait be given up */
	memcpy(loader_version, version, DFX_VERSION_LEN);
	ticket.gen = loader_gen = dfx_slot_submit(slot, loader_engine + 1, 0, &(uint64) {0}, 0);

	/* No deadline: how long a model takes is its own affair, and the supervisor watches the engine. */
	dfx_queue_wait(&ticket);
	dfx_reply_read(slot, reply_off, LOADER_REPLY_CAP, reply);
	loader_open = loader_goes_on(op, reply);

	if (loader_epoch_now() != loader_epoch && op != DFX_RING_EVICT)
		loader_unavailable(reply, "the engine was replaced while a model was being loaded");
}

/*
 * Have the engine forget what it got of a load that will not be ended.  The
 * answer is not waited for: the slot is abandoned with it.  (While a request
 * is in flight, its being cancelled says the same.)
 */
static void
loader_abort(void)
{
	int			slot = dfx_shared->nslots;
	DfxSlot    *words = dfx_ring_words(slot);

	if (!loader_open || !dfx_slot_done(slot, loader_gen) ||
		loader_epoch_now() != loader_epoch)
		return;
	dfx_queue_fill(slot, DFX_RING_LOAD_ABORT, loader_version);
	words->in_off = words->in_len = 0;
	words->reply_off = words->reply_cap = 0;
	loader_gen = dfx_slot_submit(slot, loader_engine + 1, 0, &(uint64) {0}, 0);
}

void
dfx_loader_end(void)
{
	if (loader_owner == NULL)
		return;
	loader_owner = NULL;
	loader_abort();
	loader_open = false;
	(void) dfx_slot_let_go(dfx_shared->nslots, loader_gen);
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_shared->loader_busy = false;
	dfx_shared->loader_attempt++;
	LWLockRelease(dfx_shared->lock);
	ConditionVariableBroadcast(&dfx_shared->loader_cv);
}

/* The role ends with its owner (any, if NULL). */
void
dfx_loader_release(ResourceOwner owner)
{
	if (loader_owner != NULL && (owner == NULL || loader_owner == owner))
		dfx_loader_end();
}
