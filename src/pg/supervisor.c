/*
 * supervisor.c
 *	  The background worker that keeps the engines alive, one for each device.
 *
 * It starts an engine (sup_engine.c), wakes backends when the engine has
 * answers, and acts in the engine's place when there is none (dfx_slot_sweep).
 * It owns the engine processes: no sweep happens before waitpid() has returned
 * the process, and the supervisor does not end before all engines have.
 *
 * It always exits with 1: 0 would tell the postmaster never to start it again.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/prctl.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/guc.h"

#include "pg/clock.h"
#include "pg/compat.h"
#include "pg/preload.h"
#include "pg/settings.h"
#include "pg/slot.h"
#include "pg/sup_engine.h"
#include "pg/supervisor.h"
#include "pg/wait_event.h"

#define SUP_TICK_MS 1000
#define SUP_TERM_GRACE_MS 500	/* between SIGTERM and SIGKILL */

/* End the engines because we want it to; their requests go on with the next ones.  Returns how many there were. */
static int
sup_stop(void)
{
	const DfxSweep sweep = {0};
	char		how[DFX_REASON_LEN];
	int			n = 0;

	for (int i = 0; i < dfx_sup.options.engines; i++)
		if (dfx_sup.engine[i].pid != 0)
			kill(dfx_sup.engine[i].pid, SIGTERM);
	for (int i = 0; i < dfx_sup.options.engines; i++)
	{
		DfxSupEngine *e = &dfx_sup.engine[i];

		n += e->pid != 0;
		if (e->pid != 0)
			(void) dfx_sup_reap(e, SUP_TERM_GRACE_MS, how);
		if (!dfx_sup_has_failed(e))
			dfx_sup_set_state(e, DFX_ENGINE_DOWN);
	}
	dfx_slot_sweep(0, &sweep);	/* with none alive, of all of them */
	return n;
}

