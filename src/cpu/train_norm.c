/*
 * train_norm.c
 *	  BatchNorm in training: statistics of the batch, the running ones, and the
 *	  gradients of scale and shift.
 *
 * A value's statistics are computed once, by the worker that has just made its
 * images, whichever and however many BNs read it: per image and channel in two
 * passes, then over images and workers with Chan's formula in doubles (Chan,
 * Golub, LeVeque, "Algorithms for computing the sample variance", 1983).
 * Rules as torch.nn.BatchNorm2d: the batch's variance is biased where it
 * normalises, unbiased where it moves the running one; momentum 0.1.
 */
#include <math.h>
#include <string.h>

#include "cpu/train.h"

#define NORM_MOMENTUM 0.1

/* ---- statistics of a value ---- */

DfxStatus
train_norm_value(TrainBuild *b, TrainValue *v, DfxErr *err)
{
	size_t c = (size_t) v->view.c, threads = (size_t) b->dev->threads;
	double *d;
	float *f;

	v->normed = true;
	v->worker = cpu_plan_alloc(b->plan, threads * sizeof *v->worker, err);
	d = cpu_plan_alloc(b->plan, (threads + 1) * 2 * c * sizeof *d, err);
	f = cpu_plan_alloc(b->plan, 3 * (c + TRAIN_PAD) * sizeof *f, err);
	if (v->worker == NULL || d == NULL || f == NULL)
		return DFX_ENOMEM;
	v->mean = d;
	v->var = d + c;
	for (size_t w = 0; w < threads; w++)
	{
		v->worker[w].mean = d + (w + 1) * 2 * c;
		v->worker[w].m2 = v->worker[w].mean + c;
	}
	v->mean_f = f;
	v->correct_a = f + c + TRAIN_PAD;
	v->correct_b = f + 2 * (c + TRAIN_PAD);
	return DFX_OK;
}

/* Add count numbers of channel c, of this mean and sum of squares about it. */
static void
norm_merge(TrainMoments *m, int c, double count, double mean, double m2)
{
	double all = m->count + count, delta = mean - m->mean[c];

	m->mean[c] += delta * (count / all);
	m->m2[c] += m2 + delta * delta * (m->count * count / all);
}

void
train_moments_clear(const TrainRun *r, DfxVal v)
{
	const TrainValue *val = &r->t->value[v];
	TrainMoments *m = &val->worker[r->worker];

	m->count = 0;
	memset(m->mean, 0, (size_t) val->view.c * sizeof *m->mean);
	memset(m->m2, 0, (size_t) val->view.c * sizeof *m->m2);
}

/* Take n images that have just been made into the worker's moments. */
void
train_moments(const TrainRun *r, DfxVal v, int image, int n)
{
	const TrainValue *val = &r->t->value[v];
	const CpuView *view = &val->view;
	TrainMoments *m = &val->worker[r->worker];
	double npix = (double) cpu_pixels(view);

	for (int i = 0; i < n; i++)
	{
		const void *x = train_value(r->t, v, image + i);

		for (int c = 0, nl; c < view->c; c += nl)
		{
			float mean[TRAIN_PAD], m2[TRAIN_PAD];

			nl = cpu_min(cpu_min(cpu_lanes(view, c), view->c - c), TRAIN_PAD);
			r->plan->dev->train_kernels->moments(train_strip(x, view, c), cpu_pixels(view), nl, mean, m2);
			for (int l = 0; l < nl; l++)
				norm_merge(m, c + l, npix, (double) mean[l], (double) m2[l]);
		}
		m->count += npix;
	}
}

/* Those of all workers together. */
void
train_moments_merge(const TrainRun *r, DfxVal v)
{
	TrainValue *val = &r->t->value[v];
	int channels = val->view.c;
	TrainMoments all = {.mean = val->mean, .m2 = val->var};

	memset(val->mean, 0, (size_t) channels * sizeof *val->mean);
	memset(val->var, 0, (size_t) channels * sizeof *val->var);
	for (int w = 0; w < r->plan->dev->threads; w++)
	{
		const TrainMoments *m = &val->worker[w];

		if (m->count == 0)
			continue;
		for (int c = 0; c < channels; c++)
			norm_merge(&all, c, m->count, m->mean[c], m->m2[c]);
		all.count += m->count;
	}
	for (int c = 0; c < channels; c++)
	{
		val->var[c] /= all.count;
		val->mean_f[c] = (float) val->mean[c];
	}
}

/* ---- a BN ---- */

DfxStatus
train_norm_new(TrainBuild *b, const DfxOp *op, TrainNorm **norm, DfxErr *err)
{
	int c = b->g->val[op->out].c;
	size_t padded = (size_t) c + TRAIN_PAD;
	TrainNorm *m = cpu_plan_alloc(b->plan, sizeof *m, err);

	if (m == NULL)
		return DFX_ENOMEM;
	*norm = m;
	m->c = c;
	m->eps = op->u.eps;
	memcpy(m->param, op->param, sizeof m->param);
	m->scale = cpu_plan_alloc(b->plan, 3 * padded * sizeof *m->scale, err);
	m->sum = cpu_plan_alloc(b->plan, (size_t) b->dev->threads * 2 * (size_t) c * sizeof *m->sum, err);
	if (m->scale == NULL || m->sum == NULL)
		return DFX_ENOMEM;
	m->shift = m->scale + padded;
	m->mean = m->scale + 2 * padded;
	return DFX_OK;
}

