/*
 * test_ref_grad.c
 *	  Are the oracle's gradients the slopes of what it computes, op by op?
 *
 * The loss is a random linear function of the outputs, so that its gradient by
 * them is known.  It is differentiated by central differences: two forward
 * passes for each number.  Inputs lie on a lattice whose points, scattered, keep
 * more than a step away from each other and from 0, where max and ReLU
 * have their edges.
 */
#include "tests/ref/ref.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/run_net.h"
#include "tests/unit/tap.h"
#include "tests/unit/train_net.h"

#define IMAGES    2
#define STEP      0x1p-10 /* of the differences */
#define TOLERANCE 1e-3    /* of the largest slope: outputs are floats, and the step is not nothing */
#define DROP_SEED 7

static DfxDev *dev;

/* A training plan and what goes in and out of it. */
typedef struct Subject
{
	DfxGraph *g;
	DfxPlan *plan;
	size_t in_count, out_count; /* of all images */
	float *in, *din, *out, *coef;
} Subject;

static float
lattice(size_t i)
{
	enum
	{
		POINTS = 577, /* prime: i * 229 visits all */
	};

	return (float) (((double) (i * 229 % POINTS) + 0.25) * 4 / POINTS - 2);
}

static bool
subject_open(Subject *s, const struct OpCase *k)
{
	DfxErr err = {0};
	DfxGraph *g = s->g = dfx_graph_new();
	DfxStatus st;

	dfx_output(g, k->build(g, dfx_input_f32(g, k->c, k->h, k->w)), "y");
	st = dfx_graph_finish(g, &err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, OP_WEIGHT_SEED, &err);
	s->plan = st == DFX_OK ? train_compile(&dfx_ref_backend, dev, g, IMAGES, &err) : NULL;
	if (!ok(s->plan != NULL, "%s compiles for training", k->name))
	{
		diag("%s", err.msg);
		return false;
	}
	s->in_count = IMAGES * net_count(g, g->input);
	s->out_count = IMAGES * net_count(g, g->out[0]);
	s->in = malloc(s->in_count * sizeof(float));
	s->din = malloc(s->in_count * sizeof(float));
	s->out = malloc(s->out_count * sizeof(float));
	s->coef = malloc(s->out_count * sizeof(float));
	for (size_t i = 0; i < s->in_count; i++)
		s->in[i] = lattice(i);
	for (size_t i = 0; i < s->out_count; i++)
		s->coef[i] = (float) op_uniform(OP_INPUT_SEED, "loss", i);
	return true;
}

static void
subject_close(Subject *s)
{
	dfx_ref_backend.release(s->plan);
	dfx_graph_free(s->g);
	free(s->in);
	free(s->din);
	free(s->out);
	free(s->coef);
}

/* ---- slopes ---- */

/* The loss of the inputs and parameters as they are; NaN after a failure. */
static double
loss(Subject *s)
{
	float *out[DFX_MAX_OUT] = {s->out};
	double sum = 0;
	DfxErr err;

	if (dfx_ref_backend.forward_train(s->plan, s->in, IMAGES, DROP_SEED, out, &err) != DFX_OK)
		return NAN;
	for (size_t i = 0; i < s->out_count; i++)
		sum += (double) s->coef[i] * (double) s->out[i];
	return sum;
}

/* The loss with parameter p written from data. */
static double
loss_with(Subject *s, int p, float *data)
{
	DfxErr err;

	if (train_write(&dfx_ref_backend, s->plan, s->g, DFX_STATE_VALUE, p, data, &err) != DFX_OK)
		return NAN;
	return loss(s);
}

/*
 * The slopes by n numbers, each moved a step up and down; p: they are
 * parameter p's, -1: the input's.
 */
static void
slopes(Subject *s, int p, float *number, size_t n, float *slope)
{
	for (size_t i = 0; i < n; i++)
	{
		float was = number[i];
		double up, down, width;

		number[i] = was + (float) STEP;
		width = (double) number[i];
		up = p < 0 ? loss(s) : loss_with(s, p, number);
		number[i] = was - (float) STEP;
		width -= (double) number[i];
		down = p < 0 ? loss(s) : loss_with(s, p, number);
		number[i] = was;
		slope[i] = (float) ((up - down) / width);
	}
	if (p >= 0)
		loss_with(s, p, number);
}

static void
check_slopes(Subject *s, const char *name, int p, float *number, size_t n, const float *grad)
{
	float *slope = malloc(n * sizeof(float));
	double error;

	slopes(s, p, number, n, slope);
	error = net_error(grad, slope, n);
	if (!ok(error <= TOLERANCE, "%s: %zu slopes by %s", name, n, p < 0 ? "the input" : s->g->param[p].name))
		diag("%g", error);
	free(slope);
}

static void
check_case(const struct OpCase *k)
{
	Subject s = {0};
	DfxErr err = {0};
	float **grad;

	if (!subject_open(&s, k))
		return;
	grad = train_new_params(s.g);
	if (!ok(isfinite(loss(&s)) &&
	            dfx_ref_backend.backward(s.plan, IMAGES, (const float *[]){s.coef}, s.din, &err) == DFX_OK &&
	            train_read_all(&dfx_ref_backend, s.plan, s.g, DFX_STATE_GRAD, grad, &err) == DFX_OK,
	        "%s: forward and backward", k->name))
		diag("%s", err.msg);
	check_slopes(&s, k->name, -1, s.in, s.in_count, s.din);
	for (int p = 0; p < s.g->nparam; p++)
		if (dfx_param_trained(&s.g->param[p]))
			check_slopes(&s, k->name, p, s.g->param[p].data, dfx_param_count(&s.g->param[p]), grad[p]);
	train_free_params(s.g, grad);
	subject_close(&s);
}

/* ---- cases of training only ---- */

static DfxVal
case_drop_path(DfxGraph *g, DfxVal x)
{
	return dfx_drop_path(g, x, 0.5f);
}

static DfxVal
case_add_self(DfxGraph *g, DfxVal x)
{
	return dfx_add(g, x, x);
}

static DfxVal
case_mul_self(DfxGraph *g, DfxVal x)
{
	return dfx_mul(g, x, x);
}

/* One value, four uses, through ops of different kinds. */
static DfxVal
case_many_uses(DfxGraph *g, DfxVal x)
{
	DfxVal y = dfx_bn(g, case_conv_no_bias(g, x), "norm", 1e-5f);
	DfxVal piece[3] = {y, case_silu(g, y), dfx_mul(g, y, case_sigmoid(g, case_pool_global_avg(g, y)))};

	return dfx_concat(g, piece, 3);
}

static const struct OpCase training_case[] = {
    {"drop_path", 4, 5, 1, case_drop_path},
    {"add_self", 4, 3, 5, case_add_self},
    {"mul_self", 4, 3, 5, case_mul_self},
    {"many_uses", 4, 3, 5, case_many_uses},
};
enum
{
	TRAINING_CASES = sizeof training_case / sizeof training_case[0]
};

int
main(void)
{
	DfxDevOpts opts = {.threads = 1};
	DfxErr err = {0};

	if (!ok(dfx_ref_backend.open(&opts, &dev, &err) == DFX_OK, "the oracle opens"))
		return done_testing();
	for (int i = 0; i < OP_CASES; i++)
		check_case(&op_case[i]);
	for (int i = 0; i < TRAINING_CASES; i++)
		check_case(&training_case[i]);
	dfx_ref_backend.close(dev);
	return done_testing();
}
