/*
 * train.h
 *	  What the files of training on the CPU share.
 *
 *	train_plan.c		from a graph to training steps: which values are stored
 *	train_memory.c		how long everything lives, and where
 *	train_source.c		reading values that are not stored, and passing gradients through them
 *	train_conv.c		convolutions and linear layers: the library's primitives
 *	train_conv_run.c	their three passes over a worker's images
 *	train_norm.c		BatchNorm: statistics of the batch, running ones, gradients
 *	train_ops.c			pooling, sums, products, copies
 *	train_tokens.c		transformers
 *	train_params.c		parameters, gradients, moments; Adam
 *	train_run.c			forward, forward_train, backward: steps over the workers
 *	kernels_train.c		the loops; kernels_train_windows.c those over windows of pixels,
 *						kernels_train_tokens.c those of transformers
 *
 * STORED AND VIRTUAL.  A stored value lies in the arena for the whole batch.
 * CONCAT, BN and ACT are virtual: no buffer holds their outputs.  A consumer
 * has a source instead, which says that its input is act((x - mean) * scale + shift)
 * over the channels of some stored pieces, and makes it, an image or a few at
 * a time, in its worker's scratch memory: once in the forward pass and again
 * in the backward pass.  That is what keeps a DenseNet's memory small: every
 * convolution's output is kept once, and nothing else.  Where a chain cannot be
 * one source (a BN of an activation), the value in between is stored.  A ReLU
 * that alone reads a convolution, a linear layer or a sum is applied in place,
 * and the result is what is stored.
 *
 * GRADIENTS.  Each stored value has a gradient of its shape, alive between its
 * last consumer's backward and its own op's.  BatchNorm's gradient by its input
 * has a part that is known only when the sums over the whole batch are:
 *		dx = scale * dy - a - b * (x - mean),   a = scale * sum(dy) / N,
 *		b = scale / (var + eps) * sum(dy * (x - mean)) / N
 * All BNs that read x share its mean and variance, so scale * dy goes into the
 * gradient of x at once, a and b are summed per channel over those BNs, and
 * the op that made x subtracts them when it takes the gradient up
 * (train_finish): no pass over memory for BatchNorm alone.
 *
 * BF16.  Values and their gradients may be stored as bfloat16 (the plan's
 * precision): views say how numbers lie (CpuView.type).  Convolutions and linear
 * layers then multiply bfloat16s and sum in floats; sources and pushes are
 * computed in floats and rounded where they are stored.  All other steps
 * compute an image in floats, in scratch memory (TRAIN_OUT), between two
 * roundings (train_ops.c).  Parameters and their gradients, moments and
 * statistics are floats or doubles; a convolution's weights are rounded when
 * they are brought into the library's layout, once a step.  The gradient of a
 * value that several steps read is rounded after each contribution.
 *
 * THREADS.  A batch is split into one range of images a worker, fixed by its
 * size and the number of workers.  Each step is done by all workers, then
 * there is a barrier; what must be summed over workers (statistics, gradients
 * of parameters) is summed there in the workers' order.  So results repeat bit
 * for bit with the same number of threads.
 */
#ifndef DFX_CPU_TRAIN_H
#define DFX_CPU_TRAIN_H

#include "cpu/internal.h"
#include "cpu/kernels_train.h"

typedef struct CpuTrain CpuTrain;
typedef struct TrainStep TrainStep;
typedef struct TrainConv TrainConv;

/* Sums over the images of one worker, per channel. */
typedef struct TrainMoments
{
	double count;
	double *mean, *m2; /* m2: the sum of squared distances from the mean */
} TrainMoments;

/* A stored value. */
typedef struct TrainValue
{
	bool stored;
	bool wants_grad; /* false for pixels */
	bool relu;       /* the ReLU that reads it was applied in place */
	bool normed;     /* a BN reads it: it has statistics and corrections */
	CpuView view;    /* off: in the arena */
	size_t grad_off;

	/* Of normed ones. */
	TrainMoments *worker;         /* one per worker */
	double *mean, *var;           /* of the batch; the variance biased */
	float *mean_f;                /* mean, as kernels take it */
	float *correct_a, *correct_b; /* of train.h's formula */
} TrainValue;

/* A BN op. */
typedef struct TrainNorm
{
	int c;
	float eps;
	int param[DFX_MAX_PARAM];
	float *scale, *shift; /* of this pass */
	float *mean;          /* its pieces' means, side by side */
	double *sum;          /* per worker: c sums of dy, then c sums of dy * (x - mean) */
} TrainNorm;

/* Where one input of an op comes from. */
typedef struct TrainSource
{
	int npiece;
	DfxVal *piece;   /* stored values, by channels */
	bool *first;     /* of each piece: its gradient's first contribution, which is written, not added */
	TrainNorm *norm; /* NULL: none */
	DfxAct act;
	CpuView view; /* its shape; the layout that it would have if it were stored */
} TrainSource;

