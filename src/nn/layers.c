/*
 * layers.c
 *	  The builders: one function a layer, each checks its arguments, infers the
 *	  output's shape and describes its parameters under torchvision's names.
 *
 * Every builder returns the new value, or -1 once anything has failed; callers
 * chain them without looking and ask dfx_graph_finish() at the end.  Sizes are
 * bounded by LAYER_MAX before they are multiplied or added, so that no
 * arithmetic here can overflow.
 */
#include "nn/graph_priv.h"

#include <math.h>

#define LAYER_MAX (1 << 20) /* of any kernel, stride, padding or channel count */

static const float layer_mean[3] = {0.485f, 0.456f, 0.406f}; /* ImageNet's, per channel RGB */
static const float layer_std[3] = {0.229f, 0.224f, 0.225f};

static DfxVal
layer_input(DfxGraph *g, int c, int h, int w, DfxInput in)
{
	DfxOp *op;

	if (g->err.code == DFX_OK && g->input >= 0)
		dfx_graph_fail(g, DFX_EINVAL, "input", "the graph has an input already");
	op = dfx_graph_op(g, DFX_OP_INPUT, "input", c, h, w, NULL, 0);
	if (op == NULL)
		return -1;
	op->u.input = in;
	g->input = op->out;
	return op->out;
}

/* The network's input as uint8 pixels, h x w x 3, normalised by ImageNet's mean and deviation. */
DfxVal
dfx_input_rgb8(DfxGraph *g, int h, int w)
{
	DfxInput in = {.rgb8 = true};

	for (int i = 0; i < 3; i++)
	{
		in.mean[i] = layer_mean[i];
		in.std[i] = layer_std[i];
	}
	return layer_input(g, 3, h, w, in);
}

/* The network's input as floats, c x h x w, taken as they are. */
DfxVal
dfx_input_f32(DfxGraph *g, int c, int h, int w)
{
	return layer_input(g, c, h, w, (DfxInput){0});
}

/* An op of one input that keeps its shape. */
static DfxOp *
layer_same(DfxGraph *g, DfxOpKind kind, const char *name, DfxVal x)
{
	if (!dfx_graph_has(g, x, name))
		return NULL;
	return dfx_graph_op(g, kind, name, g->val[x].c, g->val[x].h, g->val[x].w, &x, 1);
}

/* Output length of a window of k, stride s, padding p over n; 0 when it does not fit once. */
static int
layer_window(int n, int k, int s, int p)
{
	return n + 2 * p < k ? 0 : (n + 2 * p - k) / s + 1;
}

static bool
layer_in_range(int v, int least)
{
	return v >= least && v <= LAYER_MAX;
}

static bool
layer_check_conv(DfxGraph *g, DfxVal x, const char *name, int cout, const DfxConv *a)
{
	const DfxValue *v = &g->val[x];

	if (!layer_in_range(a->kh, 1) || !layer_in_range(a->kw, 1) || !layer_in_range(a->sh, 1) ||
	    !layer_in_range(a->sw, 1) || !layer_in_range(a->ph, 0) || !layer_in_range(a->pw, 0) ||
	    !layer_in_range(cout, 1) || !layer_in_range(a->groups, 1))
	{
		dfx_graph_fail(
		    g, DFX_EINVAL, name,
		    "kernel %dx%d, stride %dx%d, padding %dx%d, groups %d and %d outputs are no convolution", a->kh,
		    a->kw, a->sh, a->sw, a->ph, a->pw, a->groups, cout);
		return false;
	}
	if (v->c % a->groups != 0 || cout % a->groups != 0)
	{
		dfx_graph_fail(g, DFX_EINVAL, name, "%d groups do not divide %d inputs and %d outputs", a->groups,
		               v->c, cout);
		return false;
	}
	if (layer_window(v->h, a->kh, a->sh, a->ph) == 0 || layer_window(v->w, a->kw, a->sw, a->pw) == 0)
	{
		dfx_graph_fail(g, DFX_EINVAL, name,
		               "an input of %dx%d with padding %dx%d is smaller than the %dx%d kernel", v->h, v->w,
		               a->ph, a->pw, a->kh, a->kw);
		return false;
	}
	return true;
}

