/*
 * run.c
 *	  forward: a batch in pieces, each the size of a bucket, over the lanes.
 *
 * While one lane's piece is computed, another one's goes up and the results of
 * the last come down.  Usually the other lane has another thread's batch, which
 * is one piece; a forward of several takes a second lane while nobody else
 * wants it.  Images go up from where they are if that is page-locked, else by
 * a copy that is.  A piece smaller than its bucket is filled up with whatever
 * the buffer held: results of the rest are not read.  When an fp16 result is
 * not finite, the piece is done again in bf16, whose range is that of fp32.
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

/* A forward under way, and the lanes that have a piece of it, in the order in which they were begun. */
typedef struct Run
{
	DfxPlan *p;
	const char *in;
	float *const *out;
	int lane[GPU_LANES], nlane;
} Run;

/* The lane's piece once more, in bf16. */
static DfxStatus
run_redo(DfxPlan *p, int l, size_t bytes, DfxErr *err)
{
	GpuRt *rt = p->dev->rt;
	GpuLane *lane = &p->lane[l];
	DfxStatus st;

	gpu_turn_take(p->dev);
	st = gpu_program_run(p, &p->program[1], lane->bucket, l, err);
	if (st == DFX_OK)
		st = rt->ops->download(rt, lane->out_host, lane->out.p, bytes, err);
	p->redone++;
	dfx_log('W', "fp16 could not hold a batch of %d: done again in bf16 (%" PRIu64 " so far)", lane->n,
	        p->redone);
	gpu_turn_end(p->dev);
	return st;
}

/* Wait for the piece that was begun first and hand out its results; its lane is idle then. */
static DfxStatus
run_finish(Run *r, int *idle, DfxErr *err)
{
	DfxPlan *p = r->p;
	int l = *idle = r->lane[0];
	GpuLane *lane = &p->lane[l];
	int n = 1 << lane->bucket;
	double ms = 0;
	DfxStatus st = p->dev->rt->ops->wait(p->dev->rt, l, &ms, err);

	r->nlane--;
	memmove(r->lane, r->lane + 1, (size_t) r->nlane * sizeof *r->lane);
	atomic_fetch_add_explicit(&p->dev->busy_ns, (uint64_t) (ms * 1e6), memory_order_relaxed);
	if (st == DFX_OK && *(const unsigned *) lane->out_host != 0 && p->nprogram > 1)
		st = run_redo(p, l, gpu_out_offset(p, p->nout, n), err);
	for (int i = 0; st == DFX_OK && i < p->nout; i++)
	{
		size_t floats = p->out_floats[i];

		if (r->out[i])
			memcpy(r->out[i] + (size_t) lane->first * floats,
			       (const char *) lane->out_host + gpu_out_offset(p, i, n),
			       (size_t) lane->n * floats * sizeof(float));
	}
	gpu_progress(p->dev);
	return st;
}

/*
 * A lane for the next piece: another one if it is free, else the one that was
 * begun first.  If somebody waits for a lane, that one goes to him, while there
 * is another to go on with.  The lane is the caller's even on failure.
 */
static DfxStatus
run_lane(Run *r, int *lane, DfxErr *err)
{
	DfxDev *dev = r->p->dev;
	DfxStatus st;

	for (;;)
	{
		*lane = r->nlane == 0 ? gpu_lane_take(dev) : gpu_lane_try(dev);
		if (*lane >= 0)
			return DFX_OK;
		st = run_finish(r, lane, err);
		if (st != DFX_OK || r->nlane == 0 || !gpu_lane_wanted(dev))
			return st;
		gpu_lane_end(dev, *lane);
	}
}

/*
 * Where so many bytes of images go up from: where they are, or a copy in the
 * lane's own room; without room for that where they are after all, and CUDA
 * copies them in its own time.
 */
static const void *
run_source(DfxPlan *p, int l, const char *in, size_t bytes)
{
	GpuRt *rt = p->dev->rt;
	GpuLane *lane = &p->lane[l];
	DfxErr err;

	if (gpu_is_locked(p->dev, in, bytes))
		return in;
	if (!lane->in_host)
	{
		gpu_turn_take(p->dev);
		if (rt->ops->alloc_host(rt, p->image_bytes << (p->nbucket - 1), &lane->in_host, &err) != DFX_OK)
		{
			lane->in_host = NULL;
			dfx_log('I', "images go up from ordinary memory: %s", err.msg);
		}
		gpu_turn_end(p->dev);
	}
	return lane->in_host ? memcpy(lane->in_host, in, bytes) : in;
}

/* Send n images off on an idle lane. */
static DfxStatus
run_begin(Run *r, int l, int first, int n, int bucket, DfxErr *err)
{
	DfxPlan *p = r->p;
	GpuRt *rt = p->dev->rt;
	GpuLane *lane = &p->lane[l];
	size_t bytes = (size_t) n * p->image_bytes;
	GpuSubmit s = {.lane = l,
	               .graph = lane->graph[bucket],
	               .in = lane->in.p,
	               .in_bytes = bytes,
	               .in_host = run_source(p, l, r->in + (size_t) first * p->image_bytes, bytes),
	               .out = lane->out.p,
	               .out_host = lane->out_host,
	               .out_bytes = gpu_out_offset(p, p->nout, 1 << bucket)};
	DfxStatus st;

	gpu_turn_take(p->dev);
	st = rt->ops->submit(rt, &s, err);
	gpu_turn_end(p->dev);
	if (st != DFX_OK)
		return st;
	lane->first = first;
	lane->n = n;
	lane->bucket = bucket;
	r->lane[r->nlane++] = l;
	return DFX_OK;
}

static DfxStatus
run_pieces(Run *r, int n, DfxErr *err)
{
	DfxPlan *p = r->p;
	DfxStatus st = DFX_OK;
	int l;

	for (int done = 0, take; st == DFX_OK && done < n; done += take)
	{
		int bucket = gpu_bucket(p->nbucket, n - done);

		take = n - done < 1 << bucket ? n - done : 1 << bucket;
		st = run_lane(r, &l, err);
		if (st == DFX_OK)
			st = run_begin(r, l, done, take, bucket, err);
		if (st != DFX_OK)
			gpu_lane_end(p->dev, l);
	}
	/* After a failure only to leave nothing in flight. */
	while (r->nlane > 0)
	{
		DfxStatus last = run_finish(r, &l, st == DFX_OK ? err : NULL);

		gpu_lane_end(p->dev, l);
		st = st == DFX_OK ? last : st;
	}
	return st;
}

DfxStatus
gpu_forward(DfxPlan *p, const void *in, int n, float *const *out, DfxErr *err)
{
	Run r = {.p = p, .in = in, .out = out};

	if (p->train)
		return gpu_train_infer(p, in, n, out, err);
	if (n < 1 || n > p->max_batch)
		return dfx_fail(err, DFX_EINVAL, "a batch of %d images for a plan of at most %d", n, p->max_batch);
	return run_pieces(&r, n, err);
}
