/*
 * ra_exec.c
 *	  Execution of the read-ahead scan.
 *
 * Rows of the child are kept in a ring until they are passed on; toasted
 * values stay pointers, so a row costs what it costs in a sort.  The first
 * "sent" of them have had their requests sent.
 *
 *	   head				   head + sent			head + count
 *		|	in flight or done	|	 kept only		|
 *
 * How far to look ahead: the window begins with a few rows and grows by one
 * for each row consumed, so that LIMIT, EXISTS and the like, which stop
 * early, waste little; it never exceeds what a LIMIT above or the caller of
 * the executor still wants.  It is refilled in one go when half of it is used
 * up: topped up row by row, it would make the engine alternate between full
 * batches and batches of one.
 *
 * A statement that writes or locks rows may wait for another transaction at
 * any row, which may itself be waiting for a slot.  There the window is sent,
 * settled and used up in turns, and no slot is held while a row is passed on.
 *
 * Answers that lie in their slots while this backend is kept from taking them
 * (its client does not read, another function in the row sleeps) are taken
 * back by whoever needs the slots (slot.c); they are asked for again, in
 * a window that begins small.
 *
 * When the executor stops (a cursor between two FETCHes) nothing is held: what
 * is answered is kept, the rest is dropped and sent again later.
 *
 * Parallel workers read ahead each for itself.  The scan calls itself parallel
 * aware below a Gather only because custom scans get shared memory no other way:
 * there workers leave the figures that EXPLAIN shows.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "pg/compat.h"
#include "pg/ra_window.h"
#include "pg/readahead.h"

#define RA_FIRST_WINDOW 4
#define RA_ROW_BYTES (32 * 1024 * 1024) /* that rows may take before more are read ahead */

typedef struct RaAskState
{
	DfxRingOp	op;
	int			column;			/* of the image */
	ExprState  *model;
	bool		known;			/* is there a model for it? */
	DfxModelRef ref;
} RaAskState;

/* What EXPLAIN shows of other processes. */
typedef struct RaFigures
{
	int			max_held;
	uint64		answers,
				batches;
} RaFigures;

/* In shared memory of a parallel query. */
typedef struct RaShared
{
	int			nworkers;
	RaFigures	worker[FLEXIBLE_ARRAY_MEMBER];	/* each worker writes its own, as it ends */
} RaShared;

typedef struct RaState
{
	CustomScanState css;
	int			nasks;
	RaAskState	ask[DFX_WINDOW_MAX_ASKS];
	DfxWindow	window;
	TupleTableSlot *slot;		/* for rows of the ring */

	/* the ring */
	int			nrows;			/* its size; 0 before the first row is asked for */
	MinimalTuple *row;
	Size		row_bytes;
	int			head,
				count,
				sent;
	bool		passed;			/* the head is the row that was passed on last */
	bool		eof;

	/* how far to look ahead */
	bool		settles;		/* no slot may be held while a row is passed on */
	bool		top;
	ExprState  *limit_count,
			   *limit_offset;
	int64		bound;			/* rows that a LIMIT above may ask for; -1: no LIMIT */
	uint64		wanted;			/* rows that this run of the executor may ask for; 0: all */
	uint64		returned,
				consumed;		/* rows, with those that the filter removed */
	uint64		run_returned,
				run_consumed,	/* the same at the beginning of this run */
				slow_since;		/* rows consumed when the window began small */

	RaShared   *shared;			/* NULL: no parallel query, or no more */
	RaFigures	others;			/* the leader's: of workers that have ended */
} RaState;

static ExecutorRun_hook_type next_run = NULL;

/* ---- setting up ---- */

