/*
 * ra_plan.c
 *	  Where in a finished plan a read-ahead scan goes.
 *
 * The planner hook lets the planner finish and then changes its plan, so no
 * cost, path or hook of others is involved.  Three places are worth it:
 *
 *	  - a node whose target list or filter calls one of the functions is taken
 *		apart; the scan evaluates both.  Of a filter only the end from the
 *		first call on moves, so that security barriers, which the planner has
 *		put in order, hold;
 *	  - an aggregate with calls in its arguments or filters gets a scan below;
 *	  - a nested loop over dfx_classify(outer.image) AS v gets one as its outer
 *		side.
 *
 * Where a second question is asked only about rows that passed a first one
 * (features of what a filter lets through), a second scan is put over the
 * first.
 *
 * Left alone is what must not be read ahead: rows that are locked or changed
 * when they are read, or computed by volatile functions; what goes back to a
 * marked row; scrollable cursors.  And what is not worth the trouble: nodes
 * with subplans in their expressions, more than a handful of questions.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "pg/ra_window.h"
#include "pg/readahead.h"
#include "pg/settings.h"

typedef struct PlanContext
{
	PlannedStmt *stmt;
	int			last_node_id;
	bool		gathered;		/* below a Gather: scans run in workers too */
} PlanContext;

static const RaConsumer nobody = {NULL, false, false};
static planner_hook_type next_planner = NULL;

/* ---- walking plans ---- */

typedef bool (*PlanVisitor) (Plan *plan, void *context);

static bool
plan_visit_list(List *plans, PlanVisitor visit, void *context)
{
	ListCell   *lc;

	foreach(lc, plans)
		if (visit(lfirst(lc), context))
			return true;
	return false;
}

/* Visit a node's children; true as soon as a visit is. */
static bool
plan_visit_children(Plan *plan, PlanVisitor visit, void *context)
{
	if ((plan->lefttree != NULL && visit(plan->lefttree, context)) ||
		(plan->righttree != NULL && visit(plan->righttree, context)))
		return true;
	switch (nodeTag(plan))
	{
		case T_Append:
			return plan_visit_list(((Append *) plan)->appendplans, visit, context);
		case T_MergeAppend:
			return plan_visit_list(((MergeAppend *) plan)->mergeplans, visit, context);
		case T_BitmapAnd:
			return plan_visit_list(((BitmapAnd *) plan)->bitmapplans, visit, context);
		case T_BitmapOr:
			return plan_visit_list(((BitmapOr *) plan)->bitmapplans, visit, context);
		case T_SubqueryScan:
			return visit(((SubqueryScan *) plan)->subplan, context);
		case T_CustomScan:
			return plan_visit_list(((CustomScan *) plan)->custom_plans, visit, context);
		default:
			return false;
	}
}

static bool
plan_last_id(Plan *plan, void *context)
{
	PlanContext *cx = context;

	if (plan == NULL)			/* a subplan that was found to be unused */
		return false;
	cx->last_node_id = Max(cx->last_node_id, plan->plan_node_id);
	return plan_visit_children(plan, plan_last_id, context);
}

/* Volatile functions in what a node evaluates besides its target list and filter. */
static bool
plan_volatile_source(Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_FunctionScan:
			return contain_volatile_functions((Node *) ((FunctionScan *) plan)->functions);
		case T_ValuesScan:
			return contain_volatile_functions((Node *) ((ValuesScan *) plan)->values_lists);
		case T_NestLoop:
		case T_MergeJoin:
		case T_HashJoin:
			return contain_volatile_functions((Node *) ((Join *) plan)->joinqual);
		default:
			return false;
	}
}

/* Does it make a difference when, or whether, a row of this plan is read? */
static bool
plan_has_effects(Plan *plan, void *context)
{
	PlanContext *cx = context;

	if (IsA(plan, LockRows) || IsA(plan, ModifyTable) ||
		contain_volatile_functions((Node *) plan->targetlist) ||
		contain_volatile_functions((Node *) plan->qual) ||
		plan_volatile_source(plan))
		return true;
	if (IsA(plan, CteScan) &&
		plan_has_effects(list_nth(cx->stmt->subplans, ((CteScan *) plan)->ctePlanId - 1), context))
		return true;
	return plan_visit_children(plan, plan_has_effects, context);
}

/* The same for what is left of a node once its target list and the quals in moved are gone. */
static bool
plan_rest_has_effects(Plan *plan, List *moved, PlanContext *cx)
{
	List	   *rest = list_difference_ptr(plan->qual, moved);

	if (contain_volatile_functions((Node *) rest) || plan_volatile_source(plan))
		return true;
	if (IsA(plan, CteScan) &&
		plan_has_effects(list_nth(cx->stmt->subplans, ((CteScan *) plan)->ctePlanId - 1), cx))
		return true;
	return plan_visit_children(plan, plan_has_effects, cx);
}

