/*
 * quantize.c
 *	  CALL dfx_quantize(): calibrate a model on images of the user's, make a
 *	  version of it that runs on 8-bit integers, and say what that costs.
 *
 * Rows are drawn at random, read as the caller reads them.  Every other one
 * calibrates: the engine tells the largest input of each convolution (in fp32),
 * and the largest of all images is what the steps reach up to
 * (docs/PERFORMANCE.md compares that with the mean over the images).  The others
 * are classified by the model in fp32 and by the new version in int8, and compared.
 *
 * A DenseNet's first blocks are where the ranges of values differ most between images.
 * When probabilities move by more than QUANTIZE_MOST on average, the first block stays in
 * floating point, and then the second.  Each version is made and compared in a
 * subtransaction, and rolled back when another one is tried.
 *
 * All of it is one transaction: after any error there is no new version.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/names.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pg/quantize.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include <math.h>

PG_FUNCTION_INFO_V1(dfx_quantize);

#define QUANTIZE_MAX_IMAGES 100000
#define QUANTIZE_MOST		0.02	/* mean difference that does not make a block stay in floating point */
#define QUANTIZE_BLOCKS		2	/* that may */

/* Arguments, in the order of the install script; behind them what it reports. */
enum
{
	ARG_MODEL,
	ARG_SAMPLES,
	ARG_IMAGE_COLUMN,
	ARG_IMAGES,
	ARG_LABEL_COLUMN,
	ARG_LABELS,
	ARG_NEW_MODEL,
	ARG_MAX_ERRORS
};

/* What it reports, in order. */
enum
{
	REPORT_VERSION,
	REPORT_CONVOLUTIONS,
	REPORT_CALIBRATED,
	REPORT_COMPARED,
	REPORT_CHANGED,
	REPORT_MEAN,
	REPORT_LARGEST,
	REPORT_ACCURACY_FP32,
	REPORT_ACCURACY_INT8,
	REPORT_COLUMNS
};

/* Rows of one use: those that calibrate, or those that are compared. */
typedef struct QuantizeRows
{
	DfxEvalRow *row;
	int			n;
} QuantizeRows;

typedef struct Quantize
{
	DfxEvalArgs args;
	char	   *name;			/* of the result */
	char	   *owner;
	QuantizeRows calibrate,
				compare;
	QuantizeRows *at;			/* the rows that are being asked about */
	DfxVerdictReply *verdict;	/* in fp32, of the rows compared */
	bool	   *bad;			/* of these, unreadable */
	int64		nbad;
	DfxScale   *scale;
	int			nscale;
	int64		ncalibrated;

	/* of the comparison */
	int64		compared,
				changed,
				labelled,
				right_fp32,
				right_int8;
	double		sum,
				largest;
	MemoryContext context;
} Quantize;

/* ---- arguments and rows ---- */

static void
quantize_missing(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("%s must not be null", what)));
}

static int32
quantize_number(FunctionCallInfo fcinfo, int n, const char *what, int32 least, int32 most)
{
	int32		value;

	if (PG_ARGISNULL(n))
		quantize_missing(what);
	value = PG_GETARG_INT32(n);
	if (value < least || value > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be from %d to %d, not %d", what, least, most, value)));
	return value;
}

/* Who may do it: whoever may use the model and owns the name of the result, or makes it. */
static void
quantize_args(Quantize *q, FunctionCallInfo fcinfo)
{
	DfxEvalArgs *args = &q->args;
	char	   *model = dfx_name_arg(fcinfo, ARG_MODEL);

	if (PG_ARGISNULL(ARG_SAMPLES))
		quantize_missing("samples");
	if (PG_ARGISNULL(ARG_IMAGE_COLUMN))
		quantize_missing("image_column");
	args->samples = PG_GETARG_OID(ARG_SAMPLES);
	args->image_column = pstrdup(NameStr(*PG_GETARG_NAME(ARG_IMAGE_COLUMN)));
	if (!PG_ARGISNULL(ARG_LABEL_COLUMN))
		args->label_column = pstrdup(NameStr(*PG_GETARG_NAME(ARG_LABEL_COLUMN)));
	if (!PG_ARGISNULL(ARG_LABELS))
		args->labels = PG_GETARG_JSONB_P(ARG_LABELS);
	args->draw = 2 * (int64) quantize_number(fcinfo, ARG_IMAGES, "images", 1, QUANTIZE_MAX_IMAGES);
	args->max_errors = quantize_number(fcinfo, ARG_MAX_ERRORS, "max_errors", 0, PG_INT32_MAX);

	q->name = PG_ARGISNULL(ARG_NEW_MODEL) ? model : dfx_name_arg(fcinfo, ARG_NEW_MODEL);
	q->owner = dfx_model_owner(q->name);
	if (!q->owner)
		q->owner = GetUserNameFromId(GetUserId(), false);
	PushActiveSnapshot(GetTransactionSnapshot());	/* with the name's lock, the newest */
	dfx_model_resolve(cstring_to_text(model), &args->model);
	PopActiveSnapshot();
}

/* An image that cannot be read: raise, unless that may be so; reply NULL: there is none. */
static void
quantize_bad(Quantize *q, const DfxReply *reply)
{
	if (++q->nbad <= q->args.max_errors)
		return;
	if (reply == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("image must not be null"),
				 errhint("max_errors => n lets n images pass.")));
	dfx_reply_raise(reply);
}

