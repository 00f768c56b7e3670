/*
 * train_params.c
 *	  The parameters of a training plan: values, gradients and Adam's moments,
 *	  fp32, in PyTorch's order; and the step that moves them.
 *
 * Each of the four is one array: the trained parameters first, each padded to
 * PARAM_PAD floats, so that Adam is one launch over all of them, then the
 * running statistics (which have a value only).
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/train.h"
#include "nn/training.h"

#define PARAM_PAD 16

/* ---- where they are ---- */

DfxStatus
gpu_train_params_place(GpuTrain *t, const DfxGraph *g, DfxErr *err)
{
	size_t n = (size_t) g->nparam + 1;

	t->nparam = g->nparam;
	t->param_off = calloc(n, sizeof *t->param_off);
	t->param_len = calloc(n, sizeof *t->param_len);
	t->param_trained = calloc(n, sizeof *t->param_trained);
	if (!t->param_off || !t->param_len || !t->param_trained)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	dfx_params_place(g, PARAM_PAD, t->param_off, t->param_len, t->param_trained, &t->trained, &t->floats);
	return DFX_OK;
}

size_t
gpu_train_params_bytes(const GpuTrain *t)
{
	return (t->floats + (DFX_STATE_COUNT - 1) * t->trained) * sizeof(float);
}

DfxStatus
gpu_train_params_set(DfxPlan *plan, const DfxGraph *g, DfxErr *err)
{
	GpuTrain *t = plan->train;
	GpuRt *rt = plan->dev->rt;
	float *values = calloc(t->floats + 1, sizeof *values), *at = (float *) (void *) t->param.p;
	DfxStatus st;

	if (!values)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a copy of the parameters");
	for (int s = 0; s < DFX_STATE_COUNT; s++)
	{
		t->state[s] = at;
		at += s == DFX_STATE_VALUE ? t->floats : t->trained;
	}
	for (int i = 0; i < g->nparam; i++)
		memcpy(values + t->param_off[i], g->param[i].data, t->param_len[i] * sizeof *values);
	st = rt->ops->clear(rt, t->param.p, t->param.bytes, err);
	if (st == DFX_OK)
		st = rt->ops->upload(rt, t->state[DFX_STATE_VALUE], values, t->floats * sizeof *values, err);
	free(values);
	t->stale = true;
	return st;
}

/* ---- Adam ---- */

static DfxStatus
params_check(const DfxPlan *plan, DfxErr *err)
{
	return plan->train ? DFX_OK : dfx_fail(err, DFX_EINVAL, "the plan was not compiled for training");
}

/* The values are new: copies are old, and so is what a forward_train has kept. */
static void
params_moved(GpuTrain *t)
{
	t->stale = true;
	t->kept = 0;
}

DfxStatus
gpu_step(DfxPlan *plan, const DfxAdam *a, DfxErr *err)
{
	GpuTrain *t = plan->train;
	GpuArgs args = {0};
	DfxAdamScalars s;
	DfxStatus st = params_check(plan, err);

	if (st == DFX_OK)
		st = dfx_adam_scalars(a, &s, err);
	if (st != DFX_OK)
		return st;
	args.adam = (GpuAdamArgs){.value = t->state[DFX_STATE_VALUE],
	                          .grad = t->state[DFX_STATE_GRAD],
	                          .m = t->state[DFX_STATE_MOMENT1],
	                          .v = t->state[DFX_STATE_MOMENT2],
	                          .count = t->trained,
	                          .decay = s.decay,
	                          .beta1 = s.beta1,
	                          .beta2 = s.beta2,
	                          .rest1 = s.rest1,
	                          .rest2 = s.rest2,
	                          .step = s.step,
	                          .root = s.root,
	                          .eps = s.eps};
	gpu_turn_take(plan->dev);
	st = plan->dev->rt->ops->launch(plan->dev->rt, GPU_ADAM, GPU_F32, &args, 1, 1, err);
	gpu_progress(plan->dev);
	gpu_turn_end(plan->dev);
	params_moved(t);
	return st;
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
gpu_read_params(const DfxPlan *plan, DfxState what, float *const *data, DfxErr *err)
{
	const GpuTrain *t = plan->train;
	GpuRt *rt = plan->dev->rt;
	DfxStatus st = params_check_state(plan, what, (const float *const *) data, err);

	if (st != DFX_OK)
		return st;
	gpu_turn_take(plan->dev);
	for (int i = 0; st == DFX_OK && i < t->nparam; i++)
		if (data[i])
			st = rt->ops->download(rt, data[i], gpu_train_param(t, what, i), t->param_len[i] * sizeof(float),
			                       err);
	gpu_turn_end(plan->dev);
	return st;
}

DfxStatus
gpu_write_params(DfxPlan *plan, DfxState what, const float *const *data, DfxErr *err)
{
	GpuTrain *t = plan->train;
	GpuRt *rt = plan->dev->rt;
	DfxStatus st = params_check_state(plan, what, data, err);

	if (st != DFX_OK)
		return st;
	gpu_turn_take(plan->dev);
	for (int i = 0; st == DFX_OK && i < t->nparam; i++)
		if (data[i])
			st = rt->ops->upload(rt, gpu_train_param(t, what, i), data[i], t->param_len[i] * sizeof(float),
			                     err);
	gpu_turn_end(plan->dev);
	if (what == DFX_STATE_VALUE)
		params_moved(t);
	return st;
}
