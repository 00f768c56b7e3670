/*
 * test_cpu_stem.c
 *	  Do first convolutions by Winograd's algorithm (src/cpu/stem.c) give the
 *	  oracle's result in both layouts, at every size modulo their tiles; the same bits
 *	  in every batch; does what is no number stay none; and are convolutions that only
 *	  resemble them left to the library?
 */
#include "tests/backend/cpu_precisions.h"
#include "tests/backend/wino_cases.h"

#define TOLERANCE      1e-5 /* 6e-7 was seen */
#define TOLERANCE_BF16 1e-2 /* inputs and outputs are rounded; 4e-3 was seen */

typedef struct StemCase
{
	int ci, h, w, co;
	DfxConv a;
	bool bias, relu, bn;
	bool nhwc; /* a network with groups of 1x1, whose values have no blocks */
	bool stem; /* whether it is one for it */
} StemCase;

#define SEVEN                                                                                                \
	{                                                                                                        \
		7, 7, 2, 2, 3, 3                                                                                     \
	}

static const StemCase cases[] = {
    {3, 64, 64, 64, SEVEN, true, true, false, false, true},
    {3, 64, 64, 64, SEVEN, true, true, false, true, true},
    {3, 40, 33, 96, SEVEN, false, false, false, false, true}, /* tiles that end beyond the image */
    {3, 41, 74, 32, SEVEN, true, true, false, true, true},    /* nine and more tiles in a row */
    {3, 19, 86, 64, SEVEN, false, true, false, false, true},
    {3, 9, 10, 32, SEVEN, true, false, false, true, true},
    {3, 5, 3, 64, SEVEN, true, false, false, false, true}, /* smaller than the kernel */
    {3, 32, 32, 48, SEVEN, true, true, false, false, false},
    {3, 32, 32, 32, SEVEN, true, true, true, false, false}, /* something after the ReLU */
    {3, 32, 32, 32, {7, 7, 1, 1, 3, 3}, true, true, false, false, false},
    {3, 32, 32, 32, {7, 7, 2, 2, 2, 3}, true, true, false, false, false},
    {3, 32, 32, 32, {5, 5, 2, 2, 2, 2}, true, true, false, false, false},
    {16, 32, 32, 32, SEVEN, true, true, false, false, false},
};

static void
check_case(const Subject *on, const StemCase *k, bool chosen)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_conv(g, dfx_input_f32(g, k->ci, k->h, k->w), "conv", k->co, k->a, k->bias);
	char what[128];

	if (k->relu)
		x = dfx_act(g, x, DFX_ACT_RELU);
	if (k->bn)
		x = dfx_bn(g, x, "bn", 1e-5f);
	dfx_output(g, x, "out");
	if (k->nhwc)
		dfx_output(g, dfx_conv(g, x, "groups", k->co, (DfxConv){1, 1, 1, 1, 0, 0, 8}, true), "groups");
	snprintf(what, sizeof what, "%d to %d channels, %d x %d, %dx%d stride %d padded by %d%s%s%s%s", k->ci,
	         k->co, k->h, k->w, k->a.kh, k->a.kw, k->a.sh, k->a.ph, k->bias ? ", bias" : "",
	         k->relu ? ", ReLU" : "", k->bn ? ", BatchNorm" : "", k->nhwc ? ", nhwc" : "");
	if (check_wino(on, g, "wino_stem:", k->stem && chosen,
	               on->precision == DFX_PRECISION_BF16 ? TOLERANCE_BF16 : TOLERANCE, what))
		check_wino_alone(on, g, what);
	dfx_graph_free(g);
}

/* A pixel that is no number makes none of what depends on it, whatever is done with it on the way. */
static void
check_nan(const Subject *on, bool relu)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_conv(g, dfx_input_f32(g, 3, 16, 16), "conv", 32, (DfxConv) SEVEN, true);
	float *in, *out[DFX_MAX_OUT] = {NULL};
	DfxErr err = {.msg = ""};

	dfx_output(g, relu ? dfx_act(g, x, DFX_ACT_RELU) : x, "out");
	if (!ok(dfx_graph_finish(g, &err) == DFX_OK && dfx_weights_random(g, 4, &err) == DFX_OK &&
	            dfx_graph_optimize(g, on->be->supports, on->dev, &err) == DFX_OK,
	        "a graph: %s", err.msg))
		return;
	in = (float *) (void *) noise_images(g, 1, 5);
	in[0] = NAN;
	ok(run_graph(on, g, 1, (char *) in, out, &err) == DFX_OK && isnan(out[0][0]) &&
	       isfinite(out[0][7 * 8 + 7]),
	   "what is no number stays none and in its place%s%s", relu ? ", ReLU" : "",
	   on->precision == DFX_PRECISION_BF16 ? ", bf16" : "");
	free_outputs(out);
	free(in);
	dfx_graph_free(g);
}

int
main(void)
{
	DfxDevOpts opts = {.threads = 2};
	DfxDevInfo info;
	DfxErr err = {.msg = ""};
	Subject on = {.be = &dfx_cpu_backend};

	if (!ok(dfx_cpu_backend.open(&opts, &on.dev, &err) == DFX_OK, "a device opens"))
		return done_testing();
	dfx_cpu_backend.info(on.dev, &info);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
	{
		on.precision = DFX_PRECISION_FP32;
		check_case(&on, &cases[i], strstr(info.name, "(avx512") != NULL);
		on.precision = DFX_PRECISION_BF16;
		if (info.precision[DFX_PRECISION_BF16])
			check_case(&on, &cases[i],
			           strstr(info.name, "(avx512_core_bf16)") != NULL); /* not where AMX is */
	}
	for (int i = 0; i < 2; i++)
	{
		on.precision = DFX_PRECISION_FP32;
		check_nan(&on, i);
		on.precision = DFX_PRECISION_BF16;
		if (info.precision[DFX_PRECISION_BF16])
			check_nan(&on, i);
	}
	if (!info.precision[DFX_PRECISION_BF16])
		check_cpu_lacks(on.dev, DFX_PRECISION_BF16);
	dfx_cpu_backend.close(on.dev);
	return done_testing();
}
