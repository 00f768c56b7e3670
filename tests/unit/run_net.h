/*
 * run_net.h
 *	  Run a graph on a backend, for tests.
 */
#ifndef DFX_TESTS_RUN_NET_H
#define DFX_TESTS_RUN_NET_H

#include <math.h>
#include <stdlib.h>

#include "nn/backend.h"

/* Elements of value v. */
__attribute__((unused)) static size_t
net_count(const DfxGraph *g, DfxVal v)
{
	return (size_t) g->val[v].c * (size_t) g->val[v].h * (size_t) g->val[v].w;
}

/* Open, compile, run n images, release.  out[i] is malloc'd, NULL after a failure. */
__attribute__((unused)) static DfxStatus
run_net(const DfxBackend *be, const DfxGraph *g, const void *in, int n, float *out[DFX_MAX_OUT], DfxErr *err)
{
	DfxDevOpts dev_opts = {.threads = 1};
	DfxPlanOpts opts = {.max_batch = n, .precision = DFX_PRECISION_FP32};
	DfxDev *dev = NULL;
	DfxPlan *plan = NULL;
	DfxStatus st = be->open(&dev_opts, &dev, err);

	for (int i = 0; i < DFX_MAX_OUT; i++)
		out[i] = i < g->nout ? calloc(net_count(g, g->out[i]) * (size_t) n, sizeof(float)) : NULL;
	if (st == DFX_OK)
		st = be->compile(dev, g, &opts, &plan, err);
	if (st == DFX_OK)
		st = be->forward(plan, in, n, out, err);
	if (plan)
		be->release(plan);
	if (dev)
		be->close(dev);
	return st;
}

__attribute__((unused)) static void
free_net(float *out[DFX_MAX_OUT])
{
	for (int i = 0; i < DFX_MAX_OUT; i++)
		free(out[i]);
}

/* Largest difference, relative to the largest magnitude of want; infinite if anything is not a number. */
__attribute__((unused)) static double
net_error(const float *got, const float *want, size_t n)
{
	double worst = 0, max = 1e-30;

	for (size_t i = 0; i < n; i++)
	{
		double d = fabs((double) got[i] - (double) want[i]);

		if (!isfinite(d))
			return INFINITY;
		worst = fmax(worst, d);
		max = fmax(max, fabs((double) want[i]));
	}
	return worst / max;
}

#endif /* DFX_TESTS_RUN_NET_H */
