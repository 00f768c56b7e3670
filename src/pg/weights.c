/*
 * weights.c
 *	  Reading a version's tensors in the order of the canonical stream.
 *
 * Two index scans run side by side, as in a merge join: tensors by number,
 * chunks by (tensor, number).  Numbers were given in byte order of the names,
 * which is checked again here, as is that chunks are there once each and add
 * up: a table that was damaged or tampered with gives XX001, never a wrong
 * verdict and never a read beyond what the shape announces.  (That the bytes
 * are the right ones is what the hash says, which the engine computes.)
 *
 * Memory: one row's slice of DFX_CHUNK_BYTES, however large the model is.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pg/model.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

enum
{
	TENSOR_VERSION = 1, TENSOR_NUMBER, TENSOR_NAME, TENSOR_DTYPE, TENSOR_SHAPE, TENSOR_BYTES, TENSOR_SHA256
};
enum
{
	CHUNK_VERSION = 1, CHUNK_TENSOR, CHUNK_CHUNK, CHUNK_DATA
};

/* Not "import it under another name": one version's rows serve all its names. */
#define WEIGHTS_HINT "Drop all models of this version, then import it again; or restore it from a backup."

pg_noreturn /* Raise XX001 with what is wrong with the present tensor. */
static void weights_corrupt(const DfxWeights *w, const char *fmt,...) pg_attribute_printf(2, 3);

static void
weights_corrupt(const DfxWeights *w, const char *fmt,...)
{
	char		what[128];
	va_list		ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the weights of model \"%s\" are damaged: tensor \"%s\" (number %d): %s",
					w->model->name, w->tensor.name, w->number, what),
			 errhint(WEIGHTS_HINT)));
}

/* ---- rows ---- */

/* All rows of a version in the order of the primary key. */
static SysScanDesc
weights_scan(DfxTable which, const uint8 *version, Relation *rel, Relation *idx)
{
	bytea	   *key_value = palloc(VARHDRSZ + DFX_VERSION_LEN);
	ScanKeyData key;

	SET_VARSIZE(key_value, VARHDRSZ + DFX_VERSION_LEN);
	memcpy(VARDATA(key_value), version, DFX_VERSION_LEN);
	*rel = table_open(dfx_catalog()->table[which], AccessShareLock);

	/* As in catalog_scan(): the index is looked up under the table's lock. */
	*idx = index_open(dfx_catalog()->pkey[which], AccessShareLock);
	StaticAssertStmt(TENSOR_VERSION == 1 && CHUNK_VERSION == 1, "both keys begin with the version");
	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_BYTEAEQ, PointerGetDatum(key_value));
	return systable_beginscan_ordered(*rel, *idx, GetActiveSnapshot(), 1, &key);
}

static Datum
weights_column(const DfxWeights *w, HeapTuple tuple, AttrNumber column, Relation rel)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, RelationGetDescr(rel), &isnull);

	if (isnull)
		weights_corrupt(w, "column %d of %s is null", column, RelationGetRelationName(rel));
	return value;
}

/* Look one chunk ahead; its tuple is valid until the next call, its bytes stay where they are. */
static void
weights_fetch_chunk(DfxWeights *w)
{
	HeapTuple	tuple = systable_getnext_ordered(w->chunk_scan, ForwardScanDirection);

	w->pending = HeapTupleIsValid(tuple);
	if (!w->pending)
		return;
	w->pending_tensor = DatumGetInt32(weights_column(w, tuple, CHUNK_TENSOR, w->chunk_rel));
	w->pending_chunk = DatumGetInt32(weights_column(w, tuple, CHUNK_CHUNK, w->chunk_rel));
	w->data = weights_column(w, tuple, CHUNK_DATA, w->chunk_rel);
	w->data_len = toast_raw_datum_size(w->data) - VARHDRSZ;
	w->data_off = 0;
}

