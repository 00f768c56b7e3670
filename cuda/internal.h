/*
 * internal.h
 *	  What the C files of cuda/ share.
 *
 *	backend.c	opening a GPU, the backend table
 *	device.c	turns, lanes, memory, what the device is
 *	rt.h		what a device does; rt_cuda.c does it by the CUDA runtime
 *	load.c		libcuda, cuDNN and cuBLASLt, found at run time
 *	lower.c		from a graph to steps; product.c for convolutions and linear layers
 *	branch.c	three branches as one
 *	describe.c	steps as text
 *	weights.c	parameters in the layouts and the type that steps want
 *	plan.c		compile, release: memory, buckets, graphs
 *	choose.c	which implementation runs a product: tried, compared, timed
 *	trial.c		one implementation beside another
 *	lt.c, dnn.c	products by cuBLASLt and cuDNN; dnn.h lists the files of the latter
 *	cache.c		choices kept on disk; mark.c for what is being tried
 *	run.c		forward
 *	train.h		lists the files of training
 *	*.cu, *.cuh	kernels
 */
#ifndef DFX_CUDA_INTERNAL_H
#define DFX_CUDA_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "cuda/lib.h"
#include "cuda/rt.h"
#include "nn/backend.h"

#define GPU_BUCKETS   8 /* batches of 1, 2, 4 ... 128 */
#define GPU_PROGRAMS  2 /* the plan's precision; bf16 for batches that fp16 could not hold */
#define GPU_ALIGN     256
#define GPU_BAD_BYTES 64 /* in front of a lane's results: whether one was not finite */

/* A block of device memory that counts against the budget. */
typedef struct GpuMem
{
	char *p;
	size_t bytes;
} GpuMem;

typedef struct GpuCache GpuCache;

/*
 * A device has one stream, and whoever puts work on it holds turn.  Threads
 * are served in the order in which they came, so that a long compilation,
 * which gives way between its pieces (gpu_give_way), delays batches by a piece.
 * Nobody holds it who only waits for a batch.
 */
typedef struct GpuTurn
{
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t next, serving;
} GpuTurn;

/*
 * A batch in flight has a lane to itself: of the device (rt.h), and with it the
 * buffers and graphs of that number of its plan.  Who waits for a lane has
 * neither another one nor the turn, so nobody waits for ever.
 */
typedef struct GpuLanes
{
	pthread_mutex_t lock;
	pthread_cond_t freed;
	bool taken[GPU_LANES];
	int waiting;
} GpuLanes;

/* Memory of the caller's that is page-locked. */
#define GPU_LOCKS 16
typedef struct GpuLocks
{
	pthread_mutex_t lock;
	int n;
	struct
	{
		const char *p;
		size_t bytes;
	} at[GPU_LOCKS];
} GpuLocks;

struct DfxDev
{
	GpuRt *rt;
	GpuLib *lib[GPU_LIBS]; /* NULL: there is none (tests) */
	GpuLanes lanes;
	GpuLocks locks;
	_Atomic uint64_t busy_ns; /* that batches have computed */
	_Atomic uint64_t *progress;

	GpuTurn turn;         /* guards all below, and rt but for its wait */
	uint64_t limit, used; /* bytes of device memory: allowed, taken */
	GpuMem work;          /* room for libraries, GPU_WORK_BYTES; none without them */
	GpuCache *cache;
	char name[96];
};

/* One launch.  Where in points to differs from lane to lane, see gpu_step_run. */
typedef struct GpuStep
{
	GpuKernel kernel;
	int count; /* of the branches whose ops go together (branch.c) */
	GpuArgs args[GPU_BRANCHES];
	int op;     /* the first's, in the order of the lowered graph; outputs count on past the ops */
	int output; /* GPU_OUTPUT: which */

	/* Products only: what a library needs besides args, and who computes it for each bucket (choose.c). */
	GpuProduct product[GPU_BRANCHES];
	GpuChoice choice[GPU_BUCKETS];
} GpuStep;

/* A graph lowered for one type. */
typedef struct GpuProgram
{
	GpuType type;
	GpuStep *step;
	int nstep, cap;
	GpuMem weights;
} GpuProgram;

typedef struct GpuTrain GpuTrain;

