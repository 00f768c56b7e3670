/*
 * int8.c
 *	  Steps on 8-bit integers: convolutions whose input is in steps (nn/quantize.c),
 *	  and what turns floats into steps for them.
 *
 * A plan on integers is nhwc throughout, the only layout in which the library
 * has fast convolutions of u8 by s8, and pieces of a concatenation stay where
 * they are: an AFFINE gathers them while it rounds.  What is not in steps is in
 * bf16 where the CPU has it, else in fp32.
 *
 * The library multiplies the integer sum by a number for each output channel
 * (with the bias or without: dnnl_compat.h), applies the epilogue in floats, and
 * rounds to the destination.  When that is in steps, the number has the destination's
 * step in it, and so has the residual's; only a residual in floats, which the
 * library adds as it is, needs the division at the end.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

#define INT8_TILE                                                                                            \
	8192 /* bytes of output in which an AFFINE goes through its pieces: they stay in the L1 cache */

bool
cpu_int8_wants(const CpuBuild *b, const DfxOp *op)
{
	if (!b->int8)
		return false;
	return b->view[op->out].type == CPU_U8 || (op->nin > 0 && b->view[op->in[0]].type == CPU_U8);
}

/* --- floats to steps ----------------------------------------------------- */

/* Scale and shift of an AFFINE (of one and zero for other ops) in the output's steps, each c long. */
static DfxStatus
int8_affine_params(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const DfxParam *p = b->g.param;
	bool affine = op->kind == DFX_OP_AFFINE;
	size_t c = (size_t) s->out.c;

	float *param = cpu_plan_alloc(b->plan, (2 * c + 16) * sizeof(float), err);

	s->param = param;
	if (param == NULL)
		return DFX_ENOMEM;
	for (size_t i = 0; i < c; i++)
	{
		param[i] = (affine ? p[op->param[DFX_W]].data[i] : 1) / s->out.step;
		param[c + i] = (affine ? p[op->param[DFX_B]].data[i] : 0) / s->out.step;
	}
	return DFX_OK;
}

/* Run of lanes from v, at number i of an image, to steps. */
static void
int8_steps(const DfxDev *dev, uint8_t *to, size_t dps, const void *image, const CpuView *v, size_t i,
           size_t npix, const float *scale, const float *shift)
{
	const CpuInt8Kernels *k = dev->int8_kernels;
	const void *from = cpu_from(image, v, i);

	if (v->type == CPU_BF16)
		k->steps_bf16(to, dps, from, (size_t) v->vec, npix, v->c, scale, shift);
	else
		k->steps(to, dps, from, (size_t) v->vec, npix, v->c, scale, shift);
}

static DfxStatus
int8_run_affine(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	size_t npix = cpu_pixels(&s->out), dps = (size_t) s->out.vec, tile = 1 + INT8_TILE / dps;
	const float *scale = s->param, *shift = scale + s->out.c;

	(void) err;
	for (int n = 0; n < run->n; n++)
		for (size_t i = 0; i < npix; i += tile)
		{
			uint8_t *to = (uint8_t *) cpu_at(run->arena, &s->out, n) + i * dps;
			size_t count = npix - i < tile ? npix - i : tile;
			int c = 0;

			for (int j = 0; j < s->nin; j++)
			{
				const CpuView *in = &s->in[j];

				int8_steps(run->plan->dev, to + c, dps, cpu_at(run->arena, in, n), in, i * (size_t) in->vec,
				           count, scale + c, shift + c);
				c += in->c;
			}
		}
	return DFX_OK;
}

/* The pool in its input's type, in the scratch memory, then rounded. */
static DfxStatus
int8_run_pool(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	void *pooled = run->arena + run->plan->scratch_off;
	const float *scale = s->param;
	CpuView plain = s->out;

	(void) err;
	plain.type = s->in[0].type;
	for (int n = 0; n < run->n; n++)
	{
		cpu_pool_image(run->plan->dev, &s->pool, pooled, &plain, cpu_at(run->arena, &s->in[0], n), &s->in[0]);
		int8_steps(run->plan->dev, cpu_at(run->arena, &s->out, n), (size_t) s->out.vec, pooled, &plain, 0,
		           cpu_pixels(&s->out), scale, scale + s->out.c);
	}
	return DFX_OK;
}

/* --- residuals ----------------------------------------------------------- */

