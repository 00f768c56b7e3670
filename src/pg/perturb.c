/*
 * perturb.c
 *	  dfx_perturb(): an image as it comes back from elsewhere.
 *
 * The text is parsed here (base/perturbation.h), the image in the engine
 * alone, which sends the result back as a file.
 */
#include "postgres.h"

#include "fmgr.h"
#include "pg/perturb.h"
#include "pg/queue.h"
#include "pg/verdict.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dfx_perturb);

void
dfx_perturb_arg(const text *how, DfxPerturbation *p)
{
	DfxErr		err;

	if (dfx_perturbation_parse(text_to_cstring(how), p, &err) != DFX_OK)
		dfx_err_raise(&err);
}

/* dfx_perturb(image bytea, how text) -> bytea; strict */
Datum
dfx_perturb(PG_FUNCTION_ARGS)
{
	DfxPerturbation how;
	DfxReply	reply;
	bytea	   *result;

	dfx_perturb_arg(PG_GETARG_TEXT_PP(1), &how);
	dfx_require_ring();
	dfx_image_request_as(PG_GETARG_DATUM(0), DFX_RING_PERTURB, &how, NULL, &reply);
	dfx_reply_raise(&reply);
	if (reply.len == 0 || reply.len > DFX_REPLY_IMAGE_MAX)
		elog(ERROR, "the engine answered with %zu bytes instead of an image", reply.len);
	result = palloc(VARHDRSZ + reply.len);
	SET_VARSIZE(result, VARHDRSZ + reply.len);
	memcpy(VARDATA(result), reply.data, reply.len);
	pfree(reply.data);
	PG_RETURN_BYTEA_P(result);
}
