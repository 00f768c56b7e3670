/*
 * run.c
 *	  forward: a batch in pieces, each the size of a bucket, over two lanes.
 *
 * While one piece is computed, the next is copied into page-locked memory and
 * up, and the results of the last come down.  A piece smaller than its bucket
 * is filled up with whatever the buffer held: results of the rest are not
 * read.  When an fp16 result is not finite, the piece is done again in bf16,
 * whose range is that of fp32.
 */
#include <inttypes.h>
#include <string.h>

#include "cuda/train.h"

/*
 * The largest bucket that is full, or the next larger one when it would be
 * more than three quarters full: running a few images for nothing costs less
 * than another pass over the network.
 */
int
gpu_bucket(int nbucket, int left)
{
	int b = 0;

	while (b + 1 < nbucket && 1 << (b + 1) <= left)
		b++;
	if (b + 1 < nbucket && left > 1 << b && 4 * left > 3 << (b + 1))
		b++;
	return b;
}

size_t
gpu_out_offset(const DfxPlan *p, int i, int n)
{
	size_t floats = 0;

	for (int k = 0; k < i; k++)
		floats += p->out_floats[k];
	return GPU_BAD_BYTES + (size_t) n * floats * sizeof(float);
}

/* A product by a library: one call for each branch. */
static DfxStatus
run_library(const DfxDev *dev, const GpuStep *s, const GpuChoice *by, DfxErr *err)
{
	DfxStatus st = DFX_OK;

	for (int i = 0; st == DFX_OK && i < s->count; i++)
		st = by->lib->ops->run(by->lib, by->plan, &s->args[i].conv, &s->product[i], dev->work.p,
		                       dev->rt->stream, err);
	return st;
}

DfxStatus
gpu_step_run(DfxPlan *p, const GpuProgram *g, const GpuStep *s, int bucket, int lane, DfxErr *err)
{
	GpuRt *rt = p->dev->rt;
	const GpuChoice *choice = &s->choice[bucket];
	char *out = p->lane[lane].out.p;
	int n = 1 << bucket;
	GpuArgs args;

	switch (s->kernel)
	{
		case GPU_CONV_DIRECT:
		case GPU_CONV_TILED:
		case GPU_CONV_MMA:
			if (choice->lib)
				return run_library(p->dev, s, choice, err);
			return rt->ops->launch(rt, choice->kernel, g->type, s->args, s->count, n, err);
		case GPU_INPUT:
			args = s->args[0];
			args.input.src = p->lane[lane].in.p;
			return rt->ops->launch(rt, s->kernel, g->type, &args, 1, n, err);
		case GPU_OUTPUT:
			args = s->args[0];
			args.output.bad = (unsigned *) (void *) out;
			args.output.dst = (float *) (void *) (out + gpu_out_offset(p, s->output, n));
			return rt->ops->launch(rt, s->kernel, g->type, &args, 1, n, err);
		default:
			return rt->ops->launch(rt, s->kernel, g->type, s->args, s->count, n, err);
	}
}

DfxStatus
gpu_program_run(DfxPlan *p, const GpuProgram *g, int bucket, int lane, DfxErr *err)
{
	GpuRt *rt = p->dev->rt;
	DfxStatus st = rt->ops->clear(rt, p->lane[lane].out.p, GPU_BAD_BYTES, err);

	for (int i = 0; st == DFX_OK && i < g->nstep; i++)
		st = gpu_step_run(p, g, &g->step[i], bucket, lane, err);
	return st;
}

/* The lane's piece once more, in bf16. */
static DfxStatus
run_redo(DfxPlan *p, int l, size_t bytes, DfxErr *err)
{
	GpuRt *rt = p->dev->rt;
	GpuLane *lane = &p->lane[l];
	DfxStatus st = gpu_program_run(p, &p->program[1], lane->bucket, l, err);

	if (st == DFX_OK)
		st = rt->ops->download(rt, lane->out_host, lane->out.p, bytes, err);
	p->redone++;
	dfx_log('W', "fp16 could not hold a batch of %d: done again in bf16 (%" PRIu64 " so far)", lane->n,
	        p->redone);
	return st;
}

/* Wait for what a lane has in flight and hand out its results. */
static DfxStatus
run_finish(DfxPlan *p, int l, float *const *out, DfxErr *err)
{
	GpuRt *rt = p->dev->rt;
	GpuLane *lane = &p->lane[l];
	int n = 1 << lane->bucket;
	DfxStatus st;

	if (lane->n == 0)
		return DFX_OK;
	st = rt->ops->wait(rt, l, err);
	if (st == DFX_OK && *(const unsigned *) lane->out_host != 0 && p->nprogram > 1)
		st = run_redo(p, l, gpu_out_offset(p, p->nout, n), err);
	for (int i = 0; st == DFX_OK && i < p->nout; i++)
	{
		size_t floats = p->out_floats[i];

		if (out[i])
			memcpy(out[i] + (size_t) lane->first * floats,
			       (const char *) lane->out_host + gpu_out_offset(p, i, n),
			       (size_t) lane->n * floats * sizeof(float));
	}
	lane->n = 0;
	gpu_progress(p->dev);
	return st;
}

/* Send n images off on a lane that has nothing in flight. */
static DfxStatus
run_begin(DfxPlan *p, int l, const char *in, int first, int n, int bucket, DfxErr *err)
{
	GpuRt *rt = p->dev->rt;
	GpuLane *lane = &p->lane[l];
	GpuSubmit s = {.lane = l,
	               .graph = lane->graph[bucket],
	               .in = lane->in.p,
	               .in_host = lane->in_host,
	               .in_bytes = (size_t) n * p->image_bytes,
	               .out = lane->out.p,
	               .out_host = lane->out_host,
	               .out_bytes = gpu_out_offset(p, p->nout, 1 << bucket)};
	DfxStatus st;

	memcpy(lane->in_host, in + (size_t) first * p->image_bytes, s.in_bytes);
	st = rt->ops->submit(rt, &s, err);
	if (st == DFX_OK)
	{
		lane->first = first;
		lane->n = n;
		lane->bucket = bucket;
	}
	return st;
}

static DfxStatus
run_pieces(DfxPlan *p, const char *in, int n, float *const *out, DfxErr *err)
{
	DfxStatus st = DFX_OK;
	int done = 0, l = 0;

	while (st == DFX_OK && done < n)
	{
		int bucket = gpu_bucket(p->nbucket, n - done);
		int take = n - done < 1 << bucket ? n - done : 1 << bucket;

		st = run_finish(p, l, out, err);
		if (st == DFX_OK)
			st = run_begin(p, l, in, done, take, bucket, err);
		done += take;
		l = (l + 1) % GPU_LANES;
	}
	/* The lanes in the order in which they were begun; after a failure, only to leave nothing in flight. */
	for (int k = 0; k < GPU_LANES; k++, l = (l + 1) % GPU_LANES)
	{
		DfxStatus last = run_finish(p, l, out, st == DFX_OK ? err : NULL);

		st = st == DFX_OK ? last : st;
	}
	return st;
}

DfxStatus
gpu_forward(DfxPlan *p, const void *in, int n, float *const *out, DfxErr *err)
{
	DfxStatus st;

	if (p->train)
		return gpu_train_infer(p, in, n, out, err);
	if (n < 1 || n > p->max_batch)
		return dfx_fail(err, DFX_EINVAL, "a batch of %d images for a plan of at most %d", n, p->max_batch);
	gpu_turn_take(p->dev);
	st = run_pieces(p, in, n, out, err);
	gpu_turn_end(p->dev);
	return st;
}
