/*
 * place.c
 *	  Concatenation without copying: values become channel ranges of one buffer.
 *
 * A group is a list of pieces that somebody wants side by side: a CONCAT, or
 * an AFFINE that has absorbed one.  Groups are taken from the widest to the
 * narrowest.  Each is one of three:
 *	fresh	no piece has a place yet: all go into the group's target, the
 *			value of the CONCAT (of an absorbed one too: it lives on as a mere
 *			buffer, which no op writes);
 *	there	the pieces lie side by side already, as the prefixes of a DenseNet
 *			block do after its widest concat: the target is that range;
 *	mixed	anything else: nothing is placed, the op copies.
 * Since a target may itself have been placed by a wider group, nested concats
 * work too.  Values are written once, so ranges of one root never disturb each
 * other; the root lives as long as any of them (plan.c).
 */
#include "nn/graph_priv.h"

#include <stdlib.h>

typedef struct PlaceGroup
{
	int op;
	int c; /* channels of the whole */
	DfxVal target;
} PlaceGroup;

typedef struct Place
{
	DfxGraph *g;
	PlaceGroup *group;
	int ngroup;
	bool *fixed; /* values that must stay their own root: outputs, and roots with pieces */
	int *stamp;  /* of each value: the last group that listed it, plus one */
} Place;

/* Widest first, so that prefixes find their pieces in place. */
static int
place_cmp(const void *a, const void *b)
{
	const PlaceGroup *x = a, *y = b;

	if (x->c != y->c)
		return x->c > y->c ? -1 : 1;
	return x->op < y->op ? -1 : 1;
}

static void
place_collect(Place *p, const DfxVal *buffer)
{
	const DfxGraph *g = p->g;

	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];
		DfxVal target = op->kind == DFX_OP_CONCAT ? op->out : buffer[i];

		if (target >= 0)
			p->group[p->ngroup++] = (PlaceGroup){.op = i, .c = g->val[target].c, .target = target};
	}
	qsort(p->group, (size_t) p->ngroup, sizeof *p->group, place_cmp);
}

/* Each piece may still move, and none is listed twice. */
static bool
place_is_fresh(Place *p, int n)
{
	const DfxOp *op = &p->g->op[p->group[n].op];

	for (int j = 0; j < op->nin; j++)
	{
		DfxVal v = op->in[j];

		if (p->g->val[v].root != v || p->fixed[v] || p->stamp[v] == n + 1)
			return false;
		p->stamp[v] = n + 1;
	}
	return true;
}

/* The pieces follow one another in somebody's buffer. */
static bool
place_is_there(const DfxGraph *g, const DfxOp *op)
{
	const DfxValue *first = &g->val[op->in[0]];
	int c = first->c0;

	for (int j = 0; j < op->nin; j++)
	{
		const DfxValue *v = &g->val[op->in[j]];

		if (v->root != first->root || v->c0 != c)
			return false;
		c += v->c;
	}
	return first->root != op->in[0]; /* a piece alone in its own buffer is in nobody's */
}

static void
place_group(Place *p, int n)
{
	DfxGraph *g = p->g;
	DfxOp *op = &g->op[p->group[n].op];
	DfxValue *target = &g->val[p->group[n].target];

	if (place_is_fresh(p, n))
	{
		int c = target->c0;

		for (int j = 0; j < op->nin; j++)
		{
			g->val[op->in[j]].root = target->root;
			g->val[op->in[j]].c0 = c;
			c += g->val[op->in[j]].c;
		}
		p->fixed[target->root] = true;
		op->placed = op->kind == DFX_OP_CONCAT;
	}
	else if (op->kind == DFX_OP_CONCAT && place_is_there(g, op) && target->root == op->out &&
	         !p->fixed[op->out])
	{
		target->root = g->val[op->in[0]].root;
		target->c0 = g->val[op->in[0]].c0;
		op->placed = true;
	}
}

/* Lifetimes must be up to date where they matter. */
DfxStatus
dfx_graph_place(DfxGraph *g, const DfxVal *absorbed, DfxErr *err)
{
	Place p = {.g = g};
	DfxStatus st = DFX_OK;

	p.group = malloc(((size_t) g->nop + 1) * sizeof *p.group);
	p.fixed = calloc((size_t) g->nval + 1, sizeof *p.fixed);
	p.stamp = calloc((size_t) g->nval + 1, sizeof *p.stamp);
	if (p.group == NULL || p.fixed == NULL || p.stamp == NULL)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for the graph");
	else
	{
		for (int i = 0; i < g->nout; i++)
			p.fixed[g->out[i]] = true;
		place_collect(&p, absorbed);
		for (int n = 0; n < p.ngroup; n++)
			place_group(&p, n);

		/* A root is in use as long as its pieces are. */
		for (int v = 0; v < g->nval; v++)
		{
			DfxValue *root = &g->val[g->val[v].root];

			if (g->val[v].last_use > root->last_use)
				root->last_use = g->val[v].last_use;
		}
	}
	free(p.group);
	free(p.fixed);
	free(p.stamp);
	return st;
}
