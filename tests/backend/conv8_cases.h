/*
 * conv8_cases.h
 *	  Convolutions on integers, for the tests of our own loops for them: are they taken where they
 *	  should be, with the oracle's sums, every epilogue and destination, and the same bits in
 *	  every batch?
 */
#ifndef DFX_TESTS_CONV8_CASES_H
#define DFX_TESTS_CONV8_CASES_H

#include "tests/backend/int8_cases.h"
#include "tests/backend/wino_cases.h"

#define TOLERANCE                                                                                            \
	5e-7 /* of the mean; 6e-8 was seen, and 1.4e-6 where a sum that fell on a tie was rounded to steps */
#define TIES 1e-5

typedef enum Conv8Next
{
	PLAIN = 0, /* the sums themselves */
	RELU,
	ADD_PLAIN,  /* with a residual in steps */
	STEPS,      /* rounded to steps for another convolution */
	ADD_FLOATS, /* and with a residual before that, in floats */
	ADD_STEPS   /* or in steps */
} Conv8Next;

typedef struct Conv8Case
{
	int ci, h, w, co;
	Conv8Next next;
	bool own;   /* whether it is one for our loops */
	bool large; /* all weights as large as they can be */
	int side;   /* of the kernel; 0: 3 */
	int stride; /* 0: 1 */
} Conv8Case;

static DfxVal
build_case(DfxGraph *g, const Conv8Case *k)
{
	const int side = k->side > 0 ? k->side : 3, stride = k->stride > 0 ? k->stride : 1;
	const DfxConv conv = {side, side, stride, stride, side / 2, side / 2}, one = {1, 1, 1, 1, 0, 0};
	DfxVal x = dfx_act(g, dfx_input_f32(g, k->ci, k->h, k->w), DFX_ACT_RELU);
	DfxVal y;

	x = dfx_pool(g, x, (DfxPool){.k = 3, .s = 1, .p = 1});
	y = dfx_conv(g, x, "conv", k->co, conv, true);
	if (k->next == ADD_FLOATS)
		y = dfx_add(g, y, dfx_conv(g, x, "side", k->co, (DfxConv){1, 1, stride, stride, 0, 0}, true));
	if (k->next == ADD_STEPS || k->next == ADD_PLAIN)
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
step_images(const Conv8Case *k)
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
check_conv8(const Conv8Case *k, const char *impl)
{
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = INT8_IMAGES, .precision = DFX_PRECISION_INT8};
	DfxPlan *plan = NULL;
	DfxErr err = {.msg = ""};
	float *got[DFX_MAX_OUT] = {0}, *want[DFX_MAX_OUT] = {0}, *in = step_images(k);
	char what[96];
	bool ran;

	snprintf(what, sizeof what, "%d to %d channels, %dx%d, stride %d, epilogue %d%s", k->ci, k->co, k->w,
	         k->h, k->stride > 0 ? k->stride : 1, k->next, k->large ? ", large weights" : "");
	dfx_output(g, build_case(g, k), "out");
	ran = in && dfx_graph_finish(g, &err) == DFX_OK && dfx_weights_random(g, 4, &err) == DFX_OK;
	if (ran && k->large)
		enlarge(g);
	ran = ran && dfx_graph_optimize(g, cpu.be->supports, cpu.dev, &err) == DFX_OK;
	for (int i = 0; i < g->nop; i++)
		if (g->op[i].kind == DFX_OP_CONV)
			g->op[i].in_step = strcmp(g->param[g->op[i].param[DFX_W]].name, "next.weight") == 0 ? 4 : 1;
	ran = ran && cpu.be->compile(cpu.dev, g, &opts, &plan, &err) == DFX_OK;
	if (!ok(ran && plan_has(plan, impl) == k->own, "%s: %s", what, k->own ? impl : "the library"))
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

#endif /* DFX_TESTS_CONV8_CASES_H */
