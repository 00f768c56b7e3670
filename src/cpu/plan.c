/*
 * plan.c
 *	  From a graph to a plan: compile, release, bytes.
 *
 * All of it runs in worker 0: oneDNN fixes the number of threads of a
 * primitive when it is created, and the calling thread must never open an
 * OpenMP team.  A plan holds the weights once for all workers and buckets, and
 * per worker one arena (values, then the library's scratchpad).
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/train.h"

/*
 * Images that go through the network together in one worker.  More do not
 * pay: they leave the caches.  One by one where values are ranges of larger
 * ones (layout.c).  The buckets do not depend on max_batch, so that a result
 * does not either: the command line and the server give the same bits.  On
 * integers the arithmetic is so quick that what four images have between them
 * is felt leaving the L2 cache.
 */
static const int plan_buckets[CPU_MAX_BUCKET] = {4, 2, 1};
#define PLAN_INT8_BUCKET 2

DfxStatus
cpu_fail_dnnl(dnnl_status_t st, const char *what, DfxErr *err)
{
	switch (st)
	{
		case dnnl_success:
			return DFX_OK;
		case dnnl_out_of_memory:
			return dfx_fail(err, DFX_ENOMEM, "oneDNN is out of memory for %s", what);
		case dnnl_unimplemented:
			return dfx_fail(err, DFX_EUNSUPPORTED, "oneDNN has no implementation for %s", what);
		default:
			return dfx_fail(err, DFX_EDEVICE, "oneDNN failed with status %d for %s", (int) st, what);
	}
}

/* Room for one more element of size bytes in a growing array; false: out of memory. */
static bool
plan_grow(void **array, int n, int *cap, size_t size)
{
	int more = *cap > 0 ? *cap * 2 : 256;
	void *grown;

	if (n < *cap)
		return true;
	grown = realloc(*array, (size_t) more * size);
	if (grown == NULL)
		return false;
	*array = grown;
	*cap = more;
	return true;
}

void *
cpu_plan_alloc(DfxPlan *p, size_t bytes, DfxErr *err)
{
	void *block = NULL;
	size_t size = (bytes + CPU_ALIGN - 1) / CPU_ALIGN * CPU_ALIGN + CPU_ALIGN;

	if (plan_grow((void **) &p->block, p->nblock, &p->block_cap, sizeof *p->block))
		block = aligned_alloc(CPU_ALIGN, size);
	if (block == NULL)
	{
		dfx_fail(err, DFX_ENOMEM, "out of memory for %zu bytes of a plan", bytes);
		return NULL;
	}
	memset(block, 0, size);
	p->block[p->nblock++] = block;
	p->block_bytes += size;
	return block;
}

DfxStatus
cpu_plan_memory(DfxPlan *p, DnnlConstMd md, void *handle, dnnl_memory_t *mem, DfxErr *err)
{
	dnnl_status_t st = dnnl_out_of_memory;

	if (plan_grow((void **) &p->mem, p->nmem, &p->mem_cap, sizeof *p->mem))
		st = dnnl_memory_create(mem, md, p->dev->engine, handle);
	if (st != dnnl_success)
		return cpu_fail_dnnl(st, "a memory object", err);
	p->mem[p->nmem++] = *mem;
	return DFX_OK;
}

void
cpu_release(DfxPlan *p)
{
	if (p == NULL)
		return;
	cpu_train_free(p->train, p->dev->threads);
	for (int i = 0; i < p->nstep; i++)
	{
		for (int k = 0; k < CPU_MAX_BUCKET; k++)
			if (p->step[i].prim[k].prim)
				dnnl_primitive_destroy(p->step[i].prim[k].prim);
		free(p->step[i].in);
	}
	for (int i = 0; i < p->nmem; i++)
		dnnl_memory_destroy(p->mem[i]);
	for (int i = 0; i < p->nblock; i++)
		free(p->block[i]);
	for (int w = 0; p->arena && w < p->dev->threads; w++)
		free(p->arena[w]);
	cpu_strands_free(p->strands);
	free(p->arena);
	free(p->step);
	free(p->mem);
	free(p->block);
	free(p);
}