static void
ra_begin(CustomScanState *css, EState *estate, int eflags)
{
	RaState    *ra = (RaState *) css;
	CustomScan *cs = (CustomScan *) css->ss.ps.plan;
	PlannedStmt *stmt = estate->es_plannedstmt;
	List	   *ops = list_nth(cs->custom_private, RA_PRIVATE_OPS),
			   *images = list_nth(cs->custom_private, RA_PRIVATE_IMAGES);
	int			flags = linitial_int(list_nth(cs->custom_private, RA_PRIVATE_FLAGS));

	Assert(!(eflags & (EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK)));
	outerPlanState(css) = ExecInitNode(outerPlan(cs), estate, eflags);
	ra->nasks = list_length(ops);
	for (int i = 0; i < ra->nasks; i++)
	{
		ra->ask[i].op = list_nth_int(ops, i);
		ra->ask[i].column = list_nth_int(images, i);
		ra->ask[i].model = ExecInitExpr(list_nth(cs->custom_exprs, i), &css->ss.ps);
	}
	ra->top = (flags & RA_FLAG_TOP) != 0;
	ra->settles = stmt->commandType != CMD_SELECT || stmt->rowMarks != NIL || stmt->hasModifyingCTE;
	if (flags & RA_FLAG_COUNT)
		ra->limit_count = ExecInitExpr(list_nth(cs->custom_exprs, ra->nasks), &css->ss.ps);
	if (flags & RA_FLAG_OFFSET)
		ra->limit_offset = ExecInitExpr(list_nth(cs->custom_exprs, ra->nasks + 1), &css->ss.ps);
	ra->slot = ExecInitExtraTupleSlot(estate, ExecGetResultType(outerPlanState(css)), &TTSOpsMinimalTuple);
}

/* A LIMIT's number; fallback when it is NULL or no number that LIMIT accepts. */
static int64
ra_number(RaState *ra, ExprState *expr, int64 fallback)
{
	bool		isnull;
	Datum		d;

	if (expr == NULL)
		return fallback;
	d = ExecEvalExprSwitchContext(expr, ra->css.ss.ps.ps_ExprContext, &isnull);
	return isnull || DatumGetInt64(d) < 0 ? fallback : DatumGetInt64(d);
}

/* At the first row of a scan or rescan. */
static void
ra_start(RaState *ra)
{
	MemoryContext query = ra->css.ss.ps.state->es_query_cxt;
	int64		count = ra_number(ra, ra->limit_count, -1),
				offset = ra_number(ra, ra->limit_offset, 0);

	ra->bound = count < 0 || count > PG_INT32_MAX || offset > PG_INT32_MAX ? -1 : count + offset;
	if (ra->nrows > 0)
		return;
	ra->nrows = Max(dfx_window_limit() / ra->nasks, 1);
	ra->row = MemoryContextAlloc(query, sizeof(MinimalTuple) * ra->nrows);
	dfx_window_open(&ra->window, ra->nrows, ra->nasks, query);
}

/* ---- the ring ---- */

static int
ra_place(const RaState *ra, int i)
{
	return (ra->head + i) % ra->nrows;
}

static void
ra_drop_head(RaState *ra)
{
	dfx_window_forget(&ra->window, ra->head);
	ra->row_bytes -= ra->row[ra->head]->t_len;
	pfree(ra->row[ra->head]);
	ra->head = ra_place(ra, 1);
	ra->count--;
	if (ra->sent > 0)
		ra->sent--;
}

/* Get one more row of the child; false at its end. */
static bool
ra_pull(RaState *ra)
{
	TupleTableSlot *slot = ra->eof ? NULL : ExecProcNode(outerPlanState(&ra->css));
	MinimalTuple row;
	MemoryContext old;

	if (TupIsNull(slot))
	{
		ra->eof = true;
		return false;
	}
	old = MemoryContextSwitchTo(ra->css.ss.ps.state->es_query_cxt);
	row = ExecCopySlotMinimalTuple(slot);
	MemoryContextSwitchTo(old);
	ra->row[ra_place(ra, ra->count++)] = row;
	ra->row_bytes += row->t_len;
	return true;
}

/* ---- sending ---- */

