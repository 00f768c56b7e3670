/*
 * rt.h
 *	  What the backend asks of a device: memory, launches, graphs, transfers.
 *
 * One implementation drives a GPU through the CUDA runtime (rt_cuda.c); the
 * tests have another that does the same in host memory (tests/cuda), so that
 * everything above this line is run and compared with the oracle on machines
 * without a GPU.
 *
 * All work goes to one stream, in order, and is put there by one thread at a
 * time.  Only the copies of batches go beside it: a batch has one of two lanes,
 * each with buffers of its own, and while one lane's batch is computed, the
 * other one's is copied up and the last results are copied down.  Each lane is
 * waited for by its own thread, while others put work on the stream.
 */
#ifndef DFX_CUDA_RT_H
#define DFX_CUDA_RT_H

#include "base/err.h"
#include "cuda/kernels.h"

#define GPU_LANES 2

typedef struct GpuRt GpuRt;

/*
 * One batch: copy in up, replay graph, copy out down; all of it asynchronous
 * where in_host and out_host are page-locked.  They are in use until the lane
 * was waited for; when submit fails, no longer.
 */
typedef struct GpuSubmit
{
	int lane;
	void *graph;
	void *in;
	const void *in_host;
	size_t in_bytes;
	const void *out;
	void *out_host;
	size_t out_bytes;
} GpuSubmit;

/*
 * DFX_ENOMEM: the device has no room, nothing else is wrong.  DFX_ELOST: the
 * context is gone for good (a fault in a kernel, a device that fell off its
 * bus); only a new process helps.  DFX_EDEVICE: anything else.
 */
typedef struct GpuRtOps
{
	void (*close)(GpuRt *rt);
	void (*enter)(GpuRt *rt); /* the calling thread is about to use it */

	DfxStatus (*alloc)(GpuRt *rt, size_t bytes, void **p, DfxErr *err);
	void (*release)(GpuRt *rt, void *p);
	DfxStatus (*alloc_host)(GpuRt *rt, size_t bytes, void **p, DfxErr *err); /* page-locked */
	void (*release_host)(GpuRt *rt, void *p);
	/* Page-lock memory that is there, whole pages of it, for reading by the device. */
	DfxStatus (*lock)(GpuRt *rt, void *p, size_t bytes, DfxErr *err);
	void (*unlock)(GpuRt *rt, void *p);

	/* These two wait until it is done, and for all work before. */
	DfxStatus (*upload)(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err);
	DfxStatus (*download)(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err);

	/* On the stream; part of the graph between capture and captured. */
	DfxStatus (*clear)(GpuRt *rt, void *p, size_t bytes, DfxErr *err);
	DfxStatus (*copy)(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err);
	DfxStatus (*launch)(GpuRt *rt, GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n,
	                    DfxErr *err);

	DfxStatus (*capture)(GpuRt *rt, DfxErr *err);
	DfxStatus (*captured)(GpuRt *rt, void **graph, DfxErr *err); /* ends the capture in any case */
	void (*release_graph)(GpuRt *rt, void *graph);
	DfxStatus (*replay)(GpuRt *rt, void *graph, DfxErr *err); /* on the stream */

	DfxStatus (*submit)(GpuRt *rt, const GpuSubmit *s, DfxErr *err);
	/* Until the lane's last batch is down; how long its graph took.  By any thread that has submitted. */
	DfxStatus (*wait)(GpuRt *rt, int lane, double *milliseconds, DfxErr *err);

	/* Time of the work on the stream between the two calls; stop waits for it. */
	DfxStatus (*start)(GpuRt *rt, DfxErr *err);
	DfxStatus (*stop)(GpuRt *rt, double *milliseconds, DfxErr *err);
} GpuRtOps;

/* Implementations begin with it. */
struct GpuRt
{
	const GpuRtOps *ops;
	void *stream;      /* a cudaStream_t, for libraries; NULL where there are none */
	uint64_t memory;   /* bytes of the device */
	char name[64];     /* of the device */
	int major, minor;  /* its compute capability */
	char versions[64]; /* of driver and libraries */
};

/*
 * The GPU numbered ordinal.  DFX_EDEVICE with the reason when it cannot be
 * used: no driver, too old, no such device, too old a device.  rt_cuda.c.
 */
extern DfxStatus gpu_rt_open(int ordinal, GpuRt **rt, DfxErr *err);

#endif /* DFX_CUDA_RT_H */
