/*
 * train.h
 *	  What the files of training on a GPU share.
 *
 *	train_plan.c	compile: a copy of the graph, what is kept for how long, memory
 *	train_lower.c	every op's steps, forward and backward, and what they share
 *	train_tokens.c	those of transformers
 *	train_product.c	those of convolutions and linear layers
 *	train_choose.c	which of them libraries compute
 *	train_params.c	parameters, their copies for products, Adam
 *	train_run.c		forward, forward_train, backward
 *	kernels_train.h, *_train.cuh, launch_train.cu	the kernels
 *
 * Rules:
 * 1. A value keeps its place from the op that writes it to the last that reads
 *    it, backward included; a gradient from the first contribution (going
 *    backward) to the op that wrote the value.  Concatenations are placement,
 *    as in inference, for gradients too: pieces and whole share their bytes.
 * 2. A gradient's first contribution is written, further ones are added; what
 *    pieces share is cleared first and always added to.
 * 3. Every parameter lives in fp32, in PyTorch's layout, in one array; products
 *    read copies in the plan's type, made anew when the parameters have moved.
 * 4. Nothing depends on timing or on the order of threads: who computes a
 *    product is decided by what is there and right, never by who is faster, and
 *    the same step gives the same bits on the same machine.
 */
#ifndef DFX_CUDA_TRAIN_H
#define DFX_CUDA_TRAIN_H

#include "cuda/internal.h"

/* When a step runs. */
enum
{
	TRAIN_LEARN = 1, /* forward_train, backward */
	TRAIN_INFER = 2, /* forward */
	TRAIN_BOTH = 3
};

typedef enum GpuTrainIo
{
	TRAIN_INSIDE = 0,
	TRAIN_OUT,  /* an output, to floats: which */
	TRAIN_SEED, /* the loss's gradient by an output: which */
	TRAIN_DIN   /* the gradient by the input, to floats */
} GpuTrainIo;

/* One launch, or, with clear, so many bytes an image from there set to zero. */
typedef struct GpuTrainStep
{
	GpuKernel kernel;
	GpuArgs args;
	void *clear;
	size_t clear_bytes;
	int op; /* of the plan's graph */
	unsigned when;
	GpuTrainIo io;
	int which;
	GpuProduct product; /* what libraries need; w NULL: none is asked */
	GpuChoice choice;   /* lib NULL: the kernel; for batches of max_batch only */
} GpuTrainStep;

typedef struct GpuTrainList
{
	GpuTrainStep *step;
	int n, cap;
} GpuTrainList;

struct GpuTrain
{
	GpuType type;
	GpuTrainList forward, backward;
	GpuTrainList weights; /* the copies that products read */
	bool stale;           /* they are older than the parameters */
	int kept;             /* images of a forward_train that backward has not used up; 0: none */

	GpuMem arena; /* values and gradients */
	GpuMem io;    /* images; results, gradients by them */
	GpuMem param; /* states, one after another */
	GpuMem copy;  /* of weights */
	GpuMem stats; /* of norms, from forward to backward */
	GpuMem scratch;
	char *io_out; /* as run.c lays out results */

	float *state[DFX_STATE_COUNT];
	int nparam;
	size_t *param_off, *param_len;
	bool *param_trained;
	size_t trained, floats; /* in all: of trained parameters; of all */

	bool input_f32;
	int norm_rows; /* fewest rows an image that a BatchNorm has; 0: there is none */
	char norm_name[DFX_NAME_LEN];
	uint64_t seed; /* of the last forward_train's masks */
};

/* A compilation under way. */
typedef struct GpuTrainBuild
{
	DfxDev *dev;
	DfxPlan *plan;
	GpuTrain *t;
	GpuType type;
	int max_batch;
	DfxGraph g; /* a copy with ops and values of its own */
	DfxOp *op;
	DfxValue *val;
	bool *dead;       /* ops that others have taken over */
	bool *shared;     /* roots that have pieces */
	bool wants_input; /* its gradient is made, though it may be that of pixels */
	bool *seen;       /* values (roots that are shared) whose gradient has begun */
	size_t *off;      /* of values, by root, then of gradients */
	size_t arena_bytes, scratch_bytes, stats_bytes, copy_bytes;
	bool failed; /* out of memory for steps */
} GpuTrainBuild;

/* ---- train_plan.c ---- */

extern DfxStatus
gpu_train_compile(DfxPlan *plan, const DfxGraph *g, const DfxPlanOpts *opts, GpuType type, DfxErr *err);
extern void gpu_train_free(DfxPlan *plan);
extern size_t gpu_train_bytes(const DfxPlan *plan);

/* Of a value and its gradient: the first element; the rows' distance; rows of an image. */
extern void *gpu_train_at(const GpuTrainBuild *b, DfxVal v);
extern void *gpu_train_grad_at(const GpuTrainBuild *b, DfxVal v);
extern int gpu_train_ld(const GpuTrainBuild *b, DfxVal v);
extern int gpu_train_rows(const GpuTrainBuild *b, DfxVal v);

