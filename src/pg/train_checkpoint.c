/*
 * train_checkpoint.c
 *	  A run on its way to another server: dfx_export_checkpoint(),
 *	  dfx_import_checkpoint().
 *
 * A file has the magic word and then sections, each a DfxFrame and what it
 * announces:
 *
 *	  RUN		the run's row, as JSON
 *	  EPOCHS	its history, a JSON array; at least one, perhaps empty
 *	  SAMPLES	at most 1000 of its samples, a JSON array; as many as it takes
 *	  CHUNK		the checkpoint, in pieces as they are stored
 *	  END		SHA-256 of all before
 *
 * JSON is UTF-8 with the columns' names as keys, so a later version can have
 * more columns.  The rows that are written from it pass the tables'
 * constraints, and what resuming makes of them is checked there.  The
 * checkpoint itself is the engine's own, which trusts it as little.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "base/sha256.h"
#include "pg/model_io.h"
#include "pg/train.h"

PG_FUNCTION_INFO_V1(dfx_export_checkpoint_file);
PG_FUNCTION_INFO_V1(dfx_export_checkpoint_lo);
PG_FUNCTION_INFO_V1(dfx_import_checkpoint_file);
PG_FUNCTION_INFO_V1(dfx_import_checkpoint_lo);

#define MOVE_MAGIC "dfxrun1\n"
#define MOVE_MAGIC_LEN 8
#define MOVE_JSON_MAX (64 << 20)
#define MOVE_SAMPLES "1000"

typedef enum MoveSection
{
	MOVE_RUN = 1,
	MOVE_EPOCHS,
	MOVE_SAMPLES_OF,
	MOVE_CHUNK,
	MOVE_END
} MoveSection;

/* ---- export ---- */

typedef struct MoveOut
{
	DfxSink    *sink;
	DfxSha256	sha;
} MoveOut;

static void
move_write(MoveOut *out, const void *p, Size len)
{
	dfx_sha256_update(&out->sha, p, len);
	out->sink->write(out->sink, p, len);
}

static void
move_section(MoveOut *out, MoveSection type, const void *p, Size len)
{
	DfxFrame	head = {.type = type,.len = len};

	move_write(out, &head, sizeof(head));
	move_write(out, p, len);
}

/* What a query gives in its first row: JSON, and a number to go on from; false when that is null. */
static bool
move_query(MoveOut *out, MoveSection type, const char *sql, int64 run, int64 *from)
{
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(run), Int64GetDatum(*from)};
	DfxStore	store;
	bool		isnull;
	char	   *json;

	dfx_store_begin(&store);
	dfx_store_sql(sql, lengthof(types), types, values);
	json = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	*from = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	json = pg_server_to_any(json, strlen(json), PG_UTF8);
	move_section(out, type, json, strlen(json));
	dfx_store_end(&store);
	return !isnull;
}

static void
move_chunk(const char *data, Size len, void *arg)
{
	CHECK_FOR_INTERRUPTS();
	move_section(arg, MOVE_CHUNK, data, len);
}

static void
move_all(MoveOut *out, int64 run)
{
	uint8		hash[32];
	int64		from = -1;

	dfx_sha256_init(&out->sha);
	move_write(out, MOVE_MAGIC, MOVE_MAGIC_LEN);
	(void) move_query(out, MOVE_RUN, "SELECT pg_catalog.to_jsonb(r), $2 FROM @extschema@.dfx_training_run r WHERE id = $1",
					  run, &from);
	(void) move_query(out, MOVE_EPOCHS,
					  "SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(e) ORDER BY number), '[]'), $2"
					  " FROM @extschema@.dfx_training_epoch e WHERE run = $1", run, &from);
	while (move_query(out, MOVE_SAMPLES_OF,
					  "SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(s)), '[]'), max(number)"
					  " FROM (SELECT * FROM @extschema@.dfx_sample WHERE run = $1 AND number > $2"
					  " ORDER BY number LIMIT " MOVE_SAMPLES ") AS s", run, &from))
		CHECK_FOR_INTERRUPTS();
	dfx_train_run_checkpoint_read(run, move_chunk, out);
	dfx_sha256_final(&out->sha, hash);
	move_section(out, MOVE_END, hash, sizeof(hash));
}

