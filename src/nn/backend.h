/*
 * backend.h
 *	  The table every backend fills: src/cpu (oneDNN), cuda (dfx_cuda.so),
 *	  tests/ref (plain loops, the oracle).
 *
 * A backend gets the whole optimised graph once, compiles it into an opaque
 * plan (primitives, weights in the device's layout, an arena), then runs it.
 * The graph may be freed after compile.  A plan serves any batch from 1 to
 * max_batch; how it is split into buckets and over threads is the backend's.
 * One forward at a time per device.
 */
#ifndef DFX_NN_BACKEND_H
#define DFX_NN_BACKEND_H

#include "nn/nn.h"

#define DFX_BACKEND_API 1

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
	int ordinal; /* which GPU; 0 on the CPU */
	int threads; /* CPU workers; 0 = all cores the process may use */
	/* Bumped as work proceeds, so that a watchdog can tell slow from stuck; may be NULL. */
	_Atomic uint64_t *progress;
} DfxDevOpts;

typedef struct DfxDevInfo
{
	char name[96]; /* "cpu: AMD EPYC, 2 threads, oneDNN 2.6.3 (avx512_core_bf16)" */
	int threads;
	uint64_t memory;                     /* bytes of device memory; 0 = the host's */
	bool precision[DFX_PRECISION_COUNT]; /* which it can run */
} DfxDevInfo;

typedef struct DfxPlanOpts
{
	int max_batch;
	DfxPrecision precision;
	bool train;
} DfxPlanOpts;

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
	 */
	DfxStatus (*forward)(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err);
} DfxBackend;

#endif /* DFX_NN_BACKEND_H */
