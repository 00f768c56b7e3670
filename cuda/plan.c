/*
 * plan.c
 *	  From a graph to a plan: memory, programs, a CUDA graph for every bucket.
 *
 * A plan serves batches of 1, 2, 4 ... up to the power of two that holds
 * max_batch (128 at the most; more goes in pieces).  Offsets in the arena are
 * those of the largest bucket for all of them, so that there is one arena, one
 * set of weights, and a graph for each bucket and lane.  If the device has no
 * room, the largest bucket is halved and halved again: batches then go in more
 * pieces.  Every program and every graph runs once before compile returns:
 * kernels are loaded at their first launch, and that must be neither within a
 * graph's capture nor a query's time.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/train.h"

static DfxStatus
plan_check(const DfxGraph *g, const DfxPlanOpts *opts, DfxErr *err)
{
	if (opts->max_batch < 1)
		return dfx_fail(err, DFX_EINVAL, "a batch of %d images", opts->max_batch);
	if (opts->train && opts->precision == DFX_PRECISION_FP16)
		return dfx_fail(err, DFX_EUNSUPPORTED, "the CUDA backend trains in fp32 and bf16, not in fp16");
	if (opts->precision != DFX_PRECISION_AUTO && opts->precision != DFX_PRECISION_FP32 &&
	    opts->precision != DFX_PRECISION_FP16 && opts->precision != DFX_PRECISION_BF16)
		return dfx_fail(err, DFX_EUNSUPPORTED, "the CUDA backend does not compute in %s",
		                opts->precision < DFX_PRECISION_COUNT ? dfx_precision_name[opts->precision]
		                                                      : "an unknown precision");
	if (g->err.code != DFX_OK || g->input < 0 || g->nop == 0)
		return dfx_fail(err, DFX_EINVAL, "the graph is not complete");
	for (int i = 0; i < g->nparam; i++)
		if (g->param[i].data == NULL)
			return dfx_fail(err, DFX_EWEIGHTS, "parameter %s has no value", g->param[i].name);
	return DFX_OK;
}

/* ---- memory ---- */

static void
plan_free_lane(DfxPlan *p, GpuLane *lane)
{
	GpuRt *rt = p->dev->rt;

	for (int b = 0; b < GPU_BUCKETS; b++)
		if (lane->graph[b])
			rt->ops->release_graph(rt, lane->graph[b]);
	gpu_free(p->dev, &lane->in);
	gpu_free(p->dev, &lane->out);
	if (lane->in_host)
		rt->ops->release_host(rt, lane->in_host);
	if (lane->out_host)
		rt->ops->release_host(rt, lane->out_host);
	*lane = (GpuLane){0};
}

static void
plan_free_program(DfxPlan *p, GpuProgram *g)
{
	gpu_free(p->dev, &g->weights);
	free(g->step);
	*g = (GpuProgram){0};
}

/* Everything that a smaller batch would make smaller, and what points into it. */
static void
plan_clear(DfxPlan *p)
{
	for (int l = 0; l < GPU_LANES; l++)
		plan_free_lane(p, &p->lane[l]);
	for (int i = 0; i < GPU_PROGRAMS; i++)
		plan_free_program(p, &p->program[i]);
	p->nprogram = 0;
	gpu_free(p->dev, &p->arena);
}

void
gpu_release(DfxPlan *p)
{
	DfxDev *dev;

	if (!p)
		return;
	dev = p->dev;
	gpu_turn_take(dev);
	if (p->train)
		gpu_train_free(p);
	plan_clear(p);
	gpu_turn_end(dev);
	free(p);
}

size_t
gpu_bytes(const DfxPlan *p)
{
	size_t n = p->train ? gpu_train_bytes(p) : p->arena.bytes;

	for (int l = 0; l < GPU_LANES; l++)
		n += p->lane[l].in.bytes + p->lane[l].out.bytes;
	for (int i = 0; i < p->nprogram; i++)
		n += p->program[i].weights.bytes;
	return n;
}

static DfxStatus
plan_lane(DfxPlan *p, GpuLane *lane, DfxErr *err)
{
	GpuRt *rt = p->dev->rt;
	int n = 1 << (p->nbucket - 1);
	size_t in = (size_t) n * p->image_bytes, out = gpu_out_offset(p, p->nout, n);
	DfxStatus st = gpu_alloc(p->dev, in, &lane->in, err);

	if (st == DFX_OK)
		st = gpu_alloc(p->dev, out, &lane->out, err);
	if (st == DFX_OK)
		st = rt->ops->alloc_host(rt, out, &lane->out_host, err);
	return st == DFX_OK ? rt->ops->clear(rt, lane->in.p, in, err) : st;
}

