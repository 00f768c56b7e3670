/*
 * store.c
 *	  Writing models: SQL run as the owner of the extension's tables.
 *
 * Unlike reading, writing goes through SQL, because foreign keys, unique and
 * check constraints must hold against every concurrent session.  The caller
 * has asked who may do what before.
 *
 * Concurrency, so that nobody waits for anybody else's model:
 *	- Whoever changes a name holds a lock on it from the first look on
 *	  (dfx_model_owner()), so a name is checked and changed as one.  It comes
 *	  before any lock on a version: with one order there is no deadlock.
 *	- Importers of the same content meet at the version's primary key: the
 *	  second waits for the first, then shares its rows.
 *	- A new reference to a version takes KEY SHARE on its row (its foreign
 *	  key does); dropping takes FOR UPDATE before it looks for references in
 *	  a newer snapshot.  So a version in use is never dropped, nor a dropped
 *	  one used.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pg/model.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define STORE_MAX_ATTEMPTS	10

/* ---- the SQL session ---- */

void
dfx_store_begin(DfxStore *s)
{
	Relation	rel = table_open(dfx_catalog()->table[DFX_TABLE_MODEL], AccessShareLock);
	Oid			owner = rel->rd_rel->relowner;

	table_close(rel, NoLock);
	GetUserIdAndSecContext(&s->user, &s->sec_context);
	SetUserIdAndSecContext(owner, s->sec_context | SECURITY_LOCAL_USERID_CHANGE);
	s->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
dfx_store_end(DfxStore *s)
{
	SPI_finish();
	AtEOXact_GUC(false, s->guc_level);
	SetUserIdAndSecContext(s->user, s->sec_context);
}

uint64
dfx_store_sql(const char *sql, int nargs, Oid *types, Datum *values)
{
	return dfx_store_sql_nulls(sql, nargs, types, values, NULL);
}

uint64
dfx_store_sql_nulls(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	static const char marker[] = "@extschema@";
	const char *schema = quote_identifier(get_namespace_name(dfx_catalog()->schema));
	StringInfoData query;
	const char *hit;
	int			rc;

	initStringInfo(&query);
	for (; (hit = strstr(sql, marker)) != NULL; sql = hit + strlen(marker))
	{
		appendBinaryStringInfo(&query, sql, hit - sql);
		appendStringInfoString(&query, schema);
	}
	appendStringInfoString(&query, sql);
	rc = SPI_execute_with_args(query.data, nargs, types, values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(rc), query.data);
	pfree(query.data);
	return SPI_processed;
}

Datum
dfx_store_bytea(const void *p, Size n)
{
	bytea	   *value = palloc(VARHDRSZ + n);

	SET_VARSIZE(value, VARHDRSZ + n);
	memcpy(VARDATA(value), p, n);
	return PointerGetDatum(value);
}

/* ---- versions ---- */

/* {"classes": ..., "head_stride": ..., "input_size": ...} */
static Datum
store_options(const DfxModelMeta *meta)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"classes\": ");
	escape_json(&json, meta->classes);
	appendStringInfo(&json, ", \"head_stride\": %u, \"input_size\": %u}", meta->head_stride, meta->input_size);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

bool
dfx_store_hold_version(const uint8 *version)
{
	Oid			types[] = {BYTEAOID};
	Datum		values[] = {dfx_store_bytea(version, DFX_VERSION_LEN)};

	return dfx_store_sql("SELECT FROM @extschema@.dfx_model_version WHERE version = $1 FOR KEY SHARE",
						 1, types, values) == 1;
}

bool
dfx_store_version(const uint8 *version, const DfxModelMeta *meta)
{
	Oid			types[] = {BYTEAOID, TEXTOID, TEXTOID, JSONBOID};
	Datum		values[] = {
		dfx_store_bytea(version, DFX_VERSION_LEN),
		CStringGetTextDatum(meta->kind),
		CStringGetTextDatum(meta->backbone),
		store_options(meta),
	};

	for (int i = 0; i < STORE_MAX_ATTEMPTS; i++)
	{
		if (dfx_store_sql("INSERT INTO @extschema@.dfx_model_version (version, kind, backbone, options)"
						  " VALUES ($1, $2, $3, $4) ON CONFLICT (version) DO NOTHING",
						  4, types, values) == 1)
			return true;
		if (dfx_store_hold_version(version))
			return false;
		/* It was dropped between the two statements: try again. */
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the model's version is being dropped and imported by others"),
			 errhint("Try again.")));
}