/* What a worker is doing. */
typedef struct TrainRun
{
	DfxPlan *plan;
	CpuTrain *t;
	int worker;
	int n, from, to; /* images of the batch; those of this worker */
	bool train;      /* else inference */
	bool want_din;
	uint64_t seed;
	const void *in;
	char *scratch; /* the worker's own */
} TrainRun;

typedef DfxStatus (*TrainFn)(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err);
/* One image; y: the output to write, in backward its gradient to read: floats, laid out as TrainStep.y says.
 */
typedef DfxStatus (*TrainOwn)(const TrainStep *s, const TrainRun *r, int image, float *y, DfxErr *err);
typedef DfxStatus (*TrainSerial)(const TrainStep *s, const TrainRun *r, DfxErr *err);

/*
 * One op.  forward and backward do n images from image on, at most chunk; the
 * others run once, in one thread, after all workers have done theirs.
 */
struct TrainStep
{
	DfxOpKind kind;
	int op; /* index in the graph */
	int nin;
	TrainSource *in;
	DfxVal out; /* the stored value it writes; -1: none (BN) */
	int chunk;
	TrainFn forward, backward;
	TrainOwn own_forward, own_backward; /* what forward and backward of our own steps call */
	CpuView y;                          /* of those: the output, in floats */
	TrainSerial forward_done, backward_done;

	int param[DFX_MAX_PARAM];
	TrainNorm *norm; /* BN */
	TrainConv *conv; /* CONV, LINEAR */
	DfxPool pool;
	DfxInput input;
	float *table; /* INPUT: 3 x 256 pixel values */
	DfxDrop drop;
	float eps;
	int heads, index;
	double *sum; /* gradients of the step's parameters, per worker */
	size_t nsum;
};

/* Regions of a worker's scratch memory, in bytes from its start. */
typedef enum TrainRegion
{
	TRAIN_SRC = 0, /* a chunk of the first input */
	TRAIN_DST,     /* a chunk of the output or of its gradient, in another layout */
	TRAIN_DSRC,    /* a chunk of the gradient by the first input */
	TRAIN_MORE,    /* a second input, and its gradient */
	TRAIN_OUT,     /* an image of the output, or of its gradient, in floats */
	TRAIN_LIB,     /* the library's scratchpad */
	TRAIN_WEIGHTS, /* gradient of the weights: the sum, then a chunk's */
	TRAIN_REGIONS
} TrainRegion;

struct CpuTrain
{
	DfxPlan *plan;
	CpuType type; /* of values and their gradients */
	TrainValue *value;
	int nvalue;
	TrainStep *step;
	int nstep;
	TrainSource out[DFX_MAX_OUT];
	DfxVal input;
	bool input_f32;

	char *arena;
	size_t arena_bytes;
	char **scratch;                   /* one per worker */
	size_t region[TRAIN_REGIONS + 1]; /* offsets; the last is the size of all */

	/* Parameters: the trained ones first, each padded to TRAIN_PAD floats. */
	int nparam;
	size_t *param_off;
	size_t *param_len;
	bool *param_trained;
	size_t trained, floats;
	float *state[DFX_STATE_COUNT];
	bool stale; /* the library's copies of the weights are older than the values */

	DfxVal *dead; /* values whose gradient nothing contributes to */
	int ndead;
	uint64_t seed; /* of the last forward_train */
	int ready;     /* images of the last forward_train; 0: there is nothing to differentiate */
};

#define TRAIN_PAD 16

/* ---- addresses ---- */

static inline void *
train_value(const CpuTrain *t, DfxVal v, int image)
{
	return t->arena + t->value[v].view.off + (size_t) image * cpu_image_bytes(&t->value[v].view);
}

static inline void *
train_grad(const CpuTrain *t, DfxVal v, int image)
{
	return t->arena + t->value[v].grad_off + (size_t) image * cpu_image_bytes(&t->value[v].view);
}

/* Image i of those that lie at images, one after the other. */
static inline void *
train_image(const void *images, const CpuView *v, int i)
{
	return (char *) (uintptr_t) images + (size_t) i * cpu_image_bytes(v);
}

/* A run of an image that begins with channel c. */
static inline CpuStrip
train_strip(const void *image, const CpuView *v, int c)
{
	char *at = (char *) (uintptr_t) image + cpu_channel(v, c) * cpu_size(v->type);

	return (CpuStrip){at, (size_t) v->vec, v->type};
}

static inline void *
train_scratch(const TrainRun *r, TrainRegion region)
{
	return r->scratch + r->t->region[region];
}

static inline float *
train_param(const CpuTrain *t, DfxState what, int param)
{
	return t->state[what] + t->param_off[param];
}

