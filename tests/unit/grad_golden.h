/*
 * grad_golden.h
 *	  Does a backend train as PyTorch does?  Runs any DfxBackend against
 *	  tests/golden/grads (make_grads.py says what is in it): the gradients of
 *	  single ops, and five steps of whole networks.  Tests run from the top of
 *	  the tree.
 *
 *		GradBackend b = {&dfx_ref_backend, dev};
 *		grad_golden_ops(&b, 3e-7);
 *		grad_golden_net(&b, "tiny_resnet", &(GradTolerance){...});
 *
 * Errors are relative to a vector's largest magnitude, or to its norm
 * (golden_error); where PyTorch's is 0, to the largest magnitude of the section.
 */
#ifndef DFX_TESTS_GRAD_GOLDEN_H
#define DFX_TESTS_GRAD_GOLDEN_H

#include "tests/unit/golden_net.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/run_net.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny_nets.h"
#include "tests/unit/train_net.h"

/* As in make_grads.py. */
enum
{
	GRAD_OP_IMAGES = 2,
	GRAD_NET_IMAGES = 4,       /* of a reduced network */
	GRAD_PUBLISHED_IMAGES = 2, /* of a published one */
	GRAD_HEAD_FEATURES = 16,
	GRAD_CLASSES = 3,
	GRAD_STEPS = 5
};

/* A backend under test, and the device that it opened. */
typedef struct GradBackend
{
	const DfxBackend *be;
	DfxDev *dev;
	DfxPrecision precision; /* 0: fp32 */
} GradBackend;

/*
 * The errors allowed in the sections of a network's file.  PyTorch in float32
 * has at most 5e-5 in grad, 2e-6 in loss and 9e-3 in moved, where Adam takes
 * the sign of a gradient near 0.  In resnet18 rounding decides on which side of
 * 0 some ReLU's input lies: the oracle has 1.2e-3 in grad, 5e-6 in loss, 8e-2
 * in moved.  INFINITY: the section is not compared.
 */
typedef struct GradTolerance
{
	double grad, state, loss, moved;
} GradTolerance;

/* A graph with its golden file, its training plan and what goes in and out of it. */
typedef struct GradRun
{
	const GradBackend *b;
	const char *name;
	FILE *f;
	DfxGraph *g;
	DfxPlan *plan;
	int n;            /* images */
	void *in;         /* of all images, as out and din */
	float *out, *din; /* of the last output */
	float **param;    /* per parameter: what was read last */
	float **start;    /* and what it was at the beginning */
	float loss[GRAD_STEPS];
} GradRun;

/* ---- a run ---- */

static FILE *
grad_file(const char *name)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof path, "tests/golden/grads/%s.txt", name);
	f = fopen(path, "r");
	ok(f && fscanf(f, "#%*[^\n]\n") == 0, "%s can be read", path);
	return f;
}

/* Compile r->g, as built and with weights, for r->n images, without what is random. */
static bool
grad_open(GradRun *r)
{
	DfxErr err = {0};
	DfxGraph *g = r->g;

	for (int i = 0; i < g->nop; i++)
		if (g->op[i].kind == DFX_OP_DROP)
			g->op[i].u.drop.p = 0;
	r->plan = train_compile_in(r->b->precision, r->b->be, r->b->dev, g, r->n, &err);
	r->param = train_new_params(g);
	r->start = train_new_params(g);
	r->din = calloc((size_t) r->n * net_count(g, g->input), sizeof(float));
	r->out = calloc((size_t) r->n * net_count(g, g->out[g->nout - 1]), sizeof(float));
	if (ok(r->plan && r->b->be->read_params(r->plan, DFX_STATE_VALUE, r->start, &err) == DFX_OK,
	       "%s compiles for training", r->name))
		return true;
	diag("%s", err.msg);
	return false;
}

static void
grad_close(GradRun *r)
{
	if (r->plan)
		r->b->be->release(r->plan);
	train_free_params(r->g, r->param);
	train_free_params(r->g, r->start);
	free(r->in);
	free(r->din);
	free(r->out);
}