size_t
cpu_bytes(const DfxPlan *p)
{
	return sizeof *p + cpu_train_bytes(p) + p->block_bytes + p->arena_bytes * (size_t) p->dev->threads +
	       (size_t) p->nstep * sizeof *p->step;
}

/*
 * Whether values have the types that an operation's loops are for.  In the
 * networks there are they do: a mixture takes an operation that makes many
 * pixels of one.
 */
static bool
plan_types_fit(const CpuStep *s)
{
	CpuType in = s->nin > 0 ? s->in[0].type : s->out.type;
	bool same = in == s->out.type;

	switch (s->kind)
	{
		case DFX_OP_INPUT:
		case DFX_OP_CONV:
		case DFX_OP_LINEAR:
		case DFX_OP_CONCAT:
		case DFX_OP_STACK:
		case DFX_OP_TAKE:
		case DFX_OP_DROP:
			return true;
		case DFX_OP_POOL:
			return s->out.type == (cpu_pixels(&s->out) == 1 ? CPU_F32 : in);
		case DFX_OP_MUL:
			return same && s->in[1].type == (cpu_pixels(&s->in[1]) == 1 ? CPU_F32 : in);
		default:
			for (int j = 1; j < s->nin; j++)
				same = same && s->in[j].type == in;
			return same;
	}
}

