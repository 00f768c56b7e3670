/*
 * catalog.c
 *	  From a model's name to its version: the tables, and who may use what.
 *
 * These look-ups happen once for every image, under the active snapshot, so
 * that all rows of a statement meet the same version and a change commits for
 * everyone at once.  They read the tables directly, by OID: no search_path, no
 * privileges of the tables and no plan are involved, only the question that
 * catalog_may_use() answers.
 *
 * The OIDs are remembered for the backend's life and forgotten when any of
 * these relations is invalidated, as DROP EXTENSION and its rollback do.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pg/model.h"
#include "pg/queue.h"
#include "pg/settings.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(dfx_model_usable);

/* Columns, in the order of the install script. */
enum
{
	MODEL_NAME = 1, MODEL_VERSION, MODEL_OWNER
};
enum
{
	VERSION_VERSION = 1, VERSION_KIND, VERSION_BACKBONE, VERSION_OPTIONS
};
enum
{
	GRANT_NAME = 1, GRANT_GRANTEE
};

static const char *const catalog_tables[DFX_TABLE_COUNT] = {
	[DFX_TABLE_VERSION] = "dfx_model_version",
	[DFX_TABLE_TENSOR] = "dfx_model_tensor",
	[DFX_TABLE_CHUNK] = "dfx_model_chunk",
	[DFX_TABLE_MODEL] = "dfx_model",
	[DFX_TABLE_HISTORY] = "dfx_model_history",
	[DFX_TABLE_GRANT] = "dfx_model_grant",
};

static DfxCatalog catalog;
static bool catalog_valid;
static bool catalog_stale;		/* something changed while catalog was being filled */

/* ---- the extension's OIDs ---- */

static void
catalog_on_invalidation(Datum arg, Oid relid)
{
	catalog_stale = true;
	for (int i = 0; i < DFX_TABLE_COUNT; i++)
		if (relid == catalog.table[i])
			catalog_valid = false;
	if (!OidIsValid(relid))
		catalog_valid = false;
}

Oid
dfx_extension_schema(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	Oid			schema = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("deepfeaturex"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		schema = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return schema;
}

/* Only a superuser who edits an extension by hand gets to see this. */
static Oid
catalog_object(Oid oid, const char *name)
{
	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" of extension deepfeaturex is missing", name),
				 errhint("Drop the extension and create it again.")));
	return oid;
}

static Oid
catalog_type(Oid schema, const char *name)
{
	return catalog_object(GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
										  PointerGetDatum(name), ObjectIdGetDatum(schema)), name);
}

/*
 * A dozen look-ups the first time in a session, none later.  Filling it reads
 * catalogs, which may accept invalidations, ours among them.
 */
const DfxCatalog *
dfx_catalog(void)
{
	static bool watching = false;
	Oid			schema;

	if (catalog_valid)
		return &catalog;
	if (!watching)
	{
		CacheRegisterRelcacheCallback(catalog_on_invalidation, (Datum) 0);
		watching = true;
	}

	catalog_stale = false;
	schema = dfx_extension_schema();
	if (!OidIsValid(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension deepfeaturex is not installed in this database")));
	catalog.schema = schema;
	catalog.class_type = catalog_type(schema, "dfx_class");
	catalog.verdict_type = catalog_type(schema, "dfx_verdict");
	for (int i = 0; i < DFX_TABLE_COUNT; i++)
	{
		char	   *pkey = psprintf("%s_pkey", catalog_tables[i]);

		catalog.table[i] = catalog_object(get_relname_relid(catalog_tables[i], schema), catalog_tables[i]);
		catalog.pkey[i] = catalog_object(get_relname_relid(pkey, schema), pkey);
		pfree(pkey);
	}
	/* What changed meanwhile may have been one of these: then they serve this call only. */
	catalog_valid = !catalog_stale;
	return &catalog;
}

/* ---- rows ---- */

/* Begin a scan of a table by the first columns of its primary key; locks are kept, as in any query. */
static SysScanDesc
catalog_scan(DfxTable which, Relation *rel, int nkeys, ScanKey keys)
{
	*rel = table_open(dfx_catalog()->table[which], AccessShareLock);

	/* REINDEX CONCURRENTLY drops no index that was looked up under the table's lock. */
	return systable_beginscan(*rel, dfx_catalog()->pkey[which], true, GetActiveSnapshot(), nkeys, keys);
}

static void
catalog_text_key(ScanKey key, AttrNumber column, const char *value)
{
	/* ScanKeyInit() gives the key collation "C", which is that of these columns. */
	ScanKeyInit(key, column, BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(value));
}

/* All columns read here are NOT NULL, but the index that was used may be damaged. */
static Datum
catalog_column(HeapTuple tuple, AttrNumber column, Relation rel)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("column %d of table \"%s\" is null", column, RelationGetRelationName(rel))));
	return value;
}