/* Into r->param: the values of all, or another state of what is trained. */
static DfxStatus
grad_read(GradRun *r, DfxState what, DfxErr *err)
{
	return train_read_all(r->b->be, r->plan, r->g, what, r->param, err);
}

/* Forward, and backward from dout, the gradient by the last output. */
static DfxStatus
grad_backward(GradRun *r, const float *last, float *din, DfxErr *err)
{
	const float *dout[DFX_MAX_OUT] = {NULL};

	dout[r->g->nout - 1] = last;
	return r->b->be->backward(r->plan, r->n, dout, din, err);
}

static DfxStatus
grad_forward(GradRun *r, DfxErr *err)
{
	float *out[DFX_MAX_OUT] = {NULL};

	out[r->g->nout - 1] = r->out;
	return r->b->be->forward_train(r->plan, r->in, r->n, 0, out, err);
}

/* ---- comparing with a file ---- */

/* What the file calls name, and how many numbers it is; NULL if there is no such thing. */
static const float *
grad_find(const GradRun *r, const char *name, size_t *n)
{
	*n = GRAD_STEPS;
	if (strcmp(name, "loss") == 0)
		return r->loss;
	*n = (size_t) r->n * net_count(r->g, r->g->input);
	if (strcmp(name, "input") == 0)
		return r->din;
	for (int p = 0; p < r->g->nparam; p++)
		if (strcmp(r->g->param[p].name, name) == 0)
		{
			*n = dfx_param_count(&r->g->param[p]);
			return r->param[p];
		}
	return NULL;
}

/* Of one vector; where PyTorch's is 0, relative to the largest magnitude of the section. */
static double
grad_error(const GoldenVector *want, const float *got, double largest)
{
	double worst = 0;

	if (want->max > 0)
		return golden_error(want, got);
	for (int i = 0; i < want->n; i++)
		worst = isfinite(got[i]) ? fmax(worst, fabs((double) got[i])) : INFINITY;
	return worst / largest;
}

/* Compare the section that comes next, which must be this one and have so many vectors. */
static void
grad_check(GradRun *r, const char *section, int vectors, double tolerance, const char *what)
{
	static GoldenVector v;
	char got[32] = "", name[128] = "", where[128] = "the section's heading";
	int n = 0, seen = 0;
	double largest = 0, worst = 0;

	if (fscanf(r->f, " section %31s %d %lf", got, &n, &largest) != 3 || strcmp(got, section) != 0)
		n = -1;
	for (; seen < n && golden_read_vector(r->f, name, &v); seen++)
	{
		size_t count;
		const float *mine = grad_find(r, name, &count);
		double error = mine && (size_t) v.n == count ? grad_error(&v, mine, largest) : INFINITY;

		if (error > worst)
		{
			worst = error;
			memcpy(where, name, sizeof where);
		}
	}
	if (isinf(tolerance) && seen == vectors && n == vectors)
		diag("%.1e off in %s: not compared", worst, where);
	else if (!ok(seen == vectors && n == vectors && worst <= tolerance, "%s: PyTorch's %s, %d within %.0e",
	             r->name, what, vectors, tolerance))
		diag("%d seen; %.2g off in %s", seen, worst, where);
	else if (vectors > 0)
		diag("at most %.1e, in %s", worst, where);
}

static int
grad_count_params(const DfxGraph *g, bool trained)
{
	int n = 0;

	for (int p = 0; p < g->nparam; p++)
		n += dfx_param_trained(&g->param[p]) == trained;
	return n;
}

/* make_ops.py's numbers as the input of all images. */
static void *
grad_floats(const DfxGraph *g, int n)
{
	size_t count = (size_t) n * net_count(g, g->input);
	float *in = malloc(count * sizeof(float));

	for (size_t i = 0; i < count; i++)
		in[i] = op_input(i);
	return in;
}

/* ---- single ops ---- */

