/*
 * train_net.h
 *	  A training plan on any backend, for tests: compile a graph, step it, and
 *	  read and write its parameters one at a time.
 */
#ifndef DFX_TESTS_TRAIN_NET_H
#define DFX_TESTS_TRAIN_NET_H

#include <stdlib.h>

#include "nn/backend.h"

/* A graph with weights, compiled for training in fp32; NULL on failure.  The graph may go. */
__attribute__((unused)) static DfxPlan *
train_compile(const DfxBackend *be, DfxDev *dev, const DfxGraph *g, int max_batch, DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = max_batch, .precision = DFX_PRECISION_FP32, .train = true};
	DfxPlan *plan = NULL;

	return be->compile(dev, g, &opts, &plan, err) == DFX_OK ? plan : NULL;
}

/* One state of parameter p, into data. */
__attribute__((unused)) static DfxStatus
train_read(const DfxBackend *be, const DfxPlan *plan, const DfxGraph *g, DfxState what, int p, float *data,
           DfxErr *err)
{
	float **all = calloc((size_t) g->nparam, sizeof *all);
	DfxStatus st;

	all[p] = data;
	st = be->read_params(plan, what, all, err);
	free(all);
	return st;
}

/* And from data. */
__attribute__((unused)) static DfxStatus
train_write(const DfxBackend *be, DfxPlan *plan, const DfxGraph *g, DfxState what, int p, const float *data,
            DfxErr *err)
{
	const float **all = calloc((size_t) g->nparam, sizeof *all);
	DfxStatus st;

	all[p] = data;
	st = be->write_params(plan, what, all, err);
	free(all);
	return st;
}

#endif /* DFX_TESTS_TRAIN_NET_H */
