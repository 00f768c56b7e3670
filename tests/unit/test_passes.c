/*
 * test_passes.c
 *	  Does dfx_graph_optimize keep every output, rewrite what it should, and
 *	  leave alone what it must?
 *
 * Each chain runs on the oracle as built and as optimised, for backends that
 * support all epilogues, some and none.  What becomes of it is written next to
 * it in one line: op names in order, "+add", an activation or "+affine" for an
 * epilogue, "(n)" for more than one input, "*" for a placed CONCAT.
 */
#include "tests/unit/raw_vs_optimised.h"

/* ---- chains ---- */

static DfxVal
conv(DfxGraph *g, DfxVal x, const char *name, int cout)
{
	return dfx_conv(g, x, name, cout, DFX_CONV2D(3, 1, 1), false);
}

static DfxVal
conv1x1(DfxGraph *g, DfxVal x, const char *name, int cout)
{
	return dfx_conv(g, x, name, cout, DFX_CONV2D(1, 1, 0), true);
}

static DfxVal
bn(DfxGraph *g, DfxVal x, const char *name)
{
	return dfx_bn(g, x, name, 1e-5f);
}

static DfxVal
relu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_RELU);
}

static DfxVal
average(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){.k = 2, .avg = true});
}

static DfxVal
concat2(DfxGraph *g, DfxVal a, DfxVal b)
{
	return dfx_concat(g, (DfxVal[]){a, b}, 2);
}

static DfxVal
chain_fold(DfxGraph *g, DfxVal x)
{
	return bn(g, conv(g, x, "c", 5), "n");
}

static DfxVal
chain_fold_bias(DfxGraph *g, DfxVal x)
{
	return bn(g, bn(g, conv1x1(g, x, "c", 5), "n"), "m");
}

static DfxVal
chain_fold_groups(DfxGraph *g, DfxVal x)
{
	DfxConv a = DFX_CONV2D(3, 2, 1);

	a.groups = 4;
	return relu(g, bn(g, dfx_conv(g, x, "c", 12, a, true), "n"));
}

static DfxVal
chain_read_twice(DfxGraph *g, DfxVal x)
{
	x = conv(g, x, "c", 5);
	return dfx_add(g, bn(g, x, "n"), x);
}

static DfxVal
chain_conv_is_output(DfxGraph *g, DfxVal x)
{
	x = conv(g, x, "c", 5);
	dfx_output(g, x, "c");
	return bn(g, x, "n");
}

/* Folding forward would be wrong at the border: the convolution pads with zeros after the BN. */
static DfxVal
chain_bn_before(DfxGraph *g, DfxVal x)
{
	return conv(g, bn(g, x, "n"), "c", 5);
}

static DfxVal
chain_after_relu(DfxGraph *g, DfxVal x)
{
	return relu(g, bn(g, relu(g, conv(g, x, "c", 5)), "n"));
}

/* One scale and shift an epilogue has, and it comes last. */
static DfxVal
chain_two_norms(DfxGraph *g, DfxVal x)
{
	return bn(g, bn(g, relu(g, conv(g, x, "c", 5)), "n"), "m");
}

static DfxVal
chain_linear(DfxGraph *g, DfxVal x)
{
	return relu(g, bn(g, dfx_linear(g, x, "l", 5), "n"));
}

static DfxVal
chain_preactivation(DfxGraph *g, DfxVal x)
{
	return conv(g, relu(g, bn(g, x, "n")), "c", 5);
}

static DfxVal
chain_pool(DfxGraph *g, DfxVal x)
{
	return average(g, bn(g, conv1x1(g, x, "c", 5), "n"));
}

static DfxVal
chain_pool_global(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, conv1x1(g, x, "c", 5), (DfxPool){.avg = true});
}

static DfxVal
chain_pool_relu(DfxGraph *g, DfxVal x)
{
	return average(g, relu(g, conv1x1(g, x, "c", 5)));
}

static DfxVal
chain_pool_3x3(DfxGraph *g, DfxVal x)
{
	return average(g, conv(g, x, "c", 5));
}

