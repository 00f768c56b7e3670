/*
 * branch.c
 *	  The three branches of the tri-branch net side by side.
 *
 * They read the same image and have the same shape, so that the n-th op of
 * each can be one launch: a third of the launches, and three times the blocks,
 * which is what a small batch lacks.  Three passes:
 *	order	the ops of the branches change from "one branch after another" to
 *			"the first ops of all, the second ops of all ..."
 *	memory	what any of three ops reads must stay until the last of them has
 *			run, because they run at one time
 *	merge	neighbouring steps of three that differ in their pointers only
 *			become one
 * A graph of another form passes unchanged.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

/* The length of each branch when ops 1 .. s - 1 are three branches that op s stacks; 0: they are not. */
static int
branch_length(const DfxGraph *g, int s)
{
	const DfxOp *stack = &g->op[s];
	int length = (s - 1) / GPU_BRANCHES;

	if (stack->kind != DFX_OP_STACK || stack->nin != GPU_BRANCHES || (s - 1) % GPU_BRANCHES != 0 ||
	    g->op[0].kind != DFX_OP_INPUT)
		return 0;
	for (int i = 1 + length; i < s; i++)
	{
		const DfxOp *op = &g->op[i], *first = &g->op[1 + (i - 1) % length];

		if (op->kind != first->kind || op->nin != first->nin || op->placed != first->placed)
			return 0;
	}
	return length;
}

/* Whether op i reads v from outside its own branch, the input apart. */
static bool
branch_leaves(const int *def, int i, DfxVal v, int length)
{
	int from = def[v];

	return from != 0 && (from < 0 || from >= i || (from - 1) / length != (i - 1) / length);
}

/* Whether the branches need nothing of each other. */
static bool
branch_independent(const DfxGraph *g, const int *def, int length)
{
	for (int i = 1; i <= GPU_BRANCHES * length; i++)
	{
		const DfxOp *op = &g->op[i];

		for (int j = 0; j < op->nin; j++)
			if (branch_leaves(def, i, op->in[j], length))
				return false;
		if (op->epi_add >= 0 && branch_leaves(def, i, op->epi_add, length))
			return false;
	}
	return true;
}

/* b->op[1 .. 3 x length] in their new order. */
static bool
branch_interleave(GpuBuild *b, int length)
{
	size_t bytes = (size_t) (GPU_BRANCHES * length) * sizeof *b->op;
	DfxOp *old = malloc(bytes);

	if (!old)
		return false;
	memcpy(old, b->op + 1, bytes);
	for (int r = 0; r < GPU_BRANCHES; r++)
		for (int j = 0; j < length; j++)
			b->op[1 + GPU_BRANCHES * j + r] = old[r * length + j];
	free(old);
	return true;
}

DfxStatus
gpu_branch_order(GpuBuild *b, DfxErr *err)
{
	const DfxGraph *g = &b->g;
	int *def = malloc(((size_t) g->nval + 1) * sizeof *def);
	bool ok = def != NULL;

	for (int v = 0; ok && v < g->nval; v++)
		def[v] = -1;
	for (int i = 0; ok && i < g->nop; i++)
		def[g->op[i].out] = i;
	for (int s = 1; ok && s < g->nop && b->grouped == 0; s++)
	{
		int length = branch_length(g, s);

		if (length == 0 || !branch_independent(g, def, length))
			continue;
		ok = branch_interleave(b, length);
		b->grouped = length;
	}
	free(def);
	return ok ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
}

/* Values that the three ops from first on read, into list; how many. */
static int
branch_reads(const GpuBuild *b, int first, DfxVal *list)
{
	int n = 0;

	for (int i = first; i < first + GPU_BRANCHES; i++)
	{
		for (int j = 0; j < b->op[i].nin; j++)
			list[n++] = b->op[i].in[j];
		if (b->op[i].epi_add >= 0)
			list[n++] = b->op[i].epi_add;
	}
	return n;
}

/*
 * As dfx_plan_memory, over a copy of the ops in which the last of each three
 * reads what all three read.
 */
DfxStatus
gpu_branch_memory(GpuBuild *b, size_t (*size)(void *arg, const DfxGraph *g, DfxVal v), DfxErr *err)
{
	DfxGraph g = b->g;
	size_t room = 1, used = 0;
	DfxVal *list;
	DfxStatus st = DFX_ENOMEM;

	for (int i = 0; i < g.nop; i++)
		room += (size_t) b->op[i].nin + 1;
	list = malloc(room * sizeof *list);
	g.op = malloc(((size_t) g.nop + 1) * sizeof *g.op);
	if (list && g.op)
	{
		memcpy(g.op, b->op, (size_t) g.nop * sizeof *g.op);
		for (int j = 0; j < b->grouped; j++)
		{
			DfxOp *last = &g.op[GPU_BRANCHES * (j + 1)];

			last->in = list + used;
			last->nin = branch_reads(b, 1 + GPU_BRANCHES * j, list + used);
			used += (size_t) last->nin;
		}
		st = dfx_plan_memory(&g, size, b, &b->mem, err);
	}
	else
		dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	free(g.op);
	free(list);
	return st;
}

/* Whether three steps are those of one group and differ in their pointers only. */
static bool
branch_alike(const GpuBuild *b, const GpuStep *s)
{
	char first[GPU_DESCRIBE], other[GPU_DESCRIBE];

	if (s->op < 1 || s->op > GPU_BRANCHES * b->grouped || s->op % GPU_BRANCHES != 1)
		return false;
	gpu_step_describe(s, first, sizeof first);
	for (int r = 1; r < GPU_BRANCHES; r++)
	{
		gpu_step_describe(&s[r], other, sizeof other);
		if (s[r].op != s->op + r || strcmp(first, other) != 0)
			return false;
	}
	return true;
}

void
gpu_branch_merge(const GpuBuild *b, GpuProgram *p)
{
	int n = 0;

	for (int i = 0; i < p->nstep; n++)
	{
		GpuStep *to = &p->step[n];
		bool alike = i + GPU_BRANCHES <= p->nstep && branch_alike(b, &p->step[i]);

		*to = p->step[i++];
		for (int r = 1; alike && r < GPU_BRANCHES; r++, i++)
		{
			to->args[r] = p->step[i].args[0];
			to->product[r] = p->step[i].product[0];
			to->count++;
		}
	}
	p->nstep = n;
}
