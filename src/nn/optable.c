/*
 * optable.c
 *	  What is known of each kind of op apart from its execution: names, whether
 *	  it may carry an epilogue, and how much arithmetic it is; and sums of that
 *	  over a network.
 */
#include "nn/backend.h"
#include "nn/graph_priv.h"

#include <assert.h>

const DfxOpInfo dfx_op_info[] = {
    [DFX_OP_INPUT] = {"input", false},   [DFX_OP_CONV] = {"conv", true},
    [DFX_OP_BN] = {"bn", false},         [DFX_OP_AFFINE] = {"affine", true},
    [DFX_OP_LINEAR] = {"linear", true},  [DFX_OP_LAYERNORM] = {"layernorm", false},
    [DFX_OP_ATTN] = {"attn", false},     [DFX_OP_ACT] = {"act", false},
    [DFX_OP_ADD] = {"add", true},        [DFX_OP_MUL] = {"mul", false},
    [DFX_OP_CONCAT] = {"concat", false}, [DFX_OP_STACK] = {"stack", false},
    [DFX_OP_POOL] = {"pool", false},     [DFX_OP_TOKENS] = {"tokens", false},
    [DFX_OP_TAKE] = {"take", false},     [DFX_OP_DROP] = {"drop", false},
};
static_assert(sizeof dfx_op_info / sizeof dfx_op_info[0] == DFX_OP_COUNT, "every op kind has its entry");

const char *const dfx_precision_name[] = {
    [DFX_PRECISION_AUTO] = "auto", [DFX_PRECISION_FP32] = "fp32", [DFX_PRECISION_BF16] = "bf16",
    [DFX_PRECISION_FP16] = "fp16", [DFX_PRECISION_INT8] = "int8",
};
static_assert(sizeof dfx_precision_name / sizeof dfx_precision_name[0] == DFX_PRECISION_COUNT,
              "every precision has its name");

static double
flops_elements(const DfxGraph *g, DfxVal v)
{
	return (double) g->val[v].c * g->val[v].h * g->val[v].w;
}

/*
 * The arithmetic of the definition, not of any algorithm (Winograd does less).
 * Exponentials and divisions count as nothing: next to the products they are.
 */
double
dfx_op_flops(const DfxGraph *g, const DfxOp *op)
{
	double out = flops_elements(g, op->out);
	double n = 0;

	switch (op->kind)
	{
		case DFX_OP_INPUT:
		case DFX_OP_BN:
		case DFX_OP_AFFINE:
			n = 2 * out;
			break;
		case DFX_OP_CONV:
			n = 2 * out * (g->val[op->in[0]].c / op->u.conv.groups) * op->u.conv.kh * op->u.conv.kw;
			break;
		case DFX_OP_LINEAR:
			n = 2 * out * g->val[op->in[0]].c;
			break;
		case DFX_OP_LAYERNORM:
			n = 7 * out; /* mean 1, variance 2, normalise 2, scale and shift 2 */
			break;
		case DFX_OP_ATTN:
			n = 4 * out * g->val[op->out].h; /* q k' and the weighted sum of v */
			break;
		case DFX_OP_ADD:
		case DFX_OP_MUL:
		case DFX_OP_TOKENS:
			n = out;
			break;
		case DFX_OP_POOL:
			n = op->u.pool.k == 0 ? flops_elements(g, op->in[0]) : out * op->u.pool.k * op->u.pool.k;
			n = op->u.pool.avg ? n : 0;
			break;
		case DFX_OP_ACT:
		case DFX_OP_CONCAT:
		case DFX_OP_STACK:
		case DFX_OP_TAKE:
		case DFX_OP_DROP:
		case DFX_OP_COUNT:
			break;
	}
	return n + (op->epi_add >= 0 ? out : 0) + (op->epi_scale >= 0 ? 2 * out : 0);
}

/* Of the whole graph, for one image. */
double
dfx_graph_flops(const DfxGraph *g)
{
	double n = 0;

	for (int i = 0; i < g->nop; i++)
		n += dfx_op_flops(g, &g->op[i]);
	return n;
}

size_t
dfx_graph_parameters(const DfxGraph *g)
{
	size_t n = 0;

	for (int i = 0; i < g->nparam; i++)
		if (dfx_param_trained(&g->param[i]))
			n += dfx_param_count(&g->param[i]);
	return n;
}
