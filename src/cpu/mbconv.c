/*
 * mbconv.c
 *	  Inverted residual blocks with a gate a channel (EfficientNet's) in two
 *	  steps of our own, where the library would take eight or nine passes.
 *
 *	spread	1x1 convolution, SiLU, depthwise convolution, SiLU, and the global mean
 *			that the gate is made from: by 16 channels at a time, so that the expanded map
 *			stays in the first caches (kernels_mbconv.c); the 1x1 may be missing
 *	gated	the product with the gate, the 1x1 convolution after it, the residual: an
 *			image's gate is multiplied into the weights, which are few, not into the map
 *
 * The two small convolutions between them remain the library's.
 *
 * cpu_mb_find() looks for both in the build's copy of the graph and rewrites
 * it, so that values live where and as long as the steps need them: all ops of a group
 * read what the group reads, and all but the last are marked as placed, which
 * have nothing to do.  What only the group would read has no place any more.
 *
 * It is done where channels come in blocks of 16, which is where the CPU has
 * AVX-512.  Images go one by one, so an image's bits do not depend on its batch.
 * In bf16 the expanded map, sums and means are floats, and so are the weights
 * until they are multiplied by the gate: a product is rounded once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

/* What a step has in s->param. */
typedef struct MbStep
{
	CpuMbSpread g;
	CpuView wide;        /* spread: the map; gated: the residual */
	bool add;            /* gated: there is one */
	const char *weights; /* of the 1x1, by blocks: for spread as the loops read them, else ready */
	const float *bias;   /* of the 1x1 */
	const float *depth;  /* spread: k x k x 16 a block */
	const float *depth_bias;
	size_t block; /* bytes of a block of weights */
} MbStep;

static const CpuMbKernels *
mb_kernels(const DfxDev *dev, CpuType type)
{
	return type == CPU_F32 ? dev->mb_kernels : dev->mb_bf16_kernels;
}

/* ---- finding them ---- */

static bool
mb_is_conv(const DfxOp *op, DfxAct act)
{
	return op->kind == DFX_OP_CONV && op->epi_act == act && op->epi_scale < 0 && op->epi_shift < 0;
}

static bool
mb_is_1x1(const CpuBuild *b, const DfxOp *op, DfxAct act)
{
	const CpuConvShape c = cpu_conv_shape(&b->g, op);

	return mb_is_conv(op, act) && c.kh == 1 && c.kw == 1 && c.stride[0] == 1 && c.stride[1] == 1 &&
	       c.pad[0] == 0 && c.pad[1] == 0 && c.groups == 1;
}

static bool
mb_is_depthwise(const CpuBuild *b, const DfxOp *op)
{
	const CpuConvShape c = cpu_conv_shape(&b->g, op);

	return mb_is_conv(op, DFX_ACT_SILU) && op->epi_add < 0 && c.groups == c.ci && c.co == c.ci &&
	       c.kh == c.kw && (c.kh == 3 || c.kh == 5) && c.stride[0] == c.stride[1] &&
	       (c.stride[0] == 1 || c.stride[0] == 2) && c.pad[0] == c.kh / 2 && c.pad[1] == c.kh / 2;
}

/* How many ops read v, and that an output is made of it counts too. */
static int
mb_readers(const DfxGraph *g, DfxVal v)
{
	int n = 0;

	for (int i = 0; i < g->nop; i++)
	{
		for (int j = 0; j < g->op[i].nin; j++)
			n += g->op[i].in[j] == v;
		n += g->op[i].epi_add == v;
	}
	for (int i = 0; i < g->nout; i++)
		n += g->out[i] == v;
	return n;
}

/* Whether the loops can read and write v. */
static bool
mb_fits(const CpuBuild *b, DfxVal v)
{
	return b->view[v].vec == CPU_MB_BLOCK && b->view[v].type == b->type;
}

/* An op whose work op number by does; what it made for that one only, out, is made no more. */
static void
mb_leave_to(CpuBuild *b, int i, int by, DfxVal out)
{
	DfxOp *op = &b->g.op[i];

	b->g.val[op->out].def = op->out == out ? by : -1;
	op->out = out;
	op->placed = true;
}

