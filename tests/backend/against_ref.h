/*
 * against_ref.h
 *	  Run one graph on a backend and on the oracle, and compare.
 *
 * The difference is measured relative to the largest magnitude of the
 * oracle's output: what matters in a sum of many terms.
 */
#ifndef DFX_TESTS_AGAINST_REF_H
#define DFX_TESTS_AGAINST_REF_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/backend.h"
#include "tests/ref/ref.h"
#include "tests/unit/tap.h"

/* What is compared with the oracle. */
typedef struct Subject
{
	const DfxBackend *be;
	DfxDev *dev;
	DfxPrecision precision;
	double tolerance; /* of half precision; 0: each case has its own, for fp32 */
} Subject;

/* A repeatable sequence in [-1, 1). */
__attribute__((unused)) static float
noise(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return (float) (*state >> 8) / 8388608.0f - 1.0f;
}

static size_t
graph_input_bytes(const DfxGraph *g, bool *rgb8)
{
	const DfxValue *v = &g->val[g->input];

	*rgb8 = g->op[v->def].u.input.rgb8;
	return (size_t) v->c * (size_t) v->h * (size_t) v->w * (*rgb8 ? 1 : sizeof(float));
}

/* n images of noise for g, malloc'd. */
__attribute__((unused)) static void *
noise_images(const DfxGraph *g, int n, uint32_t seed)
{
	bool rgb8;
	size_t bytes = graph_input_bytes(g, &rgb8) * (size_t) n;
	uint8_t *p = malloc(bytes);

	if (p == NULL)
		abort();
	if (rgb8)
		for (size_t i = 0; i < bytes; i++)
			p[i] = (uint8_t) (127.5f + 127.5f * noise(&seed));
	else
		for (size_t i = 0; i < bytes / sizeof(float); i++)
			((float *) (void *) p)[i] = noise(&seed);
	return p;
}

static size_t
graph_output_floats(const DfxGraph *g, int i)
{
	const DfxValue *v = &g->val[g->out[i]];

	return (size_t) v->c * (size_t) v->h * (size_t) v->w;
}

/* Compile g and run n images; out[i] is malloc'd (NULL after a failure). */
__attribute__((unused)) static DfxStatus
run_graph(const Subject *on, const DfxGraph *g, int n, const void *in, float *out[DFX_MAX_OUT], DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = n, .precision = on->precision};
	DfxPlan *plan = NULL;
	DfxStatus st;

	for (int i = 0; i < DFX_MAX_OUT; i++)
		out[i] = NULL;
	st = on->be->compile(on->dev, g, &opts, &plan, err);
	if (st != DFX_OK)
		return st;
	for (int i = 0; i < g->nout; i++)
		out[i] = calloc((size_t) n * graph_output_floats(g, i), sizeof(float));
	st = on->be->forward(plan, in, n, out, err);
	on->be->release(plan);
	return st;
}

__attribute__((unused)) static void
free_outputs(float *out[DFX_MAX_OUT])
{
	for (int i = 0; i < DFX_MAX_OUT; i++)
		free(out[i]);
}

/* Largest difference over largest magnitude; infinite if anything is not a number. */
__attribute__((unused)) static double
relative_error(const float *got, const float *want, size_t n)
{
	double diff = 0, max = 1e-30;

	for (size_t i = 0; i < n; i++)
	{
		double d = fabs((double) got[i] - (double) want[i]);

		if (!(d < INFINITY))
			return INFINITY;
		diff = d > diff ? d : diff;
		max = fabs((double) want[i]) > max ? fabs((double) want[i]) : max;
	}
	return diff / max;
}

/* One test: g on n images gives the oracle's outputs within tolerance (the subject's, if that is larger). */
__attribute__((unused)) static bool
same_as_ref(const Subject *on, const DfxGraph *g, int n, double tolerance, const char *what)
{
	DfxDevOpts opts = {.threads = 1};
	Subject ref = {.be = &dfx_ref_backend, .precision = DFX_PRECISION_FP32};
	DfxErr err = {0};
	float *got[DFX_MAX_OUT] = {0}, *want[DFX_MAX_OUT] = {0};
	void *in = noise_images(g, n, 7u + (uint32_t) n);
	double worst = 0;
	DfxStatus st = dfx_ref_backend.open(&opts, &ref.dev, &err);
	bool pass;

	if (st == DFX_OK)
		st = run_graph(&ref, g, n, in, want, &err);
	if (st == DFX_OK)
		st = run_graph(on, g, n, in, got, &err);
	for (int i = 0; st == DFX_OK && i < g->nout; i++)
	{
		double e = relative_error(got[i], want[i], (size_t) n * graph_output_floats(g, i));

		worst = e > worst ? e : worst;
	}
	tolerance = on->tolerance > tolerance ? on->tolerance : tolerance;
	pass = ok(st == DFX_OK && worst <= tolerance, "%s, batch %d, %s", what, n,
	          dfx_precision_name[on->precision]);
	if (st != DFX_OK)
		diag("%s", err.msg);
	else if (!pass)
		diag("relative error %g, allowed %g", worst, tolerance);
	free_outputs(got);
	free_outputs(want);
	free(in);
	if (ref.dev)
		dfx_ref_backend.close(ref.dev);
	return pass;
}

#endif /* DFX_TESTS_AGAINST_REF_H */
