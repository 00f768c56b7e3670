/*
 * train_conv_run.c
 *	  The three passes of a convolution over a worker's images.
 *
 * A primitive always does chunk images.  When fewer are left, they are put
 * into scratch memory with room for chunk, and what comes out beside them is
 * not looked at; for the gradient of the weights the room beside them is
 * cleared, so that it adds nothing.
 */
#include <string.h>

#include "cpu/train_conv.h"

static DfxStatus
conv_execute(const TrainConv *c, DnnlPass pass, const TrainRun *r, const void *src, const void *dst,
             float *weights, float *bias, DfxErr *err)
{
	const TrainPass *p = &c->pass[pass];
	const dnnl_exec_arg_t *arg = p->arg + (size_t) r->worker * CONV_ARGS;
	dnnl_status_t st;

	st = dnnl_memory_set_data_handle(arg[CONV_ARG_SRC].memory, (void *) (uintptr_t) src);
	if (st == dnnl_success)
		st = dnnl_memory_set_data_handle(arg[CONV_ARG_DST].memory, (void *) (uintptr_t) dst);
	if (st == dnnl_success)
		st = dnnl_memory_set_data_handle(arg[CONV_ARG_SCRATCH].memory, train_scratch(r, TRAIN_LIB));
	if (st == dnnl_success && weights)
		st = dnnl_memory_set_data_handle(arg[CONV_ARG_WEIGHTS].memory, weights);
	if (st == dnnl_success && weights && p->narg > CONV_ARG_BIAS)
		st = dnnl_memory_set_data_handle(arg[CONV_ARG_BIAS].memory, bias);
	if (st == dnnl_success)
		st = dnnl_primitive_execute(p->prim, r->plan->dev->stream[r->worker], p->narg, arg);
	return cpu_fail_dnnl(st, "a convolution", err);
}

/* n images from one layout to another. */
static void
conv_copy(const TrainRun *r, void *to, const CpuView *tv, const void *from, const CpuView *fv, int n)
{
	for (int i = 0; i < n; i++)
		train_relay(r, train_image(to, tv, i), tv, train_image(from, fv, i), fv);
}

/* Clear the room for images beyond the n first of a chunk. */
static void
conv_clear_rest(void *scratch, const CpuView *v, int n, int chunk)
{
	memset(train_image(scratch, v, n), 0, (size_t) (chunk - n) * cpu_image_bytes(v));
}

/* The chunk of the source: as it lies if that will do, else made in scratch. */
static const void *
conv_source(const TrainStep *s, const TrainRun *r, const CpuView *want, int image, int n)
{
	void *scratch = train_scratch(r, TRAIN_SRC);

	if (n == s->conv->chunk)
		return train_read(r, &s->in[0], image, n, want, scratch);
	train_copy(r, &s->in[0], image, n, want, scratch);
	conv_clear_rest(scratch, want, n, s->conv->chunk);
	return scratch;
}

DfxStatus
train_conv_forward(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err)
{
	const TrainConv *c = s->conv;
	const TrainPass *p = &c->pass[DNNL_PASS_FORWARD];
	const TrainValue *out = &r->t->value[s->out];
	void *to = train_value(r->t, s->out, image), *dst = to;
	const void *src = conv_source(s, r, &p->src, image, n);
	DfxStatus st;

	if (p->dst.vec != out->view.vec || n < c->chunk)
		dst = train_scratch(r, TRAIN_DST);
	st = conv_execute(c, DNNL_PASS_FORWARD, r, src, dst, NULL, NULL, err);
	if (st == DFX_OK && dst != to)
		conv_copy(r, to, &out->view, dst, &p->dst, n);
	return st;
}

/* The gradient of the output in the layout of a pass; room for chunk images, the rest cleared. */
static const void *
conv_gradient(const TrainStep *s, const TrainRun *r, const CpuView *want, int image, int n)
{
	const CpuView *view = &r->t->value[s->out].view;
	void *g = train_grad(r->t, s->out, image), *scratch = train_scratch(r, TRAIN_DST);

	if (want->vec == view->vec && n == s->conv->chunk)
		return g;
	conv_copy(r, scratch, want, g, view, n);
	conv_clear_rest(scratch, want, n, s->conv->chunk);
	return scratch;
}

