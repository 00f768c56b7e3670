/*
 * model_export.c
 *	  From a model to a safetensors file: dfx_export_model().
 *
 * The tensors go out in byte order of their names, so the same version always
 * gives the same file, and importing that gives the same version again.  What
 * is read is hashed on the way: a damaged model is not exported.  A grant is
 * for use: the weights themselves are given to their owner only.
 */
#include "postgres.h"

#include "base/safetensors.h"
#include "miscadmin.h"
#include "pg/model.h"
#include "pg/model_io.h"
#include "storage/ipc.h"
#include "utils/builtins.h"

#include <stdlib.h>

PG_FUNCTION_INFO_V1(dfx_export_model_file);
PG_FUNCTION_INFO_V1(dfx_export_model_lo);

/* All tensors' descriptions, palloc'd: the header comes before the data. */
static DfxTensor *
export_describe(const DfxModelRef *model, size_t *n)
{
	size_t		cap = 256;
	DfxTensor  *tensor = palloc(cap * sizeof(DfxTensor));
	DfxWeights	w;

	*n = 0;
	dfx_weights_open(&w, model);
	while (dfx_weights_next(&w))
	{
		if (*n == cap)
		{
			cap *= 2;
			tensor = repalloc(tensor, cap * sizeof(DfxTensor));
		}
		tensor[(*n)++] = w.tensor;
		while (dfx_weights_read(&w, NULL, SIZE_MAX) > 0)
			;
	}
	dfx_weights_close(&w);
	return tensor;
}

static void
export_header(const DfxModelRef *model, const DfxModelMeta *meta, DfxSink *sink)
{
	/* In byte order, as dfx-engine writes them: the same model is the same file. */
	static const char *const keys[] = {"backbone", "classes", "format", "head_stride", "input_size", "kind"};
	char		stride[16],
				size[16];
	const char *const values[] = {meta->backbone, meta->classes, "dfx1", stride, size, meta->kind};
	size_t		ntensor,
				len;
	DfxTensor  *tensor = export_describe(model, &ntensor);
	uint8_t    *bytes;
	void	   *header;
	DfxErr		err;

	StaticAssertStmt(lengthof(keys) == lengthof(values), "a value for each key");
	snprintf(stride, sizeof(stride), "%u", meta->head_stride);
	snprintf(size, sizeof(size), "%u", meta->input_size);
	if (dfx_st_header(tensor, ntensor, keys, values, lengthof(keys), &bytes, &len, &err) != DFX_OK)
		dfx_err_raise(&err);
	/* It was malloc'd; writing may raise. */
	header = palloc_extended(len, MCXT_ALLOC_NO_OOM);
	if (header)
		memcpy(header, bytes, len);
	free(bytes);
	if (!header)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	sink->write(sink, header, len);
	pfree(header);
	pfree(tensor);
}

/* The data; raises XX001 when it is not what the version says. */
static void
export_data(const DfxModelRef *model, const DfxModelMeta *meta, DfxSink *sink)
{
	char	   *buf = palloc(DFX_CHUNK_BYTES);
	uint8		version[DFX_VERSION_LEN];
	DfxVersioner v;
	DfxWeights	w;

	dfx_version_begin(&v, meta);
	dfx_weights_open(&w, model);
	while (dfx_weights_next(&w))
	{
		Size		n;

		dfx_version_tensor(&v, &w.tensor);
		while ((n = dfx_weights_read(&w, buf, DFX_CHUNK_BYTES)) > 0)
		{
			CHECK_FOR_INTERRUPTS();
			dfx_version_bytes(&v, buf, n);
			sink->write(sink, buf, n);
		}
	}
	dfx_weights_close(&w);
	dfx_version_end(&v, version);
	if (memcmp(version, model->version, sizeof(version)) != 0)
		dfx_weights_blame(model);
	pfree(buf);
}

void
dfx_export_to(const DfxModelRef *model, DfxSink *sink)
{
	PG_ENSURE_ERROR_CLEANUP(dfx_sink_discard, PointerGetDatum(sink));
	{
		DfxModelMeta meta;

		dfx_model_meta(model, &meta);
		export_header(model, &meta, sink);
		export_data(model, &meta, sink);
		sink->finish(sink);
	}
	PG_END_ENSURE_ERROR_CLEANUP(dfx_sink_discard, PointerGetDatum(sink));
}

/* dfx_export_model(name text, file text) -> bigint: the file's size in bytes. */
Datum
dfx_export_model_file(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	char	   *file = dfx_text_arg(fcinfo, 1, "file name");
	DfxModelRef model;
	DfxSink    *sink;

	dfx_model_resolve_own(cstring_to_text(name), &model);
	sink = dfx_sink_file(file);
	dfx_export_to(&model, sink);
	PG_RETURN_INT64((int64) sink->written);
}

/* dfx_export_model(name text) -> oid: a new large object. */
Datum
dfx_export_model_lo(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	DfxModelRef model;
	DfxSink    *sink;

	PreventCommandIfReadOnly("dfx_export_model()");
	PreventCommandIfParallelMode("dfx_export_model()");
	dfx_model_resolve_own(cstring_to_text(name), &model);
	sink = dfx_sink_lo();
	dfx_export_to(&model, sink);
	PG_RETURN_OID(sink->loid);
}
