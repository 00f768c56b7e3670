/*
 * model_names.c
 *	  Names and the versions they stand for: rename, copy, promote, prune.
 *
 * A name's history lists every version that it has stood for; the newest entry
 * is the present one.  Promoting an earlier version (a rollback) only points
 * the name at it and adds an entry: versions are immutable, and the engine
 * knows them by their content, so there is nothing to invalidate.  All of it
 * commits or rolls back with the transaction, and a statement that runs
 * meanwhile keeps the version of its snapshot.
 *
 * Lock order as in store.c: names, then versions.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pg/model.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

/* Fewer digits than this are no use to anybody and mistaken easily. */
#define NAMES_MIN_DIGITS	8

PG_FUNCTION_INFO_V1(dfx_rename_model);
PG_FUNCTION_INFO_V1(dfx_copy_model);
PG_FUNCTION_INFO_V1(dfx_promote_model);
PG_FUNCTION_INFO_V1(dfx_prune_model);

/* ---- rename and copy ---- */

/*
 * dfx_rename_model(name text, new_name text) -> void: with its history and
 * grants, which follow by their foreign keys.
 */
Datum
dfx_rename_model(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	char	   *new_name = dfx_name_arg(fcinfo, 1);
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {CStringGetTextDatum(name), CStringGetTextDatum(new_name)};
	DfxStore	store;

	PreventCommandIfReadOnly("dfx_rename_model()");
	PreventCommandIfParallelMode("dfx_rename_model()");
	dfx_model_lock_two(name, new_name);
	dfx_model_require_owner(name);
	dfx_model_require_not_default(name);
	dfx_model_require_new(new_name);
	dfx_store_begin(&store);
	dfx_store_sql("UPDATE @extschema@.dfx_model SET name = $2 WHERE name = $1", 2, types, values);
	dfx_store_end(&store);
	PG_RETURN_VOID();
}

/*
 * dfx_copy_model(name text, new_name text) -> text: another name, the user's
 * own, for the version that a model they may use stands for.  No weights are
 * copied: both names share the version's rows.
 */
Datum
dfx_copy_model(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	char	   *new_name = dfx_name_arg(fcinfo, 1);
	char		hex[DFX_VERSION_HEX_LEN];
	DfxModelRef model;
	DfxStore	store;

	PreventCommandIfReadOnly("dfx_copy_model()");
	PreventCommandIfParallelMode("dfx_copy_model()");
	dfx_model_require_new(new_name);
	PushActiveSnapshot(GetTransactionSnapshot());
	dfx_model_resolve(cstring_to_text(name), &model);
	PopActiveSnapshot();
	dfx_store_begin(&store);
	/* The source's name is not locked, so that its users cannot hold up its owner. */
	if (!dfx_store_hold_version(model.version))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("model \"%s\" was dropped meanwhile", name)));
	dfx_store_name(new_name, model.version, GetUserNameFromId(store.user, false));
	dfx_store_end(&store);
	dfx_version_hex(model.version, hex);
	PG_RETURN_TEXT_P(cstring_to_text(hex));
}

/* ---- versions of a name ---- */

/* What a user calls a version: its first digits at least, in lower case for the comparison. */
static char *
names_version_arg(FunctionCallInfo fcinfo, int n)
{
	char	   *digits = dfx_text_arg(fcinfo, n, "version");
	size_t		len = strlen(digits);

	for (char *p = digits; *p; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	if (len < NAMES_MIN_DIGITS || len > 2 * DFX_VERSION_LEN || strspn(digits, "0123456789abcdef") != len)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("\"%s\" is not a model version", digits),
				 errdetail("A version is given by %d to %d hexadecimal digits, the first ones of it or all.",
						   NAMES_MIN_DIGITS, 2 * DFX_VERSION_LEN)));
	return digits;
}

/* The one version in the name's history that begins with these digits. */
static void
names_find_version(const char *name, const char *digits, uint8 *version)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {CStringGetTextDatum(name), CStringGetTextDatum(digits)};
	uint64		found = dfx_store_sql("SELECT DISTINCT version FROM @extschema@.dfx_model_history"
									  " WHERE name = $1 AND starts_with(encode(version, 'hex'), $2)",
									  2, types, values);
	bytea	   *value;
	bool		isnull;

	if (found == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("model \"%s\" has no version %s", name, digits),
				 errhint("View dfx_model_versions lists those that it has.")));
	if (found > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("model \"%s\" has more than one version that begins with %s", name, digits),
				 errhint("Give more digits.")));
	value = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	Assert(!isnull && VARSIZE_ANY_EXHDR(value) == DFX_VERSION_LEN);
	memcpy(version, VARDATA_ANY(value), DFX_VERSION_LEN);
}

/*
 * dfx_promote_model(name text, version text) -> text: make the name stand for
 * a version of its history again.  Returns the version whole.
 */
Datum
dfx_promote_model(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	char	   *digits = names_version_arg(fcinfo, 1);
	char		hex[DFX_VERSION_HEX_LEN];
	uint8		version[DFX_VERSION_LEN];
	char	   *owner;
	DfxStore	store;

	PreventCommandIfReadOnly("dfx_promote_model()");
	PreventCommandIfParallelMode("dfx_promote_model()");
	owner = dfx_model_require_owner(name);
	dfx_store_begin(&store);
	names_find_version(name, digits, version);
	dfx_store_name(name, version, owner);
	dfx_store_end(&store);
	dfx_version_hex(version, hex);
	PG_RETURN_TEXT_P(cstring_to_text(hex));
}

/*
 * dfx_prune_model(name text, keep int) -> bigint: forget all but the newest
 * entries of the history, and the versions that nothing uses any more.
 * Returns how many entries went.
 */
Datum
dfx_prune_model(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	Oid			types[] = {TEXTOID, INT4OID};
	Datum		values[2];
	Datum		versions;
	int64		pruned;
	DfxStore	store;
	bool		isnull;

	PreventCommandIfReadOnly("dfx_prune_model()");
	PreventCommandIfParallelMode("dfx_prune_model()");
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of versions to keep must be at least 1"),
				 errhint("dfx_drop_model() removes a model with all its versions.")));
	dfx_model_require_owner(name);
	values[0] = CStringGetTextDatum(name);
	values[1] = PG_GETARG_DATUM(1);
	dfx_store_begin(&store);
	dfx_store_sql("WITH gone AS (DELETE FROM @extschema@.dfx_model_history WHERE name = $1 AND since < ("
				  "SELECT min(since) FROM (SELECT since FROM @extschema@.dfx_model_history WHERE name = $1"
				  " ORDER BY since DESC LIMIT $2) AS newest) RETURNING version)"
				  " SELECT array_agg(DISTINCT version), count(*) FROM gone",
				  2, types, values);
	versions = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		versions = PointerGetDatum(construct_empty_array(BYTEAOID));
	pruned = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	dfx_store_delete_unused(versions);
	dfx_store_end(&store);
	PG_RETURN_INT64(pruned);
}