/* The input's gradient is then in r->din; parameters' gradients, and running statistics, in r->param. */
static DfxStatus
grad_op_step(GradRun *r, DfxErr *err)
{
	size_t n = (size_t) r->n * net_count(r->g, r->g->out[0]);
	float *dout = malloc(n * sizeof(float));
	DfxStatus st = grad_forward(r, err);

	for (size_t i = 0; i < n; i++)
		dout[i] = (float) op_uniform(OP_INPUT_SEED, "loss", i);
	if (st == DFX_OK)
		st = grad_backward(r, dout, r->din, err);
	if (st == DFX_OK)
		st = grad_read(r, DFX_STATE_VALUE, err);
	if (st == DFX_OK)
		st = grad_read(r, DFX_STATE_GRAD, err);
	free(dout);
	return st;
}

static void
grad_golden_op(FILE *f, const GradBackend *b, const struct OpCase *k, double tolerance)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	GradRun r = {.b = b, .name = k->name, .f = f, .g = g, .n = GRAD_OP_IMAGES};
	DfxStatus st;

	dfx_output(g, k->build(g, dfx_input_f32(g, k->c, k->h, k->w)), "y");
	st = dfx_graph_finish(g, &err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, OP_WEIGHT_SEED, &err);
	if (ok(st == DFX_OK, "%s is built", k->name))
	{
		r.in = grad_floats(g, r.n);
		if (grad_open(&r) && !ok(grad_op_step(&r, &err) == DFX_OK, "%s: forward and backward", k->name))
			diag("%s", err.msg);
		grad_check(&r, k->name, 1 + g->nparam, tolerance, "gradients");
		grad_close(&r);
	}
	dfx_graph_free(g);
}

/* Every case of op_cases.h: the gradients by the input and by every parameter, and running statistics. */
__attribute__((unused)) static void
grad_golden_ops(const GradBackend *b, double tolerance)
{
	FILE *f = grad_file("ops");
	char rest[2];

	if (!f)
		return;
	for (int i = 0; i < OP_CASES; i++)
		grad_golden_op(f, b, &op_case[i], tolerance);
	ok(fscanf(f, "%1s", rest) == EOF, "the file has no case more");
	fclose(f);
}

/* ---- whole networks ---- */

/*
 * Weighted cross entropy of n rows of logits, row k of class k mod 3, reduced
 * as PyTorch's CrossEntropyLoss(weight, reduction="mean") does; and its gradient.
 */
static double
grad_loss(const float *logits, int n, float *dlogits)
{
	static const double weight[GRAD_CLASSES] = {0.2, 0.3, 0.5};
	double loss = 0, total = 0;

	for (int k = 0; k < n; k++)
		total += weight[k % GRAD_CLASSES];
	for (int k = 0; k < n; k++)
	{
		const float *z = logits + k * GRAD_CLASSES;
		int y = k % GRAD_CLASSES;
		double share = weight[y] / total, sum = 0;

		for (int c = 0; c < GRAD_CLASSES; c++)
			sum += exp((double) z[c] - (double) z[y]);
		loss += share * log(sum);
		for (int c = 0; c < GRAD_CLASSES; c++)
			dlogits[k * GRAD_CLASSES + c] =
			    (float) (share * (exp((double) z[c] - (double) z[y]) / sum - (c == y)));
	}
	return loss;
}

/* The graph of a file: the head, a reduced network, or a published one, with the file's weights. */
static DfxStatus
grad_build(DfxGraph *g, const char *name, FILE *f, DfxErr *err)
{
	const DfxBackbone *b = dfx_backbone_find(name);
	DfxStatus st;
	uint64_t seed;

	if (!f || fscanf(f, " seed %" SCNu64, &seed) != 1)
		return dfx_fail(err, DFX_EIO, "the golden file names no seed");
	for (int i = 0; i < TINY_NETS; i++)
		if (strcmp(tiny_nets[i].name, name) == 0)
			b = &tiny_nets[i];
	if (strcmp(name, "head") == 0)
		st = dfx_build_head(g, GRAD_HEAD_FEATURES, 1, err);
	else
		st = b ? dfx_build_backbone(g, b, GRAD_CLASSES, err)
		       : dfx_fail(err, DFX_EINVAL, "no network \"%s\"", name);
	return st == DFX_OK ? dfx_weights_random(g, seed, err) : st;
}

