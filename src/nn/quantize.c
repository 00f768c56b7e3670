/*
 * quantize.c
 *	  Which convolutions run on 8-bit integers, and by which steps.
 *
 * A calibrated convolution reads its input in unsigned steps (0 .. 255, its
 * input_scale a step) and its weights in signed ones (-127 .. 127, a step for
 * each output channel); products and sums are exact integers:
 *		y = (sum of q_x q_w) * step_x * step_w + bias, then the epilogue
 * Only inputs that cannot be negative qualify: what a ReLU leaves, and pools
 * of that.  That leaves out the stem, the head (which has BatchNorms after its
 * ReLUs) and classifiers, which are few and need the precision most.  Nor is a
 * DenseNet's transition calibrated; one that has a scale all the same, from an
 * earlier calibration or of a file's own, runs on integers as any other.
 *
 * A value is kept in steps when nobody would miss what that rounds off: all
 * its readers are calibrated convolutions, or convolutions that add it as a
 * residual.  Everything else is computed in floating point.  The rules stand
 * here, once, so that all backends and the oracle round at the same places.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/names.h"
#include "nn/graph_priv.h"

/* Whether v is never negative, by the op that makes it. */
static bool
quantize_positive(const DfxGraph *g, DfxVal v)
{
	for (;;)
	{
		const DfxOp *op = g->val[v].def >= 0 ? &g->op[g->val[v].def] : NULL;

		if (op == NULL || op->epi_scale >= 0)
			return false;
		if (op->epi_act == DFX_ACT_RELU || (op->kind == DFX_OP_ACT && op->u.act == DFX_ACT_RELU))
			return true;
		if (op->kind != DFX_OP_POOL || !dfx_op_plain(op))
			return false;
		v = op->in[0];
	}
}

/* Grouped convolutions, depthwise ones among them, are not covered, and neither is any network that has them.
 */
static bool
quantize_is_grouped(const DfxGraph *g)
{
	for (int i = 0; i < g->nop; i++)
		if (g->op[i].kind == DFX_OP_CONV && g->op[i].u.conv.groups > 1)
			return true;
	return false;
}

/* A convolution whose epilogue integers can do with. */
static bool
quantize_is_conv(const DfxOp *op)
{
	return op->kind == DFX_OP_CONV && op->u.conv.groups <= 1 && op->epi_scale < 0 &&
	       (op->epi_act == DFX_ACT_NONE || op->epi_act == DFX_ACT_RELU);
}

static bool
quantize_is_calibrated(const DfxOp *op)
{
	return quantize_is_conv(op) && op->in_step > 0;
}

/*
 * A transition of a DenseNet: all that later blocks see of the earlier ones goes
 * through it.  Where it takes differences of channels that are alike, what is left
 * of them is small beside the rounding, and that of the weights moves a whole
 * picture one way, so that no averaging makes up for it.  Of the starter model's
 * 357 convolutions these 9 did most of the harm (docs/PERFORMANCE.md), at 3 % of
 * the multiplications.
 */
static bool
quantize_is_transition(const DfxGraph *g, const DfxOp *op)
{
	int def = g->val[op->in[0]].def;

	return def >= 0 && g->op[def].kind == DFX_OP_POOL && g->op[def].u.pool.avg;
}

int
dfx_graph_quantizable(const DfxGraph *g, int *op)
{
	int n = 0;

	for (int i = 0; i < g->nop && !quantize_is_grouped(g); i++)
		if (quantize_is_conv(&g->op[i]) && quantize_positive(g, g->op[i].in[0]) &&
		    !quantize_is_transition(g, &g->op[i]))
			op[n++] = i;
	return n;
}

/* Bytes of name before ".weight", 0 when it does not end so. */
static size_t
quantize_stem(const char *name)
{
	static const char weight[] = ".weight";
	size_t len = strlen(name);

	return len > sizeof weight - 1 && strcmp(name + len - (sizeof weight - 1), weight) == 0
	           ? len - (sizeof weight - 1)
	           : 0;
}

bool
dfx_scale_name(const DfxGraph *g, int op, char name[DFX_NAME_LEN])
{
	const char *weight = g->param[g->op[op].param[DFX_W]].name;
	size_t stem = quantize_stem(weight);

	return stem > 0 &&
	       snprintf(name, DFX_NAME_LEN, "%.*s" DFX_SCALE_SUFFIX, (int) stem, weight) < DFX_NAME_LEN;
}

DfxOp *
dfx_scale_owner(DfxGraph *g, const char *name)
{
	for (int i = 0; i < g->nop; i++)
	{
		char own[DFX_NAME_LEN];

		if (g->op[i].kind == DFX_OP_CONV && dfx_scale_name(g, i, own) && strcmp(own, name) == 0)
			return &g->op[i];
	}
	return NULL;
}

bool
dfx_graph_calibrated(const DfxGraph *g)
{
	for (int i = 0; i < g->nop; i++)
		if (quantize_is_calibrated(&g->op[i]))
			return true;
	return false;
}

/* Whether op, of which v is an input or the residual, can do with v in steps. */
static bool
quantize_reads(const DfxOp *op, DfxVal v)
{
	for (int j = 0; j < op->nin; j++)
		if (op->in[j] == v && !quantize_is_calibrated(op))
			return false;
	return op->epi_add != v || quantize_is_calibrated(op);
}

/* Those that can write steps; a convolution if it reads them. */
static bool
quantize_writes(const DfxOp *op, const float *step)
{
	return op->kind == DFX_OP_AFFINE || op->kind == DFX_OP_POOL ||
	       (op->kind == DFX_OP_CONV && step[op->in[0]] > 0);
}

void
dfx_graph_steps(const DfxGraph *g, float *step)
{
	for (int v = 0; v < g->nval; v++)
		step[v] = 0;
	for (int i = 0; i < g->nop; i++)
	{
		DfxVal v = g->op[i].out;
		float widest = 0;

		if (!quantize_writes(&g->op[i], step) || !quantize_positive(g, v))
			continue;
		for (int k = i + 1; k < g->nop; k++)
		{
			const DfxOp *op = &g->op[k];

			if (!quantize_reads(op, v))
				widest = INFINITY;
			else if (op->nin > 0 && op->in[0] == v && op->in_step > widest)
				widest = op->in_step;
		}
		for (int k = 0; k < g->nout; k++)
			if (g->out[k] == v)
				widest = INFINITY;
		step[v] = widest < INFINITY ? widest : 0;
	}
}

void
dfx_quantize_weights(const float *w, size_t rows, size_t row, int8_t *q, float *step)
{
	for (size_t r = 0; r < rows; r++)
	{
		const float *from = w + r * row;
		float largest = 0;

		for (size_t k = 0; k < row; k++)
			largest = fmaxf(largest, fabsf(from[k]));
		/* A row of zeroes needs a step too, and any will do. */
		step[r] = largest > 0 ? largest / DFX_WEIGHT_STEPS : 1;
		for (size_t k = 0; k < row; k++)
		{
			long steps = lrintf(from[k] / step[r]);

			q[r * row + k] = (int8_t) (steps > DFX_WEIGHT_STEPS    ? DFX_WEIGHT_STEPS
			                           : steps < -DFX_WEIGHT_STEPS ? -DFX_WEIGHT_STEPS
			                                                       : steps);
		}
	}
}
