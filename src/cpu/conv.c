/*
 * conv.c
 *	  Steps that oneDNN runs: convolutions (a linear layer is a 1x1
 *	  convolution) with their whole epilogue, and element-wise activations.
 *
 * The weights go once into the format that the library asks for when it may
 * choose (format_tag_any); all buckets and workers share them.  Activations
 * keep the layouts that layout.c gave them, so there is no other reorder.
 *
 * The library falls back to reference loops, hundreds of times slower, without
 * a word.  Implementation names that begin with "ref" are therefore refused.
 *
 * Every bucket of a convolution must use the same implementation and weights:
 * then an image's result does not depend on the batch it came in.  Where the
 * library would choose differently, the plan is made again with images going
 * one by one (CpuBuild.uneven, plan.c).
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

typedef struct ConvShape
{
	CpuConvShape s;
	const float *weights, *bias;
	const float *scale, *shift; /* of the epilogue */
	const char *name;
	CpuType type; /* of the source and the weights; the bias and sums are floats */
} ConvShape;

/* Descriptors of one bucket; all freed together. */
typedef struct ConvMds
{
	DnnlMd src, dst, weights, bias, channel;
} ConvMds;

static const float *
conv_data(const DfxGraph *g, int param)
{
	return param >= 0 ? g->param[param].data : NULL;
}

CpuConvShape
cpu_conv_shape(const DfxGraph *g, const DfxOp *op)
{
	const DfxConv *a = &op->u.conv;
	CpuConvShape c = {
	    .groups = 1, .ci = g->val[op->in[0]].c, .co = g->val[op->out].c, .kh = 1, .kw = 1, .stride = {1, 1}};

	if (op->kind != DFX_OP_CONV)
		return c;
	c.groups = a->groups > 0 ? a->groups : 1;
	c.kh = a->kh;
	c.kw = a->kw;
	c.stride[0] = a->sh > 0 ? a->sh : 1;
	c.stride[1] = a->sw > 0 ? a->sw : 1;
	c.pad[0] = a->ph;
	c.pad[1] = a->pw;
	return c;
}

static ConvShape
conv_shape(const CpuBuild *b, const DfxOp *op)
{
	const DfxGraph *g = &b->g;

	return (ConvShape){.s = cpu_conv_shape(g, op),
	                   .weights = conv_data(g, op->param[DFX_W]),
	                   .bias = conv_data(g, op->param[DFX_B]),
	                   .scale = conv_data(g, op->epi_scale),
	                   .shift = conv_data(g, op->epi_shift),
	                   .name = g->param[op->param[DFX_W]].name,
	                   .type = b->view[op->in[0]].type};
}

/*
 * Winograd does 3x3 convolutions with 4 times fewer multiplications (tiles of
 * 4x4; 2.25 times with tiles of 2x2, which the library prefers for one image
 * although they were slower in all shapes measured but one), at an error of
 * about 1e-5 of the output's magnitude.
 */
bool
cpu_conv_winograd(const CpuConvShape *c, const CpuView *out)
{
	return c->kh == 3 && c->kw == 3 && c->stride[0] == 1 && c->stride[1] == 1 && c->pad[0] == 1 &&
	       c->pad[1] == 1 && c->groups == 1 && c->ci % 16 == 0 && c->co % 16 == 0 && out->h >= 4 &&
	       out->w >= 4;
}

DfxStatus
cpu_view_md(DnnlMd *md, const CpuView *v, int n, DfxErr *err)
{
	const dnnl_dims_t dim = {n, v->c, v->h, v->w};

	return cpu_fail_dnnl(dfx_md_typed(md, 4, dim, cpu_dnnl_type(v->type), v->tag), "a memory descriptor",
	                     err);
}

static DfxStatus
conv_weights_md(DnnlMd *md, const ConvShape *c, dnnl_format_tag_t tag, dnnl_format_tag_t grouped, DfxErr *err)
{
	const dnnl_dims_t dim = {c->s.co, c->s.ci, c->s.kh, c->s.kw};
	const dnnl_dims_t gdim = {c->s.groups, c->s.co / c->s.groups, c->s.ci / c->s.groups, c->s.kh, c->s.kw};

	dnnl_data_type_t type = cpu_dnnl_type(c->type);

	return cpu_fail_dnnl(c->s.groups > 1 ? dfx_md_typed(md, 5, gdim, type, grouped)
	                                     : dfx_md_typed(md, 4, dim, type, tag),
	                     "a weights descriptor", err);
}

