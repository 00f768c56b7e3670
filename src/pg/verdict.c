/*
 * verdict.c
 *	  One image, one request, one verdict.
 *
 * The engine parses hostile bytes, so what it answers is checked like any
 * input before it becomes SQL: labels are in range, probabilities are, strings
 * end and are text of this database.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "catalog/pg_enum.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "pg/ra_window.h"
#include "pg/settings.h"
#include "pg/verdict.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include <math.h>

/* Columns of dfx_verdict, in the order of the install script. */
enum
{
	VERDICT_LABEL,
	VERDICT_CONFIDENCE,
	VERDICT_P_SYNTHETIC,
	VERDICT_P_DM,
	VERDICT_P_GAN,
	VERDICT_P_REAL,
	VERDICT_GENERATOR,
	VERDICT_MODEL,
	VERDICT_VERSION,
	VERDICT_NCOLUMNS
};

static const char *const verdict_labels[] = {
	[DFX_CLASS_DM] = "dm",
	[DFX_CLASS_GAN] = "gan",
	[DFX_CLASS_REAL] = "real",
	[DFX_CLASS_SYNTHETIC] = "synthetic",
};

bool
dfx_image_at_fault(DfxStatus status)
{
	return status == DFX_EIMAGE || status == DFX_ELIMIT;
}

static bool
image_allowed(Size size)
{
	return size <= (Size) dfx_max_image_bytes * 1024;
}

/* Bytes to reserve for the answer about an image of that size (DESIGN section 1). */
static Size
image_reply_room(DfxRingOp op, Size size)
{
	if (op == DFX_RING_FEATURES || op == DFX_RING_CALIBRATE)
		return DFX_REPLY_FEATURES;
	if (op == DFX_RING_PERTURB)
		return Max(size, DFX_REPLY_IMAGE_MIN);
	if (op == DFX_RING_HEATMAP)
		return DFX_REPLY_HEATMAP;
	return DFX_REPLY_VERDICT;
}

bool
dfx_image_call(Datum image, DfxRingOp op, const DfxPerturbation *how, const DfxModelRef *model, DfxCall *call)
{
	memset(call, 0, sizeof(*call));
	call->op = op;
	call->image = image;
	call->len = toast_raw_datum_size(image) - VARHDRSZ;
	call->reply_cap = image_reply_room(op, call->len);
	if (how)
		call->how = *how;
	if (model)
	{
		call->version = model->version;
		call->need_model = dfx_model_need;
		call->need_model_arg = unconstify(DfxModelRef *, model);
	}
	return image_allowed(call->len);
}

/* The backend holds no copy of the image and never looks into it: each submission reads it once more. */
void
dfx_image_ask(const DfxCall *call, DfxReply *reply)
{
	DfxTicket	ticket = DFX_TICKET_INIT;

	memset(reply, 0, sizeof(*reply));
	if (!image_allowed(call->len))
	{
		/* Before anything is read: the limit is there to bound memory. */
		reply->status = DFX_ELIMIT;
		snprintf(reply->msg, sizeof(reply->msg),
				 "image of %zu bytes is larger than dfx.max_image_bytes allows (%d kB)",
				 call->len, dfx_max_image_bytes);
		return;
	}
	if (!dfx_window_answer(call, &ticket, reply))
		dfx_queue_go_on(call, &ticket, reply);
}

void
dfx_image_request_as(Datum image, DfxRingOp op, const DfxPerturbation *how, const DfxModelRef *model,
					 DfxReply *reply)
{
	DfxCall		call;

	(void) dfx_image_call(image, op, how, model, &call);
	dfx_image_ask(&call, reply);
}

void
dfx_image_request(Datum image, DfxRingOp op, const DfxModelRef *model, DfxReply *reply)
{
	dfx_image_request_as(image, op, NULL, model, reply);
}