static int64
move_run_arg(FunctionCallInfo fcinfo)
{
	DfxTrainRun run = {.context = CurrentMemoryContext};
	char	   *state;

	PreventCommandIfReadOnly("dfx_export_checkpoint()");
	PreventCommandIfParallelMode("dfx_export_checkpoint()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("training run must not be null")));
	run.id = PG_GETARG_INT64(0);
	dfx_train_run_load(&run, &state);
	(void) dfx_train_run_checkpoint_size(run.id);	/* 55000 before a file is touched */
	return run.id;
}

/* The run's row stays locked: its session cannot put another checkpoint in the place of what is read. */
static void
move_export(int64 run, DfxSink *sink)
{
	MoveOut		out = {.sink = sink};

	PG_ENSURE_ERROR_CLEANUP(dfx_sink_discard, PointerGetDatum(sink));
	{
		move_all(&out, run);
		sink->finish(sink);
	}
	PG_END_ENSURE_ERROR_CLEANUP(dfx_sink_discard, PointerGetDatum(sink));
}

/* dfx_export_checkpoint(run bigint, file text) -> bigint */
Datum
dfx_export_checkpoint_file(PG_FUNCTION_ARGS)
{
	int64		run = move_run_arg(fcinfo);
	DfxSink    *sink = dfx_sink_file(dfx_text_arg(fcinfo, 1, "file name"));

	move_export(run, sink);
	PG_RETURN_INT64((int64) sink->written);
}

/* dfx_export_checkpoint(run bigint) -> oid */
Datum
dfx_export_checkpoint_lo(PG_FUNCTION_ARGS)
{
	int64		run = move_run_arg(fcinfo);
	DfxSink    *sink = dfx_sink_lo();

	move_export(run, sink);
	PG_RETURN_OID(sink->loid);
}

/* ---- import ---- */

typedef struct MoveIn
{
	DfxSource  *src;
	uint64		at;
	DfxSha256	sha,			/* of what was read */
				checkpoint;
	char	   *model;			/* NULL: as in the file */
	DfxTrainRun run;
	uint64		bytes;			/* of the checkpoint */
	int32		chunks;
} MoveIn;

pg_noreturn static void
move_refuse(const MoveIn *in, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
			 errmsg("%s is not a training run that dfx_export_checkpoint() wrote: %s", in->src->what, what)));
}

static void
move_read(MoveIn *in, void *p, Size len)
{
	if (len > in->src->size - in->at)
		move_refuse(in, "it is too short");
	in->src->read(in->src, in->at, p, len);
	in->at += len;
}

static Datum
move_jsonb(const char *utf8, Size len)
{
	char	   *text = pg_any_to_server(pnstrdup(utf8, len), len, PG_UTF8);

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

/* A run that looks interrupted, of the user's. */
static void
move_in_run(MoveIn *in, Datum json)
{
	Oid			types[] = {JSONBOID, TEXTOID, TEXTOID};
	Datum		values[] = {
		json,
		CStringGetTextDatum(in->model ? in->model : ""),
		CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))
	};
	DfxStore	store;
	bool		isnull;

	if (in->run.id != 0)
		move_refuse(in, "it holds two");
	dfx_store_begin(&store);
	dfx_store_sql("INSERT INTO @extschema@.dfx_training_run (name, kind, options, source, relation, owner, state, started,"
				  " device) SELECT COALESCE(NULLIF($2, ''), r.name), r.kind, r.options, r.source, r.relation, $3,"
				  " 'training', r.started, r.device"
				  " FROM pg_catalog.jsonb_populate_record(NULL::@extschema@.dfx_training_run, $1) AS r"
				  " RETURNING id, name", lengthof(types), types, values);
	in->run.id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	dfx_store_end(&store);
}

static void
move_in_rows(MoveIn *in, const char *sql, Datum json)
{
	Oid			types[] = {JSONBOID, INT8OID};
	Datum		values[] = {json, Int64GetDatum(in->run.id)};
	DfxStore	store;

	dfx_store_begin(&store);
	dfx_store_sql(sql, lengthof(types), types, values);
	dfx_store_end(&store);
}

