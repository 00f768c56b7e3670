/*
 * model_import.c
 *	  From a safetensors file to a model: dfx_import_model(), dfx_import_backbone(),
 *	  dfx_install_starter_model().
 *
 * The key of all rows is the hash of all bytes, so the source is read twice:
 * first to hash it, then (unless the version is there already) to store it.
 * Both passes go through the tensors in byte order of their names, wherever
 * the file has them, one buffer of DFX_CHUNK_BYTES at a time.  The second pass
 * compares each tensor's hash with the first one's, so a file that changes
 * meanwhile is noticed.
 *
 * Whether the tensors are those of the network that the metadata names is the
 * engine's knowledge: it loads the model before the import is over, and an
 * error there takes everything back.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/checkpoint.h"
#include "base/names.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pg/model.h"
#include "pg/model_io.h"
#include "pg/queue.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(dfx_import_model_file);
PG_FUNCTION_INFO_V1(dfx_import_model_lo);
PG_FUNCTION_INFO_V1(dfx_import_backbone_file);
PG_FUNCTION_INFO_V1(dfx_import_backbone_lo);
PG_FUNCTION_INFO_V1(dfx_install_starter_model);

/* Of the head's first two convolutions (METHOD "Complete model"; the paper says 1). */
#define IMPORT_REFERENCE_STRIDE 2

typedef struct ImportHash
{
	uint8		sha256[32];
} ImportHash;

typedef struct Import
{
	DfxSource  *src;
	DfxSafetensors st;
	DfxModelMeta meta;
	ImportHash *tensor_hash;	/* of st.tensor[i] */
	uint8		version[DFX_VERSION_LEN];
	bool		shared;			/* the version's rows were there before */
	bytea	   *buf;			/* room for DFX_CHUNK_BYTES */
	MemoryContextCallback cleanup;
} Import;

/* ---- the header ---- */

static void
import_cleanup(void *arg)
{
	dfx_st_free(&((Import *) arg)->st);
}

static void
import_header(Import *im)
{
	uint8		first8[8] = {0};
	uint64		json_len;
	char	   *json;
	DfxErr		err;

	im->src->read(im->src, 0, first8, Min(sizeof(first8), im->src->size));
	if (dfx_st_header_length(first8, im->src->size, &json_len, &err) != DFX_OK)
		dfx_err_raise(&err);
	json = palloc(json_len);
	im->src->read(im->src, 8, json, json_len);

	/* base/ uses malloc: let the memory context free it, whatever happens. */
	im->cleanup.func = import_cleanup;
	im->cleanup.arg = im;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &im->cleanup);
	if (dfx_st_parse(json, json_len, im->src->size, &im->st, &err) != DFX_OK)
		dfx_err_raise(&err);
	pfree(json);
	if (im->st.ntensor == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("%s holds no tensors", im->src->what)));
}

static bool
import_is_own(const Import *im)
{
	const char *format = dfx_st_meta(&im->st, "format");

	return format && strcmp(format, "dfx1") == 0;
}

/* The file's own metadata as a DfxModelMeta, by way of its canonical text. */
static void
import_meta(Import *im, int32 head_stride)
{
	static const char *const keys[] = {"backbone", "classes", "head_stride", "input_size", "kind"};
	StringInfoData lines;
	DfxErr		err;

	if (!import_is_own(im))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("%s is not a deepfeaturex model", im->src->what),
				 errdetail("Its metadata has no \"format\": \"dfx1\", and no tensor's name begins with model1, as in complete"
						   " checkpoints of the paper's authors."),
				 errhint("A pretrained backbone is for dfx_import_backbone().")));
	initStringInfo(&lines);
	for (int i = 0; i < lengthof(keys); i++)
	{
		const char *value = dfx_st_meta(&im->st, keys[i]);

		if (!value)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
					 errmsg("the metadata of %s lacks \"%s\"", im->src->what, keys[i])));
		appendStringInfo(&lines, "%s=%s\n", keys[i], value);
	}
	if (dfx_meta_parse(lines.data, lines.len, &im->meta, &err) != DFX_OK)
		dfx_err_raise(&err);
	/* The canonical text has uint32, the table's readers int4. */
	if (Max(im->meta.head_stride, im->meta.input_size) > PG_INT32_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("the metadata of %s has a \"head_stride\" or an \"input_size\" that is out of range", im->src->what)));
	if (head_stride != 0 && im->meta.head_stride != head_stride)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s says of itself that the stride of its head is %u", im->src->what, im->meta.head_stride),
				 errhint("Leave head_stride out: it is for checkpoints that do not say it.")));
	pfree(lines.data);
}