/* Wait for the latch and for what engines have to say, at most so long. */
static int
sup_wait(int64 timeout, WaitEvent *event, int nevents)
{
	if (dfx_sup.events == NULL)
	{
		dfx_sup.events = DfxCreateWaitEventSet(2 + DFX_MAX_ENGINES);
		AddWaitEventToSet(dfx_sup.events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(dfx_sup.events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		for (int i = 0; i < dfx_sup.options.engines; i++)
			if (dfx_sup.engine[i].pid != 0)
				AddWaitEventToSet(dfx_sup.events, WL_SOCKET_READABLE, dfx_sup.engine[i].control, NULL, &dfx_sup.engine[i]);
	}
	return WaitEventSetWait(dfx_sup.events, timeout, event, nevents, dfx_wait_event(DFX_WAIT_SUPERVISOR));
}

/* An engine that is not there: start one if it is time, else answer for it.  Returns the ms until it is time. */
static int64
sup_idle(DfxSupEngine *e)
{
	if (e->next_start <= dfx_clock_ms())
		dfx_sup_start(e);
	else
		dfx_sup_stand_in(e);
	return e->pid != 0 ? SUP_TICK_MS : dfx_clock_left(e->next_start);
}

static void
sup_turn(void)
{
	static int64 last_tick = 0;
	WaitEvent	event[2 + DFX_MAX_ENGINES];
	int			tick = SUP_TICK_MS;
	int64		wait;
	int			n;

	if (dfx_engine_timeout != 0)
		tick = Max(1, Min(tick, dfx_engine_timeout / 4));
	wait = tick;
	for (int i = 0; i < dfx_sup.options.engines; i++)
		if (dfx_sup.engine[i].pid == 0)
		{
			int64		left = sup_idle(&dfx_sup.engine[i]);

			wait = Min(wait, left);
		}
	n = sup_wait(wait, event, lengthof(event));
	for (int i = 0; i < n; i++)
	{
		DfxSupEngine *e = event[i].user_data;

		if (event[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if ((event[i].events & WL_SOCKET_READABLE) && !dfx_sup_listen(e))
			dfx_sup_died(e);
	}
	dfx_preload_turn();
	if (dfx_clock_ms() - last_tick < tick)
		return;
	last_tick = dfx_clock_ms();
	for (int i = 0; i < dfx_sup.options.engines; i++)
		if (dfx_sup.engine[i].pid != 0)
			dfx_sup_watch(&dfx_sup.engine[i]);
	dfx_slot_deliver();			/* should a message have been lost */
}

static void
sup_load_options(void)
{
	dfx_spawn_options(&dfx_sup.options);
	if (dfx_sup.options.max_batch < dfx_max_batch)
		ereport(WARNING,
				(errmsg("dfx.max_batch is %d here, not %d: dfx.queue_slots is %d",
						dfx_sup.options.max_batch, dfx_max_batch, dfx_queue_slots),
				 errhint("Set dfx.queue_slots to at least twice dfx.max_batch%s.",
						 dfx_sup.options.engines > 1 ? " for each device" : "")));
	pg_atomic_write_u32(&dfx_shared->nengines, dfx_sup.options.engines);
	for (int i = 0; i < dfx_sup.options.engines; i++)
	{
		DfxSupEngine *e = &dfx_sup.engine[i];

		e->pause = DFX_SUP_PAUSE_MIN_MS;
		e->next_start = 0;
		e->failed_starts = 0;
		dfx_sup_set_state(e, DFX_ENGINE_DOWN);
	}
	/* Of a longer list: nobody shall wait for those. */
	for (int i = dfx_sup.options.engines; i < DFX_MAX_ENGINES; i++)
		pg_atomic_write_u32(&dfx_shared->engine[i].state, DFX_ENGINE_FAILED);
}

static bool
sup_is_engine(pid_t pid)
{
	for (int i = 0; i < dfx_sup.options.engines; i++)
		if (dfx_sup.engine[i].pid == pid)
			return true;
	return false;
}

static void
sup_reload(void)
{
	DfxSpawnOptions options;

	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	dfx_preload_reload();
	dfx_spawn_options(&options);
	for (int i = 0; i < dfx_sup.options.engines; i++)
		dfx_sup.engine[i].next_start = 0;	/* whatever was wrong may have been put right */
	if (memcmp(&options, &dfx_sup.options, sizeof(options)) == 0)
		return;
	if (sup_stop() > 0)
		ereport(LOG, (errmsg("dfx engine is restarted, because its settings have changed")));
	sup_load_options();
}

/* Backends do not wait long for an engine that nobody will start. */
static void
sup_leave(int code, Datum arg)
{
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_shared->supervisor_pid = 0;
	dfx_shared->supervisor_missed = 0;
	LWLockRelease(dfx_shared->lock);
}

static void
sup_enter(void)
{
	before_shmem_exit(sup_leave, 0);
	dfx_sup.options.engines = 1;
	for (int i = 0; i < DFX_MAX_ENGINES; i++)
	{
		dfx_sup.engine[i].number = i;
		dfx_sup.engine[i].ctl = &dfx_shared->engine[i];
	}
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_shared->supervisor_pid = MyProcPid;
	if (pg_atomic_read_u64(&dfx_shared->engine[0].epoch) == 0)
		dfx_shared->engine[0].last_error[0] = '\0';	/* which was that there is no supervisor */
	LWLockRelease(dfx_shared->lock);
}

/*
 * However the supervisor ends, its engines end first: a postmaster that is
 * process 1 would inherit them, and take their death for a backend's crash.
 */
static void
sup_exit(int code, Datum arg)
{
	(void) sup_stop();
}

/* Without a ring there is nothing to supervise until the server restarts. */
static void
sup_without_ring(void)
{
	dfx_sup_set_error(&dfx_sup.engine[0], dfx_ring_reason);
	dfx_sup_set_state(&dfx_sup.engine[0], DFX_ENGINE_FAILED);
	while (!ShutdownRequestPending)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0,
						 dfx_wait_event(DFX_WAIT_SUPERVISOR));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

void
dfx_supervisor_main(Datum arg)
{
	const DfxSweep sweep = {0};

	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGINT, SIG_IGN);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);	/* to be seen in pg_stat_activity */
	sup_enter();

	if (dfx_ring == NULL)
	{
		sup_without_ring();
		proc_exit(1);
	}
	(void) prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);	/* for dfx_engine_reap_orphans() */
	while (!dfx_engine_ring_is_free() && !ShutdownRequestPending)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10,
						 dfx_wait_event(DFX_WAIT_SUPERVISOR));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (ShutdownRequestPending)
		proc_exit(1);
	before_shmem_exit(sup_exit, 0);
	dfx_slot_sweep(0, &sweep);
	sup_load_options();

	while (!ShutdownRequestPending)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
			sup_reload();
		sup_turn();
		dfx_engine_reap_orphans(sup_is_engine);
	}
	proc_exit(1);
}

/* Called from _PG_init() when preloading. */
void
dfx_supervisor_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "deepfeaturex", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "dfx_supervisor_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "deepfeaturex supervisor", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "deepfeaturex supervisor", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}
