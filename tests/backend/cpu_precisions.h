/*
 * cpu_precisions.h
 *	  A test of the CPU backend once for each precision that it has on this CPU.
 *	  Half of them may be missing: then their refusal is what is tested.
 */
#ifndef DFX_TESTS_CPU_PRECISIONS_H
#define DFX_TESTS_CPU_PRECISIONS_H

#include "cpu/cpu.h"
#include "tests/backend/against_ref.h"
#include "tests/unit/train_net.h"

/* bf16 has 8 bits: 2^-9 for each rounding, and some roundings one after the other. */
#define BF16_TOLERANCE 2e-2

/* A network of one op in a precision that the CPU lacks is refused, and the message says what is missing. */
static void
check_cpu_lacks(DfxDev *dev, DfxPrecision precision)
{
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = 1, .precision = precision};
	DfxPlan *plan = NULL;
	DfxErr err = {0};

	dfx_output(g, dfx_act(g, dfx_input_f32(g, 16, 4, 4), DFX_ACT_RELU), "out");
	ok(dfx_cpu_backend.compile(dev, g, &opts, &plan, &err) == DFX_EUNSUPPORTED && plan == NULL &&
	       strstr(err.msg, dfx_precision_name[precision]) && strstr(err.msg, "avx512_bf16"),
	   "%s is refused: %s", dfx_precision_name[precision], err.msg);
	dfx_graph_free(g);
}

/* Whether the CPU trains in a precision at all; what it says if it does not is in the log of the test. */
__attribute__((unused)) static bool
trains_in(DfxDev *dev, DfxPrecision precision)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;

	dfx_output(g, dfx_linear(g, dfx_input_f32(g, 16, 1, 1), "fc", 16), "y");
	if (dfx_graph_finish(g, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK)
		plan = train_compile_in(precision, &dfx_cpu_backend, dev, g, 1, &err);
	if (plan)
		dfx_cpu_backend.release(plan);
	else if (err.code == DFX_EUNSUPPORTED && strstr(err.msg, "this CPU"))
		diag("skipped: %s", err.msg);
	else
		ok(false, "%s", err.msg);
	dfx_graph_free(g);
	return plan != NULL;
}

/* Calls f with *on set: a device of so many threads, a precision and its tolerance. */
__attribute__((unused)) static void
for_cpu_precisions(Subject *on, int threads, void (*f)(void))
{
	static const struct
	{
		DfxPrecision precision;
		double tolerance;
	} each[] = {{DFX_PRECISION_FP32, 0}, {DFX_PRECISION_BF16, BF16_TOLERANCE}};
	DfxDevOpts opts = {.threads = threads};
	DfxDevInfo info;
	DfxErr err = {0};

	*on = (Subject){.be = &dfx_cpu_backend};
	if (!ok(dfx_cpu_backend.open(&opts, &on->dev, &err) == DFX_OK, "%d worker(s) start", threads))
	{
		diag("%s", err.msg);
		return;
	}
	dfx_cpu_backend.info(on->dev, &info);
	for (size_t i = 0; i < sizeof each / sizeof each[0]; i++)
	{
		on->precision = each[i].precision;
		on->tolerance = each[i].tolerance;
		if (info.precision[on->precision])
			f();
		else
			check_cpu_lacks(on->dev, on->precision);
	}
	dfx_cpu_backend.close(on->dev);
}

#endif /* DFX_TESTS_CPU_PRECISIONS_H */