/* ---- taking nodes apart ---- */

/* Expressions that stay where they are. */
static bool
plan_unmovable(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) || IsA(node, Aggref) ||
		IsA(node, WindowFunc) || IsA(node, GroupingFunc) || IsA(node, CurrentOfExpr))
		return true;
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcretset)
		return true;
	return expression_tree_walker(node, plan_unmovable, context);
}

static bool
plan_is_join(const Plan *plan)
{
	return IsA(plan, NestLoop) || IsA(plan, HashJoin) || IsA(plan, MergeJoin);
}

static bool
plan_can_split(const Plan *plan)
{
	switch (nodeTag(plan))
	{
		case T_SeqScan:
		case T_SampleScan:
		case T_IndexScan:
		case T_IndexOnlyScan:
		case T_BitmapHeapScan:
		case T_TidScan:
		case T_TidRangeScan:
		case T_SubqueryScan:
		case T_FunctionScan:
		case T_ValuesScan:
		case T_TableFuncScan:
		case T_CteScan:
		case T_NamedTuplestoreScan:
			return true;
		case T_ForeignScan:		/* one that writes is a part of its ModifyTable */
			return ((const ForeignScan *) plan)->operation == CMD_SELECT;
		case T_Result:
			return plan->lefttree != NULL;
		default:
			return plan_is_join(plan);
	}
}

static bool
plan_asks_anew(List *asks, List *known)
{
	return list_difference(asks, known) != NIL && list_length(asks) <= DFX_WINDOW_MAX_ASKS;
}

/* A scan that was just made, marked as parallel where workers are to tell their figures (ra_exec.c). */
static Plan *
plan_mark(Plan *scan, const PlanContext *cx)
{
	scan->parallel_aware = cx->gathered;
	return scan;
}

/* The end of plan's filter that begins with the first new question; *asks gets the questions of that qual. */
static List *
plan_moved_quals(Plan *plan, List *known, List **asks)
{
	int			i = 0;
	ListCell   *lc;

	foreach(lc, plan->qual)
	{
		*asks = NIL;
		dfx_ra_match(lfirst(lc), NIL, asks);
		if (plan_asks_anew(*asks, known))
			return list_copy_tail(plan->qual, i);
		i++;
	}
	return NIL;
}

static Plan *
plan_split(Plan *plan, const RaConsumer *consumer, PlanContext *cx)
{
	List	   *known = NIL,
			   *moved,
			   *asks = NIL;

	if (!plan_can_split(plan) || consumer->marked ||
		plan_unmovable((Node *) plan->targetlist, NULL) || plan_unmovable((Node *) plan->qual, NULL))
		return plan;
	/* What a join filters, it filters with its joinqual; the rest is not worth a stage. */
	while (!plan_is_join(plan) && (moved = plan_moved_quals(plan, known, &asks)) != NIL)
	{
		if (dfx_ra_is_scan(plan))
			dfx_ra_unbind(plan);
		else if (plan_rest_has_effects(plan, moved, cx))
			return plan;
		plan = plan_mark(dfx_ra_split(plan, moved, asks, consumer, &cx->last_node_id), cx);
		known = dfx_ra_asks(plan);
	}
	asks = NIL;
	dfx_ra_match((Node *) plan->targetlist, NIL, &asks);
	if (plan_asks_anew(asks, known) && (dfx_ra_is_scan(plan) || !plan_rest_has_effects(plan, NIL, cx)))
		plan = plan_mark(dfx_ra_split(plan, NIL, asks, consumer, &cx->last_node_id), cx);
	return plan;
}

/* ---- scans below ---- */

static void
plan_feed(Plan **child, List *asks, const RaConsumer *consumer, PlanContext *cx)
{
	List	   *known = dfx_ra_is_scan(*child) ? dfx_ra_output_asks(*child) : NIL;

	if (plan_asks_anew(asks, known) && !plan_has_effects(*child, cx))
		*child = plan_mark(dfx_ra_pass(*child, asks, consumer, &cx->last_node_id), cx);
}

static void
plan_feed_aggregate(Agg *agg, PlanContext *cx)
{
	List	   *asks = NIL;

	/* With several grouping sets the input is read back from sorts, long after it passed. */
	if (agg->plan.lefttree == NULL || agg->chain != NIL)
		return;
	dfx_ra_match_aggregates((Node *) agg->plan.targetlist, &asks);
	dfx_ra_match_aggregates((Node *) agg->plan.qual, &asks);
	plan_feed(&agg->plan.lefttree, asks, &nobody, cx);
}