void
cpu_int8_copy(const DfxDev *dev, void *dst, const CpuView *out, const void *src, const CpuView *from)
{
	if (from->type != CPU_U8)
		cpu_copy_channels(dst, out, 0, src, from);
	else if (out->type == CPU_U8)
		memcpy(dst, src, cpu_floats(from));
	else if (out->type == CPU_BF16)
		dev->int8_kernels->halves(dst, src, cpu_floats(from), from->step);
	else
		dev->int8_kernels->floats(dst, src, cpu_floats(from), from->step);
}

/* --- convolutions of our own ----------------------------------------------- */

void
cpu_int8_own(const CpuBuild *b, const DfxOp *op, CpuStep *s)
{
	s->relu = op->epi_act == DFX_ACT_RELU;
	s->add_apart = op->epi_add >= 0;
	if (s->add_apart)
		s->add_from = b->view[op->epi_add];
}

/* What one is worth in the numbers of a step's output. */
static float
int8_unit(const CpuStep *s)
{
	return s->out.type == CPU_U8 ? 1 / s->out.step : 1;
}

const float *
cpu_int8_channels(CpuBuild *b, const CpuStep *s, const CpuInt8Weights *w, float scale, DfxErr *err)
{
	size_t co = (size_t) s->out.c;
	float *channel = cpu_plan_alloc(b->plan, 2 * co * sizeof *channel, err);

	for (size_t i = 0; channel && i < co; i++)
	{
		channel[i] = s->in[0].step * w->step[i] * scale * int8_unit(s);
		channel[co + i] = w->bias ? w->bias[i] * int8_unit(s) : 0;
	}
	return channel;
}

CpuInt8Epilogue
cpu_int8_epilogue(const CpuStep *s, const CpuRun *run, int image, const float *channel)
{
	CpuInt8Epilogue epi = {
	    .scale = channel, .bias = channel + s->out.c, .type = s->out.type, .relu = s->relu};

	if (s->add_apart)
	{
		epi.add = cpu_at(run->arena, &s->add_from, image);
		epi.add_type = s->add_from.type;
		epi.add_step = (s->add_from.type == CPU_U8 ? s->add_from.step : 1) * int8_unit(s);
	}
	return epi;
}

/* --- convolutions of the library -------------------------------------------- */

typedef struct Int8Conv
{
	CpuConvShape s;
	const DfxOp *op;
	const char *name;
	const float *bias; /* NULL: none */
	int8_t *weights;   /* co x ci x kh x kw steps */
	float *w_step;     /* of each output channel */
	float *scale;      /* of each, what its sums are multiplied by */
	bool divide;       /* at the end, by the output's step, rather than in scale */
} Int8Conv;

typedef struct Int8Mds
{
	DnnlMd src, dst, weights, plain, channel, add; /* channel: a number for each of the output's */
} Int8Mds;

static void
int8_free_mds(Int8Mds *m)
{
	dfx_md_free(m->src);
	dfx_md_free(m->dst);
	dfx_md_free(m->weights);
	dfx_md_free(m->plain);
	dfx_md_free(m->channel);
	dfx_md_free(m->add);
}

static DfxStatus
int8_mds(Int8Mds *m, const Int8Conv *c, const CpuStep *s, int n, DfxErr *err)
{
	const dnnl_dims_t dim = {c->s.co, c->s.ci, c->s.kh, c->s.kw}, channel = {c->s.co};
	CpuView add = s->out;
	DfxStatus st;

	*m = (Int8Mds){0};
	add.type = s->add_from.type;
	st = cpu_view_md(&m->src, &s->in[0], n, err);
	if (st == DFX_OK)
		st = cpu_view_md(&m->dst, &s->out, n, err);
	if (st == DFX_OK)
		st = cpu_view_md(&m->add, &add, n, err);
	if (st == DFX_OK)
		st = cpu_fail_dnnl(dfx_md_typed(&m->weights, 4, dim, dnnl_s8, dnnl_format_tag_any),
		                   "a weights descriptor", err);
	if (st == DFX_OK)
		st = cpu_fail_dnnl(dfx_md_typed(&m->plain, 4, dim, dnnl_s8, dnnl_oihw), "a weights descriptor", err);
	if (st == DFX_OK)
		st = cpu_fail_dnnl(dfx_md_new(&m->channel, 1, channel, dnnl_a), "a channel descriptor", err);
	return st;
}

