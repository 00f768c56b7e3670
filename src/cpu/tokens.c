/*
 * tokens.c
 *	  Steps of transformers that we run ourselves: TOKENS, LAYERNORM, ATTN.
 *
 * Tokens are C x T x 1 in the network's layout, so that linear layers over
 * them are 1x1 convolutions at full speed (conv.c) and nothing is reordered
 * between layers.  Attention takes one head at a time: its q, k and v are
 * copied out to dense T x width matrices, which with the T x T scores stay in
 * the second-level cache, and the two products are the library's sgemm, or in
 * bf16 two of its matmul primitives, between which scores are floats.
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
	const CpuKernels *kernels = cpu_kernels_for(run->plan->dev, out->type);

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		void *dst = cpu_at(run->arena, out, n);
		const void *src = cpu_at(run->arena, in, n);

		for (int c = 0, nl; c < in->c; c += nl)
		{
			size_t first = cpu_channel(out, c), second = first + (size_t) out->vec;

			nl = cpu_min(cpu_min(cpu_lanes(in, c), cpu_lanes(out, c)), in->c - c);
			memcpy(cpu_to(dst, out, first), cpu_from(s->param, out, first),
			       (size_t) nl * cpu_size(out->type));
			kernels->binary(cpu_to(dst, out, second), (size_t) out->vec,
			                cpu_from(src, in, cpu_channel(in, c)), (size_t) in->vec,
			                cpu_from(s->param, out, second), (size_t) out->vec, cpu_pixels(in), nl, false,
			                false);
		}
		cpu_zero_padding(dst, out);
	}
	return DFX_OK;
}

/* In place, after a copy, where the layouts differ (the plain input of a network). */
void
cpu_layernorm_image(const DfxDev *dev, void *dst, const CpuView *out, const void *src, const CpuView *in,
                    const float *scale, const float *shift, float eps)
{
	const CpuTokenKernels *kernels = cpu_token_kernels_for(dev, out->type);
	size_t npix = cpu_pixels(out), vec = (size_t) out->vec;

	if (in->vec != out->vec)
	{
		cpu_copy_channels(dst, out, 0, src, in);
		src = dst;
	}
	for (size_t i = 0; i < npix; i++)
		kernels->layernorm(cpu_to(dst, out, i * vec), npix * vec, cpu_from(src, out, i * vec), npix * vec,
		                   out->vec, out->c, scale, shift, eps);
	cpu_zero_padding(dst, out);
}

static DfxStatus
tokens_run_layernorm(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	(void) err;
	for (int n = 0; n < run->n; n++)
		cpu_layernorm_image(run->plan->dev, cpu_at(run->arena, &s->out, n), &s->out,
		                    cpu_at(run->arena, &s->in[0], n), &s->in[0], s->param,
		                    (const float *) s->param + s->out.c, s->eps);
	return DFX_OK;
}

size_t
cpu_head_floats(const CpuView *out, int heads)
{
	CpuHead h = cpu_head(NULL, out, heads);

	return 4 * h.tokens * h.width + h.tokens * h.row;
}

CpuHead
cpu_head(float *scratch, const CpuView *out, int heads)
{
	CpuHead h = {.tokens = cpu_pixels(out), .width = (size_t) (out->c / heads)};

	h.row = (h.tokens + CPU_SOFTMAX_STEP - 1) / CPU_SOFTMAX_STEP * CPU_SOFTMAX_STEP;
	if (scratch == NULL)
		return h;
	h.score = scratch; /* first, so that its rows are aligned */
	h.q = scratch + h.tokens * h.row;
	h.k = h.q + h.tokens * h.width;
	h.v = h.k + h.tokens * h.width;
	h.out = h.v + h.tokens * h.width;
	return h;
}

/* How many channels lie together at c, but at most left. */
static size_t
tokens_together(const CpuView *v, int c, size_t left)
{
	size_t n = (size_t) cpu_lanes(v, c);

	return n < left ? n : left;
}

void
cpu_head_pack(void *dense, const void *value, const CpuView *v, int c, size_t width)
{
	size_t size = cpu_size(v->type), vec = (size_t) v->vec * size;

	for (size_t at = 0, nl; at < width; at += nl)
	{
		const char *lanes = cpu_from(value, v, cpu_channel(v, c + (int) at));
		char *to = (char *) dense + at * size;

		nl = tokens_together(v, c + (int) at, width - at);
		for (size_t t = 0; t < cpu_pixels(v); t++)
			memcpy(to + t * width * size, lanes + t * vec, nl * size);
	}
}

