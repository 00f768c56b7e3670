/*
 * train_plan.c
 *	  From a graph to a plan for training: what is rewritten, how long each
 *	  value and gradient is needed, and the memory for all of it.
 *
 * Moments of the memory plan: op i runs forward at i and backward at
 * 2 nop - i; outputs and the loss lie between, at nop; the input's gradient is
 * read at 2 nop + 1.  Steps are lowered twice, first to learn how much room
 * they need besides, then with addresses.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/train.h"
#include "nn/training.h"

/* ---- operands ---- */

int
gpu_train_ld(const GpuTrainBuild *b, DfxVal v)
{
	return (b->val[b->val[v].root].c + 7) / 8 * 8;
}

int
gpu_train_rows(const GpuTrainBuild *b, DfxVal v)
{
	return b->val[v].h * b->val[v].w;
}

static void *
train_address(const GpuTrainBuild *b, DfxVal v, size_t off)
{
	return b->t->arena.p + off + (size_t) b->val[v].c0 * gpu_type_size(b->type);
}

void *
gpu_train_at(const GpuTrainBuild *b, DfxVal v)
{
	return train_address(b, v, b->off[b->val[v].root]);
}

void *
gpu_train_grad_at(const GpuTrainBuild *b, DfxVal v)
{
	return train_address(b, v, b->off[b->g.nval + b->val[v].root]);
}

static size_t
train_image_bytes(const GpuTrainBuild *b, DfxVal v)
{
	return (size_t) gpu_train_rows(b, v) * (size_t) gpu_train_ld(b, v) * gpu_type_size(b->type);
}

/* ---- room ---- */

void *
gpu_train_scratch(GpuTrainBuild *b, size_t bytes)
{
	b->scratch_bytes = bytes > b->scratch_bytes ? bytes : b->scratch_bytes;
	return b->t->scratch.p;
}

static char *
train_take(char *from, size_t *used, size_t bytes)
{
	char *at = from + *used;

	*used += (bytes + GPU_ALIGN - 1) / GPU_ALIGN * GPU_ALIGN;
	return at;
}

float *
gpu_train_stats(GpuTrainBuild *b, size_t floats)
{
	return (float *) (void *) train_take(b->t->stats.p, &b->stats_bytes, floats * sizeof(float));
}

void *
gpu_train_copy(GpuTrainBuild *b, size_t elements)
{
	return train_take(b->t->copy.p, &b->copy_bytes, elements * gpu_type_size(b->type));
}

/* ---- steps ---- */

GpuTrainStep *
gpu_train_step(GpuTrainBuild *b, GpuTrainList *list, GpuKernel kernel, int op)
{
	static GpuTrainStep nowhere;

	if (list->n == list->cap)
	{
		int cap = list->cap ? 2 * list->cap : 256;
		GpuTrainStep *grown = realloc(list->step, (size_t) cap * sizeof *grown);

		if (!grown)
		{
			b->failed = true;
			return &nowhere;
		}
		list->step = grown;
		list->cap = cap;
	}
	list->step[list->n] = (GpuTrainStep){.kernel = kernel, .op = op, .when = TRAIN_BOTH};
	list->step[list->n].choice.kernel = kernel;
	return &list->step[list->n++];
}

bool
gpu_train_wants(const GpuTrainBuild *b, DfxVal v)
{
	return v != b->g.input || b->wants_input;
}

static void
train_clear(GpuTrainBuild *b, DfxVal root, int op)
{
	GpuTrainStep *s = gpu_train_step(b, &b->t->backward, GPU_KERNEL_COUNT, op);

	s->clear = b->t->arena.p + b->off[b->g.nval + root];
	s->clear_bytes = train_image_bytes(b, root);
}

bool
gpu_train_adds(GpuTrainBuild *b, DfxVal v, int op)
{
	DfxVal root = b->val[v].root;
	bool seen = b->seen[root];

	b->seen[root] = true;
	if (!seen && b->shared[root])
		train_clear(b, root, op);
	return seen || b->shared[root];
}

void
gpu_train_settle(GpuTrainBuild *b, DfxVal v, int op)
{
	DfxVal root = b->val[v].root;

	if (!b->seen[root])
		train_clear(b, root, op);
	b->seen[root] = true;
}