/* ---- programs ---- */

/* Lower once to measure the weights, once with their place known, and send them there. */
static DfxStatus
plan_program(DfxPlan *p, GpuBuild *b, GpuType type, DfxErr *err)
{
	GpuProgram *g = &p->program[p->nprogram];
	GpuRt *rt = p->dev->rt;
	DfxStatus st;

	b->type = type;
	b->host = NULL;
	b->weights = NULL;
	st = gpu_lower(b, g, err);
	if (st == DFX_OK)
		st = gpu_alloc(p->dev, b->used + GPU_ALIGN, &g->weights, err);
	if (st != DFX_OK)
		return st;
	b->weights = g->weights.p;
	b->host = calloc(1, b->used + GPU_ALIGN);
	if (!b->host)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a copy of the weights");
	st = gpu_lower(b, g, err);
	if (st == DFX_OK)
		st = rt->ops->upload(rt, g->weights.p, b->host, b->used + GPU_ALIGN, err);
	free(b->host);
	b->host = NULL;
	if (st == DFX_OK)
		p->nprogram++;
	gpu_progress(p->dev);
	return st;
}

/* The program of type; to fp16 the one in bf16, which alone remains if the weights exceed fp16. */
static DfxStatus
plan_programs(DfxPlan *p, GpuBuild *b, GpuType type, DfxErr *err)
{
	DfxStatus st = plan_program(p, b, type, err);

	if (st == DFX_OK && b->overflow)
	{
		dfx_log('W', "weights of this model exceed fp16: it runs in bf16");
		plan_free_program(p, &p->program[--p->nprogram]);
	}
	if (st == DFX_OK && type == GPU_F16)
		st = plan_program(p, b, GPU_BF16, err);
	return st;
}

/* ---- graphs ---- */

/* Wait for what a program or a graph has put into a lane's results, and give way. */
static DfxStatus
plan_settle(DfxPlan *p, int l, DfxErr *err)
{
	GpuLane *lane = &p->lane[l];
	GpuRt *rt = p->dev->rt;
	DfxStatus st = rt->ops->download(rt, lane->out_host, lane->out.p, GPU_BAD_BYTES, err);

	gpu_give_way(p->dev);
	return st;
}

/* The graph runs as it will later, but for its copies: those take a lane, and compiling has none. */
static DfxStatus
plan_capture(DfxPlan *p, int l, int bucket, DfxErr *err)
{
	GpuRt *rt = p->dev->rt;
	GpuLane *lane = &p->lane[l];
	DfxErr ended;
	DfxStatus st = rt->ops->capture(rt, err), end;

	if (st != DFX_OK)
		return st;
	st = gpu_program_run(p, &p->program[0], bucket, l, err);
	end = rt->ops->captured(rt, &lane->graph[bucket], st == DFX_OK ? err : &ended);
	st = st == DFX_OK ? end : st;
	if (st == DFX_OK)
		st = rt->ops->replay(rt, lane->graph[bucket], err);
	return st == DFX_OK ? plan_settle(p, l, err) : st;
}

/* Run a program as it is: a kernel that is not loaded yet cannot be while a graph is captured. */
static DfxStatus
plan_warm(DfxPlan *p, const GpuProgram *g, int bucket, DfxErr *err)
{
	DfxStatus st = gpu_program_run(p, g, bucket, 0, err);

	return st == DFX_OK ? plan_settle(p, 0, err) : st;
}

static DfxStatus
plan_bucket(DfxPlan *p, int bucket, DfxErr *err)
{
	DfxStatus st = plan_warm(p, &p->program[0], bucket, err);

	for (int l = 0; st == DFX_OK && l < GPU_LANES; l++)
		st = plan_capture(p, l, bucket, err);
	return st;
}

/* Give a bucket's products back to our own kernels; false: they had them all. */
static bool
plan_disown(DfxPlan *p, int bucket)
{
	bool changed = false;

	for (int i = 0; i < p->program[0].nstep; i++)
	{
		GpuChoice *choice = &p->program[0].step[i].choice[bucket];

		changed = changed || choice->lib;
		choice->lib = NULL;
	}
	for (int l = 0; l < GPU_LANES; l++)
	{
		if (p->lane[l].graph[bucket])
			p->dev->rt->ops->release_graph(p->dev->rt, p->lane[l].graph[bucket]);
		p->lane[l].graph[bucket] = NULL;
	}
	return changed;
}