/* A pool, number i, of a depthwise convolution just before it, perhaps of a 1x1 that only that one reads. */
static void
mb_find_spread(CpuBuild *b, int i)
{
	DfxOp *pool = &b->g.op[i], *depth = pool - 1, *expand;
	DfxVal wide = depth->out;
	int before;

	if (pool->kind != DFX_OP_POOL || !pool->u.pool.avg || pool->u.pool.k != 0 || i == 0 ||
	    pool->in[0] != wide || !mb_is_depthwise(b, depth) || !mb_fits(b, depth->in[0]) || !mb_fits(b, wide) ||
	    b->view[pool->out].vec != CPU_MB_BLOCK || b->view[pool->out].type != CPU_F32)
		return;
	b->mb[i] = (CpuMbGroup){.depth = i - 1, .expand = -1, .wide = wide};
	before = b->g.val[depth->in[0]].def;
	expand = before >= 0 ? &b->g.op[before] : NULL;
	if (expand && mb_is_1x1(b, expand, DFX_ACT_SILU) && expand->epi_add < 0 && mb_fits(b, expand->in[0]) &&
	    mb_readers(&b->g, depth->in[0]) == 1)
	{
		b->mb[i].expand = before;
		depth->in = expand->in;
		mb_leave_to(b, before, i, wide);
	}
	pool->in = depth->in;
	mb_leave_to(b, i - 1, i, wide);
}

/* A product with a gate, number i, that only a 1x1 convolution reads. */
static void
mb_find_gated(CpuBuild *b, int i)
{
	DfxOp *mul = &b->g.op[i], *conv = NULL;
	int last = -1;

	if (mul->kind != DFX_OP_MUL || mul->epi_act != DFX_ACT_NONE || mb_readers(&b->g, mul->out) != 1 ||
	    !mb_fits(b, mul->in[0]) || !mb_fits(b, mul->out) || cpu_pixels(&b->view[mul->in[1]]) != 1 ||
	    b->view[mul->in[1]].vec != CPU_MB_BLOCK || b->view[mul->in[1]].type != CPU_F32)
		return;
	for (int k = i + 1; k < b->g.nop; k++)
		if (b->g.op[k].nin == 1 && b->g.op[k].in[0] == mul->out)
			last = k;
	conv = last >= 0 ? &b->g.op[last] : NULL;
	if (conv == NULL || !mb_is_1x1(b, conv, DFX_ACT_NONE) || !mb_fits(b, conv->out) ||
	    (conv->epi_add >= 0 && !mb_fits(b, conv->epi_add)))
		return;
	b->mb[last] = (CpuMbGroup){.depth = -1, .expand = last, .wide = conv->epi_add};
	conv->in = mul->in;
	conv->nin = mul->nin;
	mb_leave_to(b, i, last, conv->out);
}

