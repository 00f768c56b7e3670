/*
 * tokens.c
 *	  Steps of transformers that we run ourselves: TOKENS, LAYERNORM, ATTN.
 *
 * Tokens are C x T x 1 in the network's layout, so that linear layers over
 * them are 1x1 convolutions at full speed (conv.c) and nothing is reordered
 * between layers.  Attention takes one head at a time: its q, k and v are
 * copied out to dense T x width matrices, which with the T x T scores stay in
 * the second-level cache, and the two products are the library's sgemm.
 */
#include <math.h>
#include <string.h>

#include "cpu/internal.h"

/*
 * The class token, then the pixels as tokens, each plus its embedding.  param
 * has the embedding in the output's layout, the class token already added.
 */
static DfxStatus
tokens_run_tokens(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *in = &s->in[0], *out = &s->out;

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, out, n);
		const float *src = cpu_at(run->arena, in, n);

		for (int c = 0, nl; c < in->c; c += nl)
		{
			size_t first = cpu_channel(out, c), second = first + (size_t) out->vec;

			nl = cpu_min(cpu_min(cpu_lanes(in, c), cpu_lanes(out, c)), in->c - c);
			memcpy(dst + first, s->param + first, (size_t) nl * sizeof *dst);
			run->plan->dev->kernels->binary(dst + second, (size_t) out->vec, src + cpu_channel(in, c),
			                                (size_t) in->vec, s->param + second, (size_t) out->vec,
			                                cpu_pixels(in), nl, false, false);
		}
		cpu_zero_padding(dst, out);
	}
	return DFX_OK;
}

/* In place, after a copy, where the layouts differ (the plain input of a network). */
static DfxStatus
tokens_run_layernorm(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *in = &s->in[0], *out = &s->out;
	size_t npix = cpu_pixels(out), vec = (size_t) out->vec;

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, out, n);
		const float *src = cpu_at(run->arena, in, n);

		if (in->vec != out->vec)
		{
			cpu_copy_channels(dst, out, 0, src, in);
			src = dst;
		}
		for (size_t i = 0; i < npix; i++)
			run->plan->dev->token_kernels->layernorm(dst + i * vec, npix * vec, src + i * vec, npix * vec,
			                                         out->vec, out->c, s->param, s->param + out->c, s->eps);
		cpu_zero_padding(dst, out);
	}
	return DFX_OK;
}

/* What attention of one head needs: q, k, v and the result, T x width each, and the scores, T x row. */
typedef struct TokensHead
{
	size_t tokens, width, row;
	float *q, *k, *v, *out, *score;
} TokensHead;

static size_t
tokens_head_floats(const CpuStep *s)
{
	size_t t = cpu_pixels(&s->out), width = (size_t) (s->out.c / s->heads);
	size_t row = (t + CPU_SOFTMAX_STEP - 1) / CPU_SOFTMAX_STEP * CPU_SOFTMAX_STEP;

	return 4 * t * width + t * row;
}

static TokensHead
tokens_head(const CpuStep *s, const CpuRun *run)
{
	TokensHead h = {.tokens = cpu_pixels(&s->out), .width = (size_t) (s->out.c / s->heads)};
	float *p = (float *) (void *) (run->arena + run->plan->scratch_off);

	h.row = (h.tokens + CPU_SOFTMAX_STEP - 1) / CPU_SOFTMAX_STEP * CPU_SOFTMAX_STEP;
	h.score = p; /* first, so that its rows are aligned */
	h.q = p + h.tokens * h.row;
	h.k = h.q + h.tokens * h.width;
	h.v = h.k + h.tokens * h.width;
	h.out = h.v + h.tokens * h.width;
	return h;
}

/* width channels of all tokens, from c on, out of the layout into a dense matrix, or back. */
static void
tokens_pack(float *dense, float *value, const CpuView *v, int c, size_t width, bool back)
{
	for (size_t at = 0, nl; at < width; at += nl)
	{
		size_t together = (size_t) cpu_lanes(v, c + (int) at);
		float *lanes = value + cpu_channel(v, c + (int) at);

		nl = width - at < together ? width - at : together;
		for (size_t t = 0; t < cpu_pixels(v); t++)
		{
			float *a = dense + t * width + at, *b = lanes + t * (size_t) v->vec;

			memcpy(back ? b : a, back ? a : b, nl * sizeof *a);
		}
	}
}

