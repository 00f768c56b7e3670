/*
 * train_tokens.c
 *	  Training steps of transformers: TOKENS, LAYERNORM, ATTN; each op's
 *	  backward after its forward.
 *
 * Nothing but values is kept for the backward pass: a token's mean and
 * deviation, and a head's scores, are computed again.  Gradients of parameters
 * are summed in doubles, per worker; train_tokens_done adds the workers up.
 */
#include <math.h>
#include <string.h>

#include "cpu/train.h"

/* The worker's sums: of the second parameter (DFX_B), then of the first (DFX_W). */
static double *
tokens_sums(const TrainStep *s, const TrainRun *r)
{
	return s->sum + (size_t) r->worker * s->nsum;
}

/* Add the workers' sums up into the gradients, in the workers' order, and clear them. */
static DfxStatus
tokens_done(const TrainStep *s, const TrainRun *r, DfxErr *err)
{
	CpuTrain *t = r->t;
	size_t nb = t->param_len[s->param[DFX_B]];
	float *db = train_param(t, DFX_STATE_GRAD, s->param[DFX_B]);
	float *dw = train_param(t, DFX_STATE_GRAD, s->param[DFX_W]);

	(void) err;
	for (size_t i = 0; i < s->nsum; i++)
	{
		double sum = 0;

		for (int w = 0; w < r->plan->dev->threads; w++)
		{
			sum += s->sum[(size_t) w * s->nsum + i];
			s->sum[(size_t) w * s->nsum + i] = 0;
		}
		*(i < nb ? &db[i] : &dw[i - nb]) = (float) sum;
	}
	return DFX_OK;
}

/* ---- TOKENS: the class token, then the pixels as tokens, each plus its embedding (T x C) ---- */

static DfxStatus
tokens_tokens(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *in = &s->in[0].view, *out = &s->y;
	const float *cls = train_param(r->t, DFX_STATE_VALUE, s->param[DFX_W]);
	const float *pos = train_param(r->t, DFX_STATE_VALUE, s->param[DFX_B]);
	const float *src = train_read(r, &s->in[0], image, 1, in, train_scratch(r, TRAIN_SRC));

	(void) err;
	for (int c = 0, nl; c < in->c; c += nl)
	{
		float *first = y + cpu_channel(out, c);

		nl = cpu_min(cpu_min(cpu_lanes(in, c), cpu_lanes(out, c)), in->c - c);
		for (int l = 0; l < nl; l++)
			first[l] = cls[c + l] + pos[c + l];
		r->plan->dev->kernels->binary(first + out->vec, (size_t) out->vec, src + cpu_channel(in, c),
		                              (size_t) in->vec, pos + in->c + c, (size_t) in->c, cpu_pixels(in), nl,
		                              false, false);
	}
	cpu_zero_padding(y, out);
	return DFX_OK;
}

static DfxStatus
tokens_tokens_back(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *in = &s->in[0].view, *out = &s->y;
	double *dpos = tokens_sums(s, r), *dcls = dpos + r->t->param_len[s->param[DFX_B]];
	float *dz = train_scratch(r, TRAIN_DSRC);

	(void) err;
	for (int c = 0; c < out->c; c++)
	{
		const float *from = y + cpu_channel(out, c);
		float *to = dz + cpu_channel(in, c);

		dcls[c] += (double) from[0];
		for (size_t t = 0; t < cpu_pixels(out); t++)
			dpos[t * (size_t) out->c + (size_t) c] += (double) from[t * (size_t) out->vec];
		for (size_t t = 1; t < cpu_pixels(out); t++)
			to[(t - 1) * (size_t) in->vec] = from[t * (size_t) out->vec];
	}
	if (train_wanted(r, &s->in[0]))
		train_push(r, &s->in[0], image, 1, dz, in);
	return DFX_OK;
}

/* ---- LAYERNORM ---- */

static DfxStatus
tokens_layernorm(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *v = &s->y;
	const float *src = train_read(r, &s->in[0], image, 1, v, train_scratch(r, TRAIN_SRC));

	(void) err;
	cpu_layernorm_image(r->plan->dev, y, v, src, v, train_param(r->t, DFX_STATE_VALUE, s->param[DFX_W]),
	                    train_param(r->t, DFX_STATE_VALUE, s->param[DFX_B]), s->eps);
	return DFX_OK;
}

static DfxStatus
tokens_layernorm_back(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *v = &s->y;
	const float *src = train_read(r, &s->in[0], image, 1, v, train_scratch(r, TRAIN_SRC));
	const float *w = train_param(r->t, DFX_STATE_VALUE, s->param[DFX_W]);
	float *dx = train_scratch(r, TRAIN_DSRC), *db = train_scratch(r, TRAIN_MORE), *dw = db + v->c;
	size_t npix = cpu_pixels(v), vec = (size_t) v->vec;
	double *sum = tokens_sums(s, r);

	(void) err;
	memset(db, 0, 2 * (size_t) v->c * sizeof *db);
	for (size_t i = 0; i < npix * vec; i += vec)
		r->plan->dev->train_token_kernels->layernorm(dx + i, y + i, src + i, npix * vec, v->vec, v->c, w,
		                                             s->eps, dw, db);
	for (int c = 0; c < 2 * v->c; c++)
		sum[c] += (double) db[c];
	if (train_wanted(r, &s->in[0]))
		train_push(r, &s->in[0], image, 1, dx, v);
	return DFX_OK;
}

/* ---- ATTN ---- */

static DfxStatus
tokens_attn(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *in = &s->in[0].view;
	const float *src = train_read(r, &s->in[0], image, 1, in, train_scratch(r, TRAIN_SRC));

	return cpu_attn_image(r->plan->dev, train_scratch(r, TRAIN_MORE), y, &s->y, src, in, s->heads, err);
}