static dnnl_status_t
int8_post_ops(dnnl_post_ops_t ops, const Int8Conv *c, const CpuStep *s, DnnlConstMd add)
{
	dnnl_status_t st = dnnl_success;
	bool u8 = s->out.type == CPU_U8;

	if (c->divide)
		st = dnnl_post_ops_append_binary(ops, dnnl_binary_add, add);
	else if (c->op->epi_add >= 0)
		st = dfx_post_sum(ops, u8 ? s->add_from.step / s->out.step : 1);
	/* Steps end at zero by themselves. */
	if (st == dnnl_success && c->op->epi_act == DFX_ACT_RELU && !u8)
		st = dfx_post_eltwise(ops, dnnl_eltwise_relu, 0);
	if (st == dnnl_success && c->divide)
		st = dfx_post_eltwise(ops, dnnl_eltwise_linear, 1 / s->out.step);
	return st;
}

static dnnl_status_t
int8_attr(dnnl_primitive_attr_t *attr, const Int8Conv *c, const CpuStep *s, DnnlConstMd add)
{
	dnnl_post_ops_t ops;
	dnnl_status_t st = dfx_attr_begin(attr, &ops);

	if (st == dnnl_success)
		st = dfx_attr_scales(*attr, c->s.co, c->scale);
	if (st == dnnl_success)
		st = int8_post_ops(ops, c, s, add);
	return dfx_attr_end(attr, ops, st);
}

/* The bucket's primitive, as cpu_conv_prim(). */
static dnnl_status_t
int8_create_one(CpuBuild *b, const Int8Conv *c, CpuStep *s, int k, const Int8Mds *m)
{
	const DnnlConv conv = {dnnl_convolution_direct, c->s.stride, c->s.pad, NULL};
	const CpuConvMds mds = {m->src, m->weights, c->bias ? m->channel : NULL, m->dst};
	dnnl_primitive_attr_t attr;
	dnnl_status_t st = int8_attr(&attr, c, s, m->add);

	return st == dnnl_success ? cpu_conv_prim(b, s, k, &conv, &mds, attr) : st;
}

static DfxStatus
int8_create(CpuBuild *b, const Int8Conv *c, CpuStep *s, DfxErr *err)
{
	for (int k = 0; k < b->plan->nbucket; k++)
	{
		Int8Mds m;
		dnnl_status_t dst = dnnl_success;
		DfxStatus st = int8_mds(&m, c, s, b->plan->bucket[k], err);

		if (st == DFX_OK)
			dst = int8_create_one(b, c, s, k, &m);
		int8_free_mds(&m);
		if (st != DFX_OK)
			return st;
		b->uneven = dst == dnnl_unimplemented && k > 0;
		if (dst == dnnl_unimplemented)
			return dfx_fail(err, DFX_EUNSUPPORTED,
			                "conv %s (%d to %d channels, %dx%d) has no optimised implementation on 8-bit "
			                "integers in this oneDNN",
			                c->name, (int) c->s.ci, (int) c->s.co, (int) c->s.kh, (int) c->s.kw);
		if (dst != dnnl_success)
			return cpu_fail_dnnl(dst, c->name, err);
		s->nprim = k + 1;
	}
	return DFX_OK;
}

/* Weights and bias as the library takes them, and the scales where they are an argument. */
static DfxStatus
int8_share(CpuBuild *b, const Int8Conv *c, CpuStep *s, DfxErr *err)
{
	DnnlConstMd chosen = dnnl_primitive_desc_query_md(cpu_prim_pd(&s->prim[0]), dnnl_query_weights_md, 0);
	float *bias = c->bias ? cpu_plan_alloc(b->plan, (size_t) c->s.co * sizeof *bias, err) : NULL;
	Int8Mds m;
	DfxStatus st = int8_mds(&m, c, s, 1, err);

	if (st == DFX_OK && c->bias && bias == NULL)
		st = DFX_ENOMEM;
	for (dnnl_dim_t i = 0; bias && i < c->s.co; i++)
		bias[i] = c->bias[i] / (s->in[0].step * c->w_step[i]) * (DNNL_SCALES_BIAS ? 1 : c->scale[i]);
	if (st == DFX_OK)
		st = cpu_conv_share(b, s, DNNL_ARG_WEIGHTS, c->weights, m.plain, chosen, err);
	if (st == DFX_OK && bias)
		st = cpu_conv_share(b, s, DNNL_ARG_BIAS, bias, m.channel, m.channel, err);
	if (st == DFX_OK && DNNL_SCALES_ARG)
		st = cpu_conv_share(b, s, DNNL_SCALES_ARG, c->scale, m.channel, m.channel, err);
	int8_free_mds(&m);
	return st;
}