/* Who has the device's lane has this of its plan. */
typedef struct GpuLane
{
	GpuMem in, out;
	void *in_host; /* for images from memory that is not page-locked; NULL until the first of them */
	void *out_host;
	void *graph[GPU_BUCKETS];
	int first, n, bucket; /* of the batch in flight */
} GpuLane;

struct DfxPlan
{
	DfxDev *dev;
	int max_batch;
	int nbucket;        /* bucket b takes 1 << b images */
	size_t image_bytes; /* of one input image */
	GpuMem arena;
	GpuProgram program[GPU_PROGRAMS];
	int nprogram;
	GpuLane lane[GPU_LANES];
	size_t out_floats[DFX_MAX_OUT]; /* of one image */
	int nout;
	uint64_t redone; /* batches; by who has the turn */

	GpuTrain *train; /* of a plan for training, which has none of the above but sizes; NULL in others */
};

/*
 * A compilation under way.  g is a shallow copy whose ops are its own: an
 * AFFINE that lower.c works into the product behind it is dead there.
 */
typedef struct GpuBuild
{
	DfxDev *dev;
	DfxGraph g;
	DfxOp *op;     /* of g */
	int grouped;   /* ops 1 .. 3 x grouped are the branches', in threes */
	int *pre;      /* of each op: the AFFINE that is its prologue, -1: none */
	bool *dead;    /* ops */
	bool *unused;  /* values that are never written */
	int *ld;       /* of each root value: channels from one row to the next */
	int max_batch; /* of the largest bucket */
	GpuType type;
	DfxMemPlan mem;
	char *arena; /* NULL while only measuring */

	GpuProgram *program;
	char *host;    /* the weights as they will lie on the device; NULL while only measuring */
	char *weights; /* their place on the device */
	size_t used;   /* bytes of them so far */
	bool overflow; /* a weight does not fit the type */
} GpuBuild;

/* device.c */
extern DfxStatus
gpu_alloc(DfxDev *dev, size_t bytes, GpuMem *mem, DfxErr *err); /* DFX_ENOMEM: also the budget */
extern void gpu_free(DfxDev *dev, GpuMem *mem);
extern void gpu_progress(const DfxDev *dev);
extern void gpu_turn_take(DfxDev *dev);
extern void gpu_turn_end(DfxDev *dev);
extern void gpu_give_way(DfxDev *dev);    /* let those who wait have their turn; a sign of life, too */
extern int gpu_lane_take(DfxDev *dev);    /* not with the turn, nor with another lane */
extern int gpu_lane_try(DfxDev *dev);     /* -1: none is free, or others wait for it */
extern bool gpu_lane_wanted(DfxDev *dev); /* others wait for one */
extern void gpu_lane_end(DfxDev *dev, int lane);
/* Page-lock memory of the caller's, from where forward then sends images up (nn/backend.h). */
extern DfxStatus gpu_lock(DfxDev *dev, void *p, size_t bytes, DfxErr *err);
extern void gpu_unlock(DfxDev *dev, void *p);
extern bool gpu_is_locked(DfxDev *dev, const void *p, size_t bytes);
/* A device on rt, which it takes over, with lib, which may hold NULLs; cache_dir as in gpu_cache_open. */
extern DfxStatus gpu_device_new(GpuRt *rt, GpuLib *const lib[GPU_LIBS], const DfxDevOpts *opts,
                                const char *cache_dir, DfxDev **dev, DfxErr *err);
extern bool gpu_supports(void *dev, const DfxGraph *g, const DfxOp *op);
extern void gpu_info(const DfxDev *dev, DfxDevInfo *info);
extern void gpu_close(DfxDev *dev);

/* backend.c */
extern const DfxBackend dfx_backend;

/* lower.c */
extern DfxStatus gpu_build_open(GpuBuild *b, DfxDev *dev, const DfxGraph *g, GpuType type, DfxErr *err);
extern void gpu_build_close(GpuBuild *b);
extern DfxStatus gpu_build_memory(GpuBuild *b, int max_batch, DfxErr *err);
extern DfxStatus gpu_lower(GpuBuild *b, GpuProgram *program, DfxErr *err);
extern size_t gpu_type_size(GpuType type);

