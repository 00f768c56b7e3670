/*
 * train_read.c
 *	  Sending the labelled rows to the engine, and receiving its plan for them.
 *
 * A cursor as the caller, a few rows at a time; of these one image at a time
 * is detoasted, hashed and sent.  Decoding runs behind: up to READ_AHEAD
 * samples are sent before the first is answered.  A row that cannot be a
 * sample is noted and skipped, up to max_errors of them.
 *
 * A run that is resumed reads the relation again.  A row is the one that it
 * was when key, class and the image's bytes are the same; it gets its old
 * number, and rows that were not there are passed over.  Splits are drawn
 * anew from the same seed, and must come out the same.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/sha256.h"
#include "pg/reply.h"
#include "pg/settings.h"
#include "pg/train.h"

#define READ_FETCH 16			/* rows that one fetch brings; views may make images that are no toast pointers */
#define READ_AHEAD 64
#define READ_ROWS_NAMED 5

/* Columns of dfx_train_source_query(). */
enum
{
	READ_KEY = 1, READ_IMAGE, READ_LABEL, READ_CLASS, READ_GROUP, READ_SPLIT, READ_GENERATOR
};

/* ---- rows that cannot be samples ---- */

static void
read_error(DfxTrainRun *run, const char *key, const char *message, int sqlstate)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	if (run->nerror == run->error_room)
	{
		run->error_room = Max(64, run->error_room * 2);
		run->error = run->error ? repalloc_huge(run->error, run->error_room * sizeof(DfxTrainError)) :
			palloc(run->error_room * sizeof(DfxTrainError));
	}
	run->error[run->nerror].key = key ? pstrdup(key) : NULL;
	run->error[run->nerror].message = pstrdup(message);
	run->nerror++;
	run->show.errors = run->nerror;
	MemoryContextSwitchTo(old);
	if (run->nerror > run->source.max_errors)
		ereport(ERROR,
				(errcode(sqlstate),
				 errmsg("more than %d rows cannot be samples", run->source.max_errors),
				 errdetail("Row %s: %s", key ? psprintf("\"%s\"", key) : "without a key", message),
				 errhint("dfx_training_errors lists those of run " INT64_FORMAT "; max_errors => n lets n of them pass.",
						 run->id)));
}

/* ---- what the engine answers ---- */

static void
read_taken(DfxTrainRun *run, const DfxTrainMessage *m)
{
	DfxTrainRow *row = &run->row[run->ntaken];
	DfxTrainTaken taken;
	char		text[DFX_MSG_LEN];

	memcpy(&taken, m->data, sizeof(taken));
	if (m->type != DFX_FRAME_TAKEN || run->ntaken == run->nrow || (int64) taken.number != row->number)
		dfx_train_broken("it answers a sample that it was not sent");
	run->ntaken++;
	row->usable = taken.status == DFX_OK;
	if (row->usable)
		return;
	if (taken.status != DFX_EIMAGE && taken.status != DFX_ELIMIT)
		dfx_train_broken("a sample was refused for no reason that there is");
	dfx_clean_text(text, sizeof(text), taken.msg, sizeof(taken.msg));
	read_error(run, row->key, text,
			   taken.status == DFX_EIMAGE ? ERRCODE_INVALID_BINARY_REPRESENTATION : ERRCODE_PROGRAM_LIMIT_EXCEEDED);
}

/* Take answers until no more than that many samples are without one. */
static void
read_answers(DfxTrainRun *run, int64 left)
{
	DfxTrainMessage m;

	while (run->nrow > run->ntaken && dfx_train_receive(&m, run->nrow - run->ntaken > left))
	{
		if (m.type != DFX_FRAME_TAKEN)
			dfx_train_broken(psprintf("a frame of type %u at the wrong time", m.type));
		read_taken(run, &m);
	}
}

/* ---- stored rows, of a run that is resumed ---- */

static void
read_identity(const DfxTrainRow *row, uint8 id[32])
{
	DfxSha256	sha;

	dfx_sha256_init(&sha);
	dfx_sha256_update(&sha, &row->label, 1);
	dfx_sha256_update(&sha, row->sha256, sizeof(row->sha256));
	dfx_sha256_update(&sha, row->key, strlen(row->key));
	dfx_sha256_final(&sha, id);
}

typedef struct ReadStored
{
	uint8		id[32];
	int64		first;			/* in run->stored, in the order of their numbers; -1: none left */
} ReadStored;

static void
read_index_stored(DfxTrainRun *run)
{
	HASHCTL		ctl = {.keysize = 32,.entrysize = sizeof(ReadStored),.hcxt = run->context};

	run->stored_by = hash_create("dfx stored samples", Max(run->nstored, 64), &ctl,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int64 i = run->nstored - 1; i >= 0; i--)
	{
		DfxTrainRow *row = &run->stored[i];
		uint8		id[32];
		ReadStored *entry;
		bool		found;

		read_identity(row, id);
		entry = hash_search(run->stored_by, id, HASH_ENTER, &found);
		row->next = found ? entry->first : -1;
		row->usable = false;
		entry->first = i;
	}
}

