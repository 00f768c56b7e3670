/*
 * train_conv.c
 *	  Convolutions and linear layers of a training plan: which of the library's
 *	  primitives run their three passes, and in which layouts.
 *
 * Each pass is tried in the network's own layout, then in nhwc (grouped
 * convolutions), then in nchw (whatever the library has no vector code for, as
 * matrix products); a consumer copies where that differs from how a value is
 * stored.  Winograd's algorithm is taken for all three passes where it applies
 * and there are tiles enough (inference: conv.c); the library has it for floats
 * only.  An implementation whose name begins with "ref" is never taken.
 */
#include <string.h>

#include "cpu/train_conv.h"

#define CONV_CHUNK_PIXELS 4096
#define CONV_TILES        48 /* of 4 x 4 pixels in a chunk: fewer make matrices too small for Winograd to pay */

/*
 * How many images at once: enough pixels that the weights are worth loading,
 * the gradients of weights worth adding up, and Winograd's matrices large, but
 * not so many that the caches overflow.  Shares are cut evenly.
 */
static int
conv_chunk(const CpuView *out, int share)
{
	size_t pixels = cpu_pixels(out);
	int most = pixels >= CONV_CHUNK_PIXELS ? 1 : (int) (CONV_CHUNK_PIXELS / pixels);
	int chunks = (share + most - 1) / most;

	return (share + chunks - 1) / chunks;
}

static bool
conv_wants_winograd(const CpuConvShape *c, const CpuView *out, int chunk)
{
	return out->type == CPU_F32 && cpu_conv_winograd(c, out) &&
	       chunk * ((out->h + 3) / 4) * ((out->w + 3) / 4) >= CONV_TILES;
}

/* Descriptors of one pass; all freed together. */
typedef struct ConvMds
{
	DnnlMd src, dst, weights, bias;
	DnnlMd grad, plain; /* of the weights: in floats, in any order and in PyTorch's */
} ConvMds;

static void
conv_free_mds(ConvMds *m)
{
	dfx_md_free(m->src);
	dfx_md_free(m->dst);
	dfx_md_free(m->weights);
	dfx_md_free(m->bias);
	dfx_md_free(m->grad);
	dfx_md_free(m->plain);
}

static dnnl_status_t
conv_mds(ConvMds *m, const CpuConvShape *c, bool bias, const CpuView *src, const CpuView *dst, int n)
{
	const dnnl_dims_t sd = {n, src->c, src->h, src->w}, dd = {n, dst->c, dst->h, dst->w}, bd = {c->co};
	const dnnl_dims_t wd = {c->co, c->ci, c->kh, c->kw};
	const dnnl_dims_t gd = {c->groups, c->co / c->groups, c->ci / c->groups, c->kh, c->kw};
	const dnnl_data_type_t type = src->type == CPU_BF16 ? dnnl_bf16 : dnnl_f32;
	const dnnl_dim_t *w = c->groups > 1 ? gd : wd;
	int rank = c->groups > 1 ? 5 : 4;
	dnnl_status_t st;

	*m = (ConvMds){0};
	st = dfx_md_typed(&m->src, 4, sd, type, src->tag);
	if (st == dnnl_success)
		st = dfx_md_typed(&m->dst, 4, dd, type, dst->tag);
	if (st == dnnl_success)
		st = dfx_md_typed(&m->weights, rank, w, type, dnnl_format_tag_any);
	if (st == dnnl_success)
		st = dfx_md_new(&m->grad, rank, w, dnnl_format_tag_any);
	if (st == dnnl_success)
		st = dfx_md_new(&m->plain, rank, w, rank == 5 ? dnnl_goihw : dnnl_oihw);
	if (st == dnnl_success && bias)
		st = dfx_md_new(&m->bias, 1, bd, dnnl_a);
	return st;
}

