/*
 * train_source.c
 *	  The samples of a run: any relation with an image and a label.
 *
 * Everything here runs as the caller, through ordinary SQL: the caller's
 * SELECT privilege, views and row security count.  What can be refused is
 * refused before an image is read: labels that stand for no class are found by
 * one pass over the label column, all of them at once.
 */
#include "postgres.h"

#include "access/attnum.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"

#include "pg/settings.h"
#include "pg/train.h"

#define SOURCE_LABELS_SHOWN 5

/* ---- the relation and its columns ---- */

static void
source_check_relation(const DfxTrainSource *source)
{
	const char	kinds[] = {RELKIND_RELATION, RELKIND_PARTITIONED_TABLE, RELKIND_VIEW, RELKIND_MATVIEW,
	RELKIND_FOREIGN_TABLE};
	char		kind = get_rel_relkind(source->relid);

	if (kind == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the relation of the samples does not exist")));
	if (!memchr(kinds, kind, sizeof(kinds)))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table or view", get_rel_name(source->relid))));
}

static void
source_check_column(const DfxTrainSource *source, DfxTrainColumn column)
{
	const char *name = source->column[column];
	AttrNumber	number = get_attnum(source->relid, name);

	if (number <= InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", name, get_rel_name(source->relid)),
				 errhint("Name the column, as %s => 'name'.", dfx_train_column_arg[column])));
	if (column == DFX_TRAIN_IMAGE && getBaseType(get_atttype(source->relid, number)) != BYTEAOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" is not of type bytea", name,
						get_rel_name(source->relid))));
}

void
dfx_train_source_check(DfxTrainSource *source)
{
	source_check_relation(source);
	source->relation = quote_qualified_identifier(get_namespace_name(get_rel_namespace(source->relid)),
												  get_rel_name(source->relid));
	for (int i = 0; i < DFX_TRAIN_COLUMNS; i++)
		if (source->column[i])
			source_check_column(source, i);
}

/* ---- labels ---- */

/* {"text": "class"}; without an argument the classes' own names. */
static Jsonb *
source_labels(const DfxTrainArgs *args)
{
	char	   *text = dfx_train_arg_text(args, "labels");
	Jsonb	   *labels;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (!text)
		text = "{\"dm\": \"dm\", \"gan\": \"gan\", \"real\": \"real\"}";
	labels = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	if (!JB_ROOT_IS_OBJECT(labels))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("labels must be a JSON object"),
				 errhint("As in labels => '{\"photo\": \"real\", \"stylegan\": \"gan\"}'.")));
	it = JsonbIteratorInit(&labels->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token != WJB_VALUE)
			continue;
		if (v.type != jbvString ||
			dfx_train_class(pnstrdup(v.val.string.val, v.val.string.len)) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("labels must map each label to \"dm\", \"gan\" or \"real\"")));
	}
	return labels;
}

void
dfx_train_source_args(const DfxTrainArgs *args, DfxTrainSource *source)
{
	Datum		samples;
	char	   *max_errors = dfx_train_arg_text(args, "max_errors");

	if (!dfx_train_arg(args, "samples", &samples))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("samples must not be null")));
	source->relid = DatumGetObjectId(samples);
	for (int i = 0; i < DFX_TRAIN_COLUMNS; i++)
		source->column[i] = dfx_train_arg_text(args, dfx_train_column_arg[i]);
	if (!source->column[DFX_TRAIN_IMAGE] || !source->column[DFX_TRAIN_LABEL])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("image_column and label_column must not be null")));
	source->max_errors = max_errors ? pg_strtoint32(max_errors) : 0;
	if (source->max_errors < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_errors must not be negative")));
	source->labels = source_labels(args);
	dfx_train_source_check(source);
}

/* ---- queries ---- */

/* A column as text, or NULL where there is none. */
static char *
source_text(const DfxTrainSource *source, DfxTrainColumn column)
{
	if (!source->column[column])
		return "NULL::pg_catalog.text";
	return psprintf("(%s)::pg_catalog.text", quote_identifier(source->column[column]));
}

static void
source_run(const char *sql, int nargs, Oid *types, Datum *values)
{
	int			rc = SPI_execute_with_args(sql, nargs, types, values, NULL, true, 0);

	if (rc < 0)
		elog(ERROR, "%s: %s", SPI_result_code_string(rc), sql);
}

