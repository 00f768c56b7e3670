/*
 * eval_source.c
 *	  The relation that is evaluated: a query of the caller's, read through a
 *	  cursor.
 *
 * Before the first image is asked about, two short queries find all labels
 * that are not known and all groups, so that a mistake costs seconds and not
 * hours.  All three see one snapshot.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "pg/eval.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

#define SOURCE_NAMED_LABELS 5	/* in an error message, at the most */

/* ---- relation and columns ---- */

static char *
source_relation(Oid samples)
{
	char	   *name = get_rel_name(samples);

	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", samples)));
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(samples)), name);
}

/* "s.column", for a query in which s is the relation; its base type. */
static char *
source_column(const DfxEvalSource *s, Oid samples, const char *column, Oid *type)
{
	AttrNumber	number = get_attnum(samples, column);

	if (number == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation %s does not exist", column, s->name)));
	*type = getBaseType(get_atttype(samples, number));
	return psprintf("s.%s", quote_identifier(column));
}

/* NULL for no column. */
static char *
source_text(const DfxEvalSource *s, Oid samples, const char *column)
{
	Oid			type;

	if (column == NULL)
		return "NULL::pg_catalog.text";
	return psprintf("%s::pg_catalog.text COLLATE pg_catalog.\"C\"", source_column(s, samples, column, &type));
}

/* FROM and WHERE of every query; $1 is the split. */
static char *
source_from(const DfxEvalSource *s, const DfxEvalArgs *args)
{
	return psprintf("FROM %s AS s WHERE %s", s->name,
					args->split_column == NULL ? "true" :
					psprintf("%s OPERATOR(pg_catalog.=) $1", source_text(s, args->samples, args->split_column)));
}

/* $1 and $2 of every query. */
typedef struct SourceParams
{
	Oid			type[2];
	Datum		value[2];
} SourceParams;

static SourceParams
source_params(const DfxEvalSource *s, const DfxEvalArgs *args)
{
	SourceParams p = {{TEXTOID, TEXTARRAYOID}};
	Datum	   *label = palloc(sizeof(Datum) * s->nlabels);

	for (int i = 0; i < s->nlabels; i++)
		label[i] = CStringGetTextDatum(s->label[i]);
	p.value[0] = CStringGetTextDatum(args->split ? args->split : "");
	p.value[1] = PointerGetDatum(construct_array(label, s->nlabels, TEXTOID, -1, false, TYPALIGN_INT));
	return p;
}

/* Run one of the short queries; its first column as C strings, NULL for NULL. */
static int
source_list(SourceParams *params, const char *query, char ***list)
{
	int			n;

	if (SPI_execute_with_args(query, lengthof(params->type), params->type, params->value, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run: %s", query);
	n = (int) SPI_processed;
	*list = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*list)[i] = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
	return n;
}

/* ---- labels ---- */

static void
source_add_label(DfxEvalSource *s, char *label, const char *class)
{
	int			known = dfx_class_find(class);

	if (known < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("label \"%s\" is mapped to \"%s\", which is no class", label, class),
				 errhint("Classes are dm, gan, real and synthetic.")));
	s->label[s->nlabels] = label;
	s->class[s->nlabels++] = known;
}

/* Without a mapping labels are the names of the classes. */
static void
source_default_labels(DfxEvalSource *s)
{
	static const char *const names[] = {"dm", "gan", "real", "synthetic"};

	s->label = palloc(sizeof(char *) * lengthof(names));
	s->class = palloc(sizeof(int) * lengthof(names));
	for (int i = 0; i < lengthof(names); i++)
		source_add_label(s, pstrdup(names[i]), names[i]);
}

static void
source_mapped_labels(DfxEvalSource *s, Jsonb *labels)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	char	   *label = NULL;

	if (!JB_ROOT_IS_OBJECT(labels) || JB_ROOT_COUNT(labels) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("labels must be an object that maps each label to a class"),
				 errhint("For example '{\"photo\": \"real\", \"stylegan\": \"gan\"}'.")));
	s->label = palloc(sizeof(char *) * JB_ROOT_COUNT(labels));
	s->class = palloc(sizeof(int) * JB_ROOT_COUNT(labels));
	it = JsonbIteratorInit(&labels->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			label = pnstrdup(v.val.string.val, v.val.string.len);
		else if (token == WJB_VALUE)
		{
			if (v.type != jbvString)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("label \"%s\" is mapped to something that is no text", label)));
			source_add_label(s, label, pnstrdup(v.val.string.val, v.val.string.len));
		}
	}
}

