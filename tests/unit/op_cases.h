/*
 * op_cases.h
 *	  Small graphs, one for each thing an op can do: the cases of
 *	  tests/golden/make_ops.py, with its weights and its inputs.
 */
#ifndef DFX_TESTS_OP_CASES_H
#define DFX_TESTS_OP_CASES_H

#include "nn/nn.h"
#include "tests/unit/golden_net.h"

#define OP_WEIGHT_SEED 3
#define OP_INPUT_SEED  11

/* The number in [-1, 1) that make_nets.py's uniform() draws at position i. */
__attribute__((unused)) static double
op_uniform(uint64_t seed, const char *name, size_t i)
{
	uint64_t z = golden_mix((seed ^ golden_fnv1a(name, strlen(name))) + i * GOLDEN_PHI);

	return (double) (z >> 11) * 0x1p-53 * 2 - 1;
}

/* The number make_ops.py feeds at position i. */
__attribute__((unused)) static float
op_input(size_t i)
{
	return (float) (2 * op_uniform(OP_INPUT_SEED, "input", i));
}

static DfxVal
op_conv(DfxGraph *g, DfxVal x, int cout, DfxConv a)
{
	return dfx_conv(g, x, "conv", cout, a, true);
}

static DfxVal
case_conv_3x3(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 6, DFX_CONV2D(3, 1, 1));
}

static DfxVal
case_conv_no_bias(DfxGraph *g, DfxVal x)
{
	return dfx_conv(g, x, "conv", 4, DFX_CONV2D(3, 1, 0), false);
}

static DfxVal
case_conv_stride(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 4, DFX_CONV2D(3, 2, 1));
}

static DfxVal
case_conv_stem(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 4, DFX_CONV2D(7, 2, 3));
}

static DfxVal
case_conv_1x1(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 5, DFX_CONV2D(1, 1, 0));
}

static DfxVal
case_conv_1x1_stride(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 5, DFX_CONV2D(1, 2, 0));
}

static DfxVal
case_conv_rectangle(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 4, (DfxConv){.kh = 3, .kw = 2, .sh = 2, .sw = 1, .ph = 1});
}

static DfxVal
case_conv_groups(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 12, (DfxConv){.kh = 3, .kw = 3, .ph = 1, .pw = 1, .groups = 4});
}

static DfxVal
case_conv_depthwise(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 6, (DfxConv){.kh = 5, .kw = 5, .sh = 2, .sw = 2, .ph = 2, .pw = 2, .groups = 6});
}

static DfxVal
case_conv_patch(DfxGraph *g, DfxVal x)
{
	return op_conv(g, x, 8, DFX_CONV2D(4, 4, 0));
}

static DfxVal
case_conv1d(DfxGraph *g, DfxVal x)
{
	return dfx_conv1d(g, x, "conv", 5, 7, 2, 1);
}

static DfxVal
case_bn(DfxGraph *g, DfxVal x)
{
	return dfx_bn(g, x, "norm", 1e-3f);
}

static DfxVal
case_pool_max(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){.k = 3, .s = 2, .p = 1});
}

static DfxVal
case_pool_max_rest(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){.k = 3});
}

static DfxVal
case_pool_avg(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){.k = 2, .s = 2, .avg = true});
}

static DfxVal
case_pool_global_avg(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){.avg = true});
}

static DfxVal
case_pool_global_max(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){0});
}

static DfxVal
case_linear(DfxGraph *g, DfxVal x)
{
	return dfx_linear(g, x, "fc", 4);
}

static DfxVal
case_linear_tokens(DfxGraph *g, DfxVal x)
{
	return dfx_linear(g, x, "fc", 8);
}

static DfxVal
case_layernorm(DfxGraph *g, DfxVal x)
{
	return dfx_layernorm(g, x, "norm", 1e-6f);
}

static DfxVal
case_attention(DfxGraph *g, DfxVal x)
{
	return dfx_attn(g, x, "attention", 2);
}

static DfxVal
case_relu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_RELU);
}

static DfxVal
case_silu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_SILU);
}

static DfxVal
case_gelu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_GELU);
}

static DfxVal
case_sigmoid(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_SIGMOID);
}

