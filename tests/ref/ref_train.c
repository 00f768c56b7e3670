/*
 * ref_train.c
 *	  One training step of the oracle: forward in training mode, backward,
 *	  Adam; and the states of the parameters.
 *
 * forward_train walks the ops once and each op image by image, because
 * BatchNorm needs an op's input for the whole batch; every value of every
 * image is kept.  backward walks the ops in reverse and adds gradients in
 * double; what it needs besides values (statistics, masks, softmax) it works
 * out again.
 */
#include "tests/ref/ref_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRAIN_BN_MOMENTUM 0.1 /* torch.nn.BatchNorm2d's default */

/* ---- memory ---- */

static void *
train_zeros(DfxPlan *p, size_t n, size_t size)
{
	p->bytes += n * size;
	return calloc(n + 1, size);
}

static bool
train_alloc_values(DfxPlan *p)
{
	for (int v = 0; v < p->g.nval; v++)
	{
		size_t n = (size_t) p->max_batch * ref_count(&p->g.val[v]);

		p->batch[v] = train_zeros(p, n, sizeof(float));
		p->dbatch[v] = train_zeros(p, n, sizeof(double));
		if (!p->batch[v] || !p->dbatch[v])
			return false;
	}
	return true;
}

static bool
train_alloc_params(DfxPlan *p)
{
	for (int i = 0; i < p->g.nparam; i++)
	{
		size_t n = dfx_param_count(&p->g.param[i]);

		p->state[DFX_STATE_VALUE][i] = p->g.param[i].data;
		if (!dfx_param_trained(&p->g.param[i]))
			continue;
		p->dparam[i] = train_zeros(p, n, sizeof(double));
		for (int s = DFX_STATE_VALUE + 1; s < DFX_STATE_COUNT; s++)
			p->state[s][i] = train_zeros(p, n, sizeof(float));
		if (!p->dparam[i] || !p->state[DFX_STATE_GRAD][i] || !p->state[DFX_STATE_MOMENT1][i] ||
		    !p->state[DFX_STATE_MOMENT2][i])
			return false;
	}
	return true;
}

bool
ref_train_alloc(DfxPlan *p)
{
	size_t nval = (size_t) p->g.nval, nparam = (size_t) p->g.nparam;

	p->batch = train_zeros(p, nval, sizeof *p->batch);
	p->dbatch = train_zeros(p, nval, sizeof *p->dbatch);
	p->at = train_zeros(p, nval, sizeof *p->at);
	p->dat = train_zeros(p, nval, sizeof *p->dat);
	p->dparam = train_zeros(p, nparam, sizeof *p->dparam);
	if (!p->batch || !p->dbatch || !p->at || !p->dat || !p->dparam)
		return false;
	for (int s = 0; s < DFX_STATE_COUNT; s++)
	{
		p->state[s] = train_zeros(p, nparam, sizeof *p->state[s]);
		if (!p->state[s])
			return false;
	}
	return train_alloc_values(p) && train_alloc_params(p);
}

void
ref_train_free(DfxPlan *p)
{
	for (int v = 0; v < p->g.nval; v++)
	{
		if (p->batch)
			free(p->batch[v]);
		if (p->dbatch)
			free(p->dbatch[v]);
	}
	for (int i = 0; i < p->g.nparam; i++)
	{
		if (p->dparam)
			free(p->dparam[i]);
		/* The values belong to the graph. */
		for (int s = DFX_STATE_VALUE + 1; s < DFX_STATE_COUNT; s++)
			if (p->state[s])
				free(p->state[s][i]);
	}
	for (int s = 0; s < DFX_STATE_COUNT; s++)
		free(p->state[s]);
	free(p->batch);
	free(p->dbatch);
	free(p->at);
	free(p->dat);
	free(p->dparam);
}

/* ---- what both directions share ---- */

