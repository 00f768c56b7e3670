/*
 * classify.c
 *	  The screening functions of SQL (DESIGN section 5).
 *
 * Each call is one request to the engine.  None that takes an optional model
 * is STRICT: a NULL image gives NULL, before anything else is asked for.  The
 * model is looked up on every call, under the statement's snapshot, which
 * costs microseconds beside a network's milliseconds.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "pg/queue.h"
#include "pg/verdict.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dfx_classify);
PG_FUNCTION_INFO_V1(dfx_try_classify);
PG_FUNCTION_INFO_V1(dfx_synthetic);
PG_FUNCTION_INFO_V1(dfx_features);
PG_FUNCTION_INFO_V1(dfx_image_info);

/* Resolve the optional model of argument 1, then ask the engine about argument 0. */
static void
classify_request(FunctionCallInfo fcinfo, DfxRingOp op, DfxModelRef *model, DfxReply *reply)
{
	dfx_require_ring();
	dfx_model_resolve(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1), model);
	dfx_image_request(PG_GETARG_DATUM(0), op, model, reply);
}

/*
 * The verdict on argument 0 by the model of argument 1.  False for a NULL
 * image, and with forgive for one that is at fault itself; other failures raise.
 */
static bool
classify_verdict(FunctionCallInfo fcinfo, bool forgive, DfxModelRef *model, DfxVerdictReply *verdict)
{
	DfxReply	reply;

	if (PG_ARGISNULL(0))
		return false;
	classify_request(fcinfo, DFX_RING_CLASSIFY, model, &reply);
	if (forgive && dfx_image_at_fault(reply.status))
		return false;
	dfx_verdict_parse(&reply, verdict);
	return true;
}

/* dfx_classify(image bytea, model text DEFAULT NULL) -> dfx_verdict */
Datum
dfx_classify(PG_FUNCTION_ARGS)
{
	DfxModelRef model;
	DfxVerdictReply verdict;

	if (!classify_verdict(fcinfo, false, &model, &verdict))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(dfx_verdict_datum(&verdict, &model));
}

/* dfx_try_classify(image bytea, model text DEFAULT NULL) -> dfx_verdict; NULL for an image at fault. */
Datum
dfx_try_classify(PG_FUNCTION_ARGS)
{
	DfxModelRef model;
	DfxVerdictReply verdict;

	if (!classify_verdict(fcinfo, true, &model, &verdict))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(dfx_verdict_datum(&verdict, &model));
}

/* dfx_synthetic(image bytea, model text DEFAULT NULL) -> real */
Datum
dfx_synthetic(PG_FUNCTION_ARGS)
{
	DfxModelRef model;
	DfxVerdictReply verdict;

	if (!classify_verdict(fcinfo, false, &model, &verdict))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT4(verdict.p_synthetic);
}

/* dfx_features(image bytea, model text DEFAULT NULL) -> real[] */
Datum
dfx_features(PG_FUNCTION_ARGS)
{
	DfxModelRef model;
	DfxReply	reply;
	ArrayType  *array;
	Size		size;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	classify_request(fcinfo, DFX_RING_FEATURES, &model, &reply);
	dfx_reply_raise(&reply);
	if (reply.len == 0 || reply.len % sizeof(float4) != 0 || reply.len > DFX_MAX_FEATURES * sizeof(float4))
		elog(ERROR, "the engine answered with %zu bytes instead of features", reply.len);

	size = ARR_OVERHEAD_NONULLS(1) + reply.len;
	array = palloc0(size);
	SET_VARSIZE(array, size);
	array->ndim = 1;
	array->elemtype = FLOAT4OID;
	ARR_DIMS(array)[0] = reply.len / sizeof(float4);
	ARR_LBOUND(array)[0] = 1;
	memcpy(ARR_DATA_PTR(array), reply.data, reply.len);
	pfree(reply.data);
	PG_RETURN_ARRAYTYPE_P(array);
}

/* dfx_image_info(image bytea) -> (format text, width int, height int, channels int, bits int); strict. */
Datum
dfx_image_info(PG_FUNCTION_ARGS)
{
	DfxReply	reply;
	DfxInfoReply info;
	TupleDesc	desc;
	Datum		values[5];
	bool		nulls[5] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE || desc->natts != lengthof(values))
		elog(ERROR, "dfx_image_info must return five columns");
	dfx_require_ring();
	dfx_image_request(PG_GETARG_DATUM(0), DFX_RING_IMAGE_INFO, NULL, &reply);
	dfx_reply_raise(&reply);
	if (reply.len != sizeof(info))
		elog(ERROR, "the engine answered with %zu bytes instead of an image's description", reply.len);
	memcpy(&info, reply.data, sizeof(info));
	for (const char *c = info.format;; c++)
	{
		if (c == info.format + sizeof(info.format) || (*c != '\0' && !(*c >= ' ' && *c <= '~')))
			elog(ERROR, "the engine answered with an image format that is no text");
		if (*c == '\0')
			break;
	}
	values[0] = CStringGetTextDatum(info.format);
	values[1] = Int32GetDatum(info.width);
	values[2] = Int32GetDatum(info.height);
	values[3] = Int32GetDatum(info.channels);
	values[4] = Int32GetDatum(info.bits);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
