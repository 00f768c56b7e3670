/*
 * train_subject.h
 *	  Train one graph on a backend and on the oracle, and compare: outputs,
 *	  every parameter's gradient, the input's, running statistics, and the
 *	  parameters after some steps.
 *
 * A gradient's difference is measured relative to its own largest magnitude,
 * but no less than a thousandth of the largest of all: gradients that are zero
 * by construction (a bias before a BatchNorm) consist of rounding only.
 *
 * In half precision magnitudes are root mean squares instead: where a ReLU's
 * input or two candidates of a maximum are nearer to each other than rounding,
 * single numbers go another way as a whole.  Inputs and gradients that come from
 * outside are such numbers then on both sides, so that this does not happen at
 * once.
 */
#ifndef DFX_TESTS_TRAIN_SUBJECT_H
#define DFX_TESTS_TRAIN_SUBJECT_H

#include "tests/backend/against_ref.h"
#include "tests/unit/train_net.h"

/* One backend's side of the comparison. */
typedef struct TrainSide
{
	const DfxBackend *be;
	DfxPrecision inputs; /* what the loss's gradients are rounded to */
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

	*s = (TrainSide){.be = on->be, .inputs = on->precision, .param = train_new_params(g)};
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
	if (s->param)
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

/* What is not zero by itself has at least this magnitude. */
#define SIDE_LEAST 1e-30

/* How far got is from want, relative to want's magnitude or to least, as the header says. */
static double
side_error(const Subject *on, const float *got, const float *want, size_t n, double least)
{
	double max = least, diff = 0, squares = 0, diff_squares = 0;

	for (size_t i = 0; i < n; i++)
	{
		double w = (double) want[i], d = fabs((double) got[i] - w);

		if (!(d < INFINITY))
			return INFINITY;
		max = fmax(max, fabs(w));
		diff = fmax(diff, d);
		squares += w * w;
		diff_squares += d * d;
	}
	if (on->precision == DFX_PRECISION_FP32)
		return diff / max;
	return sqrt(diff_squares / fmax(squares, least * least * (double) n));
}

/* Round numbers to what the precision can hold. */
static void
train_round(float *x, size_t n, DfxPrecision precision)
{
	uint16_t *half = malloc(n * sizeof *half + 1);

	if (precision == DFX_PRECISION_BF16)
	{
		dfx_tensor_of_f32(DFX_BF16, x, n, half);
		dfx_tensor_to_f32(&(DfxTensor){.dtype = DFX_BF16, .data = half}, 0, n, x);
	}
	free(half);
}

/* That of all trained parameters together, in root mean squares. */
static double
sides_differ_whole(const TrainSide *a, const TrainSide *b, const DfxGraph *g)
{
	double square = 0, squares = 0;

	for (int i = 0; i < g->nparam; i++)
		for (size_t k = 0; dfx_param_trained(&g->param[i]) && k < dfx_param_count(&g->param[i]); k++)
		{
			double want = (double) b->param[i][k], d = (double) a->param[i][k] - want;

			square += d * d;
			squares += want * want;
		}
	return square < INFINITY ? sqrt(square / squares) : INFINITY;
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
		e = side_error(on, a->param[i], b->param[i], dfx_param_count(&g->param[i]), top * 1e-3 + SIDE_LEAST);
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
		train_round(dout[i], count, s->inputs);
	}
	if (st == DFX_OK)
		st = s->be->backward(s->plan, n, (const float *const *) dout, s->din, err);
	free_outputs(dout);
	return st;
}

/* Both sides of one graph, the oracle on a device of its own. */
typedef struct TrainPair
{
	TrainSide got, ref;
	DfxDev *ref_dev;
} TrainPair;

/* A pass over n images in plans for max_batch on both sides, with the same numbers; gradients are read. */
static bool
pair_pass(TrainPair *p, const Subject *on, const DfxGraph *g, int max_batch, int n, DfxErr *err)
{
	DfxDevOpts opts = {.threads = 1};
	Subject oracle = {.be = &dfx_ref_backend, .precision = DFX_PRECISION_FP32};
	void *in = noise_images(g, max_batch, 5u + (uint32_t) n);
	bool rgb8;
	size_t bytes = graph_input_bytes(g, &rgb8) * (size_t) max_batch;
	bool good;

	*p = (TrainPair){.ref_dev = NULL};
	if (!rgb8)
		train_round(in, bytes / sizeof(float), on->precision);
	good = dfx_ref_backend.open(&opts, &p->ref_dev, err) == DFX_OK;
	oracle.dev = p->ref_dev;
	good = good && side_open(&p->ref, &oracle, g, max_batch, err);
	good = good && side_open(&p->got, on, g, max_batch, err);
	p->ref.inputs = on->precision;
	good = good && side_pass(&p->ref, g, in, n, 7, err) == DFX_OK;
	good = good && side_pass(&p->got, g, in, n, 7, err) == DFX_OK;
	good = good && side_read(&p->ref, g, DFX_STATE_GRAD, err) == DFX_OK;
	good = good && side_read(&p->got, g, DFX_STATE_GRAD, err) == DFX_OK;
	free(in);
	return good;
}

static void
pair_close(TrainPair *p, const DfxGraph *g)
{
	side_close(&p->got, g);
	side_close(&p->ref, g);
	if (p->ref_dev)
		dfx_ref_backend.close(p->ref_dev);
}

/* Of one pass; neither is less than the subject's. */
typedef struct TrainTolerance
{
	double out, grad;
	bool whole; /* all parameters' gradients as one vector */
} TrainTolerance;

/* The outcome of pair_pass() against the tolerances; what differs goes to diag. */
static bool
pair_agrees(TrainPair *p, const Subject *on, const DfxGraph *g, int n, const TrainTolerance *t, DfxErr *err)
{
	TrainSide *got = &p->got, *ref = &p->ref;
	const char *who = "all";
	bool rgb8, good = true;
	double e;

	for (int i = 0; i < g->nout; i++)
	{
		e = side_error(on, got->out[i], ref->out[i], (size_t) n * graph_output_floats(g, i), SIDE_LEAST);
		if (e > t->out)
		{
			diag("output %s: %g, allowed %g", g->out_name[i], e, t->out);
			good = false;
		}
	}
	e = t->whole ? sides_differ_whole(got, ref, g) : sides_differ(on, got, ref, g, true, &who);
	if (e > t->grad)
	{
		diag("gradient of %s: %g, allowed %g", who, e, t->grad);
		good = false;
	}
	if (got->din)
	{
		size_t floats = (size_t) n * graph_input_bytes(g, &rgb8) / sizeof(float);

		e = side_error(on, got->din, ref->din, floats, SIDE_LEAST);
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

/* One test: a pass over n images of a plan for max_batch gives what the oracle gives, within t. */
__attribute__((unused)) static bool
trains_as_ref(const Subject *on, const DfxGraph *g, int max_batch, int n, TrainTolerance t, const char *what)
{
	DfxErr err = {0};
	TrainPair p;
	bool good;

	t.out = fmax(t.out, on->tolerance);
	t.grad = fmax(t.grad, on->tolerance);
	good = pair_pass(&p, on, g, max_batch, n, &err) && pair_agrees(&p, on, g, n, &t, &err);
	if (!ok(good, "%s, %d of %d images, %s", what, n, max_batch, dfx_precision_name[on->precision]) &&
	    err.code != DFX_OK)
		diag("%s", err.msg);
	pair_close(&p, g);
	return good;
}

#endif /* DFX_TESTS_TRAIN_SUBJECT_H */