void
cpu_head_unpack(void *value, const CpuView *v, int c, const void *dense, size_t width)
{
	size_t size = cpu_size(v->type), vec = (size_t) v->vec * size;

	for (size_t at = 0, nl; at < width; at += nl)
	{
		char *lanes = cpu_to(value, v, cpu_channel(v, c + (int) at));
		const char *from = (const char *) dense + at * size;

		nl = tokens_together(v, c + (int) at, width - at);
		for (size_t t = 0; t < cpu_pixels(v); t++)
			memcpy(lanes + t * vec, from + t * width * size, nl * size);
	}
}

/* softmax(q k' / sqrt(width)) */
DfxStatus
cpu_head_scores(const DfxDev *dev, const CpuHead *h, DfxErr *err)
{
	dnnl_dim_t t = (dnnl_dim_t) h->tokens, width = (dnnl_dim_t) h->width, row = (dnnl_dim_t) h->row;
	dnnl_status_t st = dnnl_sgemm('N', 'T', t, t, width, 1 / sqrtf((float) width), h->q, width, h->k, width,
	                              0, h->score, row);

	for (size_t i = 0; st == dnnl_success && i < h->tokens; i++)
		dev->token_kernels->softmax(h->score + i * h->row, (int) h->tokens);
	return cpu_fail_dnnl(st, "attention", err);
}

/* One head at a time: scores, then scores times v. */
DfxStatus
cpu_attn_image(const DfxDev *dev, float *scratch, float *dst, const CpuView *out, const float *src,
               const CpuView *in, int heads, DfxErr *err)
{
	CpuHead h = cpu_head(scratch, out, heads);
	dnnl_dim_t t = (dnnl_dim_t) h.tokens, width = (dnnl_dim_t) h.width;

	for (int c = 0; c < out->c; c += (int) h.width)
	{
		DfxStatus st;

		cpu_head_pack(h.q, src, in, c, h.width);
		cpu_head_pack(h.k, src, in, c + out->c, h.width);
		cpu_head_pack(h.v, src, in, c + 2 * out->c, h.width);
		st = cpu_head_scores(dev, &h, err);
		if (st == DFX_OK)
			st = cpu_fail_dnnl(dnnl_sgemm('N', 'N', t, width, t, 1, h.score, (dnnl_dim_t) h.row, h.v, width,
			                              0, h.out, width),
			                   "attention", err);
		if (st != DFX_OK)
			return st;
		cpu_head_unpack(dst, out, c, h.out, h.width);
	}
	cpu_zero_padding(dst, out);
	return DFX_OK;
}

static DfxStatus
tokens_run_attn(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	float *scratch = (float *) (void *) (run->arena + run->plan->scratch_off);
	DfxStatus st = DFX_OK;

	for (int n = 0; n < run->n && st == DFX_OK; n++)
		st = cpu_attn_image(run->plan->dev, scratch, cpu_at(run->arena, &s->out, n), &s->out,
		                    cpu_at(run->arena, &s->in[0], n), &s->in[0], s->heads, err);
	return st;
}

/* The embedding (stored T x C) in the output's layout and type, plus the class token at token 0. */
static DfxStatus
tokens_embedding(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const float *cls = b->g.param[op->param[DFX_W]].data, *pos = b->g.param[op->param[DFX_B]].data;
	const CpuView *v = &s->out;

	s->param = cpu_plan_alloc(b->plan, cpu_floats(v) * cpu_size(v->type), err);
	if (s->param == NULL)
		return DFX_ENOMEM;
	for (int c = 0; c < v->c; c++)
		for (size_t t = 0; t < cpu_pixels(v); t++)
		{
			float x = pos[t * (size_t) v->c + (size_t) c] + (t == 0 ? cls[c] : 0);

			cpu_convert(cpu_to(s->param, v, cpu_channel(v, c) + t * (size_t) v->vec), v->type, &x, CPU_F32,
			            1);
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
	memcpy((float *) s->param + s->out.c, b->g.param[op->param[DFX_B]].data, bytes);
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
			s->heads = op->u.heads;
			if (s->out.type == CPU_BF16)
				return cpu_attn_bf16_step(b, s, err);
			s->run = tokens_run_attn;
			cpu_need_scratch(b, cpu_head_floats(&s->out, s->heads) * sizeof(float));
			return DFX_OK;
	}
}
