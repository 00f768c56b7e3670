/*
 * train_run.c
 *	  A training step on the device: forward, backward; and inference with the
 *	  parameters as they are.
 *
 * Steps are launched one by one, in order, and waited for where their results
 * come down.  Everything of a step that is not known when the plan is made is
 * put into its record here: the seed of masks, where an output lies.
 */
#include "cuda/train.h"

/* A step for n images, its record completed. */
static DfxStatus
run_step(DfxPlan *plan, const GpuTrainStep *s, int n, uint64_t seed, DfxErr *err)
{
	GpuTrain *t = plan->train;
	GpuRt *rt = plan->dev->rt;
	float *out = (float *) (void *) (t->io_out + gpu_out_offset(plan, s->which, n));
	GpuArgs args = s->args;

	if (s->clear)
		return rt->ops->clear(rt, s->clear, (size_t) n * s->clear_bytes, err);
	if (s->kernel == GPU_DROP)
		args.drop.seed = seed;
	if (s->io == TRAIN_SEED)
		args.seed.src = out;
	if (s->io == TRAIN_OUT)
		args.output.dst = out;
	if (s->io == TRAIN_DIN)
		args.output.dst = (float *) (void *) t->io.p;
	if (s->kernel == GPU_OUTPUT)
		args.output.bad = (unsigned *) (void *) t->io_out; /* nobody asks: a loss that is no number shows */
	if (s->choice.lib && n == plan->max_batch)
		return s->choice.lib->ops->run(s->choice.lib, s->choice.plan, &args.conv, &s->product,
		                               plan->dev->work.p, rt->stream, err);
	return rt->ops->launch(rt, s->choice.kernel, t->type, &args, 1, n, err);
}

DfxStatus
gpu_train_run_list(DfxPlan *plan, const GpuTrainList *list, unsigned when, int n, uint64_t seed, DfxErr *err)
{
	DfxStatus st = DFX_OK;

	for (int i = 0; st == DFX_OK && i < list->n; i++)
	{
		if (!(list->step[i].when & when))
			continue;
		st = run_step(plan, &list->step[i], n, seed, err);
		gpu_progress(plan->dev);
	}
	return st;
}

/* ---- forward ---- */

static DfxStatus
run_check(const DfxPlan *plan, int n, DfxErr *err)
{
	if (!plan->train)
		return dfx_fail(err, DFX_EINVAL, "the plan was not compiled for training");
	if (n < 1 || n > plan->max_batch)
		return dfx_fail(err, DFX_EINVAL, "%d images for a plan of 1 to %d", n, plan->max_batch);
	return DFX_OK;
}

static DfxStatus
run_outputs(DfxPlan *plan, int n, float *const *out, DfxErr *err)
{
	GpuRt *rt = plan->dev->rt;
	DfxStatus st = DFX_OK;

	for (int i = 0; st == DFX_OK && i < plan->nout; i++)
		if (out[i])
			st = rt->ops->download(rt, out[i], plan->train->io_out + gpu_out_offset(plan, i, n),
			                       (size_t) n * plan->out_floats[i] * sizeof(float), err);
	return st;
}

static DfxStatus
run_forward(DfxPlan *plan, unsigned when, const void *in, int n, uint64_t seed, float *const *out,
            DfxErr *err)
{
	GpuTrain *t = plan->train;
	GpuRt *rt = plan->dev->rt;
	DfxStatus st = rt->ops->upload(rt, t->io.p, in, (size_t) n * plan->image_bytes, err);

	t->kept = 0;
	if (st == DFX_OK && t->stale)
	{
		st = gpu_train_run_list(plan, &t->weights, TRAIN_BOTH, 1, 0, err);
		t->stale = st != DFX_OK;
	}
	if (st == DFX_OK)
		st = gpu_train_run_list(plan, &t->forward, when, n, seed, err);
	return st == DFX_OK ? run_outputs(plan, n, out, err) : st;
}

DfxStatus
gpu_train_infer(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err)
{
	DfxStatus st = run_check(plan, n, err);

	if (st != DFX_OK)
		return st;
	gpu_turn_take(plan->dev);
	st = run_forward(plan, TRAIN_INFER, in, n, 0, out, err);
	gpu_turn_end(plan->dev);
	return st;
}

DfxStatus
gpu_forward_train(DfxPlan *plan, const void *in, int n, uint64_t seed, float *const *out, DfxErr *err)
{
	GpuTrain *t = plan->train;
	DfxStatus st = run_check(plan, n, err);

	if (st != DFX_OK)
		return st;
	if (t->norm_rows > 0 && n * t->norm_rows < 2)
		return dfx_fail(err, DFX_EINVAL,
		                "BatchNorm \"%s\" has one value a channel in this batch, and no variance",
		                t->norm_name);
	gpu_turn_take(plan->dev);
	st = run_forward(plan, TRAIN_LEARN, in, n, seed, out, err);
	gpu_turn_end(plan->dev);
	t->kept = st == DFX_OK ? n : 0;
	t->seed = seed;
	return st;
}

/* ---- backward ---- */

/* The loss's gradients up to where results were. */
static DfxStatus
run_seeds(DfxPlan *plan, int n, const float *const *dout, DfxErr *err)
{
	GpuRt *rt = plan->dev->rt;
	DfxStatus st = DFX_OK;

	for (int i = 0; st == DFX_OK && i < plan->nout; i++)
	{
		char *to = plan->train->io_out + gpu_out_offset(plan, i, n);
		size_t bytes = (size_t) n * plan->out_floats[i] * sizeof(float);

		st = dout[i] ? rt->ops->upload(rt, to, dout[i], bytes, err) : rt->ops->clear(rt, to, bytes, err);
	}
	return st;
}

DfxStatus
gpu_backward(DfxPlan *plan, int n, const float *const *dout, float *din, DfxErr *err)
{
	GpuTrain *t = plan->train;
	GpuRt *rt = plan->dev->rt;
	DfxStatus st = run_check(plan, n, err);

	if (st != DFX_OK)
		return st;
	if (t->kept == 0 || n != t->kept)
		return dfx_fail(err, DFX_EINVAL, "backward for %d images, but the values kept are those of %d", n,
		                t->kept);
	if (din && !t->input_f32)
		return dfx_fail(err, DFX_EINVAL, "there is no gradient by pixels");
	t->kept = 0;
	gpu_turn_take(plan->dev);
	st = run_seeds(plan, n, dout, err);
	if (st == DFX_OK)
		st = gpu_train_run_list(plan, &t->backward, TRAIN_LEARN, n, t->seed, err);
	if (st == DFX_OK && din)
		st = rt->ops->download(rt, din, t->io.p, (size_t) n * plan->image_bytes, err);
	gpu_turn_end(plan->dev);
	return st;
}