/* Our own loops (TrainConv.own_weights) over n images: they add to the sums. */
static void
conv_depthwise(const TrainStep *s, const TrainRun *r, const void *src, const void *dst, int n, float *sum)
{
	const TrainConv *c = s->conv;
	const CpuView *in = &c->pass[DNNL_PASS_WEIGHTS].src, *out = &c->pass[DNNL_PASS_WEIGHTS].dst;
	int taps = c->depthwise.kh * c->depthwise.kw;

	for (int i = 0; i < n; i++)
		for (int ch = 0, nl; ch < in->c; ch += nl)
		{
			CpuStrip x = train_strip(train_image(src, in, i), in, ch);
			CpuStrip dy = train_strip(train_image(dst, out, i), out, ch);
			double bias[TRAIN_PAD] = {0};

			nl = cpu_min(cpu_min(cpu_lanes(in, ch), cpu_lanes(out, ch)), cpu_min(in->c - ch, TRAIN_PAD));
			r->plan->dev->train_window_kernels->depthwise(sum + (size_t) ch * (size_t) taps, x, dy, nl,
			                                              &c->depthwise);
			if (c->bias_floats == 0)
				continue;
			r->plan->dev->train_kernels->sum(bias, dy, NULL, cpu_pixels(out), nl);
			for (int l = 0; l < nl; l++)
				sum[c->grad_floats + (size_t) (ch + l)] += (float) bias[l];
		}
}

/* Add the chunk's share to the worker's sums of the weights' and the bias's gradients. */
static DfxStatus
conv_backward_weights(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err)
{
	TrainConv *c = s->conv;
	const TrainPass *p = &c->pass[DNNL_PASS_WEIGHTS];
	bool first = !c->used[r->worker];
	float *sum = conv_sum(c, r->scratch, r->t, false), *chunk = conv_sum(c, r->scratch, r->t, !first);
	const void *src = conv_source(s, r, &p->src, image, n);
	const void *dst = conv_gradient(s, r, &p->dst, image, n);
	DfxStatus st = DFX_OK;

	if (c->own_weights)
	{
		if (first)
			memset(sum, 0, (c->grad_floats + c->bias_floats) * sizeof *sum);
		conv_depthwise(s, r, src, dst, n, sum);
	}
	else
		st = conv_execute(c, DNNL_PASS_WEIGHTS, r, src, dst, chunk, chunk + c->grad_floats, err);
	if (!c->own_weights && st == DFX_OK && !first)
		r->plan->dev->train_kernels->add(sum, chunk, c->grad_floats + c->bias_floats);
	c->used[r->worker] = true;
	return st;
}

DfxStatus
train_conv_backward(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err)
{
	const TrainConv *c = s->conv;
	const TrainPass *p = &c->pass[DNNL_PASS_DATA];
	const void *dst;
	void *dsrc = NULL, *scratch = train_scratch(r, TRAIN_DSRC);
	DfxStatus st = conv_backward_weights(s, r, image, n, err);

	if (st != DFX_OK || !train_wanted(r, &s->in[0]))
		return st;
	dst = conv_gradient(s, r, &p->dst, image, n);
	if (n == c->chunk)
		dsrc = train_direct(r, &s->in[0], image, &p->src);
	st = conv_execute(c, DNNL_PASS_DATA, r, dsrc ? dsrc : scratch, dst, NULL, NULL, err);
	if (st == DFX_OK && dsrc == NULL)
		train_push(r, &s->in[0], image, n, scratch, &p->src);
	return st;
}

/* All workers are done: their sums, in their order, become the parameters' gradients. */
DfxStatus
train_conv_done(const TrainStep *s, const TrainRun *r, DfxErr *err)
{
	TrainConv *c = s->conv;
	const DfxDev *dev = r->plan->dev;
	CpuTrain *t = r->t;
	float *all = NULL;
	dnnl_status_t st;

	for (int w = 0; w < dev->threads; w++)
	{
		float *sum = conv_sum(c, t->scratch[w], t, false);

		if (!c->used[w])
			continue;
		if (all == NULL)
			all = sum;
		else
			dev->train_kernels->add(all, sum, c->grad_floats + c->bias_floats);
		c->used[w] = false;
	}
	if (c->bias_floats > 0)
		memcpy(train_param(t, DFX_STATE_GRAD, s->param[DFX_B]), all + c->grad_floats,
		       t->param_len[s->param[DFX_B]] * sizeof *all);
	if (c->own_weights)
	{
		memcpy(train_param(t, DFX_STATE_GRAD, s->param[DFX_W]), all,
		       t->param_len[s->param[DFX_W]] * sizeof *all);
		return DFX_OK;
	}
	st = dnnl_memory_set_data_handle(c->collect_arg[0].memory, all);
	if (st == dnnl_success)
		st = dnnl_primitive_execute(c->collect, dev->stream[r->worker], 2, c->collect_arg);
	return cpu_fail_dnnl(st, "the gradient of weights", err);
}

/* Bring the library's copies of the weights up to date. */
DfxStatus
train_conv_refresh(TrainConv *c, const TrainRun *r, DfxErr *err)
{
	dnnl_status_t st = dnnl_success;

	for (int i = 0; i < 2 && st == dnnl_success; i++)
		if (c->refresh[i])
			st = dnnl_primitive_execute(c->refresh[i], r->plan->dev->stream[r->worker], 2, c->refresh_arg[i]);
	return cpu_fail_dnnl(st, "reordering weights", err);
}