/* Raise 22023 if there are labels that are not known. */
static void
source_check_labels(DfxEvalSource *s, const DfxEvalArgs *args, SourceParams *params)
{
	char	   *label = source_text(s, args->samples, args->label_column);
	char	  **unknown;
	int			n = source_list(params, psprintf("SELECT DISTINCT %s %s AND (%s OPERATOR(pg_catalog.=) ANY ($2)) IS NOT TRUE"
												 " ORDER BY 1 LIMIT %d", label, source_from(s, args), label,
												 SOURCE_NAMED_LABELS + 1), &unknown);
	StringInfoData list;

	if (n == 0)
		return;
	initStringInfo(&list);
	for (int i = 0; i < Min(n, SOURCE_NAMED_LABELS); i++)
		appendStringInfo(&list, unknown[i] ? "%s\"%s\"" : "%sNULL", i > 0 ? ", " : "", unknown[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("column \"%s\" of %s has labels that are not known: %s%s", args->label_column, s->name, list.data,
					n > SOURCE_NAMED_LABELS ? ", ..." : ""),
			 errhint("The argument labels maps each label to dm, gan, real or synthetic.")));
}

static int
source_class(const DfxEvalSource *s, const char *label)
{
	for (int i = 0; label != NULL && i < s->nlabels; i++)
		if (strcmp(s->label[i], label) == 0)
			return s->class[i];
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("label %s of %s was not there when it was first read", label ? label : "NULL", s->name)));
}

/* ---- groups ---- */

static void
source_find_groups(DfxEvalSource *s, const DfxEvalArgs *args, SourceParams *params)
{
	if (args->group_column == NULL)
	{
		s->ngroups = 1;
		s->group = palloc0(sizeof(char *));
		return;
	}
	s->ngroups = source_list(params, psprintf("SELECT DISTINCT %s %s ORDER BY 1 LIMIT %d",
											  source_text(s, args->samples, args->group_column), source_from(s, args),
											  DFX_EVAL_MAX_GROUPS + 1), &s->group);
	if (s->ngroups > DFX_EVAL_MAX_GROUPS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("column \"%s\" of %s has more than %d different values", args->group_column, s->name,
						DFX_EVAL_MAX_GROUPS),
				 errhint("Figures are given for each of them: group by something coarser.")));
}

static int
source_compare(const void *key, const void *member)
{
	const char *group = *(char *const *) member;

	return group == NULL ? -1 : strcmp(key, group);
}

static int
source_group(const DfxEvalSource *s, const char *group)
{
	char	  **found = NULL;

	if (group != NULL)
		found = bsearch(group, s->group, s->ngroups, sizeof(char *), source_compare);
	else if (s->ngroups > 0 && s->group[s->ngroups - 1] == NULL)
		found = &s->group[s->ngroups - 1];
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("group %s of %s was not there when it was first read", group ? group : "NULL", s->name)));
	return found - s->group;
}

/* ---- rows ---- */

void
dfx_eval_open(DfxEvalSource *s, const DfxEvalArgs *args)
{
	SourceParams params;
	Oid			type;
	char	   *image;

	memset(s, 0, sizeof(*s));
	s->name = source_relation(args->samples);
	s->labelled = args->label_column != NULL;
	image = source_column(s, args->samples, args->image_column, &type);
	if (type != BYTEAOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of %s is of type %s, not bytea", args->image_column, s->name,
						format_type_be(type))));
	if (args->labels)
		source_mapped_labels(s, args->labels);
	else
		source_default_labels(s);
	params = source_params(s, args);
	if (args->label_column)
		source_check_labels(s, args, &params);
	source_find_groups(s, args, &params);
	s->portal = SPI_cursor_open_with_args(NULL,
										  psprintf("SELECT %s, %s, %s %s%s", image,
												   source_text(s, args->samples, args->label_column),
												   source_text(s, args->samples, args->group_column),
												   source_from(s, args),
												   args->draw == 0 ? "" :
												   psprintf(" ORDER BY pg_catalog.random() LIMIT " INT64_FORMAT,
															args->draw)),
										  lengthof(params.type), params.type, params.value, NULL, true,
										  CURSOR_OPT_NO_SCROLL);
}

bool
dfx_eval_next(DfxEvalSource *s, DfxEvalRow *row, MemoryContext context)
{
	HeapTuple	tuple;
	TupleDesc	desc;
	MemoryContext old;
	char	   *label,
			   *group;
	Datum		image;

	SPI_cursor_fetch(s->portal, true, 1);
	if (SPI_processed == 0)
		return false;
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	image = SPI_getbinval(tuple, desc, 1, &row->no_image);
	old = MemoryContextSwitchTo(context);
	row->image = row->no_image ? (Datum) 0 : datumCopy(image, false, -1);
	MemoryContextSwitchTo(old);
	label = SPI_getvalue(tuple, desc, 2);
	group = SPI_getvalue(tuple, desc, 3);
	row->truth = s->labelled ? source_class(s, label) : -1;
	row->group = source_group(s, group);
	if (label)
		pfree(label);
	if (group)
		pfree(group);
	SPI_freetuptable(SPI_tuptable);
	return true;
}

void
dfx_eval_close(DfxEvalSource *s)
{
	SPI_cursor_close(s->portal);
}
