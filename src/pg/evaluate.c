/*
 * evaluate.c
 *	  dfx_evaluate() and dfx_confusion(): how good a model is on labelled
 *	  images of the user's (METHOD "Experiments", tables 2 and 3 of the paper).
 *
 * Both take the same arguments and run the same evaluation; they differ in
 * what they make of it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "base/metrics.h"
#include "pg/eval.h"
#include "pg/perturb.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include <math.h>

PG_FUNCTION_INFO_V1(dfx_evaluate);
PG_FUNCTION_INFO_V1(dfx_confusion);

/* Arguments, in the order of the install script. */
enum
{
	ARG_MODEL,
	ARG_SAMPLES,
	ARG_IMAGE_COLUMN,
	ARG_LABEL_COLUMN,
	ARG_PERTURB,
	ARG_GROUP_BY,
	ARG_LABELS,
	ARG_SPLIT_COLUMN,
	ARG_SPLIT,
	ARG_MAX_ERRORS
};

/* Columns of dfx_evaluate(): these, then value, low and high of each figure, by classes and binary. */
enum
{
	COLUMN_PERTURBATION,
	COLUMN_GROUP,
	COLUMN_N,
	COLUMN_UNREADABLE,
	COLUMN_FIGURES
};
#define EVALUATE_COLUMNS (COLUMN_FIGURES + 2 * 3 * DFX_FIGURE_COUNT)

/* Columns of dfx_confusion(). */
enum
{
	CONFUSION_PERTURBATION,
	CONFUSION_GROUP,
	CONFUSION_TRUTH,
	CONFUSION_PREDICTED,
	CONFUSION_N,
	CONFUSION_COLUMNS
};

/* ---- arguments ---- */

static void
evaluate_missing(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", what)));
}

static char *
evaluate_name_arg(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (PG_ARGISNULL(n))
		evaluate_missing(what);
	return pstrdup(NameStr(*PG_GETARG_NAME(n)));
}

static void
evaluate_perturb_arg(FunctionCallInfo fcinfo, DfxEvalArgs *args)
{
	Datum	   *how;
	bool	   *null;

	if (PG_ARGISNULL(ARG_PERTURB))
		evaluate_missing("perturb");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(ARG_PERTURB), TEXTOID, -1, false, TYPALIGN_INT, &how, &null, &args->nperturb);
	if (args->nperturb == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("perturb must not be empty"),
				 errhint("'{raw}' evaluates the images as they are.")));
	if (args->nperturb > DFX_EVAL_MAX_PERTURBATIONS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("perturb has %d elements; at most %d are allowed", args->nperturb, DFX_EVAL_MAX_PERTURBATIONS)));
	args->perturb = palloc(sizeof(char *) * args->nperturb);
	args->how = palloc(sizeof(DfxPerturbation) * args->nperturb);
	for (int i = 0; i < args->nperturb; i++)
	{
		if (null[i])
			evaluate_missing("an element of perturb");
		args->perturb[i] = TextDatumGetCString(how[i]);
		dfx_perturb_arg(DatumGetTextPP(how[i]), &args->how[i]);
	}
}

static DfxEvalArgs *
evaluate_args(FunctionCallInfo fcinfo)
{
	DfxEvalArgs *args = palloc0(sizeof(*args));

	if (PG_ARGISNULL(ARG_SAMPLES))
		evaluate_missing("samples");
	args->samples = PG_GETARG_OID(ARG_SAMPLES);
	args->image_column = evaluate_name_arg(fcinfo, ARG_IMAGE_COLUMN, "image_column");
	args->label_column = evaluate_name_arg(fcinfo, ARG_LABEL_COLUMN, "label_column");
	evaluate_perturb_arg(fcinfo, args);
	if (!PG_ARGISNULL(ARG_GROUP_BY))
		args->group_column = evaluate_name_arg(fcinfo, ARG_GROUP_BY, "group_by");
	if (!PG_ARGISNULL(ARG_LABELS))
		args->labels = PG_GETARG_JSONB_P(ARG_LABELS);
	if (!PG_ARGISNULL(ARG_SPLIT_COLUMN))
	{
		args->split_column = evaluate_name_arg(fcinfo, ARG_SPLIT_COLUMN, "split_column");
		args->split = dfx_text_arg(fcinfo, ARG_SPLIT, "split");
	}
	args->max_errors = PG_ARGISNULL(ARG_MAX_ERRORS) ? PG_INT64_MAX : PG_GETARG_INT32(ARG_MAX_ERRORS);
	if (args->max_errors < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_errors must not be negative")));
	dfx_require_ring();
	dfx_model_resolve(PG_ARGISNULL(ARG_MODEL) ? NULL : PG_GETARG_TEXT_PP(ARG_MODEL), &args->model);
	return args;
}

/* ---- rows ---- */

/* What both functions do; row makes of one cell what it likes. */
static Datum
evaluate_each(FunctionCallInfo fcinfo, bool keep,
			  void (*row) (ReturnSetInfo *result, const DfxEvalScores *s, const DfxEvalCell *cell, Datum *values,
						   bool *nulls))
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	DfxEvalScores scores = {.keep = keep};
	DfxEvalArgs *args;
	char	  **group;

	InitMaterializedSRF(fcinfo, 0);
	args = evaluate_args(fcinfo);
	scores.context = AllocSetContextCreate(CurrentMemoryContext, "deepfeaturex evaluation", ALLOCSET_DEFAULT_SIZES);
	dfx_eval_run(args, &scores, &group);
	for (int i = 0; i < args->nperturb; i++)
		for (int j = 0; j < scores.ngroups; j++)
		{
			Datum		values[EVALUATE_COLUMNS];
			bool		nulls[EVALUATE_COLUMNS] = {false};

			values[COLUMN_PERTURBATION] = CStringGetTextDatum(args->perturb[i]);
			nulls[COLUMN_GROUP] = group[j] == NULL;
			values[COLUMN_GROUP] = group[j] ? CStringGetTextDatum(group[j]) : (Datum) 0;
			row(result, &scores, dfx_eval_cell(&scores, i, j), values, nulls);
		}
	MemoryContextDelete(scores.context);
	return (Datum) 0;
}

