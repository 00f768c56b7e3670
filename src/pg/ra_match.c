/*
 * ra_match.c
 *	  Which calls in an expression are worth sending ahead.
 *
 * A call is, when its image is a plain column and its model a constant or a
 * parameter, and when a row certainly evaluates it: what stands behind CASE,
 * COALESCE, AND or OR may never be called, and asking for it would be waste
 * (not wrong: nothing is raised before the function itself is called).
 *
 * dfx_classify, dfx_try_classify and dfx_synthetic ask the engine the same
 * question, so calls of them about one image are one ask.
 *
 * The functions' OIDs are looked up once and again after pg_proc has changed.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "pg/model.h"
#include "pg/readahead.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

typedef struct MatchFunction
{
	const char *name;
	DfxRingOp	op;
	Oid			oid;
} MatchFunction;

static MatchFunction match_functions[] = {
	{"dfx_classify", DFX_RING_CLASSIFY, InvalidOid},
	{"dfx_try_classify", DFX_RING_CLASSIFY, InvalidOid},
	{"dfx_synthetic", DFX_RING_CLASSIFY, InvalidOid},
	{"dfx_features", DFX_RING_FEATURES, InvalidOid},
};
static bool match_valid = false;
static bool match_stale;		/* something changed during the look-up */
static bool match_installed = false;

static void
match_forget(Datum arg, int cacheid, uint32 hashvalue)
{
	match_valid = false;
	match_stale = true;
}

bool
dfx_ra_installed(void)
{
	static bool watching = false;
	Oid			types[2] = {BYTEAOID, TEXTOID};
	Oid			schema;

	if (match_valid)
		return match_installed;
	if (!watching)
		CacheRegisterSyscacheCallback(PROCOID, match_forget, (Datum) 0);
	watching = true;

	match_stale = false;
	match_installed = false;
	schema = dfx_extension_schema();
	for (int i = 0; i < lengthof(match_functions) && OidIsValid(schema); i++)
	{
		match_functions[i].oid =
			GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
							CStringGetDatum(match_functions[i].name),
							PointerGetDatum(buildoidvector(types, lengthof(types))),
							ObjectIdGetDatum(schema));
		match_installed |= OidIsValid(match_functions[i].oid);
	}
	/* Not before the end: the look-up may be cut short by an error. */
	match_valid = !match_stale;
	return match_installed;
}

static const MatchFunction *
match_function(Oid funcid)
{
	for (int i = 0; i < lengthof(match_functions); i++)
		if (funcid == match_functions[i].oid && OidIsValid(funcid))
			return &match_functions[i];
	return NULL;
}

typedef struct MatchContext
{
	List	   *params;			/* of the nested loop, or NIL */
	List	   *asks;
} MatchContext;

/* The column that an image argument is, or NULL. */
static Var *
match_image(Node *arg, List *params)
{
	ListCell   *lc;

	while (arg != NULL && IsA(arg, RelabelType))
		arg = (Node *) ((RelabelType *) arg)->arg;
	if (arg == NULL)
		return NULL;
	if (IsA(arg, Var))
		return params == NIL ? (Var *) arg : NULL;
	if (!IsA(arg, Param) || ((Param *) arg)->paramkind != PARAM_EXEC)
		return NULL;
	foreach(lc, params)
	{
		NestLoopParam *p = lfirst(lc);

		if (p->paramno == ((Param *) arg)->paramid && IsA(p->paramval, Var))
			return p->paramval;
	}
	return NULL;
}

/* Is a model known before the row is?  A parameter that the nested loop itself sets is not. */
static bool
match_model(Node *arg, List *params)
{
	ListCell   *lc;

	if (arg == NULL || exprType(arg) != TEXTOID)
		return false;
	if (IsA(arg, Const))
		return true;
	if (!IsA(arg, Param))
		return false;
	foreach(lc, params)
		if (((Param *) arg)->paramkind == PARAM_EXEC && ((NestLoopParam *) lfirst(lc))->paramno == ((Param *) arg)->paramid)
			return false;
	return true;
}

/* Add a call, if it is one. */
static bool
match_call(FuncExpr *call, MatchContext *cx)
{
	const MatchFunction *f = match_function(call->funcid);
	Var		   *image;

	if (f == NULL || list_length(call->args) != 2)
		return false;
	image = match_image(linitial(call->args), cx->params);
	if (image == NULL || !match_model(lsecond(call->args), cx->params))
		return false;
	cx->asks = list_append_unique(cx->asks,
								  list_make3(makeInteger(f->op), copyObject(image), copyObject(lsecond(call->args))));
	return true;
}

static bool
match_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_FuncExpr:
			if (match_call((FuncExpr *) node, context))
				return false;
			break;
		case T_BoolExpr:		/* the first argument is certain to be evaluated */
			return match_walker(linitial(((BoolExpr *) node)->args), context);
		case T_CoalesceExpr:
			return match_walker(linitial(((CoalesceExpr *) node)->args), context);
		case T_CaseExpr:
			{
				CaseExpr   *c = (CaseExpr *) node;

				return match_walker((Node *) c->arg, context) ||
					match_walker((Node *) ((CaseWhen *) linitial(c->args))->expr, context);
			}
		case T_SubPlan:
		case T_AlternativeSubPlan:
		case T_Aggref:
		case T_WindowFunc:
			return false;
		default:
			break;
	}
	return expression_tree_walker(node, match_walker, context);
}

void
dfx_ra_match(Node *expr, List *params, List **asks)
{
	MatchContext cx = {params, *asks};

	(void) match_walker(expr, &cx);
	*asks = cx.asks;
}

static bool
match_aggregate_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref))
	{
		Aggref	   *a = (Aggref *) node;

		/* The filter decides whether the arguments are evaluated. */
		return match_walker(a->aggfilter != NULL ? (Node *) a->aggfilter : (Node *) a->args, context);
	}
	return expression_tree_walker(node, match_aggregate_walker, context);
}

void
dfx_ra_match_aggregates(Node *expr, List **asks)
{
	MatchContext cx = {NIL, *asks};

	(void) match_aggregate_walker(expr, &cx);
	*asks = cx.asks;
}