/* DFX_EINVAL where a channel has one value only, and so no variance (PyTorch refuses it, too). */
DfxStatus
train_norm_check(const CpuTrain *t, int n, DfxErr *err)
{
	for (int i = 0; i < t->nstep; i++)
		if (t->step[i].norm && (double) n * (double) cpu_pixels(&t->step[i].in[0].view) < 2)
			return dfx_fail(
			    err, DFX_EINVAL,
			    "a BatchNorm of %d channels has one value a channel in this batch, and no variance",
			    t->step[i].norm->c);
	return DFX_OK;
}

/* Scale and shift of this pass; in training the running statistics move. */
static DfxStatus
norm_forward_done(const TrainStep *s, const TrainRun *r, DfxErr *err)
{
	CpuTrain *t = r->t;
	TrainNorm *m = s->norm;
	const TrainSource *in = &s->in[0];
	const float *w = train_param(t, DFX_STATE_VALUE, m->param[DFX_W]);
	const float *bias = train_param(t, DFX_STATE_VALUE, m->param[DFX_B]);
	float *mean = train_param(t, DFX_STATE_VALUE, m->param[DFX_MEAN]);
	float *var = train_param(t, DFX_STATE_VALUE, m->param[DFX_VAR]);
	double count = (double) r->n * (double) cpu_pixels(&in->view);
	int at = 0;

	(void) err;
	for (int j = 0; j < in->npiece; j++)
	{
		const TrainValue *v = &t->value[in->piece[j]];

		for (int c = 0; c < v->view.c; c++, at++)
		{
			double mu = r->train ? v->mean[c] : (double) mean[at];
			double variance = r->train ? v->var[c] : (double) var[at];
			double scale = (double) w[at] / sqrt(variance + (double) m->eps);

			m->scale[at] = (float) scale;
			m->mean[at] = (float) mu;
			m->shift[at] = (float) ((double) bias[at] - (mu - (double) m->mean[at]) * scale);
			if (!r->train)
				continue;
			mean[at] = (float) ((1 - NORM_MOMENTUM) * (double) mean[at] + NORM_MOMENTUM * mu);
			var[at] = (float) ((1 - NORM_MOMENTUM) * (double) var[at] +
			                   NORM_MOMENTUM * variance * count / (count - 1));
		}
	}
	return DFX_OK;
}

/* Before a backward pass: nothing has been added up. */
void
train_norm_clear(CpuTrain *t, int threads)
{
	for (int i = 0; i < t->nstep; i++)
	{
		TrainNorm *m = t->step[i].norm;

		if (m)
			memset(m->sum, 0, (size_t) threads * 2 * (size_t) m->c * sizeof *m->sum);
	}
	for (int v = 0; v < t->nvalue; v++)
	{
		TrainValue *val = &t->value[v];

		if (!val->normed)
			continue;
		memset(val->correct_a, 0, (size_t) val->view.c * sizeof *val->correct_a);
		memset(val->correct_b, 0, (size_t) val->view.c * sizeof *val->correct_b);
	}
}

/* All consumers have pushed: gradients of scale and shift, and what the pieces must correct (train.h). */
static DfxStatus
norm_backward_done(const TrainStep *s, const TrainRun *r, DfxErr *err)
{
	CpuTrain *t = r->t;
	TrainNorm *m = s->norm;
	const TrainSource *in = &s->in[0];
	const float *w = train_param(t, DFX_STATE_VALUE, m->param[DFX_W]);
	float *dw = train_param(t, DFX_STATE_GRAD, m->param[DFX_W]);
	float *db = train_param(t, DFX_STATE_GRAD, m->param[DFX_B]);
	double count = (double) r->n * (double) cpu_pixels(&in->view);
	int at = 0;

	(void) err;
	for (int j = 0; j < in->npiece; j++)
	{
		const TrainValue *v = &t->value[in->piece[j]];

		for (int c = 0; c < v->view.c; c++, at++)
		{
			double sum = 0, sum_x = 0, inv = 1 / sqrt(v->var[c] + (double) m->eps);

			for (int i = 0; i < r->plan->dev->threads; i++)
			{
				sum += m->sum[(size_t) i * 2 * (size_t) m->c + (size_t) at];
				sum_x += m->sum[(size_t) i * 2 * (size_t) m->c + (size_t) (m->c + at)];
			}
			db[at] = (float) sum;
			dw[at] = (float) (sum_x * inv);
			v->correct_a[c] += (float) ((double) w[at] * inv * sum / count);
			v->correct_b[c] += (float) ((double) w[at] * inv * inv * inv * sum_x / count);
		}
	}
	return DFX_OK;
}

DfxStatus
train_norm_step(TrainBuild *b, TrainStep *s, DfxErr *err)
{
	s->forward_done = norm_forward_done;
	s->backward_done = norm_backward_done;
	for (int j = 0; j < s->in[0].npiece; j++)
	{
		TrainValue *v = &b->t->value[s->in[0].piece[j]];
		DfxStatus st = v->normed ? DFX_OK : train_norm_value(b, v, err);

		if (st != DFX_OK)
			return st;
	}
	return DFX_OK;
}