static char *
source_value(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

static void
source_check_labels(const DfxTrainSource *source)
{
	StringInfoData unknown;
	int			n = 0;

	initStringInfo(&unknown);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *label = source_value(i, 1);

		if (!label || source_value(i, 2) || ++n > SOURCE_LABELS_SHOWN)
			continue;
		appendStringInfo(&unknown, "%s\"%s\"", n > 1 ? ", " : "", label);
	}
	if (n > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"%s\" has labels that stand for no class: %s%s", source->column[DFX_TRAIN_LABEL],
						unknown.data, n > SOURCE_LABELS_SHOWN ? ", ..." : ""),
				 errhint("Say what they stand for, as in labels => '{\"photo\": \"real\", \"stylegan\": \"gan\"}'.")));
}

static void
source_check_room(int64 rows)
{
	const int64 unit = 1024 * 1024;
	int64		mb = (rows * DFX_TRAIN_IMAGE_BYTES + unit - 1) / unit;

	if (mb > dfx_train_cache)
		ereport(ERROR,
				(errcode(ERRCODE_DISK_FULL),
				 errmsg("the samples do not fit dfx.train_cache"),
				 errdetail(INT64_FORMAT " images take " INT64_FORMAT " MB of disk space, %d MB are allowed.",
						   rows, mb, dfx_train_cache),
				 errhint("An administrator can increase dfx.train_cache.")));
}

/* The names of the generators in byte order, as text[]. */
static Datum
source_generators(const DfxTrainSource *source)
{
	MemoryContext context = CurrentMemoryContext;
	ArrayBuildState *names = NULL;

	if (source->column[DFX_TRAIN_GENERATOR])
	{
		source_run(psprintf("SELECT DISTINCT %s COLLATE pg_catalog.\"C\" FROM %s WHERE %s IS NOT NULL ORDER BY 1 LIMIT %d",
							source_text(source, DFX_TRAIN_GENERATOR), source->relation,
							quote_identifier(source->column[DFX_TRAIN_GENERATOR]), DFX_GENERATORS + 1),
				   0, NULL, NULL);
		if (SPI_processed > DFX_GENERATORS)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("column \"%s\" names more than %d generators",
							source->column[DFX_TRAIN_GENERATOR], DFX_GENERATORS)));
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			char	   *name = source_value(i, 1);

			if (strlen(name) >= DFX_GENERATOR_LEN)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("the name of generator \"%s\" is longer than %d bytes", name, DFX_GENERATOR_LEN - 1)));
			names = accumArrayResult(names, CStringGetTextDatum(name), false, TEXTOID, context);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	return names ? makeArrayResult(names, context) : PointerGetDatum(construct_empty_array(TEXTOID));
}

void
dfx_train_source_survey(DfxTrainSource *source)
{
	Oid			types[] = {JSONBOID};
	Datum		values[] = {JsonbPGetDatum(source->labels)};

	/* So many different labels are none at all: the first thousand tell. */
	source_run(psprintf("SELECT l, pg_catalog.jsonb_object_field_text($1, l) AS class,"
						" (pg_catalog.sum(n) OVER ())::pg_catalog.int8 FROM"
						" (SELECT %s AS l, pg_catalog.count(*) AS n FROM %s GROUP BY 1) AS q"
						" ORDER BY class NULLS FIRST, l COLLATE pg_catalog.\"C\" LIMIT 1000",
						source_text(source, DFX_TRAIN_LABEL), source->relation),
			   lengthof(types), types, values);
	source_check_labels(source);
	if (SPI_processed > 0)
		source_check_room(pg_strtoint64(source_value(0, 3)));
	SPI_freetuptable(SPI_tuptable);
	source->generators = source_generators(source);
}

char *
dfx_train_source_query(const DfxTrainSource *source)
{
	char	   *label = source_text(source, DFX_TRAIN_LABEL);

	return psprintf("SELECT %s, %s, %s, pg_catalog.jsonb_object_field_text($1, %s), %s, %s,"
					" pg_catalog.array_position($2, %s COLLATE pg_catalog.\"C\") FROM %s",
					source_text(source, DFX_TRAIN_KEY), quote_identifier(source->column[DFX_TRAIN_IMAGE]), label, label,
					source_text(source, DFX_TRAIN_GROUP), source_text(source, DFX_TRAIN_SPLIT),
					source_text(source, DFX_TRAIN_GENERATOR), source->relation);
}