/* one_d: the weight is described as PyTorch's Conv1d has it, cout x cin x k. */
static DfxVal
layer_conv(DfxGraph *g, DfxVal x, const char *name, int cout, DfxConv a, bool bias, bool one_d)
{
	int dim[4];
	int weight, b;
	DfxOp *op;

	a.groups += a.groups == 0;
	a.sh += a.sh == 0;
	a.sw += a.sw == 0;
	if (!dfx_graph_has(g, x, name) || !layer_check_conv(g, x, name, cout, &a))
		return -1;
	dim[0] = cout;
	dim[1] = g->val[x].c / a.groups;
	dim[2] = one_d ? a.kw : a.kh;
	dim[3] = a.kw;
	weight = dfx_graph_param(g, name, "weight", DFX_ROLE_WEIGHT, one_d ? 3 : 4, dim);
	b = bias ? dfx_graph_param(g, name, "bias", DFX_ROLE_BIAS, 1, &cout) : -1;
	op = dfx_graph_op(g, DFX_OP_CONV, name, cout, layer_window(g->val[x].h, a.kh, a.sh, a.ph),
	                  layer_window(g->val[x].w, a.kw, a.sw, a.pw), &x, 1);
	if (op == NULL)
		return -1;
	op->u.conv = a;
	op->param[DFX_W] = weight;
	op->param[DFX_B] = b;
	return op->out;
}

/* Cross-correlation as in PyTorch's Conv2d; weight cout x cin/groups x kh x kw. */
DfxVal
dfx_conv(DfxGraph *g, DfxVal x, const char *name, int cout, DfxConv a, bool bias)
{
	return layer_conv(g, x, name, cout, a, bias, false);
}

/* PyTorch's Conv1d, with bias, on a signal of C x 1 x L; weight cout x cin x k. */
DfxVal
dfx_conv1d(DfxGraph *g, DfxVal x, const char *name, int cout, int k, int stride, int pad)
{
	if (!dfx_graph_has(g, x, name))
		return -1;
	if (g->val[x].h != 1)
	{
		dfx_graph_fail(g, DFX_EINVAL, name, "a 1-D convolution needs C x 1 x L, not %d x %d x %d",
		               g->val[x].c, g->val[x].h, g->val[x].w);
		return -1;
	}
	return layer_conv(g, x, name, cout, DFX_CONV1D(k, stride, pad), true, true);
}

/* weight and bias of one element a channel, as BatchNorm and LayerNorm have them. */
static void
layer_scale_bias(DfxGraph *g, const char *name, int c, int param[DFX_MAX_PARAM])
{
	param[DFX_W] = dfx_graph_param(g, name, "weight", DFX_ROLE_SCALE, 1, &c);
	param[DFX_B] = dfx_graph_param(g, name, "bias", DFX_ROLE_BIAS, 1, &c);
}

static bool
layer_check_eps(DfxGraph *g, const char *name, float eps)
{
	if (!(eps >= 0 && isfinite(eps)))
		dfx_graph_fail(g, DFX_EINVAL, name, "epsilon %g is not a non-negative number", (double) eps);
	return g->err.code == DFX_OK;
}

/* Batch normalisation per channel by the running statistics, as PyTorch's BatchNorm in evaluation mode. */
DfxVal
dfx_bn(DfxGraph *g, DfxVal x, const char *name, float eps)
{
	DfxOp *op;
	int c;

	if (!layer_check_eps(g, name, eps) || (op = layer_same(g, DFX_OP_BN, name, x)) == NULL)
		return -1;
	c = g->val[x].c;
	op->u.eps = eps;
	layer_scale_bias(g, name, c, op->param);
	op->param[DFX_MEAN] = dfx_graph_param(g, name, "running_mean", DFX_ROLE_MEAN, 1, &c);
	op->param[DFX_VAR] = dfx_graph_param(g, name, "running_var", DFX_ROLE_VAR, 1, &c);
	return g->err.code == DFX_OK ? op->out : -1;
}