/* Fetch a name's version and owner (each may be NULL); false when there is no such name. */
static bool
catalog_fetch(const char *name, uint8 *version, char **owner)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found;

	catalog_text_key(&key, MODEL_NAME, name);
	scan = catalog_scan(DFX_TABLE_MODEL, &rel, 1, &key);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found && version)
	{
		bytea	   *v = DatumGetByteaPP(catalog_column(tuple, MODEL_VERSION, rel));

		if (VARSIZE_ANY_EXHDR(v) != DFX_VERSION_LEN)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the version of model \"%s\" is damaged", name)));
		memcpy(version, VARDATA_ANY(v), DFX_VERSION_LEN);
	}
	if (found && owner)
		*owner = TextDatumGetCString(catalog_column(tuple, MODEL_OWNER, rel));
	systable_endscan(scan);
	table_close(rel, NoLock);
	return found;
}

/* ---- who may use what ---- */

bool
dfx_owns_database(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	owner = ((Form_pg_database) GETSTRUCT(tuple))->datdba;
	ReleaseSysCache(tuple);
	return has_privs_of_role(GetUserId(), owner);
}

/*
 * Has the current user the rights of the role that owns something?  What was
 * left by a role that is gone, dropped or renamed, is the database owner's to
 * care for, and superusers'.  (A role made again under an old name has its
 * models back: names are what dumps and standbys carry.)
 */
bool
dfx_has_role(const char *owner)
{
	Oid			oid = get_role_oid(owner, true);

	return OidIsValid(oid) ? has_privs_of_role(GetUserId(), oid) : dfx_owns_database();
}

/* A grant to a role that is gone is nobody's. */
static bool
catalog_is_grantee(const char *role)
{
	Oid			oid;

	if (role[0] == '\0')
		return true;
	oid = get_role_oid(role, true);
	return OidIsValid(oid) && has_privs_of_role(GetUserId(), oid);
}

/* The owner, and whom dfx_grant_model() named; membership counts as it does for tables. */
static bool
catalog_may_use(const char *name, const char *owner)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		allowed = false;

	if (dfx_has_role(owner))
		return true;
	catalog_text_key(&key, GRANT_NAME, name);
	scan = catalog_scan(DFX_TABLE_GRANT, &rel, 1, &key);
	while (!allowed && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		char	   *grantee = TextDatumGetCString(catalog_column(tuple, GRANT_GRANTEE, rel));

		allowed = catalog_is_grantee(grantee);
		pfree(grantee);
	}
	systable_endscan(scan);
	table_close(rel, NoLock);
	return allowed;
}

bool
dfx_model_find(const text *name, DfxModelRef *model)
{
	char	   *wanted = name ? text_to_cstring(name) : pstrdup(dfx_default_model);
	char	   *owner;
	bool		found;

	found = catalog_fetch(wanted, model->version, &owner) && catalog_may_use(wanted, owner);
	strlcpy(model->name, wanted, sizeof(model->name));
	pfree(wanted);
	return found;
}

pg_noreturn static void
catalog_not_owner(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of model \"%s\"", name)));
}

/*
 * Once for every image.  As with tables, the message tells a model that does
 * not exist from one that is not for this user: names are no secrets.
 */
void
dfx_model_resolve(const text *name, DfxModelRef *model)
{
	char	   *wanted = name ? text_to_cstring(name) : pstrdup(dfx_default_model);
	char	   *owner;

	if (wanted[0] == '\0' && !name)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no model is named, and dfx.default_model is not set"),
				 errhint("SELECT dfx_install_starter_model() loads the one that comes with the extension;"
						 " your own is for dfx_import_model() and dfx_set_default_model().")));
	if (!catalog_fetch(wanted, model->version, &owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("model \"%s\" does not exist", wanted),
				 name ? 0 : errdetail("It is the value of dfx.default_model.")));
	if (!catalog_may_use(wanted, owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for model \"%s\"", wanted),
				 errhint("Its owner can allow it with dfx_grant_model().")));
	strlcpy(model->name, wanted, sizeof(model->name));
	pfree(wanted);
	pfree(owner);
}

void
dfx_model_resolve_own(const text *name, DfxModelRef *model)
{
	char	   *owner;

	dfx_model_resolve(name, model);
	if (catalog_fetch(model->name, NULL, &owner) && !dfx_has_role(owner))
		catalog_not_owner(model->name);
}

/*
 * The lock is on a hash of the name within this database: two names that share
 * one wait for each other, which is harmless.
 */
static Oid
catalog_lock_key(const char *name)
{
	return string_hash(name, NAMEDATALEN);
}

void
dfx_model_lock(const char *name)
{
	LockDatabaseObject(dfx_catalog()->table[DFX_TABLE_MODEL], catalog_lock_key(name), 0, ExclusiveLock);
}

/* By key, so that sessions that rename a to b and b to a meet at the same lock first. */
void
dfx_model_lock_two(const char *a, const char *b)
{
	bool		a_first = catalog_lock_key(a) <= catalog_lock_key(b);

	dfx_model_lock(a_first ? a : b);
	dfx_model_lock(a_first ? b : a);
}

