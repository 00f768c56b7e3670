/*
 * eval_run.c
 *	  Each row under each perturbation, one request; many in flight.
 *
 * Questions are numbered row by row, perturbation by perturbation.  They are
 * sent ahead through a window (ra_window.h) and taken up in order, where a
 * question whose answer was lost is simply asked again: engines that die,
 * models that must be loaded and slots that are scarce need nothing here.
 * The image travels as it is stored; the engine perturbs it.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "pg/eval.h"
#include "pg/queue.h"
#include "pg/ra_window.h"

typedef struct EvalRun
{
	const DfxEvalArgs *args;
	DfxEvalScores *scores;
	DfxEvalSource source;
	DfxWindow	window;			/* nrows is 0 when nothing is sent ahead */
	int			ahead;			/* questions between next and sent, at the most */
	DfxEvalRow *row;			/* row i lies in place i % (ahead + 1) */
	int64		nread;			/* rows read so far */
	bool		end;			/* there are no more */
	int64		sent,
				next;			/* questions */
	int64		nbad;			/* rows with an image that cannot be read ... */
	int64		last_bad;		/* ... and the last of them */
	MemoryContext context;
} EvalRun;

/* ---- rows ---- */

/* Row i, reading on if need be; NULL behind the last one. */
static DfxEvalRow *
run_row(EvalRun *r, int64 i)
{
	DfxEvalRow *row = &r->row[i % (r->ahead + 1)];

	Assert(i <= r->nread);
	if (i < r->nread)
		return row;
	if (r->end)
		return NULL;
	if (row->image)
		pfree(DatumGetPointer(row->image));
	row->image = (Datum) 0;
	r->end = !dfx_eval_next(&r->source, row, r->context);
	r->nread += !r->end;
	return r->end ? NULL : row;
}

/* Look ahead, when half of the window is used up. */
static void
run_send(EvalRun *r)
{
	int			nperturb = r->args->nperturb;

	dfx_window_collect(&r->window);
	if (r->window.lost)
		r->sent = r->next;
	r->window.lost = false;
	r->sent = Max(r->sent, r->next);
	if (r->sent - r->next > r->ahead / 2)
		return;
	for (; r->sent - r->next < r->ahead; r->sent++)
	{
		DfxEvalRow *row = run_row(r, r->sent / nperturb);

		if (row == NULL)
			return;
		if (!row->no_image &&
			!dfx_window_send(&r->window, r->sent % r->ahead, 0, row->image, DFX_RING_CLASSIFY,
							 &r->args->how[r->sent % nperturb], &r->args->model))
			return;
	}
}

/* ---- answers ---- */

static void
run_context(void *arg)
{
	const EvalRun *r = arg;

	errcontext("image %lld of %s, perturbation %s; max_errors is %lld",
			   (long long) (r->next / r->args->nperturb + 1), r->source.name,
			   r->args->perturb[r->next % r->args->nperturb], (long long) r->args->max_errors);
}

/* An image that cannot be read: raise, unless that may be so. */
static void
run_bad(EvalRun *r, const DfxReply *reply)
{
	int64		row = r->next / r->args->nperturb;

	if (row != r->last_bad)
		r->nbad++;
	r->last_bad = row;
	if (r->nbad <= r->args->max_errors)
		return;
	if (reply == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("image must not be null")));
	dfx_reply_raise(reply);
}

/* The answer to the next question.  False when the image cannot be read. */
static bool
run_ask(EvalRun *r, const DfxEvalRow *row, DfxVerdictReply *verdict)
{
	int			place = r->next % r->ahead;
	DfxReply	reply;

	if (row->no_image)
	{
		run_bad(r, NULL);
		return false;
	}
	if (r->window.nrows > 0)
	{
		r->window.image[0] = row->image;
		r->window.no_image[0] = false;
		dfx_window_show(&r->window, place);
	}
	dfx_image_request_as(row->image, DFX_RING_CLASSIFY, &r->args->how[r->next % r->args->nperturb], &r->args->model,
						 &reply);
	if (r->window.nrows > 0)
		dfx_window_forget(&r->window, place);
	if (dfx_image_at_fault(reply.status))
	{
		run_bad(r, &reply);
		return false;
	}
	dfx_verdict_parse(&reply, verdict);
	pfree(reply.data);
	return true;
}

static void
run_all(EvalRun *r)
{
	for (;; r->next++)
	{
		DfxEvalRow *row;
		DfxVerdictReply verdict;
		bool		readable;

		CHECK_FOR_INTERRUPTS();
		if (r->window.nrows > 0)
			run_send(r);
		row = run_row(r, r->next / r->args->nperturb);
		if (row == NULL)
			return;
		readable = run_ask(r, row, &verdict);
		dfx_eval_count(r->scores, r->next % r->args->nperturb, row, readable ? &verdict : NULL);
	}
}

void
dfx_eval_run(const DfxEvalArgs *args, DfxEvalScores *scores, char ***groups)
{
	EvalRun    *r = MemoryContextAllocZero(scores->context, sizeof(*r));	/* where its window ends */
	ErrorContextCallback context = {.previous = error_context_stack, .callback = run_context, .arg = r};

	dfx_require_ring();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	r->args = args;
	r->scores = scores;
	r->context = scores->context;
	r->last_bad = -1;
	dfx_eval_open(&r->source, args);
	scores->ngroups = r->source.ngroups;
	scores->cell = MemoryContextAllocZero(r->context, sizeof(DfxEvalCell) * Max(1, args->nperturb * r->source.ngroups));
	r->ahead = Max(1, dfx_window_limit());
	r->row = palloc0(sizeof(DfxEvalRow) * (r->ahead + 1));
	if (r->ahead > 1)
		dfx_window_open(&r->window, r->ahead, 1, r->context);

	error_context_stack = &context;
	run_all(r);
	error_context_stack = context.previous;

	dfx_window_close(&r->window);
	dfx_eval_close(&r->source);
	*groups = MemoryContextAllocZero(r->context, sizeof(char *) * Max(1, r->source.ngroups));
	for (int i = 0; i < r->source.ngroups; i++)
		if (r->source.group[i])
			(*groups)[i] = MemoryContextStrdup(r->context, r->source.group[i]);
	SPI_finish();
}
