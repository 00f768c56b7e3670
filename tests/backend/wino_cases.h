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

#endif /* DFX_TESTS_WINO_CASES_H */