/* The pass's descriptor in these layouts; dnnl_unimplemented when the library has only its reference. */
static dnnl_status_t
conv_pd(const TrainBuild *b, const CpuConvShape *c, const ConvMds *m, DnnlPass pass, dnnl_alg_kind_t alg,
        dnnl_primitive_desc_t *pd)
{
	const DnnlConv conv = {alg, c->stride, c->pad, NULL};
	dnnl_primitive_attr_t attr = NULL;
	dnnl_primitive_desc_t hint = NULL;
	dnnl_status_t st = dnnl_primitive_attr_create(&attr);

	*pd = NULL;
	if (st == dnnl_success)
		st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
	if (st == dnnl_success && pass != DNNL_PASS_FORWARD)
		st = dfx_conv_train_pd(&hint, b->dev->engine, DNNL_PASS_FORWARD, &conv, m->src, m->weights, m->bias,
		                       m->dst, NULL, attr);
	if (st == dnnl_success)
		st = dfx_conv_train_pd(pd, b->dev->engine, pass, &conv, m->src,
		                       pass == DNNL_PASS_WEIGHTS ? m->grad : m->weights, m->bias, m->dst, hint, attr);
	if (st == dnnl_success && strncmp(dfx_pd_impl(*pd), "ref", 3) == 0)
	{
		dnnl_primitive_desc_destroy(*pd);
		*pd = NULL;
		st = dnnl_unimplemented;
	}
	if (hint)
		dnnl_primitive_desc_destroy(hint);
	if (attr)
		dnnl_primitive_attr_destroy(attr);
	return st;
}

/*
 * Find an implementation and its layouts.  On success *m and *pd are the
 * caller's to free; DFX_EUNSUPPORTED when there is none but the reference.
 */
static DfxStatus
conv_find(const TrainBuild *b, const CpuConvShape *c, TrainConv *conv, DnnlPass pass, const CpuView *src,
          const CpuView *dst, ConvMds *m, dnnl_primitive_desc_t *pd, DfxErr *err)
{
	const int vec[][2] = {{src->vec, dst->vec}, {src->c, dst->c}, {1, 1}};
	bool winograd = conv_wants_winograd(c, dst, conv->chunk);
	TrainPass *p = &conv->pass[pass];

	for (int i = winograd ? -1 : 0; i < 3; i++)
	{
		dnnl_alg_kind_t alg = i < 0 ? dnnl_convolution_winograd : dnnl_convolution_direct;
		dnnl_status_t st;

		p->src = train_relayout(src, vec[i < 0 ? 0 : i][0]);
		p->dst = train_relayout(dst, vec[i < 0 ? 0 : i][1]);
		st = conv_mds(m, c, conv->bias, &p->src, &p->dst, conv->chunk);
		if (st == dnnl_success)
			st = conv_pd(b, c, m, pass, alg, pd);
		if (st == dnnl_success)
			return DFX_OK;
		conv_free_mds(m);
		if (st != dnnl_unimplemented)
			return cpu_fail_dnnl(st, conv->name, err);
	}
	return dfx_fail(
	    err, DFX_EUNSUPPORTED,
	    "%s (%d to %d channels, %dx%d) cannot be trained: this oneDNN has no optimised implementation",
	    conv->name, (int) c->ci, (int) c->co, (int) c->kh, (int) c->kw);
}

/*
 * Depthwise convolutions whose weights' gradient the library computes in no
 * vector code of their own (strides with large kernels): kernels_train.c does.
 */
static bool
conv_own_weights(const TrainBuild *b, const CpuConvShape *c, TrainConv *conv, const CpuView *src,
                 const CpuView *dst)
{
	dnnl_primitive_desc_t pd;
	ConvMds m;
	dnnl_status_t st = conv_mds(&m, c, conv->bias, src, dst, conv->chunk);

	if (st == dnnl_success)
		st = conv_pd(b, c, &m, DNNL_PASS_WEIGHTS, dnnl_convolution_direct, &pd);
	conv_free_mds(&m);
	if (st == dnnl_success)
		dnnl_primitive_desc_destroy(pd);
	if (st != dnnl_unimplemented)
		return false;
	conv->depthwise = (CpuDepthwise){.ih = src->h,
	                                 .iw = src->w,
	                                 .oh = dst->h,
	                                 .ow = dst->w,
	                                 .kh = (int) c->kh,
	                                 .kw = (int) c->kw,
	                                 .sh = (int) c->stride[0],
	                                 .sw = (int) c->stride[1],
	                                 .ph = (int) c->pad[0],
	                                 .pw = (int) c->pad[1]};
	conv->own_weights = true;
	conv->pass[DNNL_PASS_WEIGHTS].src = train_relayout(src, src->vec);
	conv->pass[DNNL_PASS_WEIGHTS].dst = train_relayout(dst, dst->vec);
	return true;
}

/* ---- arguments ---- */

typedef struct ConvArg
{
	int arg; /* of the library */
	DnnlConstMd md;
	void *handle; /* NULL: set before each execution */
} ConvArg;