DfxStatus
cpu_mb_find(CpuBuild *b, DfxErr *err)
{
	b->mb = malloc(((size_t) b->g.nop + 1) * sizeof *b->mb);
	if (b->mb == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	for (int i = 0; i < b->g.nop; i++)
		b->mb[i] = (CpuMbGroup){.depth = -1, .expand = -1, .wide = -1};
	if (b->nhwc || b->placed || b->dev->block != CPU_MB_BLOCK || mb_kernels(b->dev, b->type) == NULL)
		return DFX_OK;
	for (int i = 0; i < b->g.nop; i++)
	{
		mb_find_spread(b, i);
		mb_find_gated(b, i);
	}
	return DFX_OK;
}

/* ---- their parameters ---- */

/* Numbers of a parameter (-1: zeroes) by blocks of 16 channels; NULL: out of memory. */
static float *
mb_by_channel(CpuBuild *b, int param, int c, int each, DfxErr *err)
{
	size_t blocks = ((size_t) c + CPU_MB_BLOCK - 1) / CPU_MB_BLOCK;
	float *to = cpu_plan_alloc(b->plan, blocks * CPU_MB_BLOCK * (size_t) each * sizeof *to, err);

	for (int i = 0; to && param >= 0 && i < c; i++)
		for (int k = 0; k < each; k++)
			to[(size_t) (i / CPU_MB_BLOCK * each + k) * CPU_MB_BLOCK + (size_t) (i % CPU_MB_BLOCK)] =
			    b->g.param[param].data[i * each + k];
	return to;
}

/* A block of a 1x1's weights (co x ci), ready to be multiplied, into to, which is zero. */
static void
mb_ready_block(float *to, const float *w, int block, int co, int ci, CpuType type)
{
	const size_t units = type == CPU_BF16 ? 2 : 1;

	for (int o = 0; o < CPU_MB_BLOCK && block * CPU_MB_BLOCK + o < co; o++)
		for (size_t i = 0; i < (size_t) ci; i++)
			to[i / units * units * CPU_MB_BLOCK + (size_t) o * units + i % units] =
			    w[(size_t) (block * CPU_MB_BLOCK + o) * (size_t) ci + i];
}

/* Weights and bias of the 1x1 that is the op; factor: what to multiply them with, NULL: they stay ready. */
static DfxStatus
mb_params_1x1(CpuBuild *b, MbStep *m, const DfxOp *op, const CpuView *in, const CpuView *out,
              const float *factor, DfxErr *err)
{
	const CpuMbKernels *kernels = mb_kernels(b->dev, b->type);
	const float *w = b->g.param[op->param[DFX_W]].data;
	const size_t ready = cpu_mb_ready_floats(in->c, b->type) * sizeof(float);
	float *one = malloc(ready);
	char *weights;

	m->block = factor ? cpu_mb_weights_bytes(in->c, b->type) : ready;
	weights = cpu_plan_alloc(b->plan, m->block * (size_t) cpu_planes(out), err);
	m->weights = weights;
	m->bias = mb_by_channel(b, op->param[DFX_B], out->c, 1, err);
	if (one == NULL || weights == NULL || m->bias == NULL)
	{
		free(one);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the weights of a convolution");
	}
	for (int k = 0; k < cpu_planes(out); k++)
	{
		memset(one, 0, ready);
		mb_ready_block(one, w, k, out->c, in->c, b->type);
		if (factor)
			kernels->weights(weights + (size_t) k * m->block, one, factor, in->c);
		else
			memcpy(weights + (size_t) k * m->block, one, ready);
	}
	free(one);
	return DFX_OK;
}

/* As they are, for the loops. */
static DfxStatus
mb_params_expand(CpuBuild *b, MbStep *m, const DfxOp *op, const CpuView *in, DfxErr *err)
{
	float *ones = malloc((size_t) in->c * sizeof *ones);
	DfxStatus st = DFX_ENOMEM;

	for (int i = 0; ones && i < in->c; i++)
		ones[i] = 1;
	if (ones)
		st = mb_params_1x1(b, m, op, in, &m->wide, ones, err);
	else
		dfx_fail(err, st, "out of memory for the weights of a convolution");
	free(ones);
	return st;
}

/* ---- the steps ---- */

static DfxStatus
mb_run_spread(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const MbStep *m = s->param;
	const CpuMbKernels *kernels = mb_kernels(run->plan->dev, m->wide.type);
	const size_t kernel = (size_t) (m->g.k * m->g.k) * CPU_MB_BLOCK;
	float *ring = (float *) (void *) (run->arena + run->plan->scratch_off);

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		const void *src = cpu_at(run->arena, &s->in[0], n);
		void *dst = cpu_at(run->arena, &m->wide, n);
		float *mean = cpu_at(run->arena, &s->out, n);

		for (int k = 0; k < cpu_planes(&m->wide); k++)
		{
			const size_t c = (size_t) k * CPU_MB_BLOCK;
			const CpuMbParams p = {.expand = m->g.ci ? m->weights + (size_t) k * m->block : NULL,
			                       .expand_bias = m->g.ci ? m->bias + c : NULL,
			                       .depth = m->depth + (size_t) k * kernel,
			                       .depth_bias = m->depth_bias + c};

			kernels->spread(cpu_to(dst, &m->wide, cpu_channel(&m->wide, (int) c)), mean + c, ring,
			                m->g.ci ? src : cpu_from(src, &s->in[0], cpu_channel(&s->in[0], (int) c)), &m->g,
			                &p);
		}
	}
	return DFX_OK;
}

