/*
 * classify_many.c
 *	  dfx_classify_many(): an array of images, for callers that hold them in
 *	  their hands rather than in a table.
 *
 * A window of elements is kept in flight; each element then goes the way of
 * dfx_classify(), which finds its answer there.  So the result, and the
 * element whose error is raised, are those of a loop over dfx_classify().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pg/compat.h"
#include "pg/queue.h"
#include "pg/ra_window.h"
#include "pg/verdict.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(dfx_classify_many);

typedef struct ManyImages
{
	int			n;
	Datum	   *image;
	bool	   *null;
	DfxModelRef model;
	DfxWindow	window;
	int			sent;			/* elements whose requests have been sent */
} ManyImages;

/* Look ahead from element i on, when half of the window is used up. */
static void
many_send(ManyImages *m, int i)
{
	int			size = m->window.nrows;

	dfx_window_collect(&m->window);
	if (m->window.lost)
		m->sent = i;
	m->window.lost = false;
	m->sent = Max(m->sent, i);
	if (m->sent - i > size / 2)
		return;
	for (; m->sent < m->n && m->sent - i < size; m->sent++)
		if (!m->null[m->sent] &&
			!dfx_window_send(&m->window, m->sent % size, 0, m->image[m->sent], DFX_RING_CLASSIFY, NULL,
							 &m->model))
			return;
}

static void
many_classify(ManyImages *m, Datum *verdicts)
{
	if (dfx_window_limit() > 1)
		dfx_window_open(&m->window, dfx_window_limit(), 1, CurrentMemoryContext);
	for (int i = 0; i < m->n; i++)
	{
		DfxReply	reply;
		DfxVerdictReply verdict;

		CHECK_FOR_INTERRUPTS();
		if (m->window.nrows > 0)
			many_send(m, i);
		if (m->null[i])
			continue;
		if (m->window.nrows > 0)
		{
			m->window.image[0] = m->image[i];
			m->window.no_image[0] = false;
			dfx_window_show(&m->window, i % m->window.nrows);
		}
		dfx_image_request(m->image[i], DFX_RING_CLASSIFY, &m->model, &reply);
		if (m->window.nrows > 0)
			dfx_window_forget(&m->window, i % m->window.nrows);
		dfx_verdict_parse(&reply, &verdict);
		verdicts[i] = dfx_verdict_datum(&verdict, &m->model);
		if (reply.data)
			pfree(reply.data);
	}
	dfx_window_close(&m->window);
}

/* dfx_classify_many(images bytea[], model text DEFAULT NULL) -> dfx_verdict[] of the same shape */
Datum
dfx_classify_many(PG_FUNCTION_ARGS)
{
	ManyImages *m;
	ArrayType  *images;
	Datum	   *verdicts;
	bool		any = false;
	int16		len;
	bool		byval;
	char		align;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	images = PG_GETARG_ARRAYTYPE_P(0);
	m = palloc0(sizeof(*m));
	deconstruct_array(images, BYTEAOID, -1, false, TYPALIGN_INT, &m->image, &m->null, &m->n);
	for (int i = 0; i < m->n; i++)
		any |= !m->null[i];

	verdicts = palloc0(sizeof(Datum) * Max(m->n, 1));
	if (any)
	{
		dfx_require_ring();
		dfx_model_resolve(PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1), &m->model);
		many_classify(m, verdicts);
	}
	get_typlenbyvalalign(dfx_catalog()->verdict_type, &len, &byval, &align);
	PG_RETURN_ARRAYTYPE_P(construct_md_array(verdicts, m->null, ARR_NDIM(images), ARR_DIMS(images), ARR_LBOUND(images),
											 dfx_catalog()->verdict_type, len, byval, align));
}
