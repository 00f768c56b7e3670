/*
 * supervisor.c
 *	  The background worker that keeps one engine alive.
 *
 * It starts the engine, wakes backends when the engine has answers, and acts
 * in the engine's place when there is none (dfx_slot_sweep).  It owns the
 * engine process: no sweep happens before waitpid() has returned it, and the
 * supervisor does not end before the engine has.
 *
 *    DOWN --start--> STARTING --'R'--> READY --death--> DOWN
 *                       |
 *                       +-- 'F', or the fifth failure in a row --> FAILED
 *    FAILED --start, 'R'--> READY      (it stays FAILED while it tries)
 *
 * Delays.  Starts that fail, and crashes that no single request explains, are
 * followed by a pause that doubles from 50 ms to 5 s and returns to 50 ms
 * after a minute of health.  A crash with exactly one request running is that
 * request's doing: it is not paused for, so that somebody's poisoned image
 * does not slow down everybody else.
 *
 * It always exits with 1: 0 would tell the postmaster never to start it again.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "pg/clock.h"
#include "pg/compat.h"
#include "pg/preload.h"
#include "pg/reply.h"
#include "pg/settings.h"
#include "pg/slot.h"
#include "pg/spawn.h"
#include "pg/supervisor.h"
#include "pg/wait_event.h"

#define SUP_TICK_MS 1000
#define SUP_PAUSE_MIN_MS 50
#define SUP_PAUSE_MAX_MS 5000
#define SUP_HEALTHY_MS 60000
#define SUP_MAX_FAILED_STARTS 5
#define SUP_TERM_GRACE_MS 500	/* between SIGTERM and SIGKILL */
#define SUP_EXIT_GRACE_MS 1000	/* between the end of the socket and SIGKILL */
#define SUP_MESSAGE_MAX 1024
#define SUP_MESSAGES_A_TURN 256 /* so that a talkative engine cannot keep us from the rest */

static struct
{
	pid_t		pid;			/* 0: no engine */
	int			control;
	WaitEventSet *events;
	DfxSpawnOptions options;
	int64		ready_at;		/* 0: not ready yet; this and the others by dfx_clock_ms() */
	int64		next_start;
	int			pause;			/* ms before the next start, should one be due */
	int			failed_starts;	/* in a row */
	bool		refused;		/* the engine said 'F' */
	char		reason[DFX_REASON_LEN]; /* from 'F' or the watchdog; "" if neither */
	char		logged[DFX_REASON_LEN]; /* the failure logged last */
	uint64		progress;		/* of the ring's statistics, when it moved last */
	int64		progress_at;
}			sup;

static void
sup_set_state(DfxEngineState state)
{
	pg_atomic_write_u32(&dfx_shared->state, state);
}

static bool
sup_has_failed(void)
{
	return pg_atomic_read_u32(&dfx_shared->state) == DFX_ENGINE_FAILED;
}

static void
sup_set_error(const char *text)
{
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_clean_text(dfx_shared->last_error, DFX_REASON_LEN, text, DFX_REASON_LEN);
	LWLockRelease(dfx_shared->lock);
}

/* Schedule the next start after a pause, and make the one after it longer. */
static void
sup_pause(void)
{
	sup.next_start = dfx_clock_ms() + sup.pause;
	sup.pause = Min(sup.pause * 2, SUP_PAUSE_MAX_MS);
}

/*
 * The engine has ended, or is made to after grace_ms.  When this returns
 * nobody writes to the ring any more.  True when it was ended by somebody else.
 */
static bool
sup_reap(int grace_ms, char *how)
{
	bool		killed = dfx_engine_reap(sup.pid, grace_ms, how, DFX_REASON_LEN);

	if (sup.events != NULL)		/* NULL when making it raised */
		FreeWaitEventSet(sup.events);
	sup.events = NULL;
	close(sup.control);
	sup.control = -1;
	sup.pid = 0;
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_shared->engine_pid = 0;
	LWLockRelease(dfx_shared->lock);
	return killed;
}

/* End the engine because we want it to; its requests go on with the next one. */
static void
sup_stop(void)
{
	const DfxSweep sweep = {0};
	char		how[DFX_REASON_LEN];

	if (sup.pid != 0)
	{
		kill(sup.pid, SIGTERM);
		(void) sup_reap(SUP_TERM_GRACE_MS, how);
	}
	dfx_slot_sweep(&sweep);
}

/* A start that came to nothing. */
static void
sup_start_failed(const char *reason)
{
	DfxSweep	sweep = {0};
	bool		news = strcmp(reason, sup.logged) != 0;

	sup.failed_starts++;
	sup_set_error(reason);
	if (sup.refused || sup.failed_starts >= SUP_MAX_FAILED_STARTS)
		sup_set_state(DFX_ENGINE_FAILED);
	else if (!sup_has_failed())
		sup_set_state(DFX_ENGINE_DOWN);
	ereport(news ? LOG : DEBUG1,
			(errmsg("dfx engine cannot be started: %s", reason)));
	strlcpy(sup.logged, reason, sizeof(sup.logged));

	if (sup_has_failed())
		sweep.unavailable = reason;
	dfx_slot_sweep(&sweep);
	sup_pause();
}

