/*
 * cpu_steps.h
 *	  What tests ask of a plan of the CPU backend: which steps it has, and that
 *	  images come out the same alone.
 */
#ifndef DFX_TESTS_CPU_STEPS_H
#define DFX_TESTS_CPU_STEPS_H

#include "cpu/cpu.h"
#include "tests/backend/against_ref.h"

/* Steps of a plan whose implementations' names begin so. */
__attribute__((unused)) static int
count_steps(const DfxPlan *plan, const char *kind)
{
	int n = 0;

	for (int i = 0; i < dfx_cpu_plan_steps(plan); i++)
	{
		const char *impl = dfx_cpu_plan_impl(plan, i);

		n += impl && strncmp(impl, kind, strlen(kind)) == 0;
	}
	return n;
}

/* Images together give the bits, in the last output, that each gives alone. */
__attribute__((unused)) static bool
same_alone(DfxPlan *plan, const DfxGraph *g, int n, DfxErr *err)
{
	bool rgb8, same = true;
	size_t bytes = graph_input_bytes(g, &rgb8), floats = graph_output_floats(g, g->nout - 1);
	char *in = noise_images(g, n, 5);
	float *out = calloc((size_t) n + 1, floats * sizeof *out), *alone = out + (size_t) n * floats;
	float *to[DFX_MAX_OUT] = {NULL};

	to[g->nout - 1] = out;
	same = dfx_cpu_backend.forward(plan, in, n, to, err) == DFX_OK;
	to[g->nout - 1] = alone;
	for (int i = 0; same && i < n; i++)
		same = dfx_cpu_backend.forward(plan, in + (size_t) i * bytes, 1, to, err) == DFX_OK &&
		       memcmp(alone, out + (size_t) i * floats, floats * sizeof *alone) == 0;
	free(in);
	free(out);
	return same;
}

#endif /* DFX_TESTS_CPU_STEPS_H */
