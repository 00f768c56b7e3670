/*
 * ref_ops.c
 *	  Every op by its definition, for one image.
 *
 * Shapes: a value is C x H x W row-major; tokens are C x T x 1, so a token's
 * channels lie T apart.  Sums are taken in double and rounded once.
 */
#include "tests/ref/ref_priv.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

static void
ref_input(const RefOp *r)
{
	const DfxInput *a = &r->op->u.input;
	const uint8_t *pixel = r->input;
	int plane = ref_plane(r->y);

	if (!a->rgb8)
	{
		memcpy(r->out, r->input, ref_count(r->y) * sizeof(float));
		return;
	}
	for (int c = 0; c < 3; c++)
		for (int i = 0; i < plane; i++)
			r->out[c * plane + i] =
			    (float) ((pixel[i * 3 + c] / 255.0 - (double) a->mean[c]) / (double) a->std[c]);
}

/* One output element: channel co at row oy, column ox. */
static double
ref_conv_at(const RefOp *r, int co, int oy, int ox)
{
	const DfxConv *a = &r->op->u.conv;
	int per_group = r->x->c / a->groups;
	int first = co / (r->y->c / a->groups) * per_group;
	const float *w = ref_param(r, DFX_W) + (ptrdiff_t) co * per_group * a->kh * a->kw;
	double sum = 0;

	for (int ci = 0; ci < per_group; ci++)
		for (int ky = 0; ky < a->kh; ky++)
			for (int kx = 0; kx < a->kw; kx++)
			{
				int iy = oy * a->sh - a->ph + ky;
				int ix = ox * a->sw - a->pw + kx;

				if (iy < 0 || iy >= r->x->h || ix < 0 || ix >= r->x->w)
					continue;
				sum += (double) r->in[((ptrdiff_t) (first + ci) * r->x->h + iy) * r->x->w + ix] *
				       (double) w[(ci * a->kh + ky) * a->kw + kx];
			}
	return sum;
}

static void
ref_conv(const RefOp *r)
{
	const float *bias = ref_param(r, DFX_B);
	float *out = r->out;

	for (int c = 0; c < r->y->c; c++)
		for (int y = 0; y < r->y->h; y++)
			for (int x = 0; x < r->y->w; x++)
				*out++ = (float) (ref_conv_at(r, c, y, x) + (bias ? (double) bias[c] : 0));
}

/* The inputs one after another along channels; for CONCAT, and in front of BN and AFFINE. */
static void
ref_concat(const RefOp *r)
{
	float *out = r->out;

	for (int i = 0; i < r->op->nin; i++)
	{
		size_t n = ref_count(&r->g->val[r->op->in[i]]);

		memcpy(out, r->data[r->op->in[i]], n * sizeof(float));
		out += n;
	}
}

/* (x - mean) / sqrt(var + eps) * W + B per channel, of the inputs' concat. */
static void
ref_bn(const RefOp *r)
{
	const float *w = ref_param(r, DFX_W), *b = ref_param(r, DFX_B);
	const float *mean = ref_param(r, DFX_MEAN), *var = ref_param(r, DFX_VAR);
	int plane = ref_plane(r->y);

	ref_concat(r);
	for (int c = 0; c < r->y->c; c++)
		for (int i = 0; i < plane; i++)
		{
			float *v = &r->out[c * plane + i];

			*v = (float) (((double) *v - (double) mean[c]) / sqrt((double) var[c] + (double) r->op->u.eps) *
			                  (double) w[c] +
			              (double) b[c]);
		}
}

/* x * W + B per channel, of the inputs' concat. */
static void
ref_affine(const RefOp *r)
{
	const float *w = ref_param(r, DFX_W), *b = ref_param(r, DFX_B);
	int plane = ref_plane(r->y);

	ref_concat(r);
	for (int c = 0; c < r->y->c; c++)
		for (int i = 0; i < plane; i++)
		{
			float *v = &r->out[c * plane + i];

			*v = (float) ((double) *v * (double) w[c] + (double) b[c]);
		}
}

/* W x + B at every position. */
static void
ref_linear(const RefOp *r)
{
	const float *w = ref_param(r, DFX_W), *b = ref_param(r, DFX_B);
	int plane = ref_plane(r->y), cin = r->x->c;

	for (int c = 0; c < r->y->c; c++)
		for (int i = 0; i < plane; i++)
		{
			double sum = b ? (double) b[c] : 0;

			for (int k = 0; k < cin; k++)
				sum += (double) w[(ptrdiff_t) c * cin + k] * (double) r->in[(ptrdiff_t) k * plane + i];
			r->out[c * plane + i] = (float) sum;
		}
}