/* Which models the asks are about, now. */
static void
ra_find_models(RaState *ra)
{
	ExprContext *econtext = ra->css.ss.ps.ps_ExprContext;
	MemoryContext old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);

	for (int i = 0; i < ra->nasks; i++)
	{
		bool		isnull;
		Datum		name = ExecEvalExpr(ra->ask[i].model, econtext, &isnull);

		ra->ask[i].known = dfx_model_find(isnull ? NULL : DatumGetTextPP(name), &ra->ask[i].ref);
	}
	MemoryContextSwitchTo(old);
}

/* Send the asks of row i of the ring; false when there is no room for all of them now. */
static bool
ra_send(RaState *ra, int i)
{
	int			place = ra_place(ra, i);
	bool		sent = true;

	ExecStoreMinimalTuple(ra->row[place], ra->slot, false);
	for (int j = 0; sent && j < ra->nasks; j++)
	{
		RaAskState *ask = &ra->ask[j];
		bool		isnull;
		Datum		image = slot_getattr(ra->slot, ask->column, &isnull);

		if (!isnull && ask->known)
			sent = dfx_window_send(&ra->window, place, j, image, ask->op, NULL, &ask->ref);
	}
	ExecClearTuple(ra->slot);
	return sent;
}

/* Rows to look ahead now, the next one included. */
static int
ra_window_size(const RaState *ra)
{
	uint64		size = Min(Min(ra->nrows, dfx_window_limit()),
						   RA_FIRST_WINDOW + ra->consumed - ra->slow_since);

	/* What the filter has removed does not count: as many again may be needed. */
	if (ra->bound >= 0)
		size = Min(size, Max((uint64) ra->bound, ra->returned) - ra->returned + ra->consumed - ra->returned);
	if (ra->wanted > 0)
	{
		uint64		returned = ra->returned - ra->run_returned;

		size = Min(size, ra->wanted - Min(returned, ra->wanted) + (ra->consumed - ra->run_consumed) - returned);
	}
	return size;
}

/* How many rows must be left for it to be too early to send more? */
static int
ra_low_mark(const RaState *ra, int size)
{
	return ra->settles ? 0 : size / 2;
}

/* See to it that the ring has a row, if there is one, and look ahead if it is time. */
static void
ra_fill(RaState *ra)
{
	int			size = ra_window_size(ra);

	dfx_window_collect(&ra->window);
	if (ra->window.lost)
	{
		ra->window.lost = false;
		ra->sent = 0;
	}
	if (ra->window.stalled)
	{
		/* Rows are taken more slowly than others wait for slots: begin small again. */
		ra->window.stalled = false;
		ra->slow_since = ra->consumed;
	}
	if (ra->count == 0 && !ra_pull(ra))
		return;
	if (ra->sent > ra_low_mark(ra, size) || size < 2)
		return;
	ra_find_models(ra);
	while (ra->sent < size)
	{
		if (ra->sent == ra->count && (ra->row_bytes > RA_ROW_BYTES || !ra_pull(ra)))
			break;
		if (!ra_send(ra, ra->sent))
			break;
		ra->sent++;
	}
	if (ra->settles)
		dfx_window_settle(&ra->window);
}

/* ---- passing rows on ---- */

/* Make the head the scan tuple, and its answers those that the functions find. */
static void
ra_show(RaState *ra)
{
	TupleTableSlot *scan = ra->css.ss.ss_ScanTupleSlot;
	int			natts = ra->slot->tts_tupleDescriptor->natts;

	ExecStoreMinimalTuple(ra->row[ra->head], ra->slot, false);
	slot_getallattrs(ra->slot);
	ExecClearTuple(scan);
	memcpy(scan->tts_values, ra->slot->tts_values, sizeof(Datum) * natts);
	memcpy(scan->tts_isnull, ra->slot->tts_isnull, sizeof(bool) * natts);
	ExecStoreVirtualTuple(scan);
	for (int j = 0; j < ra->nasks; j++)
	{
		ra->window.image[j] = scan->tts_values[ra->ask[j].column - 1];
		ra->window.no_image[j] = scan->tts_isnull[ra->ask[j].column - 1];
	}
	dfx_window_show(&ra->window, ra->head);
	ra->passed = true;
	ra->consumed++;
}

