/*
 * trigger.c
 *	  dfx_flag() and dfx_reject(): screening at the door.
 *
 * Both are BEFORE ROW triggers that take columns by name.  They work with the
 * rights of whoever writes the row, so that user needs the model's grant.  An
 * UPDATE that leaves the image as it is costs no request: that is found out
 * without detoasting when, as usual, both rows share the stored value.
 *
 * An image that cannot be read raises, in both: a row that says nothing about
 * its image must not look like a screened one.  Who wants such rows calls
 * dfx_try_classify() in a trigger of his own.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "pg/queue.h"
#include "pg/verdict.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include <math.h>

PG_FUNCTION_INFO_V1(dfx_flag);
PG_FUNCTION_INFO_V1(dfx_reject);

/* What both triggers know about their call. */
typedef struct TriggerCall
{
	const char *function;
	TriggerData *data;
	TupleDesc	desc;
	HeapTuple	row;			/* the new one */
	HeapTuple	old;			/* NULL on INSERT */
	int			image;			/* column numbers */
	text	   *model;			/* NULL: the default */
} TriggerCall;

/* ---- the call ---- */

static int
trigger_column(const TriggerCall *t, const char *name)
{
	for (int i = 0; i < t->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(t->desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return i + 1;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of relation \"%s\" does not exist", name,
					RelationGetRelationName(t->data->tg_relation)),
			 errdetail("Trigger \"%s\" names it in the call of %s().", t->data->tg_trigger->tgname, t->function)));
}

/* Check how the trigger was made, and read what both functions share of its arguments. */
static void
trigger_begin(FunctionCallInfo fcinfo, const char *function, TriggerCall *t)
{
	Trigger    *trigger;
	int			column;
	Oid			type;

	memset(t, 0, sizeof(*t));
	t->function = function;
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() was not called as a trigger", function)));
	t->data = (TriggerData *) fcinfo->context;
	if (!TRIGGER_FIRED_BEFORE(t->data->tg_event) || !TRIGGER_FIRED_FOR_ROW(t->data->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(t->data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() must be fired BEFORE INSERT OR UPDATE, FOR EACH ROW", function)));
	trigger = t->data->tg_trigger;
	if (trigger->tgnargs != 2 && trigger->tgnargs != 3)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s() takes two or three arguments, not %d", function, trigger->tgnargs)));

	t->desc = RelationGetDescr(t->data->tg_relation);
	if (TRIGGER_FIRED_BY_UPDATE(t->data->tg_event))
	{
		t->row = t->data->tg_newtuple;
		t->old = t->data->tg_trigtuple;
	}
	else
		t->row = t->data->tg_trigtuple;
	column = trigger_column(t, trigger->tgargs[0]);
	type = TupleDescAttr(t->desc, column - 1)->atttypid;
	if (getBaseType(type) != BYTEAOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" is of type %s, but %s() needs an image column of type bytea",
						trigger->tgargs[0], format_type_be(type), function)));
	t->image = column;
	if (trigger->tgnargs == 3)
		t->model = cstring_to_text(trigger->tgargs[2]);
}

/* Does this UPDATE leave the column as it was? */
static bool
trigger_unchanged(const TriggerCall *t, int column)
{
	bool		was_null,
				is_null;
	Datum		was,
				is;

	if (!t->old)
		return false;
	was = heap_getattr(t->old, column, t->desc, &was_null);
	is = heap_getattr(t->row, column, t->desc, &is_null);
	if (was_null || is_null)
		return was_null && is_null;
	/* The same stored value, or short ones: no need to fetch anything. */
	if (VARSIZE_ANY(was) == VARSIZE_ANY(is) &&
		memcmp(DatumGetPointer(was), DatumGetPointer(is), VARSIZE_ANY(is)) == 0)
		return true;
	return datum_image_eq(was, is, false, -1);
}

/* Ask the engine about the new row's image. */
static void
trigger_classify(const TriggerCall *t, Datum image, DfxModelRef *model, DfxVerdictReply *verdict)
{
	DfxReply	reply;

	dfx_require_ring();
	dfx_model_resolve(t->model, model);
	dfx_image_request(image, DFX_RING_CLASSIFY, model, &reply);
	dfx_verdict_parse(&reply, verdict);
	pfree(reply.data);
}

/* ---- dfx_flag(image_column, verdict_column [, model]) ----
 *
 * Sets the verdict when the image is new, or has none yet; a NULL image has a
 * NULL verdict.  A verdict that an UPDATE writes itself, without changing the
 * image, is left alone: that is how one is corrected by hand.
 */

Datum
dfx_flag(PG_FUNCTION_ARGS)
{
	TriggerCall t;
	const char *verdict_name;
	int			column;
	Oid			type;
	Datum		image,
				value = (Datum) 0;
	bool		no_image,
				no_verdict;

	trigger_begin(fcinfo, "dfx_flag", &t);
	verdict_name = t.data->tg_trigger->tgargs[1];
	column = trigger_column(&t, verdict_name);
	type = TupleDescAttr(t.desc, column - 1)->atttypid;
	if (type != dfx_catalog()->verdict_type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" is of type %s, but dfx_flag() fills columns of type dfx_verdict",
						verdict_name, format_type_be(type))));

	(void) heap_getattr(t.row, column, t.desc, &no_verdict);
	if (!no_verdict && trigger_unchanged(&t, t.image))
		return PointerGetDatum(t.row);
	image = heap_getattr(t.row, t.image, t.desc, &no_image);
	if (!no_image)
	{
		DfxModelRef model;
		DfxVerdictReply verdict;

		trigger_classify(&t, image, &model, &verdict);
		value = dfx_verdict_datum(&verdict, &model);
	}
	return PointerGetDatum(heap_modify_tuple_by_cols(t.row, t.desc, 1, &column, &value, &no_image));
}