static void
conv_free_mds(ConvMds *m)
{
	dfx_md_free(m->src);
	dfx_md_free(m->dst);
	dfx_md_free(m->weights);
	dfx_md_free(m->bias);
	dfx_md_free(m->channel);
}

static DfxStatus
conv_mds(ConvMds *m, const ConvShape *c, const CpuStep *s, int n, DfxErr *err)
{
	const dnnl_dims_t bias = {c->s.co}, channel = {1, c->s.co, 1, 1};
	DfxStatus st;

	*m = (ConvMds){0};
	st = cpu_view_md(&m->src, &s->in[0], n, err);
	if (st == DFX_OK)
		st = cpu_view_md(&m->dst, &s->out, n, err);
	if (st == DFX_OK)
		st = conv_weights_md(&m->weights, c, dnnl_format_tag_any, dnnl_format_tag_any, err);
	if (st == DFX_OK && c->bias)
		st = cpu_fail_dnnl(dfx_md_new(&m->bias, 1, bias, dnnl_a), "a bias descriptor", err);
	if (st == DFX_OK && (c->scale || c->shift))
		st = cpu_fail_dnnl(dfx_md_new(&m->channel, 4, channel, dnnl_nchw), "a channel descriptor", err);
	return st;
}

static const struct
{
	dnnl_alg_kind_t alg;
	float alpha;
} conv_act[DFX_ACT_COUNT] = {
    [DFX_ACT_RELU] = {dnnl_eltwise_relu, 0},
    [DFX_ACT_SILU] = {dnnl_eltwise_swish, 1},
    [DFX_ACT_GELU] = {dnnl_eltwise_gelu_erf, 0},
    [DFX_ACT_SIGMOID] = {dnnl_eltwise_logistic, 0},
};

/* The epilogue of nn.h as post-ops, in its order: + add, act, * scale, + shift; and our own scratchpad. */
static dnnl_status_t
conv_attr(dnnl_primitive_attr_t *attr, const DfxOp *op, const ConvShape *c, DnnlConstMd channel)
{
	dnnl_post_ops_t ops;
	dnnl_status_t st = dfx_attr_begin(attr, &ops);

	if (st == dnnl_success && op->epi_add >= 0)
		st = dfx_post_sum(ops, 1);
	if (st == dnnl_success && op->epi_act != DFX_ACT_NONE)
		st = dfx_post_eltwise(ops, conv_act[op->epi_act].alg, conv_act[op->epi_act].alpha);
	if (st == dnnl_success && c->scale)
		st = dnnl_post_ops_append_binary(ops, dnnl_binary_mul, channel);
	if (st == dnnl_success && c->shift)
		st = dnnl_post_ops_append_binary(ops, dnnl_binary_add, channel);
	return dfx_attr_end(attr, ops, st);
}

dnnl_status_t
cpu_conv_prim(CpuBuild *b, CpuStep *s, int k, const DnnlConv *conv, const CpuConvMds *m,
              dnnl_primitive_attr_t attr)
{
	const size_t len = sizeof s->impl - 1;
	DnnlConstMd weights =
	    k == 0 ? m->weights
	           : dnnl_primitive_desc_query_md(cpu_prim_pd(&s->prim[0]), dnnl_query_weights_md, 0);
	dnnl_primitive_desc_t pd = NULL;
	dnnl_status_t st = dfx_conv_pd(&pd, b->dev->engine, conv, m->src, weights, m->bias, m->dst, attr);

	dnnl_primitive_attr_destroy(attr);
	if (st != dnnl_success)
		return st;
	if (strncmp(dfx_pd_impl(pd), "ref", 3) == 0 || (k > 0 && strncmp(dfx_pd_impl(pd), s->impl, len) != 0))
		st = dnnl_unimplemented;
	else
	{
		strncpy(s->impl, dfx_pd_impl(pd), len);
		st = dnnl_primitive_create(&s->prim[k].prim, pd);
	}
	dnnl_primitive_desc_destroy(pd);
	return st;
}

