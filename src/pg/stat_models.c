/*
 * stat_models.c
 *	  What each engine knows about each model: view dfx_stat_models.
 *
 * Read from the ring, so whatever is there is shown and never used: a number
 * that cannot be one is left out.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pg/compat.h"
#include "pg/queue.h"
#include "pg/settings.h"
#include "pg/shmem.h"

PG_FUNCTION_INFO_V1(dfx_stat_get_models);

#define STAT_MODEL_COLUMNS 8
#define STAT_MODEL_ATTEMPTS 100 /* an engine that dies while it writes leaves an entry unreadable */

/* A consistent copy of one entry; false when there is nothing to be had. */
static bool
stat_model_read(const DfxRingModel *model, DfxModelStat *stat)
{
	for (int i = 0; i < STAT_MODEL_ATTEMPTS; i++)
	{
		uint64_t	seq = atomic_load_explicit(&model->seq, memory_order_acquire);

		*stat = model->stat;
		atomic_thread_fence(memory_order_acquire);
		if (seq % 2 == 0 && seq == atomic_load_explicit(&model->seq, memory_order_relaxed))
			return stat->precision != 0;
	}
	return false;
}

/* Nanoseconds since 1970 to a timestamp; false when it is not a time of this server's life. */
static bool
stat_model_time(uint64 ns, TimestampTz *t)
{
	const uint64 epoch = (uint64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;

	if (ns / 1000 <= epoch)
		return false;
	*t = (TimestampTz) (ns / 1000 - epoch);
	return *t <= GetCurrentTimestamp();
}

static void
stat_models_of(ReturnSetInfo *result, int engine)
{
	for (int i = 0; i < DFX_RING_MODELS; i++)
	{
		Datum		values[STAT_MODEL_COLUMNS];
		bool		nulls[STAT_MODEL_COLUMNS] = {false};
		char		hex[DFX_VERSION_HEX_LEN];
		const char *precision;
		DfxModelStat s;
		TimestampTz last_use = 0;

		if (!stat_model_read(&dfx_ring->engine[engine].model[i], &s))
			continue;
		dfx_version_hex(s.version, hex);
		precision = dfx_precision_name(s.precision);
		values[0] = Int64GetDatum(engine);
		values[1] = CStringGetTextDatum(hex);
		nulls[2] = precision == NULL;
		values[2] = precision ? CStringGetTextDatum(precision) : (Datum) 0;
		values[3] = BoolGetDatum(s.resident != 0);
		values[4] = Int64GetDatum((int64) s.bytes);
		values[5] = Int64GetDatum((int64) s.loads);
		values[6] = Int64GetDatum((int64) s.hits);
		nulls[7] = !stat_model_time(s.last_use, &last_use);
		values[7] = TimestampTzGetDatum(last_use);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/* Rows: engine, version, precision, resident, bytes, loads, hits, last_use. */
Datum
dfx_stat_get_models(PG_FUNCTION_ARGS)
{
	dfx_require_ring();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < dfx_nengines(); i++)
		stat_models_of((ReturnSetInfo *) fcinfo->resultinfo, i);
	return (Datum) 0;
}