/* ---- dfx_reject(image_column, threshold [, model]) ----
 *
 * Raises 23514 with the scores when p_synthetic >= threshold, so 0 refuses
 * every image and 1 only those the model is certain of.  NULL images pass.
 */

static double
trigger_threshold(const char *value)
{
	char	   *end;
	double		threshold = strtod(value, &end);

	if (end == value || *end != '\0' || isnan(threshold) || threshold < 0 || threshold > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("threshold \"%s\" of dfx_reject() is not a number from 0 to 1", value)));
	return threshold;
}

static void
trigger_refuse(const TriggerCall *t, const DfxVerdictReply *v, const DfxModelRef *model)
{
	const char *threshold = t->data->tg_trigger->tgargs[1];
	char		scores[96];

	if (v->binary)
		snprintf(scores, sizeof(scores), "real %.4f", v->p_real);
	else
		snprintf(scores, sizeof(scores), "dm %.4f, gan %.4f, real %.4f", v->p_dm, v->p_gan, v->p_real);
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("image refused: p_synthetic %.4f reaches the threshold %s (%s)", v->p_synthetic, threshold, scores),
			 errdetail("Column \"%s\", model \"%s\".", t->data->tg_trigger->tgargs[0], model->name),
			 errtablecol(t->data->tg_relation, t->image)));
}

Datum
dfx_reject(PG_FUNCTION_ARGS)
{
	TriggerCall t;
	double		threshold;
	Datum		image;
	bool		no_image;

	trigger_begin(fcinfo, "dfx_reject", &t);
	threshold = trigger_threshold(t.data->tg_trigger->tgargs[1]);
	image = heap_getattr(t.row, t.image, t.desc, &no_image);
	if (!no_image && !trigger_unchanged(&t, t.image))
	{
		DfxModelRef model;
		DfxVerdictReply verdict;

		trigger_classify(&t, image, &model, &verdict);
		if (verdict.p_synthetic >= threshold)
			trigger_refuse(&t, &verdict, &model);
	}
	return PointerGetDatum(t.row);
}