/* Draw the rows; one for calibration, the next for comparison, and so on. */
static void
quantize_read(Quantize *q)
{
	DfxEvalSource source;
	DfxEvalRow	row;
	int			room = (int) q->args.draw / 2;

	q->calibrate.row = MemoryContextAlloc(q->context, sizeof(DfxEvalRow) * room);
	q->compare.row = MemoryContextAlloc(q->context, sizeof(DfxEvalRow) * room);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	dfx_eval_open(&source, &q->args);
	while (dfx_eval_next(&source, &row, q->context))
	{
		QuantizeRows *rows = q->calibrate.n > q->compare.n ? &q->compare : &q->calibrate;

		CHECK_FOR_INTERRUPTS();
		if (row.no_image)
			quantize_bad(q, NULL);
		else
			rows->row[rows->n++] = row;
	}
	dfx_eval_close(&source);
	SPI_finish();
}

/* ---- calibration ---- */

/*
 * The next scale of an answer, and where the one after it begins; false when
 * these are not a name and a number.
 */
static bool
quantize_parse(const DfxReply *reply, Size *at, const char **name, float *largest)
{
	const char *data = reply->data;
	Size		len = strnlen(data + *at, reply->len - *at);

	if (len >= DFX_NAME_LEN || reply->len - *at < len + 1 + sizeof(*largest) || !dfx_tensor_is_scale(data + *at))
		return false;
	*name = data + *at;
	memcpy(largest, data + *at + len + 1, sizeof(*largest));
	*at += len + 1 + sizeof(*largest);
	return isfinite(*largest) && *largest >= 0;
}

/* One image's largest inputs; the first answer says which convolutions there are. */
static void
quantize_largest(void *arg, int i, const DfxReply *reply)
{
	Quantize   *q = arg;
	int			n = 0;

	if (dfx_image_at_fault(reply->status))
	{
		quantize_bad(q, reply);
		return;
	}
	dfx_reply_raise(reply);
	if (q->scale == NULL)
		q->scale = MemoryContextAllocZero(q->context, sizeof(DfxScale) * (reply->len / sizeof(float) + 1));
	for (Size at = 0; at < reply->len; n++)
	{
		const char *name;
		float		largest;

		if (!quantize_parse(reply, &at, &name, &largest))
			elog(ERROR, "the engine answered a calibration with what is none");
		if (q->ncalibrated == 0)
			strlcpy(q->scale[n].name, name, DFX_NAME_LEN);
		else if (n >= q->nscale || strcmp(q->scale[n].name, name) != 0)
			elog(ERROR, "the engine answered a calibration with other convolutions than before");
		q->scale[n].largest = Max(q->scale[n].largest, largest);
	}
	q->nscale = n;
	q->ncalibrated++;
}

static int
quantize_by_name(const void *a, const void *b)
{
	return strcmp(((const DfxScale *) a)->name, ((const DfxScale *) b)->name);
}

