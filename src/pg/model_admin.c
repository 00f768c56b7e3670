/*
 * model_admin.c
 *	  Default, owner, drop, grant, revoke.
 *
 * Managing a model is its owner's and superusers' business, and the database
 * owner's when its owner is gone; the default is a
 * setting of the database, so it is the database owner's.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_database.h"
#include "catalog/pg_db_role_setting.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pg/model.h"
#include "pg/queue.h"
#include "pg/settings.h"
#include "catalog/pg_shdepend.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define ADMIN_DEFAULT_MODEL "dfx.default_model"

PG_FUNCTION_INFO_V1(dfx_set_default_model);
PG_FUNCTION_INFO_V1(dfx_alter_model_owner);
PG_FUNCTION_INFO_V1(dfx_drop_model);
PG_FUNCTION_INFO_V1(dfx_grant_model);
PG_FUNCTION_INFO_V1(dfx_revoke_model);

/* ---- the default model ---- */

void
dfx_model_require_may_default(void)
{
	shdepLockAndCheckObject(DatabaseRelationId, MyDatabaseId);
	if (!dfx_owns_database())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of the database to set its default model"),
				 errhint("SET dfx.default_model and ALTER ROLE ... SET dfx.default_model need no such right.")));
}

void
dfx_model_make_default(const char *name)
{
	VariableSetStmt *stmt = makeNode(VariableSetStmt);

	stmt->kind = name ? VAR_SET_VALUE : VAR_RESET;
	stmt->name = pstrdup(ADMIN_DEFAULT_MODEL);
	if (name)
	{
		A_Const    *value = makeNode(A_Const);

		value->val.sval.type = T_String;
		value->val.sval.sval = pstrdup(name);
		value->location = -1;
		stmt->args = list_make1(value);
	}
	AlterSetting(MyDatabaseId, InvalidOid, stmt);
	(void) set_config_option(ADMIN_DEFAULT_MODEL, name ? name : "", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SET, true, 0, false);
}

/*
 * dfx_set_default_model(name text) -> void; NULL for none.  Sessions that are
 * connected already keep the default they began with, as with any setting of a
 * database.
 */
Datum
dfx_set_default_model(PG_FUNCTION_ARGS)
{
	char	   *name = PG_ARGISNULL(0) ? NULL : dfx_name_arg(fcinfo, 0);
	DfxModelRef model;

	PreventCommandIfReadOnly("dfx_set_default_model()");
	PreventCommandIfParallelMode("dfx_set_default_model()");
	dfx_require_ring();			/* else the setting may not be defined in new sessions */
	dfx_model_require_may_default();
	if (name)
		dfx_model_resolve(cstring_to_text(name), &model);
	dfx_model_make_default(name);
	PG_RETURN_VOID();
}

/* Does an array of "name=value" settings make that model the default? */
static bool
admin_settings_name(Datum config, const char *name)
{
	char	   *wanted = psprintf(ADMIN_DEFAULT_MODEL "=%s", name);
	Datum	   *items;
	int			n;
	bool		found = false;

	deconstruct_array(DatumGetArrayTypeP(config), TEXTOID, -1, false, TYPALIGN_INT, &items, NULL, &n);
	for (int i = 0; i < n && !found; i++)
		found = strcmp(TextDatumGetCString(items[i]), wanted) == 0;
	pfree(wanted);
	return found;
}

