/*
 * heatmap.c
 *	  dfx_heatmap(): what a verdict rests on, as a picture.
 *
 * One request, for which the engine runs the network a few hundred times, in
 * batches between which others go first (engine/batch.c).  So it has the bulk
 * priority whatever dfx.priority says, and more time than others.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_enum.h"
#include "fmgr.h"
#include "pg/queue.h"
#include "pg/verdict.h"
#include "utils/syscache.h"

/*
 * Times dfx.request_timeout: a heatmap is 226 images, and another request one, but
 * with room to wait for a dozen others.
 */
#define HEATMAP_ROUNDS 16

PG_FUNCTION_INFO_V1(dfx_heatmap);

/* A value of type dfx_class as a number. */
static uint32
heatmap_class(Oid value)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	int			class;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "%u is not a value of type dfx_class", value);
	class = dfx_class_find(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
	ReleaseSysCache(tuple);
	if (class < 0)
		elog(ERROR, "%u is not a value of type dfx_class", value);
	return (uint32) class;
}

/* dfx_heatmap(image bytea, class dfx_class DEFAULT NULL, model text DEFAULT NULL) -> bytea */
Datum
dfx_heatmap(PG_FUNCTION_ARGS)
{
	DfxModelRef model;
	DfxCall		call;
	DfxReply	reply;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	dfx_require_ring();
	dfx_model_resolve(PG_ARGISNULL(2) ? NULL : PG_GETARG_TEXT_PP(2), &model);
	(void) dfx_image_call(PG_GETARG_DATUM(0), DFX_RING_HEATMAP, NULL, &model, &call);
	call.class = PG_ARGISNULL(1) ? DFX_CLASS_ANY : heatmap_class(PG_GETARG_OID(1));
	call.rounds = HEATMAP_ROUNDS;
	dfx_image_ask(&call, &reply);
	PG_RETURN_DATUM(dfx_image_datum(&reply));
}