static void
quantize_calibrate(Quantize *q)
{
	dfx_quantize_ask(q->calibrate.row, q->calibrate.n, DFX_RING_CALIBRATE, "fp32", &q->args.model, quantize_largest, q);
	if (q->ncalibrated == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there are no images to calibrate the model with")));
	for (int i = 0; i < q->nscale; i++)
		/* Where nothing but zeroes came any step will do. */
		q->scale[i].step = (q->scale[i].largest > 0 ? q->scale[i].largest : 1) / DFX_SCALE_STEPS;
	qsort(q->scale, q->nscale, sizeof(DfxScale), quantize_by_name);
}

/* ---- comparison ---- */

static void
quantize_keep(void *arg, int i, const DfxReply *reply)
{
	Quantize   *q = arg;

	q->bad[i] = dfx_image_at_fault(reply->status);
	if (q->bad[i])
		quantize_bad(q, reply);
	else
		dfx_verdict_parse(reply, &q->verdict[i]);
}

/* Is the label the truth, as far as either tells a kind of synthetic image? */
static bool
quantize_right(uint32 label, int truth)
{
	if (label == DFX_CLASS_SYNTHETIC || truth == DFX_CLASS_SYNTHETIC)
		return (label == DFX_CLASS_REAL) == (truth == DFX_CLASS_REAL);
	return (int) label == truth;
}

static void
quantize_compare(void *arg, int i, const DfxReply *reply)
{
	Quantize   *q = arg;
	const DfxVerdictReply *was = &q->verdict[i];
	int			truth = q->compare.row[i].truth;
	DfxVerdictReply is;
	double		difference;

	if (q->bad[i])
		return;
	dfx_verdict_parse(reply, &is);
	difference = fabs((double) is.p_real - was->p_real);
	difference = Max(difference, fabs((double) is.p_synthetic - was->p_synthetic));
	if (!is.binary)
	{
		difference = Max(difference, fabs((double) is.p_dm - was->p_dm));
		difference = Max(difference, fabs((double) is.p_gan - was->p_gan));
	}
	q->sum += difference;
	q->largest = Max(q->largest, difference);
	q->compared++;
	q->changed += is.label != was->label;
	if (truth < 0)
		return;
	q->labelled++;
	q->right_fp32 += quantize_right(was->label, truth);
	q->right_int8 += quantize_right(is.label, truth);
}

/* ---- the report ---- */

static void
quantize_report(const Quantize *q, const char *version, Datum *values, bool *nulls)
{
	double		n = (double) q->compared,
				labelled = (double) q->labelled;

	values[REPORT_VERSION] = CStringGetTextDatum(version);
	values[REPORT_CONVOLUTIONS] = Int32GetDatum(q->nscale);
	values[REPORT_CALIBRATED] = Int64GetDatum(q->ncalibrated);
	values[REPORT_COMPARED] = Int64GetDatum(q->compared);
	values[REPORT_CHANGED] = Int64GetDatum(q->changed);
	values[REPORT_MEAN] = Float8GetDatum(q->sum / n);
	values[REPORT_LARGEST] = Float8GetDatum(q->largest);
	nulls[REPORT_MEAN] = nulls[REPORT_LARGEST] = q->compared == 0;
	values[REPORT_ACCURACY_FP32] = Float8GetDatum((double) q->right_fp32 / labelled);
	values[REPORT_ACCURACY_INT8] = Float8GetDatum((double) q->right_int8 / labelled);
	nulls[REPORT_ACCURACY_FP32] = nulls[REPORT_ACCURACY_INT8] = q->labelled == 0;
}

/* The same as the new version's metrics. */
static void
quantize_store_report(const uint8 *version, Datum *values, bool *nulls)
{
	Oid			types[] = {BYTEAOID, INT4OID, INT8OID, INT8OID, INT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID};
	Datum		given[REPORT_COLUMNS];
	char		null[REPORT_COLUMNS + 1];
	DfxStore	store;

	for (int i = 0; i < REPORT_COLUMNS; i++)
	{
		given[i] = values[i];
		null[i] = nulls[i] ? 'n' : ' ';
	}
	null[REPORT_COLUMNS] = '\0';
	given[REPORT_VERSION] = dfx_store_bytea(version, DFX_VERSION_LEN);
	dfx_store_begin(&store);
	dfx_store_sql_nulls("UPDATE @extschema@.dfx_model_version SET metrics = pg_catalog.jsonb_build_object('quantization',"
						" pg_catalog.jsonb_build_object('convolutions', $2, 'calibrated', $3, 'compared', $4,"
						" 'changed', $5, 'mean_difference', $6, 'max_difference', $7, 'accuracy_fp32', $8,"
						" 'accuracy_int8', $9)) WHERE version = $1",
						lengthof(types), types, given, null);
	dfx_store_end(&store);
}

/* ---- SQL ---- */

/* Make the version, and compare it with the model under a snapshot that sees it; whether it is new. */
static bool
quantize_make(Quantize *q, DfxModelRef *made)
{
	bool		is_new;

	is_new = dfx_quantize_store(&q->args.model, q->scale, q->nscale, q->name, q->owner, made->version);
	strlcpy(made->name, q->name, sizeof(made->name));
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	dfx_quantize_ask(q->compare.row, q->compare.n, DFX_RING_CLASSIFY, "int8", made, quantize_compare, q);
	PopActiveSnapshot();
	return is_new;
}

/* The same in a subtransaction; false: probabilities move too far, and everything is as before. */
static bool
quantize_try(Quantize *q, bool last, DfxModelRef *made, bool *is_new)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	bool		holds;

	q->compared = q->changed = q->labelled = q->right_fp32 = q->right_int8 = 0;
	q->sum = q->largest = 0;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	*is_new = quantize_make(q, made);
	holds = last || q->sum <= QUANTIZE_MOST * (double) q->compared;
	if (holds)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return holds;
}

