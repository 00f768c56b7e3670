/*
 * ref_grad.c
 *	  Every op's gradient by the chain rule, for one image.
 *
 * Laid out as ref_ops.c: the loops of a forward pass again, but each product
 * hands the output's gradient to both of its factors.  Gradients are added,
 * in double, so that values and parameters of several uses need no care.
 */
#include "tests/ref/ref_priv.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

/* An op's view of the graph, and of the gradients. */
typedef struct GradOp
{
	RefOp r;
	const double *dy;   /* of the output */
	double *dx;         /* of the first input */
	double *const *all; /* of every value */
	double *const *dparam;
} GradOp;

static double *
grad_param(const GradOp *o, int which)
{
	int p = o->r.op->param[which];

	return p >= 0 ? o->dparam[p] : NULL;
}

/* The inputs came from outside; the caller may read their gradient. */
static void
grad_input(const GradOp *o)
{
	(void) o;
}

/* The part of one output element, channel co at row oy, column ox, with the gradient d. */
static void
grad_conv_at(const GradOp *o, int co, int oy, int ox, double d)
{
	const RefOp *r = &o->r;
	const DfxConv *a = &r->op->u.conv;
	int per_group = r->x->c / a->groups;
	int first = co / (r->y->c / a->groups) * per_group;
	ptrdiff_t kernel = (ptrdiff_t) co * per_group * a->kh * a->kw;
	const float *w = ref_param(r, DFX_W) + kernel;
	double *dw = grad_param(o, DFX_W) + kernel;

	for (int ci = 0; ci < per_group; ci++)
		for (int ky = 0; ky < a->kh; ky++)
			for (int kx = 0; kx < a->kw; kx++)
			{
				int iy = oy * a->sh - a->ph + ky;
				int ix = ox * a->sw - a->pw + kx;
				int k = (ci * a->kh + ky) * a->kw + kx;
				ptrdiff_t i = ((ptrdiff_t) (first + ci) * r->x->h + iy) * r->x->w + ix;

				if (iy < 0 || iy >= r->x->h || ix < 0 || ix >= r->x->w)
					continue;
				dw[k] += d * (double) r->in[i];
				o->dx[i] += d * (double) w[k];
			}
}

static void
grad_conv(const GradOp *o)
{
	const DfxValue *y = o->r.y;
	double *db = grad_param(o, DFX_B);
	const double *d = o->dy;

	for (int c = 0; c < y->c; c++)
		for (int i = 0; i < y->h; i++)
			for (int j = 0; j < y->w; j++, d++)
			{
				grad_conv_at(o, c, i, j, *d);
				if (db)
					db[c] += *d;
			}
}

static void
grad_linear(const GradOp *o)
{
	const float *w = ref_param(&o->r, DFX_W);
	double *dw = grad_param(o, DFX_W), *db = grad_param(o, DFX_B);
	int plane = ref_plane(o->r.y), cin = o->r.x->c;

	for (int c = 0; c < o->r.y->c; c++)
		for (int i = 0; i < plane; i++)
		{
			double d = o->dy[c * plane + i];

			if (db)
				db[c] += d;
			for (int k = 0; k < cin; k++)
			{
				dw[(ptrdiff_t) c * cin + k] += d * (double) o->r.in[(ptrdiff_t) k * plane + i];
				o->dx[(ptrdiff_t) k * plane + i] += d * (double) w[(ptrdiff_t) c * cin + k];
			}
		}
}

void
ref_moments(const RefNorm *n, double *mean, double *var)
{
	double count = (double) n->rows * n->cols;

	*mean = *var = 0;
	for (int r = 0; r < n->rows; r++)
		for (int c = 0; c < n->cols; c++)
			*mean += (double) n->x[(size_t) r * n->row + (size_t) c * n->col] / count;
	for (int r = 0; r < n->rows; r++)
		for (int c = 0; c < n->cols; c++)
			*var += pow((double) n->x[(size_t) r * n->row + (size_t) c * n->col] - *mean, 2) / count;
}

/*
 * y = w z + b with z = (x - mean) / sqrt(var + eps).  With dz = w dy:
 *	dx = (dz - mean of dz - z * mean of dz z) / sqrt(var + eps)
 * (Ioffe, Szegedy, "Batch Normalization", ICML 2015, section 3).
 */