/* bigint[] of at most DFX_MAX_RANK sizes; {} is a scalar. */
static void
weights_shape(DfxWeights *w, Datum value)
{
	ArrayType  *shape = DatumGetArrayTypeP(value);
	int			rank = ARR_NDIM(shape) == 0 ? 0 : ARR_DIMS(shape)[0];

	if (ARR_NDIM(shape) > 1 || rank > DFX_MAX_RANK || ARR_HASNULL(shape) || ARR_ELEMTYPE(shape) != INT8OID)
		weights_corrupt(w, "its shape is not a list of at most %d sizes", DFX_MAX_RANK);
	w->tensor.rank = rank;
	for (int i = 0; i < rank; i++)
	{
		int64		n = ((int64 *) ARR_DATA_PTR(shape))[i];

		if (n < 0)
			weights_corrupt(w, "a size of its shape is negative");
		w->tensor.dim[i] = n;
	}
	if ((Pointer) shape != DatumGetPointer(value))
		pfree(shape);
}

/* A tensor's row; its name must come after the one before. */
static void
weights_describe(DfxWeights *w, HeapTuple tuple)
{
	DfxTensor  *t = &w->tensor;
	Relation	rel = w->tensor_rel;
	text	   *name = DatumGetTextPP(weights_column(w, tuple, TENSOR_NAME, rel));
	text	   *dtype = DatumGetTextPP(weights_column(w, tuple, TENSOR_DTYPE, rel));
	bytea	   *sha = DatumGetByteaPP(weights_column(w, tuple, TENSOR_SHA256, rel));
	Size		len = VARSIZE_ANY_EXHDR(name);
	char		before[DFX_NAME_LEN];
	uint64		elements,
				nbytes;

	strlcpy(before, t->name, sizeof(before));
	memset(t, 0, sizeof(*t));
	memcpy(t->name, VARDATA_ANY(name), Min(len, DFX_NAME_LEN - 1));
	if (DatumGetInt32(weights_column(w, tuple, TENSOR_NUMBER, rel)) != w->number)
		weights_corrupt(w, "another tensor should come here");
	if (len == 0 || len >= DFX_NAME_LEN || (w->number > 0 && strcmp(before, t->name) >= 0))
		weights_corrupt(w, "its name is out of order");
	if (!dfx_dtype_parse(VARDATA_ANY(dtype), VARSIZE_ANY_EXHDR(dtype), &t->dtype))
		weights_corrupt(w, "its dtype is unknown");
	weights_shape(w, weights_column(w, tuple, TENSOR_SHAPE, rel));
	t->nbytes = DatumGetInt64(weights_column(w, tuple, TENSOR_BYTES, rel));
	if (!dfx_tensor_count(t, &elements, &nbytes) || nbytes != t->nbytes)
		weights_corrupt(w, "its shape and its length do not agree");
	if (VARSIZE_ANY_EXHDR(sha) != sizeof(w->sha256))
		weights_corrupt(w, "its hash is cut");
	memcpy(w->sha256, VARDATA_ANY(sha), sizeof(w->sha256));
}

/* ---- the reader ---- */

void
dfx_weights_open(DfxWeights *w, const DfxModelRef *model)
{
	memset(w, 0, sizeof(*w));
	w->model = model;
	w->number = -1;
	w->tensor_scan = weights_scan(DFX_TABLE_TENSOR, model->version, &w->tensor_rel, &w->tensor_idx);
	w->chunk_scan = weights_scan(DFX_TABLE_CHUNK, model->version, &w->chunk_rel, &w->chunk_idx);
	weights_fetch_chunk(w);
}

/* To the next tensor, when the present one has been read to its end. */
bool
dfx_weights_next(DfxWeights *w)
{
	HeapTuple	tuple;

	Assert(w->number < 0 || w->done == w->tensor.nbytes);
	if (w->pending && w->pending_tensor <= w->number)
		weights_corrupt(w, "chunk %d is one too many", w->pending_chunk);
	tuple = systable_getnext_ordered(w->tensor_scan, ForwardScanDirection);
	if (!HeapTupleIsValid(tuple))
	{
		if (w->pending)
			weights_corrupt(w, "chunk %d of tensor number %d is one too many", w->pending_chunk, w->pending_tensor);
		return false;
	}
	w->number++;
	w->done = 0;
	w->expected_chunk = 0;
	weights_describe(w, tuple);
	return true;
}