/* softmax(q k' / sqrt(width)) v */
static dnnl_status_t
tokens_attend(const TokensHead *h, const CpuTokenKernels *kernels)
{
	dnnl_dim_t t = (dnnl_dim_t) h->tokens, width = (dnnl_dim_t) h->width, row = (dnnl_dim_t) h->row;
	dnnl_status_t st = dnnl_sgemm('N', 'T', t, t, width, 1 / sqrtf((float) width), h->q, width, h->k, width,
	                              0, h->score, row);

	if (st != dnnl_success)
		return st;
	for (size_t i = 0; i < h->tokens; i++)
		kernels->softmax(h->score + i * h->row, (int) h->tokens);
	return dnnl_sgemm('N', 'N', t, width, t, 1, h->score, row, h->v, width, 0, h->out, width);
}

static DfxStatus
tokens_run_attn(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *in = &s->in[0], *out = &s->out;
	TokensHead h = tokens_head(s, run);

	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, out, n), *src = cpu_at(run->arena, in, n);

		for (int c = 0; c < out->c; c += (int) h.width)
		{
			dnnl_status_t st;

			tokens_pack(h.q, src, in, c, h.width, false);
			tokens_pack(h.k, src, in, c + out->c, h.width, false);
			tokens_pack(h.v, src, in, c + 2 * out->c, h.width, false);
			st = tokens_attend(&h, run->plan->dev->token_kernels);
			if (st != dnnl_success)
				return cpu_fail_dnnl(st, "attention", err);
			tokens_pack(h.out, dst, out, c, h.width, true);
		}
		cpu_zero_padding(dst, out);
	}
	return DFX_OK;
}

/* The embedding (stored T x C) in the output's layout, plus the class token at token 0. */
static DfxStatus
tokens_embedding(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const float *cls = b->g.param[op->param[DFX_W]].data, *pos = b->g.param[op->param[DFX_B]].data;
	const CpuView *v = &s->out;

	s->param = cpu_plan_alloc(b->plan, cpu_floats(v) * sizeof(float), err);
	if (s->param == NULL)
		return DFX_ENOMEM;
	for (int c = 0; c < v->c; c++)
	{
		float *to = s->param + cpu_channel(v, c);

		for (size_t t = 0; t < cpu_pixels(v); t++)
			to[t * (size_t) v->vec] = pos[t * (size_t) v->c + (size_t) c];
		to[0] += cls[c];
	}
	return DFX_OK;
}

static DfxStatus
tokens_scale_shift(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	size_t bytes = (size_t) s->out.c * sizeof(float);

	s->param = cpu_plan_alloc(b->plan, 2 * bytes, err);
	if (s->param == NULL)
		return DFX_ENOMEM;
	memcpy(s->param, b->g.param[op->param[DFX_W]].data, bytes);
	memcpy(s->param + s->out.c, b->g.param[op->param[DFX_B]].data, bytes);
	return DFX_OK;
}

bool
cpu_tokens_supports(const DfxOp *op)
{
	return op->epi_add < 0 && op->epi_act == DFX_ACT_NONE && op->epi_scale < 0 && op->epi_shift < 0;
}

DfxStatus
cpu_tokens_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	size_t scratch;

	switch (op->kind)
	{
		case DFX_OP_TOKENS:
			s->run = tokens_run_tokens;
			return tokens_embedding(b, op, s, err);
		case DFX_OP_LAYERNORM:
			s->run = tokens_run_layernorm;
			s->eps = op->u.eps;
			return tokens_scale_shift(b, op, s, err);
		default:
			s->run = tokens_run_attn;
			s->heads = op->u.heads;
			scratch = tokens_head_floats(s) * sizeof(float);
			if (scratch > b->scratch)
				b->scratch = scratch;
			return DFX_OK;
	}
}
