/*
 * plan.c
 *	  Where each value lies in one arena.
 *
 * Two values may share bytes when no op needs both.  The largest are placed
 * first, each in the smallest gap, among the values alive with it, that takes
 * it (best fit by decreasing size).  That is quadratic in the number of
 * values, about a thousand in the largest network, and done once a plan.
 */
#include "nn/graph_priv.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PLAN_ALIGN 64 /* a cache line; also what vector loads and GPU copies like */

static void
plan_touch(DfxMemBlock *block, const DfxGraph *g, DfxVal v, int when)
{
	DfxMemBlock *b = &block[g->val[v].root];

	if (when < b->first)
		b->first = when;
	if (when > b->last)
		b->last = when;
}

/* Lifetimes of the roots: from the first op that writes any of its ranges to the last that reads any. */
static void
plan_lifetimes(const DfxGraph *g, DfxMemBlock *block)
{
	for (int v = 0; v < g->nval; v++)
		block[v] = (DfxMemBlock){.id = v, .first = INT_MAX, .last = -1};
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];

		plan_touch(block, g, op->out, i);
		for (int j = 0; j < op->nin; j++)
			plan_touch(block, g, op->in[j], i);
		if (op->epi_add >= 0)
			plan_touch(block, g, op->epi_add, i);
	}
	for (int i = 0; i < g->nout; i++)
		plan_touch(block, g, g->out[i], g->nop);
}

static int
plan_cmp(const void *a, const void *b)
{
	const DfxMemBlock *x = a, *y = b;

	if (x->size != y->size)
		return x->size > y->size ? -1 : 1;
	return x->id < y->id ? -1 : 1;
}

/* The best offset for b among the n placed blocks, which are in order of offset. */
static size_t
plan_best_fit(DfxMemBlock *const *placed, int n, const DfxMemBlock *b)
{
	size_t end = 0; /* of what has been passed */
	size_t best = SIZE_MAX, best_gap = SIZE_MAX;

	for (int i = 0; i < n; i++)
	{
		const DfxMemBlock *p = placed[i];

		if (p->first > b->last || p->last < b->first)
			continue;
		if (p->off > end && p->off - end >= b->size && p->off - end < best_gap)
		{
			best = end;
			best_gap = p->off - end;
		}
		if (p->off + p->size > end)
			end = p->off + p->size;
	}
	return best != SIZE_MAX ? best : end;
}

/* Keep placed in order of offset. */
static void
plan_insert(DfxMemBlock **placed, int n, DfxMemBlock *b)
{
	int at = n;

	while (at > 0 && placed[at - 1]->off > b->off)
		at--;
	memmove(placed + at + 1, placed + at, (size_t) (n - at) * sizeof *placed);
	placed[at] = b;
}

/*
 * Offsets of n blocks and, in *bytes, the size of what they share.  Sizes are
 * rounded up to multiples of 64, and the blocks are left in another order
 * (their ids tell them apart).  DFX_ENOMEM; DFX_ELIMIT when the sizes overflow.
 */
DfxStatus
dfx_plan_blocks(DfxMemBlock *block, int n, size_t *bytes, DfxErr *err)
{
	DfxMemBlock **placed = malloc(((size_t) n + 1) * sizeof *placed);
	size_t total = 0;

	*bytes = 0;
	if (placed == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the memory plan");
	for (int i = 0; i < n; i++)
	{
		size_t s = block[i].size;

		if (s > SIZE_MAX / 2 - PLAN_ALIGN || total > SIZE_MAX / 2 - s - PLAN_ALIGN)
		{
			free(placed);
			return dfx_fail(err, DFX_ELIMIT, "the network's values exceed the address space");
		}
		block[i].size = (s + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
		total += block[i].size;
	}
	if (n > 0)
		qsort(block, (size_t) n, sizeof *block, plan_cmp);
	for (int i = 0; i < n; i++)
	{
		block[i].off = plan_best_fit(placed, i, &block[i]);
		plan_insert(placed, i, &block[i]);
		if (block[i].off + block[i].size > *bytes)
			*bytes = block[i].off + block[i].size;
	}
	free(placed);
	return DFX_OK;
}

/*
 * Offsets of all roots and the arena's size.  A value lives from the op that
 * writes it to the last that reads it, both included: no op writes over its
 * own input.  DFX_ENOMEM; DFX_ELIMIT when the sizes overflow.
 */
DfxStatus
dfx_plan_memory(const DfxGraph *g, size_t (*size)(void *arg, const DfxGraph *g, DfxVal v), void *arg,
                DfxMemPlan *plan, DfxErr *err)
{
	size_t nval = (size_t) g->nval + 1;
	DfxMemBlock *block = malloc(nval * sizeof *block);
	DfxStatus st;
	int n = 0;

	*plan = (DfxMemPlan){.off = calloc(nval, sizeof *plan->off)};
	if (block == NULL || plan->off == NULL)
	{
		free(block);
		dfx_plan_memory_free(plan);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the memory plan");
	}
	plan_lifetimes(g, block);
	for (int v = 0; v < g->nval; v++)
	{
		block[n] = block[v];
		block[n].size = block[v].last >= 0 ? size(arg, g, v) : 0;
		n += block[n].size > 0;
	}
	st = dfx_plan_blocks(block, n, &plan->bytes, err);
	for (int i = 0; st == DFX_OK && i < n; i++)
		plan->off[block[i].id] = block[i].off;
	free(block);
	if (st != DFX_OK)
		dfx_plan_memory_free(plan);
	return st;
}

void
dfx_plan_memory_free(DfxMemPlan *plan)
{
	free(plan->off);
	*plan = (DfxMemPlan){0};
}
