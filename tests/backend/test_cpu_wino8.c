/*
 * test_cpu_wino8.c
 *	  Do 3x3 convolutions on integers by Winograd's algorithm (src/cpu/wino8.c)
 *	  give the oracle's sums, at every size modulo its tile, with every epilogue
 *	  and destination, however large the numbers; and are those that could leave
 *	  32 bits, or are not for it, left to the library?
 *
 * The library is told that the CPU has no bf16, so that all else is in fp32.
 */
#include "cpu/kernels_wino8.h"
#include "tests/backend/int8_cases.h"
#include "tests/backend/wino_cases.h"

#define TOLERANCE                                                                                            \
	5e-7 /* of the mean; 6e-8 was seen, and 1.4e-6 where a sum that fell on a tie was rounded to steps */
#define TIES 1e-5

typedef enum WinoNext
{
	PLAIN = 0, /* the sums themselves */
	RELU,
	STEPS,      /* rounded to steps for another convolution */
	ADD_FLOATS, /* and with a residual before that, in floats */
	ADD_STEPS   /* or in steps */
} WinoNext;

typedef struct WinoCase
{
	int ci, h, w, co;
	WinoNext next;
	bool wino;  /* whether it is one for it */
	bool large; /* all weights as large as they can be */
} WinoCase;

static const WinoCase cases[] = {
    {32, 12, 12, 16, PLAIN, true},       {32, 13, 15, 32, RELU, true},
    {64, 14, 17, 48, STEPS, true},       {64, 15, 13, 64, ADD_FLOATS, true},
    {64, 17, 18, 64, ADD_STEPS, true},   {256, 16, 16, 32, STEPS, true},
    {32, 40, 40, 32, ADD_STEPS, true},                                          /* many blocks */
    {64, 16, 16, 32, PLAIN, true, true}, {128, 16, 16, 32, PLAIN, false, true}, /* sums that might not fit */
    {288, 12, 12, 16, PLAIN, false},                                            /* too many channels */
    {48, 16, 16, 32, PLAIN, false},                                             /* off the block */
    {32, 16, 16, 24, PLAIN, false},      {32, 11, 16, 32, PLAIN, false},        /* small */
};

static DfxVal
build_case(DfxGraph *g, const WinoCase *k)
{
	const DfxConv three = {3, 3, 1, 1, 1, 1}, one = {1, 1, 1, 1, 0, 0};
	DfxVal x = dfx_act(g, dfx_input_f32(g, k->ci, k->h, k->w), DFX_ACT_RELU);
	DfxVal y;

	x = dfx_pool(g, x, (DfxPool){.k = 3, .s = 1, .p = 1});
	y = dfx_conv(g, x, "conv", k->co, three, true);
	if (k->next == ADD_FLOATS)
		y = dfx_add(g, y, dfx_conv(g, x, "side", k->co, one, true));
	if (k->next == ADD_STEPS)
		y = dfx_add(g, y, x);
	if (k->next != PLAIN)
		y = dfx_act(g, y, DFX_ACT_RELU);
	if (k->next >= STEPS)
		y = dfx_conv(g, y, "next", 16, one, true);
	return y;
}

/* All weights of conv the same: the largest steps there are. */
static void
enlarge(DfxGraph *g)
{
	for (int i = 0; i < g->nparam; i++)
		if (strcmp(g->param[i].name, "conv.weight") == 0)
			for (size_t j = 0; j < dfx_param_count(&g->param[i]); j++)
				g->param[i].data[j] = 1;
}

/* Inputs are whole steps, many of them 0 and 255, so that rounding to them leaves nothing to chance. */
static float *
step_images(const WinoCase *k)
{
	size_t n = INT8_IMAGES * (size_t) (k->ci * k->h * k->w);
	float *in = malloc(n * sizeof *in);
	uint32_t seed = 9;

	for (size_t i = 0; in && i < n; i++)
	{
		float x = noise(&seed);

		in[i] = x < -0.3f ? 0 : x > 0.3f ? 255 : rintf((x + 0.3f) * 400);
	}
	return in;
}

