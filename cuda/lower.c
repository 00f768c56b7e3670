/*
 * lower.c
 *	  From a graph to steps: which kernel, on what, with which strides.
 *
 * Values lie as rows of channels (kernels.h).  A root's rows are a multiple of
 * 8 channels apart, so that a row begins at a multiple of 16 bytes; the rest of
 * the input's rows is zero (product.c makes use of it).
 *
 * An AFFINE whose only reader is a 1x1 convolution becomes that convolution's
 * prologue (DenseNet's BN and ReLU): its result is never written.  This
 * happens in a copy of the op array, where the convolution reads the AFFINE's
 * inputs, so that the memory plan sees the true lifetimes.
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

_Static_assert((int) DFX_ACT_RELU == GPU_ACT_RELU && (int) DFX_ACT_SILU == GPU_ACT_SILU &&
                   (int) DFX_ACT_GELU == GPU_ACT_GELU && (int) DFX_ACT_SIGMOID == GPU_ACT_SIGMOID,
               "activations have the same numbers on both sides");

size_t
gpu_type_size(GpuType type)
{
	return type == GPU_F32 ? 4 : 2;
}

/* ---- the copy of the graph ---- */

/* Whether the inputs of an op follow one another in one buffer, and can be read as one value. */
static bool
lower_is_span(const DfxGraph *g, const DfxOp *op)
{
	int c = g->val[op->in[0]].c0;

	for (int j = 0; j < op->nin; j++)
	{
		const DfxValue *v = &g->val[op->in[j]];

		if (v->root != g->val[op->in[0]].root || v->c0 != c)
			return false;
		c += v->c;
	}
	return true;
}

static bool
lower_is_1x1(const DfxOp *op)
{
	const DfxConv *a = &op->u.conv;

	return op->kind == DFX_OP_CONV && a->kh == 1 && a->kw == 1 && a->sh == 1 && a->sw == 1 && a->ph == 0 &&
	       a->pw == 0 && a->groups == 1;
}

/* How many ops read v, one more if it is an output; *reader is the last. */
static int
lower_readers(const GpuBuild *b, DfxVal v, int *reader)
{
	int n = 0;

	for (int i = 0; i < b->g.nop; i++)
	{
		for (int j = 0; j < b->op[i].nin; j++)
			if (b->op[i].in[j] == v)
			{
				*reader = i;
				n++;
			}
		n += b->op[i].epi_add == v;
	}
	for (int i = 0; i < b->g.nout; i++)
		n += b->g.out[i] == v;
	return n;
}

/* Make op i the prologue of the product that alone reads it, if that is possible. */
static void
lower_fuse(GpuBuild *b, int i)
{
	const DfxOp *affine = &b->op[i];
	const DfxValue *out = &b->g.val[affine->out];
	int reader = -1;

	if (affine->kind != DFX_OP_AFFINE || affine->epi_add >= 0 || affine->epi_scale >= 0 ||
	    out->root != affine->out || !lower_is_span(&b->g, affine))
		return;
	if (lower_readers(b, affine->out, &reader) != 1 || reader < 0 || !lower_is_1x1(&b->op[reader]))
		return;
	b->op[reader].in = affine->in;
	b->op[reader].nin = affine->nin;
	b->pre[reader] = i;
	b->dead[i] = true;
	b->unused[affine->out] = true;
}

/* Channels from one row of root v to the next. */
static int
lower_ld(const DfxGraph *g, DfxVal v)
{
	return (g->val[v].c + 7) / 8 * 8;
}

DfxStatus
gpu_build_open(GpuBuild *b, DfxDev *dev, const DfxGraph *g, GpuType type, DfxErr *err)
{
	size_t nop = (size_t) g->nop + 1, nval = (size_t) g->nval + 1;
	DfxStatus st;

	*b = (GpuBuild){.dev = dev, .g = *g, .type = type};
	b->op = malloc(nop * sizeof *b->op);
	b->pre = malloc(nop * sizeof *b->pre);
	b->dead = calloc(nop, sizeof *b->dead);
	b->unused = calloc(nval, sizeof *b->unused);
	b->ld = calloc(nval, sizeof *b->ld);
	if (!b->op || !b->pre || !b->dead || !b->unused || !b->ld)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	memcpy(b->op, g->op, (size_t) g->nop * sizeof *b->op);
	b->g.op = b->op;
	for (int v = 0; v < g->nval; v++)
		b->ld[v] = lower_ld(g, v);
	for (int i = 0; i < g->nop; i++)
		b->pre[i] = -1;
	st = gpu_branch_order(b, err);
	for (int i = 0; st == DFX_OK && i < g->nop; i++)
		lower_fuse(b, i);
	return st;
}

