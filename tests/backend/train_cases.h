/*
 * train_cases.h
 *	  Every op's gradients in the shapes that matter to any backend: strides,
 *	  groups, channel counts off the vector width, odd sizes, batches smaller
 *	  than the plan's; and chains of ops whose values need not be stored.  A test
 *	  sets the subject and what it is allowed in half precision, and calls
 *	  check_train_ops().
 */
#ifndef DFX_TESTS_TRAIN_CASES_H
#define DFX_TESTS_TRAIN_CASES_H

#include "tests/backend/conv_cases.h"
#include "tests/backend/train_subject.h"

static Subject subject;

/* What decides in half precision what gets a gradient; how near that is to the oracle's depends on it. */
typedef enum HalfCase
{
	HALF_GIVEN,   /* nothing, or numbers as they came in */
	HALF_RELU,    /* ReLUs of rounded values: some let pass what others hold back */
	HALF_MAX,     /* the maxima of windows of a BN's output, if the backend rounds that */
	HALF_LARGEST, /* the largest of a whole image, of which rounding makes several */
	HALF_ZERO,    /* gradients are mostly rounding */
	HALF_CASES
} HalfCase;

/* What the backend is allowed in each case; 0: it is not compared. */
static const double *half_tolerance;

/* What it is allowed in fp32, or in half precision. */
typedef struct CaseTolerance
{
	double out, grad;
	HalfCase half;
} CaseTolerance;

#define TOLERANCE          ((CaseTolerance){4e-6, 8e-6, HALF_GIVEN})
#define TOLERANCE_WINOGRAD ((CaseTolerance){4e-5, 1e-4, HALF_GIVEN})
#define TOLERANCE_RELU     ((CaseTolerance){4e-6, 8e-6, HALF_RELU})
#define TOLERANCE_BLOCK    ((CaseTolerance){4e-5, 1e-4, HALF_RELU})
#define TOLERANCE_MAX      ((CaseTolerance){4e-6, 8e-6, HALF_MAX})
#define TOLERANCE_LARGEST  ((CaseTolerance){4e-6, 8e-6, HALF_LARGEST})

/* Gradients through a second BN are zero but for its epsilon. */
#define TOLERANCE_ZERO ((CaseTolerance){4e-6, 2e-3, HALF_ZERO})

/* Batches of n images in plans for max; a test may begin further back, with fewer. */
static const struct
{
	int n, max;
} batches[] = {{1, 1}, {3, 3}, {2, 5}};
static size_t first_batch;

/* One case in all batches; in half precision, with weights that it can hold. */
static void
check(const char *what, int c, int h, int w, Build f, CaseTolerance t)
{
	TrainTolerance allowed = {t.out, t.grad};

	if (subject.precision != DFX_PRECISION_FP32)
		allowed.out = allowed.grad = half_tolerance[t.half];
	for (size_t i = first_batch; allowed.out > 0 && i < sizeof batches / sizeof batches[0]; i++)
	{
		DfxGraph *g = dfx_graph_new();
		DfxErr err = {0};
		DfxStatus st = build_case(g, f, c, h, w, &err);

		if (st == DFX_OK && subject.precision == DFX_PRECISION_BF16)
			st = dfx_weights_round(g, DFX_BF16, &err);
		if (st == DFX_OK)
			trains_as_ref(&subject, g, batches[i].max, batches[i].n, allowed, what);
		else if (!ok(false, "%s", what))
			diag("%s", err.msg);
		dfx_graph_free(g);
	}
}

static DfxVal
conv(DfxGraph *g, DfxVal x, const char *name, int cout)
{
	return dfx_conv(g, x, name, cout, DFX_CONV2D(3, 1, 1), true);
}

static DfxVal
norm(DfxGraph *g, DfxVal x, const char *name)
{
	return dfx_bn(g, x, name, 1e-5f);
}

static DfxVal
relu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_RELU);
}

/* ---- convolutions, alone and after what a source can be ---- */

static DfxVal
build_norm_conv(DfxGraph *g, DfxVal x)
{
	return build_conv_case(g, relu(g, norm(g, x, "norm")));
}

static void
check_convs(void)
{
	for (conv_case = 0; conv_case < CONV_CASES; conv_case++)
	{
		const ConvCase *k = &conv_cases[conv_case];
		bool winograd = k->a.kh == 3 && k->a.sh == 1;
		char what[96], after[120];

		conv_case_name(k, what, sizeof what);
		check(what, k->ci, k->h, k->w, build_conv_case, winograd ? TOLERANCE_WINOGRAD : TOLERANCE);
		snprintf(after, sizeof after, "bn, relu, %s", what);
		if (k->h * k->w > 1)
			check(after, k->ci, k->h, k->w, build_norm_conv, TOLERANCE_WINOGRAD);
	}
}