static DfxStatus
mb_run_gated(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const MbStep *m = s->param;
	const CpuMbKernels *kernels = mb_kernels(run->plan->dev, s->out.type);
	const int ci = s->in[0].c, planes = cpu_planes(&s->out);
	const size_t block = cpu_mb_weights_bytes(ci, s->out.type);
	char *weights = run->arena + run->plan->scratch_off;

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		const float *gate = cpu_at(run->arena, &s->in[1], n);
		const char *add = m->add ? cpu_at(run->arena, &m->wide, n) : NULL;
		void *dst = cpu_at(run->arena, &s->out, n);

		for (int k = 0, nb; k < planes; k += nb)
		{
			const size_t at = cpu_channel(&s->out, k * CPU_MB_BLOCK);

			nb = cpu_min(2, planes - k);
			for (int i = 0; i < nb; i++)
				kernels->weights(weights + (size_t) i * block,
				                 (const float *) (const void *) (m->weights + (size_t) (k + i) * m->block),
				                 gate, ci);
			kernels->project(cpu_to(dst, &s->out, at), add ? cpu_from(add, &s->out, at) : NULL,
			                 cpu_at(run->arena, &s->in[0], n), cpu_pixels(&s->out), ci, nb, weights,
			                 m->bias + (size_t) k * CPU_MB_BLOCK);
		}
	}
	return DFX_OK;
}

static DfxStatus
mb_spread_step(CpuBuild *b, const CpuMbGroup *group, CpuStep *s, MbStep *m, DfxErr *err)
{
	const DfxOp *depth = &b->g.op[group->depth];
	const CpuConvShape c = cpu_conv_shape(&b->g, depth);
	DfxStatus st = DFX_OK;

	m->wide = b->view[group->wide];
	m->g = (CpuMbSpread){.ci = group->expand >= 0 ? s->in[0].c : 0,
	                     .h = s->in[0].h,
	                     .w = s->in[0].w,
	                     .oh = m->wide.h,
	                     .ow = m->wide.w,
	                     .k = (int) c.kh,
	                     .s = (int) c.stride[0]};
	m->depth = mb_by_channel(b, depth->param[DFX_W], m->wide.c, m->g.k * m->g.k, err);
	m->depth_bias = mb_by_channel(b, depth->param[DFX_B], m->wide.c, 1, err);
	if (m->depth == NULL || m->depth_bias == NULL)
		return DFX_ENOMEM;
	if (group->expand >= 0)
		st = mb_params_expand(b, m, &b->g.op[group->expand], &s->in[0], err);
	s->run = mb_run_spread;
	snprintf(s->impl, sizeof s->impl, "mbconv_spread %s", mb_kernels(b->dev, b->type)->name);
	cpu_need_scratch(b, cpu_mb_ring_floats(&m->g) * sizeof(float));
	return st;
}

static DfxStatus
mb_gated_step(CpuBuild *b, const CpuMbGroup *group, CpuStep *s, MbStep *m, DfxErr *err)
{
	m->add = group->wide >= 0;
	if (m->add)
		m->wide = b->view[group->wide];
	s->run = mb_run_gated;
	snprintf(s->impl, sizeof s->impl, "mbconv_gated %s", mb_kernels(b->dev, b->type)->name);
	cpu_need_scratch(b, 2 * cpu_mb_weights_bytes(s->in[0].c, b->type));
	return mb_params_1x1(b, m, &b->g.op[group->expand], &s->in[0], &s->out, NULL, err);
}

bool
cpu_mb_wants(const CpuBuild *b, int op)
{
	return b->mb[op].depth >= 0 || b->mb[op].expand >= 0;
}

DfxStatus
cpu_mb_step(CpuBuild *b, int op, CpuStep *s, DfxErr *err)
{
	const CpuMbGroup *group = &b->mb[op];
	MbStep *m = s->param = cpu_plan_alloc(b->plan, sizeof *m, err);

	if (m == NULL)
		return DFX_ENOMEM;
	return group->depth >= 0 ? mb_spread_step(b, group, s, m, err) : mb_gated_step(b, group, s, m, err);
}