/* Room that every step may use, of at least this size; steps run one after another. */
extern void *gpu_train_scratch(GpuTrainBuild *b, size_t bytes);
/* Room that nobody else uses: for statistics; for copies of weights. */
extern float *gpu_train_stats(GpuTrainBuild *b, size_t floats);
extern void *gpu_train_copy(GpuTrainBuild *b, size_t elements);

/* One more step, zeroed but for kernel and op; never NULL (b->failed then says so). */
extern GpuTrainStep *gpu_train_step(GpuTrainBuild *b, GpuTrainList *list, GpuKernel kernel, int op);

/* Whether v's gradient is made: not that of pixels that convolutions alone read. */
extern bool gpu_train_wants(const GpuTrainBuild *b, DfxVal v);
/* Before a contribution to v's gradient: whether it is added; clears what must be cleared first. */
extern bool gpu_train_adds(GpuTrainBuild *b, DfxVal v, int op);
/* The same where the contribution leaves elements out. */
extern bool gpu_train_adds_partly(GpuTrainBuild *b, DfxVal v, int op);
/* Before v's gradient is read: if nothing has contributed, it is zero. */
extern void gpu_train_settle(GpuTrainBuild *b, DfxVal v, int op);

/* ---- train_lower.c ---- */

extern void gpu_train_lower(GpuTrainBuild *b);
/* Sums over rows in chunks of how many; fits GpuNormArgs.part to them. */
extern void gpu_train_sum_steps(GpuTrainBuild *b, GpuNormArgs a, GpuKernel part, GpuKernel end,
                                GpuTrainList *list, int op, unsigned when);

/* A step of op i in either direction, for everybody's use below. */
extern GpuTrainStep *gpu_train_forward_step(GpuTrainBuild *b, GpuKernel kernel, int i);
extern GpuTrainStep *gpu_train_backward_step(GpuTrainBuild *b, GpuKernel kernel, int i);
/* Where a state of an op's parameter is; NULL: it has none. */
extern float *gpu_train_op_param(const GpuTrainBuild *b, DfxState what, const DfxOp *op, int which);
/* Forward: channels of op i's output from c0 on are act(x), of c channels. */
extern GpuTrainStep *gpu_train_map(GpuTrainBuild *b, int i, DfxVal x, int c, int c0, DfxAct act);
/* Backward: x's gradient gets that of op i's output, of its channels from c0 on. */
extern GpuTrainStep *gpu_train_pass(GpuTrainBuild *b, int i, DfxVal x, int c0, bool add);
/* A norm's record, with room for mean and inv of its channels at stats. */
extern GpuNormArgs gpu_train_norm(const GpuTrainBuild *b, const DfxOp *op, float *stats);

/* ---- train_tokens.c ---- */

extern void gpu_train_layernorm(GpuTrainBuild *b, int i);
extern void gpu_train_layernorm_back(GpuTrainBuild *b, int i);
extern void gpu_train_tokens(GpuTrainBuild *b, int i);
extern void gpu_train_tokens_back(GpuTrainBuild *b, int i);
extern void gpu_train_take(GpuTrainBuild *b, int i);
extern void gpu_train_take_back(GpuTrainBuild *b, int i);
extern void gpu_train_attn(GpuTrainBuild *b, int i);
extern void gpu_train_attn_back(GpuTrainBuild *b, int i);

/* ---- train_product.c ---- */

extern void gpu_train_product_forward(GpuTrainBuild *b, int op);
extern void gpu_train_product_backward(GpuTrainBuild *b, int op);

/* ---- train_choose.c ---- */

/* Decide who computes each product; DFX_ELOST and the like only. */
extern DfxStatus gpu_train_choose(DfxPlan *plan, DfxErr *err);

/* ---- train_params.c ---- */

/* Where a parameter's numbers of a state are on the device. */
static inline float *
gpu_train_param(const GpuTrain *t, DfxState what, int p)
{
	return t->state[what] + t->param_off[p];
}
extern DfxStatus gpu_train_params_place(GpuTrain *t, const DfxGraph *g, DfxErr *err);
extern size_t gpu_train_params_bytes(const GpuTrain *t);
/* With t->param allocated: addresses, and the numbers of g. */
extern DfxStatus gpu_train_params_set(DfxPlan *plan, const DfxGraph *g, DfxErr *err);

/* ---- train_run.c ---- */

/* The steps of a list that run at such times, for n images; the caller has the turn. */
extern DfxStatus
gpu_train_run_list(DfxPlan *plan, const GpuTrainList *list, unsigned when, int n, uint64_t seed, DfxErr *err);
extern DfxStatus gpu_train_infer(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err);

#endif /* DFX_CUDA_TRAIN_H */