/* The pending chunk must be the next one of this tensor. */
static void
weights_check_place(const DfxWeights *w)
{
	if (!w->pending || w->pending_tensor != w->number || w->pending_chunk != w->expected_chunk)
		weights_corrupt(w, "chunk %d is missing", w->expected_chunk);
	if (w->data_len == 0 || w->data_len > w->tensor.nbytes - w->done)
		weights_corrupt(w, "chunk %d has %zu bytes, at most " UINT64_FORMAT " are left",
						w->pending_chunk, w->data_len, w->tensor.nbytes - w->done);
}

static void
weights_context(void *arg)
{
	const DfxWeights *w = arg;

	errcontext("reading tensor \"%s\" of model \"%s\"", w->tensor.name, w->model->name);
}

static void
weights_copy(const DfxWeights *w, char *buf, Size n)
{
	ErrorContextCallback context = {error_context_stack, weights_context, unconstify(DfxWeights *, w)};
	struct varlena *slice;

	/* What TOAST finds wrong it says by itself, but not whose value it is. */
	error_context_stack = &context;
	slice = PG_DETOAST_DATUM_SLICE(w->data, w->data_off, n);
	error_context_stack = context.previous;
	if (VARSIZE_ANY_EXHDR(slice) != n)
		weights_corrupt(w, "chunk %d is cut", w->pending_chunk);
	memcpy(buf, VARDATA_ANY(slice), n);
	if ((Pointer) slice != DatumGetPointer(w->data))
		pfree(slice);
}

/*
 * A piece never spans chunks, nor more than DFX_CHUNK_BYTES of one: chunks that
 * others have written may be larger than what is good to detoast at once.
 */
Size
dfx_weights_read(DfxWeights *w, char *buf, Size cap)
{
	Size		n;

	if (w->done == w->tensor.nbytes || cap == 0)
		return 0;
	if (w->data_off == 0)
		weights_check_place(w);
	n = w->data_len - w->data_off;
	if (buf)
	{
		n = Min(n, Min(cap, DFX_CHUNK_BYTES));
		weights_copy(w, buf, n);
	}
	w->done += n;
	w->data_off += n;
	if (w->data_off == w->data_len)
	{
		w->expected_chunk++;
		weights_fetch_chunk(w);
	}
	return n;
}

void
dfx_weights_close(DfxWeights *w)
{
	systable_endscan_ordered(w->tensor_scan);
	systable_endscan_ordered(w->chunk_scan);
	index_close(w->tensor_idx, NoLock);
	index_close(w->chunk_idx, NoLock);
	table_close(w->tensor_rel, NoLock);
	table_close(w->chunk_rel, NoLock);
}

/* Read all of it, and compare every tensor with the hash that was stored beside it. */
void
dfx_weights_check(const DfxModelRef *model)
{
	DfxWeights	w;
	char	   *buf = palloc(DFX_CHUNK_BYTES);

	dfx_weights_open(&w, model);
	while (dfx_weights_next(&w))
	{
		DfxSha256	sha;
		uint8		digest[32];
		Size		n;

		dfx_sha256_init(&sha);
		while ((n = dfx_weights_read(&w, buf, DFX_CHUNK_BYTES)) > 0)
		{
			CHECK_FOR_INTERRUPTS();
			dfx_sha256_update(&sha, buf, n);
		}
		dfx_sha256_final(&sha, digest);
		if (memcmp(digest, w.sha256, sizeof(digest)) != 0)
			weights_corrupt(&w, "its bytes do not match their hash");
	}
	dfx_weights_close(&w);
	pfree(buf);
}

/* The engine knows only that the whole is wrong; the hash kept with each tensor tells which part. */
void
dfx_weights_blame(const DfxModelRef *model)
{
	dfx_weights_check(model);
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("the weights of model \"%s\" do not match its version", model->name),
			 errdetail("Each tensor matches its own hash, so names, shapes or metadata were changed."),
			 errhint(WEIGHTS_HINT)));
}
