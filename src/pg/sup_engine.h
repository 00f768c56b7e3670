/*
 * sup_engine.h
 *	  One engine, as the supervisor sees it (sup_engine.c), and all of them.
 */
#ifndef DFX_PG_SUP_ENGINE_H
#define DFX_PG_SUP_ENGINE_H

#include "pg/shmem.h"
#include "pg/spawn.h"

#define DFX_SUP_PAUSE_MIN_MS 50

typedef struct DfxSupEngine
{
	int			number;
	DfxEngineCtl *ctl;			/* what everybody may know of it */
	pid_t		pid;			/* 0: no engine */
	int			control;		/* our end of its socket */
	int64		ready_at;		/* 0: not ready yet; this and the others by dfx_clock_ms() */
	int64		next_start;
	int			pause;			/* ms before the next start, should one be due */
	int			failed_starts;	/* in a row */
	bool		refused;		/* the engine said 'F' */
	char		reason[DFX_REASON_LEN]; /* from 'F' or the watchdog; "" if neither */
	char		logged[DFX_REASON_LEN]; /* the failure logged last */
	uint64		progress;		/* of the ring's statistics, when it moved last */
	int64		progress_at;
} DfxSupEngine;

/* The supervisor's own; other processes have it without meaning. */
typedef struct DfxSup
{
	DfxSpawnOptions options;
	DfxSupEngine engine[DFX_MAX_ENGINES];	/* options.engines of them */
	WaitEventSet *events;		/* the latch and the engines' sockets; NULL: to be made anew */
} DfxSup;

extern DfxSup dfx_sup;

/* Set an engine's state, and with it that of all together. */
extern void dfx_sup_set_state(DfxSupEngine *e, DfxEngineState state);
extern bool dfx_sup_has_failed(const DfxSupEngine *e);
extern void dfx_sup_set_error(const DfxSupEngine *e, const char *text);

/* Start one where there is none. */
extern void dfx_sup_start(DfxSupEngine *e);

/*
 * The engine has ended, or is made to after grace_ms.  When this returns it
 * does not write to the ring any more.  True when it was ended by somebody else.
 */
extern bool dfx_sup_reap(DfxSupEngine *e, int grace_ms, char *how);

/* Act for an engine that is not there. */
extern void dfx_sup_stand_in(DfxSupEngine *e);

/* Take what the engine has to say; false when its end of the socket is closed. */
extern bool dfx_sup_listen(DfxSupEngine *e);

/* The engine ended without having been asked to. */
extern void dfx_sup_died(DfxSupEngine *e);

/*
 * Kill an engine that owes answers (or its readiness) and makes no progress.
 * Its death is then seen at the socket.
 */
extern void dfx_sup_watch(DfxSupEngine *e);

#endif							/* DFX_PG_SUP_ENGINE_H */