/* Of pattern k, image k of the batch, the pixels at every so-manieth place. */
static void *
grad_pixels(const DfxGraph *g, int n)
{
	size_t count = net_count(g, g->input), side = (size_t) g->val[g->input].h, every = GOLDEN_SIDE / side;
	uint8_t *pattern = malloc(GOLDEN_PIXELS), *in = malloc((size_t) n * count);

	for (int k = 0; k < n; k++)
	{
		golden_pattern(k, pattern);
		for (size_t i = 0; i < count; i++)
		{
			size_t y = i / 3 / side * every, x = i / 3 % side * every;

			in[(size_t) k * count + i] = pattern[(y * GOLDEN_SIDE + x) * 3 + i % 3];
		}
	}
	free(pattern);
	return in;
}

static DfxStatus
grad_net_pass(GradRun *r, int step, DfxErr *err)
{
	float dlogits[GRAD_NET_IMAGES * GRAD_CLASSES];
	DfxStatus st = grad_forward(r, err);

	if (st != DFX_OK)
		return st;
	r->loss[step] = (float) grad_loss(r->out, r->n, dlogits);
	return grad_backward(r, dlogits, NULL, err);
}

/* The first step's gradients and statistics, then all steps' losses and what they come to. */
static DfxStatus
grad_net_run(GradRun *r, const GradTolerance *tol, DfxErr *err)
{
	DfxAdam adam = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 1e-3};
	DfxStatus st = grad_net_pass(r, 0, err);

	if (st == DFX_OK && (st = grad_read(r, DFX_STATE_GRAD, err)) == DFX_OK)
		grad_check(r, "grad", grad_count_params(r->g, true), tol->grad, "gradients");
	if (st == DFX_OK && (st = grad_read(r, DFX_STATE_VALUE, err)) == DFX_OK)
		grad_check(r, "state", grad_count_params(r->g, false), tol->state, "running statistics");
	for (int i = 0; i < GRAD_STEPS && st == DFX_OK; i++)
	{
		adam.step = (uint64_t) i + 1;
		st = i == 0 ? DFX_OK : grad_net_pass(r, i, err);
		if (st == DFX_OK)
			st = r->b->be->step(r->plan, &adam, err);
	}
	if (st == DFX_OK)
		st = grad_read(r, DFX_STATE_VALUE, err);
	for (int p = 0; p < r->g->nparam; p++)
		for (size_t k = 0; k < dfx_param_count(&r->g->param[p]); k++)
			r->param[p][k] -= r->start[p][k];
	if (st != DFX_OK)
		return st;
	grad_check(r, "loss", 1, tol->loss, "losses of five steps");
	grad_check(r, "moved", r->g->nparam, tol->moved, "movements in five steps");
	return DFX_OK;
}

/* A network of tests/golden/grads by its file's name: "tiny_resnet", "head", "resnet18". */
__attribute__((unused)) static void
grad_golden_net(const GradBackend *b, const char *name, const GradTolerance *tol)
{
	DfxErr err = {0};
	GradRun r = {.b = b, .name = name, .f = grad_file(name), .g = dfx_graph_new()};
	bool built = grad_build(r.g, name, r.f, &err) == DFX_OK;

	if (!ok(built, "%s is built", name))
		diag("%s", err.msg);
	if (built)
	{
		r.n = dfx_backbone_find(name) ? GRAD_PUBLISHED_IMAGES : GRAD_NET_IMAGES;
		r.in = strcmp(name, "head") == 0 ? grad_floats(r.g, r.n) : grad_pixels(r.g, r.n);
		if (grad_open(&r) && !ok(grad_net_run(&r, tol, &err) == DFX_OK, "%s: %d steps", name, GRAD_STEPS))
			diag("%s", err.msg);
		grad_close(&r);
	}
	if (r.f)
		fclose(r.f);
	dfx_graph_free(r.g);
}

#endif /* DFX_TESTS_GRAD_GOLDEN_H */