/* BN's formula with the mean and variance of the position's own channels. */
static void
ref_layernorm(const RefOp *r)
{
	const float *w = ref_param(r, DFX_W), *b = ref_param(r, DFX_B);
	int plane = ref_plane(r->y), n = r->y->c;

	for (int i = 0; i < plane; i++)
	{
		double mean = 0, var = 0;

		for (int c = 0; c < n; c++)
			mean += (double) r->in[c * plane + i] / n;
		for (int c = 0; c < n; c++)
			var += pow((double) r->in[c * plane + i] - mean, 2) / n;
		for (int c = 0; c < n; c++)
			r->out[c * plane + i] = (float) (((double) r->in[c * plane + i] - mean) /
			                                     sqrt(var + (double) r->op->u.eps) * (double) w[c] +
			                                 (double) b[c]);
	}
}

double
ref_score(const RefOp *r, int c, int width, int t, int s)
{
	int tokens = r->y->h;
	const float *q = r->in + (ptrdiff_t) c * tokens;
	const float *k = q + (ptrdiff_t) r->y->c * tokens;
	double sum = 0;

	for (int i = 0; i < width; i++)
		sum += (double) q[i * tokens + t] * (double) k[i * tokens + s];
	return sum / sqrt(width);
}

/* softmax(q k' / sqrt(width)) v, head by head; the input's channels are q, k, v one after another. */
static void
ref_attn(const RefOp *r)
{
	int tokens = r->y->h;
	int width = r->y->c / r->op->u.heads;
	const float *v = r->in + (ptrdiff_t) 2 * r->y->c * tokens;

	for (int c = 0; c < r->y->c; c += width)
		for (int t = 0; t < tokens; t++)
		{
			double top = -INFINITY, norm = 0;

			for (int s = 0; s < tokens; s++)
				top = fmax(top, ref_score(r, c, width, t, s));
			for (int s = 0; s < tokens; s++)
				norm += exp(ref_score(r, c, width, t, s) - top);
			for (int i = c; i < c + width; i++)
			{
				double sum = 0;

				for (int s = 0; s < tokens; s++)
					sum += exp(ref_score(r, c, width, t, s) - top) * (double) v[i * tokens + s];
				r->out[i * tokens + t] = (float) (sum / norm);
			}
		}
}

static double
ref_activate(DfxAct act, double x)
{
	switch (act)
	{
		case DFX_ACT_RELU:
			return x > 0 ? x : 0;
		case DFX_ACT_SILU:
			return x / (1 + exp(-x));
		case DFX_ACT_GELU:
			return 0.5 * x * (1 + erf(x / sqrt(2)));
		case DFX_ACT_SIGMOID:
			return 1 / (1 + exp(-x));
		case DFX_ACT_NONE:
		case DFX_ACT_COUNT:
			break;
	}
	return x;
}

static void
ref_act(const RefOp *r)
{
	for (size_t i = 0; i < ref_count(r->y); i++)
		r->out[i] = (float) ref_activate(r->op->u.act, (double) r->in[i]);
}

static void
ref_add(const RefOp *r)
{
	const float *b = r->data[r->op->in[1]];

	for (size_t i = 0; i < ref_count(r->y); i++)
		r->out[i] = r->in[i] + b[i];
}

static void
ref_mul(const RefOp *r)
{
	const DfxValue *vb = &r->g->val[r->op->in[1]];
	const float *b = r->data[r->op->in[1]];
	bool per_channel = ref_count(vb) != ref_count(r->y);
	size_t plane = (size_t) ref_plane(r->y);

	for (size_t i = 0; i < ref_count(r->y); i++)
		r->out[i] = r->in[i] * b[per_channel ? i / plane : i];
}

/* C x 1 x 1 each; the output n x 1 x C has them as rows, which is their concatenation in memory. */
static void
ref_stack(const RefOp *r)
{
	ref_concat(r);
}

