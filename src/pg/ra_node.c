/*
 * ra_node.c
 *	  Making room for a read-ahead scan in a finished plan.
 *
 * This works on what set_plan_references() leaves: a Var names a column of the
 * scanned relation, or of the child's output by OUTER_VAR.  The scan's own
 * Vars are INDEX_VARs into custom_scan_tlist, whose entries are the columns of
 * its child in terms of OUTER_VAR; EXPLAIN follows the same path.
 *
 *	  before				after dfx_ra_split()
 *
 *							CustomScan	tlist: exprs over INDEX_VAR
 *							 |			qual:  those moved, over INDEX_VAR
 *	  Scan  tlist: exprs	 |			custom_scan_tlist: OUTER_VAR 1 .. n
 *			qual:  q1, q2	Scan		tlist: the n Vars used above
 *										qual:  those that stay
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "pg/readahead.h"

/* ---- reading a scan ---- */

bool
dfx_ra_is_scan(const Plan *plan)
{
	return IsA(plan, CustomScan) && ((const CustomScan *) plan)->methods == &dfx_ra_scan_methods;
}

List *
dfx_ra_asks(const Plan *scan)
{
	const CustomScan *cs = (const CustomScan *) scan;
	List	   *ops = list_nth(cs->custom_private, RA_PRIVATE_OPS);
	List	   *images = list_nth(cs->custom_private, RA_PRIVATE_IMAGES);
	List	   *asks = NIL;

	for (int i = 0; i < list_length(ops); i++)
	{
		int			column = list_nth_int(images, i);
		TargetEntry *te = list_nth(cs->custom_scan_tlist, column - 1);
		Var		   *image = copyObject((Var *) te->expr);

		image->varno = INDEX_VAR;
		asks = lappend(asks, list_make3(makeInteger(list_nth_int(ops, i)), image, list_nth(cs->custom_exprs, i)));
	}
	return asks;
}

/* A column as the node above sees it. */
static Var *
node_outer_var(const TargetEntry *te, int column)
{
	Node	   *expr = (Node *) te->expr;

	return makeVar(OUTER_VAR, column, exprType(expr), exprTypmod(expr), exprCollation(expr), 0);
}

static bool
node_same_column(const Node *expr, const Var *var)
{
	return IsA(expr, Var) && ((const Var *) expr)->varno == var->varno &&
		((const Var *) expr)->varattno == var->varattno;
}

List *
dfx_ra_output_asks(const Plan *scan)
{
	List	   *asks = NIL;
	ListCell   *ask,
			   *lc;

	foreach(ask, dfx_ra_asks(scan))
	{
		List	   *a = lfirst(ask);
		int			column = 0;

		foreach(lc, scan->targetlist)
		{
			TargetEntry *te = lfirst(lc);

			column++;
			if (node_same_column((Node *) te->expr, RA_ASK_IMAGE(a)))
				asks = lappend(asks, list_make3(linitial(a), node_outer_var(te, column), lthird(a)));
		}
	}
	return asks;
}

/* ---- making one ---- */

