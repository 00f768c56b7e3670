/*
 * slot.c
 *	  Who owns a slot, and who gets the next one.
 *
 * A slot has a trusted half (DfxSlotCtl, in PostgreSQL's shared memory) and
 * an untrusted one (DfxSlot, in the ring, which the engine writes).  Three
 * states are stored, in the trusted half; within OWNED and ABANDONED the
 * generation words tell how far the request has come.
 *
 *          dfx_slot_claim             dfx_slot_submit
 *    FREE ----------------> OWNED, gen 0 ------------> OWNED, gen g
 *     ^                        |                        |        |
 *     |    dfx_slot_let_go     |   dfx_slot_let_go,     |        | dfx_slot_let_go,
 *     +<-----------------------+   done                 |        | not done
 *     +<------------------------------------------------+        v
 *     |                                                    ABANDONED, gen g
 *     |    dfx_slot_deliver, done                                |
 *     +<---------------------------------------------------------+
 *
 * A slot that was got without waiting is lent: OWNED and DONE it becomes FREE
 * also by slot_take_back, when others need it and its owner, who was told of
 * the answer a second ago, is kept from coming for it: by a client that does
 * not read, a lock, pg_sleep().
 *
 * OWNED with gen g, by the words in the ring:
 *
 *	  start_gen != g	QUEUED
 *	  start_gen == g	RUNNING
 *	  done_gen == g		DONE
 *
 * When an engine is dead, dfx_slot_sweep (slot_sweep.c) writes those words in
 * its place; it changes no state.
 *
 * Invariants:
 *
 *	1. Only functions of this file change state, gen or pages, under the ring lock.
 *	2. Slot and pages return to the free lists only when no engine can write to
 *	   them any more: never submitted, done, or the engine that picked it dead.
 *	3. A generation is given out once; an answer counts only for the one that
 *	   its owner waits for.
 *	4. All request words are in place before gen is set under the lock, so that
 *	   the sweep may publish a request on behalf of a submitter that has not
 *	   got there yet.
 *	5. Nobody claims past a backend in line: the first in line is the only one
 *	   that may claim, so everyone else's slots drain until its run fits.
 *	6. A backend in line holds no slot (queue.c), so those who do hold some are
 *	   not waiting for one, and the line moves.  Slots beyond the first are
 *	   lent, so it moves even if those others never go on.
 *	7. Latches are set after the lock is released.
 *
 * The loader's slot, the last one, has the same states without pages and
 * without line; loader.c gives it out.
 */
#include "postgres.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "miscadmin.h"

#include "pg/clock.h"
#include "pg/compat.h"
#include "pg/slot.h"

/* Who is to be woken once the lock is released. */
typedef struct SlotWakes
{
	int			n;
	bool		loader;
	Latch	   *latch[DFX_MAX_SLOTS + 2];	/* owners, the loader, the first in line */
} SlotWakes;

static SlotWakes slot_wakes;	/* 8 kB: too much for the stack of every call */

static SlotWakes *
slot_lock(void)
{
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	slot_wakes.n = 0;
	slot_wakes.loader = false;
	return &slot_wakes;
}

static void
slot_unlock(SlotWakes *wakes)
{
	LWLockRelease(dfx_shared->lock);
	for (int i = 0; i < wakes->n; i++)
		SetLatch(wakes->latch[i]);
	if (wakes->loader)
		ConditionVariableBroadcast(&dfx_shared->loader_cv);
}

/* The first in line may find room now. */
static void
slot_wake_line(SlotWakes *wakes)
{
	if (!dlist_is_empty(&dfx_shared->line) && dfx_shared->nfree > 0)
		wakes->latch[wakes->n++] = dlist_head_element(DfxWaiter, node, &dfx_shared->line)->latch;
}

static void
slot_free(int i, SlotWakes *wakes)
{
	DfxSlotCtl *c = &dfx_shared->slot[i];

	c->state = DFX_SLOT_FREE;
	c->gen = 0;
	c->latch = NULL;
	c->pid = 0;
	if (i == dfx_shared->nslots)
		wakes->loader = true;
	else
	{
		dfx_arena_give(&dfx_shared->arena, c->first_page, c->npages);
		c->npages = 0;
		dfx_shared->free_slot[dfx_shared->nfree++] = i;
	}
}

static void
slot_own(int i, uint32 first_page, uint32 npages, bool lent)
{
	DfxSlotCtl *c = &dfx_shared->slot[i];

	Assert(c->state == DFX_SLOT_FREE);
	c->state = DFX_SLOT_OWNED;
	c->gen = 0;
	c->notified = 0;
	c->latch = MyLatch;
	c->pid = MyProcPid;
	c->first_page = first_page;
	c->npages = npages;
	c->lent = lent;
	c->answered = 0;
}