/* What a library cannot do within a network or a graph, though it could when tried, our kernels do. */
static DfxStatus
plan_graphs(DfxPlan *p, DfxErr *err)
{
	DfxStatus st = gpu_choose(p, &p->program[0], err);

	if (st == DFX_OK && p->nprogram > 1)
		st = plan_warm(p, &p->program[1], p->nbucket - 1, err);
	for (int b = 0; st == DFX_OK && b < p->nbucket; b++)
	{
		st = plan_bucket(p, b, err);
		if (st == DFX_OK || st == DFX_ELOST || st == DFX_ENOMEM || !plan_disown(p, b))
			continue;
		dfx_log('W', "libraries fail at batch %d, own kernels take over: %s", 1 << b, err->msg);
		st = plan_bucket(p, b, err);
	}
	return st;
}

/* ---- the whole ---- */

/* One attempt with buckets up to nbucket; on failure the plan holds nothing. */
static DfxStatus
plan_try(DfxPlan *p, GpuBuild *b, GpuType type, int nbucket, DfxErr *err)
{
	DfxStatus st = gpu_build_memory(b, 1 << (nbucket - 1), err);

	p->nbucket = nbucket;
	if (st == DFX_OK)
		st = gpu_alloc(p->dev, b->mem.bytes + GPU_ALIGN, &p->arena, err);
	b->arena = p->arena.p;
	for (int l = 0; st == DFX_OK && l < GPU_LANES; l++)
		st = plan_lane(p, &p->lane[l], err);
	if (st == DFX_OK)
		st = plan_programs(p, b, type, err);
	if (st == DFX_OK)
		st = plan_graphs(p, err);
	if (st != DFX_OK)
		plan_clear(p);
	return st;
}

/* Sizes of what goes in and out. */
static void
plan_measure(DfxPlan *p, const DfxGraph *g)
{
	const DfxValue *in = &g->val[g->input];
	bool rgb8 = g->op[in->def].u.input.rgb8;

	p->image_bytes = (size_t) in->c * (size_t) in->h * (size_t) in->w * (rgb8 ? 1 : sizeof(float));
	p->nout = g->nout;
	for (int i = 0; i < g->nout; i++)
	{
		const DfxValue *v = &g->val[g->out[i]];

		p->out_floats[i] = (size_t) v->c * (size_t) v->h * (size_t) v->w;
	}
}

static DfxStatus
plan_build(DfxPlan *p, const DfxGraph *g, GpuType type, DfxErr *err)
{
	GpuBuild b;
	DfxStatus st;
	int nbucket = 1;

	while (nbucket < GPU_BUCKETS && 1 << (nbucket - 1) < p->max_batch)
		nbucket++;

	st = gpu_build_open(&b, p->dev, g, type, err);
	if (st == DFX_OK)
		st = plan_try(p, &b, type, nbucket, err);
	while (st == DFX_ENOMEM && --nbucket > 0)
	{
		dfx_log('W', "not enough device memory for batches of %d: trying %d", 1 << nbucket,
		        1 << (nbucket - 1));
		st = plan_try(p, &b, type, nbucket, err);
	}
	gpu_build_close(&b);
	return st;
}

DfxStatus
gpu_compile(DfxDev *dev, const DfxGraph *g, const DfxPlanOpts *opts, DfxPlan **plan, DfxErr *err)
{
	const GpuType type[DFX_PRECISION_COUNT] = {[DFX_PRECISION_AUTO] = opts->train ? GPU_F32 : GPU_F16,
	                                           [DFX_PRECISION_FP32] = GPU_F32,
	                                           [DFX_PRECISION_FP16] = GPU_F16,
	                                           [DFX_PRECISION_BF16] = GPU_BF16};
	DfxStatus st = plan_check(g, opts, err);
	DfxPlan *p;

	*plan = NULL;
	if (st != DFX_OK)
		return st;
	p = calloc(1, sizeof *p);
	if (!p)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	p->dev = dev;
	p->max_batch = opts->max_batch;
	gpu_turn_take(dev);
	plan_measure(p, g);
	if (opts->train)
		st = gpu_train_compile(p, g, opts, type[opts->precision], err);
	else
		st = plan_build(p, g, type[opts->precision], err);
	if (st != DFX_OK && p->train)
		gpu_train_free(p);
	gpu_turn_end(dev);
	if (st != DFX_OK)
		free(p);
	else
		*plan = p;
	return st;
}
