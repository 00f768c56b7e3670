/*
 * backend.h
 *	  The table every backend fills: src/cpu (oneDNN), cuda (dfx_cuda.so),
 *	  tests/ref (plain loops, the oracle).
 *
 * A backend gets the whole optimised graph once, compiles it into an opaque
 * plan (primitives, weights in the device's layout, an arena), then runs it.
 * The graph may be freed after compile.  A plan serves any batch from 1 to
 * max_batch; how it is split into buckets and over threads is the backend's.
 *
 * Threads.  At most info.lanes forwards are under way at a time on a device,
 * each called by a thread of its own, on one plan or on several.  A backend
 * with one lane may count on being asked for one forward at a time; with more,
 * forward must not write to the plan but where no other forward does.  Compile
 * and release may be called beside forwards, one at a time, and release never
 * for a plan that runs.  Plans for training are one thread's.  Memory is locked
 * and unlocked (see there) beside anything but forwards that read it.
 *
 * In int8, convolutions whose input dfx_graph_steps() keeps in steps run on
 * integers, the rest in what the backend has for a higher precision.
 *
 * A plan for training is compiled, with opts.train, from a graph that has its
 * weights but was NOT optimised: every op runs and is differentiated as it
 * stands.  One step is forward_train, the caller's loss on the outputs,
 * backward with the loss's gradients, step.  Parameters live in the plan as
 * fp32 and are read and written by their index in the graph.
 */
#ifndef DFX_NN_BACKEND_H
#define DFX_NN_BACKEND_H

#include "nn/nn.h"

#define DFX_BACKEND_API 5

typedef enum DfxPrecision
{
	DFX_PRECISION_AUTO = 0,
	DFX_PRECISION_FP32,
	DFX_PRECISION_BF16,
	DFX_PRECISION_FP16,
	DFX_PRECISION_INT8,
	DFX_PRECISION_COUNT
} DfxPrecision;
extern const char *const dfx_precision_name[DFX_PRECISION_COUNT]; /* src/nn/optable.c */

typedef struct DfxDev DfxDev;
typedef struct DfxPlan DfxPlan;

typedef struct DfxDevOpts
{
	int ordinal;     /* which GPU; 0 on the CPU */
	int threads;     /* CPU workers; 0 = all cores the process may use */
	uint64_t memory; /* bytes of device memory that all plans together may take; 0 = what there is */
	/* Bumped as work proceeds, so that a watchdog can tell slow from stuck; may be NULL. */
	_Atomic uint64_t *progress;
} DfxDevOpts;

typedef struct DfxDevInfo
{
	char name[96]; /* "cpu: AMD EPYC, 2 threads, oneDNN 2.6.3 (avx512_core_bf16)" */
	int threads;

	/*
	 * Forwards worth having under way at a time, at least 1.  They run side by
	 * side without slowing each other; or, with in_turn, one computes while
	 * another's copies are made, and a batch is not worth dividing among them.
	 */
	int lanes;
	bool in_turn;

	int batch; /* images of a forward beyond which throughput gains nothing and latency loses, while as many
	              forwards run as there are lanes; 0 = no such bound */
	uint64_t memory;                          /* bytes of device memory; 0 = the host's */
	uint64_t busy_ns;                         /* that forwards have computed so far; 0: it is not measured */
	bool precision[DFX_PRECISION_COUNT];      /* which it can run */
	const char *why_not[DFX_PRECISION_COUNT]; /* what it lacks for one; NULL: nothing to say */
	DfxPrecision automatic;                   /* what AUTO stands for; 0: fp32 */
} DfxDevInfo;

typedef struct DfxPlanOpts
{
	int max_batch;
	DfxPrecision
	    precision; /* in training: of activations and products; parameters, statistics, sums stay fp32 */
	bool train;
} DfxPlanOpts;

/* What a training plan keeps of each parameter, in PyTorch's shape and order. */
typedef enum DfxState
{
	DFX_STATE_VALUE = 0, /* the parameter, running statistics included */
	DFX_STATE_GRAD,      /* left by the last backward; buffers have none */
	DFX_STATE_MOMENT1,   /* Adam's averages of the gradient and its square; zero after compile */
	DFX_STATE_MOMENT2,
	DFX_STATE_COUNT
} DfxState;

