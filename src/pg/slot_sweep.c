/*
 * slot_sweep.c
 *	  What becomes of requests whose engine is dead.
 *
 * The sweep stands in for an engine that will not write to the ring any more,
 * and so it writes the words that the engine would have written (slot.c draws
 * what they mean); who owns a slot is none of its business.  QUEUED stays.
 * RUNNING becomes QUEUED, to run alone, or DONE with DFX_ECRASH when it has had
 * enough blame.  What is ABANDONED becomes done, and so FREE.  Where no engine
 * will come soon, all is answered with the reason.
 *
 * Where several engines take from the slots (proto.h), it does so for what the
 * dead one had picked, and leaves to the living what they have or can have.
 */
#include "postgres.h"

#include "pg/slot.h"

/* Answer a request in place of the engine, which is dead. */
static void
sweep_answer(int i, DfxStatus status, const char *msg)
{
	DfxSlot    *words = dfx_ring_words(i);

	words->status = status;
	words->batch = 0;
	words->reply_len = 0;
	strlcpy(words->msg, msg, sizeof(words->msg));
	words->hint[0] = '\0';
	atomic_store_explicit(&words->done_gen, dfx_shared->slot[i].gen, memory_order_release);
}

/*
 * What a request is blamed for when an engine dies on it, and how much is too
 * much.  An engine that crashes, hangs or exits was brought to it by one of
 * the requests it ran; each of them runs alone after that, and the next crash
 * is the doing of the one that runs.  One that is killed from outside was
 * mostly just in somebody's way, whatever it ran.  But that somebody may be the
 * kernel, short of the memory that a request took, so even this cannot go on
 * for ever.
 */
#define SWEEP_BLAME_CRASH 3
#define SWEEP_BLAME_KILL 1
#define SWEEP_BLAME_ENOUGH 6

static bool
sweep_is_guilty(DfxSlotCtl *c, const DfxSweep *how)
{
	c->blame += how->killed ? SWEEP_BLAME_KILL : SWEEP_BLAME_CRASH;
	return c->blame >= SWEEP_BLAME_ENOUGH;
}

/* One OWNED slot of a dead engine that has not answered it. */
static void
sweep_owned(int i, bool started, const DfxSweep *how)
{
	DfxSlotCtl *c = &dfx_shared->slot[i];
	DfxSlot    *words = dfx_ring_words(i);

	if (i == dfx_shared->nslots)
	{
		/*
		 * What had been loaded so far died with the engine.  The loader begins
		 * anew, and knows when to stop.
		 */
		sweep_answer(i, DFX_EUNAVAILABLE, how->unavailable ? how->unavailable :
					 "the engine was replaced while a model was being loaded");
		return;
	}
	if (started && how->crash != NULL && sweep_is_guilty(c, how))
	{
		char		msg[DFX_MSG_LEN];

		snprintf(msg, sizeof(msg), "the engine %s on this request (%s)",
				 how->killed ? "was killed again and again" : "died twice", how->crash);
		sweep_answer(i, DFX_ECRASH, msg);
		dfx_shared->count.crashed++;
		return;
	}
	if (how->unavailable != NULL)
	{
		sweep_answer(i, DFX_EUNAVAILABLE, how->unavailable);
		return;
	}
	if (started && how->crash != NULL)
	{
		words->solo = 1;
		dfx_shared->count.retried++;
	}
	atomic_store(&words->start_gen, 0);
	words->engine = c->engine;	/* the dead one may have written over it, and over submit_gen */
	atomic_store(&words->submit_gen, c->gen);
	atomic_store(&words->picked, dfx_picked(c->gen, 0));
}

/* Whose the request in slot i is: that of who has picked it, or of who may; a number + 1, or 0 for anybody's. */
static int
sweep_whose(int i)
{
	int			picker = (int) dfx_picked_by(atomic_load(&dfx_ring_words(i)->picked), dfx_shared->slot[i].gen);

	return picker != 0 ? picker : dfx_shared->slot[i].engine;
}

/* Is the request in slot i a living engine's business, although this one is dead? */
static bool
sweep_is_elsewhere(int i, int dead)
{
	int			whose = sweep_whose(i);

	if (whose != 0)
		return whose != dead + 1 && dfx_slot_engine_lives_locked(whose - 1);
	for (int k = dfx_nengines() - 1; k >= 0; k--)
		if (dfx_slot_engine_lives_locked(k))
			return true;
	return false;
}

/*
 * Stand in for an engine that does not exist any more, or not yet.  Only to
 * be called when no process can write to the ring for it, and its pid in shared
 * memory is 0.  Returns how many of its requests were running.
 */
int
dfx_slot_sweep(int engine, const DfxSweep *how)
{
	int			running = 0;

	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i <= dfx_shared->nslots; i++)
	{
		DfxSlotCtl *c = &dfx_shared->slot[i];
		bool		started;

		if (c->state == DFX_SLOT_FREE || c->gen == 0 || dfx_slot_done(i, c->gen))
			continue;
		if (c->engine == engine + 1 && i != dfx_shared->nslots)
			dfx_ring_words(i)->engine = c->engine = 0;	/* others can do it too */
		if (sweep_is_elsewhere(i, engine))
			continue;
		started = atomic_load(&dfx_ring_words(i)->start_gen) == c->gen;
		running += started;
		if (c->state == DFX_SLOT_ABANDONED)
			sweep_answer(i, DFX_ECANCELED, "");
		else
			sweep_owned(i, started, how);
	}
	LWLockRelease(dfx_shared->lock);
	dfx_slot_deliver();			/* frees the abandoned, wakes the answered */
	dfx_slot_wake_engines();	/* others may take what is queued again */
	return running;
}

/* Requests that the engine owes an answer: those that it has picked, and those that it could pick. */
int
dfx_slot_in_flight(int engine)
{
	int			n = 0;

	LWLockAcquire(dfx_shared->lock, LW_SHARED);
	for (int i = 0; i <= dfx_shared->nslots; i++)
	{
		DfxSlotCtl *c = &dfx_shared->slot[i];
		int			whose = sweep_whose(i);

		n += c->state != DFX_SLOT_FREE && c->gen != 0 && !dfx_slot_done(i, c->gen) &&
			(whose == 0 || whose == engine + 1);
	}
	LWLockRelease(dfx_shared->lock);
	return n;
}
