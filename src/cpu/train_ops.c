/*
 * train_ops.c
 *	  Training steps that we run ourselves, image by image: the input, pooling,
 *	  sums and products, copies, dropout.  Each op's backward follows its
 *	  forward.
 *
 * They compute in floats: y is the image of the output where it is stored if
 * that is in floats, else a copy in scratch memory, which is rounded into the
 * store afterwards, or was widened from it before.
 */
#include <string.h>

#include "cpu/train.h"

/* ---- between a step and what is stored ---- */

static DfxStatus
own_forward(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err)
{
	const CpuView *stored = &r->t->value[s->out].view;
	void *to = train_value(r->t, s->out, image);
	float *y = stored->type == CPU_F32 ? to : train_scratch(r, TRAIN_OUT);
	DfxStatus st = s->own_forward(s, r, image, y, err);

	(void) n;
	if (y != to)
		train_relay(r, to, stored, y, &s->y);
	return st;
}

static DfxStatus
own_backward(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err)
{
	const CpuView *stored = &r->t->value[s->out].view;
	void *from = train_grad(r->t, s->out, image);
	float *y = stored->type == CPU_F32 ? from : train_scratch(r, TRAIN_OUT);

	(void) n;
	if (y != from)
		train_relay(r, y, &s->y, from, stored);
	return s->own_backward(s, r, image, y, err);
}

/* Make s one that computes an image at a time, in floats. */
void
train_own(TrainBuild *b, TrainStep *s, TrainOwn forward, TrainOwn backward)
{
	s->own_forward = forward;
	s->own_backward = backward;
	s->forward = own_forward;
	s->backward = backward ? own_backward : NULL;
	s->y = b->t->value[s->out].view;
	s->y.type = CPU_F32;
	train_need(b, TRAIN_OUT, cpu_image_bytes(&s->y));
	for (int j = 0; j < s->nin; j++)
		s->in[j].view.type = CPU_F32;
}

/* ---- INPUT ---- */

static DfxStatus
ops_input(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	(void) err;
	cpu_input_image(y, &s->y, (const char *) r->in + (size_t) image * r->plan->image_bytes, s->table);
	return DFX_OK;
}

/* ---- a virtual value that has to be stored ---- */

static DfxStatus
ops_store(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err)
{
	(void) err;
	train_copy(r, &s->in[0], image, n, &r->t->value[s->out].view, train_value(r->t, s->out, image));
	return DFX_OK;
}

static DfxStatus
ops_store_back(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err)
{
	(void) err;
	train_push(r, &s->in[0], image, n, train_grad(r->t, s->out, image), &r->t->value[s->out].view);
	return DFX_OK;
}

/* ---- POOL ---- */

static DfxStatus
ops_pool(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *in = &s->in[0].view;
	const float *src = train_read(r, &s->in[0], image, 1, in, train_scratch(r, TRAIN_SRC));

	(void) err;
	cpu_pool_image(r->plan->dev, &s->pool, y, &s->y, src, in);
	return DFX_OK;
}

static DfxStatus
ops_pool_back(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *in = &s->in[0].view, *out = &s->y;
	const float *src = NULL;
	float *dz = train_scratch(r, TRAIN_DSRC);
	CpuPoolGeom g = cpu_pool_geometry(&s->pool, in, out);

	(void) err;
	if (!train_wanted(r, &s->in[0]))
		return DFX_OK;
	if (!s->pool.avg)
		src = train_read(r, &s->in[0], image, 1, in, train_scratch(r, TRAIN_SRC));
	for (int c = 0, nl; c < in->c; c += nl)
	{
		size_t at = cpu_channel(in, c);

		nl = cpu_min(cpu_min(cpu_lanes(in, c), cpu_lanes(out, c)), in->c - c);
		r->plan->dev->train_window_kernels->unpool(dz + at, src ? src + at : NULL, (size_t) in->vec,
		                                           y + cpu_channel(out, c), (size_t) out->vec, nl, &g,
		                                           s->pool.avg);
	}
	train_push(r, &s->in[0], image, 1, dz, in);
	return DFX_OK;
}

/* ---- ADD, with the ReLU that follows it ---- */

static DfxStatus
ops_add(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *v = &s->y;
	const float *a = train_read(r, &s->in[0], image, 1, v, y);
	const float *b = train_read(r, &s->in[1], image, 1, v, train_scratch(r, TRAIN_MORE));

	(void) err;
	cpu_binary_image(r->plan->dev, y, v, a, v, b, v, false, r->t->value[s->out].relu);
	return DFX_OK;
}

