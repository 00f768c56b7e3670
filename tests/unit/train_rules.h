/*
 * train_rules.h
 *	  Does a training plan keep what backend.h promises: masks, running
 *	  statistics in inference, states that can be carried to another plan,
 *	  gradients that are set and not added, batches of any size up to the
 *	  plan's, errors?  For any backend; the numbers are grad_golden.h's business.
 */
#ifndef DFX_TESTS_TRAIN_RULES_H
#define DFX_TESTS_TRAIN_RULES_H

#include <string.h>

#include "tests/unit/run_net.h"
#include "tests/unit/tap.h"
#include "tests/unit/train_net.h"

enum
{
	RULES_BATCH = 4,
	RULES_CLASSES = 3
};

static const DfxAdam rules_adam = {.lr = 1e-2,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .eps = 1e-8,
                                   .weight_decay = 1e-2};

/* A small network with BatchNorm and dropout, its plan, and what goes through it. */
typedef struct Rules
{
	const DfxBackend *be;
	DfxGraph *g;
	DfxPlan *plan;
	float *in, *din; /* RULES_BATCH images */
	float *features, *logits, *dlogits;
	float **param; /* what was read last, per parameter */
} Rules;

/* ---- set-up ---- */

/* Numbers in [-1, 1), different for each from. */
static void
rules_fill(float *x, size_t n, uint32_t from)
{
	uint32_t state = from * 2654435761u + 1;

	for (size_t i = 0; i < n; i++)
		x[i] = (float) (int32_t) (state = state * 1664525u + 1013904223u) / 0x1p31f;
}

