/*
 * train_run.c
 *	  A training run's rows: the run itself, its samples, epochs and errors;
 *	  train_stored.c has its checkpoint.
 *
 * All of it is written and read as the owner of the extension's tables
 * (store.c), after the caller's rights were asked; each function is one part
 * of a transaction that its caller commits.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"

#include "pg/reply.h"
#include "pg/settings.h"
#include "pg/train.h"

#define RUN_BATCH 1000			/* rows in one INSERT */

void
dfx_train_run_sql(const char *sql, int nargs, Oid *types, Datum *values)
{
	DfxStore	store;

	dfx_store_begin(&store);
	dfx_store_sql(sql, nargs, types, values);
	dfx_store_end(&store);
}

/* ---- the run ---- */

static void
run_put_member(StringInfo json, const char *name, const char *value)
{
	if (!value)
		return;
	appendStringInfo(json, "\"%s\": ", name);
	escape_json(json, value);
	appendStringInfoString(json, ", ");
}

/* What CALL dfx_train_resume() must know of the call, less the relation. */
static Datum
run_source_json(const DfxTrainRun *run)
{
	const DfxTrainSource *source = &run->source;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (int i = 0; i < DFX_TRAIN_COLUMNS; i++)
		run_put_member(&json, dfx_train_column_arg[i], source->column[i]);
	appendStringInfoString(&json, "\"labels\": ");
	(void) JsonbToCString(&json, &source->labels->root, VARSIZE(source->labels));
	appendStringInfoString(&json, ", \"init\": [");
	for (int i = 0; i < run->ninit; i++)
	{
		char		hex[DFX_VERSION_HEX_LEN];

		dfx_version_hex(run->init[i].model.version, hex);
		appendStringInfoString(&json, i > 0 ? ", {" : "{");
		run_put_member(&json, "name", run->init[i].name);
		run_put_member(&json, "model", run->init[i].model.name);
		appendStringInfo(&json, "\"version\": \"%s\"}", hex);
	}
	appendStringInfo(&json, "], \"max_errors\": %d}", source->max_errors);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

void
dfx_train_run_create(DfxTrainRun *run)
{
	Oid			types[] = {TEXTOID, JSONBOID, JSONBOID, TEXTOID, TEXTOID};
	Datum		values[] = {
		CStringGetTextDatum(run->model),
		JsonbPGetDatum(run->options),
		run_source_json(run),
		CStringGetTextDatum(run->source.relation),
		CStringGetTextDatum(run->owner),
	};
	DfxStore	store;
	bool		isnull;

	dfx_store_begin(&store);
	dfx_store_sql("INSERT INTO @extschema@.dfx_training_run (name, kind, options, source, relation, owner, state)"
				  " VALUES ($1, $2 ->> 'kind', $2, $3, $4, $5, 'reading') RETURNING id",
				  lengthof(types), types, values);
	run->id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	dfx_store_end(&store);
}

/* A column of the first row as a C string in the run's context; NULL for null. */
static char *
run_text(const DfxTrainRun *run, int column)
{
	char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	return value ? MemoryContextStrdup(run->context, value) : NULL;
}

/* The same as jsonb. */
static Jsonb *
run_jsonb(const DfxTrainRun *run, int column)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);
	Jsonb	   *jb = isnull ? NULL : DatumGetJsonbPCopy(value);

	MemoryContextSwitchTo(old);
	return jb;
}

/* A member of an object, NULL where there is none of that type. */
static JsonbValue *
run_value(Jsonb *object, const char *key, enum jbvType type)
{
	JsonbValue *v = JB_ROOT_IS_OBJECT(object) ?
		getKeyJsonValueFromContainer(&object->root, key, strlen(key), NULL) : NULL;

	return v && v->type == type ? v : NULL;
}

static char *
run_member(const DfxTrainRun *run, Jsonb *source, const char *key)
{
	JsonbValue *v = run_value(source, key, jbvString);

	return v ? MemoryContextStrdup(run->context, pnstrdup(v->val.string.val, v->val.string.len)) : NULL;
}

/* A row that no procedure wrote; imported ones come from outside. */
pg_noreturn static void
run_damaged(const DfxTrainRun *run)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("what is stored of training run " INT64_FORMAT " is damaged", run->id)));
}