/* Memory objects of every worker. */
static DfxStatus
conv_args(TrainBuild *b, TrainPass *p, const ConvArg *what, int n, DfxErr *err)
{
	size_t threads = (size_t) b->dev->threads;

	p->narg = n;
	p->arg = cpu_plan_alloc(b->plan, threads * CONV_ARGS * sizeof *p->arg, err);
	if (p->arg == NULL)
		return DFX_ENOMEM;
	for (size_t w = 0; w < threads; w++)
		for (int i = 0; i < n; i++)
		{
			dnnl_exec_arg_t *a = &p->arg[w * CONV_ARGS + (size_t) i];
			DfxStatus st = cpu_plan_memory(b->plan, what[i].md, what[i].handle, &a->memory, err);

			if (st != DFX_OK)
				return st;
			a->arg = what[i].arg;
		}
	return DFX_OK;
}

static DfxStatus
conv_reorder(TrainBuild *b, DnnlConstMd from_md, dnnl_memory_t from, DnnlConstMd to_md, dnnl_memory_t to,
             dnnl_primitive_t *prim, dnnl_exec_arg_t arg[2], DfxErr *err)
{
	dnnl_primitive_desc_t pd = NULL;
	dnnl_status_t st =
	    dnnl_reorder_primitive_desc_create(&pd, from_md, b->dev->engine, to_md, b->dev->engine, NULL);

	if (st == dnnl_success)
		st = dnnl_primitive_create(prim, pd);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	arg[0] = (dnnl_exec_arg_t){DNNL_ARG_FROM, from};
	arg[1] = (dnnl_exec_arg_t){DNNL_ARG_TO, to};
	return cpu_fail_dnnl(st, "reordering weights", err);
}

/* The weights in the format of a pass, and how they get there from the parameter. */
static DfxStatus
conv_weights(TrainBuild *b, TrainConv *c, const DfxOp *op, DnnlPass pass, DnnlConstMd plain, DnnlConstMd md,
             DfxErr *err)
{
	dnnl_memory_t from, to;
	DfxStatus st;

	c->weights[pass] = cpu_plan_alloc(b->plan, dnnl_memory_desc_get_size(md), err);
	if (c->weights[pass] == NULL)
		return DFX_ENOMEM;
	st = cpu_plan_memory(b->plan, plain, train_param(b->t, DFX_STATE_VALUE, op->param[DFX_W]), &from, err);
	if (st == DFX_OK)
		st = cpu_plan_memory(b->plan, md, c->weights[pass], &to, err);
	if (st == DFX_OK)
		st = conv_reorder(b, plain, from, md, to, &c->refresh[pass], c->refresh_arg[pass], err);
	return st;
}

/* The workers' sums of the gradients of weights (of this many floats) and bias. */
static DfxStatus
conv_sums(TrainBuild *b, TrainConv *c, const DfxOp *op, size_t floats, DfxErr *err)
{
	c->grad_floats = (floats + TRAIN_PAD) / TRAIN_PAD * TRAIN_PAD;
	if (op->param[DFX_B] >= 0)
		c->bias_floats = ((size_t) b->g->val[op->out].c + TRAIN_PAD) / TRAIN_PAD * TRAIN_PAD;
	train_need(b, TRAIN_WEIGHTS, 2 * (c->grad_floats + c->bias_floats) * sizeof(float));
	c->used = cpu_plan_alloc(b->plan, (size_t) b->dev->threads * sizeof *c->used, err);
	return c->used ? DFX_OK : DFX_ENOMEM;
}

/* How the sum of all workers gets into the parameter's gradient. */
static DfxStatus
conv_collect(TrainBuild *b, TrainConv *c, const DfxOp *op, DnnlConstMd plain, DnnlConstMd md, DfxErr *err)
{
	dnnl_memory_t from, to;
	DfxStatus st = conv_sums(b, c, op, dnnl_memory_desc_get_size(md) / sizeof(float), err);

	if (st == DFX_OK)
		st = cpu_plan_memory(b->plan, md, NULL, &from, err);
	if (st == DFX_OK)
		st = cpu_plan_memory(b->plan, plain, train_param(b->t, DFX_STATE_GRAD, op->param[DFX_W]), &to, err);
	if (st == DFX_OK)
		st = conv_reorder(b, md, from, plain, to, &c->collect, c->collect_arg, err);
	return st;
}