static TupleTableSlot *
ra_exec(CustomScanState *css)
{
	RaState    *ra = (RaState *) css;
	ExprContext *econtext = css->ss.ps.ps_ExprContext;

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (ra->nrows == 0 || (ra->consumed == 0 && ra->count == 0))
			ra_start(ra);
		if (ra->passed)
			ra_drop_head(ra);
		ra->passed = false;
		ResetExprContext(econtext);
		ra_fill(ra);
		if (ra->count == 0)
			return NULL;
		ra_show(ra);
		ResetExprContext(econtext);
		econtext->ecxt_scantuple = css->ss.ss_ScanTupleSlot;
		if (ExecQual(css->ss.ps.qual, econtext))
			break;
		InstrCountFiltered1(css, 1);
	}
	ra->returned++;
	return css->ss.ps.ps_ProjInfo ? ExecProject(css->ss.ps.ps_ProjInfo) : css->ss.ss_ScanTupleSlot;
}

/* ---- parallel query ---- */

static Size
ra_estimate_dsm(CustomScanState *css, ParallelContext *pcxt)
{
	return offsetof(RaShared, worker) + sizeof(RaFigures) * pcxt->nworkers;
}

/* In the leader, before the workers' memory goes; they have ended. */
static void
ra_workers_ended(dsm_segment *seg, Datum arg)
{
	RaState    *ra = (RaState *) DatumGetPointer(arg);
	int			held = 0;

	for (int i = 0; i < ra->shared->nworkers; i++)
	{
		const RaFigures *f = &ra->shared->worker[i];

		held += f->max_held;
		ra->others.answers += f->answers;
		ra->others.batches += f->batches;
	}
	ra->others.max_held = Max(ra->others.max_held, held);
	ra->shared = NULL;
}

static void
ra_initialize_dsm(CustomScanState *css, ParallelContext *pcxt, void *coordinate)
{
	RaState    *ra = (RaState *) css;

	/* Without a segment there will be no workers. */
	if (pcxt->seg == NULL)
		return;
	ra->shared = coordinate;
	memset(ra->shared, 0, ra_estimate_dsm(css, pcxt));
	ra->shared->nworkers = pcxt->nworkers;
	on_dsm_detach(pcxt->seg, ra_workers_ended, PointerGetDatum(ra));
}

static void
ra_initialize_worker(CustomScanState *css, shm_toc *toc, void *coordinate)
{
	((RaState *) css)->shared = coordinate;
}

/* A worker's figures go into shared memory; another worker of its number may have been there before. */
static void
ra_report(RaState *ra)
{
	DfxWindow  *w = &ra->window;
	RaFigures  *f;

	if (ra->shared == NULL || !IsParallelWorker())
		return;
	f = &ra->shared->worker[ParallelWorkerNumber];
	f->max_held = Max(f->max_held, w->max_held);
	f->answers += w->answers;
	f->batches += w->batches;
	w->answers = w->batches = 0;
}

/* ---- stopping ---- */

static void
ra_clear(RaState *ra)
{
	ExecClearTuple(ra->css.ss.ss_ScanTupleSlot);
	ExecClearTuple(ra->slot);
	while (ra->count > 0)
		ra_drop_head(ra);
	ra->passed = false;
}

static void
ra_end(CustomScanState *css)
{
	RaState    *ra = (RaState *) css;

	ra_clear(ra);
	dfx_window_close(&ra->window);
	ExecEndNode(outerPlanState(css));
}