/* asks: their images have INDEX_VAR columns already. */
static Plan *
node_make(Plan *child, List *targetlist, List *qual, List *asks, const RaConsumer *consumer, int *node_id)
{
	CustomScan *cs = makeNode(CustomScan);
	Plan	   *plan = &cs->scan.plan;
	List	   *ops = NIL,
			   *images = NIL;
	int			flags = consumer->top ? RA_FLAG_TOP : 0,
				column = 0;
	ListCell   *lc;

	plan->startup_cost = child->startup_cost;
	plan->total_cost = child->total_cost;
	plan->plan_rows = child->plan_rows;
	plan->plan_width = child->plan_width;
	plan->parallel_safe = child->parallel_safe;
	plan->plan_node_id = ++(*node_id);
	plan->extParam = bms_copy(child->extParam);
	plan->allParam = bms_copy(child->allParam);
	plan->targetlist = targetlist;
	plan->qual = qual;
	plan->lefttree = child;
	child->async_capable = false;	/* its parent would have to drive it */

	foreach(lc, child->targetlist)
	{
		TargetEntry *te = lfirst(lc);
		Var		   *var = node_outer_var(te, ++column);

		cs->custom_scan_tlist = lappend(cs->custom_scan_tlist,
										makeTargetEntry((Expr *) var, column, te->resname, false));
	}
	foreach(lc, asks)
	{
		List	   *ask = lfirst(lc);

		ops = lappend_int(ops, RA_ASK_OP(ask));
		images = lappend_int(images, RA_ASK_IMAGE(ask)->varattno);
		cs->custom_exprs = lappend(cs->custom_exprs, copyObject(RA_ASK_MODEL(ask)));
	}
	if (consumer->limit != NULL && consumer->limit->limitCount != NULL)
	{
		cs->custom_exprs = lappend(cs->custom_exprs, copyObject(consumer->limit->limitCount));
		flags |= RA_FLAG_COUNT;
		if (consumer->limit->limitOffset != NULL)
		{
			cs->custom_exprs = lappend(cs->custom_exprs, copyObject(consumer->limit->limitOffset));
			flags |= RA_FLAG_OFFSET;
		}
	}
	cs->custom_private = list_make3(ops, images, list_make1_int(flags));
	cs->methods = &dfx_ra_scan_methods;
	return plan;
}

Plan *
dfx_ra_pass(Plan *child, List *asks, const RaConsumer *consumer, int *node_id)
{
	List	   *targetlist = NIL;
	int			column = 0;
	ListCell   *lc;

	foreach(lc, child->targetlist)
	{
		TargetEntry *te = flatCopyTargetEntry(lfirst(lc));
		Var		   *var = node_outer_var(te, ++column);

		var->varno = INDEX_VAR;
		te->expr = (Expr *) var;
		targetlist = lappend(targetlist, te);
	}
	return node_make(child, targetlist, NIL, asks, consumer, node_id);
}

void
dfx_ra_unbind(Plan *scan)
{
	CustomScan *cs = (CustomScan *) scan;

	lfirst(list_nth_cell(cs->custom_private, RA_PRIVATE_FLAGS)) = list_make1_int(0);
}

/* ---- taking a node apart ---- */

static bool
node_collect_vars(Node *node, void *context)
{
	List	  **vars = context;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
	{
		*vars = list_append_unique(*vars, node);
		return false;
	}
	return expression_tree_walker(node, node_collect_vars, context);
}

/* Make every Var a column of the list that context is. */
static Node *
node_to_index(Node *node, void *context)
{
	ListCell   *lc;
	int			column = 0;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;

		foreach(lc, (List *) context)
		{
			column++;
			if (equal(lfirst(lc), node))
				return (Node *) makeVar(INDEX_VAR, column, var->vartype, var->vartypmod, var->varcollid, 0);
		}
		elog(ERROR, "column %d of %d is not in the list", var->varattno, var->varno);
	}
	return expression_tree_mutator(node, node_to_index, context);
}

Plan *
dfx_ra_split(Plan *plan, List *moved, List *asks, const RaConsumer *consumer, int *node_id)
{
	List	   *vars = NIL,
			   *child_list = NIL,
			   *indexed = NIL,
			   *targetlist = plan->targetlist,
			   *init_plans = plan->initPlan;
	Plan	   *scan;
	ListCell   *lc;

	(void) node_collect_vars((Node *) targetlist, &vars);
	(void) node_collect_vars((Node *) moved, &vars);
	foreach(lc, vars)
		child_list = lappend(child_list, makeTargetEntry(lfirst(lc), list_length(child_list) + 1, NULL, false));
	foreach(lc, asks)
	{
		List	   *ask = lfirst(lc);

		indexed = lappend(indexed, list_make3(linitial(ask), node_to_index(lsecond(ask), vars), lthird(ask)));
	}
	plan->targetlist = child_list;
	plan->qual = list_truncate(plan->qual, list_length(plan->qual) - list_length(moved));
	plan->initPlan = NIL;		/* they belong to the top of their query */

	scan = node_make(plan, (List *) node_to_index((Node *) targetlist, vars),
					 (List *) node_to_index((Node *) moved, vars), indexed, consumer, node_id);
	scan->initPlan = init_plans;
	return scan;
}