/* The bucket's primitive, as cpu_conv_prim(). */
static dnnl_status_t
conv_create_one(CpuBuild *b, const DfxOp *op, const ConvShape *c, CpuStep *s, int k, const ConvMds *m,
                dnnl_alg_kind_t alg)
{
	const DnnlConv conv = {alg, c->s.stride, c->s.pad, alg == dnnl_convolution_winograd ? "wino_4x3" : NULL};
	const CpuConvMds mds = {m->src, m->weights, m->bias, m->dst};
	dnnl_primitive_attr_t attr;
	dnnl_status_t st = conv_attr(&attr, op, c, m->channel);

	return st == dnnl_success ? cpu_conv_prim(b, s, k, &conv, &mds, attr) : st;
}

static void
conv_destroy_prims(CpuStep *s, int from)
{
	for (int k = from; k < CPU_MAX_BUCKET; k++)
	{
		if (s->prim[k].prim)
			dnnl_primitive_destroy(s->prim[k].prim);
		s->prim[k].prim = NULL;
	}
}

/*
 * Primitives for every bucket, s->nprim of them.  None, with DFX_OK, when the
 * library has no usable implementation, or when the buckets differ (*even
 * false then).
 *
 * Winograd's weights depend on the batch for the deepest layers.  There the
 * small buckets borrow the larger one's primitive and compute an image or two
 * of leftovers beside their own (the arena has room for the largest bucket):
 * not slower than the direct algorithm, and the same bits.
 */
static DfxStatus
conv_create(CpuBuild *b, const DfxOp *op, const ConvShape *c, dnnl_alg_kind_t alg, CpuStep *s, bool *even,
            DfxErr *err)
{
	*even = true;
	for (int k = 0; k < b->plan->nbucket; k++)
	{
		ConvMds m;
		dnnl_status_t dst;
		DfxStatus st = conv_mds(&m, c, s, b->plan->bucket[k], err);

		if (st != DFX_OK)
		{
			conv_free_mds(&m);
			return st;
		}
		dst = conv_create_one(b, op, c, s, k, &m, alg);
		conv_free_mds(&m);
		if (dst == dnnl_unimplemented)
		{
			bool borrow = k > 0 && alg == dnnl_convolution_winograd;

			*even = k == 0 || borrow;
			s->nprim = borrow ? k : 0;
			conv_destroy_prims(s, s->nprim);
			return DFX_OK;
		}
		if (dst != dnnl_success)
			return cpu_fail_dnnl(dst, c->name, err);
		s->nprim = k + 1;
	}
	return DFX_OK;
}

/* Copy data (plain) into a block of the plan in the format of md, as an argument all workers share. */
DfxStatus
cpu_conv_share(CpuBuild *b, CpuStep *s, int arg, const void *data, DnnlConstMd plain, DnnlConstMd md,
               DfxErr *err)
{
	dnnl_engine_t engine = b->dev->engine;
	dnnl_memory_t from = NULL, to;
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t reorder = NULL;
	dnnl_status_t dst;
	DfxStatus st;
	void *block = cpu_plan_alloc(b->plan, dnnl_memory_desc_get_size(md), err);

	if (block == NULL)
		return DFX_ENOMEM;
	st = cpu_plan_memory(b->plan, md, block, &to, err);
	if (st != DFX_OK)
		return st;
	dst = dnnl_memory_create(&from, plain, engine, (void *) (uintptr_t) data);
	if (dst == dnnl_success)
		dst = dnnl_reorder_primitive_desc_create(&pd, plain, engine, md, engine, NULL);
	if (dst == dnnl_success)
		dst = dnnl_primitive_create(&reorder, pd);
	if (dst == dnnl_success)
	{
		const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};

		dst = dnnl_primitive_execute(reorder, b->dev->stream[0], 2, args);
	}
	if (dst == dnnl_success)
		dst = dnnl_stream_wait(b->dev->stream[0]);
	if (reorder)
		dnnl_primitive_destroy(reorder);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	if (from)
		dnnl_memory_destroy(from);
	s->shared[s->nshared++] = (dnnl_exec_arg_t){arg, to};
	return cpu_fail_dnnl(dst, "reordering weights", err);
}