Datum
dfx_image_datum(const DfxReply *reply)
{
	bytea	   *result;

	dfx_reply_raise(reply);
	if (reply->len == 0 || reply->len > DFX_REPLY_IMAGE_MAX)
		elog(ERROR, "the engine answered with %zu bytes instead of an image", reply->len);
	result = palloc(VARHDRSZ + reply->len);
	SET_VARSIZE(result, VARHDRSZ + reply->len);
	memcpy(VARDATA(result), reply->data, reply->len);
	pfree(reply->data);
	PG_RETURN_BYTEA_P(result);
}

/* NaN fails every comparison, and infinity is out of range, but be plain about it. */
static bool
verdict_is_probability(float p)
{
	return isfinite(p) && p >= 0.0f && p <= 1.0f;
}

void
dfx_verdict_parse(const DfxReply *reply, DfxVerdictReply *verdict)
{
	dfx_reply_raise(reply);
	if (reply->len != sizeof(*verdict))
		elog(ERROR, "the engine answered with %zu bytes instead of a verdict", reply->len);
	memcpy(verdict, reply->data, sizeof(*verdict));
	if (verdict->label >= lengthof(verdict_labels) ||
		!verdict_is_probability(verdict->confidence) ||
		!verdict_is_probability(verdict->p_synthetic) ||
		!verdict_is_probability(verdict->p_real) ||
		(!verdict->binary && !(verdict_is_probability(verdict->p_dm) && verdict_is_probability(verdict->p_gan))))
		elog(ERROR, "the engine answered with numbers that are no verdict");
	if (strnlen(verdict->generator, sizeof(verdict->generator)) == sizeof(verdict->generator) ||
		!pg_verifymbstr(verdict->generator, strlen(verdict->generator), true))
		elog(ERROR, "the engine answered with a generator that is no text");
}

int
dfx_class_find(const char *name)
{
	for (int i = 0; i < lengthof(verdict_labels); i++)
		if (strcmp(verdict_labels[i], name) == 0)
			return i;
	return -1;
}

/* The label's OID: enums have no fixed ones. */
Datum
dfx_class_datum(uint32 label)
{
	HeapTuple	tuple = SearchSysCache2(ENUMTYPOIDNAME, ObjectIdGetDatum(dfx_catalog()->class_type),
										CStringGetDatum(verdict_labels[label]));
	Oid			oid;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "type dfx_class has no label \"%s\"", verdict_labels[label]);
	oid = ((Form_pg_enum) GETSTRUCT(tuple))->oid;
	ReleaseSysCache(tuple);
	return ObjectIdGetDatum(oid);
}

/* Binary models know neither DM nor GAN: those columns are NULL then, not 0. */
Datum
dfx_verdict_datum(const DfxVerdictReply *verdict, const DfxModelRef *model)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(dfx_catalog()->verdict_type, -1);
	Datum		values[VERDICT_NCOLUMNS];
	bool		nulls[VERDICT_NCOLUMNS] = {false};
	char		hex[DFX_VERSION_HEX_LEN];
	Datum		result;

	if (desc->natts != VERDICT_NCOLUMNS)
		elog(ERROR, "type dfx_verdict has %d columns instead of %d", desc->natts, VERDICT_NCOLUMNS);
	dfx_version_hex(model->version, hex);
	values[VERDICT_LABEL] = dfx_class_datum(verdict->label);
	values[VERDICT_CONFIDENCE] = Float4GetDatum(verdict->confidence);
	values[VERDICT_P_SYNTHETIC] = Float4GetDatum(verdict->p_synthetic);
	values[VERDICT_P_DM] = Float4GetDatum(verdict->p_dm);
	values[VERDICT_P_GAN] = Float4GetDatum(verdict->p_gan);
	nulls[VERDICT_P_DM] = nulls[VERDICT_P_GAN] = verdict->binary != 0;
	values[VERDICT_P_REAL] = Float4GetDatum(verdict->p_real);
	values[VERDICT_GENERATOR] = CStringGetTextDatum(verdict->generator);
	nulls[VERDICT_GENERATOR] = verdict->generator[0] == '\0';
	values[VERDICT_MODEL] = CStringGetTextDatum(model->name);
	values[VERDICT_VERSION] = CStringGetTextDatum(hex);
	result = HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
	ReleaseTupleDesc(desc);
	return result;
}