static DfxVal
chain_pool_stride(DfxGraph *g, DfxVal x)
{
	return average(g, dfx_conv(g, x, "c", 5, DFX_CONV2D(1, 2, 0), true));
}

static DfxVal
chain_pool_padding(DfxGraph *g, DfxVal x)
{
	return average(g, dfx_conv(g, x, "c", 5, DFX_CONV2D(1, 1, 1), true));
}

static DfxVal
chain_pool_max(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, conv1x1(g, x, "c", 5), (DfxPool){.k = 2});
}

static DfxVal
chain_pool_read_twice(DfxGraph *g, DfxVal x)
{
	x = conv1x1(g, x, "c", 5);
	dfx_output(g, relu(g, x), "r");
	return average(g, x);
}

static DfxVal
chain_residual(DfxGraph *g, DfxVal x)
{
	return relu(g, dfx_add(g, bn(g, conv(g, x, "c", 8), "n"), x));
}

static DfxVal
chain_projection(DfxGraph *g, DfxVal x)
{
	return relu(g, dfx_add(g, bn(g, conv(g, x, "c", 5), "n"), bn(g, conv1x1(g, x, "d", 5), "m")));
}

/* The addend comes last and cannot be fused itself: the convolution must move behind it. */
static DfxVal
chain_late_addend(DfxGraph *g, DfxVal x)
{
	DfxVal y = conv(g, x, "c", 8);

	return dfx_add(g, y, dfx_pool(g, x, (DfxPool){.k = 3, .s = 1, .p = 1}));
}

static DfxVal
chain_twice_itself(DfxGraph *g, DfxVal x)
{
	x = conv(g, x, "c", 8);
	return relu(g, dfx_add(g, x, x));
}

static DfxVal
chain_sum_of_sums(DfxGraph *g, DfxVal x)
{
	DfxVal y = dfx_add(g, conv(g, x, "c", 8), conv(g, x, "d", 8));

	return relu(g, dfx_add(g, y, dfx_add(g, conv(g, x, "e", 8), x)));
}

static DfxVal
chain_act_is_read_twice(DfxGraph *g, DfxVal x)
{
	x = conv(g, x, "c", 8);
	return dfx_mul(g, x, dfx_act(g, x, DFX_ACT_SIGMOID));
}

static DfxVal
chain_drop(DfxGraph *g, DfxVal x)
{
	return dfx_drop(g, dfx_drop(g, relu(g, dfx_drop(g, conv(g, x, "c", 8), 0.1f)), 0.2f), 0.3f);
}

static DfxVal
chain_head(DfxGraph *g, DfxVal x)
{
	x = dfx_stack(g, (DfxVal[]){dfx_pool(g, x, (DfxPool){.avg = true}), dfx_pool(g, x, (DfxPool){0})}, 2);
	x = bn(g, relu(g, dfx_conv1d(g, x, "0", 6, 3, 1, 1)), "2");
	x = relu(g, dfx_conv1d(g, x, "3", 5, 3, 2, 1));
	return dfx_linear(g, dfx_pool(g, x, (DfxPool){.avg = true}), "fc", 3);
}

/* MBConv of EfficientNet, with squeeze and excitation. */
static DfxVal
chain_mbconv(DfxGraph *g, DfxVal x)
{
	DfxConv depthwise = DFX_CONV2D(3, 1, 1);
	DfxVal y = dfx_act(g, bn(g, conv(g, x, "c", 8), "n"), DFX_ACT_SILU), s;

	depthwise.groups = 8;
	y = dfx_act(g, bn(g, dfx_conv(g, y, "d", 8, depthwise, false), "m"), DFX_ACT_SILU);
	s = dfx_act(g, conv1x1(g, dfx_pool(g, y, (DfxPool){.avg = true}), "1", 4), DFX_ACT_SILU);
	s = dfx_act(g, conv1x1(g, s, "2", 8), DFX_ACT_SIGMOID);
	y = dfx_drop(g, bn(g, conv1x1(g, dfx_mul(g, y, s), "p", 8), "o"), 0.2f);
	return dfx_add(g, y, x);
}

