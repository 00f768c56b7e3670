/*
 * sup_engine.c
 *	  One engine, as the supervisor sees it: started, heard, watched, its end dealt with.
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
 * Engines do not know of each other, nor do their delays.  All together are
 * ready when one is, and have failed only when all have: then requests are
 * answered with the reason.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "utils/timestamp.h"

#include "pg/clock.h"
#include "pg/preload.h"
#include "pg/reply.h"
#include "pg/settings.h"
#include "pg/slot.h"
#include "pg/sup_engine.h"

#define SUP_PAUSE_MAX_MS 5000
#define SUP_HEALTHY_MS 60000
#define SUP_MAX_FAILED_STARTS 5
#define SUP_EXIT_GRACE_MS 1000	/* between the end of the socket and SIGKILL */
#define SUP_MESSAGE_MAX 1024
#define SUP_MESSAGES_A_TURN 256 /* so that a talkative engine cannot keep us from the rest */

DfxSup		dfx_sup;

/* What an engine is called in the log. */
static const char *
sup_name(const DfxSupEngine *e)
{
	static char name[sizeof("dfx engine 0 ()") + sizeof(dfx_sup.options.device)];
	char		device[sizeof(dfx_sup.options.device)];

	if (dfx_sup.options.engines == 1)
		return "dfx engine";
	dfx_device_item(dfx_sup.options.device, e->number, device, sizeof(device));
	snprintf(name, sizeof(name), "dfx engine %d (%s)", e->number, device);
	return name;
}

void
dfx_sup_set_state(DfxSupEngine *e, DfxEngineState state)
{
	static const DfxEngineState order[] = {DFX_ENGINE_READY, DFX_ENGINE_STARTING, DFX_ENGINE_DOWN, DFX_ENGINE_FAILED};
	int			best = lengthof(order) - 1;

	pg_atomic_write_u32(&e->ctl->state, state);
	for (int i = 0; i < dfx_sup.options.engines; i++)
		for (int k = 0; k < best; k++)
			if (dfx_engine_state(i) == order[k])
				best = k;
	pg_atomic_write_u32(&dfx_shared->state, order[best]);
}

bool
dfx_sup_has_failed(const DfxSupEngine *e)
{
	return pg_atomic_read_u32(&e->ctl->state) == DFX_ENGINE_FAILED;
}

void
dfx_sup_set_error(const DfxSupEngine *e, const char *text)
{
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	dfx_clean_text(e->ctl->last_error, DFX_REASON_LEN, text, DFX_REASON_LEN);
	LWLockRelease(dfx_shared->lock);
}

/* Schedule the next start after a pause, and make the one after it longer. */
static void
sup_pause(DfxSupEngine *e)
{
	e->next_start = dfx_clock_ms() + e->pause;
	e->pause = Min(e->pause * 2, SUP_PAUSE_MAX_MS);
}

static void
sup_forget_events(void)
{
	if (dfx_sup.events != NULL)
		FreeWaitEventSet(dfx_sup.events);
	dfx_sup.events = NULL;
}

bool
dfx_sup_reap(DfxSupEngine *e, int grace_ms, char *how)
{
	bool		killed = dfx_engine_reap(e->pid, grace_ms, how, DFX_REASON_LEN);

	sup_forget_events();
	close(e->control);
	e->control = -1;
	e->pid = 0;
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	e->ctl->pid = 0;
	LWLockRelease(dfx_shared->lock);
	return killed;
}

void
dfx_sup_stand_in(DfxSupEngine *e)
{
	char		reason[DFX_MSG_LEN];
	DfxSweep	sweep = {0};

	if (pg_atomic_read_u32(&dfx_shared->state) == DFX_ENGINE_FAILED)
	{
		dfx_engines_reason(reason, sizeof(reason));
		sweep.unavailable = reason;
	}
	dfx_slot_sweep(e->number, &sweep);
}

/* A start that came to nothing. */
static void
sup_start_failed(DfxSupEngine *e, const char *reason)
{
	bool		news = strcmp(reason, e->logged) != 0;

	e->failed_starts++;
	dfx_sup_set_error(e, reason);
	if (e->refused || e->failed_starts >= SUP_MAX_FAILED_STARTS)
		dfx_sup_set_state(e, DFX_ENGINE_FAILED);
	else if (!dfx_sup_has_failed(e))
		dfx_sup_set_state(e, DFX_ENGINE_DOWN);
	ereport(news ? LOG : DEBUG1,
			(errmsg("%s cannot be started: %s", sup_name(e), reason)));
	strlcpy(e->logged, reason, sizeof(e->logged));
	dfx_sup_stand_in(e);
	sup_pause(e);
}

