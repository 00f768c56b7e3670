/*
 * model.h
 *	  Models as the SQL functions see them: the tables of DESIGN section 4.
 *
 * Three layers.  catalog.c finds rows and answers "may this user?"; weights.c
 * reads a version's tensors in the order of the canonical stream, and both
 * read under the active snapshot with the extension owner's rights, after
 * that question.  store.c writes, through SQL, so that constraints hold.
 */
#ifndef DFX_PG_MODEL_H
#define DFX_PG_MODEL_H

#include "postgres.h"

#include "access/genam.h"
#include "base/version.h"
#include "fmgr.h"
#include "pg/compat.h"

/* A model that the current user may use, as its statement sees it. */
typedef struct DfxModelRef
{
	char		name[NAMEDATALEN];
	uint8		version[DFX_VERSION_LEN];
} DfxModelRef;

/* ---- catalog.c ---- */

typedef enum DfxTable
{
	DFX_TABLE_VERSION,
	DFX_TABLE_TENSOR,
	DFX_TABLE_CHUNK,
	DFX_TABLE_MODEL,
	DFX_TABLE_HISTORY,
	DFX_TABLE_GRANT,
	DFX_TABLE_COUNT
} DfxTable;

typedef struct DfxCatalog
{
	Oid			schema;
	Oid			class_type;
	Oid			verdict_type;
	Oid			table[DFX_TABLE_COUNT];
	Oid			pkey[DFX_TABLE_COUNT];	/* the primary key's index */
} DfxCatalog;

/* OIDs of the extension's objects in this database.  42704 when it is not installed. */
extern const DfxCatalog *dfx_catalog(void);

/* Where the extension lives in this database; InvalidOid when it is not installed. */
extern Oid	dfx_extension_schema(void);

/*
 * The model of that name, or dfx.default_model when name is NULL.
 * 42704: no such model, or no default.  42501: the user may not use it.
 */
extern void dfx_model_resolve(const text *name, DfxModelRef *model);

/* The same without an error: false where dfx_model_resolve() would raise one of these. */
extern bool dfx_model_find(const text *name, DfxModelRef *model);

/* dfx_model_resolve() for its owner's rights, without a lock: also 42501 when the user has them not. */
extern void dfx_model_resolve_own(const text *name, DfxModelRef *model);

/*
 * For changing a model: its owner, or NULL when there is no such model.  42501
 * when the user has not the owner's rights.  Until the transaction ends nobody
 * else can change what the name stands for.
 * dfx_model_require_owner: 42704 instead of NULL.
 */
extern char *dfx_model_owner(const char *name);
extern char *dfx_model_require_owner(const char *name);

/*
 * The lock alone; two of them (in one order for all sessions); and for a name
 * that is to be new: the lock, and 42710 when there is such a model.
 */
extern void dfx_model_lock(const char *name);
extern void dfx_model_lock_two(const char *a, const char *b);
extern void dfx_model_require_new(const char *name);

/*
 * Has the current user the rights of the role of that name, which owns
 * something?  The owner of the database has those of roles that are gone.
 */
extern bool dfx_has_role(const char *owner);

/* Is the current user the owner of this database, or a member of it? */
extern bool dfx_owns_database(void);

/* A version's metadata, from its row.  XX001 when that is missing or damaged. */
extern void dfx_model_meta(const DfxModelRef *model, DfxModelMeta *meta);

/* An argument that must be there, as a C string; 22004 otherwise. */
extern char *dfx_text_arg(FunctionCallInfo fcinfo, int n, const char *what);

/* The same for a model's name: also 22023 when it is empty, and 42622 when it is too long. */
extern char *dfx_name_arg(FunctionCallInfo fcinfo, int n);

/* ereport(ERROR) what a library room has reported. */
pg_noreturn extern void dfx_err_raise(const DfxErr *err);

/* ---- weights.c ---- */

/* Bytes in a chunk row as written here, and the most that a reader detoasts at once. */
#define DFX_CHUNK_BYTES (1024 * 1024)