static void
ra_rescan(CustomScanState *css)
{
	RaState    *ra = (RaState *) css;

	ra_clear(ra);
	ra->eof = false;
	ra->returned = ra->consumed = ra->run_returned = ra->run_consumed = ra->slow_since = 0;
	if (outerPlanState(css)->chgParam == NULL)
		ExecReScan(outerPlanState(css));
}

static void
ra_shutdown(CustomScanState *css)
{
	RaState    *ra = (RaState *) css;

	if (ra->nrows > 0)
		dfx_window_suspend(&ra->window);
	ra_report(ra);
}

/* ---- runs of the executor ---- */

static RaState *
ra_of(PlanState *ps)
{
	return IsA(ps, CustomScanState) && ((CustomScan *) ps->plan)->methods == &dfx_ra_scan_methods ?
		(RaState *) ps : NULL;
}

/* Before a run that asks for a number of rows. */
static bool
ra_run_begins(PlanState *ps, void *count)
{
	RaState    *ra = ra_of(ps);

	if (ra != NULL)
	{
		ra->wanted = ra->top ? *(uint64 *) count : 0;
		ra->run_returned = ra->returned;
		ra->run_consumed = ra->slow_since = ra->consumed;
	}
	return planstate_tree_walker(ps, ra_run_begins, count);
}

/* After it: the next one may never come. */
static bool
ra_run_ended(PlanState *ps, void *unused)
{
	RaState    *ra = ra_of(ps);

	if (ra != NULL)
	{
		ra->wanted = 0;
		ra_shutdown(&ra->css);
	}
	return planstate_tree_walker(ps, ra_run_ended, unused);
}

static void
ra_run(DFX_EXECUTOR_RUN_ARGS)
{
	if (count != 0)
		(void) ra_run_begins(desc->planstate, &count);
	if (next_run)
		next_run(DFX_EXECUTOR_RUN_PASS);
	else
		standard_ExecutorRun(DFX_EXECUTOR_RUN_PASS);
	if (count != 0)
		(void) ra_run_ended(desc->planstate, NULL);
}

/* ---- EXPLAIN ---- */

static void
ra_explain(CustomScanState *css, List *ancestors, ExplainState *es)
{
	RaState    *ra = (RaState *) css;
	uint64		answers = ra->window.answers + ra->others.answers,
				batches = ra->window.batches + ra->others.batches;

	ExplainPropertyInteger("Read-Ahead", "images", dfx_window_limit(), es);
	if (!es->analyze)
		return;
	ExplainPropertyInteger("Max In Flight", NULL, ra->window.max_held + ra->others.max_held, es);
	ExplainPropertyFloat("Average Batch", NULL, answers > 0 ? (double) batches / answers : 0, 1, es);
}

static const CustomExecMethods ra_exec_methods = {
	.CustomName = "DfxReadAhead",
	.BeginCustomScan = ra_begin,
	.ExecCustomScan = ra_exec,
	.EndCustomScan = ra_end,
	.ReScanCustomScan = ra_rescan,
	.EstimateDSMCustomScan = ra_estimate_dsm,
	.InitializeDSMCustomScan = ra_initialize_dsm,
	.InitializeWorkerCustomScan = ra_initialize_worker,
	.ShutdownCustomScan = ra_shutdown,
	.ExplainCustomScan = ra_explain,
};

static Node *
ra_create_state(CustomScan *cs)
{
	RaState    *ra = (RaState *) newNode(sizeof(RaState), T_CustomScanState);

	ra->css.methods = &ra_exec_methods;
	return (Node *) ra;
}

const CustomScanMethods dfx_ra_scan_methods = {
	.CustomName = "DfxReadAhead",
	.CreateCustomScanState = ra_create_state,
};

void
dfx_ra_exec_init(void)
{
	RegisterCustomScanMethods(&dfx_ra_scan_methods);
	next_run = ExecutorRun_hook;
	ExecutorRun_hook = ra_run;
}