void
ref_norm_grad(const RefNorm *n, const double *dy, double *dx, double *dw, double *db)
{
	double mean, var, scale, count = (double) n->rows * n->cols, mean_dz = 0, mean_dzz = 0;

	ref_moments(n, &mean, &var);
	scale = 1 / sqrt(var + n->eps);
	for (int r = 0; r < n->rows; r++)
		for (int c = 0; c < n->cols; c++)
		{
			size_t i = (size_t) r * n->row + (size_t) c * n->col, k = (size_t) c * n->wcol;
			double z = ((double) n->x[i] - mean) * scale, dz = dy[i] * (double) n->w[k];

			db[k] += dy[i];
			dw[k] += dy[i] * z;
			mean_dz += dz / count;
			mean_dzz += dz * z / count;
		}
	for (int r = 0; r < n->rows; r++)
		for (int c = 0; c < n->cols; c++)
		{
			size_t i = (size_t) r * n->row + (size_t) c * n->col, k = (size_t) c * n->wcol;
			double z = ((double) n->x[i] - mean) * scale, dz = dy[i] * (double) n->w[k];

			dx[i] += (dz - mean_dz - z * mean_dzz) * scale;
		}
}

static void
grad_layernorm(const GradOp *o)
{
	int plane = ref_plane(o->r.y);

	for (int i = 0; i < plane; i++)
	{
		RefNorm n = {.rows = 1,
		             .cols = o->r.y->c,
		             .col = (size_t) plane,
		             .wcol = 1,
		             .eps = (double) o->r.op->u.eps,
		             .x = o->r.in + i,
		             .w = ref_param(&o->r, DFX_W)};

		ref_norm_grad(&n, o->dy + i, o->dx + i, grad_param(o, DFX_W), grad_param(o, DFX_B));
	}
}

/* The gradient by the weight of key token s for query token t: dout . v. */
static double
grad_attn_weight(const GradOp *o, int c, int width, int t, int s)
{
	int tokens = o->r.y->h;
	const float *v = o->r.in + (ptrdiff_t) 2 * o->r.y->c * tokens;
	double sum = 0;

	for (int i = c; i < c + width; i++)
		sum += o->dy[i * tokens + t] * (double) v[i * tokens + s];
	return sum;
}

/*
 * One query token in one head.  out = sum of p v over the key tokens, p the
 * softmax of the scores; by a score the gradient is p (dp - sum of p dp), by
 * q and k that times k and q over sqrt(width).
 */
static void
grad_attn_query(const GradOp *o, int c, int width, int t)
{
	const RefOp *r = &o->r;
	int tokens = r->y->h;
	ptrdiff_t part = (ptrdiff_t) r->y->c * tokens;
	double top = -INFINITY, norm = 0, mean_dp = 0;

	for (int s = 0; s < tokens; s++)
		top = fmax(top, ref_score(r, c, width, t, s));
	for (int s = 0; s < tokens; s++)
		norm += exp(ref_score(r, c, width, t, s) - top);
	for (int s = 0; s < tokens; s++)
		mean_dp += exp(ref_score(r, c, width, t, s) - top) / norm * grad_attn_weight(o, c, width, t, s);
	for (int s = 0; s < tokens; s++)
	{
		double p = exp(ref_score(r, c, width, t, s) - top) / norm;
		double dscore = p * (grad_attn_weight(o, c, width, t, s) - mean_dp) / sqrt(width);

		for (int i = c; i < c + width; i++)
		{
			ptrdiff_t at_t = i * tokens + t, at_s = i * tokens + s;

			o->dx[at_t] += dscore * (double) r->in[part + at_s];
			o->dx[part + at_s] += dscore * (double) r->in[at_t];
			o->dx[2 * part + at_s] += p * o->dy[at_t];
		}
	}
}

static void
grad_attn(const GradOp *o)
{
	int width = o->r.y->c / o->r.op->u.heads;

	for (int c = 0; c < o->r.y->c; c += width)
		for (int t = 0; t < o->r.y->h; t++)
			grad_attn_query(o, c, width, t);
}

/* The derivative of an activation at x. */
static double
grad_activate(DfxAct act, double x)
{
	double s = 1 / (1 + exp(-x));

	switch (act)
	{
		case DFX_ACT_RELU:
			return x > 0 ? 1 : 0;
		case DFX_ACT_SILU:
			return s + x * s * (1 - s);
		case DFX_ACT_GELU:
			return 0.5 * (1 + erf(x / sqrt(2))) + x * exp(-x * x / 2) / sqrt(2 * M_PI);
		case DFX_ACT_SIGMOID:
			return s * (1 - s);
		case DFX_ACT_NONE:
		case DFX_ACT_COUNT:
			break;
	}
	return 1;
}

static void
grad_act(const GradOp *o)
{
	for (size_t i = 0; i < ref_count(o->r.y); i++)
		o->dx[i] += o->dy[i] * grad_activate(o->r.op->u.act, (double) o->r.in[i]);
}

static void
grad_add(const GradOp *o)
{
	double *db = o->all[o->r.op->in[1]];

	for (size_t i = 0; i < ref_count(o->r.y); i++)
	{
		o->dx[i] += o->dy[i];
		db[i] += o->dy[i];
	}
}

