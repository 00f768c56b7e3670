/*
 * test_cpu_ops.c
 *	  Does every op give the oracle's result on the CPU backend, in every
 *	  precision that it offers, and is what it cannot do refused by name?
 */
#include "tests/backend/cpu_precisions.h"
#include "tests/backend/image_cases.h"
#include "tests/unit/supports_all.h"

static DfxVal
build_add_silu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, dfx_add(g, x, x), DFX_ACT_SILU);
}

static DfxVal
build_bn_gelu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, dfx_bn(g, x, "n", 1e-5f), DFX_ACT_GELU);
}

/* A graph optimised for a backend with more epilogues than this one has. */
static void
check_refused(const char *op, Build f)
{
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = 1, .precision = subject.precision};
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	DfxStatus st;

	dfx_output(g, f(g, dfx_input_f32(g, 16, 5, 1)), "out");
	st = dfx_graph_finish(g, &err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, 1, &err);
	if (st == DFX_OK)
		st = dfx_graph_optimize(g, supports_all, NULL, &err);
	if (!ok(st == DFX_OK, "%s builds", op))
		diag("%s", err.msg);
	st = dfx_cpu_backend.compile(subject.dev, g, &opts, &plan, &err);
	ok(st == DFX_EUNSUPPORTED && plan == NULL, "%s is refused", op);
	if (!ok(strstr(err.msg, op) != NULL, "the message names %s", op))
		diag("%s", err.msg);
	dfx_graph_free(g);
}

static void
check_all(void)
{
	char what[64];

	check_image_ops();
	snprintf(what, sizeof what, "add in %s with its epilogue", dfx_precision_name[subject.precision]);
	check_refused(what, build_add_silu);
	snprintf(what, sizeof what, "affine in %s with its epilogue", dfx_precision_name[subject.precision]);
	check_refused(what, build_bn_gelu);
}

int
main(void)
{
	for_cpu_precisions(&subject, 2, check_all);
	return done_testing();
}