/* Models to start from, by their versions: their names may stand for others by now. */
static void
run_load_inits(DfxTrainRun *run, Datum id)
{
	Oid			types[] = {INT8OID};

	dfx_store_sql("SELECT i ->> 'name', i ->> 'model', pg_catalog.decode(i ->> 'version', 'hex')"
				  " FROM @extschema@.dfx_training_run, pg_catalog.jsonb_array_elements(source -> 'init') AS i WHERE id = $1",
				  1, types, &id);
	if (SPI_processed > DFX_TRAIN_INITS)
		run_damaged(run);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		DfxTrainInit *init = &run->init[run->ninit++];
		bool		isnull;
		Datum		value = SPI_getbinval(tuple, desc, 3, &isnull);
		bytea	   *version = isnull ? NULL : DatumGetByteaPP(value);
		char	   *name = SPI_getvalue(tuple, desc, 1);
		char	   *model = SPI_getvalue(tuple, desc, 2);

		if (!name || !model || !version || VARSIZE_ANY_EXHDR(version) != DFX_VERSION_LEN)
			run_damaged(run);
		strlcpy(init->name, name, sizeof(init->name));
		strlcpy(init->model.name, model, sizeof(init->model.name));
		memcpy(init->model.version, VARDATA_ANY(version), DFX_VERSION_LEN);
	}
}

/* The names that a version has or had, of those that are still there; *n of them, in the run's context. */
static char **
run_version_names(const DfxTrainRun *run, const uint8 *version, uint64 *n)
{
	Oid			types[] = {BYTEAOID};
	Datum		values[] = {dfx_store_bytea(version, DFX_VERSION_LEN)};
	DfxStore	store;
	char	  **names;

	dfx_store_begin(&store);
	*n = dfx_store_sql("SELECT DISTINCT name FROM @extschema@.dfx_model_history WHERE version = $1", 1, types, values);
	names = MemoryContextAlloc(run->context, sizeof(char *) * Max(*n, 1));
	for (uint64 i = 0; i < *n; i++)
		names[i] = MemoryContextStrdup(run->context, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	dfx_store_end(&store);
	return names;
}

/* 42501 unless the user may use the models that the run starts from. */
static void
run_check_inits(const DfxTrainRun *run)
{
	for (int i = 0; i < run->ninit; i++)
	{
		DfxModelRef used;
		bool		allowed = false;
		uint64		n;
		char	  **names = run_version_names(run, run->init[i].model.version, &n);

		for (uint64 k = 0; k < n && !allowed; k++)
			allowed = dfx_model_find(cstring_to_text(names[k]), &used);
		if (!allowed)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for model \"%s\"", run->init[i].model.name),
					 errdetail("Training run " INT64_FORMAT " starts from a version of it.", run->id)));
	}
}

/* 42501 when the run takes larger images than a setting allows now. */
static void
run_check_limit(const DfxTrainRun *run, const char *member, const char *setting, int64 now)
{
	JsonbValue *v = run_value(run->options, member, jbvNumeric);
	double		begun;

	if (!v)
		run_damaged(run);
	begun = DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric)));
	if (begun > now)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("training run " INT64_FORMAT " takes larger images than %s allows", run->id, setting),
				 errdetail("It was begun with a limit of %.0f; now it is " INT64_FORMAT ".", begun, now),
				 errhint("A superuser may raise %s.", setting)));
}

/*
 * An imported run says itself what it starts from and how large its images may
 * be, as its result depends on both.  But the versions of other people's
 * models are no secret, and the limits are the superuser's to set.
 */
void
dfx_train_run_check_rights(const DfxTrainRun *run)
{
	run_check_inits(run);
	run_check_limit(run, "max_image_bytes", "dfx.max_image_bytes", (int64) dfx_max_image_bytes * 1024);
	run_check_limit(run, "max_image_pixels", "dfx.max_image_pixels", dfx_max_image_pixels);
}

