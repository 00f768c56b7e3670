/*
 * image_cases.h
 *	  Every op of images, in the shapes that matter to any backend: strides,
 *	  paddings, groups, channel counts off the vector width, odd sizes,
 *	  epilogues, placed concats.  A test sets the subject and calls
 *	  check_image_ops().
 */
#ifndef DFX_TESTS_IMAGE_CASES_H
#define DFX_TESTS_IMAGE_CASES_H

#include "tests/backend/against_ref.h"
#include "tests/backend/conv_cases.h"

static Subject subject;

/* fp32 sums of up to a few thousand terms; Winograd has larger intermediate values. */
#define TOLERANCE          4e-6
#define TOLERANCE_WINOGRAD 4e-5

/* One network of one input, built by f; optimised or as it is. */
__attribute__((unused)) static void
check(const char *what, int c, int h, int w, Build f, bool optimise, int n, double tolerance)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxStatus st = build_case(g, f, c, h, w, &err);

	if (st == DFX_OK && optimise)
		st = dfx_graph_optimize(g, subject.be->supports, subject.dev, &err);
	if (st == DFX_OK)
		same_as_ref(&subject, g, n, tolerance, what);
	else if (!ok(false, "%s", what))
		diag("%s", err.msg);
	dfx_graph_free(g);
}

/* ---- convolutions ---- */

static void
check_convs(void)
{
	for (conv_case = 0; conv_case < CONV_CASES; conv_case++)
	{
		const ConvCase *k = &conv_cases[conv_case];
		char what[96];

		check(conv_case_name(k, what, sizeof what), k->ci, k->h, k->w, build_conv_case, false, 3,
		      k->a.kh == 3 && k->a.sh == 1 ? TOLERANCE_WINOGRAD : TOLERANCE);
	}
}

static DfxVal
build_head(DfxGraph *g, DfxVal x)
{
	x = dfx_conv1d(g, x, "a", 16, 7, 1, 1);
	x = dfx_bn(g, dfx_act(g, x, DFX_ACT_RELU), "n", 1e-5f);
	x = dfx_conv1d(g, x, "b", 64, 5, 2, 1);
	return dfx_conv1d(g, dfx_act(g, x, DFX_ACT_RELU), "c", 40, 3, 1, 1);
}

static DfxVal
build_linear(DfxGraph *g, DfxVal x)
{
	return dfx_linear(g, dfx_linear(g, x, "a", 70), "b", 3);
}

/* ---- epilogues ---- */

static DfxVal
build_conv_bn_relu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, dfx_bn(g, dfx_conv(g, x, "c", 48, DFX_CONV2D(3, 1, 1), false), "n", 1e-5f),
	               DFX_ACT_RELU);
}

static DfxAct conv_act;

static DfxVal
build_conv_act(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, dfx_conv(g, x, "c", 24, DFX_CONV2D(1, 1, 0), true), conv_act);
}

/* Two residual blocks: the first residual is the input itself, the second one's is read again at the end. */
static DfxVal
build_residual(DfxGraph *g, DfxVal x)
{
	DfxVal y = dfx_conv(g, x, "a", 32, DFX_CONV2D(3, 1, 1), true), z;

	y = dfx_act(g, dfx_add(g, dfx_conv(g, y, "b", 32, DFX_CONV2D(3, 1, 1), true), x), DFX_ACT_RELU);
	z = dfx_act(g, dfx_add(g, dfx_conv(g, y, "c", 32, DFX_CONV2D(1, 1, 0), true), y), DFX_ACT_RELU);
	return dfx_add(g, z, y);
}

static DfxVal
build_relu_bn(DfxGraph *g, DfxVal x)
{
	x = dfx_act(g, dfx_conv(g, x, "c", 20, DFX_CONV2D(3, 2, 1), true), DFX_ACT_RELU);
	return dfx_bn(g, x, "n", 1e-5f);
}

/* ---- concats ---- */