/* Make a pass's primitive and arguments from its descriptor. */
static DfxStatus
conv_make(TrainBuild *b, TrainConv *c, const DfxOp *op, DnnlPass pass, const ConvMds *m,
          const_dnnl_primitive_desc_t pd, DfxErr *err)
{
	static const int names[DNNL_PASS_COUNT][CONV_ARGS] = {
	    {DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS},
	    {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_SCRATCHPAD, DNNL_ARG_WEIGHTS, 0},
	    {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_SCRATCHPAD, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS},
	};
	TrainPass *p = &c->pass[pass];
	bool sums = pass == DNNL_PASS_WEIGHTS;
	DnnlConstMd wmd =
	    dnnl_primitive_desc_query_md(pd, sums ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
	DnnlConstMd scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
	bool bias = m->bias != NULL && pass != DNNL_PASS_DATA;
	ConvArg arg[CONV_ARGS] = {{.md = m->src}, {.md = m->dst}, {.md = scratch}, {.md = wmd}, {.md = m->bias}};
	DfxStatus st = cpu_fail_dnnl(dnnl_primitive_create(&p->prim, pd), c->name, err);

	if (st != DFX_OK)
		return st;
	strncpy(p->impl, dfx_pd_impl(pd), sizeof p->impl - 1);
	train_need(b, TRAIN_LIB, dnnl_memory_desc_get_size(scratch));
	st = sums ? conv_collect(b, c, op, m->plain, wmd, err) : conv_weights(b, c, op, pass, m->plain, wmd, err);
	if (st != DFX_OK)
		return st;
	for (int i = 0; i < CONV_ARGS; i++)
		arg[i].arg = names[pass][i];
	if (!sums)
	{
		arg[CONV_ARG_WEIGHTS].handle = c->weights[pass];
		if (bias)
			arg[CONV_ARG_BIAS].handle = train_param(b->t, DFX_STATE_VALUE, op->param[DFX_B]);
	}
	return conv_args(b, p, arg, bias ? CONV_ARGS : CONV_ARG_BIAS, err);
}

static DfxStatus
conv_new_pass(TrainBuild *b, TrainConv *c, const DfxOp *op, const CpuConvShape *shape, DnnlPass pass,
              const CpuView *src, const CpuView *dst, DfxErr *err)
{
	dnnl_primitive_desc_t pd;
	ConvMds m;
	DfxStatus st;

	if (pass == DNNL_PASS_WEIGHTS && shape->groups > 1 && shape->groups == shape->ci &&
	    shape->ci == shape->co && conv_own_weights(b, shape, c, src, dst))
		return conv_sums(b, c, op, b->t->param_len[op->param[DFX_W]], err);
	st = conv_find(b, shape, c, pass, src, dst, &m, &pd, err);
	if (st != DFX_OK)
		return st;
	st = conv_make(b, c, op, pass, &m, pd, err);
	dnnl_primitive_desc_destroy(pd);
	conv_free_mds(&m);
	return st;
}

DfxStatus
train_conv_step(TrainBuild *b, const DfxOp *op, TrainStep *s, DfxErr *err)
{
	CpuConvShape shape = cpu_conv_shape(b->g, op);
	const CpuView *src = &s->in[0].view, *dst = &b->t->value[s->out].view;
	TrainConv *c = cpu_plan_alloc(b->plan, sizeof *c, err);
	bool data = false;

	if (c == NULL)
		return DFX_ENOMEM;
	s->conv = c;
	c->name = b->g->param[op->param[DFX_W]].name;
	c->bias = op->param[DFX_B] >= 0;
	c->chunk = s->chunk = conv_chunk(dst, b->share);
	s->forward = train_conv_forward;
	s->backward = train_conv_backward;
	s->backward_done = train_conv_done;
	for (int j = 0; j < s->in[0].npiece; j++)
		data = data || b->t->value[s->in[0].piece[j]].wants_grad;
	for (DnnlPass pass = 0; pass < DNNL_PASS_COUNT; pass++)
	{
		DfxStatus st;

		if (pass == DNNL_PASS_DATA && !data)
			continue;
		st = conv_new_pass(b, c, op, &shape, pass, src, dst, err);
		if (st != DFX_OK)
			return st;
		train_need(b, pass == DNNL_PASS_DATA ? TRAIN_DSRC : TRAIN_SRC,
		           (size_t) c->chunk * cpu_image_bytes(&c->pass[pass].src));
		train_need(b, TRAIN_DST, (size_t) c->chunk * cpu_image_bytes(&c->pass[pass].dst));
	}
	c->name = NULL; /* the graph's, which may go after compile */
	return DFX_OK;
}

void
train_conv_free(TrainConv *c)
{
	if (c == NULL)
		return;
	for (int i = 0; i < DNNL_PASS_COUNT; i++)
		if (c->pass[i].prim)
			dnnl_primitive_destroy(c->pass[i].prim);
	for (int i = 0; i < 2; i++)
		if (c->refresh[i])
			dnnl_primitive_destroy(c->refresh[i]);
	if (c->collect)
		dnnl_primitive_destroy(c->collect);
}