static void
check_case(const WinoCase *k)
{
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = INT8_IMAGES, .precision = DFX_PRECISION_INT8};
	DfxPlan *plan = NULL;
	DfxErr err = {.msg = ""};
	float *got[DFX_MAX_OUT] = {0}, *want[DFX_MAX_OUT] = {0}, *in = step_images(k);
	char what[96];
	bool ran;

	snprintf(what, sizeof what, "%d to %d channels, %dx%d, epilogue %d%s", k->ci, k->co, k->w, k->h, k->next,
	         k->large ? ", large weights" : "");
	dfx_output(g, build_case(g, k), "out");
	ran = in && dfx_graph_finish(g, &err) == DFX_OK && dfx_weights_random(g, 4, &err) == DFX_OK;
	if (ran && k->large)
		enlarge(g);
	ran = ran && dfx_graph_optimize(g, cpu.be->supports, cpu.dev, &err) == DFX_OK;
	for (int i = 0; i < g->nop; i++)
		if (g->op[i].kind == DFX_OP_CONV)
			g->op[i].in_step = strcmp(g->param[g->op[i].param[DFX_W]].name, "next.weight") == 0 ? 4 : 1;
	ran = ran && cpu.be->compile(cpu.dev, g, &opts, &plan, &err) == DFX_OK;
	if (!ok(ran && plan_has(plan, "wino_4x3:") == k->wino, "%s: %s", what,
	        k->wino ? "Winograd" : "the library"))
		diag("%s", err.msg);
	cpu.be->release(plan);
	ran = ran && run_graph(&cpu, g, INT8_IMAGES, in, got, &err) == DFX_OK &&
	      run_graph(&oracle, g, INT8_IMAGES, in, want, &err) == DFX_OK;
	if (ran)
	{
		double error = mean_error(got[0], want[0], INT8_IMAGES * graph_output_floats(g, 0));

		if (!ok(error <= (k->next >= STEPS ? TIES : TOLERANCE), "%s: the oracle's result", what))
			diag("error %g", error);
		check_alone(g, in, what);
	}
	else
		ok(false, "%s: %s", what, err.msg);
	free_outputs(got);
	free_outputs(want);
	free(in);
	dfx_graph_free(g);
}

/* What is stored as bf16 or in steps is what is stored as floats, rounded; pixels beyond the image are let
 * be. */
static void
check_join(const CpuWino8Kernels *k)
{
	enum
	{
		CO = 32,
		H = 6,
		W = 7,
		N = H * W * CO
	};
	static int32_t sums[CPU_WINO8_POINTS * CO + CPU_WINO8_LANES];
	static float bias[CO], scale[CO], floats[N];
	static uint16_t halves[N], rounded[N];
	static uint8_t steps[N];
	const CpuWino8Tile tile = {4, 4, H, W};
	CpuWino8Epilogue epi = {.scale = scale, .bias = bias, .type = CPU_F32, .relu = true};
	uint32_t seed = 5;
	int wrong = 0;

	for (int i = 0; i < CPU_WINO8_POINTS * CO; i++)
		sums[i] = (int32_t) (1e6f * noise(&seed));
	for (int i = 0; i < CO; i++)
	{
		bias[i] = noise(&seed);
		scale[i] = 1e-6f;
	}
	for (int i = 0; i < N; i++)
	{
		floats[i] = -1;
		halves[i] = 0xbf80; /* the same */
		steps[i] = 77;
	}
	k->join(floats, sums, CO, CO, &tile, &epi);
	epi.type = CPU_BF16;
	k->join(halves, sums, CO, CO, &tile, &epi);
	epi.type = CPU_U8;
	epi.steps = 10;
	k->join(steps, sums, CO, CO, &tile, &epi);
	dfx_tensor_of_f32(DFX_BF16, floats, N, rounded);
	for (int i = 0; i < N; i++)
	{
		int y = i / CO / W, x = i / CO % W;
		bool inside = y >= 4 && x >= 4;

		wrong += inside ? floats[i] < 0 || steps[i] != (uint8_t) fminf(rintf(floats[i] * 10), 255)
		                : floats[i] >= 0 || steps[i] != 77;
	}
	ok(wrong == 0 && memcmp(halves, rounded, sizeof halves) == 0, "a tile at an edge, in all three types");
}

int
main(void)
{
	setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI", 1);
	if (!int8_open() || cpu_wino8_kernels() == NULL)
	{
		diag("this CPU leaves all to the library");
		int8_close();
		return done_testing();
	}
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_case(&cases[i]);
	check_join(cpu_wino8_kernels());
	int8_close();
	return done_testing();
}