/* ---- elementwise and pooling ---- */

static DfxAct act_case;

static DfxVal
build_norm_pool(DfxGraph *g, DfxVal x)
{
	return build_pool_case(g, relu(g, norm(g, x, "norm")));
}

static DfxVal
build_act(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, act_case);
}

static DfxVal
build_norm_act(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, norm(g, x, "norm"), act_case);
}

static DfxVal
build_act_act(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, dfx_act(g, dfx_conv(g, x, "c", 20, DFX_CONV2D(1, 1, 0), true), act_case), act_case);
}

static DfxVal
build_norm(DfxGraph *g, DfxVal x)
{
	return norm(g, x, "norm");
}

static DfxVal
build_norm_norm(DfxGraph *g, DfxVal x)
{
	return norm(g, norm(g, x, "a"), "b");
}

static DfxVal
build_conv_relu_norm(DfxGraph *g, DfxVal x)
{
	return norm(g, relu(g, dfx_conv(g, x, "c", 20, DFX_CONV2D(1, 1, 0), true)), "norm");
}

static DfxVal
build_add(DfxGraph *g, DfxVal x)
{
	return relu(g, dfx_add(g, norm(g, dfx_conv(g, x, "c", 24, DFX_CONV2D(1, 1, 0), false), "a"),
	                       norm(g, dfx_conv(g, x, "d", 24, DFX_CONV2D(1, 1, 0), false), "b")));
}

static DfxVal
build_mul(DfxGraph *g, DfxVal x)
{
	return dfx_mul(g, norm(g, x, "norm"), dfx_act(g, x, DFX_ACT_SIGMOID));
}

/* Squeeze and excitation. */
static DfxVal
build_gate(DfxGraph *g, DfxVal x)
{
	DfxVal y = dfx_act(g, norm(g, x, "norm"), DFX_ACT_SILU), s;

	s = dfx_conv(g, dfx_pool(g, y, (DfxPool){.avg = true}), "a", 6, DFX_CONV2D(1, 1, 0), true);
	s = dfx_conv(g, dfx_act(g, s, DFX_ACT_SILU), "b", g->val[x].c, DFX_CONV2D(1, 1, 0), true);
	return dfx_mul(g, y, dfx_act(g, s, DFX_ACT_SIGMOID));
}

static DfxVal
build_drop(DfxGraph *g, DfxVal x)
{
	return dfx_add(g, dfx_drop_path(g, norm(g, x, "norm"), 0.4f), dfx_drop(g, x, 0.3f));
}

static void
check_elementwise(void)
{
	static const int channels[] = {3, 16, 20, 24, 64};
	static const char *const act[] = {"", "relu", "silu", "gelu", "sigmoid"};

	for (size_t k = 0; k < sizeof channels / sizeof channels[0]; k++)
	{
		int c = channels[k];
		char what[64];

		for (pool_case = 0; pool_case < POOL_CASES; pool_case++)
		{
			const DfxPool *p = &pool_cases[pool_case];

			pool_case_name(p, c, what, sizeof what);
			check(what, c, 11, 14, build_pool_case, TOLERANCE);
			check(what, c, 11, 14, build_norm_pool,
			      p->avg     ? TOLERANCE
			      : p->k > 0 ? TOLERANCE_MAX
			                 : TOLERANCE_LARGEST);
		}
		for (act_case = DFX_ACT_RELU; act_case < DFX_ACT_COUNT; act_case++)
		{
			snprintf(what, sizeof what, "%s of %d", act[act_case], c);
			check(what, c, 5, 9, build_act, TOLERANCE);
			check(what, c, 5, 9, build_norm_act, TOLERANCE);
			check(what, c, 5, 9, build_act_act, TOLERANCE);
		}
		snprintf(what, sizeof what, "of %d channels", c);
		check(what, c, 5, 9, build_norm, TOLERANCE);
		check(what, c, 5, 9, build_norm_norm, TOLERANCE_ZERO);
		check(what, c, 5, 9, build_conv_relu_norm, TOLERANCE);
		check(what, c, 5, 9, build_add, TOLERANCE_RELU);
		check(what, c, 5, 9, build_mul, TOLERANCE);
		check(what, c, 5, 9, build_gate, TOLERANCE);
		check(what, c, 5, 9, build_drop, TOLERANCE);
	}
}

/* ---- concatenations ---- */

static int piece_case;