static DfxVal
layer_linear(DfxGraph *g, DfxVal x, const char *name, const char *weight, const char *bias, int cout)
{
	DfxOp *op;
	int dim[2];

	if (!dfx_graph_has(g, x, name))
		return -1;
	if (!layer_in_range(cout, 1))
	{
		dfx_graph_fail(g, DFX_EINVAL, name, "a linear layer cannot have %d outputs", cout);
		return -1;
	}
	dim[0] = cout;
	dim[1] = g->val[x].c;
	op = dfx_graph_op(g, DFX_OP_LINEAR, name, cout, g->val[x].h, g->val[x].w, &x, 1);
	if (op == NULL)
		return -1;
	op->param[DFX_W] = dfx_graph_param(g, name, weight, DFX_ROLE_WEIGHT, 2, dim);
	op->param[DFX_B] = dfx_graph_param(g, name, bias, DFX_ROLE_BIAS, 1, &cout);
	return g->err.code == DFX_OK ? op->out : -1;
}

/* y = W x + b over the channels, at every position. */
DfxVal
dfx_linear(DfxGraph *g, DfxVal x, const char *name, int cout)
{
	return layer_linear(g, x, name, "weight", "bias", cout);
}

/* Normalisation over the channels, at every position (PyTorch's LayerNorm on a token). */
DfxVal
dfx_layernorm(DfxGraph *g, DfxVal x, const char *name, float eps)
{
	DfxOp *op;

	if (!layer_check_eps(g, name, eps) || (op = layer_same(g, DFX_OP_LAYERNORM, name, x)) == NULL)
		return -1;
	op->u.eps = eps;
	layer_scale_bias(g, name, g->val[x].c, op->param);
	return g->err.code == DFX_OK ? op->out : -1;
}

/*
 * PyTorch's MultiheadAttention with query = key = value = x (C x T x 1) and no
 * mask: three ops, the packed projection, softmax(q k' / sqrt(C / heads)) v
 * for each head, and the output projection.
 */
DfxVal
dfx_attn(DfxGraph *g, DfxVal x, const char *name, int heads)
{
	DfxOp *op;
	int c, t, mark;

	if (!dfx_graph_has(g, x, name))
		return -1;
	c = g->val[x].c;
	t = g->val[x].h;
	if (g->val[x].w != 1)
		dfx_graph_fail(g, DFX_EINVAL, name, "attention needs tokens (C x T x 1), not %d x %d x %d", c, t,
		               g->val[x].w);
	else if (heads <= 0 || c % heads != 0 || c > LAYER_MAX / 3)
		dfx_graph_fail(g, DFX_EINVAL, name, "%d heads do not divide %d channels", heads, c);
	if (g->err.code != DFX_OK)
		return -1;

	mark = dfx_push(g, "%s", name);
	x = layer_linear(g, x, "", "in_proj_weight", "in_proj_bias", 3 * c);
	op = dfx_graph_op(g, DFX_OP_ATTN, "", c, t, 1, &x, 1);
	if (op != NULL)
	{
		op->u.heads = heads;
		x = op->out;
	}
	x = dfx_linear(g, x, "out_proj", c);
	dfx_pop(g, mark);
	return x;
}

/* An activation, elementwise; DFX_ACT_NONE gives x back. */
DfxVal
dfx_act(DfxGraph *g, DfxVal x, DfxAct act)
{
	DfxOp *op;

	if (act == DFX_ACT_NONE)
		return dfx_graph_has(g, x, "activation") ? x : -1;
	if (act < 0 || act >= DFX_ACT_COUNT)
		dfx_graph_fail(g, DFX_EINVAL, "activation", "there is no activation %d", (int) act);
	op = layer_same(g, DFX_OP_ACT, "activation", x);
	if (op == NULL)
		return -1;
	op->u.act = act;
	return op->out;
}

static bool
layer_same_shape(const DfxValue *a, const DfxValue *b)
{
	return a->c == b->c && a->h == b->h && a->w == b->w;
}