/* Of the value: its first element, its rows' distance, its rows in an image; for product.c */
extern void *gpu_lower_at(const GpuBuild *b, DfxVal v);
extern int gpu_lower_stride(const GpuBuild *b, DfxVal v);
extern int gpu_lower_rows(const GpuBuild *b, DfxVal v);
/* Room for a step of op i; NULL: out of memory. */
extern GpuStep *gpu_lower_step(GpuBuild *b, GpuKernel kernel, int i);
extern const float *gpu_lower_param(GpuBuild *b, int param);

/* A POOL's, and a CONV's or LINEAR's, arguments but for operands, strides and weights: for inference and
 * training. */
extern GpuPoolArgs gpu_pool_shape(const DfxOp *op, const DfxValue *x, const DfxValue *y);
extern GpuConvArgs gpu_conv_shape(const DfxOp *op, const DfxValue *x, const DfxValue *y);

/* branch.c */
extern DfxStatus gpu_branch_order(GpuBuild *b, DfxErr *err);
extern DfxStatus
gpu_branch_memory(GpuBuild *b, size_t (*size)(void *arg, const DfxGraph *g, DfxVal v), DfxErr *err);
extern void gpu_branch_merge(const GpuBuild *b, GpuProgram *p);

/* product.c */
extern bool gpu_lower_product(GpuBuild *b, int i);

/* describe.c: one line about a step, all that tells it from others but its numbers; for keys, logs, tests */
#define GPU_DESCRIBE 256 /* more than any of them is long */
extern void gpu_step_describe(const GpuStep *s, char *buf, size_t size);
extern const char *const gpu_kernel_name[GPU_KERNEL_COUNT];

/* weights.c: each puts numbers after the last ones and returns where they will be on the device */
extern const float *gpu_weight_floats(GpuBuild *b, const float *v, size_t n);
extern const void *gpu_weight_typed(GpuBuild *b, const float *v, size_t n); /* v NULL: zeros */
/* [co][ci][kh][kw] to [co][kh][kw][ci padded with zeros to ci_to]. */
extern const void *gpu_weight_filters(GpuBuild *b, const float *v, int co, int ci, int kh, int kw, int ci_to);
/* [co][ci][kh][kw] to [kh][kw][ci][co]. */
extern const void *gpu_weight_taps(GpuBuild *b, const float *v, int co, int ci, int kh, int kw);
/* Scale and shift of an AFFINE or BN: 2 x c floats. */
extern const float *gpu_weight_affine(GpuBuild *b, const DfxOp *op, int c);

/* plan.c */
extern DfxStatus
gpu_compile(DfxDev *dev, const DfxGraph *g, const DfxPlanOpts *opts, DfxPlan **plan, DfxErr *err);
extern void gpu_release(DfxPlan *plan);
extern size_t gpu_bytes(const DfxPlan *plan);

/* train_run.c, train_params.c */
extern DfxStatus
gpu_forward_train(DfxPlan *plan, const void *in, int n, uint64_t seed, float *const *out, DfxErr *err);
extern DfxStatus gpu_backward(DfxPlan *plan, int n, const float *const *dout, float *din, DfxErr *err);
extern DfxStatus gpu_step(DfxPlan *plan, const DfxAdam *adam, DfxErr *err);
extern DfxStatus gpu_read_params(const DfxPlan *plan, DfxState what, float *const *data, DfxErr *err);
extern DfxStatus gpu_write_params(DfxPlan *plan, DfxState what, const float *const *data, DfxErr *err);

/* run.c */
extern DfxStatus gpu_forward(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err);
/* Put one step, or a whole program, for bucket on the stream, with a lane's buffers. */
extern DfxStatus
gpu_step_run(DfxPlan *p, const GpuProgram *g, const GpuStep *s, int bucket, int lane, DfxErr *err);
extern DfxStatus gpu_program_run(DfxPlan *p, const GpuProgram *g, int bucket, int lane, DfxErr *err);
/* The bucket that the next of `left` images go to. */
extern int gpu_bucket(int nbucket, int left);
/* Where output i begins among the results of n images. */
extern size_t gpu_out_offset(const DfxPlan *p, int i, int n);

/*
 * choose.c: decide who computes the products of a program, for every bucket.
 * Only DFX_ELOST and the like are errors: what cannot be tried runs on its own kernel.
 */
