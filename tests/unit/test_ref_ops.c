/*
 * test_ref_ops.c
 *	  Does the oracle compute what PyTorch computes, op by op?
 *
 * The cases are those of tests/golden/make_ops.py, as graphs; their outputs
 * under PyTorch are in tests/golden/ops/ops.txt.  One more test runs a whole
 * published network on the oracle.  Runs from the top of the tree.
 */
#include "tests/ref/ref.h"
#include "tests/unit/golden_net.h"
#include "tests/unit/run_net.h"
#include "tests/unit/tap.h"

#define WEIGHT_SEED 3
#define INPUT_SEED  11
#define TOLERANCE   3e-7 /* of the largest magnitude: a float's rounding or two */

/* ---- the cases ---- */

static DfxVal
conv(DfxGraph *g, DfxVal x, int cout, DfxConv a)
{
	return dfx_conv(g, x, "conv", cout, a, true);
}

static DfxVal
case_conv_3x3(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 6, DFX_CONV2D(3, 1, 1));
}

static DfxVal
case_conv_no_bias(DfxGraph *g, DfxVal x)
{
	return dfx_conv(g, x, "conv", 4, DFX_CONV2D(3, 1, 0), false);
}

static DfxVal
case_conv_stride(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 4, DFX_CONV2D(3, 2, 1));
}

static DfxVal
case_conv_stem(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 4, DFX_CONV2D(7, 2, 3));
}

static DfxVal
case_conv_1x1(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 5, DFX_CONV2D(1, 1, 0));
}

static DfxVal
case_conv_1x1_stride(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 5, DFX_CONV2D(1, 2, 0));
}

static DfxVal
case_conv_rectangle(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 4, (DfxConv){.kh = 3, .kw = 2, .sh = 2, .sw = 1, .ph = 1});
}

static DfxVal
case_conv_groups(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 12, (DfxConv){.kh = 3, .kw = 3, .ph = 1, .pw = 1, .groups = 4});
}

static DfxVal
case_conv_depthwise(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 6, (DfxConv){.kh = 5, .kw = 5, .sh = 2, .sw = 2, .ph = 2, .pw = 2, .groups = 6});
}

static DfxVal
case_conv_patch(DfxGraph *g, DfxVal x)
{
	return conv(g, x, 8, DFX_CONV2D(4, 4, 0));
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
	return dfx_add(g, conv(g, x, 4, DFX_CONV2D(1, 1, 0)), x);
}

static DfxVal
case_mul(DfxGraph *g, DfxVal x)
{
	return dfx_mul(g, conv(g, x, 4, DFX_CONV2D(1, 1, 0)), x);
}

static DfxVal
case_mul_channel(DfxGraph *g, DfxVal x)
{
	return dfx_mul(g, x, dfx_act(g, case_pool_global_avg(g, x), DFX_ACT_SIGMOID));
}

static DfxVal
case_concat(DfxGraph *g, DfxVal x)
{
	DfxVal piece[3] = {x, conv(g, x, 3, DFX_CONV2D(1, 1, 0)), case_relu(g, x)};

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

/* ---- running them ---- */

/* The number make_ops.py feeds at position i. */
static float
input_at(size_t i)
{
	uint64_t z = golden_mix((INPUT_SEED ^ golden_fnv1a("input", 5)) + i * GOLDEN_PHI);

	return (float) (2 * ((double) (z >> 11) * 0x1p-53 * 2 - 1));
}

/* Read the next case of the file and compare. */
static void
check_case(FILE *f, const struct OpCase *k)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	char name[32] = "";
	int c = 0, h = 0, w = 0;
	float in[512], *out[DFX_MAX_OUT] = {NULL};
	const DfxValue *v;
	double worst = 0, max = 0;
	DfxStatus st;

	dfx_output(g, k->build(g, dfx_input_f32(g, k->c, k->h, k->w)), "y");
	for (size_t i = 0; i < sizeof in / sizeof in[0]; i++)
		in[i] = input_at(i);
	st = dfx_graph_finish(g, &err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, WEIGHT_SEED, &err);
	if (st == DFX_OK)
		st = run_net(&dfx_ref_backend, g, in, 1, out, &err);
	if (!ok(st == DFX_OK, "%s runs", k->name))
		diag("%s", err.msg);
	v = &g->val[g->out[0]];
	ok(fscanf(f, "%31s %d %d %d", name, &c, &h, &w) == 4 && strcmp(name, k->name) == 0 && c == v->c &&
	       h == v->h && w == v->w,
	   "%s has the shape of PyTorch's output", k->name);
	for (int i = 0; i < c * h * w && st == DFX_OK; i++)
	{
		double want;

		if (fscanf(f, "%lf", &want) != 1)
			worst = INFINITY;
		worst = fmax(worst, fabs((double) out[0][i] - want));
		max = fmax(max, fabs(want));
	}
	if (!ok(max > 0 && worst <= TOLERANCE * max, "%s gives PyTorch's numbers", k->name))
		diag("largest difference %g of %g", worst, max);
	free_net(out);
	dfx_graph_free(g);
}