static void
sup_start(void)
{
	char		why[DFX_REASON_LEN];

	/* No engine exists: the ring is ours, and the epoch can move. */
	dfx_ring_format();
	pg_atomic_write_u64(&dfx_shared->epoch, pg_atomic_read_u64(&dfx_shared->epoch) + 1);
	sup.refused = false;
	sup.reason[0] = '\0';
	sup.ready_at = 0;
	sup.progress = 0;
	sup.progress_at = dfx_clock_ms();
	if (!sup_has_failed())
		sup_set_state(DFX_ENGINE_STARTING);

	sup.pid = dfx_engine_spawn(&sup.options, &sup.control, why, sizeof(why));
	if (sup.pid < 0)
	{
		sup.pid = 0;
		sup.refused = true;		/* nothing that trying again at once would mend */
		sup_start_failed(why);
		return;
	}
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_shared->engine_pid = sup.pid;
	dfx_shared->engine_started = GetCurrentTimestamp();
	LWLockRelease(dfx_shared->lock);

	sup.events = DfxCreateWaitEventSet(3);
	AddWaitEventToSet(sup.events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(sup.events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(sup.events, WL_SOCKET_READABLE, sup.control, NULL, NULL);
}

static void
sup_ready(void)
{
	char		device[sizeof(dfx_ring->device)];

	if (sup.ready_at != 0)
		return;
	dfx_clean_text(device, sizeof(device), dfx_ring->device, sizeof(dfx_ring->device));
	ereport(LOG,
			(errmsg("dfx engine is ready on %s (PID %d)", device, (int) sup.pid)));
	sup.ready_at = dfx_clock_ms();
	sup.failed_starts = 0;
	sup.logged[0] = '\0';
	sup_set_state(DFX_ENGINE_READY);
	dfx_preload_engine_ready();
	ConditionVariableBroadcast(&dfx_shared->loader_cv);
}

/* The engine ended without having been asked to. */
static void
sup_engine_died(void)
{
	char		how[DFX_REASON_LEN];
	DfxSweep	sweep = {.crash = how};
	int			pid = sup.pid;
	int			running;
	bool		healthy;

	sweep.killed = sup_reap(SUP_EXIT_GRACE_MS, how);
	if (sup.reason[0] != '\0')
	{
		sweep.killed = false;	/* if it was the watchdog, it had to be */
		strlcpy(how, sup.reason, sizeof(how));
	}
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_shared->restarts++;
	LWLockRelease(dfx_shared->lock);
	if (sup.ready_at == 0)
	{
		sup_start_failed(how);
		return;
	}

	sup_set_state(DFX_ENGINE_DOWN);
	sup_set_error(how);
	running = dfx_slot_sweep(&sweep);
	healthy = dfx_clock_ms() - sup.ready_at >= SUP_HEALTHY_MS;
	dfx_preload_engine_died(healthy);
	if (running == 1 || healthy)
		sup.pause = SUP_PAUSE_MIN_MS;
	if (running == 1)
		sup.next_start = 0;
	else
		sup_pause();
	ereport(LOG,
			(errmsg("dfx engine (PID %d) died: %s", pid, how),
			 errdetail_plural("%d request was running.",
							  "%d requests were running.", running, running)));
}

/* A log line: level, then text. */
static void
sup_log_line(const char *line, Size len)
{
	char		text[SUP_MESSAGE_MAX];
	int			level = LOG;

	if (len == 0)
		return;
	dfx_clean_text(text, sizeof(text), line + 1, len - 1);
	if (line[0] == 'D')
		level = DEBUG1;
	else if (line[0] == 'W' || line[0] == 'E')
		level = WARNING;
	ereport(level, (errmsg("dfx engine: %s", text)));
}

/* Take what the engine has to say; false when its end of the socket is closed. */
static bool
sup_listen(void)
{
	bool		done = false;
	bool		open = true;

	for (int i = 0; i < SUP_MESSAGES_A_TURN; i++)
	{
		char		message[SUP_MESSAGE_MAX];
		ssize_t		n = recv(sup.control, message, sizeof(message), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			open = n < 0 && errno == EAGAIN;
			break;
		}
		switch (message[0])
		{
			case 'R':
				sup_ready();
				break;
			case 'D':
				done = true;
				break;
			case 'L':
				sup_log_line(message + 1, n - 1);
				break;
			case 'F':
				sup.refused = true;
				dfx_clean_text(sup.reason, sizeof(sup.reason), message + 1, n - 1);
				break;
			default:
				elog(LOG, "dfx engine sent a message of unknown kind %d",
					 (unsigned char) message[0]);
		}
	}
	if (done)
		dfx_slot_deliver();
	return open;
}

/*
 * Kill an engine that owes answers (or its readiness) and makes no progress.
 * Its death is then seen at the socket.
 */
static void
sup_watch(void)
{
	int64		now = dfx_clock_ms();
	uint64		progress = atomic_load(&dfx_ring->stats.progress);
	bool		owes = sup.ready_at == 0 || dfx_slot_in_flight() > 0;

	if (!owes || progress != sup.progress || dfx_engine_timeout == 0)
	{
		sup.progress = progress;
		sup.progress_at = now;
		return;
	}
	if (sup.reason[0] != '\0' || now - sup.progress_at < dfx_engine_timeout)
		return;
	snprintf(sup.reason, sizeof(sup.reason), "made no progress for %d ms", dfx_engine_timeout);
	kill(sup.pid, SIGKILL);
}

/* One turn with an engine. */
static void
sup_serve(void)
{
	static int64 last_tick = 0;
	int64		now;
	WaitEvent	event[3];
	int			tick = SUP_TICK_MS;
	int			n;

	if (dfx_engine_timeout != 0)
		tick = Max(1, Min(tick, dfx_engine_timeout / 4));
	n = WaitEventSetWait(sup.events, tick, event, lengthof(event),
						 dfx_wait_event(DFX_WAIT_SUPERVISOR));
	for (int i = 0; i < n; i++)
	{
		if (event[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if ((event[i].events & WL_SOCKET_READABLE) && !sup_listen())
		{
			sup_engine_died();
			return;
		}
	}
	dfx_preload_turn();
	now = dfx_clock_ms();
	if (now - last_tick >= tick)
	{
		last_tick = now;
		sup_watch();
		dfx_slot_deliver();		/* should a message have been lost */
	}
}

/* One turn without an engine: start one if it is time, else answer for it. */
static void
sup_idle(void)
{
	char		reason[DFX_REASON_LEN];
	DfxSweep	sweep = {0};
	int64		left = sup.next_start - dfx_clock_ms();

	if (left <= 0)
	{
		sup_start();
		return;
	}
	if (sup_has_failed())
	{
		strlcpy(reason, dfx_shared->last_error, sizeof(reason));	/* only we write it */
		sweep.unavailable = reason;
	}
	dfx_slot_sweep(&sweep);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(left, SUP_TICK_MS), dfx_wait_event(DFX_WAIT_SUPERVISOR));
	ResetLatch(MyLatch);
}

static void
sup_load_options(void)
{
	dfx_spawn_options(&sup.options);
	if (sup.options.max_batch < dfx_max_batch)
		ereport(WARNING,
				(errmsg("dfx.max_batch is %d here, not %d: dfx.queue_slots is %d",
						sup.options.max_batch, dfx_max_batch, dfx_queue_slots),
				 errhint("Set dfx.queue_slots to at least twice dfx.max_batch.")));
	sup.pause = SUP_PAUSE_MIN_MS;
	sup.next_start = 0;
	sup.failed_starts = 0;
}

static void
sup_reload(void)
{
	DfxSpawnOptions options;

	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	dfx_preload_reload();
	dfx_spawn_options(&options);
	if (memcmp(&options, &sup.options, sizeof(options)) == 0)
	{
		/* Whatever was wrong may have been put right. */
		sup.next_start = 0;
		return;
	}
	if (sup.pid != 0)
		ereport(LOG, (errmsg("dfx engine is restarted, because its settings have changed")));
	sup_stop();
	sup_set_state(DFX_ENGINE_DOWN);
	sup_load_options();
}

/* Backends do not wait long for an engine that nobody will start. */
static void
sup_leave(int code, Datum arg)
{
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_shared->supervisor_pid = 0;
	dfx_shared->supervisor_gone = GetCurrentTimestamp();
	LWLockRelease(dfx_shared->lock);
}

static void
sup_enter(void)
{
	before_shmem_exit(sup_leave, 0);
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_shared->supervisor_pid = MyProcPid;
	if (pg_atomic_read_u64(&dfx_shared->epoch) == 0)
		dfx_shared->last_error[0] = '\0';	/* which was that there is no supervisor */
	LWLockRelease(dfx_shared->lock);
}

/*
 * However the supervisor ends, its engine ends first: a postmaster that is
 * process 1 would inherit it, and take its death for a backend's crash.
 */
static void
sup_exit(int code, Datum arg)
{
	sup_stop();
	if (!sup_has_failed())
		sup_set_state(DFX_ENGINE_DOWN);
}

/* Without a ring there is nothing to supervise until the server restarts. */
static void
sup_without_ring(void)
{
	sup_set_error(dfx_ring_reason);
	sup_set_state(DFX_ENGINE_FAILED);
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
	sup.control = -1;
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
	dfx_slot_sweep(&sweep);
	sup_load_options();

	while (!ShutdownRequestPending)
	{
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
			sup_reload();
		if (sup.pid == 0)
			sup_idle();
		else
			sup_serve();
		dfx_engine_reap_orphans(sup.pid);
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
