/*
 * test_cpu_mbconv.c
 *	  Do inverted residual blocks, fused (src/cpu/mbconv.c), give the oracle's
 *	  results, for kernels, strides and sizes of all sorts, in every batch alike;
 *	  and is what only looks like one left to the library?
 */
#include "cpu/kernels_mbconv.h"
#include "nn/families.h"
#include "tests/backend/cpu_precisions.h"
#include "tests/backend/cpu_steps.h"

#define TOLERANCE 2e-5

/* What differs from EfficientNet's block. */
typedef enum Oddity
{
	NONE = 0,
	STEM,       /* the block's input is a stem's output, and there is no expansion */
	NO_EXPAND,  /* the depthwise convolution reads the block's input */
	NO_GATE,    /* the squeeze and excitation is missing */
	SEEN_WIDE,  /* the expanded map is an output too */
	SEEN_GATED, /* the map times the gate is */
	RELU,       /* instead of SiLU */
	WIDE_7,     /* the depthwise kernel is 7 x 7 */
	UNPADDED,   /* it has no padding */
	DOUBLED     /* it makes two channels of one, and the library wants another layout */
} Oddity;

enum
{
	STEM_CHANNELS = 24
};

static const char *const oddity[] = {
    [NONE] = "",
    [STEM] = ", after a stem",
    [NO_EXPAND] = ", no expansion",
    [NO_GATE] = ", no gate",
    [SEEN_WIDE] = ", the expanded map seen",
    [SEEN_GATED] = ", the product with the gate seen",
    [RELU] = ", ReLU",
    [WIDE_7] = "",
    [UNPADDED] = ", unpadded",
    [DOUBLED] = ", channels doubled",
};

static const struct BlockCase
{
	int c, h, w;          /* into the block */
	int expand, k, s, co; /* the expansion's factor, the depthwise kernel and stride, channels out */
	Oddity odd;
	int spread, gated, act; /* steps of each kind, where the CPU has them */
} cases[] = {
    {16, 16, 16, 6, 3, 1, 16, NONE, 1, 1, 2},      {16, 32, 32, 6, 3, 2, 24, NONE, 1, 1, 2},
    {24, 17, 13, 6, 5, 2, 40, NONE, 1, 1, 2},      {40, 8, 8, 6, 5, 1, 40, NONE, 1, 1, 2},
    {24, 9, 31, 4, 3, 1, 24, NONE, 1, 1, 2},       {20, 7, 7, 3, 5, 2, 56, NONE, 1, 1, 2},
    {17, 5, 6, 3, 3, 2, 33, NONE, 1, 1, 2},        {48, 2, 3, 1, 5, 1, 48, NONE, 1, 1, 2},
    {48, 5, 4, 6, 3, 1, 48, NONE, 1, 1, 2},        {32, 1, 9, 2, 3, 1, 32, NONE, 1, 1, 2},
    {112, 8, 8, 6, 5, 2, 192, NONE, 1, 1, 2},      {32, 24, 24, 1, 3, 1, 16, NO_EXPAND, 1, 1, 2},
    {24, 11, 11, 1, 3, 2, 24, NO_EXPAND, 1, 1, 2}, {24, 11, 11, 1, 3, 1, 24, NO_EXPAND, 1, 1, 2},
    {3, 64, 64, 1, 3, 2, 16, STEM, 1, 1, 2},       {3, 37, 21, 1, 5, 2, 24, STEM, 1, 1, 2},
    {1, 22, 35, 1, 3, 2, 40, STEM, 1, 1, 2},       {3, 19, 40, 1, 3, 1, 24, STEM, 1, 1, 2},
    {24, 8, 8, 6, 3, 1, 24, NO_GATE, 0, 0, 1},     {24, 8, 8, 4, 3, 1, 24, SEEN_WIDE, 1, 1, 3},
    {24, 8, 8, 4, 3, 1, 24, SEEN_GATED, 1, 0, 2},  {24, 8, 8, 4, 3, 1, 24, RELU, 0, 1, 1},
    {24, 12, 12, 4, 7, 1, 24, WIDE_7, 0, 1, 3},    {24, 12, 12, 4, 3, 1, 24, UNPADDED, 0, 1, 3},
    {24, 12, 12, 4, 3, 1, 24, DOUBLED, 0, 0, 0},
};

static Subject on;
static const struct BlockCase *now; /* the case */
static bool fused;                  /* whether the CPU has the loops */

/* The gate's factors. */
static DfxVal
build_gate(DfxGraph *g, DfxVal x, DfxAct act)
{
	DfxVal s = dfx_pool(g, x, (DfxPool){.avg = true});

	s = dfx_act(g, dfx_conv(g, s, "fc1", 6, DFX_CONV2D(1, 1, 0), true), act);
	s = dfx_conv(g, s, "fc2", dfx_channels(g, x), DFX_CONV2D(1, 1, 0), true);
	return dfx_act(g, s, DFX_ACT_SIGMOID);
}