typedef struct DfxWeights
{
	DfxTensor	tensor;			/* the present one; data is NULL */
	uint8		sha256[32];		/* of its bytes, as it was when stored */

	/* private to weights.c */
	const DfxModelRef *model;
	Relation	tensor_rel,
				tensor_idx,
				chunk_rel,
				chunk_idx;
	SysScanDesc tensor_scan,
				chunk_scan;
	int32		number;			/* of the present tensor, -1 before the first */
	uint64		done;			/* bytes of it already passed */
	bool		pending;		/* is there a chunk that begins at or after done? */
	int32		pending_tensor,
				pending_chunk;
	int32		expected_chunk;
	Datum		data;			/* the pending chunk's, perhaps toasted */
	Size		data_len,
				data_off;		/* bytes of it already passed */
} DfxWeights;

/*
 * Read a version's tensors under the active snapshot: open, then next until
 * false; after each next, read until 0.  Every chunk is checked for its place
 * and length, names for their order: XX001 names the model and the tensor.
 * read takes at most cap bytes, into buf, or nowhere (and without touching
 * them) when buf is NULL.
 */
extern void dfx_weights_open(DfxWeights *w, const DfxModelRef *model);
extern bool dfx_weights_next(DfxWeights *w);
extern Size dfx_weights_read(DfxWeights *w, char *buf, Size cap);
extern void dfx_weights_close(DfxWeights *w);

/* Read a version whole, and raise XX001 naming the first tensor whose bytes do not match their hash. */
extern void dfx_weights_check(const DfxModelRef *model);

/* The same for a version that is known to be damaged: raises in any case. */
pg_noreturn extern void dfx_weights_blame(const DfxModelRef *model);

/* ---- model_load.c ---- */

/* DfxCall.need_model; arg is the DfxModelRef. */
extern void dfx_model_need(const uint8 *version, uint64 order, int engine, void *arg);

/* Make a version resident in the engine, or raise. */
extern void dfx_model_load(const DfxModelRef *model);

/* ---- store.c ---- */

typedef struct DfxStore
{
	Oid			user;
	int			sec_context;
	int			guc_level;
} DfxStore;

/*
 * Between begin and end SQL runs as the owner of the extension's tables with a
 * safe search_path.  dfx_store_sql() replaces "@extschema@", returns the rows
 * processed and leaves them in SPI_tuptable.  An error ends all of it.
 */
extern void dfx_store_begin(DfxStore *s);
extern uint64 dfx_store_sql(const char *sql, int nargs, Oid *types, Datum *values);
extern uint64 dfx_store_sql_nulls(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls);	/* 'n': null */
extern void dfx_store_end(DfxStore *s);

/* Bytes as a value of type bytea. */
extern Datum dfx_store_bytea(const void *p, Size n);

/* Insert the version's row; false when it is there already (it is locked then, and stays). */
extern bool dfx_store_version(const uint8 *version, const DfxModelMeta *meta);

/* Lock a version's row against its deletion; false when there is none (any more). */
extern bool dfx_store_hold_version(const uint8 *version);

/* Insert a tensor's row, or one of its chunks. */
extern void dfx_store_tensor(const uint8 *version, int32 number, const DfxTensor *t, const uint8 *sha256);
extern void dfx_store_chunk(const uint8 *version, int32 number, int32 chunk, bytea *data);

/* Point the name at the version, and keep the history.  A new name gets that owner. */
extern void dfx_store_name(const char *name, const uint8 *version, const char *owner);

/* Delete those versions of a bytea[] that no name and no history refers to any more. */
extern void dfx_store_delete_unused(Datum versions);

/* ---- model_admin.c ---- */

/* Lock this database's row against DROP DATABASE, and raise 42501 unless the user owns it. */
extern void dfx_model_require_may_default(void);

/*
 * ALTER DATABASE ... SET dfx.default_model = name, or RESET when it is NULL,
 * and the same for this session; behind dfx_model_require_may_default().
 */
extern void dfx_model_make_default(const char *name);

/* 2BP01 when ALTER DATABASE made that model the default here. */
extern void dfx_model_require_not_default(const char *name);

#endif							/* DFX_PG_MODEL_H */