void
gpu_build_close(GpuBuild *b)
{
	free(b->op);
	free(b->pre);
	free(b->dead);
	free(b->unused);
	free(b->ld);
	dfx_plan_memory_free(&b->mem);
	*b = (GpuBuild){0};
}

/* Bytes of root v for the largest bucket. */
static size_t
lower_bytes(void *arg, const DfxGraph *g, DfxVal v)
{
	const GpuBuild *b = arg;

	if (b->unused[v])
		return 0;
	return (size_t) b->max_batch * (size_t) g->val[v].h * (size_t) g->val[v].w * (size_t) b->ld[v] *
	       gpu_type_size(b->type);
}

DfxStatus
gpu_build_memory(GpuBuild *b, int max_batch, DfxErr *err)
{
	dfx_plan_memory_free(&b->mem);
	b->max_batch = max_batch;
	return gpu_branch_memory(b, lower_bytes, err);
}

/* ---- operands ---- */

void *
gpu_lower_at(const GpuBuild *b, DfxVal v)
{
	const DfxValue *val = &b->g.val[v];

	return b->arena + b->mem.off[val->root] + (size_t) val->c0 * gpu_type_size(b->type);
}

int
gpu_lower_stride(const GpuBuild *b, DfxVal v)
{
	return b->ld[b->g.val[v].root];
}

int
gpu_lower_rows(const GpuBuild *b, DfxVal v)
{
	return b->g.val[v].h * b->g.val[v].w;
}

GpuStep *
gpu_lower_step(GpuBuild *b, GpuKernel kernel, int i)
{
	GpuProgram *p = b->program;

	if (p->nstep == p->cap)
	{
		int cap = p->cap ? 2 * p->cap : 256;
		GpuStep *grown = realloc(p->step, (size_t) cap * sizeof *grown);

		if (!grown)
			return NULL;
		p->step = grown;
		p->cap = cap;
	}
	p->step[p->nstep] = (GpuStep){.kernel = kernel, .op = i, .count = 1};
	return &p->step[p->nstep++];
}

/* ---- ops ---- */

/* y's channels from c0 on = act(x * scale + shift); the rows of y. */
static bool
lower_map(GpuBuild *b, int i, DfxVal x, int c, int c0, const float *scale, int width, DfxAct act)
{
	const DfxOp *op = &b->op[i];
	GpuStep *s = gpu_lower_step(b, GPU_MAP, i);

	if (!s)
		return false;
	s->args[0].map =
	    (GpuMapArgs){.x = gpu_lower_at(b, x),
	                 .y = (char *) gpu_lower_at(b, op->out) + (size_t) c0 * gpu_type_size(b->type),
	                 .rows = gpu_lower_rows(b, op->out),
	                 .step = 1,
	                 .c = c,
	                 .ldx = gpu_lower_stride(b, x),
	                 .ldy = gpu_lower_stride(b, op->out),
	                 .scale = scale ? scale + c0 : NULL,
	                 .shift = scale ? scale + width + c0 : NULL,
	                 .act = (GpuAct) act};
	return true;
}

/* BN, AFFINE, CONCAT, DROP, ACT: the inputs, one after another, each through the same map. */
static bool
lower_maps(GpuBuild *b, int i, const float *scale, DfxAct act)
{
	const DfxOp *op = &b->op[i];
	int width = b->g.val[op->out].c, c0 = 0;

	if (lower_is_span(&b->g, op))
		return lower_map(b, i, op->in[0], width, 0, scale, width, act);
	for (int j = 0; j < op->nin; j++)
	{
		int c = b->g.val[op->in[j]].c;

		if (!lower_map(b, i, op->in[j], c, c0, scale, width, act))
			return false;
		c0 += c;
	}
	return true;
}

static bool
lower_take(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];

	if (!lower_map(b, i, op->in[0], b->g.val[op->out].c, 0, NULL, 0, DFX_ACT_NONE))
		return false;
	b->program->step[b->program->nstep - 1].args[0].map.step = gpu_lower_rows(b, op->in[0]);
	b->program->step[b->program->nstep - 1].args[0].map.first = op->u.index;
	return true;
}