static void
build_block(DfxGraph *g)
{
	const DfxAct act = now->odd == RELU ? DFX_ACT_RELU : DFX_ACT_SILU;
	DfxConv depth = DFX_CONV2D(now->k, now->s, now->odd == UNPADDED ? 0 : now->k / 2);
	DfxVal x = dfx_input_f32(g, now->c, now->h, now->w), y;

	if (now->odd == STEM)
		x = dfx_act(g, dfx_conv(g, x, "stem", STEM_CHANNELS, DFX_CONV2D(3, 2, 1), true), act);
	y = x;
	if (now->odd != NO_EXPAND && now->odd != STEM)
	{
		y = dfx_act(g, dfx_conv(g, y, "expand", now->c * now->expand, DFX_CONV2D(1, 1, 0), true), act);
		if (now->odd == SEEN_WIDE)
			dfx_output(g, y, "wide");
	}
	depth.groups = dfx_channels(g, y);
	y = dfx_conv(g, y, "depth", dfx_channels(g, y) * (now->odd == DOUBLED ? 2 : 1), depth, false);
	y = dfx_act(g, dfx_bn(g, y, "bn", 1e-5f), act);
	if (now->odd != NO_GATE)
		y = dfx_mul(g, y, build_gate(g, y, act));
	if (now->odd == SEEN_GATED)
		dfx_output(g, y, "gated");
	y = dfx_conv(g, y, "project", now->co, DFX_CONV2D(1, 1, 0), true);
	if (now->s == 1 && now->co == dfx_channels(g, x) && now->odd != UNPADDED)
		y = dfx_add(g, y, x);
	dfx_output(g, y, "out");
}

static void
check_block(void)
{
	enum
	{
		IMAGES = 7 /* of one worker: four, two, one */
	};
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = IMAGES, .precision = on.precision};
	DfxPlan *plan = NULL;
	DfxErr err = {.msg = ""};
	char what[128];

	snprintf(what, sizeof what, "%d channels of %dx%d, times %d, %dx%d by %d, to %d%s", now->c, now->h,
	         now->w, now->expand, now->k, now->k, now->s, now->co, oddity[now->odd]);
	build_block(g);
	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 4, &err) != DFX_OK ||
	    dfx_graph_optimize(g, dfx_cpu_backend.supports, on.dev, &err) != DFX_OK ||
	    dfx_cpu_backend.compile(on.dev, g, &opts, &plan, &err) != DFX_OK)
		ok(false, "%s: %s", what, err.msg);
	else
	{
		int spread = count_steps(plan, "mbconv_spread"), gated = count_steps(plan, "mbconv_gated"),
		    act = count_steps(plan, "mbconv_act");

		if (!ok(spread == fused * now->spread && gated == fused * now->gated && act == fused * now->act,
		        "%s: the right steps are fused", what))
			diag("spread %d, gated %d, act %d", spread, gated, act);
		if (now->odd == STEM)
			ok(count_steps(plan, "mbconv_spread_stem") == (fused && now->s == 2),
			   "%s: so is the stem, if nobody else reads it", what);
		ok(same_alone(plan, g, IMAGES, &err), "%s: the same bits alone", what);
		for (int n = 1; n <= IMAGES; n += 3)
			same_as_ref(&on, g, n, TOLERANCE, what);
	}
	dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
}

/* SiLU and the sigmoid over the whole range of floats, as an image of so many pixels and one channel. */
static void
check_act(DfxAct act)
{
	enum
	{
		N = 4096
	};
	static float src[N * CPU_MB_BLOCK], dst[N * CPU_MB_BLOCK], bias[CPU_MB_BLOCK],
	    weights[CPU_MB_BLOCK] = {1};
	const CpuMbProject g = {.ci = 1, .npix = N, .act = act};
	double worst = 0;
	bool silu = act == DFX_ACT_SILU, odd;

	for (int i = 0; i < N; i++)
		src[i * CPU_MB_BLOCK] = (float) ((i - N / 2) * 0.05);
	src[0] = INFINITY;
	src[CPU_MB_BLOCK] = -3e38f;
	src[2 * CPU_MB_BLOCK] = NAN;
	src[3 * CPU_MB_BLOCK] = 3e38f;
	cpu_mb_kernels()->project(dst, NULL, src, &g, 1, weights, bias);
	for (int i = 4; i < N; i++)
	{
		double x = (double) src[i * CPU_MB_BLOCK], want = (silu ? x : 1) / (1 + exp(-x));

		worst = fmax(worst, fabs((double) dst[i * CPU_MB_BLOCK] - want) / fmax(fabs(want), 1e-30));
	}
	odd = dst[0] == (silu ? INFINITY : 1) && dst[CPU_MB_BLOCK] == 0 && isnan(dst[2 * CPU_MB_BLOCK]) &&
	      dst[3 * CPU_MB_BLOCK] == (silu ? 3e38f : 1);
	if (!ok(worst < 1e-5 && odd, "%s is precise everywhere", silu ? "SiLU" : "the sigmoid"))
		diag("relative error %g; %g %g %g %g", worst, (double) dst[0], (double) dst[CPU_MB_BLOCK],
		     (double) dst[2 * CPU_MB_BLOCK], (double) dst[3 * CPU_MB_BLOCK]);
}

static void
check_blocks(void)
{
	DfxDevInfo info;

	dfx_cpu_backend.info(on.dev, &info);
	fused = strstr(info.name, "(avx512") != NULL;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
	{
		now = &cases[i];
		check_block();
	}
	if (!fused || on.precision != DFX_PRECISION_FP32)
		return;
	check_act(DFX_ACT_SILU);
	check_act(DFX_ACT_SIGMOID);
}

int
main(void)
{
	for_cpu_precisions(&on, 1, check_blocks);
	return done_testing();
}