/* An encoder block of ViT. */
static DfxVal
chain_encoder(DfxGraph *g, DfxVal x)
{
	DfxVal y;

	x = dfx_drop(g, dfx_tokens(g, x, "cls", "pos"), 0.1f);
	y = dfx_attn(g, dfx_layernorm(g, x, "ln_1", 1e-6f), "attention", 2);
	x = dfx_add(g, dfx_drop(g, y, 0.1f), x);
	y = dfx_act(g, dfx_linear(g, dfx_layernorm(g, x, "ln_2", 1e-6f), "mlp.0", 12), DFX_ACT_GELU);
	x = dfx_add(g, dfx_linear(g, y, "mlp.3", 8), x);
	return dfx_linear(g, dfx_take(g, x, 0), "head", 3);
}

/* ---- concats ---- */

static DfxVal
chain_dense(DfxGraph *g, DfxVal x)
{
	DfxVal piece[4] = {conv(g, x, "0", 4)};

	for (int i = 1; i < 4; i++)
		piece[i] = conv(g, relu(g, bn(g, dfx_concat(g, piece, i), (char[]){(char) ('a' + i), 0})),
		                (char[]){(char) ('0' + i), 0}, 3);
	return relu(g, bn(g, dfx_concat(g, piece, 4), "n"));
}

static DfxVal
chain_concat_read_twice(DfxGraph *g, DfxVal x)
{
	x = concat2(g, x, conv(g, x, "c", 3));
	return dfx_mul(g, bn(g, x, "n"), x);
}

static DfxVal
chain_concat_is_output(DfxGraph *g, DfxVal x)
{
	return concat2(g, conv(g, x, "c", 3), x);
}

static DfxVal
chain_piece_is_output(DfxGraph *g, DfxVal x)
{
	DfxVal a = conv(g, x, "c", 3);

	dfx_output(g, a, "a");
	return relu(g, concat2(g, a, x));
}

static DfxVal
chain_piece_twice(DfxGraph *g, DfxVal x)
{
	return relu(g, concat2(g, x, x));
}

static DfxVal
chain_other_order(DfxGraph *g, DfxVal x)
{
	DfxVal a = conv(g, x, "c", 3), b = conv(g, x, "d", 4);

	return dfx_add(g, conv1x1(g, concat2(g, a, b), "e", 5), conv1x1(g, concat2(g, b, a), "f", 5));
}

static DfxVal
chain_middle(DfxGraph *g, DfxVal x)
{
	DfxVal p[3] = {conv(g, x, "0", 2), conv(g, x, "1", 3), conv(g, x, "2", 4)};
	DfxVal y = conv1x1(g, dfx_concat(g, p + 1, 2), "m", 5);

	return dfx_add(g, y, conv1x1(g, dfx_concat(g, p, 3), "n", 5));
}

static DfxVal
chain_gap(DfxGraph *g, DfxVal x)
{
	DfxVal p[3] = {conv(g, x, "0", 2), conv(g, x, "1", 3), conv(g, x, "2", 4)};
	DfxVal y = conv1x1(g, concat2(g, p[0], p[2]), "m", 5);

	return dfx_add(g, y, conv1x1(g, dfx_concat(g, p, 3), "n", 5));
}

static DfxVal
chain_nested(DfxGraph *g, DfxVal x)
{
	DfxVal in = concat2(g, conv(g, x, "0", 2), conv(g, x, "1", 3));

	return conv1x1(g, concat2(g, conv(g, in, "2", 4), in), "3", 5);
}