/* An elementwise op of two inputs; per_channel: b may be C x 1 x 1. */
static DfxVal
layer_pair(DfxGraph *g, DfxOpKind kind, const char *name, DfxVal a, DfxVal b, bool per_channel)
{
	DfxVal in[2] = {a, b};
	const DfxValue *va, *vb;
	DfxOp *op;

	if (!dfx_graph_has(g, a, name) || !dfx_graph_has(g, b, name))
		return -1;
	va = &g->val[a];
	vb = &g->val[b];
	if (!layer_same_shape(va, vb) && !(per_channel && va->c == vb->c && vb->h == 1 && vb->w == 1))
	{
		dfx_graph_fail(g, DFX_EINVAL, name, "shapes %d x %d x %d and %d x %d x %d do not match", va->c, va->h,
		               va->w, vb->c, vb->h, vb->w);
		return -1;
	}
	op = dfx_graph_op(g, kind, name, va->c, va->h, va->w, in, 2);
	return op ? op->out : -1;
}

/* a + b, elementwise; one shape. */
DfxVal
dfx_add(DfxGraph *g, DfxVal a, DfxVal b)
{
	return layer_pair(g, DFX_OP_ADD, "add", a, b, false);
}

/* a * b, elementwise; b may be C x 1 x 1, one factor a channel (squeeze and excitation). */
DfxVal
dfx_mul(DfxGraph *g, DfxVal a, DfxVal b)
{
	return layer_pair(g, DFX_OP_MUL, "mul", a, b, true);
}

/* Along channels; a concat of one value is that value. */
DfxVal
dfx_concat(DfxGraph *g, const DfxVal *x, int n)
{
	long c = 0;
	DfxOp *op;

	if (g->err.code == DFX_OK && n < 1)
		dfx_graph_fail(g, DFX_EINVAL, "concat", "there is nothing to concatenate");
	for (int i = 0; i < n; i++)
	{
		if (!dfx_graph_has(g, x[i], "concat"))
			return -1;
		if (g->val[x[i]].h != g->val[x[0]].h || g->val[x[i]].w != g->val[x[0]].w)
			dfx_graph_fail(g, DFX_EINVAL, "concat", "part %d is %dx%d, the first is %dx%d", i, g->val[x[i]].h,
			               g->val[x[i]].w, g->val[x[0]].h, g->val[x[0]].w);
		c += g->val[x[i]].c;
		if (c > LAYER_MAX)
			dfx_graph_fail(g, DFX_ELIMIT, "concat", "the parts have more than %d channels", LAYER_MAX);
	}
	if (g->err.code != DFX_OK)
		return -1;
	if (n == 1)
		return x[0];
	op = dfx_graph_op(g, DFX_OP_CONCAT, "concat", (int) c, g->val[x[0]].h, g->val[x[0]].w, x, n);
	return op ? op->out : -1;
}

/* n vectors of C x 1 x 1 become a signal of n channels and length C. */
DfxVal
dfx_stack(DfxGraph *g, const DfxVal *x, int n)
{
	DfxOp *op;

	if (g->err.code == DFX_OK && n < 1)
		dfx_graph_fail(g, DFX_EINVAL, "stack", "there is nothing to stack");
	for (int i = 0; i < n; i++)
	{
		if (!dfx_graph_has(g, x[i], "stack"))
			return -1;
		if (g->val[x[i]].c != g->val[x[0]].c || g->val[x[i]].h != 1 || g->val[x[i]].w != 1)
			dfx_graph_fail(g, DFX_EINVAL, "stack", "part %d is %d x %d x %d, not %d x 1 x 1", i,
			               g->val[x[i]].c, g->val[x[i]].h, g->val[x[i]].w, g->val[x[0]].c);
	}
	if (g->err.code != DFX_OK)
		return -1;
	op = dfx_graph_op(g, DFX_OP_STACK, "stack", n, 1, g->val[x[0]].c, x, n);
	return op ? op->out : -1;
}