static void
slot_leave(DfxWaiter *me, SlotWakes *wakes)
{
	if (!me->in_line)
		return;
	dlist_delete(&me->node);
	me->in_line = false;
	dfx_shared->nwaiting--;
	slot_wake_line(wakes);
}

/* How long an answer may lie in a lent slot that somebody else needs.  Whoever can come for it does so at once. */
#define SLOT_PATIENCE_MS 1000

/*
 * Take back lent slots whose owners do not come for the answers; they will ask
 * again if they still want to know.  True if there were any.
 */
static bool
slot_take_back(SlotWakes *wakes)
{
	int64		now = dfx_clock_ms();
	bool		any = false;

	for (int i = 0; i < dfx_shared->nslots; i++)
	{
		DfxSlotCtl *c = &dfx_shared->slot[i];

		if (c->state != DFX_SLOT_OWNED || !c->lent || c->answered == 0 || now - c->answered < SLOT_PATIENCE_MS)
			continue;
		pg_atomic_write_u64(&c->taken, c->gen);
		slot_free(i, wakes);
		dfx_shared->count.taken++;
		any = true;
	}
	return any;
}

/* A slot and its pages for the first in line, or anybody when there is no line; -1 when there is no room. */
static int
slot_find_room(uint32 npages, bool lent, uint64 *offset)
{
	DfxShared  *s = dfx_shared;
	uint32		page;
	int			slot;

	if (s->nfree == 0 || (page = dfx_arena_take(&s->arena, npages)) == DFX_ARENA_FULL)
		return -1;
	slot = s->free_slot[--s->nfree];
	slot_own(slot, page, npages, lent);
	*offset = dfx_layout.arena_off + (uint64) page * DFX_PAGE;
	return slot;
}

/*
 * Claim a slot and npages contiguous pages, at *offset from the start of the
 * ring.  Returns the slot, or -1 when there is no room or somebody else is
 * first in line; with wait this backend is then in line too, and has its latch
 * set when it is worth calling again.  Without wait the slot is lent.
 */
int
dfx_slot_claim(uint32 npages, bool wait, uint64 *offset)
{
	DfxShared  *s = dfx_shared;
	DfxWaiter  *me = &s->waiter[DfxMyProcIndex()];
	SlotWakes  *wakes = slot_lock();
	int			slot = -1;

	if (dlist_is_empty(&s->line) || dlist_head_element(DfxWaiter, node, &s->line) == me)
	{
		slot = slot_find_room(npages, !wait, offset);
		if (slot < 0 && slot_take_back(wakes))
			slot = slot_find_room(npages, !wait, offset);
	}
	if (slot >= 0)
		slot_leave(me, wakes);
	else if (wait && !me->in_line)
	{
		me->latch = MyLatch;
		me->in_line = true;
		dlist_push_tail(&s->line, &me->node);
		s->nwaiting++;
	}
	slot_unlock(wakes);
	return slot;
}

/* Give up waiting; harmless when not in line. */
void
dfx_slot_leave_line(void)
{
	SlotWakes  *wakes = slot_lock();

	slot_leave(&dfx_shared->waiter[DfxMyProcIndex()], wakes);
	slot_unlock(wakes);
}

/*
 * Claim the loader's slot; false while a request of the last loader is still
 * in it.  The caller holds the lock.
 */
bool
dfx_slot_claim_loader_locked(void)
{
	if (dfx_shared->slot[dfx_shared->nslots].state != DFX_SLOT_FREE)
		return false;
	slot_own(dfx_shared->nslots, 0, 0, false);
	return true;
}

/*
 * How many positions a request stands back for each one that its backend has
 * in flight already.  What a scan asks ahead of its rows then waits behind the
 * first request of everybody else, and scans side by side get the engine in
 * turns, not a window each.  It stays bounded: a position is passed by that
 * many later submissions and no more.
 */
#define SLOT_STAND_BACK 16

/* The caller holds the lock, shared at least. */
bool
dfx_slot_engine_lives_locked(int engine)
{
	return engine < dfx_nengines() && dfx_shared->engine[engine].pid != 0;
}

/* Have the engines that sleep look at the slots. */
void
dfx_slot_wake_engines(void)
{
	for (int i = dfx_nengines() - 1; i >= 0; i--)
	{
		DfxRingEngine *e = &dfx_ring->engine[i];

		if (atomic_load(&e->sleeping) != 0)
		{
			atomic_fetch_add(&e->wake, 1);
			(void) syscall(SYS_futex, &e->wake, FUTEX_WAKE, 1, NULL, NULL, 0);
		}
	}
}

/*
 * Publish the request whose words the caller has filled in, all but order,
 * the publication words, engine and solo.  engine: a number + 1 when it is for
 * that one, unless it is an image's and that one does not live; 0 for any.
 * *order is its position in the queue: 0 for a first submission, which then
 * gets one by its generation and by ahead, the number of requests that the
 * backend has in flight before it.  blame is what earlier submissions of the
 * same request got: a
 * resubmission, because its model died with the engine too, must not clear it
 * of suspicion.  Returns the generation.
 */