static void
grad_mul(const GradOp *o)
{
	DfxVal second = o->r.op->in[1];
	const float *b = o->r.data[second];
	double *db = o->all[second];
	bool per_channel = ref_count(&o->r.g->val[second]) != ref_count(o->r.y);
	size_t plane = (size_t) ref_plane(o->r.y);

	for (size_t i = 0; i < ref_count(o->r.y); i++)
	{
		size_t k = per_channel ? i / plane : i;

		o->dx[i] += o->dy[i] * (double) b[k];
		db[k] += o->dy[i] * (double) o->r.in[i];
	}
}

/* For CONCAT and STACK, whose inputs lie in the output one after another. */
static void
grad_concat(const GradOp *o)
{
	const double *dy = o->dy;

	for (int i = 0; i < o->r.op->nin; i++)
	{
		DfxVal v = o->r.op->in[i];
		size_t n = ref_count(&o->r.g->val[v]);

		for (size_t k = 0; k < n; k++)
			o->all[v][k] += dy[k];
		dy += n;
	}
}

/* The part of one output element: an average gives to all alike, a maximum to the first that reaches it. */
static void
grad_pool_at(const GradOp *o, int c, int oy, int ox, double d)
{
	const RefOp *r = &o->r;
	const DfxPool *a = &r->op->u.pool;
	int kh = a->k ? a->k : r->x->h, kw = a->k ? a->k : r->x->w;
	ptrdiff_t best = -1;

	for (int y = oy * a->s - a->p; y < oy * a->s - a->p + kh; y++)
		for (int x = ox * a->s - a->p; x < ox * a->s - a->p + kw; x++)
		{
			ptrdiff_t i = ((ptrdiff_t) c * r->x->h + y) * r->x->w + x;

			if (y < 0 || y >= r->x->h || x < 0 || x >= r->x->w)
				continue;
			if (a->avg)
				o->dx[i] += d / ((double) kh * kw);
			else if (best < 0 || r->in[i] > r->in[best])
				best = i;
		}
	if (!a->avg)
		o->dx[best] += d;
}

static void
grad_pool(const GradOp *o)
{
	const DfxValue *y = o->r.y;
	const double *d = o->dy;

	for (int c = 0; c < y->c; c++)
		for (int i = 0; i < y->h; i++)
			for (int j = 0; j < y->w; j++)
				grad_pool_at(o, c, i, j, *d++);
}

static void
grad_tokens(const GradOp *o)
{
	double *dcls = grad_param(o, DFX_W), *dpos = grad_param(o, DFX_B);
	int tokens = o->r.y->h;

	for (int c = 0; c < o->r.y->c; c++)
		for (int t = 0; t < tokens; t++)
		{
			double d = o->dy[c * tokens + t];

			dpos[t * o->r.y->c + c] += d;
			if (t == 0)
				dcls[c] += d;
			else
				o->dx[(ptrdiff_t) c * (tokens - 1) + t - 1] += d;
		}
}

static void
grad_take(const GradOp *o)
{
	for (int c = 0; c < o->r.y->c; c++)
		o->dx[c * o->r.x->h + o->r.op->u.index] += o->dy[c];
}

static void (*const grad_op[])(const GradOp *) = {
    [DFX_OP_INPUT] = grad_input,
    [DFX_OP_CONV] = grad_conv,
    [DFX_OP_BN] = NULL,     /* over the batch: ref_train.c */
    [DFX_OP_AFFINE] = NULL, /* of optimised graphs only */
    [DFX_OP_LINEAR] = grad_linear,
    [DFX_OP_LAYERNORM] = grad_layernorm,
    [DFX_OP_ATTN] = grad_attn,
    [DFX_OP_ACT] = grad_act,
    [DFX_OP_ADD] = grad_add,
    [DFX_OP_MUL] = grad_mul,
    [DFX_OP_CONCAT] = grad_concat,
    [DFX_OP_STACK] = grad_concat,
    [DFX_OP_POOL] = grad_pool,
    [DFX_OP_TOKENS] = grad_tokens,
    [DFX_OP_TAKE] = grad_take,
    [DFX_OP_DROP] = NULL, /* its mask is the batch's: ref_train.c */
};
static_assert(sizeof grad_op / sizeof grad_op[0] == DFX_OP_COUNT, "every op kind has its gradient");

void
ref_grad(const DfxGraph *g, const DfxOp *op, float *const *data, double *const *grad, double *const *dparam)
{
	GradOp o = {.r = ref_view(g, op, data, NULL), .dy = grad[op->out], .all = grad, .dparam = dparam};

	if (op->nin > 0)
		o.dx = grad[op->in[0]];
	grad_op[op->kind](&o);
}