void
dfx_model_require_new(const char *name)
{
	bool		found;

	dfx_model_lock(name);
	PushActiveSnapshot(GetTransactionSnapshot());
	found = catalog_fetch(name, NULL, NULL);
	PopActiveSnapshot();
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("model \"%s\" already exists", name)));
}

char *
dfx_model_owner(const char *name)
{
	char	   *owner;
	bool		found;

	dfx_model_lock(name);

	/* Whoever had the lock may have committed since the statement's snapshot. */
	PushActiveSnapshot(GetTransactionSnapshot());
	found = catalog_fetch(name, NULL, &owner);
	PopActiveSnapshot();
	if (!found)
		return NULL;
	if (!dfx_has_role(owner))
		catalog_not_owner(name);
	return owner;
}

char *
dfx_model_require_owner(const char *name)
{
	char	   *owner = dfx_model_owner(name);

	if (!owner)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("model \"%s\" does not exist", name)));
	return owner;
}

/* dfx_model_usable(name text) -> boolean, for the view dfx_models. */
Datum
dfx_model_usable(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *owner;

	PG_RETURN_BOOL(catalog_fetch(name, NULL, &owner) && catalog_may_use(name, owner));
}

/* ---- metadata ----
 *
 * The engine hashes the canonical text of it, so what is read here must give
 * back that text exactly; a row that was edited gives XX001 at the next load.
 */

static JsonbValue *
meta_option(Jsonb *options, const char *key, enum jbvType type)
{
	JsonbValue *v = JB_ROOT_IS_OBJECT(options) ?
		getKeyJsonValueFromContainer(&options->root, key, strlen(key), NULL) : NULL;

	return v && v->type == type ? v : NULL;
}

static bool
meta_number(Jsonb *options, const char *key, uint32_t *value)
{
	JsonbValue *v = meta_option(options, key, jbvNumeric);
	bool		error = false;
	int32		n = v ? numeric_int4_opt_error(v->val.numeric, &error) : -1;

	*value = (uint32_t) n;
	return n >= 0 && !error;
}

/* Copy n bytes to a C string of size cap; false when they do not fit or hold a NUL. */
static bool
meta_copy(char *dst, Size cap, const char *src, Size n)
{
	if (n >= cap || memchr(src, '\0', n))
		return false;
	memcpy(dst, src, n);
	dst[n] = '\0';
	return true;
}

static bool
meta_from_row(HeapTuple tuple, Relation rel, DfxModelMeta *meta)
{
	text	   *kind = DatumGetTextPP(catalog_column(tuple, VERSION_KIND, rel));
	text	   *backbone = DatumGetTextPP(catalog_column(tuple, VERSION_BACKBONE, rel));
	Jsonb	   *options = DatumGetJsonbP(catalog_column(tuple, VERSION_OPTIONS, rel));
	JsonbValue *classes = meta_option(options, "classes", jbvString);

	memset(meta, 0, sizeof(*meta));
	return classes != NULL &&
		meta_copy(meta->kind, sizeof(meta->kind), VARDATA_ANY(kind), VARSIZE_ANY_EXHDR(kind)) &&
		meta_copy(meta->backbone, sizeof(meta->backbone), VARDATA_ANY(backbone), VARSIZE_ANY_EXHDR(backbone)) &&
		meta_copy(meta->classes, sizeof(meta->classes), classes->val.string.val, classes->val.string.len) &&
		meta_number(options, "head_stride", &meta->head_stride) &&
		meta_number(options, "input_size", &meta->input_size);
}

void
dfx_model_meta(const DfxModelRef *model, DfxModelMeta *meta)
{
	bytea	   *version = palloc(VARHDRSZ + DFX_VERSION_LEN);
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	SET_VARSIZE(version, VARHDRSZ + DFX_VERSION_LEN);
	memcpy(VARDATA(version), model->version, DFX_VERSION_LEN);
	ScanKeyInit(&key, VERSION_VERSION, BTEqualStrategyNumber, F_BYTEAEQ, PointerGetDatum(version));
	scan = catalog_scan(DFX_TABLE_VERSION, &rel, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple) || !meta_from_row(tuple, rel, meta))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the metadata of model \"%s\" is missing or damaged", model->name)));
	systable_endscan(scan);
	table_close(rel, NoLock);
	pfree(version);
}

/* ---- arguments and errors ---- */

char *
dfx_text_arg(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

char *
dfx_name_arg(FunctionCallInfo fcinfo, int n)
{
	char	   *name = dfx_text_arg(fcinfo, n, "model name");

	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("model name must not be empty")));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("model name \"%s\" is too long", name),
				 errdetail("It has %zu bytes; at most %d are allowed.", strlen(name), NAMEDATALEN - 1)));
	return name;
}

void
dfx_err_raise(const DfxErr *err)
{
	DfxReply	reply = {.status = err->code};

	strlcpy(reply.msg, err->msg, sizeof(reply.msg));
	strlcpy(reply.hint, err->hint, sizeof(reply.hint));
	dfx_reply_raise(&reply);
	elog(ERROR, "no error to raise");	/* the caller had DFX_OK */
}