static void
run_load_row(DfxTrainRun *run, char **state)
{
	Jsonb	   *source = run_jsonb(run, 4);
	char	   *max_errors = run_text(run, 9);
	MemoryContext old;
	bool		isnull;

	run->model = run_text(run, 1);
	run->owner = run_text(run, 2);
	run->options = run_jsonb(run, 3);
	run->source.relation = run_text(run, 5);
	*state = run_text(run, 6);
	run->source.labels = run_jsonb(run, 7);
	run->kind = run_text(run, 12);
	old = MemoryContextSwitchTo(run->context);
	run->source.generators = PointerGetDatum(DatumGetArrayTypePCopy(SPI_getbinval(SPI_tuptable->vals[0],
																					SPI_tuptable->tupdesc, 8, &isnull)));
	MemoryContextSwitchTo(old);
	run->source.max_errors = max_errors ? pg_strtoint32(max_errors) : 0;
	run->nepoch = pg_strtoint32(run_text(run, 10));
	run->has_checkpoint = run_text(run, 11)[0] == 't';
	for (int i = 0; i < DFX_TRAIN_COLUMNS; i++)
		run->source.column[i] = run_member(run, source, dfx_train_column_arg[i]);
	if (!run->source.labels || !JB_ROOT_IS_OBJECT(run->source.labels) ||
		!run->source.column[DFX_TRAIN_IMAGE] || !run->source.column[DFX_TRAIN_LABEL])
		run_damaged(run);
}

void
dfx_train_run_load(DfxTrainRun *run, char **state)
{
	Oid			types[] = {INT8OID};
	Datum		id = Int64GetDatum(run->id);
	DfxStore	store;

	dfx_store_begin(&store);
	if (dfx_store_sql("SELECT name, owner, options, source, relation, state, source -> 'labels',"
					  " ARRAY(SELECT pg_catalog.jsonb_array_elements_text(options -> 'generators')),"
					  " source ->> 'max_errors',"
					  " (SELECT COALESCE(max(number), 0) FROM @extschema@.dfx_training_epoch WHERE run = $1),"
					  " EXISTS (SELECT FROM @extschema@.dfx_checkpoint WHERE run = $1), kind"
					  " FROM @extschema@.dfx_training_run WHERE id = $1 FOR UPDATE",
					  1, types, &id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("training run " INT64_FORMAT " does not exist", run->id)));
	run_load_row(run, state);
	run_load_inits(run, id);
	dfx_store_end(&store);
	if (!dfx_has_role(run->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of training run " INT64_FORMAT, run->id)));
}

void
dfx_train_run_begin(const DfxTrainRun *run, const char *device)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[] = {
		Int64GetDatum(run->id), CStringGetTextDatum(device), CStringGetTextDatum(run->source.relation)
	};

	dfx_train_run_sql("UPDATE @extschema@.dfx_training_run SET device = $2, relation = $3, error = NULL, sqlstate = NULL,"
			" ended = NULL WHERE id = $1",
			lengthof(types), types, values);
}

void
dfx_train_run_done(const DfxTrainRun *run, const char *versions)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID};
	Datum		values[] = {
		Int64GetDatum(run->id), CStringGetTextDatum(versions), PointerGetDatum(run->metrics)
	};
	DfxStore	store;

	dfx_store_begin(&store);
	dfx_store_sql("UPDATE @extschema@.dfx_training_run SET state = 'done', ended = pg_catalog.clock_timestamp(),"
				  " versions = $2::pg_catalog.jsonb, metrics = $3::pg_catalog.jsonb WHERE id = $1",
				  lengthof(types), types, values);
	dfx_train_run_checkpoint_begin(run);
	dfx_store_end(&store);
}

void
dfx_train_run_drop(int64 run)
{
	Oid			types[] = {INT8OID};
	Datum		id = Int64GetDatum(run);

	dfx_train_run_sql("DELETE FROM @extschema@.dfx_training_run WHERE id = $1", 1, types, &id);
}

/* ---- samples and errors ---- */

static Datum
run_array(Datum *values, bool *nulls, int n, Oid type)
{
	int			dims[] = {n};
	int			lbs[] = {1};
	int16		len;
	bool		byval;
	char		align;

	get_typlenbyvalalign(type, &len, &byval, &align);
	return PointerGetDatum(construct_md_array(values, nulls, 1, dims, lbs, type, len, byval, align));
}

