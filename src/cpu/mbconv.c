/*
 * mbconv.c
 *	  Inverted residual blocks with a gate a channel (EfficientNet's) in four
 *	  steps of our own, where the library would take eight or nine passes.
 *
 *	spread	1x1 convolution, SiLU, depthwise convolution, SiLU, and the global mean
 *			that the gate is made from: by 16 channels at a time, so that the expanded map
 *			stays in the first caches (kernels_mbconv.c); in place of the 1x1 there may be
 *			the stem, or nothing
 *	gated	the product with the gate, the 1x1 convolution after it, the residual: an
 *			image's gate is multiplied into the weights where they are fewer than the map
 *	act		other 1x1 convolutions with SiLU or a sigmoid: the two of one pixel
 *			that make the gate, for which a primitive's call is long, and the last one
 *
 * cpu_mb_find() looks for them in the build's copy of the graph and rewrites
 * it, so that values live where and as long as the steps need them: all ops of a
 * group read what the group reads, and all but the last are marked as placed,
 * which have nothing to do.  What only the group would read has no place any more.
 *
 * It is done where channels come in blocks of 16, which is where the CPU has
 * AVX-512.  A block of an image is computed by itself, so its bits do not depend
 * on the batch.  In bf16 the expanded map, sums and means are floats, and so are
 * weights that are multiplied by a gate: a product is rounded once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

/* What a step has in s->param. */
typedef struct MbStep
{
	CpuMbSpread spread;
	CpuMbProject project;
	CpuView wide;        /* spread: the map; else the residual */
	bool add;            /* there is a residual */
	bool gated;          /* weights are ready to be multiplied by the gate; else as the loops read them */
	bool gated_map;      /* the map is multiplied by it */
	const char *weights; /* of the 1x1 or the stem, by blocks */
	size_t block;        /* bytes of one */
	const float *bias;
	const float *depth; /* spread: k x k x 16 a block */
	const float *depth_bias;
	bool by_block; /* all images of a block, before the next block's; else image by image */
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
mb_is_1x1(const DfxOp *op, DfxAct act)
{
	const DfxConv *a = &op->u.conv;

	return mb_is_conv(op, act) && a->kh == 1 && a->kw == 1 && a->sh <= 1 && a->sw <= 1 && a->ph == 0 &&
	       a->pw == 0 && a->groups <= 1;
}

static bool
mb_is_depthwise(const CpuBuild *b, const DfxOp *op)
{
	CpuConvShape c;

	if (!mb_is_conv(op, DFX_ACT_SILU) || op->epi_add >= 0)
		return false;
	c = cpu_conv_shape(&b->g, op);
	return c.groups == c.ci && c.co == c.ci && c.kh == c.kw && (c.kh == 3 || c.kh == 5) &&
	       c.stride[0] == c.stride[1] && (c.stride[0] == 1 || c.stride[0] == 2) && c.pad[0] == c.kh / 2 &&
	       c.pad[1] == c.kh / 2;
}

/* Of a plain image. */
static bool
mb_is_stem(const CpuBuild *b, const DfxOp *op)
{
	const DfxConv *a = &op->u.conv;
	const CpuView *in;

	if (!mb_is_conv(op, DFX_ACT_SILU) || op->epi_add >= 0)
		return false;
	in = &b->view[op->in[0]];
	return in->vec == 1 && in->type == b->type && a->kh == CPU_MB_STEM_K && a->kw == CPU_MB_STEM_K &&
	       a->sh == 2 && a->sw == 2 && a->ph == 1 && a->pw == 1 && a->groups <= 1;
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

/* Whether the loops for a type can read and write v. */
static bool
mb_fits(const CpuBuild *b, DfxVal v, CpuType type)
{
	return b->view[v].vec == CPU_MB_BLOCK && b->view[v].type == type;
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

/*
 * A pool, number i, of a depthwise convolution just before it, perhaps of a
 * 1x1 or the stem that only that one reads.
 */
static void
mb_find_spread(CpuBuild *b, int i)
{
	DfxOp *pool = &b->g.op[i], *depth, *conv;
	CpuMbSource source = CPU_MB_MAP;
	DfxVal wide;
	int before;

	if (i == 0)
		return;
	depth = pool - 1;
	wide = depth->out;
	if (pool->kind != DFX_OP_POOL || !pool->u.pool.avg || pool->u.pool.k != 0 || pool->in[0] != wide ||
	    !mb_is_depthwise(b, depth) || !mb_fits(b, depth->in[0], b->type) || !mb_fits(b, wide, b->type) ||
	    !mb_fits(b, pool->out, CPU_F32))
		return;
	before = b->g.val[depth->in[0]].def;
	conv = before >= 0 && mb_readers(&b->g, depth->in[0]) == 1 ? &b->g.op[before] : NULL;
	if (conv && mb_is_1x1(conv, DFX_ACT_SILU) && conv->epi_add < 0 && mb_fits(b, conv->in[0], b->type))
		source = CPU_MB_POINT;
	else if (conv && mb_is_stem(b, conv))
		source = CPU_MB_STEM;
	b->mb[i] =
	    (CpuMbGroup){.kind = CPU_MB_SPREAD, .source = source, .depth = i - 1, .conv = before, .wide = wide};
	if (source != CPU_MB_MAP)
	{
		depth->in = conv->in;
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
	    !mb_fits(b, mul->in[0], b->type) || !mb_fits(b, mul->out, b->type) ||
	    cpu_pixels(&b->view[mul->in[1]]) != 1 || !mb_fits(b, mul->in[1], CPU_F32))
		return;
	for (int k = i + 1; k < b->g.nop; k++)
		if (b->g.op[k].nin == 1 && b->g.op[k].in[0] == mul->out)
			last = k;
	conv = last >= 0 ? &b->g.op[last] : NULL;
	if (conv == NULL || !mb_is_1x1(conv, DFX_ACT_NONE) || !mb_fits(b, conv->out, b->type) ||
	    (conv->epi_add >= 0 && !mb_fits(b, conv->epi_add, b->type)))
		return;
	b->mb[last] = (CpuMbGroup){.kind = CPU_MB_GATED, .conv = last, .wide = conv->epi_add};
	conv->in = mul->in;
	conv->nin = mul->nin;
	mb_leave_to(b, i, last, conv->out);
}

/* A 1x1 convolution, number i, that is in no other group. */
static void
mb_find_act(CpuBuild *b, int i)
{
	const DfxOp *op = &b->g.op[i];

	if (!op->placed && (mb_is_1x1(op, DFX_ACT_SILU) || mb_is_1x1(op, DFX_ACT_SIGMOID)) &&
	    mb_fits(b, op->out, b->view[op->in[0]].type) && b->view[op->in[0]].vec == CPU_MB_BLOCK &&
	    (op->epi_add < 0 || mb_fits(b, op->epi_add, b->view[op->out].type)))
		b->mb[i] = (CpuMbGroup){.kind = CPU_MB_ACT, .conv = i, .wide = op->epi_add};
}

DfxStatus
cpu_mb_find(CpuBuild *b, DfxErr *err)
{
	b->mb = malloc(((size_t) b->g.nop + 1) * sizeof *b->mb);
	if (b->mb == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	for (int i = 0; i < b->g.nop; i++)
		b->mb[i] = (CpuMbGroup){.kind = CPU_MB_NONE};
	if (b->nhwc || b->placed || b->dev->block != CPU_MB_BLOCK || mb_kernels(b->dev, b->type) == NULL)
		return DFX_OK;
	for (int i = 0; i < b->g.nop; i++)
	{
		mb_find_spread(b, i);
		mb_find_gated(b, i);
	}
	for (int i = 0; i < b->g.nop; i++)
		mb_find_act(b, i);
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

/* Weights and bias of the 1x1 that is the op, from in to out. */
static DfxStatus
mb_params_1x1(CpuBuild *b, MbStep *m, const DfxOp *op, const CpuView *in, const CpuView *out, DfxErr *err)
{
	const float *w = b->g.param[op->param[DFX_W]].data;
	const size_t bytes = cpu_mb_ready_floats(in->c, in->type) * sizeof(float);
	float *ready = malloc(bytes);
	char *weights;

	m->block = m->gated ? bytes : cpu_mb_weights_bytes(in->c, in->type);
	m->weights = weights = cpu_plan_alloc(b->plan, m->block * (size_t) cpu_planes(out), err);
	m->bias = mb_by_channel(b, op->param[DFX_B], out->c, 1, err);
	if (ready == NULL || weights == NULL || m->bias == NULL)
	{
		free(ready);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the weights of a convolution");
	}
	for (int k = 0; k < cpu_planes(out); k++)
	{
		memset(ready, 0, bytes);
		mb_ready_block(ready, w, k, out->c, in->c, in->type);
		if (m->gated)
			memcpy(weights + (size_t) k * m->block, ready, bytes);
		else
			mb_kernels(b->dev, in->type)->weights(weights + (size_t) k * m->block, ready, NULL, in->c);
	}
	free(ready);
	return DFX_OK;
}

/* ---- the steps ---- */

/*
 * Which image and which block come i-th of n images and so many blocks.  What
 * is larger, the weights or the source, shall be read once.
 */
static void
mb_order(const MbStep *m, int i, int n, int blocks, int *image, int *block)
{
	*image = m->by_block ? i % n : i / blocks;
	*block = m->by_block ? i / n : i % blocks;
}

static void
mb_choose_order(MbStep *m, const CpuView *in, int blocks)
{
	m->by_block = m->block * (size_t) blocks > cpu_floats(in) * cpu_size(in->type);
}

static DfxStatus
mb_run_spread(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const MbStep *m = s->param;
	const CpuMbKernels *kernels = mb_kernels(run->plan->dev, m->wide.type);
	const size_t kernel = (size_t) (m->spread.k * m->spread.k) * CPU_MB_BLOCK;
	const int blocks = cpu_planes(&m->wide);
	float *scratch = (float *) (void *) (run->arena + run->plan->scratch_off);

	(void) err;
	for (int i = 0, n, k; i < run->n * blocks; i++)
	{
		size_t c;
		const char *src;
		CpuMbParams p = {NULL};

		mb_order(m, i, run->n, blocks, &n, &k);
		c = (size_t) k * CPU_MB_BLOCK;
		src = cpu_at(run->arena, &s->in[0], n);
		if (m->spread.source == CPU_MB_MAP)
			src = cpu_from(src, &s->in[0], cpu_channel(&s->in[0], (int) c));
		else
		{
			p.weights = m->weights + (size_t) k * m->block;
			p.bias = m->bias + c;
		}
		p.depth = m->depth + (size_t) k * kernel;
		p.depth_bias = m->depth_bias + c;
		kernels->spread(cpu_to(cpu_at(run->arena, &m->wide, n), &m->wide, cpu_channel(&m->wide, (int) c)),
		                (float *) cpu_at(run->arena, &s->out, n) + c, scratch, src, &m->spread, &p);
	}
	return DFX_OK;
}

/* Blocks that project() takes at a time. */
#define MB_PAIR 2

static DfxStatus
mb_run_project(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const MbStep *m = s->param;
	const CpuMbKernels *kernels = mb_kernels(run->plan->dev, s->out.type);
	const size_t block = cpu_mb_weights_bytes(s->in[0].c, s->out.type);
	const int planes = cpu_planes(&s->out), pairs = (planes + MB_PAIR - 1) / MB_PAIR;
	char *scratch = run->arena + run->plan->scratch_off;

	(void) err;
	for (int n = 0; m->gated_map && n < run->n; n++)
		cpu_binary_image(run->plan->dev, scratch + (size_t) n * cpu_image_bytes(&s->in[0]), &s->in[0],
		                 cpu_at(run->arena, &s->in[0], n), &s->in[0], cpu_at(run->arena, &s->in[1], n),
		                 &s->in[1], true, false);
	for (int i = 0, n, k; i < run->n * pairs; i++)
	{
		const char *weights;
		size_t at;
		int nb;

		mb_order(m, i, run->n, pairs, &n, &k);
		k *= MB_PAIR;
		nb = cpu_min(MB_PAIR, planes - k);
		at = cpu_channel(&s->out, k * CPU_MB_BLOCK);
		weights = m->weights + (size_t) k * m->block;
		for (int j = 0; m->gated && j < nb; j++)
			kernels->weights(scratch + (size_t) j * block,
			                 (const float *) (const void *) (weights + (size_t) j * m->block),
			                 cpu_at(run->arena, &s->in[1], n), s->in[0].c);
		kernels->project(cpu_to(cpu_at(run->arena, &s->out, n), &s->out, at),
		                 m->add ? cpu_from(cpu_at(run->arena, &m->wide, n), &m->wide, at) : NULL,
		                 m->gated_map ? scratch + (size_t) n * cpu_image_bytes(&s->in[0])
		                              : cpu_at(run->arena, &s->in[0], n),
		                 &m->project, nb, m->gated ? scratch : weights, m->bias + (size_t) k * CPU_MB_BLOCK);
	}
	return DFX_OK;
}

/* Weights and bias of the stem, which is the op. */
static DfxStatus
mb_params_stem(CpuBuild *b, MbStep *m, const DfxOp *op, DfxErr *err)
{
	const int each = m->spread.ci * CPU_MB_STEM_K * CPU_MB_STEM_K;

	m->block = (size_t) each * CPU_MB_BLOCK * sizeof(float);
	m->weights = (const char *) mb_by_channel(b, op->param[DFX_W], m->wide.c, each, err);
	m->bias = mb_by_channel(b, op->param[DFX_B], m->wide.c, 1, err);
	return m->weights && m->bias ? DFX_OK : DFX_ENOMEM;
}

static DfxStatus
mb_spread_step(CpuBuild *b, const CpuMbGroup *group, CpuStep *s, MbStep *m, DfxErr *err)
{
	const DfxOp *depth = &b->g.op[group->depth];
	const CpuConvShape c = cpu_conv_shape(&b->g, depth);
	const int shrink = group->source == CPU_MB_STEM ? 2 : 1;
	DfxStatus st = DFX_OK;

	m->wide = b->view[group->wide];
	m->spread = (CpuMbSpread){.source = group->source,
	                          .ci = s->in[0].c,
	                          .ih = s->in[0].h,
	                          .iw = s->in[0].w,
	                          .h = (s->in[0].h - 1) / shrink + 1,
	                          .w = (s->in[0].w - 1) / shrink + 1,
	                          .oh = m->wide.h,
	                          .ow = m->wide.w,
	                          .k = (int) c.kh,
	                          .s = (int) c.stride[0]};
	m->depth = mb_by_channel(b, depth->param[DFX_W], m->wide.c, m->spread.k * m->spread.k, err);
	m->depth_bias = mb_by_channel(b, depth->param[DFX_B], m->wide.c, 1, err);
	if (m->depth == NULL || m->depth_bias == NULL)
		return DFX_ENOMEM;
	if (group->source == CPU_MB_POINT)
		st = mb_params_1x1(b, m, &b->g.op[group->conv], &s->in[0], &m->wide, err);
	else if (group->source == CPU_MB_STEM)
		st = mb_params_stem(b, m, &b->g.op[group->conv], err);
	mb_choose_order(m, &s->in[0], cpu_planes(&m->wide));
	s->run = mb_run_spread;
	cpu_need_scratch(b, cpu_mb_spread_floats(&m->spread) * sizeof(float));
	return st;
}

static DfxStatus
mb_project_step(CpuBuild *b, const CpuMbGroup *group, CpuStep *s, MbStep *m, DfxErr *err)
{
	const DfxOp *op = &b->g.op[group->conv];
	DfxStatus st;

	m->gated_map = group->kind == CPU_MB_GATED && cpu_pixels(&s->out) < (size_t) s->out.c;
	m->gated = group->kind == CPU_MB_GATED && !m->gated_map;
	m->project = (CpuMbProject){.ci = s->in[0].c, .npix = cpu_pixels(&s->out), .act = op->epi_act};
	m->add = group->wide >= 0;
	if (m->add)
		m->wide = b->view[group->wide];
	st = mb_params_1x1(b, m, op, &s->in[0], &s->out, err);
	mb_choose_order(m, &s->in[0], cpu_planes(&s->out));
	s->run = mb_run_project;
	if (m->gated)
		cpu_need_scratch(b, MB_PAIR * cpu_mb_weights_bytes(s->in[0].c, s->in[0].type));
	if (m->gated_map)
		cpu_need_scratch(b, (size_t) b->plan->bucket[0] * cpu_image_bytes(&s->in[0]));
	return st;
}

bool
cpu_mb_wants(const CpuBuild *b, int op)
{
	return b->mb[op].kind != CPU_MB_NONE;
}

DfxStatus
cpu_mb_step(CpuBuild *b, int op, CpuStep *s, DfxErr *err)
{
	static const char *const kind[] = {
	    [CPU_MB_SPREAD] = "spread", [CPU_MB_GATED] = "gated", [CPU_MB_ACT] = "act"};
	static const char *const source[] = {
	    [CPU_MB_MAP] = "", [CPU_MB_POINT] = "_point", [CPU_MB_STEM] = "_stem"};
	const CpuMbGroup *group = &b->mb[op];
	MbStep *m = s->param = cpu_plan_alloc(b->plan, sizeof *m, err);

	if (m == NULL)
		return DFX_ENOMEM;
	snprintf(s->impl, sizeof s->impl, "mbconv_%s%s %s", kind[group->kind], source[group->source],
	         mb_kernels(b->dev, s->in[0].type)->name);
	return group->kind == CPU_MB_SPREAD ? mb_spread_step(b, group, s, m, err)
	                                    : mb_project_step(b, group, s, m, err);
}