/* One output element; an average divides by the whole window, which never leaves the input. */
static double
ref_pool_at(const RefOp *r, int c, int oy, int ox)
{
	const DfxPool *a = &r->op->u.pool;
	int kh = a->k ? a->k : r->x->h, kw = a->k ? a->k : r->x->w;
	double sum = 0, top = -INFINITY;

	for (int y = oy * a->s - a->p; y < oy * a->s - a->p + kh; y++)
		for (int x = ox * a->s - a->p; x < ox * a->s - a->p + kw; x++)
		{
			double v;

			if (y < 0 || y >= r->x->h || x < 0 || x >= r->x->w)
				continue;
			v = (double) r->in[((ptrdiff_t) c * r->x->h + y) * r->x->w + x];
			sum += v;
			top = fmax(top, v);
		}
	return a->avg ? sum / ((double) kh * kw) : top;
}

static void
ref_pool(const RefOp *r)
{
	float *out = r->out;

	for (int c = 0; c < r->y->c; c++)
		for (int y = 0; y < r->y->h; y++)
			for (int x = 0; x < r->y->w; x++)
				*out++ = (float) ref_pool_at(r, c, y, x);
}

/* The class token, then the positions row by row, each plus its embedding (B, stored T x C). */
static void
ref_tokens(const RefOp *r)
{
	const float *cls = ref_param(r, DFX_W), *pos = ref_param(r, DFX_B);
	int tokens = r->y->h;

	for (int c = 0; c < r->y->c; c++)
		for (int t = 0; t < tokens; t++)
			r->out[c * tokens + t] =
			    (t == 0 ? cls[c] : r->in[(ptrdiff_t) c * (tokens - 1) + t - 1]) + pos[t * r->y->c + c];
}

static void
ref_take(const RefOp *r)
{
	for (int c = 0; c < r->y->c; c++)
		r->out[c] = r->in[c * r->x->h + r->op->u.index];
}

static void
ref_drop(const RefOp *r)
{
	memcpy(r->out, r->in, ref_count(r->y) * sizeof(float));
}

static void (*const ref_op[])(const RefOp *) = {
    [DFX_OP_INPUT] = ref_input,   [DFX_OP_CONV] = ref_conv,     [DFX_OP_BN] = ref_bn,
    [DFX_OP_AFFINE] = ref_affine, [DFX_OP_LINEAR] = ref_linear, [DFX_OP_LAYERNORM] = ref_layernorm,
    [DFX_OP_ATTN] = ref_attn,     [DFX_OP_ACT] = ref_act,       [DFX_OP_ADD] = ref_add,
    [DFX_OP_MUL] = ref_mul,       [DFX_OP_CONCAT] = ref_concat, [DFX_OP_STACK] = ref_stack,
    [DFX_OP_POOL] = ref_pool,     [DFX_OP_TOKENS] = ref_tokens, [DFX_OP_TAKE] = ref_take,
    [DFX_OP_DROP] = ref_drop,
};
static_assert(sizeof ref_op / sizeof ref_op[0] == DFX_OP_COUNT, "every op kind has its loops");

RefOp
ref_view(const DfxGraph *g, const DfxOp *op, float *const *data, const void *input)
{
	RefOp r = {.g = g, .op = op, .data = data, .input = input, .y = &g->val[op->out], .out = data[op->out]};

	if (op->nin > 0)
	{
		r.x = &g->val[op->in[0]];
		r.in = data[op->in[0]];
	}
	return r;
}

void
ref_run(const DfxGraph *g, const DfxOp *op, float *const *data, const void *input)
{
	RefOp r = ref_view(g, op, data, input);

	ref_op[op->kind](&r);
}

void
ref_epilogue(const DfxGraph *g, const DfxOp *op, float *const *data)
{
	const DfxValue *y = &g->val[op->out];
	const float *add = op->epi_add >= 0 ? data[op->epi_add] : NULL;
	const float *scale = op->epi_scale >= 0 ? g->param[op->epi_scale].data : NULL;
	const float *shift = op->epi_shift >= 0 ? g->param[op->epi_shift].data : NULL;
	float *out = data[op->out];
	int plane = ref_plane(y);

	for (int c = 0; c < y->c; c++)
		for (int i = c * plane; i < (c + 1) * plane; i++)
		{
			double v = ref_activate(op->epi_act, (double) out[i] + (add ? (double) add[i] : 0));

			out[i] = (float) (v * (scale ? (double) scale[c] : 1) + (shift ? (double) shift[c] : 0));
		}
}