static void
evaluate_figures(const DfxEstimate *figure, Datum *values, bool *nulls)
{
	for (int i = 0; i < DFX_FIGURE_COUNT; i++)
		for (int j = 0; j < 3; j++)
		{
			values[3 * i + j] = Float8GetDatum(j == 0 ? figure[i].value : j == 1 ? figure[i].low : figure[i].high);
			nulls[3 * i + j] = isnan(figure[i].value);
		}
}

static void
evaluate_row(ReturnSetInfo *result, const DfxEvalScores *s, const DfxEvalCell *cell, Datum *values, bool *nulls)
{
	DfxEstimate figure[DFX_FIGURE_COUNT];
	int			binary = COLUMN_FIGURES + 3 * DFX_FIGURE_COUNT;
	uint64		unreadable = 0;

	for (int truth = 0; truth < DFX_EVAL_CLASSES; truth++)
		unreadable += cell->unreadable[truth];
	values[COLUMN_N] = Int64GetDatum((int64) dfx_eval_images(cell));
	values[COLUMN_UNREADABLE] = Int64GetDatum((int64) unreadable);
	dfx_eval_classes(s, cell, figure);
	evaluate_figures(figure, values + COLUMN_FIGURES, nulls + COLUMN_FIGURES);
	dfx_eval_binary(cell, figure);
	evaluate_figures(figure, values + binary, nulls + binary);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* May the model give that verdict?  It may if it has. */
static bool
confusion_possible(const DfxEvalScores *s, const DfxEvalCell *cell, int said)
{
	bool		possible = said == DFX_CLASS_REAL || (said == DFX_CLASS_SYNTHETIC) == s->binary;

	for (int truth = 0; truth < DFX_EVAL_CLASSES; truth++)
		possible |= cell->n[truth][said] > 0;
	return possible;
}

/* One row for each class that occurs and each verdict that is possible, then one for unreadable images. */
static void
confusion_rows(ReturnSetInfo *result, const DfxEvalScores *s, const DfxEvalCell *cell, Datum *values, bool *nulls)
{
	for (int truth = 0; truth < DFX_EVAL_CLASSES; truth++)
	{
		uint64		images = cell->unreadable[truth];

		for (int said = 0; said < DFX_EVAL_CLASSES; said++)
			images += cell->n[truth][said];
		if (images == 0)
			continue;
		values[CONFUSION_TRUTH] = dfx_class_datum(truth);
		nulls[CONFUSION_PREDICTED] = false;
		for (int said = 0; said < DFX_EVAL_CLASSES; said++)
		{
			if (!confusion_possible(s, cell, said))
				continue;
			values[CONFUSION_PREDICTED] = dfx_class_datum(said);
			values[CONFUSION_N] = Int64GetDatum((int64) cell->n[truth][said]);
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		}
		if (cell->unreadable[truth] == 0)
			continue;
		nulls[CONFUSION_PREDICTED] = true;
		values[CONFUSION_N] = Int64GetDatum((int64) cell->unreadable[truth]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/* dfx_evaluate(model text, samples regclass, ...) -> one row for each perturbation and group */
Datum
dfx_evaluate(PG_FUNCTION_ARGS)
{
	return evaluate_each(fcinfo, true, evaluate_row);
}

/* dfx_confusion(model text, samples regclass, ...) -> (perturbation, group_value, truth, predicted, n) */
Datum
dfx_confusion(PG_FUNCTION_ARGS)
{
	return evaluate_each(fcinfo, false, confusion_rows);
}