bool
gpu_train_adds_partly(GpuTrainBuild *b, DfxVal v, int op)
{
	if (!gpu_train_adds(b, v, op))
		train_clear(b, v, op);
	return true;
}

/* ---- the copy of the graph ---- */

static DfxStatus
train_copy_graph(GpuTrainBuild *b, const DfxGraph *g, DfxErr *err)
{
	size_t nop = (size_t) g->nop + 1, nval = (size_t) g->nval + 1;

	b->g = *g;
	b->op = malloc(nop * sizeof *b->op);
	b->val = malloc(nval * sizeof *b->val);
	b->dead = calloc(nop, sizeof *b->dead);
	b->shared = calloc(nval, sizeof *b->shared);
	b->seen = calloc(nval, sizeof *b->seen);
	b->off = calloc(2 * nval, sizeof *b->off);
	if (!b->op || !b->val || !b->dead || !b->shared || !b->seen || !b->off)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	memcpy(b->op, g->op, (size_t) g->nop * sizeof *b->op);
	memcpy(b->val, g->val, (size_t) g->nval * sizeof *b->val);
	b->g.op = b->op;
	b->g.val = b->val;
	return DFX_OK;
}

/* Only convolutions can do without a gradient of what they read. */
static void
train_find_wants(GpuTrainBuild *b)
{
	b->wants_input = b->t->input_f32;
	for (int i = 0; i < b->g.nop; i++)
		for (int j = 0; j < b->op[i].nin; j++)
			if (b->op[i].in[j] == b->g.input && b->op[i].kind != DFX_OP_CONV)
				b->wants_input = true;
}

/* How many read v, outputs included; *reader is the last op. */
static int
train_readers(const GpuTrainBuild *b, DfxVal v, int *reader)
{
	int n = 0;

	for (int i = 0; i < b->g.nop; i++)
		for (int j = 0; j < b->op[i].nin; j++)
			if (b->op[i].in[j] == v)
			{
				*reader = i;
				n++;
			}
	for (int i = 0; i < b->g.nout; i++)
		n += b->g.out[i] == v;
	return n;
}

/*
 * DenseNet's transitions pool first, and an activation that alone reads a
 * BatchNorm becomes part of it: what lies between is never stored.
 */
static void
train_rewrite(GpuTrainBuild *b)
{
	for (int i = 0; i < b->g.nop; i++)
	{
		DfxOp *op = &b->op[i];
		int reader = -1;

		if (op->kind == DFX_OP_POOL && train_readers(b, op->in[0], &reader) == 1)
			dfx_pool_first(&b->g, &b->op[b->val[op->in[0]].def], op);
	}
	for (int i = 0; i < b->g.nop; i++)
	{
		DfxOp *op = &b->op[i];
		int reader = -1;

		if (op->kind != DFX_OP_BN || train_readers(b, op->out, &reader) != 1 || reader < 0 ||
		    b->op[reader].kind != DFX_OP_ACT)
			continue;
		op->epi_act = b->op[reader].u.act;
		op->out = b->op[reader].out;
		b->val[op->out].def = i;
		b->dead[reader] = true;
		b->op[reader].nin = 0;
	}
}

static DfxStatus
train_place(GpuTrainBuild *b, DfxErr *err)
{
	DfxVal *absorbed = malloc(((size_t) b->g.nop + 1) * sizeof *absorbed);
	DfxStatus st;

	if (!absorbed)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	for (int i = 0; i < b->g.nop; i++)
		absorbed[i] = -1;
	st = dfx_graph_place(&b->g, absorbed, err);
	free(absorbed);
	for (int v = 0; st == DFX_OK && v < b->g.nval; v++)
		if (b->val[v].root != v)
			b->shared[b->val[v].root] = true;
	return st;
}

/* ---- lifetimes ---- */

static void
train_touch(const GpuTrainBuild *b, DfxMemBlock *block, DfxVal v, int when)
{
	DfxMemBlock *k = &block[b->val[v].root];

	k->first = when < k->first ? when : k->first;
	k->last = when > k->last ? when : k->last;
}

/* Whether op's gradient is computed from its j-th input, or from its output. */
static bool
train_keeps_input(const DfxOp *op)
{
	switch (op->kind)
	{
		case DFX_OP_CONV:
		case DFX_OP_LINEAR:
		case DFX_OP_BN:
		case DFX_OP_LAYERNORM:
		case DFX_OP_ATTN:
		case DFX_OP_MUL:
			return true;
		case DFX_OP_ACT:
			return op->u.act != DFX_ACT_RELU;
		case DFX_OP_POOL:
			return !op->u.pool.avg;
		default:
			return false;
	}
}