/* One step of torch.optim.Adam: L2 is added to the gradient, not decoupled. */
typedef struct DfxAdam
{
	double lr, beta1, beta2, eps, weight_decay;
	uint64_t step; /* 1 for the first: the bias corrections depend on it */
} DfxAdam;

typedef struct DfxBackend
{
	int api; /* DFX_BACKEND_API */
	const char *name;

	/* DFX_EDEVICE when there is no such device, with the reason. */
	DfxStatus (*open)(const DfxDevOpts *opts, DfxDev **dev, DfxErr *err);
	void (*close)(DfxDev *dev);
	void (*info)(const DfxDev *dev, DfxDevInfo *info);

	/* Whether op can run as it stands, epilogue included: a DfxSupports with dev as its arg. */
	bool (*supports)(void *dev, const DfxGraph *g, const DfxOp *op);

	/* DFX_EUNSUPPORTED names the op and the precision. */
	DfxStatus (*compile)(DfxDev *dev, const DfxGraph *g, const DfxPlanOpts *opts, DfxPlan **plan,
	                     DfxErr *err);
	void (*release)(DfxPlan *plan);

	/* Bytes of memory the plan holds: weights, arena, scratch. */
	size_t (*bytes)(const DfxPlan *plan);

	/*
	 * Run n images (1..max_batch).  in: n x (H x W x 3 uint8, or C x H x W
	 * float, as the graph's input op says), contiguous.  out[i]: n x the i-th
	 * output's c*h*w floats, plain row-major; NULL: that output is not wanted.
	 * DFX_ELOST: the device has failed in a way that only a new process mends.
	 * On a training plan: inference with the parameters as they are now
	 * (running statistics, no dropout).
	 */
	DfxStatus (*forward)(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err);

	/* ---- training plans only; all NULL in a backend that cannot train ---- */

	/*
	 * As forward, but in training mode: BatchNorm normalises by the statistics
	 * of these n images and moves the running ones (momentum 0.1, the variance
	 * unbiased, as torch.nn.BatchNorm2d); DROP takes its masks from
	 * dfx_drop_keep(seed ...).  Keeps what backward needs.
	 */
	DfxStatus (*forward_train)(DfxPlan *plan, const void *in, int n, uint64_t seed, float *const *out,
	                           DfxErr *err);

	/*
	 * Gradients of the last forward_train, of the same n images; once for each
	 * (what it kept may be gone then).  dout[i]: the loss's gradient by the
	 * i-th output, laid out as out[i]; NULL: zero.  Every trained parameter's
	 * gradient is set, not added to.  din: the gradient by a float input, NULL:
	 * not wanted (and none for rgb8 pixels).
	 */
	DfxStatus (*backward)(DfxPlan *plan, int n, const float *const *dout, float *din, DfxErr *err);

	/* Move every trained parameter by its gradient and its moments. */
	DfxStatus (*step)(DfxPlan *plan, const DfxAdam *adam, DfxErr *err);

	/* data[p]: the numbers of parameter p of the graph; NULL: leave it out. */
	DfxStatus (*read_params)(const DfxPlan *plan, DfxState what, float *const *data, DfxErr *err);
	DfxStatus (*write_params)(DfxPlan *plan, DfxState what, const float *const *data, DfxErr *err);

	/* ---- NULL in a backend that computes on the host's memory ---- */

	/*
	 * Page-lock memory of the caller's, whole pages, so that forward sends
	 * images that lie there up without a copy of its own.  Until unlock, before
	 * the device is closed and the memory freed.  Failure harms nothing: forward
	 * takes images from any memory.
	 */
	DfxStatus (*lock)(DfxDev *dev, void *p, size_t bytes, DfxErr *err);
	void (*unlock)(DfxDev *dev, void *p);

	/* ---- NULL in a backend that cannot calibrate ---- */

	/*
	 * Run n images on an inference plan in fp32, as forward; of each, the
	 * largest number in the first input of op[j] (an index into the graph's
	 * ops, a CONV), or 0 if that is negative: largest[image * nop + j].
	 */
	DfxStatus (*largest)(DfxPlan *plan, const void *in, int n, const int *op, int nop, float *largest,
	                     DfxErr *err);
} DfxBackend;

#endif /* DFX_NN_BACKEND_H */