static bool
lower_input(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	const DfxValue *v = &b->g.val[op->out];
	GpuStep *s = gpu_lower_step(b, GPU_INPUT, i);
	bool padded = v->root == op->out; /* a range of a larger buffer has neighbours, not padding */

	if (!s)
		return false;
	s->args[0].input = (GpuInputArgs){.dst = gpu_lower_at(b, op->out),
	                                  .pixels = gpu_lower_rows(b, op->out),
	                                  .c = v->c,
	                                  .ld = gpu_lower_stride(b, op->out),
	                                  .width = padded ? gpu_lower_stride(b, op->out) : v->c,
	                                  .rgb8 = op->u.input.rgb8};
	for (int k = 0; k < 3; k++)
	{
		s->args[0].input.mean[k] = op->u.input.mean[k];
		s->args[0].input.std[k] = op->u.input.std[k];
	}
	return true;
}

static bool
lower_binary(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuStep *s = gpu_lower_step(b, GPU_BINARY, i);

	if (!s)
		return false;
	s->args[0].binary = (GpuBinaryArgs){.a = gpu_lower_at(b, op->in[0]),
	                                    .b = gpu_lower_at(b, op->in[1]),
	                                    .y = gpu_lower_at(b, op->out),
	                                    .rows = gpu_lower_rows(b, op->out),
	                                    .c = b->g.val[op->out].c,
	                                    .lda = gpu_lower_stride(b, op->in[0]),
	                                    .ldb = gpu_lower_stride(b, op->in[1]),
	                                    .ldy = gpu_lower_stride(b, op->out),
	                                    .mul = op->kind == DFX_OP_MUL,
	                                    .gate = gpu_lower_rows(b, op->in[1]) != gpu_lower_rows(b, op->out),
	                                    .act = (GpuAct) op->epi_act};
	return true;
}

GpuPoolArgs
gpu_pool_shape(const DfxOp *op, const DfxValue *x, const DfxValue *y)
{
	const DfxPool *a = &op->u.pool;

	return (GpuPoolArgs){.c = y->c,
	                     .ih = x->h,
	                     .iw = x->w,
	                     .oh = y->h,
	                     .ow = y->w,
	                     .kh = a->k ? a->k : x->h,
	                     .kw = a->k ? a->k : x->w,
	                     .s = a->s ? a->s : 1,
	                     .p = a->k ? a->p : 0,
	                     .avg = a->avg};
}

static bool
lower_pool(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuStep *s = gpu_lower_step(b, GPU_POOL, i);
	GpuPoolArgs *a;

	if (!s)
		return false;
	a = &s->args[0].pool;
	*a = gpu_pool_shape(op, &b->g.val[op->in[0]], &b->g.val[op->out]);
	a->x = gpu_lower_at(b, op->in[0]);
	a->y = gpu_lower_at(b, op->out);
	a->ldx = gpu_lower_stride(b, op->in[0]);
	a->ldy = gpu_lower_stride(b, op->out);
	return true;
}

static bool
lower_stack(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];

	for (int j = 0; j < op->nin; j++)
	{
		GpuStep *s = gpu_lower_step(b, GPU_STACK, i);

		if (!s)
			return false;
		s->args[0].stack = (GpuStackArgs){.x = gpu_lower_at(b, op->in[j]),
		                                  .y = gpu_lower_at(b, op->out),
		                                  .c = b->g.val[op->in[j]].c,
		                                  .ldx = gpu_lower_stride(b, op->in[j]),
		                                  .ldy = gpu_lower_stride(b, op->out),
		                                  .channel = j};
	}
	return true;
}

const float *
gpu_lower_param(GpuBuild *b, int param)
{
	const DfxParam *p = &b->g.param[param];

	return gpu_weight_floats(b, p->data, dfx_param_count(p));
}

static bool
lower_tokens(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuStep *s = gpu_lower_step(b, GPU_TOKENS, i);

	if (!s)
		return false;
	s->args[0].tokens = (GpuTokensArgs){.x = gpu_lower_at(b, op->in[0]),
	                                    .y = gpu_lower_at(b, op->out),
	                                    .tokens = gpu_lower_rows(b, op->out),
	                                    .c = b->g.val[op->out].c,
	                                    .ldx = gpu_lower_stride(b, op->in[0]),
	                                    .ldy = gpu_lower_stride(b, op->out),
	                                    .cls = gpu_lower_param(b, op->param[DFX_W]),
	                                    .pos = gpu_lower_param(b, op->param[DFX_B])};
	return true;
}