extern DfxStatus gpu_choose(DfxPlan *p, GpuProgram *g, DfxErr *err);

/* A choice that an earlier process kept, made again, and what is to be kept of it; false: it cannot be. */
extern bool gpu_choose_recall(DfxDev *dev, GpuType type, const GpuStep *s, int n, const char *key,
                              GpuChoice *choice, char **keep);

/* trial.c: buffers on the device for a product and two results */
typedef struct GpuTrial
{
	DfxDev *dev;
	GpuType type;
	char *in, *want, *got;
	unsigned *result; /* two of them */
} GpuTrial;

/*
 * Before a candidate is tried, and even made: whether it may be, which it may
 * not if earlier processes did not outlive that.  What is on the stream is
 * waited for, so that the candidate is not blamed for it.  Then the end, with
 * what came of it; both with the turn, which is kept in between.
 */
extern DfxStatus
gpu_trial_begin(const GpuTrial *t, const char *key, const GpuChoice *by, bool *may, DfxErr *err);
extern void gpu_trial_end(const GpuTrial *t, DfxStatus st);
/* Let *in and *out be no less than this product of n images needs. */
extern void gpu_trial_room(const GpuConvArgs *a, GpuType type, int n, size_t *in, size_t *out);
/* Fill so many bytes of the input with values in [-1, 1), which any half type holds. */
extern DfxStatus gpu_trial_noise(const GpuTrial *t, size_t bytes, DfxErr *err);
/*
 * Run a product of n images by one candidate, from noise into y: of the first
 * branch, or of all of them, which then write over each other.
 */
extern DfxStatus gpu_trial_run(const GpuTrial *t, const GpuStep *s, const GpuChoice *by, int n, int count,
                               char *y, DfxErr *err);
/* Whether a candidate's result is that in want, but for rounding; if it is not, the log says so. */
extern DfxStatus gpu_trial_agrees(const GpuTrial *t, const GpuStep *s, const GpuChoice *by, int n,
                                  const char *key, bool *agrees, DfxErr *err);

/*
 * cache.c: choices by key, for the life of the device, and in a file of dir
 * (created when absent; NULL: none is kept) that belongs to this device and
 * these versions.  NULL: out of memory; a file that cannot be read is none.
 */
extern GpuCache *gpu_cache_open(const char *dir, const char *device, const char *versions);
/*
 * Where this user's choices are kept (XDG Base Directory Specification); the
 * supervisor starts the engine without HOME, so that the system is asked for
 * it.  false: nowhere.
 */
extern bool gpu_cache_dir(char *dir, size_t size);
extern void gpu_cache_close(GpuCache *cache);                                   /* drops the plans */
extern const GpuChoice *gpu_cache_find(const GpuCache *cache, const char *key); /* NULL: not made yet */
/* What an earlier process kept of its choice: who ("mma", "cudnn" ...) and for a plan; NULL: nothing. */
extern const char *gpu_cache_kept(const GpuCache *cache, const char *key, const char **who);
/* Takes over the choice's plan and, malloc'd or NULL, what is to be kept for it. */
extern DfxStatus
gpu_cache_put(GpuCache *cache, const char *key, const GpuChoice *choice, char *keep, DfxErr *err);
/*
 * A candidate is being tried, until further notice; should this process not outlive it, the
 * next one that opens the cache counts it, and the second time bars the candidate.
 */
extern void gpu_cache_try(GpuCache *cache, const char *key, const char *who);
extern void gpu_cache_tried(GpuCache *cache);
extern bool gpu_cache_barred(const GpuCache *cache, const char *key, const char *who);
extern void gpu_cache_write(GpuCache *cache); /* what changed; failure is logged, and costs time only */
extern const char *gpu_choice_name(const GpuChoice *choice);

/* mark.c: found is told of each mark that a process has left; true: it has kept it elsewhere */
extern void
gpu_mark_find(const char *path, bool (*found)(void *arg, const char *key, const char *who), void *arg);
extern int gpu_mark_open(const char *path); /* a file for marks of this process; -1: there is none */
extern bool gpu_mark_set(int fd, const char *key, const char *who);
extern void gpu_mark_clear(int fd);

#endif /* DFX_CUDA_INTERNAL_H */