static DfxStatus
ops_add_back(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err)
{
	(void) err;
	for (int j = 0; j < s->nin; j++)
		train_push(r, &s->in[j], image, n, train_grad(r->t, s->out, image), &r->t->value[s->out].view);
	return DFX_OK;
}

/* ---- MUL; the second input may be one factor a channel ---- */

static DfxStatus
ops_mul(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *a = &s->in[0].view, *b = &s->in[1].view;
	const float *x = train_read(r, &s->in[0], image, 1, a, train_scratch(r, TRAIN_SRC));
	const float *z = train_read(r, &s->in[1], image, 1, b, train_scratch(r, TRAIN_MORE));

	(void) err;
	cpu_binary_image(r->plan->dev, y, &s->y, x, a, z, b, true, false);
	return DFX_OK;
}

/* The gradient by one factor a channel: over all pixels, dy times the other. */
static void
ops_mul_reduce(const TrainRun *r, float *to, const CpuView *tv, const float *dy, const CpuView *dv,
               const float *x, const CpuView *xv)
{
	for (int c = 0, nl; c < xv->c; c += nl)
	{
		double sum[TRAIN_PAD] = {0};
		float *at = to + cpu_channel(tv, c);
		CpuStrip strip = train_strip(x, xv, c);

		nl = cpu_min(cpu_min(cpu_lanes(xv, c), cpu_lanes(dv, c)), cpu_min(cpu_lanes(tv, c), xv->c - c));
		nl = cpu_min(nl, TRAIN_PAD);
		r->plan->dev->train_kernels->sum(sum, train_strip(dy, dv, c), &strip, cpu_pixels(xv), nl);
		for (int l = 0; l < nl; l++)
			at[l] = (float) sum[l];
	}
}

static DfxStatus
ops_mul_back(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *a = &s->in[0].view, *b = &s->in[1].view, *out = &s->y;
	const float *x = train_read(r, &s->in[0], image, 1, a, train_scratch(r, TRAIN_SRC));
	const float *z = train_read(r, &s->in[1], image, 1, b, train_scratch(r, TRAIN_MORE));
	float *da = train_scratch(r, TRAIN_DSRC), *db = (float *) train_scratch(r, TRAIN_MORE) + b->stride;

	(void) err;
	cpu_binary_image(r->plan->dev, da, a, y, out, z, b, true, false);
	if (cpu_pixels(b) == cpu_pixels(a))
		cpu_binary_image(r->plan->dev, db, b, y, out, x, a, true, false);
	else
		ops_mul_reduce(r, db, b, y, out, x, a);
	train_push(r, &s->in[0], image, 1, da, a);
	train_push(r, &s->in[1], image, 1, db, b);
	return DFX_OK;
}

/* ---- STACK; a vector of C x 1 x 1 is C neighbouring floats in any layout ---- */

static DfxStatus
ops_stack(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *v = &s->y;

	(void) err;
	for (int j = 0; j < s->nin; j++)
	{
		const float *x = train_read(r, &s->in[j], image, 1, &s->in[j].view, train_scratch(r, TRAIN_SRC));
		float *to = y + cpu_channel(v, j);

		for (int c = 0; c < s->in[j].view.c; c++)
			to[(size_t) c * (size_t) v->vec] = x[c];
	}
	cpu_zero_padding(y, v);
	return DFX_OK;
}

static DfxStatus
ops_stack_back(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *v = &s->y;
	float *dz = train_scratch(r, TRAIN_DSRC);

	(void) err;
	for (int j = 0; j < s->nin; j++)
	{
		const float *dy = y + cpu_channel(v, j);

		for (int c = 0; c < s->in[j].view.c; c++)
			dz[c] = dy[(size_t) c * (size_t) v->vec];
		train_push(r, &s->in[j], image, 1, dz, &s->in[j].view);
	}
	return DFX_OK;
}

/* ---- TAKE ---- */

static DfxStatus
ops_take(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *in = &s->in[0].view;
	const float *x = train_read(r, &s->in[0], image, 1, in, train_scratch(r, TRAIN_SRC));

	(void) err;
	x += (size_t) s->index * (size_t) in->vec;
	for (int c = 0; c < in->c; c++)
		y[c] = x[cpu_channel(in, c)];
	cpu_zero_padding(y, &s->y);
	return DFX_OK;
}