uint64
dfx_slot_submit(int slot, int engine, int ahead, uint64 *order, int blame)
{
	DfxSlot    *words = dfx_ring_words(slot);
	uint64		gen;

	words->solo = blame > 0;
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	gen = ++dfx_shared->next_gen;
	if (*order == 0)
		*order = gen + (uint64) ahead * SLOT_STAND_BACK;
	words->order = *order;
	if (engine != 0 && slot != dfx_shared->nslots && !dfx_slot_engine_lives_locked(engine - 1))
		engine = 0;
	words->engine = dfx_shared->slot[slot].engine = engine;
	dfx_shared->slot[slot].gen = gen;
	dfx_shared->slot[slot].blame = blame;
	dfx_shared->count.submitted++;
	LWLockRelease(dfx_shared->lock);

	/* Sequentially consistent, as is sleeping: an engine that we see awake will see the request. */
	atomic_store(&words->submit_gen, gen);
	dfx_slot_wake_engines();
	return gen;
}

/* True also makes the engine's response words and reply visible. */
bool
dfx_slot_done(int slot, uint64 gen)
{
	return atomic_load_explicit(&dfx_ring_words(slot)->done_gen, memory_order_acquire) == gen;
}

/* Was that request's slot taken back from its owner?  Then there is nothing to wait for. */
bool
dfx_slot_taken(int slot, uint64 gen)
{
	return gen != 0 && pg_atomic_read_u64(&dfx_shared->slot[slot].taken) >= gen;
}

/* Of the owner's request, which is done: nobody changes it any more. */
int
dfx_slot_blame(int slot)
{
	return dfx_shared->slot[slot].blame;
}

/*
 * The owner is through with its slot, well or badly: FREE if nothing of it is
 * with the engine (gen 0 means never submitted), else ABANDONED.  The engine
 * announces an answer after done_gen, so either this sees it done or the
 * delivery that follows sees it abandoned.
 *
 * False when the slot had been taken back: what its owner has read of the
 * answer may be something else.
 */
bool
dfx_slot_let_go(int slot, uint64 gen)
{
	SlotWakes  *wakes = slot_lock();
	DfxSlotCtl *c = &dfx_shared->slot[slot];
	bool		taken = dfx_slot_taken(slot, gen);

	if (taken)
	{
		slot_unlock(wakes);
		return false;
	}
	Assert(c->state == DFX_SLOT_OWNED && c->gen == gen && c->pid == MyProcPid);
	if (gen == 0 || dfx_slot_done(slot, gen))
	{
		slot_free(slot, wakes);
		slot_wake_line(wakes);
	}
	else
	{
		c->state = DFX_SLOT_ABANDONED;
		dfx_shared->count.abandoned++;
		atomic_store(&dfx_ring_words(slot)->cancel_gen, gen);
	}
	slot_unlock(wakes);
	return true;
}

/* Add one to a counter of dfx_shared->count. */
void
dfx_slot_count(uint64 *counter)
{
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	(*counter)++;
	LWLockRelease(dfx_shared->lock);
}

/*
 * Wake the owners of answers that are there; free abandoned slots that the
 * engine is through with.
 */
void
dfx_slot_deliver(void)
{
	SlotWakes  *wakes = slot_lock();
	bool		freed = false;

	for (int i = 0; i <= dfx_shared->nslots; i++)
	{
		DfxSlotCtl *c = &dfx_shared->slot[i];

		if (c->state == DFX_SLOT_FREE || c->gen == 0 || !dfx_slot_done(i, c->gen))
			continue;
		if (c->state == DFX_SLOT_ABANDONED)
		{
			slot_free(i, wakes);
			dfx_shared->count.reclaimed++;
			freed = true;
		}
		else if (c->notified != c->gen)
		{
			c->notified = c->gen;
			c->answered = dfx_clock_ms();
			wakes->latch[wakes->n++] = c->latch;
		}
	}
	if (freed)
		slot_wake_line(wakes);
	slot_unlock(wakes);
}

/* Count the image slots by what they are doing.  The caller holds the lock, shared at least. */
void
dfx_slot_census_locked(DfxSlotCensus *census)
{
	memset(census, 0, sizeof(*census));
	for (int i = 0; i < dfx_shared->nslots; i++)
	{
		DfxSlotCtl *c = &dfx_shared->slot[i];

		if (c->state == DFX_SLOT_FREE)
			census->free++;
		else if (c->state == DFX_SLOT_ABANDONED)
			census->abandoned++;
		else if (c->gen == 0)
			census->claimed++;
		else if (dfx_slot_done(i, c->gen))
			census->done++;
		else if (atomic_load(&dfx_ring_words(i)->start_gen) == c->gen)
			census->running++;
		else
			census->queued++;
	}
}