/* Let at and dat show image k of the batch. */
static void
train_look_at(DfxPlan *p, int k)
{
	for (int v = 0; v < p->g.nval; v++)
	{
		size_t first = (size_t) k * ref_count(&p->g.val[v]);

		p->at[v] = p->batch[v] + first;
		p->dat[v] = p->dbatch[v] + first;
	}
}

/* A channel of a BN's input in the first n images. */
static RefNorm
train_channel(const DfxPlan *p, const DfxOp *op, int n, int c)
{
	const DfxValue *x = &p->g.val[op->in[0]];
	int plane = ref_plane(x);

	return (RefNorm){.rows = n,
	                 .cols = plane,
	                 .row = ref_count(x),
	                 .col = 1,
	                 .eps = (double) op->u.eps,
	                 .x = p->batch[op->in[0]] + (size_t) c * (size_t) plane,
	                 .w = p->g.param[op->param[DFX_W]].data + c};
}

/* By what DROP multiplies an element in training. */
static double
train_kept(const DfxPlan *p, const DfxOp *op, int image, size_t element)
{
	const DfxDrop *drop = &op->u.drop;
	bool keep = dfx_drop_keep(drop, p->seed, (int) (op - p->g.op), image, element);

	return keep ? 1 / (1 - (double) drop->p) : 0;
}

static void
train_progress(const DfxPlan *p)
{
	if (p->dev->opts.progress != NULL)
		(*p->dev->opts.progress)++;
}

/* ---- forward ---- */

/* DFX_EINVAL where a channel has one value only, and so no variance (PyTorch refuses it, too). */
static DfxStatus
train_check_bn(const DfxPlan *p, int n, DfxErr *err)
{
	for (int i = 0; i < p->g.nop; i++)
		if (p->g.op[i].kind == DFX_OP_BN && n * ref_plane(&p->g.val[p->g.op[i].out]) < 2)
			return dfx_fail(err, DFX_EINVAL,
			                "BatchNorm \"%s\" has one value a channel in this batch, and no variance",
			                p->g.param[p->g.op[i].param[DFX_W]].name);
	return DFX_OK;
}

static void
train_bn(DfxPlan *p, const DfxOp *op, int n)
{
	const float *w = p->g.param[op->param[DFX_W]].data, *b = p->g.param[op->param[DFX_B]].data;
	float *run_mean = p->g.param[op->param[DFX_MEAN]].data, *run_var = p->g.param[op->param[DFX_VAR]].data;

	for (int c = 0; c < p->g.val[op->out].c; c++)
	{
		RefNorm ch = train_channel(p, op, n, c);
		float *y = p->batch[op->out] + (ch.x - p->batch[op->in[0]]);
		double mean, var, unbiased;

		ref_moments(&ch, &mean, &var);
		for (int k = 0; k < ch.rows; k++)
			for (int i = 0; i < ch.cols; i++)
			{
				size_t at = (size_t) k * ch.row + (size_t) i;
				double z = ((double) ch.x[at] - mean) / sqrt(var + ch.eps);

				y[at] = (float) (z * (double) w[c] + (double) b[c]);
			}
		unbiased = var * ch.rows * ch.cols / ((double) ch.rows * ch.cols - 1);
		run_mean[c] += (float) (TRAIN_BN_MOMENTUM * (mean - (double) run_mean[c]));
		run_var[c] += (float) (TRAIN_BN_MOMENTUM * (unbiased - (double) run_var[c]));
	}
}

static void
train_drop(DfxPlan *p, const DfxOp *op, int image)
{
	const float *x = p->at[op->in[0]];
	float *y = p->at[op->out];

	for (size_t i = 0; i < ref_count(&p->g.val[op->out]); i++)
		y[i] = (float) ((double) x[i] * train_kept(p, op, image, i));
}