/* The graph's input op, on pixels where the answer can be written down. */
static void
check_rgb8(void)
{
	static const uint8_t pixel[2 * 3] = {0, 128, 255, 255, 0, 1};
	static const double want[6] = {-0.485 / 0.229, (1 - 0.485) / 0.229, (128 / 255.0 - 0.456) / 0.224,
	                               -0.456 / 0.224, (1 - 0.406) / 0.225, (1 / 255.0 - 0.406) / 0.225};
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	float *out[DFX_MAX_OUT] = {NULL};
	bool same = true;

	dfx_output(g, dfx_input_rgb8(g, 1, 2), "y");
	if (!ok(dfx_graph_finish(g, &err) == DFX_OK &&
	            run_net(&dfx_ref_backend, g, pixel, 1, out, &err) == DFX_OK,
	        "pixels run"))
		diag("%s", err.msg);
	for (int i = 0; i < 6; i++)
		same = same && out[0] && fabs((double) out[0][i] - want[i]) < 1e-6;
	ok(same, "pixels are normalised by ImageNet's mean and deviation, channel by channel");
	free_net(out);
	dfx_graph_free(g);
}

/* The first case of resnet18, as built: every layer of a published network in its place. */
static void
check_network(void)
{
	static uint8_t pixels[GOLDEN_PIXELS];
	static GoldenCase c;
	FILE *f = fopen("tests/golden/nets/resnet18.txt", "r");
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	float *out[DFX_MAX_OUT] = {NULL};
	DfxStatus st = dfx_build_backbone(g, dfx_backbone_find("resnet18"), 1000, &err);

	golden_pattern(0, pixels);
	ok(f && golden_next(f, &c) == 1 && strcmp(c.image, "pattern:0") == 0 &&
	       c.hash == golden_fnv1a(pixels, sizeof pixels),
	   "resnet18 has a golden case on pattern:0, and the pixels are the same");
	if (st == DFX_OK)
		st = dfx_weights_random(g, c.seed, &err);
	if (st == DFX_OK)
		st = run_net(&dfx_ref_backend, g, pixels, 1, out, &err);
	if (!ok(st == DFX_OK && golden_error(&c.features, out[0]) < 2e-6 &&
	            golden_error(&c.logits, out[1]) < 2e-6,
	        "resnet18 gives PyTorch's features and logits"))
		diag("%s features %g logits %g", err.msg, out[0] ? golden_error(&c.features, out[0]) : -1,
		     out[1] ? golden_error(&c.logits, out[1]) : -1);
	free_net(out);
	dfx_graph_free(g);
	if (f)
		fclose(f);
}

int
main(void)
{
	FILE *f = fopen("tests/golden/ops/ops.txt", "r");
	char rest[2];

	if (!ok(f && fscanf(f, "#%*[^\n]\n") == 0, "tests/golden/ops/ops.txt can be read"))
		return done_testing();
	for (int i = 0; i < OP_CASES; i++)
		check_case(f, &op_case[i]);
	ok(fscanf(f, "%1s", rest) == EOF, "the file has no case more");
	fclose(f);
	check_rgb8();
	check_network();
	return done_testing();
}
