/*
 * ref_priv.h
 *	  What the oracle's files share: a plan, and one op's view of a graph.
 */
#ifndef DFX_TESTS_REF_PRIV_H
#define DFX_TESTS_REF_PRIV_H

#include "tests/ref/ref.h"

struct DfxDev
{
	DfxDevOpts opts;
};

struct DfxPlan
{
	DfxDev *dev;
	DfxGraph g;   /* a copy without builder state; in lists point into list */
	DfxVal *list; /* all in lists */
	float **data; /* per value: of one image */
	int max_batch;
	size_t bytes;
	float *step; /* of a plan on 8-bit integers, per value: dfx_graph_steps(); NULL in others */

	/* Training plans only; NULL and 0 in others. */
	bool train;
	int kept;        /* images of the last forward_train; 0: there is nothing to go back from */
	uint64_t seed;   /* of its masks */
	float **batch;   /* per value: of every image, one after another */
	double **dbatch; /* per value: the loss's gradient by it, laid out alike */
	float **at;      /* per value: where the image at hand lies in batch, and in dbatch */
	double **dat;
	double **dparam;                /* per parameter: its gradient, being summed */
	float **state[DFX_STATE_COUNT]; /* per parameter; but for VALUE, NULL where nothing is trained */
};

/* One op's view of the graph, for one image. */
typedef struct RefOp
{
	const DfxGraph *g;
	const DfxOp *op;
	float *const *data;
	const void *input;
	const DfxValue *x; /* shape of the first input, NULL if none */
	const DfxValue *y; /* shape of the output */
	const float *in;   /* data of the first input */
	float *out;
} RefOp;

static inline const float *
ref_param(const RefOp *r, int which)
{
	int p = r->op->param[which];

	return p >= 0 ? r->g->param[p].data : NULL;
}

static inline size_t
ref_count(const DfxValue *v)
{
	return (size_t) v->c * (size_t) v->h * (size_t) v->w;
}

/* Positions of a channel. */
static inline int
ref_plane(const DfxValue *v)
{
	return v->h * v->w;
}

/* ---- ref_backend.c ---- */

/* malloc of n elements of size bytes, counted in p->bytes, with a copy of from unless NULL; NULL: out of
 * memory. */
extern void *ref_copy(DfxPlan *p, const void *from, size_t n, size_t size);

/* Bytes of one image as the caller feeds it. */
extern size_t ref_input_bytes(const DfxGraph *g);

/* ---- ref_ops.c ---- */

/* data[v]: the buffer of value v for one image; input: the caller's image. */
extern RefOp ref_view(const DfxGraph *g, const DfxOp *op, float *const *data, const void *input);

/* Run an op as in inference, without its epilogue. */
extern void ref_run(const DfxGraph *g, const DfxOp *op, float *const *data, const void *input);

/* The epilogue: out = scale * act(out + add) + shift. */
extern void ref_epilogue(const DfxGraph *g, const DfxOp *op, float *const *data);

/* q . k / sqrt(width) of query token t and key token s in the head of width channels that starts at channel
 * c. */
extern double ref_score(const RefOp *r, int c, int width, int t, int s);

/* ---- ref_quant.c ---- */

/* Find the steps of a plan with its graph.  False: out of memory. */
extern bool ref_quant_alloc(DfxPlan *p);

/* A convolution whose input is in steps, without its epilogue. */
extern void ref_quant_conv(const RefOp *r, float step);

/* Round one image's value to steps. */
extern void ref_quant_round(const DfxValue *v, float *data, float step);

/* ---- ref_grad.c ---- */

/*
 * Numbers that are normalised together, by their own mean and variance: rows x
 * cols of a buffer, at x[r * row + c * col], with weight w[c * wcol].  BatchNorm: a
 * channel's positions in all images.  LayerNorm: a position's channels.
 */
typedef struct RefNorm
{
	int rows, cols;
	size_t row, col, wcol;
	double eps;
	const float *x, *w;
} RefNorm;

/* Their mean, and their variance with divisor rows * cols. */
extern void ref_moments(const RefNorm *n, double *mean, double *var);

/* Add to dx, dw and db what the gradient dy of their normalised selves gives; laid out as x and w. */
extern void ref_norm_grad(const RefNorm *n, const double *dy, double *dx, double *dw, double *db);

/*
 * Add what the gradient of op's output gives to those of its inputs, grad[v],
 * and of its parameters, dparam[p]; for one image.  Not for what needs
 * to know the batch, BN and DROP, nor for what no training graph holds, AFFINE.
 */
extern void
ref_grad(const DfxGraph *g, const DfxOp *op, float *const *data, double *const *grad, double *const *dparam);

/* ---- ref_train.c: the training half of the backend table ---- */

/* Make room for training in a plan with its graph; what is there is freed by ref_train_free in any case. */
extern bool ref_train_alloc(DfxPlan *p);
extern void ref_train_free(DfxPlan *p);

extern DfxStatus
ref_forward_train(DfxPlan *p, const void *in, int n, uint64_t seed, float *const *out, DfxErr *err);
extern DfxStatus ref_backward(DfxPlan *p, int n, const float *const *dout, float *din, DfxErr *err);
extern DfxStatus ref_step(DfxPlan *p, const DfxAdam *adam, DfxErr *err);
extern DfxStatus ref_read_params(const DfxPlan *p, DfxState what, float *const *data, DfxErr *err);
extern DfxStatus ref_write_params(DfxPlan *p, DfxState what, const float *const *data, DfxErr *err);

#endif /* DFX_TESTS_REF_PRIV_H */
