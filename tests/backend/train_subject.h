/*
 * train_subject.h
 *	  Train one graph on a backend and on the oracle, and compare: outputs,
 *	  every parameter's gradient, the input's, running statistics, and the
 *	  parameters after some steps.
 *
 * A gradient's difference is measured relative to its own largest magnitude,
 * but no less than a thousandth of the largest of all: gradients that are zero
 * by construction (a bias before a BatchNorm) consist of rounding only.
 */
#ifndef DFX_TESTS_TRAIN_SUBJECT_H
#define DFX_TESTS_TRAIN_SUBJECT_H

/* For any backend; train_against_ref.h has the CPU's, and the same names. */

#include "tests/backend/against_ref.h"
#include "tests/unit/train_net.h"

/* One backend's side of the comparison. */
typedef struct TrainSide
{
	const DfxBackend *be;
	DfxPlan *plan;
	float *out[DFX_MAX_OUT];
	float *din;
	float **param; /* of the state last read */
} TrainSide;

static bool
side_open(TrainSide *s, const Subject *on, const DfxGraph *g, int max_batch, DfxErr *err)
{
	bool rgb8;
	size_t in = graph_input_bytes(g, &rgb8);

	*s = (TrainSide){.be = on->be, .param = train_new_params(g)};
	for (int i = 0; i < g->nout; i++)
		s->out[i] = calloc((size_t) max_batch * graph_output_floats(g, i), sizeof(float));
	if (!rgb8)
		s->din = calloc((size_t) max_batch, in);
	s->plan = train_compile_in(on->precision, on->be, on->dev, g, max_batch, err);
	return s->plan != NULL;
}

static void
side_close(TrainSide *s, const DfxGraph *g)
{
	train_free_params(g, s->param);
	free_outputs(s->out);
	free(s->din);
	if (s->plan)
		s->be->release(s->plan);
}

static DfxStatus
side_read(TrainSide *s, const DfxGraph *g, DfxState what, DfxErr *err)
{
	return train_read_all(s->be, s->plan, g, what, s->param, err);
}

/*
 * How far got is from want: the largest difference over the largest magnitude,
 * or over least.  In half precision, where a number may round to the other side
 * of a ReLU's 0 and single gradients are lost, by the vectors' lengths.
 */
static double
side_error(const Subject *on, const float *got, const float *want, size_t n, double least)
{
	double diff = 0, size = 0, diff2 = 0, size2 = 0;

	for (size_t i = 0; i < n; i++)
	{
		double d = fabs((double) got[i] - (double) want[i]);

		diff = d < INFINITY ? fmax(diff, d) : INFINITY;
		size = fmax(size, fabs((double) want[i]));
		diff2 += d * d;
		size2 += pow((double) want[i], 2);
	}
	if (on->precision == DFX_PRECISION_FP32)
		return diff / fmax(size, least + 1e-30);
	return diff < INFINITY ? sqrt(diff2 / fmax(size2, (double) n * least * least + 1e-30)) : INFINITY;
}

/* The worst difference between the two sides' parameters, as the header says; the name goes to *who. */
static double
sides_differ(const Subject *on, const TrainSide *a, const TrainSide *b, const DfxGraph *g, bool trained,
             const char **who)
{
	double worst = 0, top = 0;

	for (int i = 0; i < g->nparam; i++)
		for (size_t k = 0; k < dfx_param_count(&g->param[i]); k++)
			if (dfx_param_trained(&g->param[i]) == trained && fabs((double) b->param[i][k]) > top)
				top = fabs((double) b->param[i][k]);
	for (int i = 0; i < g->nparam; i++)
	{
		double e;

		if (dfx_param_trained(&g->param[i]) != trained)
			continue;
		e = side_error(on, a->param[i], b->param[i], dfx_param_count(&g->param[i]), top * 1e-3);
		if (e > worst)
		{
			worst = e;
			*who = g->param[i].name;
		}
	}
	return worst;
}