/* ---- other people's files, which say nothing about themselves ---- */

static void
import_backbone_meta(Import *im, const char *backbone)
{
	DfxErr		err;

	if (backbone[0] == '\0' || strlen(backbone) >= sizeof(im->meta.backbone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not the name of a backbone", backbone)));
	if (dfx_checkpoint_backbone(&im->st, &err) != DFX_OK)
		dfx_err_raise(&err);
	strlcpy(im->meta.kind, "backbone", sizeof(im->meta.kind));
	strlcpy(im->meta.backbone, backbone, sizeof(im->meta.backbone));
	im->meta.input_size = dfx_backbone_input_side(backbone);
}

/* A complete checkpoint of the authors; head_stride 0: as in their code, whose files these are. */
static void
import_complete_meta(Import *im, int32 head_stride)
{
	DfxErr		err;

	if (dfx_checkpoint_complete(&im->st, &im->meta, &err) != DFX_OK)
		dfx_err_raise(&err);
	im->meta.head_stride = head_stride != 0 ? head_stride : IMPORT_REFERENCE_STRIDE;
}

/* ---- the two passes ---- */

/*
 * Read tensor i by chunks, with its bytes' hash into *hash.  each gets every
 * chunk: im->buf holds it as a bytea.
 */
static void
import_tensor(Import *im, size_t i, ImportHash *hash, void (*each) (Import *im, size_t i, int32 chunk, void *arg),
			  void *arg)
{
	uint64		nbytes = im->st.tensor[i].nbytes;
	DfxSha256	sha;
	int32		chunk = 0;

	dfx_sha256_init(&sha);
	for (uint64 done = 0; done < nbytes; chunk++)
	{
		Size		n = Min(nbytes - done, DFX_CHUNK_BYTES);

		CHECK_FOR_INTERRUPTS();
		im->src->read(im->src, im->st.offset[i] + done, VARDATA(im->buf), n);
		SET_VARSIZE(im->buf, VARHDRSZ + n);
		dfx_sha256_update(&sha, VARDATA(im->buf), n);
		each(im, i, chunk, arg);
		done += n;
	}
	dfx_sha256_final(&sha, hash->sha256);
}

static void
import_hash_chunk(Import *im, size_t i, int32 chunk, void *arg)
{
	dfx_version_bytes(arg, VARDATA(im->buf), VARSIZE(im->buf) - VARHDRSZ);
}

static void
import_hash(Import *im)
{
	DfxVersioner v;

	dfx_version_begin(&v, &im->meta);
	for (size_t i = 0; i < im->st.ntensor; i++)
	{
		dfx_version_tensor(&v, &im->st.tensor[i]);
		import_tensor(im, i, &im->tensor_hash[i], import_hash_chunk, &v);
	}
	dfx_version_end(&v, im->version);
}

static void
import_store_chunk(Import *im, size_t i, int32 chunk, void *arg)
{
	dfx_store_chunk(im->version, (int32) i, chunk, im->buf);
}

/* With the tables' owner's rights; the source was opened with the user's. */
static void
import_store(Import *im, const char *name, const char *owner)
{
	DfxStore	store;

	dfx_store_begin(&store);
	im->shared = !dfx_store_version(im->version, &im->meta);
	if (!im->shared)
	{
		for (size_t i = 0; i < im->st.ntensor; i++)
		{
			ImportHash	hash;

			dfx_store_tensor(im->version, (int32) i, &im->st.tensor[i], im->tensor_hash[i].sha256);
			import_tensor(im, i, &hash, import_store_chunk, NULL);
			if (memcmp(&hash, &im->tensor_hash[i], sizeof(hash)) != 0)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("%s changed while it was read", im->src->what)));
		}
	}
	dfx_store_name(name, im->version, owner);
	dfx_store_end(&store);
}

/*
 * Have the engine load what was just stored, which it refuses if it does not
 * fit the network.  An engine that has the version already does not look at the
 * rows: those that others stored are read here, or a damaged model would be
 * imported without a word.
 */