void
dfx_store_tensor(const uint8 *version, int32 number, const DfxTensor *t, const uint8 *sha256)
{
	Oid			types[] = {BYTEAOID, INT4OID, TEXTOID, TEXTOID, INT8ARRAYOID, INT8OID, BYTEAOID};
	Datum		dims[DFX_MAX_RANK];
	Datum		values[lengthof(types)];

	for (uint32_t i = 0; i < t->rank; i++)
		dims[i] = Int64GetDatum((int64) t->dim[i]);
	values[0] = dfx_store_bytea(version, DFX_VERSION_LEN);
	values[1] = Int32GetDatum(number);
	values[2] = CStringGetTextDatum(t->name);
	values[3] = CStringGetTextDatum(dfx_dtype_name(t->dtype));
	values[4] = PointerGetDatum(construct_array(dims, t->rank, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	values[5] = Int64GetDatum((int64) t->nbytes);
	values[6] = dfx_store_bytea(sha256, 32);
	dfx_store_sql("INSERT INTO @extschema@.dfx_model_tensor (version, number, name, dtype, shape, bytes, sha256)"
				  " VALUES ($1, $2, $3, $4, $5, $6, $7)",
				  lengthof(types), types, values);
}

void
dfx_store_chunk(const uint8 *version, int32 number, int32 chunk, bytea *data)
{
	Oid			types[] = {BYTEAOID, INT4OID, INT4OID, BYTEAOID};
	Datum		values[] = {
		dfx_store_bytea(version, DFX_VERSION_LEN),
		Int32GetDatum(number),
		Int32GetDatum(chunk),
		PointerGetDatum(data),
	};

	dfx_store_sql("INSERT INTO @extschema@.dfx_model_chunk (version, tensor, chunk, data) VALUES ($1, $2, $3, $4)",
				  lengthof(types), types, values);
}

/* ---- names ---- */

void
dfx_store_name(const char *name, const uint8 *version, const char *owner)
{
	Oid			types[] = {TEXTOID, BYTEAOID, TEXTOID};
	Datum		values[] = {
		CStringGetTextDatum(name),
		dfx_store_bytea(version, DFX_VERSION_LEN),
		CStringGetTextDatum(owner),
	};

	if (dfx_store_sql("INSERT INTO @extschema@.dfx_model AS m (name, version, owner) VALUES ($1, $2, $3)"
					  " ON CONFLICT (name) DO UPDATE SET version = excluded.version"
					  " WHERE m.version <> excluded.version",
					  lengthof(types), types, values) == 1)
		/* The newest entry is the present version, also when the clock was set back. */
		dfx_store_sql("INSERT INTO @extschema@.dfx_model_history (name, version, since)"
					  " SELECT $1, $2, GREATEST(clock_timestamp(), max(since) + interval '1 microsecond')"
					  " FROM @extschema@.dfx_model_history WHERE name = $1",
					  2, types, values);
}

/*
 * See above: lock, then look for other references in a newer snapshot.  From
 * REPEATABLE READ on there is no newer one, and the foreign keys find what it
 * would have shown.
 */
void
dfx_store_delete_unused(Datum versions)
{
	Oid			types[] = {BYTEAARRAYOID};
	MemoryContext context = CurrentMemoryContext;

	dfx_store_sql("SELECT FROM @extschema@.dfx_model_version WHERE version = ANY ($1) ORDER BY version FOR UPDATE",
				  1, types, &versions);
	PG_TRY();
	{
		dfx_store_sql("DELETE FROM @extschema@.dfx_model_version v WHERE version = ANY ($1)"
					  " AND NOT EXISTS (SELECT FROM @extschema@.dfx_model_history h WHERE h.version = v.version)"
					  " AND NOT EXISTS (SELECT FROM @extschema@.dfx_model m WHERE m.version = v.version)",
					  1, types, &versions);
	}
	PG_CATCH();
	{
		ErrorData  *e;

		MemoryContextSwitchTo(context);
		e = CopyErrorData();
		if (e->sqlerrcode != ERRCODE_FOREIGN_KEY_VIOLATION)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a version of the model got another name since this transaction began"),
				 errhint("Try again in a new transaction.")));
	}
	PG_END_TRY();
}