/* Which way the residual comes in: see the head of this file. */
static void
int8_residual(const CpuBuild *b, const DfxOp *op, CpuStep *s, Int8Conv *c)
{
	if (op->epi_add < 0)
		return;
	s->add_from = b->view[op->epi_add];
	c->divide = s->add_from.type != CPU_U8 && s->out.type == CPU_U8;
	s->add_apart = c->divide;
	if (!c->divide)
		s->copy_add = s->add_from.off != s->out.off;
}

static DfxStatus
int8_bind(DfxPlan *p, CpuStep *s, DfxErr *err)
{
	const CpuPrimArg own[] = {
	    {DNNL_ARG_SRC, dnnl_query_src_md, s->in[0].off},
	    {DNNL_ARG_DST, dnnl_query_dst_md, s->out.off},
	    {DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, p->scratch_off},
	    {DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, dnnl_query_exec_arg_md, s->add_from.off},
	};
	DfxStatus st = DFX_OK;

	for (int k = 0; k < s->nprim && st == DFX_OK; k++)
		st = cpu_prim_bind(p, &s->prim[k], own, s->add_apart ? 4 : 3, s->shared, s->nshared, err);
	return st;
}

/* A convolution that the library runs. */
static DfxStatus
int8_library_step(CpuBuild *b, Int8Conv *c, CpuStep *s, DfxErr *err)
{
	DfxStatus st;

	s->run = cpu_conv_run;
	s->bind = int8_bind;
	int8_residual(b, c->op, s, c);
	for (dnnl_dim_t i = 0; i < c->s.co; i++)
		c->scale[i] = s->in[0].step * c->w_step[i] / (s->out.type == CPU_U8 && !c->divide ? s->out.step : 1);
	st = int8_create(b, c, s, err);
	if (st == DFX_OK)
		st = int8_share(b, c, s, err);
	for (int k = 0; st == DFX_OK && k < s->nprim; k++)
		cpu_need_scratch(b, cpu_prim_scratch(&s->prim[k]));
	return st;
}

static DfxStatus
int8_conv_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const DfxParam *w = &b->g.param[op->param[DFX_W]];
	Int8Conv c = {.s = cpu_conv_shape(&b->g, op), .op = op, .name = w->name};
	size_t co = (size_t) c.s.co, row = dfx_param_count(w) / co;
	bool made = false;
	DfxStatus st = DFX_OK;

	if (op->param[DFX_B] >= 0)
		c.bias = b->g.param[op->param[DFX_B]].data;
	c.weights = malloc(co * row);
	c.w_step = malloc(2 * co * sizeof(float));
	if (c.weights == NULL || c.w_step == NULL)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	else
	{
		const CpuInt8Weights own = {c.weights, c.w_step, c.bias};

		c.scale = c.w_step + co;
		dfx_quantize_weights(w->data, co, row, c.weights, c.w_step);
		if (cpu_wino8_wants(b, s, &c.s))
			st = cpu_wino8_step(b, op, s, &own, &made, err);
		else if (cpu_point8_wants(b, op, s, &c.s))
		{
			made = true;
			st = cpu_point8_step(b, op, s, &own, err);
		}
		if (st == DFX_OK && !made)
			st = int8_library_step(b, &c, s, err);
	}
	free(c.weights);
	free(c.w_step);
	return st;
}

DfxStatus
cpu_int8_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	switch (op->kind)
	{
		case DFX_OP_CONV:
			return int8_conv_step(b, op, s, err);
		case DFX_OP_AFFINE:
			s->run = int8_run_affine;
			return int8_affine_params(b, op, s, err);
		case DFX_OP_POOL:
			s->run = int8_run_pool;
			s->pool = op->u.pool;
			cpu_need_scratch(b, cpu_floats(&s->out) * sizeof(float));
			return int8_affine_params(b, op, s, err);
		default:
			return dfx_fail(err, DFX_EINTERNAL, "the operation %s in 8-bit steps",
			                dfx_op_info[op->kind].name);
	}
}
