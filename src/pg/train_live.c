/*
 * train_live.c
 *	  Which training runs sessions are busy with now, and how far they are.
 *
 * One entry in shared memory for each backend.  Whether a run is alive is
 * asked here and never of its row: a row survives the death of its session,
 * an entry does not (before_shmem_exit, and a crash restart makes all of them
 * anew).  An entry is claimed and given back under the lock; its figures are
 * written without it, several times a second.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include <math.h>

#include "pg/compat.h"
#include "pg/reply.h"
#include "pg/train.h"

PG_FUNCTION_INFO_V1(dfx_training_get_progress);
PG_FUNCTION_INFO_V1(dfx_training_state);
PG_FUNCTION_INFO_V1(dfx_training_visible);

#define LIVE_COLUMNS 14
#define LIVE_ATTEMPTS 1000		/* a backend that is killed while it writes leaves an odd number, until the restart */

static DfxTrainLive *
live_mine(void)
{
	return &dfx_shared->train[DfxMyProcIndex()];
}

static DfxTrainLive *
live_find_locked(int64 run)
{
	for (int i = 0; i < dfx_shared->ntrain; i++)
	{
		DfxTrainLive *live = &dfx_shared->train[i];

		if (live->run == run && live->database == MyDatabaseId)
			return live;
	}
	return NULL;
}

static void
live_at_exit(int code, Datum arg)
{
	(void) dfx_train_live_claim(0);
}

bool
dfx_train_live_claim(int64 run)
{
	static bool registered = false;
	DfxTrainLive *live;
	bool		mine;

	if (!registered && run != 0)
	{
		before_shmem_exit(live_at_exit, 0);
		registered = true;
	}
	LWLockAcquire(dfx_shared->lock, LW_EXCLUSIVE);
	live = live_mine();
	mine = run == 0 || live_find_locked(run) == NULL;
	if (mine)
	{
		live->pid = MyProcPid;
		live->database = MyDatabaseId;
		live->role = GetUserId();
		live->run = run;
	}
	LWLockRelease(dfx_shared->lock);
	return mine;
}

bool
dfx_train_live_is(int64 run)
{
	bool		found;

	if (dfx_shared == NULL)
		return false;
	LWLockAcquire(dfx_shared->lock, LW_SHARED);
	found = live_find_locked(run) != NULL;
	LWLockRelease(dfx_shared->lock);
	return found;
}

void
dfx_train_live_show(const DfxTrainShow *show)
{
	DfxTrainLive *live = live_mine();

	pg_atomic_fetch_add_u32(&live->changes, 1); /* a full barrier, as the other is */
	live->show = *show;
	live->show.updated = GetCurrentTimestamp();
	pg_atomic_fetch_add_u32(&live->changes, 1);
}

/* A consistent copy of the figures; false when there is none to be had. */
static bool
live_read(DfxTrainLive *live, DfxTrainShow *show)
{
	for (int i = 0; i < LIVE_ATTEMPTS; i++)
	{
		uint32		before = pg_atomic_read_u32(&live->changes);

		pg_read_barrier();
		*show = live->show;
		pg_read_barrier();
		if (before % 2 == 0 && before == pg_atomic_read_u32(&live->changes))
			return true;
	}
	return false;
}

static bool
live_sees_all(void)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}

static void
live_real(Datum *value, bool *null, double v, bool known)
{
	*null = !known || !isfinite(v);
	*value = Float8GetDatum(v);
}

/* When it will be over, if the engine's guess can be one. */
static void
live_end(Datum *value, bool *null, const DfxTrainShow *show)
{
	double		left = show->progress.seconds_left;

	*null = show->reading || !(left >= 0 && left < 1e9);
	if (!*null)
		*value = TimestampTzGetDatum(show->updated + (int64) (left * USECS_PER_SEC));
}

static void
live_put(ReturnSetInfo *result, int64 run, int pid, const DfxTrainShow *show)
{
	const DfxTrainProgress *p = &show->progress;
	Datum		values[LIVE_COLUMNS];
	bool		nulls[LIVE_COLUMNS] = {false};
	char		phase[DFX_TRAIN_PHASE];

	dfx_clean_text(phase, sizeof(phase), p->phase, sizeof(p->phase));
	values[0] = Int64GetDatum(run);
	values[1] = Int32GetDatum(pid);
	values[2] = CStringGetTextDatum(show->reading ? "reading" : "training");
	nulls[3] = show->reading || phase[0] == '\0';
	values[3] = CStringGetTextDatum(phase);
	values[4] = Int32GetDatum((int32) p->epoch);
	values[5] = Int32GetDatum((int32) p->epochs);
	nulls[4] = nulls[5] = p->epochs == 0;
	values[6] = Int64GetDatum((int64) p->step);
	values[7] = Int64GetDatum((int64) p->steps);
	nulls[6] = nulls[7] = show->reading || p->steps == 0;
	live_real(&values[8], &nulls[8], p->images_per_second, !show->reading);
	live_real(&values[9], &nulls[9], p->loss, !show->reading);
	live_end(&values[10], &nulls[10], show);
	values[11] = Int64GetDatum((int64) show->samples);
	values[12] = Int64GetDatum((int64) show->errors);
	values[13] = TimestampTzGetDatum(show->updated);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/*
 * See view dfx_training_progress: one row for each run of this database that a
 * session is busy with, and that the user may know of.
 */
Datum
dfx_training_get_progress(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; dfx_shared != NULL && i < dfx_shared->ntrain; i++)
	{
		DfxTrainLive *live = &dfx_shared->train[i];
		DfxTrainShow show;
		int64		run;
		Oid			role;
		int			pid;

		LWLockAcquire(dfx_shared->lock, LW_SHARED);
		run = live->database == MyDatabaseId ? live->run : 0;
		role = live->role;
		pid = live->pid;
		LWLockRelease(dfx_shared->lock);
		if (run != 0 && (live_sees_all() || has_privs_of_role(GetUserId(), role)) && live_read(live, &show))
			live_put(result, run, pid, &show);
	}
	return (Datum) 0;
}

/*
 * dfx_training_state(run bigint, stored text) -> text: a run that its row says
 * is at work is interrupted when no session is.  A standby cannot know.
 */
Datum
dfx_training_state(PG_FUNCTION_ARGS)
{
	text	   *stored = PG_GETARG_TEXT_PP(1);
	char	   *state = text_to_cstring(stored);

	if ((strcmp(state, "reading") == 0 || strcmp(state, "training") == 0) &&
		!RecoveryInProgress() && !dfx_train_live_is(PG_GETARG_INT64(0)))
		PG_RETURN_TEXT_P(cstring_to_text("interrupted"));
	PG_RETURN_TEXT_P(stored);
}

/* dfx_training_visible(owner text) -> boolean: one's own runs; all for superusers and pg_monitor. */
Datum
dfx_training_visible(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(live_sees_all() || dfx_has_role(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}