DfxStatus
ref_forward_train(DfxPlan *p, const void *in, int n, uint64_t seed, float *const *out, DfxErr *err)
{
	const DfxGraph *g = &p->g;

	if (!p->train)
		return dfx_fail(err, DFX_EINVAL, "the plan was not compiled for training");
	if (n < 1 || n > p->max_batch)
		return dfx_fail(err, DFX_EINVAL, "%d images for a plan of 1 to %d", n, p->max_batch);
	if (train_check_bn(p, n, err) != DFX_OK)
		return DFX_EINVAL;
	p->seed = seed;
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];

		if (op->kind == DFX_OP_BN)
			train_bn(p, op, n);
		for (int k = 0; k < n && op->kind != DFX_OP_BN; k++)
		{
			train_look_at(p, k);
			if (op->kind == DFX_OP_DROP)
				train_drop(p, op, k);
			else
				ref_run(g, op, p->at, (const char *) in + (size_t) k * ref_input_bytes(g));
		}
		train_progress(p);
	}
	for (int i = 0; i < g->nout; i++)
		if (out[i] != NULL)
			memcpy(out[i], p->batch[g->out[i]], (size_t) n * ref_count(&g->val[g->out[i]]) * sizeof(float));
	p->kept = n;
	return DFX_OK;
}

/* ---- backward ---- */

static void
train_bn_grad(DfxPlan *p, const DfxOp *op, int n)
{
	for (int c = 0; c < p->g.val[op->out].c; c++)
	{
		RefNorm ch = train_channel(p, op, n, c);
		size_t first = (size_t) (ch.x - p->batch[op->in[0]]);

		ref_norm_grad(&ch, p->dbatch[op->out] + first, p->dbatch[op->in[0]] + first,
		              p->dparam[op->param[DFX_W]] + c, p->dparam[op->param[DFX_B]] + c);
	}
}

static void
train_drop_grad(DfxPlan *p, const DfxOp *op, int image)
{
	for (size_t i = 0; i < ref_count(&p->g.val[op->out]); i++)
		p->dat[op->in[0]][i] += p->dat[op->out][i] * train_kept(p, op, image, i);
}

/* All gradients zero, but for the outputs' own. */
static void
train_seed_grads(DfxPlan *p, int n, const float *const *dout)
{
	const DfxGraph *g = &p->g;

	for (int v = 0; v < g->nval; v++)
		memset(p->dbatch[v], 0, (size_t) n * ref_count(&g->val[v]) * sizeof(double));
	for (int i = 0; i < g->nparam; i++)
		if (p->dparam[i] != NULL)
			memset(p->dparam[i], 0, dfx_param_count(&g->param[i]) * sizeof(double));
	for (int i = 0; i < g->nout; i++)
		for (size_t k = 0; dout[i] != NULL && k < (size_t) n * ref_count(&g->val[g->out[i]]); k++)
			p->dbatch[g->out[i]][k] += (double) dout[i][k];
}

DfxStatus
ref_backward(DfxPlan *p, int n, const float *const *dout, float *din, DfxErr *err)
{
	const DfxGraph *g = &p->g;

	if (p->kept == 0 || n != p->kept)
		return dfx_fail(err, DFX_EINVAL, "backward for %d images, but the values kept are those of %d", n,
		                p->kept);
	if (din != NULL && g->op[g->val[g->input].def].u.input.rgb8)
		return dfx_fail(err, DFX_EINVAL, "there is no gradient by pixels");
	train_seed_grads(p, n, dout);
	for (int i = g->nop - 1; i >= 0; i--)
	{
		const DfxOp *op = &g->op[i];

		if (op->kind == DFX_OP_BN)
			train_bn_grad(p, op, n);
		for (int k = 0; k < n && op->kind != DFX_OP_BN; k++)
		{
			train_look_at(p, k);
			if (op->kind == DFX_OP_DROP)
				train_drop_grad(p, op, k);
			else
				ref_grad(g, op, p->at, p->dat, p->dparam);
		}
		train_progress(p);
	}
	for (int i = 0; i < g->nparam; i++)
		for (size_t k = 0; p->dparam[i] != NULL && k < dfx_param_count(&g->param[i]); k++)
			p->state[DFX_STATE_GRAD][i][k] = (float) p->dparam[i][k];
	for (size_t k = 0; din != NULL && k < (size_t) n * ref_count(&g->val[g->input]); k++)
		din[k] = (float) p->dbatch[g->input][k];
	return DFX_OK;
}

