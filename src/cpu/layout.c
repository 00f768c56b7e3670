/*
 * layout.c
 *	  Which layout each value gets, and where it lies.
 *
 * Two modes, chosen per graph so that no convolution needs a reorder:
 *	blocked	nChw16c or nChw8c, the library's fastest; values of at most three
 *			channels that the stem or the head's first convolution reads are plain;
 *	nhwc	for networks with grouped (not depthwise) convolutions that are not for
 *			group.c, as the library is hundreds of times slower with them in a blocked layout;
 *			for plans on integers (int8.c);
 *			and, at plan.c's second attempt, for those with a convolution that has no blocked form.
 *
 * A channel range of a root buffer is a dense tensor of its own only when it
 * starts at a block and the micro-batch is one image.  Where a graph's
 * placements do not start at blocks (odd channel counts), they are taken back:
 * its CONCATs then copy.
 *
 * In bf16 every value is, but for those of one pixel, which stay floats: the
 * feature vector, what a classifier makes of it, the factors of a squeeze and
 * excitation.  They cost next to nothing, and verdicts depend on them.  What
 * an operation makes of floats alone is floats (a vector that becomes a signal
 * excepted: STACK).
 *
 * A residual add accumulates into the convolution's destination, so the sum
 * takes over the residual's buffer where that dies there.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

static void
layout_of_value(CpuBuild *b, int v)
{
	const DfxValue *val = &b->g.val[v];
	CpuView *view = &b->view[v];
	int block = b->dev->block;

	*view = (CpuView){.c = val->c, .h = val->h, .w = val->w};
	if (b->nhwc)
	{
		view->vec = val->c;
		view->tag = dnnl_nhwc;
		return;
	}
	view->vec = block;
	view->tag = block == 16 ? dnnl_nChw16c : dnnl_nChw8c;
	if (val->c <= 3 && val->def >= 0 && val->def < b->g.nop)
	{
		DfxOpKind def = b->g.op[val->def].kind;

		if (def == DFX_OP_INPUT || def == DFX_OP_STACK)
		{
			view->vec = 1;
			view->tag = dnnl_nchw;
		}
	}
}

static void
layout_types(CpuBuild *b)
{
	for (int v = 0; v < b->g.nval; v++)
	{
		b->view[v].type = cpu_pixels(&b->view[v]) == 1 ? CPU_F32 : b->type;
		b->view[v].step = b->step[v];
	}
	for (int i = 0; i < b->g.nop; i++)
	{
		const DfxOp *op = &b->g.op[i];
		bool floats = op->nin > 0 && op->kind != DFX_OP_STACK;

		for (int j = 0; j < op->nin; j++)
			floats = floats && b->view[op->in[j]].type == CPU_F32;
		if (floats)
			b->view[op->out].type = CPU_F32;
	}
	for (int v = 0; v < b->g.nval; v++)
		if (b->view[v].step > 0)
			b->view[v].type = CPU_U8;
}

static void
layout_views(CpuBuild *b)
{
	for (int v = 0; v < b->g.nval; v++)
		layout_of_value(b, v);
	layout_types(b);
}

/* Whether there is a grouped convolution that is not depthwise, nor one of ours. */
static bool
layout_has_foreign_groups(const CpuBuild *b)
{
	for (int i = 0; i < b->g.nop; i++)
	{
		const DfxOp *op = &b->g.op[i];
		CpuConvShape c;

		if (op->kind != DFX_OP_CONV)
			continue;
		c = cpu_conv_shape(&b->g, op);
		if (c.groups > 1 && c.groups != c.ci && !cpu_group_wants(b, op, &c))
			return true;
	}
	return false;
}

/* Keep the graph's placements if every range is a dense tensor, else take all of them back. */
static void
layout_placements(CpuBuild *b)
{
	bool usable = !b->nhwc;

	for (int v = 0; v < b->g.nval; v++)
	{
		const DfxValue *val = &b->g.val[v];

		if (val->root == v)
			continue;
		b->placed = true;
		if (val->c0 % b->dev->block != 0 || b->view[v].vec != b->view[val->root].vec ||
		    b->view[v].type != b->view[val->root].type ||
		    (val->c % b->dev->block != 0 && val->c0 + val->c != b->g.val[val->root].c))
			usable = false;
	}
	if (!b->placed || usable)
		return;
	b->placed = false;
	for (int v = 0; v < b->g.nval; v++)
	{
		b->g.val[v].root = v;
		b->g.val[v].c0 = 0;
	}
	for (int i = 0; i < b->g.nop; i++)
		b->g.op[i].placed = false;
}