static DfxStatus
plan_step(CpuBuild *b, const DfxOp *op, DfxErr *err)
{
	DfxPlan *p = b->plan;
	CpuStep *s = &p->step[p->nstep];

	if (!dfx_cpu_backend.supports(b->dev, &b->g, op))
		return dfx_fail(err, DFX_EUNSUPPORTED, "the CPU backend cannot run the operation %s in %s%s",
		                dfx_op_info[op->kind].name, cpu_type_name(b->type),
		                op->epi_act || op->epi_add >= 0 || op->epi_scale >= 0 ? " with its epilogue" : "");
	*s = (CpuStep){.kind = op->kind, .op = (int) (op - b->g.op), .nin = op->nin, .out = b->view[op->out]};
	s->in = calloc((size_t) op->nin + 1, sizeof *s->in);
	if (s->in == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	p->nstep++;
	for (int j = 0; j < op->nin; j++)
		s->in[j] = b->view[op->in[j]];
	if (cpu_int8_wants(b, op))
		return cpu_int8_step(b, op, s, err);
	if (cpu_mb_wants(b, s->op))
		return cpu_mb_step(b, s->op, s, err);
	if (!plan_types_fit(s))
		return dfx_fail(err, DFX_EUNSUPPORTED,
		                "the CPU backend cannot run the operation %s in %s on %dx%d pixels",
		                dfx_op_info[op->kind].name, cpu_type_name(b->type), s->in[0].w, s->in[0].h);
	if (op->kind == DFX_OP_CONV || op->kind == DFX_OP_LINEAR)
		return cpu_conv_step(b, op, s, err);
	if (op->kind == DFX_OP_ACT)
		return cpu_act_step(b, op, s, err);
	if (op->kind == DFX_OP_TOKENS || op->kind == DFX_OP_LAYERNORM || op->kind == DFX_OP_ATTN)
		return cpu_tokens_step(b, op, s, err);
	return cpu_own_step(b, op, s, err);
}

static DfxStatus
plan_steps(CpuBuild *b, DfxErr *err)
{
	b->plan->step = calloc((size_t) b->g.nop + 1, sizeof *b->plan->step);
	if (b->plan->step == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	for (int i = 0; i < b->g.nop; i++)
	{
		const DfxOp *op = &b->g.op[i];
		DfxStatus st = op->placed ? DFX_OK : plan_step(b, op, err);

		if (st != DFX_OK)
			return st;
		cpu_progress(b->dev);
	}
	return DFX_OK;
}

/* A network walks through tens of megabytes again and again. */
char *
cpu_arena_new(size_t bytes, DfxErr *err)
{
	char *arena = aligned_alloc(CPU_HUGE, bytes);

	if (arena == NULL)
		dfx_fail(err, DFX_ENOMEM, "out of memory for a CPU arena of %zu bytes", bytes);
	else
		madvise(arena, bytes, MADV_HUGEPAGE); /* advice only */
	return arena;
}

static DfxStatus
plan_arenas(CpuBuild *b, DfxErr *err)
{
	DfxPlan *p = b->plan;

	p->scratch_off = (b->mem.bytes + 4095) / 4096 * 4096;
	p->arena_bytes = (p->scratch_off + b->scratch + 4096 + CPU_HUGE - 1) / CPU_HUGE * CPU_HUGE;
	p->arena = calloc((size_t) p->dev->threads, sizeof *p->arena);
	for (int w = 0; p->arena && w < p->dev->threads; w++)
	{
		p->arena[w] = cpu_arena_new(p->arena_bytes, err);
		if (p->arena[w] == NULL)
			return DFX_ENOMEM;
	}
	return p->arena ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
}

static DfxStatus
plan_build(CpuBuild *b, const DfxGraph *g, int largest, DfxErr *err)
{
	DfxPlan *p = b->plan;
	DfxStatus st = cpu_layout(b, g, err);

	if (st != DFX_OK)
		return st;
	for (int k = 0; k < CPU_MAX_BUCKET; k++)
		if (plan_buckets[k] == 1 || (plan_buckets[k] <= largest && !b->placed))
			p->bucket[p->nbucket++] = plan_buckets[k];
	st = cpu_layout_memory(b, err);
	if (st == DFX_OK)
		st = plan_steps(b, err);
	if (st == DFX_OK)
		st = cpu_strands_find(b, &p->strands, err);
	if (st == DFX_OK)
		st = plan_arenas(b, err);
	for (int i = 0; st == DFX_OK && i < p->nstep; i++)
		if (p->step[i].bind)
			st = p->step[i].bind(p, &p->step[i], err);
	p->nout = g->nout;
	for (int i = 0; i < g->nout; i++)
		p->out[i] = b->view[g->out[i]];
	return st;
}

static DfxStatus
plan_check(const DfxDev *dev, const DfxGraph *g, const DfxPlanOpts *opts, DfxErr *err)
{
	DfxDevInfo info;

	if (opts->max_batch < 1)
		return dfx_fail(err, DFX_EINVAL, "a batch of %d images", opts->max_batch);
	if ((unsigned) opts->precision >= DFX_PRECISION_COUNT)
		return dfx_fail(err, DFX_EUNSUPPORTED, "the CPU backend does not compute in an unknown precision");
	dfx_cpu_backend.info(dev, &info);
	if (!info.precision[opts->precision])
	{
		dfx_fail(err, DFX_EUNSUPPORTED, "the CPU backend does not compute in %s%s%s",
		         dfx_precision_name[opts->precision], info.why_not[opts->precision] ? ": " : "",
		         info.why_not[opts->precision] ? info.why_not[opts->precision] : "");
		if (opts->train)
			dfx_hint(err, "Train in fp32.");
		return DFX_EUNSUPPORTED;
	}
	if (opts->train && opts->precision > DFX_PRECISION_FP32 && opts->precision != DFX_PRECISION_BF16)
		return dfx_fail(err, DFX_EUNSUPPORTED, "the CPU backend does not train in %s",
		                dfx_precision_name[opts->precision]);
	if (g->err.code != DFX_OK || g->input < 0 || g->nop == 0)
		return dfx_fail(err, DFX_EINVAL, "the graph is not complete");
	for (int i = 0; i < g->nparam; i++)
		if (g->param[i].data == NULL)
			return dfx_fail(err, DFX_EWEIGHTS, "parameter %s has no value", g->param[i].name);
	return DFX_OK;
}

typedef struct PlanJob
{
	DfxDev *dev;
	const DfxGraph *g;
	const DfxPlanOpts *opts;
	DfxPlan *plan;
	DfxStatus st;
	DfxErr *err;
} PlanJob;

static size_t
plan_image_bytes(const DfxGraph *g)
{
	const DfxValue *in = &g->val[g->input];
	bool rgb8 = g->op[in->def].u.input.rgb8;

	return (size_t) in->c * (size_t) in->h * (size_t) in->w * (rgb8 ? 1 : sizeof(float));
}

/* Of values; in int8, of those that are not in steps. */
static CpuType
plan_type(const DfxDev *dev, DfxPrecision precision)
{
	bool bf16 = precision == DFX_PRECISION_BF16 || (precision == DFX_PRECISION_INT8 && dev->bf16);

	return bf16 ? CPU_BF16 : CPU_F32;
}

/* One attempt; on failure the plan is gone. */
static void
plan_try(PlanJob *job, CpuBuild *b, int largest)
{
	job->st = DFX_ENOMEM;
	b->plan = job->plan = calloc(1, sizeof *job->plan);
	if (b->plan == NULL)
	{
		dfx_fail(job->err, DFX_ENOMEM, "out of memory for a plan");
		return;
	}
	b->plan->dev = job->dev;
	b->plan->max_batch = job->opts->max_batch;
	b->plan->int8 = b->int8;
	b->plan->image_bytes = plan_image_bytes(job->g);
	job->st = job->opts->train ? cpu_train_build(job->plan, job->g, job->opts->precision, job->err)
	                           : plan_build(b, job->g, largest, job->err);
	cpu_layout_free(b);
	if (job->st != DFX_OK)
	{
		cpu_release(job->plan);
		job->plan = NULL;
	}
}

/*
 * Where the library would treat batch sizes unlike each other, images go one
 * by one; where it has nothing for a convolution in a blocked layout (few
 * channels), the whole network goes nhwc.
 */
static void
plan_job(void *arg, int worker)
{
	PlanJob *job = arg;
	int largest = job->opts->precision == DFX_PRECISION_INT8 ? PLAN_INT8_BUCKET : plan_buckets[0];
	bool nhwc = false;

	(void) worker;
	for (;;)
	{
		CpuBuild b = {.dev = job->dev,
		              .int8 = job->opts->precision == DFX_PRECISION_INT8,
		              .nhwc = nhwc,
		              .type = plan_type(job->dev, job->opts->precision)};

		plan_try(job, &b, largest);
		if (job->st != DFX_EUNSUPPORTED)
			return;
		if (b.uneven && largest > 1)
			largest = 1;
		else if (b.no_conv && !b.nhwc)
			nhwc = true;
		else
			return;
	}
}

DfxStatus
cpu_compile(DfxDev *dev, const DfxGraph *g, const DfxPlanOpts *opts, DfxPlan **plan, DfxErr *err)
{
	PlanJob job = {.dev = dev, .g = g, .opts = opts, .err = err};
	DfxStatus st = plan_check(dev, g, opts, err);

	*plan = NULL;
	if (st != DFX_OK)
		return st;
	cpu_workers_run(dev->workers, 1, plan_job, &job);
	*plan = job.plan;
	return job.st;
}

int
dfx_cpu_plan_steps(const DfxPlan *plan)
{
	return plan->train ? cpu_train_impls(plan->train) : plan->nstep;
}

const char *
dfx_cpu_plan_impl(const DfxPlan *plan, int step)
{
	if (plan->train)
		return cpu_train_impl(plan->train, step);
	return step >= 0 && step < plan->nstep && plan->step[step].impl[0] ? plan->step[step].impl : NULL;
}