/* A dense block; its last concat is read by a BN and, as it is, by the output. */
static DfxVal
build_dense(DfxGraph *g, DfxVal x)
{
	DfxVal piece[4] = {x}, all = x;

	for (int i = 0; i < 3; i++)
	{
		int mark = dfx_push(g, "%d", i);

		piece[i + 1] = conv(g, relu(g, norm(g, all, "norm")), "conv", piece_case);
		all = dfx_concat(g, piece, i + 2);
		dfx_pop(g, mark);
	}
	dfx_output(g, all, "concat");
	return dfx_pool(g, norm(g, all, "last"), (DfxPool){.avg = true});
}

/* Pieces that are not stored by themselves, one of them twice. */
static DfxVal
build_concat(DfxGraph *g, DfxVal x)
{
	DfxVal y = dfx_act(g, norm(g, x, "norm"), DFX_ACT_SILU), piece[4] = {y, x, y, relu(g, x)};

	return conv(g, dfx_concat(g, piece, 4), "conv", piece_case);
}

static void
check_concats(void)
{
	static const int pieces[] = {16, 32, 8, 10};

	for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
	{
		char what[64];

		piece_case = pieces[i];
		snprintf(what, sizeof what, "dense block of %d", piece_case);
		check(what, 24, 10, 10, build_dense, TOLERANCE_BLOCK);
		snprintf(what, sizeof what, "concat to %d", piece_case);
		check(what, 20, 5, 7, build_concat, TOLERANCE_WINOGRAD);
	}
}

/* ---- vectors and tokens ---- */

static DfxVal
build_linear(DfxGraph *g, DfxVal x)
{
	return dfx_linear(g, relu(g, dfx_linear(g, x, "a", 70)), "b", 3);
}

static DfxVal
build_head(DfxGraph *g, DfxVal x)
{
	x = norm(g, relu(g, dfx_conv1d(g, x, "a", 16, 7, 1, 1)), "n");
	x = dfx_conv1d(g, x, "b", 64, 5, 2, 1);
	return dfx_conv1d(g, relu(g, x), "c", 40, 3, 1, 1);
}

static DfxVal
build_stack(DfxGraph *g, DfxVal x)
{
	DfxVal part[3];

	for (int i = 0; i < 3; i++)
	{
		int mark = dfx_push(g, "%d", i);

		part[i] = dfx_pool(g, conv(g, x, "conv", 37), (DfxPool){.avg = true});
		dfx_pop(g, mark);
	}
	return dfx_conv1d(g, dfx_stack(g, part, 3), "head", 16, 7, 1, 1);
}

static int heads_case;

static DfxVal
build_layer(DfxGraph *g, DfxVal x)
{
	DfxVal y = dfx_attn(g, dfx_layernorm(g, x, "ln_1", 1e-6f), "attention", heads_case);

	x = dfx_add(g, dfx_take(g, y, 0), dfx_take(g, x, 2));
	y = dfx_act(g, dfx_linear(g, dfx_layernorm(g, x, "ln_2", 1e-6f), "a", 50), DFX_ACT_GELU);
	return dfx_add(g, dfx_linear(g, y, "b", g->val[x].c), x);
}

static DfxVal
build_tokens(DfxGraph *g, DfxVal x)
{
	x = dfx_tokens(g, dfx_conv(g, x, "patches", 40, DFX_CONV2D(4, 4, 0), true), "class", "position");
	return dfx_attn(g, x, "attention", heads_case);
}

static void
check_vectors(void)
{
	static const struct
	{
		int c, heads, tokens;
	} layers[] = {{64, 2, 17}, {36, 3, 5}, {48, 1, 33}, {40, 5, 16}, {768, 12, 9}};

	check("linear layers", 1024, 1, 1, build_linear, TOLERANCE);
	check("linear layers over pixels", 24, 7, 1, build_linear, TOLERANCE);
	check("head", 3, 1, 61, build_head, TOLERANCE_RELU);
	check("stack", 20, 4, 4, build_stack, TOLERANCE_WINOGRAD);
	for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++)
	{
		char what[64];

		heads_case = layers[i].heads;
		snprintf(what, sizeof what, "encoder layer of %d, %d heads, %d tokens", layers[i].c, layers[i].heads,
		         layers[i].tokens);
		check(what, layers[i].c, layers[i].tokens, 1, build_layer, TOLERANCE_WINOGRAD);
	}
	heads_case = 4;
	check("tokens", 3, 12, 16, build_tokens, TOLERANCE_WINOGRAD);
}

/* All of them. */
static void
check_train_ops(void)
{
	check_convs();
	check_elementwise();
	check_concats();
	check_vectors();
}

#endif /* DFX_TESTS_TRAIN_CASES_H */