/* How many convolutions a dense block has among the scales. */
static int
quantize_block_size(const Quantize *q, int block)
{
	int			n = 0;

	for (int i = 0; i < q->nscale; i++)
		n += dfx_tensor_dense_block(q->scale[i].name) == block;
	return n;
}

/* A dense block's convolutions are not calibrated after all. */
static void
quantize_leave(Quantize *q, int block)
{
	int			n = 0;

	ereport(NOTICE,
			(errmsg("on 8-bit integers probabilities differ by %.3f on average: block %d stays in floating point",
					q->sum / (double) q->compared, block)));
	for (int i = 0; i < q->nscale; i++)
		if (dfx_tensor_dense_block(q->scale[i].name) != block)
			q->scale[n++] = q->scale[i];
	q->nscale = n;
}

/* The first version that holds, or the last that there is; whether it is new. */
static bool
quantize_choose(Quantize *q, DfxModelRef *made)
{
	bool		is_new;

	for (int block = 1;; block++)
	{
		bool		last = block > QUANTIZE_BLOCKS || quantize_block_size(q, block) == 0;

		if (quantize_try(q, last, made, &is_new))
			return is_new;
		quantize_leave(q, block);
	}
}

/* CALL dfx_quantize(model text, samples regclass, ...), reporting in its INOUT arguments */
Datum
dfx_quantize(PG_FUNCTION_ARGS)
{
	Quantize	q = {.context = AllocSetContextCreate(CurrentMemoryContext, "deepfeaturex quantization",
													  ALLOCSET_DEFAULT_SIZES)};
	Datum		values[REPORT_COLUMNS];
	bool		nulls[REPORT_COLUMNS] = {false};
	char		hex[DFX_VERSION_HEX_LEN];
	DfxModelRef made;
	TupleDesc	desc;

	PreventCommandIfReadOnly("dfx_quantize()");
	PreventCommandIfParallelMode("dfx_quantize()");
	dfx_require_ring();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "dfx_quantize is not declared with what it reports");
	quantize_args(&q, fcinfo);
	quantize_read(&q);
	quantize_calibrate(&q);
	q.verdict = MemoryContextAlloc(q.context, sizeof(DfxVerdictReply) * Max(q.compare.n, 1));
	q.bad = MemoryContextAllocZero(q.context, sizeof(bool) * Max(q.compare.n, 1));
	dfx_quantize_ask(q.compare.row, q.compare.n, DFX_RING_CLASSIFY, "fp32", &q.args.model, quantize_keep, &q);
	if (quantize_choose(&q, &made))
	{
		quantize_report(&q, "", values, nulls);
		quantize_store_report(made.version, values, nulls);
	}
	dfx_version_hex(made.version, hex);
	quantize_report(&q, hex, values, nulls);
	MemoryContextDelete(q.context);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