static void
train_lifetimes(const GpuTrainBuild *b, DfxMemBlock *block)
{
	DfxMemBlock *grad = block + b->g.nval;
	int nop = b->g.nop;

	for (int v = 0; v < 2 * b->g.nval; v++)
		block[v] = (DfxMemBlock){.id = v, .first = INT_MAX, .last = -1};
	for (int i = 0; i < nop; i++)
	{
		const DfxOp *op = &b->op[i];

		if (b->dead[i])
			continue;
		train_touch(b, block, op->out, i);
		train_touch(b, grad, op->out, 2 * nop - i);
		if (op->kind == DFX_OP_ACT && op->u.act == DFX_ACT_RELU)
			train_touch(b, block, op->out, 2 * nop - i);
		for (int j = 0; j < op->nin; j++)
		{
			train_touch(b, block, op->in[j], i);
			if (train_keeps_input(op))
				train_touch(b, block, op->in[j], 2 * nop - i);
			if (gpu_train_wants(b, op->in[j]))
				train_touch(b, grad, op->in[j], 2 * nop - i);
		}
	}
	for (int i = 0; i < b->g.nout; i++)
	{
		train_touch(b, block, b->g.out[i], nop);
		train_touch(b, grad, b->g.out[i], nop);
	}
	if (b->t->input_f32)
		train_touch(b, grad, b->g.input, 2 * nop + 1);
}

static DfxStatus
train_memory(GpuTrainBuild *b, DfxErr *err)
{
	int all = 2 * b->g.nval, n = 0;
	DfxMemBlock *block = malloc(((size_t) all + 1) * sizeof *block);
	DfxStatus st;

	if (!block)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	train_lifetimes(b, block);
	for (int v = 0; v < all; v++)
	{
		if (block[v].last < 0)
			continue;
		block[n] = block[v];
		block[n].size = (size_t) b->max_batch * train_image_bytes(b, v % b->g.nval);
		n++;
	}
	st = dfx_plan_blocks(block, n, &b->arena_bytes, err);
	for (int i = 0; st == DFX_OK && i < n; i++)
		b->off[block[i].id] = block[i].off;
	free(block);
	return st;
}

/* ---- compile ---- */

static void
train_lower_all(GpuTrainBuild *b)
{
	GpuTrain *t = b->t;

	t->forward.n = t->backward.n = t->weights.n = 0;
	b->scratch_bytes = b->stats_bytes = b->copy_bytes = 0;
	memset(b->seen, 0, (size_t) b->g.nval * sizeof *b->seen);
	gpu_train_lower(b);
}

static size_t
train_io_bytes(const GpuTrainBuild *b)
{
	size_t in = (size_t) b->max_batch * b->plan->image_bytes;

	return (in + GPU_ALIGN - 1) / GPU_ALIGN * GPU_ALIGN +
	       gpu_out_offset(b->plan, b->plan->nout, b->max_batch);
}

/* DFX_ENOMEM with what it takes and what there is. */
static DfxStatus
train_no_room(const GpuTrainBuild *b, size_t bytes, DfxErr *err)
{
	const DfxDev *dev = b->dev;

	dfx_fail(
	    err, DFX_ENOMEM,
	    "training with a batch of %d takes %zu MB of device memory, and %llu of the %llu MB allowed are free",
	    b->max_batch, (bytes >> 20) + 1, (unsigned long long) ((dev->limit - dev->used) >> 20),
	    (unsigned long long) (dev->limit >> 20));
	dfx_hint(err, "Take a smaller batch, %d for example, or raise dfx.gpu_memory.",
	         b->max_batch > 1 ? b->max_batch / 2 : 1);
	return DFX_ENOMEM;
}

