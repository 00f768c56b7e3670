/*
 * train_against_ref.h
 *	  Train one graph on the CPU backend and on the oracle, and compare: outputs,
 *	  every parameter's gradient, the input's, running statistics, and the
 *	  parameters after some steps.
 *
 * A gradient's difference is measured relative to its own largest magnitude,
 * but no less than a thousandth of the largest of all: gradients that are zero
 * by construction (a bias before a BatchNorm) consist of rounding only.
 *
 * In bf16 magnitudes are root mean squares instead: where a ReLU's input or two
 * candidates of a maximum are nearer to each other than rounding, single numbers
 * go another way as a whole.  Inputs and gradients that come from outside are
 * bfloat16s then on both sides, so that such things do not happen at once.
 */
#ifndef DFX_TESTS_TRAIN_AGAINST_REF_H
#define DFX_TESTS_TRAIN_AGAINST_REF_H

#include "cpu/cpu.h"
#include "tests/backend/against_ref.h"
#include "tests/unit/train_net.h"

/* One backend's side of the comparison. */
typedef struct TrainSide
{
	const DfxBackend *be;
	DfxPrecision precision; /* 0: fp32 */
	DfxPrecision inputs;    /* what the loss's gradients are rounded to */
	DfxPlan *plan;
	float *out[DFX_MAX_OUT];
	float *din;
	float **param; /* of the state last read */
} TrainSide;

static bool
side_open(TrainSide *s, const DfxBackend *be, DfxDev *dev, const DfxGraph *g, int max_batch, DfxErr *err)
{
	bool rgb8;
	size_t in = graph_input_bytes(g, &rgb8);

	*s = (TrainSide){.be = be, .precision = s->precision, .inputs = s->inputs, .param = train_new_params(g)};
	for (int i = 0; i < g->nout; i++)
		s->out[i] = calloc((size_t) max_batch * graph_output_floats(g, i), sizeof(float));
	if (!rgb8)
		s->din = calloc((size_t) max_batch, in);
	s->plan = train_compile_in(s->precision, be, dev, g, max_batch, err);
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

/* How far got is from want, relative to want's magnitude or to floor, as the header says. */
static double
train_difference(const float *got, const float *want, size_t n, double floor, DfxPrecision precision)
{
	double max = floor, diff = 0, square = 0, squares = 0;

	for (size_t i = 0; i < n; i++)
	{
		double w = (double) want[i], d = fabs((double) got[i] - w);

		if (!(d < INFINITY))
			return INFINITY;
		max = fmax(max, fabs(w));
		diff = fmax(diff, d);
		square += d * d;
		squares += w * w;
	}
	if (precision == DFX_PRECISION_BF16)
		return sqrt(square / fmax(squares, floor * floor * (double) n));
	return diff / max;
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

/* The worst difference between the two sides' parameters; the name goes to *who. */
static double
sides_differ(const TrainSide *a, const TrainSide *b, const DfxGraph *g, bool trained, const char **who)
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
		e = train_difference(a->param[i], b->param[i], dfx_param_count(&g->param[i]), top * 1e-3 + 1e-30,
		                     a->precision);
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

typedef struct TrainTolerance
{
	double out, grad;
	double half;            /* of both, in bf16 */
	DfxPrecision precision; /* of the CPU; 0: fp32 */
	bool whole;             /* all parameters' gradients as one vector */
} TrainTolerance;

/* Whether the CPU trains in a precision at all; what it says if it does not is in the log of the test. */
__attribute__((unused)) static bool
trains_in(DfxDev *dev, DfxPrecision precision)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;

	dfx_output(g, dfx_linear(g, dfx_input_f32(g, 16, 1, 1), "fc", 16), "y");
	if (dfx_graph_finish(g, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK)
		plan = train_compile_in(precision, &dfx_cpu_backend, dev, g, 1, &err);
	if (plan)
		dfx_cpu_backend.release(plan);
	else if (err.code == DFX_EUNSUPPORTED && strstr(err.msg, "this CPU"))
		diag("skipped: %s", err.msg);
	else
		ok(false, "%s", err.msg);
	dfx_graph_free(g);
	return plan != NULL;
}

/* The outcome of one pass on both sides against the tolerances; what differs goes to diag. */
static bool
sides_agree(TrainSide *cpu, TrainSide *ref, const DfxGraph *g, int n, const TrainTolerance *t, DfxErr *err)
{
	const char *who = "?";
	bool rgb8, good = true;
	double e;

	for (int i = 0; i < g->nout; i++)
		if ((e = train_difference(cpu->out[i], ref->out[i], (size_t) n * graph_output_floats(g, i), 1e-30,
		                          t->precision)) > t->out)
		{
			diag("output %s: %g, allowed %g", g->out_name[i], e, t->out);
			good = false;
		}
	if (side_read(cpu, g, DFX_STATE_GRAD, err) != DFX_OK || side_read(ref, g, DFX_STATE_GRAD, err) != DFX_OK)
		return false;
	e = t->whole ? sides_differ_whole(cpu, ref, g) : sides_differ(cpu, ref, g, true, &who);
	if (e > t->grad)
	{
		diag("gradient of %s: %g, allowed %g", who, e, t->grad);
		good = false;
	}
	if (cpu->din)
	{
		e = train_difference(cpu->din, ref->din, (size_t) n * graph_input_bytes(g, &rgb8) / sizeof(float),
		                     1e-30, t->precision);
		if (e > t->grad)
		{
			diag("gradient of the input: %g, allowed %g", e, t->grad);
			good = false;
		}
	}
	if (side_read(cpu, g, DFX_STATE_VALUE, err) != DFX_OK ||
	    side_read(ref, g, DFX_STATE_VALUE, err) != DFX_OK)
		return false;
	if ((e = sides_differ(cpu, ref, g, false, &who)) > t->out)
	{
		diag("running statistics %s: %g, allowed %g", who, e, t->out);
		good = false;
	}
	return good;
}

/* One test: a pass over n images of a plan for max_batch gives what the oracle gives. */
__attribute__((unused)) static bool
trains_as_ref(DfxDev *dev, const DfxGraph *g, int max_batch, int n, TrainTolerance t, const char *what)
{
	DfxDevOpts opts = {.threads = 1};
	DfxDev *ref_dev = NULL;
	DfxErr err = {0};
	TrainSide cpu = {.precision = t.precision, .inputs = t.precision}, ref = {.inputs = t.precision};
	void *in = noise_images(g, max_batch, 5u + (uint32_t) n);
	bool rgb8;
	size_t bytes = graph_input_bytes(g, &rgb8) * (size_t) max_batch;
	bool good = dfx_ref_backend.open(&opts, &ref_dev, &err) == DFX_OK;

	if (!rgb8)
		train_round(in, bytes / sizeof(float), t.precision);
	good = side_open(&ref, &dfx_ref_backend, ref_dev, g, max_batch, &err) && good;
	good = side_open(&cpu, &dfx_cpu_backend, dev, g, max_batch, &err) && good;
	good = good && side_pass(&ref, g, in, n, 7, &err) == DFX_OK;
	good = good && side_pass(&cpu, g, in, n, 7, &err) == DFX_OK;
	good = good && sides_agree(&cpu, &ref, g, n, &t, &err);
	if (!ok(good, "%s, %d of %d images", what, n, max_batch) && err.code != DFX_OK)
		diag("%s", err.msg);
	side_close(&cpu, g);
	side_close(&ref, g);
	free(in);
	dfx_ref_backend.close(ref_dev);
	return good;
}

#endif /* DFX_TESTS_TRAIN_AGAINST_REF_H */