/*
 * Windows that do not fit are left out (PyTorch's ceil_mode=False); padding of
 * a max pool never wins.  k == 0 is global, s == 0 is s == k, as in PyTorch.
 */
DfxVal
dfx_pool(DfxGraph *g, DfxVal x, DfxPool a)
{
	const DfxValue *v;
	DfxOp *op;
	int oh = 1, ow = 1;

	if (!dfx_graph_has(g, x, "pool"))
		return -1;
	v = &g->val[x];
	if (a.k != 0)
	{
		a.s = a.s == 0 ? a.k : a.s;
		if (!layer_in_range(a.k, 1) || !layer_in_range(a.s, 1) || !layer_in_range(a.p, 0) || a.p > a.k / 2 ||
		    (a.avg && a.p != 0))
		{
			dfx_graph_fail(g, DFX_EINVAL, "pool", "window %d, stride %d, padding %d are no %s pool", a.k, a.s,
			               a.p, a.avg ? "average" : "max");
			return -1;
		}
		oh = layer_window(v->h, a.k, a.s, a.p);
		ow = layer_window(v->w, a.k, a.s, a.p);
	}
	op = dfx_graph_op(g, DFX_OP_POOL, "pool", v->c, oh, ow, &x, 1);
	if (op == NULL)
		return -1;
	op->u.pool = a;
	return op->out;
}

/*
 * ViT: the positions of C x H x W become tokens in row-major order, a class
 * token goes before them, and the position embedding is added: C x (HW+1) x 1.
 * cls and pos are complete parameter names below the scope.
 */
DfxVal
dfx_tokens(DfxGraph *g, DfxVal x, const char *cls, const char *pos)
{
	DfxOp *op;
	int dim[3];

	if (!dfx_graph_has(g, x, cls))
		return -1;
	dim[0] = 1;
	dim[1] = g->val[x].h * g->val[x].w + 1;
	dim[2] = g->val[x].c;
	op = dfx_graph_op(g, DFX_OP_TOKENS, cls, dim[2], dim[1], 1, &x, 1);
	if (op == NULL)
		return -1;
	op->param[DFX_B] = dfx_graph_param(g, pos, "", DFX_ROLE_EMBED, 3, dim);
	dim[1] = 1;
	op->param[DFX_W] = dfx_graph_param(g, cls, "", DFX_ROLE_EMBED, 3, dim);
	return g->err.code == DFX_OK ? op->out : -1;
}

/* One token of C x T x 1, as C x 1 x 1. */
DfxVal
dfx_take(DfxGraph *g, DfxVal x, int index)
{
	DfxOp *op;

	if (!dfx_graph_has(g, x, "take"))
		return -1;
	if (g->val[x].w != 1 || index < 0 || index >= g->val[x].h)
	{
		dfx_graph_fail(g, DFX_EINVAL, "take", "there is no token %d in %d x %d x %d", index, g->val[x].c,
		               g->val[x].h, g->val[x].w);
		return -1;
	}
	op = dfx_graph_op(g, DFX_OP_TAKE, "take", g->val[x].c, 1, 1, &x, 1);
	if (op == NULL)
		return -1;
	op->u.index = index;
	return op->out;
}

static DfxVal
layer_drop(DfxGraph *g, DfxVal x, DfxDrop a)
{
	DfxOp *op;

	if (!(a.p >= 0 && a.p < 1))
		dfx_graph_fail(g, DFX_EINVAL, "dropout", "probability %g is not in [0, 1)", (double) a.p);
	op = layer_same(g, DFX_OP_DROP, "dropout", x);
	if (op == NULL)
		return -1;
	op->u.drop = a;
	return op->out;
}

/* Dropout with probability p when training, the identity otherwise. */
DfxVal
dfx_drop(DfxGraph *g, DfxVal x, float p)
{
	return layer_drop(g, x, (DfxDrop){.p = p});
}

/* Stochastic depth: an image's values vanish together, with probability p when training. */
DfxVal
dfx_drop_path(DfxGraph *g, DfxVal x, float p)
{
	return layer_drop(g, x, (DfxDrop){.p = p, .whole = true});
}