/* Is the model what ALTER DATABASE made the default here? */
static bool
admin_is_default(const char *name)
{
	Relation	rel = table_open(DbRoleSettingRelationId, AccessShareLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		isnull,
				found = false;

	ScanKeyInit(&key[0], Anum_pg_db_role_setting_setdatabase, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(MyDatabaseId));
	ScanKeyInit(&key[1], Anum_pg_db_role_setting_setrole, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(InvalidOid));
	scan = systable_beginscan(rel, DbRoleSettingDatidRolidIndexId, true, NULL, 2, key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Datum		config = heap_getattr(tuple, Anum_pg_db_role_setting_setconfig, RelationGetDescr(rel), &isnull);

		found = !isnull && admin_settings_name(config, name);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

void
dfx_model_require_not_default(const char *name)
{
	if (admin_is_default(name))
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("model \"%s\" is the default model of this database", name),
				 errhint("Choose another one with dfx_set_default_model(), NULL for none.")));
}

/* ---- owner ---- */

/*
 * dfx_alter_model_owner(name text, new_owner text) -> void: as ALTER TABLE ...
 * OWNER TO, for the present owner who could also become the new one, and for
 * superusers; for the database's owner when the present one is gone.  Grants stay.
 */
Datum
dfx_alter_model_owner(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	char	   *owner = dfx_text_arg(fcinfo, 1, "new owner");
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {CStringGetTextDatum(name), CStringGetTextDatum(owner)};
	DfxStore	store;

	PreventCommandIfReadOnly("dfx_alter_model_owner()");
	PreventCommandIfParallelMode("dfx_alter_model_owner()");
	dfx_model_require_owner(name);
	DfxCheckCanBecome(GetUserId(), get_role_oid(owner, false));
	dfx_store_begin(&store);
	dfx_store_sql("UPDATE @extschema@.dfx_model SET owner = $2 WHERE name = $1", 2, types, values);
	dfx_store_end(&store);
	PG_RETURN_VOID();
}

/* ---- drop ----
 *
 * Sessions with an older snapshot still see the rows and go on using the
 * model; the engine forgets it when memory is needed.
 */

/* dfx_drop_model(name text) -> void: the name, its history and grants, and the versions nobody else uses. */
Datum
dfx_drop_model(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	Oid			types[] = {TEXTOID};
	Datum		values[1],
				versions;
	DfxStore	store;
	bool		isnull;

	PreventCommandIfReadOnly("dfx_drop_model()");
	PreventCommandIfParallelMode("dfx_drop_model()");
	dfx_model_require_owner(name);
	dfx_model_require_not_default(name);

	values[0] = CStringGetTextDatum(name);
	dfx_store_begin(&store);
	dfx_store_sql("SELECT array_agg(DISTINCT version) FROM @extschema@.dfx_model_history WHERE name = $1",
				  1, types, values);
	versions = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		versions = PointerGetDatum(construct_empty_array(BYTEAOID));
	dfx_store_sql("DELETE FROM @extschema@.dfx_model WHERE name = $1", 1, types, values);
	dfx_store_delete_unused(versions);
	dfx_store_end(&store);
	PG_RETURN_VOID();
}

/* ---- grant and revoke ---- */

/* A grantee as the table has it: "" for public.  42704 when a role to grant to does not exist. */
static char *
admin_grantee(FunctionCallInfo fcinfo, bool must_exist)
{
	char	   *role = dfx_text_arg(fcinfo, 1, "role");

	if (strcmp(role, "public") == 0)
		return pstrdup("");
	if (must_exist)
		(void) get_role_oid(role, false);
	return role;
}

static void
admin_change_grant(FunctionCallInfo fcinfo, bool grant, const char *sql)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[2];
	DfxStore	store;

	/* A role that was dropped can still be revoked from. */
	values[1] = CStringGetTextDatum(admin_grantee(fcinfo, grant));
	values[0] = CStringGetTextDatum(name);
	dfx_model_require_owner(name);
	dfx_store_begin(&store);
	dfx_store_sql(sql, 2, types, values);
	dfx_store_end(&store);
}

/* dfx_grant_model(name text, role text) -> void */
Datum
dfx_grant_model(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("dfx_grant_model()");
	PreventCommandIfParallelMode("dfx_grant_model()");
	admin_change_grant(fcinfo, true,
					   "INSERT INTO @extschema@.dfx_model_grant (name, grantee) VALUES ($1, $2)"
					   " ON CONFLICT DO NOTHING");
	PG_RETURN_VOID();
}

/* dfx_revoke_model(name text, role text) -> void */
Datum
dfx_revoke_model(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("dfx_revoke_model()");
	PreventCommandIfParallelMode("dfx_revoke_model()");
	admin_change_grant(fcinfo, false,
					   "DELETE FROM @extschema@.dfx_model_grant WHERE name = $1 AND grantee = $2");
	PG_RETURN_VOID();
}
