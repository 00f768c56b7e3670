/*
 * train_net.h
 *	  A training plan on any backend, for tests: compile a graph, and read and
 *	  write its parameters, all or one.
 */
#ifndef DFX_TESTS_TRAIN_NET_H
#define DFX_TESTS_TRAIN_NET_H

#include <stdlib.h>

#include "nn/backend.h"

/* A graph with weights, compiled for training; NULL on failure.  The graph may go. */
__attribute__((unused)) static DfxPlan *
train_compile_in(DfxPrecision precision, const DfxBackend *be, DfxDev *dev, const DfxGraph *g, int max_batch,
                 DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = max_batch, .precision = precision, .train = true};
	DfxPlan *plan = NULL;

	return be->compile(dev, g, &opts, &plan, err) == DFX_OK ? plan : NULL;
}

/* In fp32. */
__attribute__((unused)) static DfxPlan *
train_compile(const DfxBackend *be, DfxDev *dev, const DfxGraph *g, int max_batch, DfxErr *err)
{
	return train_compile_in(DFX_PRECISION_FP32, be, dev, g, max_batch, err);
}

/* Room for a number of every parameter of g, zero. */
__attribute__((unused)) static float **
train_new_params(const DfxGraph *g)
{
	float **data = calloc((size_t) g->nparam + 1, sizeof *data);

	for (int p = 0; p < g->nparam; p++)
		data[p] = calloc(dfx_param_count(&g->param[p]), sizeof(float));
	return data;
}

__attribute__((unused)) static void
train_free_params(const DfxGraph *g, float **data)
{
	for (int p = 0; p < g->nparam; p++)
		free(data[p]);
	free(data);
}

/* Of data, what has this state: values of all, others of what is trained; only parameter one, unless -1. */
static float **
train_select(const DfxGraph *g, DfxState what, int one, float *const *data)
{
	float **some = calloc((size_t) g->nparam + 1, sizeof *some);

	for (int p = 0; p < g->nparam; p++)
		if (one < 0 && (what == DFX_STATE_VALUE || dfx_param_trained(&g->param[p])))
			some[p] = data[p];
	if (one >= 0)
		some[one] = data[0];
	return some;
}

static DfxStatus
train_move(const DfxBackend *be, DfxPlan *plan, bool write, DfxState what, float **some, DfxErr *err)
{
	DfxStatus st = write ? be->write_params(plan, what, (const float *const *) some, err)
	                     : be->read_params(plan, what, some, err);

	free(some);
	return st;
}

/* One state of all parameters that have it, into data. */
__attribute__((unused)) static DfxStatus
train_read_all(const DfxBackend *be, DfxPlan *plan, const DfxGraph *g, DfxState what, float *const *data,
               DfxErr *err)
{
	return train_move(be, plan, false, what, train_select(g, what, -1, data), err);
}

/* And from data. */
__attribute__((unused)) static DfxStatus
train_write_all(const DfxBackend *be, DfxPlan *plan, const DfxGraph *g, DfxState what, float *const *data,
                DfxErr *err)
{
	return train_move(be, plan, true, what, train_select(g, what, -1, data), err);
}

/* One state of parameter p, into data. */
__attribute__((unused)) static DfxStatus
train_read(const DfxBackend *be, DfxPlan *plan, const DfxGraph *g, DfxState what, int p, float *data,
           DfxErr *err)
{
	return train_move(be, plan, false, what, train_select(g, what, p, &data), err);
}

/* And from data. */
__attribute__((unused)) static DfxStatus
train_write(const DfxBackend *be, DfxPlan *plan, const DfxGraph *g, DfxState what, int p, float *data,
            DfxErr *err)
{
	return train_move(be, plan, true, what, train_select(g, what, p, &data), err);
}

#endif /* DFX_TESTS_TRAIN_NET_H */