static bool
lower_layernorm(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuStep *s = gpu_lower_step(b, GPU_LAYERNORM, i);

	if (!s)
		return false;
	s->args[0].layernorm = (GpuLayernormArgs){.x = gpu_lower_at(b, op->in[0]),
	                                          .y = gpu_lower_at(b, op->out),
	                                          .rows = gpu_lower_rows(b, op->out),
	                                          .c = b->g.val[op->out].c,
	                                          .ldx = gpu_lower_stride(b, op->in[0]),
	                                          .ldy = gpu_lower_stride(b, op->out),
	                                          .weight = gpu_lower_param(b, op->param[DFX_W]),
	                                          .bias = gpu_lower_param(b, op->param[DFX_B]),
	                                          .eps = op->u.eps};
	return true;
}

static bool
lower_attn(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuStep *s = gpu_lower_step(b, GPU_ATTN, i);

	if (!s)
		return false;
	s->args[0].attn = (GpuAttnArgs){.x = gpu_lower_at(b, op->in[0]),
	                                .y = gpu_lower_at(b, op->out),
	                                .tokens = gpu_lower_rows(b, op->out),
	                                .c = b->g.val[op->out].c,
	                                .heads = op->u.heads,
	                                .ldx = gpu_lower_stride(b, op->in[0]),
	                                .ldy = gpu_lower_stride(b, op->out)};
	return true;
}

/* ---- the whole ---- */

/* false: out of memory. */
static bool
lower_op(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];

	switch (op->kind)
	{
		case DFX_OP_INPUT:
			return lower_input(b, i);
		case DFX_OP_CONV:
		case DFX_OP_LINEAR:
			return gpu_lower_product(b, i);
		case DFX_OP_BN:
		case DFX_OP_AFFINE:
			return lower_maps(b, i, gpu_weight_affine(b, op, b->g.val[op->out].c), op->epi_act);
		case DFX_OP_ACT:
			return lower_maps(b, i, NULL, op->u.act);
		case DFX_OP_CONCAT:
		case DFX_OP_DROP:
			return lower_maps(b, i, NULL, DFX_ACT_NONE);
		case DFX_OP_LAYERNORM:
			return lower_layernorm(b, i);
		case DFX_OP_ATTN:
			return lower_attn(b, i);
		case DFX_OP_ADD:
		case DFX_OP_MUL:
			return lower_binary(b, i);
		case DFX_OP_STACK:
			return lower_stack(b, i);
		case DFX_OP_POOL:
			return lower_pool(b, i);
		case DFX_OP_TOKENS:
			return lower_tokens(b, i);
		case DFX_OP_TAKE:
			return lower_take(b, i);
		case DFX_OP_COUNT:
			break;
	}
	return true;
}

static bool
lower_output(GpuBuild *b, int i)
{
	DfxVal v = b->g.out[i];
	GpuStep *s = gpu_lower_step(b, GPU_OUTPUT, b->g.nop + i);

	if (!s)
		return false;
	s->output = i;
	s->args[0].output = (GpuOutputArgs){.x = gpu_lower_at(b, v),
	                                    .pixels = gpu_lower_rows(b, v),
	                                    .c = b->g.val[v].c,
	                                    .ldx = gpu_lower_stride(b, v)};
	return true;
}

/*
 * Steps of the graph in b's type, appended to nothing: program is emptied
 * first.  DFX_EUNSUPPORTED names an op that cannot run, DFX_ENOMEM.
 */
DfxStatus
gpu_lower(GpuBuild *b, GpuProgram *program, DfxErr *err)
{
	bool ok = true;

	b->program = program;
	b->used = 0;
	b->overflow = false;
	program->type = b->type;
	program->nstep = 0;
	for (int i = 0; ok && i < b->g.nop; i++)
	{
		if (b->dead[i] || b->op[i].placed)
			continue;
		if (!gpu_supports(b->dev, &b->g, &b->op[i]))
			return dfx_fail(err, DFX_EUNSUPPORTED, "the CUDA backend cannot run the operation %s%s",
			                dfx_op_info[b->op[i].kind].name,
			                b->op[i].epi_act || b->op[i].epi_add >= 0 || b->op[i].epi_scale >= 0
			                    ? " with its epilogue"
			                    : "");
		ok = lower_op(b, i);
	}
	for (int i = 0; ok && i < b->g.nout; i++)
		ok = lower_output(b, i);
	gpu_branch_merge(b, program);
	return ok ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
}
