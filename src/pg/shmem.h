/*
 * shmem.h
 *	  The trusted side of the ring: what only PostgreSQL's processes can write.
 *
 * One LWLock, DfxShared.lock, guards everything below unless a field says
 * otherwise.  Sections are short: no palloc, no ereport, no wait and no
 * SetLatch inside (latches are collected and set after the release).
 */
#ifndef DFX_PG_SHMEM_H
#define DFX_PG_SHMEM_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/ilist.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "base/training.h"
#include "engine/proto.h"
#include "pg/arena.h"

/* slot.c draws the state machine. */
typedef enum DfxSlotState
{
	DFX_SLOT_FREE = 0,
	DFX_SLOT_OWNED,
	DFX_SLOT_ABANDONED
} DfxSlotState;

typedef struct DfxSlotCtl
{
	DfxSlotState state;
	int			blame;			/* for engines that died while they ran this request (slot_sweep.c) */
	uint64		gen;			/* 0: claimed, not submitted */
	uint64		notified;		/* generation whose owner has been woken */
	int			engine;			/* that the request is for: a number + 1, or 0 for any */
	Latch	   *latch;			/* the owner's; a PGPROC's, so it never dangles */
	int			pid;			/* the owner's */
	uint32		first_page;		/* of the arena */
	uint32		npages;
	bool		lent;			/* got without waiting: may be taken back once it is answered ... */
	int64		answered;		/* ... which the owner was told then, by dfx_clock_ms(); 0: not yet */
	pg_atomic_uint64 taken;		/* the last generation taken back; read without the lock */
} DfxSlotCtl;

#define DFX_REASON_LEN 256
#define DFX_REASONS_LEN (DFX_MAX_ENGINES * (DFX_REASON_LEN + sizeof("engine 0: ; ")))	/* of all engines */

/* A backend in line for its first slot; one entry for each possible backend. */
typedef struct DfxWaiter
{
	dlist_node	node;
	Latch	   *latch;
	bool		in_line;		/* written by its backend only, under the lock */
} DfxWaiter;

typedef enum DfxEngineState
{
	DFX_ENGINE_DOWN = 0,		/* none; another one will be started soon */
	DFX_ENGINE_STARTING,
	DFX_ENGINE_READY,
	DFX_ENGINE_FAILED			/* cannot be started; still tried now and then */
} DfxEngineState;

/*
 * One engine, by its number: the place of its device in dfx.device.  Written
 * by the supervisor only, which is also how the lock is not needed for some:
 *
 * state and epoch are atomics read without the lock: each is looked at
 * alone, and a stale value costs a caller one more look (it waits at most
 * 1 s at a time).  epoch moves before an engine starts, while its predecessor
 * is gone, so that an answer of the new engine implies the new epoch.
 */
typedef struct DfxEngineCtl
{
	pg_atomic_uint32 state;		/* DfxEngineState */
	pg_atomic_uint64 epoch;		/* engines of this number started since the server did */
	int			pid;			/* 0: none */
	TimestampTz started;		/* 0: never */
	uint64		restarts;		/* engines that ended unasked */
	char		last_error[DFX_REASON_LEN]; /* why the last one ended or failed; printable ASCII */
} DfxEngineCtl;

typedef struct DfxCounters
{
	uint64		submitted;		/* requests, resubmissions included */
	uint64		retried;		/* alone, after an engine died on them */
	uint64		crashed;		/* given up, because engines kept dying on them */
	uint64		abandoned;		/* given up by their backend in flight */
	uint64		reclaimed;		/* abandoned slots that became free again */
	uint64		taken;			/* back from owners that did not come for the answer */
	uint64		timeouts;		/* dfx.request_timeout */
	uint64		full;			/* dfx.queue_timeout */
} DfxCounters;