/* Is it a row of the run?  Then it gets its number. */
static bool
read_find_stored(DfxTrainRun *run, DfxTrainRow *row)
{
	uint8		id[32];
	ReadStored *entry;
	DfxTrainRow *stored;

	read_identity(row, id);
	entry = hash_search(run->stored_by, id, HASH_FIND, NULL);
	if (!entry || entry->first < 0)
		return false;
	stored = &run->stored[entry->first];
	entry->first = stored->next;
	stored->usable = true;
	row->number = stored->number;
	row->split = stored->split;
	row->base = stored->base;
	return true;
}

/* 55000 when any of the rows satisfies bad; they are named. */
static void
read_refuse_rows(const DfxTrainRow *row, int64 n, bool (*bad) (const DfxTrainRow *row), const char *what)
{
	StringInfoData keys;
	int64		count = 0;

	initStringInfo(&keys);
	for (int64 i = 0; i < n; i++)
		if (bad(&row[i]) && ++count <= READ_ROWS_NAMED)
			appendStringInfo(&keys, "%s\"%s\"", count > 1 ? ", " : "", row[i].key);
	if (count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the samples are not those that the run began with"),
				 errdetail(INT64_FORMAT " %s: %s%s", count, what, keys.data, count > READ_ROWS_NAMED ? ", ..." : ""),
				 errhint("Put the rows back, or start another run.")));
}

static bool
read_is_missing(const DfxTrainRow *row)
{
	return !row->usable;
}

/* ---- a row ---- */

static char *
read_text(HeapTuple tuple, TupleDesc desc, int column)
{
	return SPI_getvalue(tuple, desc, column);
}

static uint32
read_split(HeapTuple tuple, TupleDesc desc, const char *key)
{
	char	   *name = read_text(tuple, desc, READ_SPLIT);
	int			split = name && name[0] ? dfx_train_split(name) : DFX_SPLIT_DRAW;

	if (split < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("row \"%s\" is of split \"%s\", which there is not", key, name),
				 errhint("Splits are base_train, base_val, head_train, head_val, test; base and head leave validation"
						 " to the draw; draw or null leave all to it.")));
	return split;
}

static void
read_send(DfxTrainRun *run, DfxTrainRow *row, HeapTuple tuple, TupleDesc desc, const bytea *image)
{
	DfxTrainSample sample = {.number = row->number,.label = row->label,.generator = row->generator};
	char	   *group = read_text(tuple, desc, READ_GROUP);

	memcpy(sample.sha256, row->sha256, sizeof(sample.sha256));
	sample.split = read_split(tuple, desc, row->key);
	if (group)
	{
		DfxSha256	sha;

		dfx_sha256_init(&sha);
		dfx_sha256_update(&sha, group, strlen(group));
		dfx_sha256_final(&sha, sample.group);
	}
	dfx_train_send(DFX_FRAME_SAMPLE, &sample, sizeof(sample), VARDATA_ANY(image), VARSIZE_ANY_EXHDR(image));
}

static void
read_keep(DfxTrainRun *run, const DfxTrainRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);

	if (run->nrow == run->row_room)
	{
		run->row_room = Max(1024, run->row_room * 2);
		run->row = run->row ? repalloc_huge(run->row, run->row_room * sizeof(DfxTrainRow)) :
			palloc(run->row_room * sizeof(DfxTrainRow));
	}
	run->row[run->nrow] = *row;
	run->row[run->nrow].key = pstrdup(row->key);
	run->nrow++;
	MemoryContextSwitchTo(old);
}

/* What is wrong with a row before its image is looked at; NULL for nothing. */
static const char *
read_why_not(HeapTuple tuple, TupleDesc desc, Datum *image, int *sqlstate)
{
	bool		isnull;
	Size		bytes;

	*sqlstate = ERRCODE_NULL_VALUE_NOT_ALLOWED;
	*image = SPI_getbinval(tuple, desc, READ_IMAGE, &isnull);
	if (isnull)
		return "the image is null";
	if (!read_text(tuple, desc, READ_LABEL))
		return "the label is null";
	bytes = toast_raw_datum_size(*image) - VARHDRSZ;
	*sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	if (bytes > (Size) dfx_max_image_bytes * 1024 || bytes > DFX_FRAME_MAX - sizeof(DfxTrainSample))
		return psprintf("the image has %zu bytes, dfx.max_image_bytes is %d kB", bytes, dfx_max_image_bytes);
	return NULL;
}