static void
import_verify(const Import *im, const char *name)
{
	DfxModelRef model;

	strlcpy(model.name, name, sizeof(model.name));
	memcpy(model.version, im->version, DFX_VERSION_LEN);
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (im->shared)
		dfx_weights_check(&model);
	dfx_model_load(&model);
	PopActiveSnapshot();
}

/* ---- SQL ---- */

/*
 * Everything but opening the source, which differs, and asking the engine;
 * what can be refused early is.  backbone: NULL for a complete model;
 * head_stride: 0 when none is given.
 */
static Import *
import_run(const char *name, const char *backbone, int32 head_stride, DfxSource *src)
{
	Import	   *im = palloc0(sizeof(Import));
	char	   *owner = dfx_model_owner(name);

	if (!owner)
		owner = GetUserNameFromId(GetUserId(), false);
	im->src = src;
	import_header(im);
	if (backbone)
		import_backbone_meta(im, backbone);
	else if (!import_is_own(im) && dfx_checkpoint_is_complete(&im->st))
		import_complete_meta(im, head_stride);
	else
		import_meta(im, head_stride);
	im->tensor_hash = palloc(im->st.ntensor * sizeof(ImportHash));
	im->buf = palloc(VARHDRSZ + DFX_CHUNK_BYTES);
	import_hash(im);
	import_store(im, name, owner);
	src->close(src);
	return im;
}

static Datum
import_model(const char *name, const char *backbone, int32 head_stride, DfxSource *src)
{
	Import	   *im = import_run(name, backbone, head_stride, src);
	char		hex[DFX_VERSION_HEX_LEN];

	import_verify(im, name);
	dfx_version_hex(im->version, hex);
	return PointerGetDatum(cstring_to_text(hex));
}

void
dfx_import_trained(const char *name, DfxSource *src, uint8 *version)
{
	memcpy(version, import_run(name, NULL, 0, src)->version, DFX_VERSION_LEN);
}

static void
import_check(const char *function)
{
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
	dfx_require_ring();
}

/* 0 when it is not given. */
static int32
import_stride_arg(FunctionCallInfo fcinfo, int n)
{
	int32		stride = PG_ARGISNULL(n) ? 0 : PG_GETARG_INT32(n);

	if (!PG_ARGISNULL(n) && stride != 1 && stride != 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("head_stride must be 1 (the paper) or 2 (the authors' code), not %d", stride)));
	return stride;
}

/* dfx_import_model(name text, file text, head_stride int) -> text: the version, 64 hex digits. */
Datum
dfx_import_model_file(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	char	   *file = dfx_text_arg(fcinfo, 1, "file name");
	int32		stride = import_stride_arg(fcinfo, 2);

	import_check("dfx_import_model()");
	return import_model(name, NULL, stride, dfx_source_file(file));
}

static Oid
import_lo_arg(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("large object must not be null")));
	return PG_GETARG_OID(n);
}

/* dfx_import_model(name text, large_object oid, head_stride int) -> text */
Datum
dfx_import_model_lo(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	Oid			loid = import_lo_arg(fcinfo, 1);
	int32		stride = import_stride_arg(fcinfo, 2);

	import_check("dfx_import_model()");
	return import_model(name, NULL, stride, dfx_source_lo(loid));
}

/* dfx_import_backbone(name text, backbone text, file text) -> text */
Datum
dfx_import_backbone_file(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	char	   *backbone = dfx_text_arg(fcinfo, 1, "backbone");
	char	   *file = dfx_text_arg(fcinfo, 2, "file name");

	import_check("dfx_import_backbone()");
	return import_model(name, backbone, 0, dfx_source_file(file));
}

/* dfx_import_backbone(name text, backbone text, large_object oid) -> text */
Datum
dfx_import_backbone_lo(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	char	   *backbone = dfx_text_arg(fcinfo, 1, "backbone");
	Oid			loid = import_lo_arg(fcinfo, 2);

	import_check("dfx_import_backbone()");
	return import_model(name, backbone, 0, dfx_source_lo(loid));
}

/* dfx_install_starter_model(name text, make_default boolean) -> text */
Datum
dfx_install_starter_model(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	bool		make_default = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	Datum		version;

	import_check("dfx_install_starter_model()");
	if (make_default)
	{
		dfx_require_ring();		/* else the setting may not be defined in new sessions */
		dfx_model_require_may_default();
	}
	version = import_model(name, NULL, 0, dfx_source_starter());
	if (make_default)
		dfx_model_make_default(name);
	return version;
}