/* What a session that trains shows of it. */
typedef struct DfxTrainShow
{
	bool		reading;		/* its samples, still */
	TimestampTz updated;
	uint64		samples;		/* read so far */
	uint64		errors;			/* of them, not usable */
	DfxTrainProgress progress;
} DfxTrainShow;

/* A training run that a session is busy with: one entry for each possible backend. */
typedef struct DfxTrainLive
{
	/* under the lock; run is 0 when the backend trains nothing */
	int			pid;
	Oid			database;
	Oid			role;			/* the user's */
	int64		run;

	/*
	 * Without the lock: its backend writes, and makes changes odd meanwhile;
	 * readers copy, and copy again when changes was odd or moved.
	 */
	pg_atomic_uint32 changes;
	DfxTrainShow show;
} DfxTrainLive;

typedef struct DfxShared
{
	/* ---- constant after initialisation: read without the lock ---- */
	LWLock	   *lock;
	int			nslots;			/* without the loader's, which is slot[nslots] */
	DfxSlotCtl *slot;
	DfxWaiter  *waiter;			/* by DfxMyProcIndex() */
	DfxTrainLive *train;		/* by DfxMyProcIndex() too (train_live.c) */
	int			ntrain;
	int		   *free_slot;		/* stack of nfree slot numbers */

	/* ---- slots and arena (slot.c) ---- */
	uint64		next_gen;		/* the last generation given out */
	int			nfree;
	DfxArena	arena;
	dlist_head	line;			/* backends waiting for their first slot, oldest first */
	int			nwaiting;
	DfxCounters count;

	/* ---- the loader (loader.c) ---- */
	ConditionVariable loader_cv;	/* has its own lock; broadcast when the loader ends,
								 * when its slot frees, and when an engine is ready */
	bool		loader_busy;
	uint64		loader_attempt; /* which load this is; moves when one ends */
	int			loader_engine;	/* which engine's */
	uint8		loader_version[DFX_VERSION_LEN];

	/* ---- the engines, written by the supervisor only ---- */
	pg_atomic_uint32 state;		/* of all together: READY if one is, FAILED if all are */
	pg_atomic_uint32 nengines;	/* devices of dfx.device, at least 1 */
	DfxEngineCtl engine[DFX_MAX_ENGINES];	/* that of number 0 also has what concerns none or all */
	int			supervisor_pid; /* 0: none, and so no engine will come */
	int64		supervisor_missed;	/* when a backend first found none, by dfx_clock_ms(); 0: not since it went */
} DfxShared;

/* NULL when the library was not preloaded. */
extern DfxShared *dfx_shared;

/*
 * The ring's mapping and descriptor, and where its parts are.  Inherited from
 * the postmaster by fork: what the engine writes into the ring's header can
 * change none of it.  dfx_ring is NULL when the ring could not be made, and
 * dfx_ring_reason then says why.
 */
typedef struct DfxLayout
{
	Size		slots_off;
	Size		arena_off;
	Size		arena_bytes;
	Size		loader_off;
	Size		total;
} DfxLayout;

extern DfxRing *dfx_ring;
extern int	dfx_ring_fd;
extern DfxLayout dfx_layout;
extern char dfx_ring_reason[DFX_REASON_LEN];

extern void dfx_shmem_init(void);
extern void dfx_ring_format(int engine);
extern void dfx_engines_reason(char *reason, Size size);

static inline int
dfx_nengines(void)
{
	return (int) pg_atomic_read_u32(&dfx_shared->nengines);
}

static inline DfxEngineState
dfx_engine_state(int engine)
{
	return (DfxEngineState) pg_atomic_read_u32(&dfx_shared->engine[engine].state);
}

/* The ring's part of slot i; unlike dfx_ring_slot() it believes nothing in the ring. */
static inline DfxSlot *
dfx_ring_words(int i)
{
	return (DfxSlot *) ((char *) dfx_ring + dfx_layout.slots_off + (Size) i * DFX_SLOT_STRIDE);
}

#endif							/* DFX_PG_SHMEM_H */
