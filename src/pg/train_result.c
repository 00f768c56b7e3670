/*
 * train_result.c
 *	  Models on their way to the engine and back: what a run starts from, and
 *	  what it leaves.
 *
 * Both ways it is the safetensors file that dfx_export_model() writes and
 * dfx_import_model() reads, so their code does the work; here are a sink that
 * sends and a source that lies in a temporary file of the transaction.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/wait_event.h"

#include "pg/model_io.h"
#include "pg/reply.h"
#include "pg/train.h"

/* A model that the engine has sent. */
typedef struct TrainResult
{
	char		name[sizeof(((DfxTrainBlob *) 0)->name)];
	File		file;
	uint64		bytes;
} TrainResult;

/* ---- models to start from ---- */

static void
result_sink_count(DfxSink *sink, const void *buf, Size len)
{
	sink->written += len;
}

static void
result_sink_send(DfxSink *sink, const void *buf, Size len)
{
	const char *p = buf;

	for (Size done = 0; done < len;)
	{
		Size		n = Min(len - done, DFX_BLOB_DATA_MAX);

		dfx_train_send(DFX_FRAME_BLOB_DATA, p + done, n, NULL, 0);
		done += n;
	}
	sink->written += len;
}

static void
result_sink_nothing(DfxSink *sink)
{
}

/* Read twice: the length comes first. */
static void
result_send_init(const DfxTrainInit *init)
{
	DfxSink		count = {
		.write = result_sink_count,.finish = result_sink_nothing,.discard = result_sink_nothing
	};
	DfxSink		send = {
		.write = result_sink_send,.finish = result_sink_nothing,.discard = result_sink_nothing
	};
	DfxTrainBlob blob = {.kind = DFX_BLOB_INIT};

	dfx_export_to(&init->model, &count);
	blob.bytes = count.written;
	strlcpy(blob.name, init->name, sizeof(blob.name));
	dfx_train_send(DFX_FRAME_BLOB, &blob, sizeof(blob), NULL, 0);
	dfx_export_to(&init->model, &send);
}

void
dfx_train_send_inits(const DfxTrainRun *run)
{
	for (int i = 0; i < run->ninit; i++)
		result_send_init(&run->init[i]);
}

/* ---- the result ---- */

static void
result_source_read(DfxSource *src, uint64 offset, void *buf, Size len)
{
	char	   *p = buf;

	while (len > 0)
	{
		int			n = FileRead(src->fd, p, Min(len, DFX_CHUNK_BYTES), (off_t) offset, WAIT_EVENT_BUFFILE_READ);

		if (n <= 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read %s: %m", src->what)));
		p += n;
		offset += n;
		len -= n;
	}
}

static void
result_source_close(DfxSource *src)
{
	FileClose(src->fd);
}

static void
result_write(TrainResult *result, const char *data, Size len)
{
	while (len > 0)
	{
		int			n;

		errno = 0;
		n = FileWrite(result->file, unconstify(char *, data), len, (off_t) result->bytes, WAIT_EVENT_BUFFILE_WRITE);
		if (n <= 0)
		{
			if (errno == 0)
				errno = ENOSPC;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write the trained model to a temporary file: %m")));
		}
		data += n;
		len -= n;
		result->bytes += n;
	}
}

void
dfx_train_result_receive(DfxTrainRun *run, const DfxTrainBlob *blob)
{
	TrainResult *result = MemoryContextAllocZero(run->context, sizeof(TrainResult));
	MemoryContext old;

	dfx_clean_text(result->name, sizeof(result->name), blob->name, sizeof(blob->name));
	result->file = OpenTemporaryFile(false);
	while (result->bytes < blob->bytes)
	{
		DfxTrainMessage m;

		dfx_train_expect(DFX_FRAME_BLOB_DATA, &m);
		if (m.len > blob->bytes - result->bytes)
			dfx_train_broken("a model with more bytes than it has");
		result_write(result, m.data, m.len);
	}
	old = MemoryContextSwitchTo(run->context);
	run->models = lappend(run->models, result);
	MemoryContextSwitchTo(old);
}

static void
result_store_metrics(const DfxTrainRun *run, const uint8 *version)
{
	Oid			types[] = {BYTEAOID, TEXTOID};
	Datum		values[] = {dfx_store_bytea(version, DFX_VERSION_LEN), PointerGetDatum(run->metrics)};

	dfx_train_run_sql("UPDATE @extschema@.dfx_model_version SET metrics = $2::pg_catalog.jsonb"
					  " WHERE version = $1 AND metrics IS NULL",
					  lengthof(types), types, values);
}

/* The result has the run's name; a part of it that name and its own. */
static char *
result_name(const DfxTrainRun *run, const TrainResult *result)
{
	char	   *name = result->name[0] ? psprintf("%s_%s", run->model, result->name) : run->model;

	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("model name \"%s\" is too long", name)));
	return name;
}

void
dfx_train_result_store(DfxTrainRun *run)
{
	StringInfoData versions;
	ListCell   *lc;

	if (run->models == NIL || !run->metrics)
		dfx_train_broken("a run without a result");
	initStringInfo(&versions);
	appendStringInfoChar(&versions, '{');
	foreach(lc, run->models)
	{
		TrainResult *result = lfirst(lc);
		DfxSource	src = {
			.read = result_source_read,
			.close = result_source_close,
			.size = result->bytes,
			.what = "the trained model",
			.fd = result->file
		};
		char	   *name = result_name(run, result);
		uint8		version[DFX_VERSION_LEN];
		char		hex[DFX_VERSION_HEX_LEN];

		dfx_import_trained(name, &src, version);
		result_store_metrics(run, version);
		dfx_version_hex(version, hex);
		appendStringInfoString(&versions, versions.len > 1 ? ", " : "");
		escape_json(&versions, name);
		appendStringInfo(&versions, ": \"%s\"", hex);
	}
	appendStringInfoChar(&versions, '}');
	dfx_train_run_done(run, versions.data);
}
