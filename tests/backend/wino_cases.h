/*
 * wino_cases.h
 *	  Convolutions by Winograd's algorithm, for the tests of it: are they
 *	  chosen where they should be and only there, are their results the oracle's?
 */
#ifndef DFX_TESTS_WINO_CASES_H
#define DFX_TESTS_WINO_CASES_H

#include "cpu/cpu.h"
#include "tests/backend/against_ref.h"

/* Whether a step of the plan has an implementation whose name begins so. */
static bool
plan_has(const DfxPlan *plan, const char *impl)
{
	bool found = false;

	for (int i = 0; i < dfx_cpu_plan_steps(plan); i++)
	{
		const char *is = dfx_cpu_plan_impl(plan, i);

		found = found || (is && strncmp(is, impl, strlen(impl)) == 0);
	}
	return found;
}

/* The graph is complete but for its weights; true: it is optimised now, and ran. */
__attribute__((unused)) static bool
check_wino(const Subject *on, DfxGraph *g, const char *impl, bool wino, double tolerance, const char *what)
{
	DfxPlanOpts opts = {.max_batch = 4, .precision = on->precision};
	DfxPlan *plan = NULL;
	DfxErr err = {.msg = ""};
	bool pass = true;

	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 4, &err) != DFX_OK ||
	    dfx_graph_optimize(g, on->be->supports, on->dev, &err) != DFX_OK ||
	    on->be->compile(on->dev, g, &opts, &plan, &err) != DFX_OK)
		return ok(false, "%s: %s", what, err.msg);
	ok(plan_has(plan, impl) == wino, "%s: %s", what, wino ? "Winograd" : "the library");
	on->be->release(plan);
	for (int n = 1; n <= 3; n += 2)
		pass = same_as_ref(on, g, n, tolerance, what) && pass;
	return pass;
}

/* A micro-batch's bits are those of its images alone. */
__attribute__((unused)) static void
check_wino_alone(const Subject *on, const DfxGraph *g, const char *what)
{
	enum
	{
		IMAGES = 3
	};
	bool rgb8, same = true;
	size_t floats = graph_output_floats(g, 0), bytes = graph_input_bytes(g, &rgb8);
	char *in = noise_images(g, IMAGES, 5);
	float *all[DFX_MAX_OUT], *alone[DFX_MAX_OUT];
	DfxErr err = {0};
	DfxStatus st = run_graph(on, g, IMAGES, in, all, &err);

	for (size_t i = 0; i < IMAGES && st == DFX_OK; i++)
	{
		st = run_graph(on, g, 1, in + i * bytes, alone, &err);
		same = same && st == DFX_OK && memcmp(alone[0], all[0] + i * floats, floats * sizeof(float)) == 0;
		free_outputs(alone);
	}
	ok(st == DFX_OK && same, "%s: images alone give the bits that they give together", what);
	free_outputs(all);
	free(in);
}

#endif /* DFX_TESTS_WINO_CASES_H */
