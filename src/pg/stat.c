/*
 * stat.c
 *	  What can be seen of the engine and the queue from SQL:
 *	  dfx_engine_status(), dfx_stat_engine, dfx_stat_queue, dfx_ping().
 *
 * The engines' own figures are read from the ring, where a broken engine may
 * have written anything: they are shown and never used.  They start at zero
 * with each engine; the queue's are PostgreSQL's own and start with the server.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "portability/instr_time.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pg/compat.h"
#include "pg/queue.h"
#include "pg/reply.h"
#include "pg/slot.h"

PG_FUNCTION_INFO_V1(dfx_engine_status);
PG_FUNCTION_INFO_V1(dfx_stat_get_engine);
PG_FUNCTION_INFO_V1(dfx_stat_get_queue);
PG_FUNCTION_INFO_V1(dfx_ping);

static const char *const stat_state_name[] = {
	[DFX_ENGINE_DOWN] = "down",
	[DFX_ENGINE_STARTING] = "starting",
	[DFX_ENGINE_READY] = "ready",
	[DFX_ENGINE_FAILED] = "failed",
};

#define STAT_MAX_COLUMNS 17

/* A row in the making; columns are appended in the order of the SQL declaration. */
typedef struct StatRow
{
	int			n;
	Datum		value[STAT_MAX_COLUMNS];
	bool		null[STAT_MAX_COLUMNS];
} StatRow;

static void
stat_int(StatRow *row, uint64 v)
{
	row->value[row->n++] = Int64GetDatum((int64) v);
}

static void
stat_float(StatRow *row, double v)
{
	row->value[row->n++] = Float8GetDatum(v);
}

static void
stat_null(StatRow *row)
{
	row->null[row->n++] = true;
}

/* NULL when empty. */
static void
stat_text(StatRow *row, const char *text)
{
	if (text[0] == '\0')
		stat_null(row);
	else
		row->value[row->n++] = CStringGetTextDatum(text);
}

static Datum
stat_return(FunctionCallInfo fcinfo, StatRow *row)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != row->n)
		elog(ERROR, "function declared with another row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), row->value, row->null));
}

/* One of the rows of a set. */
static void
stat_put(FunctionCallInfo fcinfo, StatRow *row)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	if (result->setDesc->natts != row->n)
		elog(ERROR, "function declared with another row type");
	tuplestore_putvalues(result->setResult, result->setDesc, row->value, row->null);
}

static void
stat_status_row(FunctionCallInfo fcinfo, int engine)
{
	const DfxEngineCtl *ctl = &dfx_shared->engine[engine];
	StatRow		row = {0};
	DfxEngineState state = dfx_engine_state(engine);
	char		error[DFX_REASON_LEN];
	char		device[sizeof(dfx_ring->engine[0].device)] = "";
	char		refused[sizeof(dfx_ring->engine[0].refused)] = "";
	TimestampTz started;
	uint64		restarts;
	int			pid;

	LWLockAcquire(dfx_shared->lock, LW_SHARED);
	strlcpy(error, ctl->last_error, sizeof(error));
	started = ctl->started;
	restarts = ctl->restarts;
	pid = ctl->pid;
	LWLockRelease(dfx_shared->lock);
	if (dfx_ring != NULL)
	{
		const DfxRingEngine *words = &dfx_ring->engine[engine];

		dfx_clean_text(device, sizeof(device), words->device, sizeof(words->device));
		dfx_clean_text(refused, sizeof(refused), words->refused, sizeof(words->refused));
	}

	stat_int(&row, engine);
	stat_text(&row, stat_state_name[state]);
	row.null[row.n] = pid == 0;
	row.value[row.n++] = Int32GetDatum(pid);
	stat_text(&row, state == DFX_ENGINE_READY ? device : "");
	row.null[row.n] = pid == 0;
	row.value[row.n++] = TimestampTzGetDatum(started);
	stat_int(&row, restarts);
	stat_text(&row, error);
	stat_text(&row, refused);
	stat_int(&row, pg_atomic_read_u64(&dfx_shared->engine[engine].epoch));
	stat_put(fcinfo, &row);
}