static DfxStatus
ops_take_back(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *in = &s->in[0].view;
	float *dz = train_scratch(r, TRAIN_DSRC);

	(void) err;
	memset(dz, 0, in->stride * sizeof *dz);
	for (int c = 0; c < in->c; c++)
		dz[cpu_channel(in, c) + (size_t) s->index * (size_t) in->vec] = y[c];
	train_push(r, &s->in[0], image, 1, dz, in);
	return DFX_OK;
}

/* ---- DROP ---- */

/* to = from * mask / (1 - p), over one image. */
static void
ops_mask(const TrainStep *s, const TrainRun *r, int image, float *to, const float *from, const CpuView *v)
{
	size_t npix = cpu_pixels(v);
	float kept = 1 / (1 - s->drop.p);
	bool whole = dfx_drop_keep(&s->drop, r->seed, s->op, image, 0);

	for (int c = 0; c < v->c; c++)
	{
		size_t at = cpu_channel(v, c);

		for (size_t i = 0; i < npix; i++, at += (size_t) v->vec)
		{
			bool keep =
			    s->drop.whole ? whole : dfx_drop_keep(&s->drop, r->seed, s->op, image, (size_t) c * npix + i);

			to[at] = keep ? from[at] * kept : 0;
		}
	}
	cpu_zero_padding(to, v);
}

static DfxStatus
ops_drop(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *v = &s->y;

	(void) err;
	if (!r->train)
		train_copy(r, &s->in[0], image, 1, v, y);
	else
		ops_mask(s, r, image, y, train_read(r, &s->in[0], image, 1, v, train_scratch(r, TRAIN_SRC)), v);
	return DFX_OK;
}

static DfxStatus
ops_drop_back(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	float *dz = train_scratch(r, TRAIN_DSRC);

	(void) err;
	ops_mask(s, r, image, dz, y, &s->y);
	train_push(r, &s->in[0], image, 1, dz, &s->y);
	return DFX_OK;
}

/* ---- the steps ---- */

static const struct
{
	TrainOwn forward, backward;
} ops_fn[DFX_OP_COUNT] = {
    [DFX_OP_INPUT] = {ops_input, NULL},
    [DFX_OP_POOL] = {ops_pool, ops_pool_back},
    [DFX_OP_ADD] = {ops_add, NULL},
    [DFX_OP_MUL] = {ops_mul, ops_mul_back},
    [DFX_OP_STACK] = {ops_stack, ops_stack_back},
    [DFX_OP_TAKE] = {ops_take, ops_take_back},
    [DFX_OP_DROP] = {ops_drop, ops_drop_back},
};

/* Steps of all kinds but convolutions, linear layers and transformers'; a BN's copy when its output is
 * stored. */
DfxStatus
train_own_step(TrainBuild *b, const DfxOp *op, TrainStep *s, DfxErr *err)
{
	size_t out = b->t->value[s->out].view.stride;

	if (op->kind == DFX_OP_BN || op->kind == DFX_OP_ACT || op->kind == DFX_OP_CONCAT)
	{
		s->forward = ops_store;
		s->backward = ops_store_back;
		return DFX_OK;
	}
	if (ops_fn[op->kind].forward == NULL)
		return dfx_fail(err, DFX_EUNSUPPORTED, "the CPU backend cannot train the operation %s",
		                dfx_op_info[op->kind].name);
	train_own(b, s, ops_fn[op->kind].forward, ops_fn[op->kind].backward);
	if (op->kind == DFX_OP_ADD)
		s->backward = ops_add_back;
	for (int j = 0; j < s->nin; j++)
	{
		train_need(b, TRAIN_SRC, s->in[j].view.stride * sizeof(float));
		train_need(b, TRAIN_DSRC, s->in[j].view.stride * sizeof(float));
		train_need(b, TRAIN_MORE, 2 * s->in[j].view.stride * sizeof(float));
	}
	train_need(b, TRAIN_SRC, out * sizeof(float));
	train_need(b, TRAIN_DSRC, out * sizeof(float));
	train_need(b, TRAIN_MORE, out * sizeof(float));
	if (op->kind == DFX_OP_POOL)
		s->pool = op->u.pool;
	else if (op->kind == DFX_OP_TAKE)
		s->index = op->u.index;
	else if (op->kind == DFX_OP_DROP)
		s->drop = op->u.drop;
	else if (op->kind == DFX_OP_INPUT)
		return cpu_input_table(b->plan, &op->u.input, &s->table, err);
	return DFX_OK;
}