static void
read_row(DfxTrainRun *run, HeapTuple tuple, TupleDesc desc)
{
	char	   *class = read_text(tuple, desc, READ_CLASS);
	char	   *key = read_text(tuple, desc, READ_KEY);
	DfxTrainRow row = {.number = run->nrow,.key = key,.generator = -1};
	const char *why;
	Datum		datum;
	bytea	   *image;
	DfxSha256	sha;
	bool		isnull;
	int32		generator;
	int			sqlstate;

	run->show.samples++;
	why = read_why_not(tuple, desc, &datum, &sqlstate);
	if (why)
	{
		/* A resumed run has noted it already; if it was a sample, it is missing now. */
		if (!run->stored)
			read_error(run, key, why, sqlstate);
		return;
	}
	if (!class || dfx_train_class(class) < 0)	/* new since the survey */
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("label \"%s\" stands for no class", read_text(tuple, desc, READ_LABEL))));
	row.label = dfx_train_class(class);
	generator = DatumGetInt32(SPI_getbinval(tuple, desc, READ_GENERATOR, &isnull));
	if (!isnull)
		row.generator = generator - 1;	/* array positions begin with 1 */
	image = DatumGetByteaPP(datum);
	dfx_sha256_init(&sha);
	dfx_sha256_update(&sha, VARDATA_ANY(image), VARSIZE_ANY_EXHDR(image));
	dfx_sha256_final(&sha, row.sha256);
	if (!row.key)
	{
		row.key = palloc(2 * sizeof(row.sha256) + 1);
		row.key[hex_encode((char *) row.sha256, sizeof(row.sha256), row.key)] = '\0';
	}
	if (run->stored && !read_find_stored(run, &row))
		return;
	read_send(run, &row, tuple, desc, image);
	read_keep(run, &row);
	read_answers(run, READ_AHEAD);
}

static void
read_all(DfxTrainRun *run)
{
	Oid			types[] = {JSONBOID, TEXTARRAYOID};
	Datum		values[] = {JsonbPGetDatum(run->source.labels), run->source.generators};
	MemoryContext each = AllocSetContextCreate(run->context, "dfx training row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	Portal		cursor;

	cursor = SPI_cursor_open_with_args(NULL, dfx_train_source_query(&run->source), lengthof(types), types, values,
									   NULL, true, CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		SPITupleTable *rows;

		SPI_cursor_fetch(cursor, true, READ_FETCH);
		if (SPI_processed == 0)
			break;
		rows = SPI_tuptable;
		for (uint64 i = 0; i < rows->numvals; i++)
		{
			MemoryContextSwitchTo(each);
			read_row(run, rows->vals[i], rows->tupdesc);
			MemoryContextSwitchTo(old);
			MemoryContextReset(each);
		}
		dfx_train_live_show(&run->show);
		SPI_freetuptable(rows);
	}
	SPI_cursor_close(cursor);
	MemoryContextDelete(each);
}

/* ---- the plan ---- */

static bool
read_has_moved(const DfxTrainRow *row)
{
	return row->moved;
}

static void
read_plan_row(DfxTrainRun *run, DfxTrainRow *row, const char *data)
{
	DfxTrainPlan plan;

	memcpy(&plan, data, sizeof(plan));
	if ((int64) plan.number != row->number ||
		plan.split >= DFX_SPLIT_COUNT || plan.split == DFX_SPLIT_DRAW ||
		plan.split == DFX_SPLIT_BASE || plan.split == DFX_SPLIT_HEAD || plan.base >= 1 << DFX_NCLASS)
		dfx_train_broken("a plan for no sample, or for no split");
	row->moved = run->stored && (row->split != plan.split || row->base != plan.base);
	row->split = plan.split;
	row->base = plan.base;
}

static void
read_plan(DfxTrainRun *run)
{
	int64		i = 0;

	for (;;)
	{
		DfxTrainMessage m;

		while (i < run->nrow && !run->row[i].usable)
			i++;
		if (i == run->nrow)
			break;
		dfx_train_expect(DFX_FRAME_PLAN, &m);
		if (m.len == 0 || m.len % sizeof(DfxTrainPlan) != 0)
			dfx_train_broken("half a plan");
		for (Size at = 0; at < m.len; at += sizeof(DfxTrainPlan))
		{
			while (i < run->nrow && !run->row[i].usable)
				i++;
			if (i == run->nrow)
				dfx_train_broken("a plan for more samples than there are");
			read_plan_row(run, &run->row[i++], m.data + at);
		}
	}
}

void
dfx_train_read(DfxTrainRun *run)
{
	run->show.reading = true;
	if (run->stored)
		read_index_stored(run);
	read_all(run);
	if (run->stored)
		read_refuse_rows(run->stored, run->nstored, read_is_missing, "rows have vanished or changed");
	read_answers(run, 0);
	if (run->stored)
		read_refuse_rows(run->row, run->nrow, read_is_missing, "images can no longer be read");
	dfx_train_send(DFX_FRAME_END, NULL, 0, NULL, 0);
	read_plan(run);
	if (run->stored)
		read_refuse_rows(run->row, run->nrow, read_has_moved, "rows would go to another split");
	run->show.reading = false;
}