static int piece_channels;

/* A dense block: each layer reads all before it. */
static DfxVal
build_dense(DfxGraph *g, DfxVal x)
{
	DfxVal v[4] = {x};

	v[0] = dfx_conv(g, x, "stem", 2 * piece_channels, DFX_CONV2D(1, 1, 0), false);
	for (int i = 1; i < 4; i++)
	{
		DfxVal y = i == 1 ? v[0] : dfx_concat(g, v, i);
		int mark = dfx_push(g, "layer%d", i);

		y = dfx_act(g, dfx_bn(g, y, "norm", 1e-5f), DFX_ACT_RELU);
		v[i] = dfx_conv(g, y, "conv", piece_channels, DFX_CONV2D(3, 1, 1), false);
		dfx_pop(g, mark);
	}
	x = dfx_act(g, dfx_bn(g, dfx_concat(g, v, 4), "norm", 1e-5f), DFX_ACT_RELU);
	return dfx_pool(g, dfx_conv(g, x, "last", 32, DFX_CONV2D(1, 1, 0), false), (DfxPool){2, 2, 0, true});
}

/* The concat itself is the result, and so must be copied or placed under an output. */
static DfxVal
build_concat(DfxGraph *g, DfxVal x)
{
	DfxVal v[3] = {x, dfx_conv(g, x, "a", piece_channels, DFX_CONV2D(1, 1, 0), false), x};

	return dfx_concat(g, v, 3);
}

/* A residual that lies in the same buffer as the sum. */
static DfxVal
build_residual_concat(DfxGraph *g, DfxVal x)
{
	DfxVal v[2];

	v[0] = dfx_conv(g, x, "a", piece_channels, DFX_CONV2D(3, 1, 1), true);
	v[1] = dfx_add(g, dfx_conv(g, v[0], "b", piece_channels, DFX_CONV2D(1, 1, 0), true), v[0]);
	return dfx_conv(g, dfx_concat(g, v, 2), "c", 16, DFX_CONV2D(1, 1, 0), true);
}

/* ---- the rest ---- */

static DfxVal
build_bn(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, dfx_bn(g, x, "n", 1e-3f), DFX_ACT_RELU);
}

static DfxVal
build_act(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, conv_act);
}

static DfxVal
build_add_relu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, dfx_add(g, x, dfx_bn(g, x, "n", 1e-5f)), DFX_ACT_RELU);
}

static DfxVal
build_mul(DfxGraph *g, DfxVal x)
{
	return dfx_mul(g, x, dfx_bn(g, x, "n", 1e-5f));
}

/* Squeeze and excitation. */
static DfxVal
build_scale(DfxGraph *g, DfxVal x)
{
	DfxVal s = dfx_pool(g, x, (DfxPool){.avg = true});

	s = dfx_act(g, dfx_conv(g, s, "down", 8, DFX_CONV2D(1, 1, 0), true), DFX_ACT_SILU);
	return dfx_mul(g, x, dfx_act(g, dfx_conv(g, s, "up", 20, DFX_CONV2D(1, 1, 0), true), DFX_ACT_SIGMOID));
}

static int stack_width;

static DfxVal
build_stack(DfxGraph *g, DfxVal x)
{
	DfxVal v[5];

	for (int i = 0; i < stack_width; i++)
	{
		char name[16];

		snprintf(name, sizeof name, "%d", i);
		v[i] = dfx_linear(g, x, name, 37);
	}
	return dfx_conv1d(g, dfx_stack(g, v, stack_width), "c", 16, 3, 1, 1);
}

static DfxVal
build_take(DfxGraph *g, DfxVal x)
{
	return dfx_drop(g, dfx_take(g, x, 2), 0.5f);
}

