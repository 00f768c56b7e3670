/*
 * token_cases.h
 *	  The operations of transformers: any number of tokens, heads and channels,
 *	  on and off the vector width, scores so large that a softmax must subtract
 *	  the largest.  A test sets the subject and calls check_token_ops().
 */
#ifndef DFX_TESTS_TOKEN_CASES_H
#define DFX_TESTS_TOKEN_CASES_H

#include "tests/backend/image_cases.h"

#define TOKEN_TOLERANCE 4e-6 /* fp32 sums of up to a thousand terms */

/* A network of tokens (c x t x 1), with random weights of which those called "gain" are multiplied by gain.
 */
static void
check_tokens(const char *what, int c, int t, Build f, float gain, bool optimise, int n)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	char text[128];
	DfxStatus st;

	snprintf(text, sizeof text, "%s: %d x %d%s", what, c, t, optimise ? ", optimised" : "");
	dfx_output(g, f(g, dfx_input_f32(g, c, t, 1)), "out");
	st = dfx_graph_finish(g, &err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, 23, &err);
	for (int i = 0; st == DFX_OK && i < g->nparam; i++)
		if (strstr(g->param[i].name, "gain.weight"))
			for (int k = 0; k < g->param[i].dim[0] * g->param[i].dim[1]; k++)
				g->param[i].data[k] *= gain;
	if (st == DFX_OK && optimise)
		st = dfx_graph_optimize(g, subject.be->supports, subject.dev, &err);
	if (st == DFX_OK)
		same_as_ref(&subject, g, n, TOKEN_TOLERANCE, text);
	else if (!ok(false, "%s", text))
		diag("%s", err.msg);
	dfx_graph_free(g);
}

/* ---- the operations ---- */

static int heads;

static DfxVal
build_layernorm(DfxGraph *g, DfxVal x)
{
	return dfx_layernorm(g, x, "ln", 1e-6f);
}

/* Channels far from 0: the variance is small next to the squares. */
static DfxVal
build_layernorm_far(DfxGraph *g, DfxVal x)
{
	return dfx_layernorm(g, dfx_linear(g, dfx_layernorm(g, x, "first", 1e-6f), "gain", 40), "ln", 1e-6f);
}

static DfxVal
build_attn(DfxGraph *g, DfxVal x)
{
	return dfx_attn(g, x, "attn", heads);
}

/* Scores of hundreds: nearly one-hot rows, and exponents far below what a float holds. */
static DfxVal
build_sharp(DfxGraph *g, DfxVal x)
{
	return dfx_attn(g, dfx_linear(g, x, "gain", 32), "attn", 2);
}

static DfxVal
build_tokens(DfxGraph *g, DfxVal x)
{
	return dfx_tokens(g, x, "cls", "pos");
}

static DfxVal
build_mlp(DfxGraph *g, DfxVal x)
{
	DfxVal y = dfx_act(g, dfx_linear(g, x, "0", 70), DFX_ACT_GELU);

	return dfx_add(g, dfx_linear(g, y, "3", 24), x);
}

/* A network from pixels to the class token, with a residual that two read. */
static DfxVal
build_encoder(DfxGraph *g, DfxVal x)
{
	DfxVal y;

	x = dfx_tokens(g, x, "cls", "pos");
	y = dfx_attn(g, dfx_layernorm(g, x, "ln_1", 1e-6f), "attn", heads);
	x = dfx_add(g, dfx_drop(g, y, 0.1f), x);
	y = dfx_act(g, dfx_linear(g, dfx_layernorm(g, x, "ln_2", 1e-6f), "a", 50), DFX_ACT_GELU);
	x = dfx_add(g, dfx_linear(g, y, "b", 36), x);
	return dfx_take(g, dfx_layernorm(g, x, "ln", 1e-6f), 0);
}

__attribute__((unused)) static void
check_token_ops(void)
{
	static const struct
	{
		int c, t, heads;
	} shape[] = {{64, 50, 4}, {64, 197, 1}, {48, 17, 3}, {36, 16, 3},
	             {20, 5, 4},  {21, 33, 7},  {8, 1, 2},   {7, 2, 1}};
	static const int channels[] = {1, 3, 7, 16, 20, 24, 40, 64, 100, 768};

	for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++)
		for (int n = 1; n <= 3; n += 2)
		{
			heads = shape[i].heads;
			check_tokens("attention", shape[i].c, shape[i].t, build_attn, 1, n == 3, n);
			check_tokens("tokens", shape[i].c, shape[i].t, build_tokens, 1, false, n);
		}
	for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++)
		check_tokens("layernorm", channels[i], 9, build_layernorm, 1, false, 2);
	/* What these two bring out is far below half precision. */
	if (subject.tolerance == 0)
	{
		check_tokens("layernorm of large values", 40, 9, build_layernorm_far, 1000, false, 2);
		check_tokens("attention with large scores", 32, 33, build_sharp, 20, false, 2);
	}
	heads = 3;
	for (int optimise = 0; optimise <= 1; optimise++)
		for (int n = 1; n <= 5; n += 2)
		{
			check_tokens("mlp", 24, 19, build_mlp, 1, optimise, n);
			check_tokens("encoder", 36, 10, build_encoder, 1, optimise, n);
		}
}

#endif /* DFX_TESTS_TOKEN_CASES_H */