static const struct
{
	Subject s;
	const char *expected;
} chain[] = {
    {{"conv, bn", chain_fold}, "input conv"},
    {{"conv with bias, bn, bn", chain_fold_bias}, "input conv"},
    {{"grouped conv, bn, relu", chain_fold_groups}, "input conv+relu"},
    {{"a conv read by its bn and another", chain_read_twice}, "input conv affine+add"},
    {{"a conv that is an output, bn", chain_conv_is_output}, "input conv affine"},
    {{"bn, padding conv", chain_bn_before}, "input affine conv"},
    {{"conv, relu, bn, relu", chain_after_relu}, "input conv+relu+affine act"},
    {{"conv, relu, bn, bn", chain_two_norms}, "input conv+relu+affine affine"},
    {{"linear, bn, relu", chain_linear}, "input linear+affine act"},
    {{"bn, relu, conv", chain_preactivation}, "input affine+relu conv"},
    {{"1x1, bn, average pool", chain_pool}, "input pool conv"},
    {{"1x1, global average", chain_pool_global}, "input pool conv"},
    {{"1x1, relu, average pool", chain_pool_relu}, "input conv+relu pool"},
    {{"3x3, average pool", chain_pool_3x3}, "input conv pool"},
    {{"strided 1x1, average pool", chain_pool_stride}, "input conv pool"},
    {{"padding 1x1, average pool", chain_pool_padding}, "input conv pool"},
    {{"1x1, max pool", chain_pool_max}, "input conv pool"},
    {{"1x1 read twice, average pool", chain_pool_read_twice}, "input conv act pool"},
    {{"residual block", chain_residual}, "input conv+add+relu"},
    {{"residual block with projection", chain_projection}, "input conv conv+add+relu"},
    {{"conv, later addend", chain_late_addend}, "input pool conv+add"},
    {{"x + x, relu", chain_twice_itself}, "input conv add+relu"},
    {{"sum of two sums, relu", chain_sum_of_sums}, "input conv conv+add conv+add add+relu"},
    {{"conv read by its activation and another", chain_act_is_read_twice}, "input conv act mul"},
    {{"dropouts, one of them the output", chain_drop}, "input conv+relu"},
    {{"the paper's head", chain_head}, "input pool pool stack conv+relu+affine conv+relu pool linear"},
    {{"MBConv", chain_mbconv}, "input conv+silu conv+silu pool conv+silu conv+sigmoid mul conv+add"},
    {{"encoder block", chain_encoder},
     "input tokens layernorm linear attn linear+add layernorm linear+gelu linear+add take linear"},
    {{"dense block", chain_dense},
     "input conv affine+relu conv affine(2)+relu conv affine(3)+relu conv affine(4)+relu"},
    {{"a concat read by bn and another", chain_concat_read_twice}, "input conv concat* affine mul"},
    {{"a concat that is an output", chain_concat_is_output}, "input conv concat*"},
    {{"a concat with a piece that is an output", chain_piece_is_output}, "input conv concat act"},
    {{"a concat of one value twice", chain_piece_twice}, "input concat act"},
    {{"two concats in different order", chain_other_order}, "input conv conv concat* conv concat conv+add"},
    {{"concats of three pieces and the last two", chain_middle},
     "input conv conv conv concat* conv concat* conv+add"},
    {{"concats of three pieces, and without the middle", chain_gap},
     "input conv conv conv concat conv concat* conv+add"},
    {{"concat in a concat", chain_nested}, "input conv conv concat* conv concat* conv"},
};

static void
check_refusals(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};

	dfx_output(g, bn(g, dfx_input_f32(g, 2, 2, 2), "n"), "y");
	ok(dfx_graph_optimize(g, NULL, NULL, &err) == DFX_EWEIGHTS && strstr(err.msg, "n.weight"),
	   "a graph without weights is refused");
	ok(dfx_weights_random(g, 1, &err) == DFX_OK && dfx_graph_optimize(g, NULL, NULL, &err) == DFX_OK,
	   "with weights it is optimised");
	ok(g->nparam == 2, "parameters that nobody reads are gone");
	ok(dfx_graph_optimize(g, NULL, NULL, &err) == DFX_EINVAL && strstr(err.msg, "already"),
	   "a second time is refused");
	ok(dfx_weights_random(g, 1, &err) == DFX_EINVAL, "and so are new weights");
	dfx_graph_free(g);
}

int
main(void)
{
	for (size_t i = 0; i < sizeof chain / sizeof chain[0]; i++)
		check(&chain[i].s, chain[i].expected);
	check_refusals();
	return done_testing();
}