static DfxVal
case_add(DfxGraph *g, DfxVal x)
{
	return dfx_add(g, op_conv(g, x, 4, DFX_CONV2D(1, 1, 0)), x);
}

static DfxVal
case_mul(DfxGraph *g, DfxVal x)
{
	return dfx_mul(g, op_conv(g, x, 4, DFX_CONV2D(1, 1, 0)), x);
}

static DfxVal
case_mul_channel(DfxGraph *g, DfxVal x)
{
	return dfx_mul(g, x, dfx_act(g, case_pool_global_avg(g, x), DFX_ACT_SIGMOID));
}

static DfxVal
case_concat(DfxGraph *g, DfxVal x)
{
	DfxVal piece[3] = {x, op_conv(g, x, 3, DFX_CONV2D(1, 1, 0)), case_relu(g, x)};

	return dfx_concat(g, piece, 3);
}

static DfxVal
case_stack(DfxGraph *g, DfxVal x)
{
	DfxVal piece[2] = {case_pool_global_avg(g, x), case_pool_global_max(g, x)};

	return dfx_stack(g, piece, 2);
}

static DfxVal
case_tokens(DfxGraph *g, DfxVal x)
{
	return dfx_tokens(g, x, "embed.class_token", "embed.pos_embedding");
}

static DfxVal
case_take(DfxGraph *g, DfxVal x)
{
	return dfx_take(g, x, 3);
}

static DfxVal
case_drop(DfxGraph *g, DfxVal x)
{
	return dfx_drop(g, x, 0.5f);
}

static const struct OpCase
{
	const char *name;
	int c, h, w;
	DfxVal (*build)(DfxGraph *g, DfxVal x);
} op_case[] = {
    {"conv_3x3", 5, 7, 6, case_conv_3x3},
    {"conv_no_bias", 5, 7, 6, case_conv_no_bias},
    {"conv_stride", 3, 9, 8, case_conv_stride},
    {"conv_stem", 3, 12, 11, case_conv_stem},
    {"conv_1x1", 8, 4, 3, case_conv_1x1},
    {"conv_1x1_stride", 8, 5, 4, case_conv_1x1_stride},
    {"conv_rectangle", 3, 8, 7, case_conv_rectangle},
    {"conv_groups", 8, 6, 5, case_conv_groups},
    {"conv_depthwise", 6, 7, 7, case_conv_depthwise},
    {"conv_patch", 3, 8, 12, case_conv_patch},
    {"conv1d", 3, 1, 29, case_conv1d},
    {"bn", 6, 4, 5, case_bn},
    {"pool_max", 3, 7, 6, case_pool_max},
    {"pool_max_even", 3, 8, 8, case_pool_max},
    {"pool_max_rest", 2, 8, 6, case_pool_max_rest},
    {"pool_avg", 3, 6, 4, case_pool_avg},
    {"pool_avg_rest", 3, 5, 7, case_pool_avg},
    {"pool_global_avg", 4, 5, 3, case_pool_global_avg},
    {"pool_global_max", 4, 5, 3, case_pool_global_max},
    {"linear", 9, 1, 1, case_linear},
    {"linear_tokens", 6, 5, 1, case_linear_tokens},
    {"layernorm", 8, 5, 1, case_layernorm},
    {"attention", 8, 5, 1, case_attention},
    {"relu", 3, 4, 4, case_relu},
    {"silu", 3, 4, 4, case_silu},
    {"gelu", 3, 4, 4, case_gelu},
    {"sigmoid", 3, 4, 4, case_sigmoid},
    {"add", 4, 3, 5, case_add},
    {"mul", 4, 3, 5, case_mul},
    {"mul_channel", 4, 3, 5, case_mul_channel},
    {"concat", 4, 3, 5, case_concat},
    {"stack", 4, 3, 5, case_stack},
    {"tokens", 4, 2, 3, case_tokens},
    {"take", 4, 5, 1, case_take},
    {"drop", 4, 5, 1, case_drop},
};
enum
{
	OP_CASES = sizeof op_case / sizeof op_case[0]
};

#endif /* DFX_TESTS_OP_CASES_H */