/*
 * A row for each engine: engine, state, pid, device, started, restarts,
 * last_error, refused, epoch.  Works without a ring too, to say why there is none.
 */
Datum
dfx_engine_status(PG_FUNCTION_ARGS)
{
	if (dfx_shared == NULL)
		dfx_require_ring();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < dfx_nengines(); i++)
		stat_status_row(fcinfo, i);
	return (Datum) 0;
}

static void
stat_engine_row(FunctionCallInfo fcinfo, int engine)
{
	StatRow		row = {0};
	DfxRingStats *s = &dfx_ring->engine[engine].stats;
	uint64		images = atomic_load(&s->images),
				batches = atomic_load(&s->batches);

	stat_int(&row, engine);
	stat_int(&row, atomic_load(&s->requests));
	stat_int(&row, images);
	stat_int(&row, batches);
	if (batches == 0)
		stat_null(&row);
	else
		stat_float(&row, (double) images / batches);
	stat_int(&row, atomic_load(&s->largest_batch));
	stat_int(&row, atomic_load(&s->image_errors));
	stat_int(&row, atomic_load(&s->canceled));
	stat_float(&row, atomic_load(&s->decode_ns) / 1e9);
	stat_float(&row, atomic_load(&s->inference_ns) / 1e9);
	stat_int(&row, atomic_load(&s->models));
	stat_int(&row, atomic_load(&s->model_bytes));
	stat_int(&row, atomic_load(&s->model_limit));
	stat_int(&row, atomic_load(&s->model_loads));
	stat_int(&row, atomic_load(&s->model_evictions));
	stat_put(fcinfo, &row);
}

/*
 * A row for each engine: engine, requests, images, batches, average_batch,
 * largest_batch, image_errors, canceled, decode_seconds, inference_seconds,
 * models, model_bytes, model_limit, model_loads, model_evictions.
 */
Datum
dfx_stat_get_engine(PG_FUNCTION_ARGS)
{
	dfx_require_ring();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < dfx_nengines(); i++)
		stat_engine_row(fcinfo, i);
	return (Datum) 0;
}

/*
 * One row: slots, free, claimed, queued, running, done, abandoned, waiting,
 * arena_bytes, arena_used, submitted, retried, crashed, reclaimed,
 * taken_back, request_timeouts, queue_timeouts.
 */
Datum
dfx_stat_get_queue(PG_FUNCTION_ARGS)
{
	StatRow		row = {0};
	DfxSlotCensus census;
	DfxCounters count;
	uint64		used;
	int			waiting;

	dfx_require_ring();
	LWLockAcquire(dfx_shared->lock, LW_SHARED);
	dfx_slot_census_locked(&census);
	count = dfx_shared->count;
	used = dfx_shared->arena.used;
	waiting = dfx_shared->nwaiting;
	LWLockRelease(dfx_shared->lock);

	stat_int(&row, dfx_shared->nslots);
	stat_int(&row, census.free);
	stat_int(&row, census.claimed);
	stat_int(&row, census.queued);
	stat_int(&row, census.running);
	stat_int(&row, census.done);
	stat_int(&row, census.abandoned);
	stat_int(&row, waiting);
	stat_int(&row, (uint64) dfx_shared->arena.npages * DFX_PAGE);
	stat_int(&row, used * DFX_PAGE);
	stat_int(&row, count.submitted);
	stat_int(&row, count.retried);
	stat_int(&row, count.crashed);
	stat_int(&row, count.reclaimed);
	stat_int(&row, count.taken);
	stat_int(&row, count.timeouts);
	stat_int(&row, count.full);
	return stat_return(fcinfo, &row);
}

/* Milliseconds that an empty request takes, to the engine and back. */
Datum
dfx_ping(PG_FUNCTION_ARGS)
{
	DfxCall		call = {.op = DFX_RING_PING};
	DfxReply	reply;
	instr_time	before,
				took;

	INSTR_TIME_SET_CURRENT(before);
	dfx_queue_call(&call, &reply);
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, before);
	dfx_reply_raise(&reply);
	PG_RETURN_FLOAT8(INSTR_TIME_GET_MILLISEC(took));
}