void
dfx_sup_start(DfxSupEngine *e)
{
	char		why[DFX_REASON_LEN];

	/* No engine of this number exists: its part of the ring is ours, and the epoch can move. */
	dfx_ring_format(e->number);
	pg_atomic_write_u64(&e->ctl->epoch, pg_atomic_read_u64(&e->ctl->epoch) + 1);
	e->refused = false;
	e->reason[0] = '\0';
	e->ready_at = 0;
	e->progress = 0;
	e->progress_at = dfx_clock_ms();
	if (!dfx_sup_has_failed(e))
		dfx_sup_set_state(e, DFX_ENGINE_STARTING);

	e->pid = dfx_engine_spawn(&dfx_sup.options, e->number, &e->control, why, sizeof(why));
	if (e->pid < 0)
	{
		e->pid = 0;
		e->refused = true;		/* nothing that trying again at once would mend */
		sup_start_failed(e, why);
		return;
	}
	sup_forget_events();
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	e->ctl->pid = e->pid;
	e->ctl->started = GetCurrentTimestamp();
	LWLockRelease(dfx_shared->lock);
}

static void
sup_ready(DfxSupEngine *e)
{
	const DfxRingEngine *words = &dfx_ring->engine[e->number];
	char		device[sizeof(words->device)];

	if (e->ready_at != 0)
		return;
	dfx_clean_text(device, sizeof(device), words->device, sizeof(words->device));
	ereport(LOG,
			(errmsg("%s is ready on %s (PID %d)", sup_name(e), device, (int) e->pid)));
	e->ready_at = dfx_clock_ms();
	e->failed_starts = 0;
	e->logged[0] = '\0';
	dfx_sup_set_state(e, DFX_ENGINE_READY);
	dfx_preload_engine_ready();
	ConditionVariableBroadcast(&dfx_shared->loader_cv);
}

void
dfx_sup_died(DfxSupEngine *e)
{
	char		how[DFX_REASON_LEN];
	DfxSweep	sweep = {.crash = how};
	int			pid = e->pid;
	int			running;
	bool		healthy;

	sweep.killed = dfx_sup_reap(e, SUP_EXIT_GRACE_MS, how);
	if (e->reason[0] != '\0')
	{
		sweep.killed = false;	/* if it was the watchdog, it had to be */
		strlcpy(how, e->reason, sizeof(how));
	}
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	e->ctl->restarts++;
	LWLockRelease(dfx_shared->lock);
	if (e->ready_at == 0)
	{
		sup_start_failed(e, how);
		return;
	}

	dfx_sup_set_state(e, DFX_ENGINE_DOWN);
	dfx_sup_set_error(e, how);
	running = dfx_slot_sweep(e->number, &sweep);
	healthy = dfx_clock_ms() - e->ready_at >= SUP_HEALTHY_MS;
	dfx_preload_engine_died(healthy);
	if (running == 1 || healthy)
		e->pause = DFX_SUP_PAUSE_MIN_MS;
	if (running == 1)
		e->next_start = 0;
	else
		sup_pause(e);
	ereport(LOG,
			(errmsg("%s (PID %d) died: %s", sup_name(e), pid, how),
			 errdetail_plural("%d request was running.",
							  "%d requests were running.", running, running)));
}

/* A log line: level, then text. */
static void
sup_log_line(const DfxSupEngine *e, const char *line, Size len)
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
	ereport(level, (errmsg("%s: %s", sup_name(e), text)));
}

bool
dfx_sup_listen(DfxSupEngine *e)
{
	bool		done = false;
	bool		open = true;

	for (int i = 0; i < SUP_MESSAGES_A_TURN; i++)
	{
		char		message[SUP_MESSAGE_MAX];
		ssize_t		n = recv(e->control, message, sizeof(message), 0);

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
				sup_ready(e);
				break;
			case 'D':
				done = true;
				break;
			case 'L':
				sup_log_line(e, message + 1, n - 1);
				break;
			case 'F':
				e->refused = true;
				dfx_clean_text(e->reason, sizeof(e->reason), message + 1, n - 1);
				break;
			default:
				elog(LOG, "%s sent a message of unknown kind %d",
					 sup_name(e), (unsigned char) message[0]);
		}
	}
	if (done)
		dfx_slot_deliver();
	return open;
}

void
dfx_sup_watch(DfxSupEngine *e)
{
	int64		now = dfx_clock_ms();
	uint64		progress = atomic_load(&dfx_ring->engine[e->number].stats.progress);
	bool		owes = e->ready_at == 0 || dfx_slot_in_flight(e->number) > 0;

	if (!owes || progress != e->progress || dfx_engine_timeout == 0)
	{
		e->progress = progress;
		e->progress_at = now;
		return;
	}
	if (e->reason[0] != '\0' || now - e->progress_at < dfx_engine_timeout)
		return;
	snprintf(e->reason, sizeof(e->reason), "made no progress for %d ms", dfx_engine_timeout);
	kill(e->pid, SIGKILL);
}
