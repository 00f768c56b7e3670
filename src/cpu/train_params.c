/*
 * train_params.c
 *	  The parameters of a training plan: values, gradients and Adam's moments,
 *	  fp32, in PyTorch's order; and the step that moves them.
 *
 * Each of the four is one array: the trained parameters first, each padded
 * with zeros to TRAIN_PAD floats, so that Adam is one loop over all of them,
 * then the running statistics (which have a value only).
 */
#include <string.h>

#include "cpu/train.h"

DfxStatus
train_params_new(TrainBuild *b, DfxErr *err)
{
	CpuTrain *t = b->t;
	const DfxGraph *g = b->g;
	size_t n = (size_t) g->nparam + 1;

	t->nparam = g->nparam;
	t->param_off = cpu_plan_alloc(b->plan, n * sizeof *t->param_off, err);
	t->param_len = cpu_plan_alloc(b->plan, n * sizeof *t->param_len, err);
	t->param_trained = cpu_plan_alloc(b->plan, n * sizeof *t->param_trained, err);
	if (t->param_off == NULL || t->param_len == NULL || t->param_trained == NULL)
		return DFX_ENOMEM;
	dfx_params_place(g, TRAIN_PAD, t->param_off, t->param_len, t->param_trained, &t->trained, &t->floats);
	for (int i = 0; i < DFX_STATE_COUNT; i++)
	{
		/* A kernel may load a whole vector at the last parameter's end. */
		size_t floats = (i == DFX_STATE_VALUE ? t->floats : t->trained) + TRAIN_PAD;

		t->state[i] = cpu_plan_alloc(b->plan, floats * sizeof(float), err);
		if (t->state[i] == NULL)
			return DFX_ENOMEM;
	}
	for (int i = 0; i < g->nparam; i++)
		memcpy(train_param(t, DFX_STATE_VALUE, i), g->param[i].data, t->param_len[i] * sizeof(float));
	t->stale = true;
	return DFX_OK;
}

/* ---- Adam ---- */

typedef struct ParamsStep
{
	CpuTrain *t;
	const CpuTrainKernels *kernels;
	DfxAdamScalars adam;
	int threads;
} ParamsStep;

static void
params_step_worker(void *arg, int worker)
{
	const ParamsStep *s = arg;
	size_t vectors = s->t->trained / TRAIN_PAD;
	size_t from = vectors * (size_t) worker / (size_t) s->threads * TRAIN_PAD;
	size_t to = vectors * (size_t) (worker + 1) / (size_t) s->threads * TRAIN_PAD;

	s->kernels->adam(s->t->state[DFX_STATE_VALUE] + from, s->t->state[DFX_STATE_GRAD] + from,
	                 s->t->state[DFX_STATE_MOMENT1] + from, s->t->state[DFX_STATE_MOMENT2] + from, to - from,
	                 &s->adam);
}

/* The values are new: the library's copies are old, and so is what a forward_train has kept. */
static void
params_moved(CpuTrain *t)
{
	t->stale = true;
	t->ready = 0;
}

static DfxStatus
params_check(const DfxPlan *plan, DfxErr *err)
{
	return plan->train ? DFX_OK : dfx_fail(err, DFX_EINVAL, "the plan was not compiled for training");
}

DfxStatus
cpu_step(DfxPlan *plan, const DfxAdam *a, DfxErr *err)
{
	ParamsStep s = {.t = plan->train, .kernels = plan->dev->train_kernels, .threads = plan->dev->threads};
	DfxStatus st = params_check(plan, err);

	if (st == DFX_OK)
		st = dfx_adam_scalars(a, &s.adam, err);
	if (st != DFX_OK)
		return st;
	cpu_workers_run(plan->dev->workers, s.threads, params_step_worker, &s);
	params_moved(plan->train);
	cpu_progress(plan->dev);
	return DFX_OK;
}

/* ---- reading and writing ---- */

static DfxStatus
params_check_state(const DfxPlan *plan, DfxState what, const float *const *data, DfxErr *err)
{
	DfxStatus st = params_check(plan, err);

	return st != DFX_OK
	           ? st
	           : dfx_params_check_state(what, plan->train->param_trained, plan->train->nparam, data, err);
}

DfxStatus
cpu_read_params(const DfxPlan *plan, DfxState what, float *const *data, DfxErr *err)
{
	const CpuTrain *t = plan->train;
	DfxStatus st = params_check_state(plan, what, (const float *const *) data, err);

	for (int i = 0; st == DFX_OK && i < t->nparam; i++)
		if (data[i])
			memcpy(data[i], train_param(t, what, i), t->param_len[i] * sizeof(float));
	return st;
}

DfxStatus
cpu_write_params(DfxPlan *plan, DfxState what, const float *const *data, DfxErr *err)
{
	CpuTrain *t = plan->train;
	DfxStatus st = params_check_state(plan, what, data, err);

	for (int i = 0; st == DFX_OK && i < t->nparam; i++)
		if (data[i])
			memcpy(train_param(t, what, i), data[i], t->param_len[i] * sizeof(float));
	if (st == DFX_OK && what == DFX_STATE_VALUE)
		params_moved(t);
	return st;
}
