/*
 * readahead.h
 *	  The read-ahead scan: what its files share.
 *
 *	  ra_match.c	which calls in an expression are worth sending ahead
 *	  ra_plan.c		planner hook: where in a finished plan a scan goes
 *	  ra_node.c		how a plan node is taken apart to make room for it
 *	  ra_exec.c		its execution, and EXPLAIN
 *	  ra_window.c	the requests in flight
 *
 * The scan (CustomScan "DfxReadAhead") passes the rows of its child on, in
 * order, and sends the requests of rows to come.  Expressions stay as they
 * are: dfx_classify() and the others find their answers in the window of the
 * row being passed on, or ask by themselves.  So privileges, conditional
 * evaluation, the order of errors and all results are those of PostgreSQL's
 * own evaluation, whatever was sent.
 */
#ifndef DFX_PG_READAHEAD_H
#define DFX_PG_READAHEAD_H

#include "postgres.h"

#include "engine/proto.h"
#include "nodes/extensible.h"
#include "nodes/plannodes.h"

/*
 * An ask in the planner: a List of op (Integer), image (Var) and model (Expr),
 * so that equal() and list functions work on it.
 */
#define RA_ASK_OP(ask)		((DfxRingOp) intVal(linitial(ask)))
#define RA_ASK_IMAGE(ask)	((Var *) lsecond(ask))
#define RA_ASK_MODEL(ask)	((Expr *) lthird(ask))

/* CustomScan.custom_private, three lists of integers; custom_exprs has the models, then the limits. */
enum
{
	RA_PRIVATE_OPS,				/* of each ask */
	RA_PRIVATE_IMAGES,			/* column of the child that holds its image */
	RA_PRIVATE_FLAGS			/* RaFlag values */
};

typedef enum RaFlag
{
	RA_FLAG_TOP = 1,			/* ExecutorRun()'s row count bounds this node's rows */
	RA_FLAG_COUNT = 2,			/* custom_exprs has LIMIT's count ... */
	RA_FLAG_OFFSET = 4			/* ... and its offset */
} RaFlag;

/* What consumes a node's rows, one for one. */
typedef struct RaConsumer
{
	Limit	   *limit;			/* NULL: none */
	bool		top;			/* the top of the query */
	bool		marked;			/* it goes back to a marked row */
} RaConsumer;

/* ---- ra_match.c ---- */

/* Are there functions to look for in this database? */
extern bool dfx_ra_installed(void);

/*
 * Add to *asks the calls in an expression that are always evaluated and have
 * a simple argument.  params, NIL or a list of NestLoopParam, translates
 * image parameters to the columns that they stand for.
 */
extern void dfx_ra_match(Node *expr, List *params, List **asks);

/* The same for aggregates' arguments and filters. */
extern void dfx_ra_match_aggregates(Node *expr, List **asks);

/* ---- ra_node.c ---- */

extern bool dfx_ra_is_scan(const Plan *plan);

/* The asks of a scan, in terms of its child's columns or of its own. */
extern List *dfx_ra_asks(const Plan *scan);
extern List *dfx_ra_output_asks(const Plan *scan);

/* Put a scan over child that passes all columns on.  asks are in terms of OUTER_VAR. */
extern Plan *dfx_ra_pass(Plan *child, List *asks, const RaConsumer *consumer, int *node_id);

/*
 * Take plan's target list and the quals in moved, the last ones of its own,
 * away from it and have a scan over it evaluate them.
 */
extern Plan *dfx_ra_split(Plan *plan, List *moved, List *asks, const RaConsumer *consumer, int *node_id);

/* Forget what was said of scan's consumer: another scan is going to be put between. */
extern void dfx_ra_unbind(Plan *scan);

/* ---- ra_exec.c ---- */

extern const CustomScanMethods dfx_ra_scan_methods;
extern void dfx_ra_exec_init(void);

/* ---- ra_plan.c ---- */

/* Called from _PG_init() when preloading. */
extern void dfx_ra_init(void);

#endif							/* DFX_PG_READAHEAD_H */