static DfxStatus
train_allocate(GpuTrainBuild *b, DfxErr *err)
{
	GpuTrain *t = b->t;
	const struct
	{
		GpuMem *mem;
		size_t bytes;
	} want[] = {
	    {&t->arena, b->arena_bytes},     {&t->io, train_io_bytes(b)}, {&t->param, gpu_train_params_bytes(t)},
	    {&t->scratch, b->scratch_bytes}, {&t->stats, b->stats_bytes}, {&t->copy, b->copy_bytes}};
	size_t n = sizeof want / sizeof want[0], bytes = 0;
	DfxStatus st = DFX_OK;

	for (size_t i = 0; i < n; i++)
		bytes += want[i].bytes + GPU_ALIGN;
	if (bytes > b->dev->limit - b->dev->used)
		return train_no_room(b, bytes, err);
	for (size_t i = 0; st == DFX_OK && i < n; i++)
		st = gpu_alloc(b->dev, want[i].bytes + GPU_ALIGN, want[i].mem, err);
	if (st == DFX_ENOMEM) /* what others hold of the device is not known here */
		dfx_hint(err, "Training with a batch of %d takes %zu MB in all. Take a smaller one, %d for example.",
		         b->max_batch, (bytes >> 20) + 1, b->max_batch > 1 ? b->max_batch / 2 : 1);
	t->io_out = t->io.p + (train_io_bytes(b) - gpu_out_offset(b->plan, b->plan->nout, b->max_batch));
	/* Copies are padded with zeros that no step writes. */
	if (st == DFX_OK)
		st = b->dev->rt->ops->clear(b->dev->rt, t->copy.p, t->copy.bytes, err);
	return st;
}

static DfxStatus
train_check(const DfxGraph *g, DfxErr *err)
{
	for (int i = 0; i < g->nop; i++)
		if (g->op[i].kind == DFX_OP_ATTN && g->val[g->op[i].out].h > GPU_MAX_TOKENS)
			return dfx_fail(err, DFX_EUNSUPPORTED, "the CUDA backend cannot train attention over %d tokens",
			                g->val[g->op[i].out].h);
	return dfx_graph_is_raw(g)
	           ? DFX_OK
	           : dfx_fail(err, DFX_EINVAL, "a plan for training needs a graph that is not optimised");
}

static DfxStatus
train_build(GpuTrainBuild *b, const DfxGraph *g, DfxErr *err)
{
	DfxStatus st = train_copy_graph(b, g, err);

	if (st == DFX_OK)
	{
		train_rewrite(b);
		train_find_wants(b);
	}
	if (st == DFX_OK)
		st = train_place(b, err);
	if (st == DFX_OK)
		st = gpu_train_params_place(b->t, g, err);
	if (st == DFX_OK)
		st = train_memory(b, err);
	if (st != DFX_OK)
		return st;
	train_lower_all(b);
	st = train_allocate(b, err);
	if (st == DFX_OK)
		st = gpu_train_params_set(b->plan, g, err);
	if (st != DFX_OK)
		return st;
	train_lower_all(b);
	if (b->failed)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	return gpu_train_choose(b->plan, err);
}

DfxStatus
gpu_train_compile(DfxPlan *plan, const DfxGraph *g, const DfxPlanOpts *opts, GpuType type, DfxErr *err)
{
	GpuTrainBuild b = {.dev = plan->dev, .plan = plan, .type = type, .max_batch = opts->max_batch};
	DfxStatus st = train_check(g, err);

	if (st != DFX_OK)
		return st;
	b.t = plan->train = calloc(1, sizeof *b.t);
	if (!b.t)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	b.t->type = type;
	b.t->input_f32 = !g->op[g->val[g->input].def].u.input.rgb8;
	st = train_build(&b, g, err);
	free(b.op);
	free(b.val);
	free(b.dead);
	free(b.shared);
	free(b.seen);
	free(b.off);
	return st;
}

void
gpu_train_free(DfxPlan *plan)
{
	GpuTrain *t = plan->train;
	GpuMem *const mem[] = {&t->arena, &t->io, &t->param, &t->copy, &t->stats, &t->scratch};

	for (size_t i = 0; i < sizeof mem / sizeof mem[0]; i++)
		gpu_free(plan->dev, mem[i]);
	free(t->forward.step);
	free(t->backward.step);
	free(t->weights.step);
	free(t->param_off);
	free(t->param_len);
	free(t->param_trained);
	free(t);
	plan->train = NULL;
}

size_t
gpu_train_bytes(const DfxPlan *plan)
{
	const GpuTrain *t = plan->train;

	return t->arena.bytes + t->io.bytes + t->param.bytes + t->copy.bytes + t->stats.bytes + t->scratch.bytes;
}