static DfxGraph *
rules_graph(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err;
	DfxVal x = dfx_conv(g, dfx_input_f32(g, 4, 8, 8), "conv1", 16, DFX_CONV2D(3, 1, 1), false);

	x = dfx_drop(g, dfx_act(g, dfx_bn(g, x, "bn1", 1e-5f), DFX_ACT_RELU), 0.25f);
	x = dfx_bn(g, dfx_conv(g, x, "conv2", 16, DFX_CONV2D(3, 2, 1), false), "bn2", 1e-5f);
	x = dfx_pool(g, x, (DfxPool){.avg = true});
	dfx_output(g, x, "features");
	dfx_output(g, dfx_linear(g, x, "fc", RULES_CLASSES), "logits");
	if (!ok(dfx_graph_finish(g, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK,
	        "the network is built"))
		diag("%s", err.msg);
	return g;
}

static bool
rules_open(Rules *r, const DfxBackend *be, DfxDev *dev, int max_batch)
{
	DfxErr err = {0};
	DfxGraph *g = rules_graph();
	size_t in = RULES_BATCH * net_count(g, g->input), logits = RULES_BATCH * RULES_CLASSES;

	*r = (Rules){.be = be, .g = g, .plan = train_compile(be, dev, g, max_batch, &err)};
	r->in = malloc(in * sizeof(float));
	r->din = malloc(in * sizeof(float));
	r->features = malloc(RULES_BATCH * net_count(g, g->out[0]) * sizeof(float));
	r->logits = malloc(logits * sizeof(float));
	r->dlogits = malloc(logits * sizeof(float));
	rules_fill(r->in, in, 1);
	rules_fill(r->dlogits, logits, 2);
	r->param = train_new_params(g);
	if (!ok(r->plan != NULL, "a plan for training is made"))
		diag("%s", err.msg);
	return r->plan != NULL;
}

static void
rules_close(Rules *r)
{
	if (r->plan)
		r->be->release(r->plan);
	train_free_params(r->g, r->param);
	free(r->in);
	free(r->din);
	free(r->features);
	free(r->logits);
	free(r->dlogits);
	dfx_graph_free(r->g);
}

/* Forward and backward of n images, masks of this seed. */
static DfxStatus
rules_pass(Rules *r, int n, uint64_t seed)
{
	DfxErr err;
	float *out[DFX_MAX_OUT] = {r->features, r->logits};
	DfxStatus st = r->be->forward_train(r->plan, r->in, n, seed, out, &err);

	if (st == DFX_OK)
		st = r->be->backward(r->plan, n, (const float *[DFX_MAX_OUT]){NULL, r->dlogits}, r->din, &err);
	return st;
}

/* n steps, the first of them numbered first. */
static DfxStatus
rules_steps(Rules *r, int first, int n)
{
	DfxErr err;
	DfxAdam adam = rules_adam;
	DfxStatus st = DFX_OK;

	for (int i = first; i < first + n && st == DFX_OK; i++)
	{
		adam.step = (uint64_t) i;
		st = rules_pass(r, RULES_BATCH, (uint64_t) i);
		if (st == DFX_OK)
			st = r->be->step(r->plan, &adam, &err);
	}
	return st;
}

/* Whether two plans have the same bits in a state. */
static bool
rules_same(Rules *a, Rules *b, DfxState what)
{
	DfxErr err;

	if (train_read_all(a->be, a->plan, a->g, what, a->param, &err) != DFX_OK ||
	    train_read_all(b->be, b->plan, b->g, what, b->param, &err) != DFX_OK)
		return false;
	for (int p = 0; p < a->g->nparam; p++)
		if ((what == DFX_STATE_VALUE || dfx_param_trained(&a->g->param[p])) &&
		    memcmp(a->param[p], b->param[p], dfx_param_count(&a->g->param[p]) * sizeof(float)) != 0)
			return false;
	return true;
}

/* ---- masks ---- */

/* Dropped elements and their gradients are 0, the others are multiplied by 1 / (1 - p). */
static void
rules_drop(const DfxBackend *be, DfxDev *dev, bool whole)
{
	enum
	{
		COUNT = 16 * 5 * 3,
		ALL = RULES_BATCH * COUNT
	};
	DfxGraph *g = dfx_graph_new();
	DfxDrop drop = {.p = 0.3f, .whole = whole};
	DfxVal x = dfx_input_f32(g, 16, 5, 3);
	static float in[ALL], dout[ALL], out[ALL], din[ALL];
	float *outs[DFX_MAX_OUT] = {out};
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	int wrong = 0, dropped = 0, seeds = whole ? 32 : 2;
	const char *name = whole ? "stochastic depth" : "dropout";

	dfx_output(g, whole ? dfx_drop_path(g, x, drop.p) : dfx_drop(g, x, drop.p), "y");
	if (dfx_graph_finish(g, &err) == DFX_OK)
		plan = train_compile(be, dev, g, RULES_BATCH, &err);
	if (!ok(plan != NULL, "%s compiles for training", name))
		diag("%s", err.msg);
	rules_fill(in, ALL, 3);
	rules_fill(dout, ALL, 4);
	for (int seed = 0; seed < seeds && plan; seed++)
	{
		if (be->forward_train(plan, in, RULES_BATCH, (uint64_t) seed, outs, &err) != DFX_OK ||
		    be->backward(plan, RULES_BATCH, (const float *[]){dout}, din, &err) != DFX_OK)
			wrong = ALL;
		for (int i = 0; i < ALL; i++)
		{
			bool keep = dfx_drop_keep(&drop, (uint64_t) seed, 1, i / COUNT, (uint64_t) (i % COUNT));
			double scale = keep ? 1 / (1 - (double) drop.p) : 0;

			dropped += !keep;
			wrong += fabs((double) out[i] - scale * (double) in[i]) > 1e-6 ||
			         fabs((double) din[i] - scale * (double) dout[i]) > 1e-6;
		}
	}
	ok(wrong == 0 && dropped > 0.2 * seeds * ALL && dropped < 0.4 * seeds * ALL,
	   "%s: %d of %d elements, as dfx_drop_keep says", name, dropped, seeds * ALL);
	ok(plan && be->forward(plan, in, RULES_BATCH, outs, &err) == DFX_OK && memcmp(out, in, sizeof out) == 0,
	   "%s: nothing in inference", name);
	if (plan)
		be->release(plan);
	dfx_graph_free(g);
}

/* ---- passes ---- */

/* Where several are largest, the first in row-major order gets the gradient, as in PyTorch. */
static void
rules_pool_ties(const DfxBackend *be, DfxDev *dev)
{
	DfxGraph *g = dfx_graph_new();
	float in[16], out[4], din[16], *outs[DFX_MAX_OUT] = {out};
	static const float dout[4] = {1, 2, 3, 4}, want[16] = {1, 2, 0, 0, 3, 4};
	DfxErr err = {0};
	DfxPlan *plan = NULL;

	for (int i = 0; i < 16; i++)
		in[i] = 1;
	dfx_output(g, dfx_pool(g, dfx_input_f32(g, 1, 4, 4), (DfxPool){.k = 3, .s = 2, .p = 1}), "y");
	if (dfx_graph_finish(g, &err) == DFX_OK)
		plan = train_compile(be, dev, g, 1, &err);
	ok(plan && be->forward_train(plan, in, 1, 1, outs, &err) == DFX_OK &&
	       be->backward(plan, 1, (const float *[]){dout}, din, &err) == DFX_OK &&
	       memcmp(din, want, sizeof din) == 0,
	   "of equal numbers in a window the first one gets the gradient");
	if (plan)
		be->release(plan);
	dfx_graph_free(g);
}

/* The largest difference of two plans' gradients, those by n images among them. */
static double
rules_difference(Rules *a, Rules *b, int n)
{
	DfxErr err;
	double error = net_error(a->din, b->din, (size_t) n * net_count(a->g, a->g->input));

	if (train_read_all(a->be, a->plan, a->g, DFX_STATE_GRAD, a->param, &err) != DFX_OK ||
	    train_read_all(b->be, b->plan, b->g, DFX_STATE_GRAD, b->param, &err) != DFX_OK)
		return INFINITY;
	for (int p = 0; p < a->g->nparam; p++)
		if (dfx_param_trained(&a->g->param[p]))
			error = fmax(error, net_error(a->param[p], b->param[p], dfx_param_count(&a->g->param[p])));
	return error;
}

static void
rules_gradients(const DfxBackend *be, DfxDev *dev)
{
	Rules a, b;
	DfxErr err;
	float *out[DFX_MAX_OUT] = {NULL}, *zero;

	if (rules_open(&a, be, dev, RULES_BATCH) & rules_open(&b, be, dev, RULES_BATCH))
	{
		zero = calloc(RULES_BATCH * net_count(a.g, a.g->out[0]), sizeof(float));
		ok(rules_pass(&a, RULES_BATCH, 1) == DFX_OK && rules_pass(&b, RULES_BATCH, 2) == DFX_OK &&
		       rules_difference(&a, &b, RULES_BATCH) > 1e-2,
		   "another seed gives other masks and other gradients");
		ok(rules_pass(&b, RULES_BATCH, 1) == DFX_OK && rules_difference(&a, &b, RULES_BATCH) < 1e-6,
		   "gradients are set, not added to those of the pass before");
		ok(be->forward_train(b.plan, b.in, RULES_BATCH, 1, out, &err) == DFX_OK &&
		       be->backward(b.plan, RULES_BATCH, (const float *[]){zero, b.dlogits}, NULL, &err) == DFX_OK &&
		       rules_difference(&a, &b, RULES_BATCH) < 1e-6,
		   "outputs need not be wanted, nor the input's gradient; no gradient by an output is zero");
		free(zero);
	}
	rules_close(&a);
	rules_close(&b);
}

/* A plan of 4 and one of 2, on 2 images: the same but for rounding. */
static void
rules_batches(const DfxBackend *be, DfxDev *dev)
{
	Rules a, b;
	double error;

	if (rules_open(&a, be, dev, RULES_BATCH) & rules_open(&b, be, dev, 2))
	{
		ok(rules_pass(&a, RULES_BATCH, 5) == DFX_OK && rules_pass(&a, 2, 1) == DFX_OK &&
		       rules_pass(&b, 2, 1) == DFX_OK,
		   "2 images go through a plan of 4, and through one of 2");
		error = rules_difference(&a, &b, 2);
		if (!ok(error < 1e-5, "with the same gradients"))
			diag("%g", error);
	}
	rules_close(&a);
	rules_close(&b);
}

/* After some steps, forward on the training plan is inference with the parameters as they are. */
static void
rules_inference(const DfxBackend *be, DfxDev *dev)
{
	Rules r;
	DfxErr err = {0};
	float *want[DFX_MAX_OUT] = {NULL}, *got[DFX_MAX_OUT];
	double error = INFINITY;

	if (rules_open(&r, be, dev, RULES_BATCH) && ok(rules_steps(&r, 1, 3) == DFX_OK, "three steps"))
	{
		got[0] = r.features;
		got[1] = r.logits;
		for (int p = 0; p < r.g->nparam; p++)
			train_read(be, r.plan, r.g, DFX_STATE_VALUE, p, r.g->param[p].data, &err);
		if (run_net(be, r.g, r.in, RULES_BATCH, want, &err) == DFX_OK &&
		    be->forward(r.plan, r.in, RULES_BATCH, got, &err) == DFX_OK)
			error = fmax(net_error(r.logits, want[1], RULES_BATCH * RULES_CLASSES),
			             net_error(r.features, want[0], RULES_BATCH * net_count(r.g, r.g->out[0])));
		if (!ok(error < 1e-5, "forward on a training plan is inference with its parameters and statistics"))
			diag("%g %s", error, err.msg);
		free_net(want);
	}
	rules_close(&r);
}

/* ---- states ---- */

/* Four steps in one plan, or two and, with its states carried to another plan, two more. */
static void
rules_resume(const DfxBackend *be, DfxDev *dev)
{
	static const DfxState carried[] = {DFX_STATE_VALUE, DFX_STATE_MOMENT1, DFX_STATE_MOMENT2};
	Rules a, b, c;
	DfxErr err = {0};
	DfxStatus st = DFX_OK;

	if (rules_open(&a, be, dev, RULES_BATCH) & rules_open(&b, be, dev, RULES_BATCH) &
	    rules_open(&c, be, dev, RULES_BATCH))
	{
		ok(rules_steps(&a, 1, 4) == DFX_OK && rules_steps(&b, 1, 2) == DFX_OK, "plans step");
		for (int i = 0; i < 3 && st == DFX_OK; i++)
		{
			st = train_read_all(be, b.plan, b.g, carried[i], b.param, &err);
			if (st == DFX_OK)
				st = train_write_all(be, c.plan, c.g, carried[i], b.param, &err);
			ok(st == DFX_OK && rules_same(&b, &c, carried[i]), "state %d is carried over", carried[i]);
		}
		ok(rules_steps(&c, 3, 2) == DFX_OK && rules_same(&a, &c, DFX_STATE_VALUE) &&
		       rules_same(&a, &c, DFX_STATE_MOMENT1) && rules_same(&a, &c, DFX_STATE_MOMENT2),
		   "and the steps that follow give the same bits as without a break");
	}
	rules_close(&a);
	rules_close(&b);
	rules_close(&c);
}

/* What the first step makes of a number that was value and has the gradient grad. */
static double
rules_first_step(DfxState what, double value, double grad)
{
	const DfxAdam *a = &rules_adam;
	double d = grad + a->weight_decay * value;

	switch (what)
	{
		case DFX_STATE_MOMENT1:
			return (1 - a->beta1) * d;
		case DFX_STATE_MOMENT2:
			return (1 - a->beta2) * d * d;
		case DFX_STATE_VALUE:
			return value - a->lr * d / (fabs(d) + a->eps); /* the corrections undo 1 - beta */
		case DFX_STATE_GRAD:
		case DFX_STATE_COUNT:
			break;
	}
	return grad;
}

/* The largest difference of a state from that, as part of the number. */
static double
rules_step_error(const DfxGraph *g, DfxState what, float *const *grad, float *const *state)
{
	double worst = 0;

	for (int p = 0; p < g->nparam; p++)
		for (size_t k = 0; dfx_param_trained(&g->param[p]) && k < dfx_param_count(&g->param[p]); k++)
		{
			double want = rules_first_step(what, (double) g->param[p].data[k], (double) grad[p][k]);

			worst = fmax(worst, fabs((double) state[p][k] - want) / (fabs(want) + 1e-9));
		}
	return worst;
}

/* All numbers of all trained parameters. */
static bool
rules_all_zero(const DfxGraph *g, float *const *data)
{
	for (int p = 0; p < g->nparam; p++)
		for (size_t k = 0; dfx_param_trained(&g->param[p]) && k < dfx_param_count(&g->param[p]); k++)
			if (data[p][k] != 0)
				return false;
	return true;
}

/* One step: moments and values by Adam's formulas, from the gradient read before it. */
static void
rules_step(const DfxBackend *be, DfxDev *dev)
{
	Rules r;
	DfxErr err = {0};
	DfxAdam adam = rules_adam;

	adam.step = 1;
	if (rules_open(&r, be, dev, RULES_BATCH))
	{
		float **grad = train_new_params(r.g);

		for (int what = DFX_STATE_MOMENT1; what <= DFX_STATE_MOMENT2; what++)
			ok(train_read_all(be, r.plan, r.g, (DfxState) what, r.param, &err) == DFX_OK &&
			       rules_all_zero(r.g, r.param),
			   "state %d begins at zero", what);
		ok(rules_pass(&r, RULES_BATCH, 1) == DFX_OK &&
		       train_read_all(be, r.plan, r.g, DFX_STATE_GRAD, grad, &err) == DFX_OK &&
		       !rules_all_zero(r.g, grad) && be->step(r.plan, &adam, &err) == DFX_OK,
		   "a step is made");
		for (int what = 0; what < DFX_STATE_COUNT; what++)
		{
			DfxStatus st = train_read_all(be, r.plan, r.g, (DfxState) what, r.param, &err);
			double error = rules_step_error(r.g, (DfxState) what, grad, r.param);

			if (!ok(st == DFX_OK && error < 1e-5, "state %d then is as Adam with L2 says", what))
				diag("%g", error);
		}
		train_free_params(r.g, grad);
	}
	rules_close(&r);
}

/* ---- what is refused ---- */

static void
rules_refused(const DfxBackend *be, DfxDev *dev)
{
	Rules r;
	DfxErr err = {0};
	DfxAdam adam = rules_adam; /* step 0 */
	DfxGraph *g = dfx_graph_new();
	DfxPlan *plan = NULL;
	float one[16] = {1, 2, 3, 4, 5, 6}, *out[DFX_MAX_OUT] = {NULL};

	if (rules_open(&r, be, dev, 2))
	{
		const float *dout[DFX_MAX_OUT] = {NULL, r.dlogits};

		ok(be->backward(r.plan, 2, dout, NULL, &err) == DFX_EINVAL, "backward before any forward: %s",
		   err.msg);
		ok(be->forward_train(r.plan, r.in, 3, 1, out, &err) == DFX_EINVAL, "too many images: %s", err.msg);
		ok(be->forward_train(r.plan, r.in, 0, 1, out, &err) == DFX_EINVAL, "no image: %s", err.msg);
		ok(rules_pass(&r, 2, 1) == DFX_OK && be->backward(r.plan, 1, dout, NULL, &err) == DFX_EINVAL,
		   "backward for fewer images: %s", err.msg);
		ok(be->step(r.plan, &adam, &err) == DFX_EINVAL, "a step numbered 0: %s", err.msg);
		ok(train_read(be, r.plan, r.g, DFX_STATE_MOMENT1, r.g->op[2].param[DFX_MEAN], one, &err) ==
		       DFX_EINVAL,
		   "the moments of a running mean: %s", err.msg);
	}
	rules_close(&r);

	dfx_output(g, dfx_bn(g, dfx_input_f32(g, 3, 1, 1), "bn", 1e-5f), "y");
	if (dfx_graph_finish(g, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK)
		plan = train_compile(be, dev, g, 2, &err);
	ok(plan && be->forward_train(plan, one, 1, 1, out, &err) == DFX_EINVAL,
	   "BatchNorm over a single value: %s", err.msg);
	ok(plan && be->forward_train(plan, one, 2, 1, out, &err) == DFX_OK, "but not over two");
	if (plan)
		be->release(plan);
	dfx_graph_free(g);
}

/* An optimised graph, and a plan for inference that is asked to train. */
static void
rules_not_for_training(const DfxBackend *be, DfxDev *dev)
{
	DfxGraph *g = rules_graph();
	DfxErr err = {0};
	DfxPlanOpts opts = {.max_batch = 1, .precision = DFX_PRECISION_FP32};
	DfxPlan *plan = NULL;
	float in[4 * 8 * 8] = {0}, *out[DFX_MAX_OUT] = {NULL};

	ok(be->compile(dev, g, &opts, &plan, &err) == DFX_OK &&
	       be->forward_train(plan, in, 1, 1, out, &err) == DFX_EINVAL,
	   "a plan for inference does not train: %s", err.msg);
	if (plan)
		be->release(plan);
	ok(dfx_graph_optimize(g, be->supports, dev, &err) == DFX_OK &&
	       train_compile(be, dev, g, 1, &err) == NULL && err.code == DFX_EINVAL,
	   "an optimised graph is not trained: %s", err.msg);
	dfx_graph_free(g);
}

/* All of them, on an open device. */
__attribute__((unused)) static void
train_rules(const DfxBackend *be, DfxDev *dev)
{
	rules_drop(be, dev, false);
	rules_drop(be, dev, true);
	rules_pool_ties(be, dev);
	rules_gradients(be, dev);
	rules_batches(be, dev);
	rules_inference(be, dev);
	rules_resume(be, dev);
	rules_step(be, dev);
	rules_refused(be, dev);
	rules_not_for_training(be, dev);
}

#endif /* DFX_TESTS_TRAIN_RULES_H */