/* Columns of the rows from first on, at most RUN_BATCH usable ones; returns the row after them. */
static int64
run_insert_samples(const DfxTrainRun *run, int64 first)
{
	enum
	{
		NUMBER, KEY, SHA256, LABEL, GENERATOR, SPLIT, BASE, COLUMNS
	};
	static const Oid elements[COLUMNS] = {INT8OID, TEXTOID, BYTEAOID, TEXTOID, INT4OID, TEXTOID, INT4OID};
	Oid			types[] = {INT8OID, TEXTARRAYOID, INT8ARRAYOID, TEXTARRAYOID, BYTEAARRAYOID, TEXTARRAYOID,
	INT4ARRAYOID, TEXTARRAYOID, INT4ARRAYOID};
	Datum		values[2 + COLUMNS] = {Int64GetDatum(run->id), run->source.generators};
	Datum		cell[COLUMNS][RUN_BATCH];
	bool		none[RUN_BATCH] = {false};
	int64		i;
	int			n = 0;

	for (i = first; i < run->nrow && n < RUN_BATCH; i++)
	{
		const DfxTrainRow *row = &run->row[i];

		if (!row->usable)
			continue;
		cell[NUMBER][n] = Int64GetDatum(row->number);
		cell[KEY][n] = CStringGetTextDatum(row->key);
		cell[SHA256][n] = dfx_store_bytea(row->sha256, sizeof(row->sha256));
		cell[LABEL][n] = CStringGetTextDatum(dfx_train_class_name[row->label]);
		cell[GENERATOR][n] = Int32GetDatum(row->generator + 1);
		cell[SPLIT][n] = CStringGetTextDatum(dfx_train_split_name[row->split]);
		cell[BASE][n] = Int32GetDatum(row->base);
		n++;
	}
	for (int c = 0; c < COLUMNS; c++)
		values[2 + c] = run_array(cell[c], none, n, elements[c]);
	dfx_store_sql("INSERT INTO @extschema@.dfx_sample (run, number, key, sha256, label, generator, split, base)"
				  " SELECT $1, n, k, h, l, ($2)[g], s, b FROM"
				  " unnest($3, $4, $5, $6, $7, $8, $9) AS u (n, k, h, l, g, s, b)",
				  lengthof(types), types, values);
	return i;
}

/* Those that are not in the table yet. */
static void
run_insert_errors(DfxTrainRun *run)
{
	Oid			types[] = {INT8OID, INT8OID, TEXTARRAYOID, TEXTARRAYOID};
	Datum		values[lengthof(types)];
	Datum		key[RUN_BATCH],
				message[RUN_BATCH];
	bool		none[RUN_BATCH],
				some[RUN_BATCH] = {false};

	/* A run that is resumed has its errors in the table. */
	while (!run->stored && run->nerror_stored < run->nerror)
	{
		int			n = Min(run->nerror - run->nerror_stored, RUN_BATCH);

		for (int i = 0; i < n; i++)
		{
			const DfxTrainError *e = &run->error[run->nerror_stored + i];

			none[i] = e->key == NULL;
			key[i] = e->key ? CStringGetTextDatum(e->key) : (Datum) 0;
			message[i] = CStringGetTextDatum(e->message);
		}
		values[0] = Int64GetDatum(run->id);
		values[1] = Int64GetDatum(run->nerror_stored);
		values[2] = run_array(key, none, n, TEXTOID);
		values[3] = run_array(message, some, n, TEXTOID);
		dfx_store_sql("INSERT INTO @extschema@.dfx_training_error (run, number, key, message)"
					  " SELECT $1, $2 + i, k, m FROM unnest($3, $4) WITH ORDINALITY AS u (k, m, i)",
					  lengthof(types), types, values);
		run->nerror_stored += n;
	}
}

void
dfx_train_run_planned(DfxTrainRun *run)
{
	Oid			types[] = {INT8OID};
	Datum		id = Int64GetDatum(run->id);
	DfxStore	store;

	dfx_store_begin(&store);
	if (!run->stored)
	{
		for (int64 i = 0; i < run->nrow;)
			i = run_insert_samples(run, i);
		run_insert_errors(run);
	}
	dfx_store_sql("UPDATE @extschema@.dfx_training_run SET state = 'training' WHERE id = $1", 1, types, &id);
	dfx_store_end(&store);
}