/* One forward_train and backward on one side, with noise for the loss's gradients. */
static DfxStatus
side_pass(TrainSide *s, const DfxGraph *g, const void *in, int n, uint64_t seed, DfxErr *err)
{
	float *dout[DFX_MAX_OUT] = {NULL};
	uint32_t state = 99 + (uint32_t) seed;
	DfxStatus st = s->be->forward_train(s->plan, in, n, seed, s->out, err);

	for (int i = 0; i < g->nout; i++)
	{
		size_t count = (size_t) n * graph_output_floats(g, i);

		dout[i] = calloc(count, sizeof(float));
		for (size_t k = 0; k < count; k++)
			dout[i][k] = noise(&state);
	}
	if (st == DFX_OK)
		st = s->be->backward(s->plan, n, (const float *const *) dout, s->din, err);
	free_outputs(dout);
	return st;
}

typedef struct TrainTolerance
{
	double out, grad;
	double half; /* of both in half precision, where nothing turns on a comparison; 0: the subject's */
} TrainTolerance;

/* The outcome of one pass on both sides against the tolerances; what differs goes to diag. */
static bool
sides_agree(const Subject *on, TrainSide *got, TrainSide *ref, const DfxGraph *g, int n,
            const TrainTolerance *t, DfxErr *err)
{
	const char *who = "?";
	bool rgb8, good = true;
	double e;

	for (int i = 0; i < g->nout; i++)
		if ((e = side_error(on, got->out[i], ref->out[i], (size_t) n * graph_output_floats(g, i), 0)) >
		    t->out)
		{
			diag("output %s: %g, allowed %g", g->out_name[i], e, t->out);
			good = false;
		}
	if (side_read(got, g, DFX_STATE_GRAD, err) != DFX_OK || side_read(ref, g, DFX_STATE_GRAD, err) != DFX_OK)
		return false;
	if ((e = sides_differ(on, got, ref, g, true, &who)) > t->grad)
	{
		diag("gradient of %s: %g, allowed %g", who, e, t->grad);
		good = false;
	}
	if (got->din)
	{
		e = side_error(on, got->din, ref->din, (size_t) n * graph_input_bytes(g, &rgb8) / sizeof(float), 0);
		if (e > t->grad)
		{
			diag("gradient of the input: %g, allowed %g", e, t->grad);
			good = false;
		}
	}
	if (side_read(got, g, DFX_STATE_VALUE, err) != DFX_OK ||
	    side_read(ref, g, DFX_STATE_VALUE, err) != DFX_OK)
		return false;
	if ((e = sides_differ(on, got, ref, g, false, &who)) > t->out)
	{
		diag("running statistics %s: %g, allowed %g", who, e, t->out);
		good = false;
	}
	return good;
}

/*
 * One test: a pass over n images of a plan for max_batch gives what the oracle
 * gives, within t, or the subject's tolerance in fp32, if that is larger.
 */
__attribute__((unused)) static bool
trains_as_ref(const Subject *on, const DfxGraph *g, int max_batch, int n, TrainTolerance t, const char *what)
{
	DfxDevOpts opts = {.threads = 1};
	Subject oracle = {.be = &dfx_ref_backend, .precision = DFX_PRECISION_FP32};
	DfxErr err = {0};
	TrainSide got = {0}, ref = {0};
	void *in = noise_images(g, max_batch, 5u + (uint32_t) n);
	bool good = dfx_ref_backend.open(&opts, &oracle.dev, &err) == DFX_OK;

	if (on->precision != DFX_PRECISION_FP32)
		t.out = t.grad = t.half > 0 ? t.half : on->tolerance;
	else
	{
		t.out = fmax(t.out, on->tolerance);
		t.grad = fmax(t.grad, on->tolerance);
	}
	good = side_open(&ref, &oracle, g, max_batch, &err) && good;
	good = side_open(&got, on, g, max_batch, &err) && good;
	good = good && side_pass(&ref, g, in, n, 7, &err) == DFX_OK;
	good = good && side_pass(&got, g, in, n, 7, &err) == DFX_OK;
	good = good && sides_agree(on, &got, &ref, g, n, &t, &err);
	if (!ok(good, "%s, %d of %d images, %s", what, n, max_batch, dfx_precision_name[on->precision]) &&
	    err.code != DFX_OK)
		diag("%s", err.msg);
	side_close(&got, g);
	side_close(&ref, g);
	free(in);
	dfx_ref_backend.close(oracle.dev);
	return good;
}

#endif /* DFX_TESTS_TRAIN_SUBJECT_H */