/* Gradients in one head: of the result, of the scores (T x row), of q, k, v. */
typedef struct HeadGrad
{
	float *out, *score, *q, *k, *v;
} HeadGrad;

static size_t
tokens_grad_floats(const CpuHead *h)
{
	return 4 * h->tokens * h->width + h->tokens * h->row;
}

static HeadGrad
tokens_head_grad(float *scratch, const CpuHead *h)
{
	size_t dense = h->tokens * h->width;
	HeadGrad d = {.score = scratch, .out = scratch + h->tokens * h->row};

	d.q = d.out + dense;
	d.k = d.q + dense;
	d.v = d.k + dense;
	return d;
}

/*
 * With p = softmax(q k' / sqrt(width)) and out = p v:
 *	dv = p' dout, dp = dout v', ds = p * (dp - sum of p dp by row),
 *	dq = ds k / sqrt(width), dk = ds' q / sqrt(width)
 */
static DfxStatus
tokens_head_back(const TrainRun *r, const CpuHead *h, const HeadGrad *d, DfxErr *err)
{
	dnnl_dim_t t = (dnnl_dim_t) h->tokens, width = (dnnl_dim_t) h->width, row = (dnnl_dim_t) h->row;
	float scale = 1 / sqrtf((float) width);
	dnnl_status_t st = dnnl_sgemm('T', 'N', t, width, t, 1, h->score, row, d->out, width, 0, d->v, width);

	if (st == dnnl_success)
		st = dnnl_sgemm('N', 'T', t, t, width, 1, d->out, width, h->v, width, 0, d->score, row);
	for (size_t i = 0; st == dnnl_success && i < h->tokens; i++)
		r->plan->dev->train_token_kernels->softmax(d->score + i * h->row, h->score + i * h->row,
		                                           (int) h->tokens);
	if (st == dnnl_success)
		st = dnnl_sgemm('N', 'N', t, width, t, scale, d->score, row, h->k, width, 0, d->q, width);
	if (st == dnnl_success)
		st = dnnl_sgemm('T', 'N', t, width, t, scale, d->score, row, h->q, width, 0, d->k, width);
	return cpu_fail_dnnl(st, "attention", err);
}

static DfxStatus
tokens_attn_back(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err)
{
	const CpuView *in = &s->in[0].view, *out = &s->y;
	const float *src = train_read(r, &s->in[0], image, 1, in, train_scratch(r, TRAIN_SRC));
	float *dz = train_scratch(r, TRAIN_DSRC), *scratch = train_scratch(r, TRAIN_MORE);
	CpuHead h = cpu_head(scratch, out, s->heads);
	HeadGrad d = tokens_head_grad(scratch + cpu_head_floats(out, s->heads), &h);

	for (int c = 0; c < out->c; c += (int) h.width)
	{
		DfxStatus st;

		cpu_head_pack(h.q, src, in, c, h.width);
		cpu_head_pack(h.k, src, in, c + out->c, h.width);
		cpu_head_pack(h.v, src, in, c + 2 * out->c, h.width);
		cpu_head_pack(d.out, y, out, c, h.width);
		st = cpu_head_scores(r->plan->dev, &h, err);
		if (st == DFX_OK)
			st = tokens_head_back(r, &h, &d, err);
		if (st != DFX_OK)
			return st;
		cpu_head_unpack(dz, in, c, d.q, h.width);
		cpu_head_unpack(dz, in, c + out->c, d.k, h.width);
		cpu_head_unpack(dz, in, c + 2 * out->c, d.v, h.width);
	}
	train_push(r, &s->in[0], image, 1, dz, in);
	return DFX_OK;
}

/* ---- the steps ---- */

static DfxStatus
tokens_new_sums(TrainBuild *b, TrainStep *s, DfxErr *err)
{
	s->nsum = b->t->param_len[s->param[DFX_B]] + b->t->param_len[s->param[DFX_W]];
	s->sum = cpu_plan_alloc(b->plan, (size_t) b->dev->threads * s->nsum * sizeof *s->sum, err);
	s->backward_done = tokens_done;
	return s->sum ? DFX_OK : DFX_ENOMEM;
}

DfxStatus
train_tokens_step(TrainBuild *b, const DfxOp *op, TrainStep *s, DfxErr *err)
{
	const CpuView *out = &b->t->value[s->out].view;
	CpuHead h;

	train_need(b, TRAIN_SRC, s->in[0].view.stride * sizeof(float));
	train_need(b, TRAIN_SRC, out->stride * sizeof(float));
	train_need(b, TRAIN_DSRC, s->in[0].view.stride * sizeof(float));
	train_need(b, TRAIN_DSRC, out->stride * sizeof(float));
	switch (op->kind)
	{
		case DFX_OP_TOKENS:
			train_own(b, s, tokens_tokens, tokens_tokens_back);
			return tokens_new_sums(b, s, err);
		case DFX_OP_LAYERNORM:
			train_own(b, s, tokens_layernorm, tokens_layernorm_back);
			s->eps = op->u.eps;
			train_need(b, TRAIN_MORE, 2 * (size_t) out->c * sizeof(float));
			return tokens_new_sums(b, s, err);
		default:
			train_own(b, s, tokens_attn, tokens_attn_back);
			s->heads = op->u.heads;
			h = cpu_head(NULL, out, s->heads);
			train_need(b, TRAIN_MORE,
			           (cpu_head_floats(out, s->heads) + tokens_grad_floats(&h)) * sizeof(float));
			return DFX_OK;
	}
}