void
dfx_train_run_failed(DfxTrainRun *run, const ErrorData *error)
{
	Oid			types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID};
	bool		canceled = error->sqlerrcode == ERRCODE_QUERY_CANCELED;
	Datum		values[] = {
		Int64GetDatum(run->id),
		CStringGetTextDatum(canceled ? "canceled" : "failed"),
		CStringGetTextDatum(error->message ? error->message : ""),
		CStringGetTextDatum(unpack_sql_state(error->sqlerrcode))
	};
	DfxStore	store;

	dfx_store_begin(&store);
	run_insert_errors(run);
	dfx_store_sql("UPDATE @extschema@.dfx_training_run SET state = $2, error = $3, sqlstate = $4,"
				  " ended = pg_catalog.clock_timestamp() WHERE id = $1",
				  lengthof(types), types, values);
	dfx_store_end(&store);
}

static void
run_load_sample(DfxTrainRow *row, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	bytea	   *sha256 = DatumGetByteaPP(SPI_getbinval(tuple, desc, 3, &isnull));
	int			class = dfx_train_class(SPI_getvalue(tuple, desc, 4));
	int			split = -1;

	for (int i = 0; i < DFX_SPLIT_COUNT; i++)
		if (strcmp(dfx_train_split_name[i], SPI_getvalue(tuple, desc, 5)) == 0)
			split = i;
	if (VARSIZE_ANY_EXHDR(sha256) != sizeof(row->sha256) || class < 0 || split < 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a stored sample of the training run is damaged")));
	row->number = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	row->key = SPI_getvalue(tuple, desc, 2);
	memcpy(row->sha256, VARDATA_ANY(sha256), sizeof(row->sha256));
	row->label = class;
	row->split = split;
	row->base = DatumGetInt32(SPI_getbinval(tuple, desc, 6, &isnull));
}

void
dfx_train_run_load_samples(DfxTrainRun *run)
{
	Oid			types[] = {INT8OID};
	Datum		id = Int64GetDatum(run->id);
	DfxStore	store;

	dfx_store_begin(&store);
	dfx_store_sql("SELECT number, key, sha256, label, split, base FROM @extschema@.dfx_sample WHERE run = $1"
				  " ORDER BY number", 1, types, &id);
	run->nstored = SPI_processed;
	run->stored = MemoryContextAllocExtended(run->context, Max(run->nstored, 1) * sizeof(DfxTrainRow),
											 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int64 i = 0; i < run->nstored; i++)
	{
		run_load_sample(&run->stored[i], SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		run->stored[i].key = MemoryContextStrdup(run->context, run->stored[i].key);
	}
	dfx_store_end(&store);
}

/* ---- epochs ---- */

static void
run_insert_epoch(DfxTrainRun *run, const DfxTrainEpoch *e)
{
	Oid			types[] = {INT8OID, INT4OID, TEXTOID, INT4OID, INT4OID, BOOLOID, FLOAT8OID, FLOAT8OID, FLOAT8OID,
	FLOAT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID};
	char		phase[DFX_TRAIN_PHASE];
	Datum		values[] = {
		Int64GetDatum(run->id),
		Int32GetDatum(++run->nepoch),
		(Datum) 0,
		Int32GetDatum((int32) e->epoch),
		Int32GetDatum((int32) e->epochs),
		BoolGetDatum(e->best != 0),
		Float8GetDatum(e->learning_rate),
		Float8GetDatum(e->train_loss),
		Float8GetDatum(e->train_accuracy),
		Float8GetDatum(e->val_loss),
		Float8GetDatum(e->val_accuracy),
		Float8GetDatum(e->seconds),
		Float8GetDatum(e->images_per_second),
	};

	dfx_clean_text(phase, sizeof(phase), e->phase, sizeof(e->phase));
	values[2] = CStringGetTextDatum(phase);
	dfx_store_sql("INSERT INTO @extschema@.dfx_training_epoch (run, number, phase, epoch, epochs, best, learning_rate,"
				  " train_loss, train_accuracy, val_loss, val_accuracy, seconds, images_per_second)"
				  " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
				  lengthof(types), types, values);
}

void
dfx_train_run_epochs(DfxTrainRun *run)
{
	DfxStore	store;

	dfx_store_begin(&store);
	for (int i = 0; i < run->npending; i++)
		run_insert_epoch(run, &run->pending[i]);
	dfx_store_end(&store);
}