static void
plan_feed_lateral(NestLoop *loop, const RaConsumer *consumer, PlanContext *cx)
{
	Plan	   *inner = loop->join.plan.righttree;
	List	   *asks = NIL;
	bool		one_for_one;
	ListCell   *lc;

	while (IsA(inner, Material) || IsA(inner, Memoize))
		inner = inner->lefttree;
	if (!IsA(inner, FunctionScan) || loop->nestParams == NIL)
		return;
	foreach(lc, ((FunctionScan *) inner)->functions)
		dfx_ra_match(((RangeTblFunction *) lfirst(lc))->funcexpr, loop->nestParams, &asks);
	one_for_one = inner->qual == NIL && loop->join.joinqual == NIL && loop->join.plan.qual == NIL &&
		list_length(((FunctionScan *) inner)->functions) == 1;
	plan_feed(&loop->join.plan.lefttree, asks, one_for_one ? consumer : &nobody, cx);
}

/* ---- the whole tree ---- */

static Plan *plan_rewrite(Plan *plan, const RaConsumer *consumer, PlanContext *cx);

static void
plan_rewrite_list(List *plans, const RaConsumer *consumer, PlanContext *cx)
{
	ListCell   *lc;

	foreach(lc, plans)
		lfirst(lc) = plan_rewrite(lfirst(lc), consumer, cx);
}

static bool
plan_is_known_number(const Node *expr)
{
	return expr == NULL || IsA(expr, Const) ||
		(IsA(expr, Param) && ((const Param *) expr)->paramkind == PARAM_EXTERN);
}

/* What a node is for its child, or its left one; consumer is what the node's own is. */
static RaConsumer
plan_as_consumer(Plan *plan, const RaConsumer *consumer)
{
	RaConsumer	c = nobody;
	Limit	   *limit;

	switch (nodeTag(plan))
	{
		case T_Limit:
			limit = (Limit *) plan;
			c.top = consumer->top && limit->limitOffset == NULL;
			if (plan_is_known_number(limit->limitCount) && plan_is_known_number(limit->limitOffset))
				c.limit = limit;
			break;
		case T_Gather:
		case T_GatherMerge:
			c.limit = consumer->limit;
			break;
		case T_Result:
			c.marked = consumer->marked;
			/* FALLTHROUGH */
		case T_SubqueryScan:
		case T_Append:
		case T_MergeAppend:
		case T_LockRows:
			if (plan->qual != NIL)
				break;
			c.limit = consumer->limit;
			c.top = consumer->top;
			break;
		default:
			break;
	}
	return c;
}

static Plan *
plan_rewrite(Plan *plan, const RaConsumer *consumer, PlanContext *cx)
{
	RaConsumer	self,
				inner = {NULL, false, false};
	bool		gathered = cx->gathered;

	if (plan == NULL)
		return NULL;
	check_stack_depth();
	self = plan_as_consumer(plan, consumer);
	inner.marked = IsA(plan, MergeJoin);
	cx->gathered |= IsA(plan, Gather) || IsA(plan, GatherMerge);
	plan->lefttree = plan_rewrite(plan->lefttree, &self, cx);
	plan->righttree = plan_rewrite(plan->righttree, &inner, cx);
	cx->gathered = gathered;
	switch (nodeTag(plan))
	{
		case T_Append:
			plan_rewrite_list(((Append *) plan)->appendplans, &self, cx);
			break;
		case T_MergeAppend:
			plan_rewrite_list(((MergeAppend *) plan)->mergeplans, &self, cx);
			break;
		case T_SubqueryScan:
			((SubqueryScan *) plan)->subplan = plan_rewrite(((SubqueryScan *) plan)->subplan, &self, cx);
			break;
		case T_Agg:
			plan_feed_aggregate((Agg *) plan, cx);
			break;
		case T_NestLoop:
			plan_feed_lateral((NestLoop *) plan, consumer, cx);
			break;
		default:
			break;
	}
	return plan_split(plan, consumer, cx);
}

static PlannedStmt *
plan_hook(Query *parse, const char *query, int cursor_options, ParamListInfo params)
{
	PlannedStmt *stmt = next_planner ? next_planner(parse, query, cursor_options, params) :
		standard_planner(parse, query, cursor_options, params);
	PlanContext cx = {stmt, 0, false};
	const RaConsumer top = {NULL, true, false};

	/* Reading ahead goes forward only. */
	if ((cursor_options & CURSOR_OPT_SCROLL) || dfx_window_limit() < 2 || !dfx_ra_installed())
		return stmt;
	(void) plan_last_id(stmt->planTree, &cx);
	(void) plan_visit_list(stmt->subplans, plan_last_id, &cx);
	stmt->planTree = plan_rewrite(stmt->planTree, &top, &cx);
	plan_rewrite_list(stmt->subplans, &nobody, &cx);
	return stmt;
}

void
dfx_ra_init(void)
{
	next_planner = planner_hook;
	planner_hook = plan_hook;
	dfx_window_init();
	dfx_ra_exec_init();
}