static void
move_in_json(MoveIn *in, MoveSection type, const char *text, Size len)
{
	Datum		json;

	if (memchr(text, '\0', len) != NULL)
		move_refuse(in, "its text has a zero byte");
	json = move_jsonb(text, len);
	if (type == MOVE_RUN)
		move_in_run(in, json);
	else if (type == MOVE_EPOCHS)
		move_in_rows(in, "INSERT INTO @extschema@.dfx_training_epoch SELECT (pg_catalog.jsonb_populate_record("
					 "NULL::@extschema@.dfx_training_epoch, e || pg_catalog.jsonb_build_object('run', $2))).*"
					 " FROM pg_catalog.jsonb_array_elements($1) AS e", json);
	else
		move_in_rows(in, "INSERT INTO @extschema@.dfx_sample SELECT (pg_catalog.jsonb_populate_record("
					 "NULL::@extschema@.dfx_sample, s || pg_catalog.jsonb_build_object('run', $2))).*"
					 " FROM pg_catalog.jsonb_array_elements($1) AS s", json);
}

static void
move_in_end(MoveIn *in, const uint8 *hash)
{
	uint8		want[32];
	char	   *state;

	dfx_sha256_final(&in->sha, want);
	if (memcmp(hash, want, sizeof(want)) != 0)
		move_refuse(in, "its bytes do not match their hash");
	if (in->at != in->src->size || in->bytes == 0)
		move_refuse(in, "it has no checkpoint, or something behind its end");
	dfx_sha256_final(&in->checkpoint, want);
	dfx_train_run_load(&in->run, &state);
	dfx_train_run_checkpoint_end(&in->run, in->bytes, want);
}

/* One section; false after the last. */
static bool
move_in_section(MoveIn *in)
{
	DfxFrame	head;
	char	   *data;

	move_read(in, &head, sizeof(head));
	if (head.zero != 0 || head.type < MOVE_RUN || head.type > MOVE_END ||
		(head.type != MOVE_RUN && in->run.id == 0))
		move_refuse(in, "a section that there is not");
	if (head.len == 0 || head.len > (head.type == MOVE_CHUNK ? DFX_BLOB_DATA_MAX : MOVE_JSON_MAX) ||
		(head.type == MOVE_END && head.len != 32))
		move_refuse(in, "a section of a length that it cannot have");
	data = palloc(head.len);
	move_read(in, data, head.len);
	if (head.type == MOVE_END)
	{
		move_in_end(in, (const uint8 *) data);
		return false;
	}
	dfx_sha256_update(&in->sha, &head, sizeof(head));
	dfx_sha256_update(&in->sha, data, head.len);
	if (head.type == MOVE_CHUNK)
	{
		dfx_sha256_update(&in->checkpoint, data, head.len);
		dfx_train_run_checkpoint_chunk(in->run.id, in->chunks++, data, head.len);
		in->bytes += head.len;
	}
	else
		move_in_json(in, head.type, data, head.len);
	pfree(data);
	return true;
}

static int64
move_import(FunctionCallInfo fcinfo, DfxSource *src)
{
	MoveIn		in = {.src = src,.run.context = CurrentMemoryContext};
	char		magic[MOVE_MAGIC_LEN];

	if (!PG_ARGISNULL(1))
		in.model = dfx_name_arg(fcinfo, 1);
	dfx_sha256_init(&in.sha);
	dfx_sha256_init(&in.checkpoint);
	move_read(&in, magic, sizeof(magic));
	if (memcmp(magic, MOVE_MAGIC, sizeof(magic)) != 0)
		move_refuse(&in, "it begins otherwise");
	dfx_sha256_update(&in.sha, magic, sizeof(magic));
	while (move_in_section(&in))
		CHECK_FOR_INTERRUPTS();
	src->close(src);
	return in.run.id;
}

static void
move_import_check(void)
{
	PreventCommandIfReadOnly("dfx_import_checkpoint()");
	PreventCommandIfParallelMode("dfx_import_checkpoint()");
}

/* dfx_import_checkpoint(file text, model text DEFAULT NULL) -> bigint: the run's number here. */
Datum
dfx_import_checkpoint_file(PG_FUNCTION_ARGS)
{
	move_import_check();
	PG_RETURN_INT64(move_import(fcinfo, dfx_source_file(dfx_text_arg(fcinfo, 0, "file name"))));
}

/* dfx_import_checkpoint(large_object oid, model text DEFAULT NULL) -> bigint */
Datum
dfx_import_checkpoint_lo(PG_FUNCTION_ARGS)
{
	move_import_check();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("large object must not be null")));
	PG_RETURN_INT64(move_import(fcinfo, dfx_source_lo(PG_GETARG_OID(0))));
}