static void
layout_last_uses(CpuBuild *b)
{
	const DfxGraph *g = &b->g;

	for (int v = 0; v < g->nval; v++)
		b->last_use[v] = -1;
	for (int i = 0; i < g->nop; i++)
	{
		for (int j = 0; j < g->op[i].nin; j++)
			b->last_use[g->op[i].in[j]] = i;
		if (g->op[i].epi_add >= 0)
			b->last_use[g->op[i].epi_add] = i;
	}
	for (int i = 0; i < g->nout; i++)
		b->last_use[g->out[i]] = g->nop;
}

/* Let the output of each op with a residual take over the residual's buffer where nobody needs it any more.
 */
static void
layout_alias_sums(CpuBuild *b)
{
	DfxGraph *g = &b->g;

	if (b->placed)
		return; /* roots are shared already; who else reads them is not worth finding out */
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];
		int add = op->epi_add;
		bool reads = false;

		if (add < 0 || b->last_use[add] != i || b->view[add].vec != b->view[op->out].vec ||
		    b->view[add].type != b->view[op->out].type)
			continue;
		for (int j = 0; j < op->nin; j++)
			reads = reads || g->val[op->in[j]].root == g->val[add].root;
		if (!reads)
			g->val[op->out].root = g->val[add].root;
	}
}

DfxStatus
cpu_layout(CpuBuild *b, const DfxGraph *g, DfxErr *err)
{
	size_t nval = (size_t) g->nval + 1, nop = (size_t) g->nop + 1;

	b->g = *g;
	b->g.val = malloc(nval * sizeof *g->val);
	b->g.op = malloc(nop * sizeof *g->op);
	b->view = calloc(nval, sizeof *b->view);
	b->last_use = calloc(nval, sizeof *b->last_use);
	b->step = calloc(nval, sizeof *b->step);
	if (!b->g.val || !b->g.op || !b->view || !b->last_use || !b->step)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	memcpy(b->g.val, g->val, (size_t) g->nval * sizeof *g->val);
	memcpy(b->g.op, g->op, (size_t) g->nop * sizeof *g->op);

	if (b->int8)
		dfx_graph_steps(&b->g, b->step);
	b->nhwc = b->nhwc || b->int8;
	layout_views(b);
	if (!b->nhwc && layout_has_foreign_groups(b))
	{
		b->nhwc = true;
		layout_views(b);
	}
	layout_placements(b);
	if (cpu_mb_find(b, err) != DFX_OK)
		return DFX_ENOMEM;
	layout_last_uses(b);
	layout_alias_sums(b);
	return DFX_OK;
}

static size_t
layout_bytes(void *arg, const DfxGraph *g, DfxVal v)
{
	const CpuBuild *b = arg;

	(void) g;
	return cpu_floats(&b->view[v]) * cpu_size(b->view[v].type) * (size_t) b->plan->bucket[0];
}

DfxStatus
cpu_layout_memory(CpuBuild *b, DfxErr *err)
{
	DfxStatus st = dfx_plan_memory(&b->g, layout_bytes, b, &b->mem, err);

	if (st != DFX_OK)
		return st;
	for (int v = 0; v < b->g.nval; v++)
	{
		CpuView *view = &b->view[v];

		view->off =
		    b->mem.off[b->g.val[v].root] + (size_t) b->g.val[v].c0 * cpu_pixels(view) * cpu_size(view->type);
		view->stride = cpu_floats(view);
	}
	return DFX_OK;
}

void
cpu_layout_free(CpuBuild *b)
{
	free(b->g.val);
	free(b->g.op);
	free(b->view);
	free(b->last_use);
	free(b->mb);
	free(b->step);
	dfx_plan_memory_free(&b->mem);
}