/* ---- parameters ---- */

/*
 * torch.optim.Adam with weight_decay, as torch/optim/adam.py computes it;
 * moments are rounded to float before they are used, as there.
 */
DfxStatus
ref_step(DfxPlan *p, const DfxAdam *a, DfxErr *err)
{
	double correction1 = 1 - pow(a->beta1, (double) a->step);
	double correction2 = 1 - pow(a->beta2, (double) a->step);

	if (!p->train)
		return dfx_fail(err, DFX_EINVAL, "the plan was not compiled for training");
	if (a->step < 1)
		return dfx_fail(err, DFX_EINVAL, "Adam's steps are counted from 1");
	for (int i = 0; i < p->g.nparam; i++)
	{
		float *value = p->state[DFX_STATE_VALUE][i], *grad = p->state[DFX_STATE_GRAD][i];
		float *m = p->state[DFX_STATE_MOMENT1][i], *v = p->state[DFX_STATE_MOMENT2][i];

		for (size_t k = 0; grad != NULL && k < dfx_param_count(&p->g.param[i]); k++)
		{
			double d = (double) grad[k] + a->weight_decay * (double) value[k];

			m[k] = (float) (a->beta1 * (double) m[k] + (1 - a->beta1) * d);
			v[k] = (float) (a->beta2 * (double) v[k] + (1 - a->beta2) * d * d);
			value[k] = (float) ((double) value[k] - a->lr / correction1 * (double) m[k] /
			                                            (sqrt((double) v[k]) / sqrt(correction2) + a->eps));
		}
	}
	p->kept = 0; /* what was kept belongs to the parameters as they were */
	return DFX_OK;
}

/* DFX_EINVAL unless all parameters that data asks for have this state. */
static DfxStatus
train_check_state(const DfxPlan *p, DfxState what, const float *const *data, DfxErr *err)
{
	if (!p->train)
		return dfx_fail(err, DFX_EINVAL, "the plan was not compiled for training");
	if (what < 0 || what >= DFX_STATE_COUNT)
		return dfx_fail(err, DFX_EINVAL, "parameters have no state %d", (int) what);
	for (int i = 0; i < p->g.nparam; i++)
		if (data[i] != NULL && p->state[what][i] == NULL)
			return dfx_fail(err, DFX_EINVAL, "\"%s\" is not trained: it has neither gradient nor moments",
			                p->g.param[i].name);
	return DFX_OK;
}

DfxStatus
ref_read_params(const DfxPlan *p, DfxState what, float *const *data, DfxErr *err)
{
	DfxStatus st = train_check_state(p, what, (const float *const *) data, err);

	for (int i = 0; i < p->g.nparam && st == DFX_OK; i++)
		if (data[i] != NULL)
			memcpy(data[i], p->state[what][i], dfx_param_count(&p->g.param[i]) * sizeof(float));
	return st;
}

DfxStatus
ref_write_params(DfxPlan *p, DfxState what, const float *const *data, DfxErr *err)
{
	DfxStatus st = train_check_state(p, what, data, err);

	for (int i = 0; i < p->g.nparam && st == DFX_OK; i++)
		if (data[i] != NULL)
			memcpy(p->state[what][i], data[i], dfx_param_count(&p->g.param[i]) * sizeof(float));
	if (st == DFX_OK && what == DFX_STATE_VALUE)
		p->kept = 0; /* as after a step */
	return st;
}