static void
check_epilogues(void)
{
	static const char *const act_name[DFX_ACT_COUNT] = {"none", "relu", "silu", "gelu", "sigmoid"};

	for (int raw = 0; raw <= 1; raw++)
	{
		check("conv + bn + relu", 32, 13, 11, build_conv_bn_relu, !raw, 2, TOLERANCE_WINOGRAD);
		check("conv + relu + bn", 20, 13, 11, build_relu_bn, !raw, 2, TOLERANCE);
		check("residual blocks", 32, 12, 12, build_residual, !raw, 3, TOLERANCE_WINOGRAD);
		check("1-D head", 3, 1, 70, build_head, !raw, 3, TOLERANCE);
		check("squeeze and excitation", 20, 9, 7, build_scale, !raw, 3, TOLERANCE);
		for (conv_act = DFX_ACT_RELU; conv_act < DFX_ACT_COUNT; conv_act++)
		{
			char what[64];

			snprintf(what, sizeof what, "conv + %s", act_name[conv_act]);
			check(what, 20, 6, 5, build_conv_act, !raw, 2, TOLERANCE);
			check(act_name[conv_act], 20, 6, 5, build_act, !raw, 2, TOLERANCE);
		}
	}
}

static void
check_concats(void)
{
	static const int pieces[] = {16, 32, 48, 8, 10};

	for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
	{
		char what[64];

		piece_channels = pieces[i];
		for (int optimise = 0; optimise <= 1; optimise++)
			for (int n = 1; n <= 3; n += 2)
			{
				snprintf(what, sizeof what, "dense block of %d, %s", pieces[i],
				         optimise ? "optimised" : "raw");
				check(what, 24, 10, 10, build_dense, optimise, n, TOLERANCE_WINOGRAD);
				snprintf(what, sizeof what, "concat of 20 + %d + 20, %s", pieces[i],
				         optimise ? "optimised" : "raw");
				check(what, 20, 5, 7, build_concat, optimise, n, TOLERANCE);
				snprintf(what, sizeof what, "concat of %d and a sum with it, %s", pieces[i],
				         optimise ? "optimised" : "raw");
				check(what, 20, 5, 7, build_residual_concat, optimise, n, TOLERANCE_WINOGRAD);
			}
	}
}

static void
check_rest(void)
{
	static const int channels[] = {3, 16, 20, 24, 64};

	for (pool_case = 0; pool_case < POOL_CASES; pool_case++)
		for (size_t c = 0; c < sizeof channels / sizeof channels[0]; c++)
		{
			char what[64];

			pool_case_name(&pool_cases[pool_case], channels[c], what, sizeof what);
			check(what, channels[c], 11, 14, build_pool_case, false, 2, TOLERANCE);
		}
	for (size_t c = 0; c < sizeof channels / sizeof channels[0]; c++)
	{
		check("bn", channels[c], 5, 9, build_bn, false, 2, TOLERANCE);
		check("bn + relu", channels[c], 5, 9, build_bn, true, 2, TOLERANCE);
		check("add + relu", channels[c], 5, 9, build_add_relu, true, 2, TOLERANCE);
		check("mul", channels[c], 5, 9, build_mul, false, 2, TOLERANCE);
	}
	check("linear", 1024, 1, 1, build_linear, false, 5, TOLERANCE);
	check("linear over pixels", 24, 7, 1, build_linear, false, 2, TOLERANCE);
	for (stack_width = 2; stack_width <= 5; stack_width++)
		check("stack", 40, 1, 1, build_stack, false, 3, TOLERANCE);
	check("take", 20, 6, 1, build_take, false, 2, TOLERANCE);
	check("take, drop gone", 20, 6, 1, build_take, true, 2, TOLERANCE);
	piece_channels = 16;
	for (int n = 1; n <= 9; n++)
		check("residual blocks", 32, 8, 8, build_residual, true, n, TOLERANCE_WINOGRAD);
}

__attribute__((unused)) static void
check_image_ops(void)
{
	check_convs();
	check_epilogues();
	check_concats();
	check_rest();
}

#endif /* DFX_TESTS_IMAGE_CASES_H */