/* A view of the same shape in another layout, images one after the other. */
extern CpuView train_relayout(const CpuView *v, int vec);

/* As callers lay out a value: row-major floats. */
static inline CpuView
train_plain(const CpuView *v)
{
	CpuView plain = train_relayout(v, 1);

	plain.type = CPU_F32;
	return plain;
}

/* ---- a compilation ---- */

typedef struct TrainBuild
{
	DfxDev *dev;
	DfxPlan *plan;
	CpuTrain *t;
	const DfxGraph *g;
	int share;                  /* images of the largest share of a worker */
	size_t need[TRAIN_REGIONS]; /* bytes of each region */
} TrainBuild;

static inline void
train_need(TrainBuild *b, TrainRegion region, size_t bytes)
{
	if (bytes > b->need[region])
		b->need[region] = bytes;
}

/* train_plan.c */
extern DfxStatus cpu_train_build(DfxPlan *plan, const DfxGraph *g, DfxPrecision precision, DfxErr *err);
extern void cpu_train_free(CpuTrain *t, int threads);
extern size_t cpu_train_bytes(const DfxPlan *plan); /* arena and scratch; 0 for inference */
extern int cpu_train_impls(const CpuTrain *t);
extern const char *cpu_train_impl(const CpuTrain *t, int i);

/* train_memory.c */
extern DfxStatus train_memory(TrainBuild *b, DfxErr *err);

/* train_source.c */
extern const void *
train_read(const TrainRun *r, const TrainSource *s, int image, int n, const CpuView *want, void *scratch);
extern void
train_copy(const TrainRun *r, const TrainSource *s, int image, int n, const CpuView *want, void *to);
extern void train_relay(const TrainRun *r, void *to, const CpuView *tv, const void *from, const CpuView *fv);
extern void *train_direct(const TrainRun *r, const TrainSource *s, int image, const CpuView *want);
extern void
train_push(const TrainRun *r, const TrainSource *s, int image, int n, const void *dz, const CpuView *dv);
extern bool train_wanted(const TrainRun *r, const TrainSource *s);
extern void train_relu(const TrainRun *r, DfxVal v, int image, int n);
extern void train_finish(const TrainRun *r, DfxVal v, int image, int n);

/* train_conv.c, train_conv_run.c */
extern DfxStatus train_conv_step(TrainBuild *b, const DfxOp *op, TrainStep *s, DfxErr *err);
extern void train_conv_free(TrainConv *c);
extern DfxStatus train_conv_refresh(TrainConv *c, const TrainRun *r, DfxErr *err);
extern DfxStatus train_conv_forward(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err);
extern DfxStatus train_conv_backward(const TrainStep *s, const TrainRun *r, int image, int n, DfxErr *err);
extern DfxStatus train_conv_done(const TrainStep *s, const TrainRun *r, DfxErr *err);

/* train_norm.c */
extern DfxStatus train_norm_new(TrainBuild *b, const DfxOp *op, TrainNorm **norm, DfxErr *err);
extern DfxStatus train_norm_step(TrainBuild *b, TrainStep *s, DfxErr *err);
extern DfxStatus train_norm_value(TrainBuild *b, TrainValue *v, DfxErr *err);
extern DfxStatus train_norm_check(const CpuTrain *t, int n, DfxErr *err);
extern void train_norm_clear(CpuTrain *t, int threads);
extern void train_moments(const TrainRun *r, DfxVal v, int image, int n);
extern void train_moments_clear(const TrainRun *r, DfxVal v);
extern void train_moments_merge(const TrainRun *r, DfxVal v);

/* train_ops.c, train_tokens.c */
extern DfxStatus train_own_step(TrainBuild *b, const DfxOp *op, TrainStep *s, DfxErr *err);
extern void train_own(TrainBuild *b, TrainStep *s, TrainOwn forward, TrainOwn backward);
extern DfxStatus train_tokens_step(TrainBuild *b, const DfxOp *op, TrainStep *s, DfxErr *err);

/* train_params.c */
extern DfxStatus train_params_new(TrainBuild *b, DfxErr *err);
extern DfxStatus cpu_step(DfxPlan *plan, const DfxAdam *adam, DfxErr *err);
extern DfxStatus cpu_read_params(const DfxPlan *plan, DfxState what, float *const *data, DfxErr *err);
extern DfxStatus cpu_write_params(DfxPlan *plan, DfxState what, const float *const *data, DfxErr *err);

/* train_run.c */
extern DfxStatus cpu_train_forward(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err);
extern DfxStatus
cpu_forward_train(DfxPlan *plan, const void *in, int n, uint64_t seed, float *const *out, DfxErr *err);
extern DfxStatus cpu_backward(DfxPlan *plan, int n, const float *const *dout, float *din, DfxErr *err);

#endif /* DFX_CPU_TRAIN_H */
