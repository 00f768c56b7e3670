/*
 * quantize_ask.c
 *	  Questions about many images, sent ahead through a window and taken up in
 *	  order, as eval_run.c does with labelled ones.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pg/quantize.h"
#include "pg/ra_window.h"
#include "utils/guc.h"
#include "utils/memutils.h"

/* Send what fits, from *sent on; everything from next on may have to be sent again. */
static void
ask_ahead(DfxWindow *w, DfxEvalRow *row, int nrow, int next, int *sent, DfxRingOp op, const DfxModelRef *model)
{
	dfx_window_collect(w);
	*sent = w->lost ? next : Max(*sent, next);
	w->lost = false;
	for (; *sent < nrow && *sent - next < w->nrows; (*sent)++)
		if (!dfx_window_send(w, *sent % w->nrows, 0, row[*sent].image, op, NULL, model))
			return;
}

static void
ask_all(DfxWindow *w, DfxEvalRow *row, int nrow, DfxRingOp op, const DfxModelRef *model, DfxAnswer answer, void *arg)
{
	int			sent = 0;

	for (int i = 0; i < nrow; i++)
	{
		DfxReply	reply;

		CHECK_FOR_INTERRUPTS();
		if (w->nrows > 0)
		{
			ask_ahead(w, row, nrow, i, &sent, op, model);
			w->image[0] = row[i].image;
			w->no_image[0] = false;
			dfx_window_show(w, i % w->nrows);
		}
		dfx_image_request(row[i].image, op, model, &reply);
		if (w->nrows > 0)
			dfx_window_forget(w, i % w->nrows);
		answer(arg, i, &reply);
		if (reply.data)
			pfree(reply.data);
	}
}

void
dfx_quantize_ask(DfxEvalRow *row, int nrow, DfxRingOp op, const char *precision, const DfxModelRef *model,
				 DfxAnswer answer, void *arg)
{
	/* The window lives in its context, which ends it after an error. */
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "deepfeaturex questions", ALLOCSET_DEFAULT_SIZES);
	DfxWindow  *w = MemoryContextAllocZero(context, sizeof(*w));
	int			ahead = dfx_window_limit();
	int			level = NewGUCNestLevel();

	(void) set_config_option("dfx.precision", precision, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (ahead > 1)
		dfx_window_open(w, ahead, 1, context);
	ask_all(w, row, nrow, op, model, answer, arg);
	dfx_window_close(w);
	AtEOXact_GUC(false, level);
	MemoryContextDelete(context);
}