void
cpu_conv_round(void *to, CpuType type, const float *weights, size_t n, size_t kernel)
{
	float lost = 0;

	if (kernel == 1 || type == CPU_F32)
	{
		cpu_convert(to, type, weights, CPU_F32, n);
		return;
	}
	for (size_t i = 0; i < n; i++)
	{
		void *at = (char *) to + i * cpu_size(type);
		float want = weights[i] + (i % kernel > 0 ? lost : 0), got;

		cpu_convert(at, type, &want, CPU_F32, 1);
		cpu_convert(&got, CPU_F32, at, type, 1);
		lost = want - got;
	}
}

/* The weights, as numbers of the source's type. */
static DfxStatus
conv_share_weights(CpuBuild *b, const ConvShape *c, CpuStep *s, DnnlConstMd chosen, DfxErr *err)
{
	size_t n = (size_t) (c->s.co * (c->s.ci / c->s.groups) * c->s.kh * c->s.kw);
	DnnlMd plain = NULL;
	void *rounded = NULL;
	DfxStatus st = conv_weights_md(&plain, c, dnnl_oihw, dnnl_goihw, err);

	if (st == DFX_OK && c->type != CPU_F32)
	{
		rounded = malloc(n * cpu_size(c->type));
		if (rounded == NULL)
			st = dfx_fail(err, DFX_ENOMEM, "out of memory for the weights of %s", c->name);
		else
			cpu_conv_round(rounded, c->type, c->weights, n, (size_t) (c->s.kh * c->s.kw));
	}
	if (st == DFX_OK)
		st = cpu_conv_share(b, s, DNNL_ARG_WEIGHTS, rounded ? rounded : c->weights, plain, chosen, err);
	free(rounded);
	dfx_md_free(plain);
	return st;
}

/* Weights, bias, and the epilogue's scale and shift. */
static DfxStatus
conv_share_params(CpuBuild *b, const DfxOp *op, const ConvShape *c, CpuStep *s, DfxErr *err)
{
	int at = (op->epi_add >= 0) + (op->epi_act != DFX_ACT_NONE); /* place of scale among the post-ops */
	DnnlConstMd chosen = dnnl_primitive_desc_query_md(cpu_prim_pd(&s->prim[0]), dnnl_query_weights_md, 0);
	ConvMds m;
	DfxStatus st = conv_mds(&m, c, s, 1, err);

	if (st == DFX_OK)
		st = conv_share_weights(b, c, s, chosen, err);
	if (st == DFX_OK && c->bias)
		st = cpu_conv_share(b, s, DNNL_ARG_BIAS, c->bias, m.bias, m.bias, err);
	if (st == DFX_OK && c->scale)
		st = cpu_conv_share(b, s, DNNL_ARG_ATTR_MULTIPLE_POST_OP(at) | DNNL_ARG_SRC_1, c->scale, m.channel,
		                    m.channel, err);
	at += c->scale != NULL;
	if (st == DFX_OK && c->shift)
		st = cpu_conv_share(b, s, DNNL_ARG_ATTR_MULTIPLE_POST_OP(at) | DNNL_ARG_SRC_1, c->shift, m.channel,
		                    m.channel, err);
	conv_free_mds(&m);
	return st;
}

DfxStatus
cpu_conv_run(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	dnnl_status_t dst;

	if (s->copy_add)
		for (int n = 0; n < run->n; n++)
			cpu_int8_copy(run->plan->dev, cpu_at(run->arena, &s->out, n), &s->out,
			              cpu_at(run->arena, &s->add_from, n), &s->add_from);
	dst = cpu_prim_execute(&s->prim[run->bucket < s->nprim ? run->bucket : s->nprim - 1], run);
	return dst == dnnl_success ? DFX_OK : cpu_fail_dnnl(dst, dfx_op_info[s->kind].name, err);
}

static void
conv_note_scratch(CpuBuild *b, const CpuStep *s)
{
	for (int k = 0; k < s->nprim; k++)
		cpu_need_scratch(b, cpu_prim_scratch(&s->prim[k]));
}

static DfxStatus
conv_bind(DfxPlan *p, CpuStep *s, DfxErr *err)
{
	const CpuPrimArg own[] = {
	    {DNNL_ARG_SRC, dnnl_query_src_md, s->in[0].off},
	    {DNNL_ARG_DST, dnnl_query_dst_md, s->out.off},
	    {DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, p->scratch_off},
	};
	DfxStatus st = DFX_OK;

	for (int k = 0; k < s->nprim && st == DFX_OK; k++)
		st = cpu_prim_bind(p, &s->prim[k], own, 3, s->shared, s->nshared, err);
	return st;
}

DfxStatus
cpu_conv_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	ConvShape c = conv_shape(b, op);
	bool even = true, made = false;
	DfxStatus st = DFX_OK;

	if (cpu_wino1d_wants(b, op, &c.s))
		st = cpu_wino1d_step(b, op, s, &made, err);
	if (st != DFX_OK || made)
		return st;
	if (cpu_wino_bf16_wants(b, op, &c.s))
		return cpu_wino_bf16_step(b, op, s, err);
	if (cpu_group_wants(b, op, &c.s))
		return cpu_group_step(b, op, s, err);
	s->run = cpu_conv_run;
	s->bind = conv_bind;
	if (op->epi_add >= 0 && b->view[op->epi_add].off != b->view[op->out].off)
	{
		s->copy_add = true;
		s->add_from = b->view[op->epi_add];
	}
	if (c.type == CPU_F32 && cpu_conv_winograd(&c.s, &s->out))
		st = conv_create(b, op, &c, dnnl_convolution_winograd, s, &even, err);
	if (st == DFX_OK && s->nprim == 0)
		st = conv_create(b, op, &c, dnnl_convolution_direct, s, &even, err);
	if (st != DFX_OK)
		return st;
	b->uneven = !even;
	b->no_conv = even && s->nprim == 0;
	if (s->nprim == 0)
		return dfx_fail(err, DFX_EUNSUPPORTED,
		                "%s %s (%d to %d channels, %dx%d, %s) has no optimised implementation in this oneDNN",
		                dfx_op_info[op->kind].name, c.name, (int) c.s.ci, (int) c.s.co, (int) c.s.kh,
		                (int) c.s.kw, cpu_type_name(c.type));
	conv_note_scratch(b, s);
	return conv_share_params(b, op, &c, s, err);
}

/*
 * An activation on its own: element-wise over the whole buffer, layout and
 * padding ignored.  (A sigmoid makes the padding 0.5; weights are zero there.)
 */
DfxStatus
cpu_act_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	s->run = cpu_conv_run;
	s->bind = conv_bind;
	for (int k = 0; k < b->plan->nbucket; k++)
	{
		const dnnl_dims_t dim = {(dnnl_dim_t) (cpu_floats(&s->out) * (size_t) b->plan->bucket[k])};
		dnnl_primitive_attr_t attr = NULL;
		dnnl_primitive_desc_t pd = NULL;
		DnnlMd md = NULL;
		dnnl_status_t st = dfx_md_typed(&md, 1, dim, cpu_dnnl_type(s->out.type), dnnl_a);

		if (st == dnnl_success)
			st = dnnl_primitive_attr_create(&attr);
		if (st == dnnl_success)
			st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
		if (st == dnnl_success)
			st = dfx_eltwise_pd(&pd, b->dev->engine, conv_act[op->u.act].alg, md, conv_act[op->u.act].alpha,
			                    attr);
		if (st == dnnl_success)
		{
			strncpy(s->impl, dfx_pd_impl(pd), sizeof s->impl - 1);
			st = dnnl_primitive_create(&s->prim[k].prim, pd);
			s->nprim = k + 1;
		}
		if (pd)
			dnnl_primitive_desc_destroy(pd);
		if (attr)
			dnnl_primitive_attr_destroy(attr);
		dfx_md_free(md);
		if (st != dnnl_success)
			return cpu_fail_dnnl(st, "an activation", err);
	}
	conv_note_scratch(b, s);
	return DFX_OK;
}
