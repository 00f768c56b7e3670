/*
 * rt_cuda.c
 *	  The device of rt.h by the CUDA runtime, which is linked statically.
 *
 * One stream computes, one copies up and one down, so that a batch's copies go
 * on while another batch is computed.  A batch is tied together by events of its
 * lane: `up` (its input is on the device; the computing stream waits for it),
 * `computed` (the stream that copies down waits for it) and `done` (its results
 * are in page-locked memory; the host waits).  A lane's buffers are used again
 * only after `done`.  Graphs share a plan's arena: they are all launched on the
 * computing stream, and so run one after another.
 */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/rt.h"

#define RT_MIN_CAPABILITY 80 /* Ampere: bf16 on tensor cores, cp.async */

typedef struct RtCuda
{
	GpuRt rt;
	int ordinal;
	unsigned lock_flags;
	cudaStream_t compute, copy_up, copy_down;
	cudaEvent_t up[GPU_LANES], began[GPU_LANES], computed[GPU_LANES], done[GPU_LANES];
	cudaEvent_t from, to; /* of the timer */
} RtCuda;

/* Errors after which the context answers nothing but errors (CUDA Runtime API, "cudaError"). */
static bool
rt_is_sticky(cudaError_t e)
{
	switch (e)
	{
		case cudaErrorIllegalAddress:
		case cudaErrorLaunchTimeout:
		case cudaErrorLaunchFailure:
		case cudaErrorHardwareStackError:
		case cudaErrorIllegalInstruction:
		case cudaErrorMisalignedAddress:
		case cudaErrorInvalidAddressSpace:
		case cudaErrorInvalidPc:
		case cudaErrorAssert:
		case cudaErrorTooManyPeers:
		case cudaErrorECCUncorrectable:
		case cudaErrorNvlinkUncorrectable:
		case cudaErrorContained:
		case cudaErrorMpsConnectionFailed:
		case cudaErrorMpsServerNotReady:
		case cudaErrorTensorMemoryLeak:
		case cudaErrorCudartUnloading:
		case cudaErrorDeviceUninitialized:
		case cudaErrorContextIsDestroyed:
		case cudaErrorUnknown:
			return true;
		default:
			return false;
	}
}

static DfxStatus
rt_fail(cudaError_t e, const char *what, DfxErr *err)
{
	DfxStatus st = DFX_EDEVICE;

	if (e == cudaSuccess)
		return DFX_OK;
	if (e == cudaErrorMemoryAllocation)
		st = DFX_ENOMEM;
	else if (rt_is_sticky(e))
		st = DFX_ELOST;
	cudaGetLastError(); /* an error that is not sticky must not be met again */
	return dfx_fail(err, st, "%s failed: %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
}

static RtCuda *
rt_self(GpuRt *rt)
{
	return (RtCuda *) (void *) rt;
}

/* Which device is current is each thread's own affair. */
static void
rt_enter(GpuRt *rt)
{
	cudaSetDevice(rt_self(rt)->ordinal);
}

/* ---- memory ---- */

static DfxStatus
rt_alloc(GpuRt *rt, size_t bytes, void **p, DfxErr *err)
{
	(void) rt;
	return rt_fail(cudaMalloc(p, bytes ? bytes : 1), "allocating device memory", err);
}

static void
rt_release(GpuRt *rt, void *p)
{
	(void) rt;
	cudaFree(p);
}

static DfxStatus
rt_alloc_host(GpuRt *rt, size_t bytes, void **p, DfxErr *err)
{
	(void) rt;
	return rt_fail(cudaHostAlloc(p, bytes ? bytes : 1, cudaHostAllocDefault), "allocating page-locked memory",
	               err);
}

static void
rt_release_host(GpuRt *rt, void *p)
{
	(void) rt;
	cudaFreeHost(p);
}

static DfxStatus
rt_lock(GpuRt *rt, void *p, size_t bytes, DfxErr *err)
{
	return rt_fail(cudaHostRegister(p, bytes, rt_self(rt)->lock_flags), "page-locking memory", err);
}

static void
rt_unlock(GpuRt *rt, void *p)
{
	(void) rt;
	cudaHostUnregister(p);
}

static DfxStatus
rt_transfer(GpuRt *rt, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, DfxErr *err)
{
	cudaStream_t s = rt_self(rt)->compute;
	cudaError_t e = cudaMemcpyAsync(to, from, bytes, kind, s);

	if (e == cudaSuccess)
		e = cudaStreamSynchronize(s);
	return rt_fail(e, "copying", err);
}

static DfxStatus
rt_upload(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err)
{
	return rt_transfer(rt, to, from, bytes, cudaMemcpyHostToDevice, err);
}

static DfxStatus
rt_download(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err)
{
	return rt_transfer(rt, to, from, bytes, cudaMemcpyDeviceToHost, err);
}

/* ---- work ---- */

static DfxStatus
rt_clear(GpuRt *rt, void *p, size_t bytes, DfxErr *err)
{
	return rt_fail(cudaMemsetAsync(p, 0, bytes, rt_self(rt)->compute), "clearing device memory", err);
}

static DfxStatus
rt_copy(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err)
{
	return rt_fail(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, rt_self(rt)->compute),
	               "copying on the device", err);
}

static DfxStatus
rt_launch(GpuRt *rt, GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n, DfxErr *err)
{
	return rt_fail((cudaError_t) gpu_launch(kernel, type, args, count, n, rt->stream), "launching a kernel",
	               err);
}

/* Thread-local: another thread may allocate meanwhile. */
static DfxStatus
rt_capture(GpuRt *rt, DfxErr *err)
{
	return rt_fail(cudaStreamBeginCapture(rt_self(rt)->compute, cudaStreamCaptureModeThreadLocal),
	               "beginning a CUDA graph", err);
}

static DfxStatus
rt_captured(GpuRt *rt, void **graph, DfxErr *err)
{
	cudaGraph_t captured = NULL;
	cudaGraphExec_t exec = NULL;
	cudaError_t e = cudaStreamEndCapture(rt_self(rt)->compute, &captured);

	*graph = NULL;
	if (e == cudaSuccess)
		e = cudaGraphInstantiate(&exec, captured, 0);
	if (captured)
		cudaGraphDestroy(captured);
	*graph = exec;
	return rt_fail(e, "making a CUDA graph", err);
}

static void
rt_release_graph(GpuRt *rt, void *graph)
{
	(void) rt;
	cudaGraphExecDestroy(graph);
}

static DfxStatus
rt_replay(GpuRt *rt, void *graph, DfxErr *err)
{
	return rt_fail(cudaGraphLaunch(graph, rt_self(rt)->compute), "starting a CUDA graph", err);
}

/* A batch's input up, and the graph behind it. */
static cudaError_t
rt_compute(RtCuda *r, const GpuSubmit *s)
{
	cudaError_t e = cudaMemcpyAsync(s->in, s->in_host, s->in_bytes, cudaMemcpyHostToDevice, r->copy_up);

	if (e == cudaSuccess)
		e = cudaEventRecord(r->up[s->lane], r->copy_up);
	if (e == cudaSuccess)
		e = cudaStreamWaitEvent(r->compute, r->up[s->lane], 0);
	if (e == cudaSuccess)
		e = cudaEventRecord(r->began[s->lane], r->compute);
	if (e == cudaSuccess)
		e = cudaGraphLaunch(s->graph, r->compute);
	return e == cudaSuccess ? cudaEventRecord(r->computed[s->lane], r->compute) : e;
}

static DfxStatus
rt_submit(GpuRt *rt, const GpuSubmit *s, DfxErr *err)
{
	RtCuda *r = rt_self(rt);
	cudaError_t e = rt_compute(r, s);

	if (e == cudaSuccess)
		e = cudaStreamWaitEvent(r->copy_down, r->computed[s->lane], 0);
	if (e == cudaSuccess)
		e = cudaMemcpyAsync(s->out_host, s->out, s->out_bytes, cudaMemcpyDeviceToHost, r->copy_down);
	if (e == cudaSuccess)
		e = cudaEventRecord(r->done[s->lane], r->copy_down);
	if (e == cudaSuccess)
		return DFX_OK;
	/* Whatever is under way uses the caller's memory, which must not outlast this call. */
	cudaStreamSynchronize(r->copy_up);
	cudaStreamSynchronize(r->compute);
	cudaStreamSynchronize(r->copy_down);
	return rt_fail(e, "starting a batch", err);
}

static DfxStatus
rt_wait(GpuRt *rt, int lane, double *milliseconds, DfxErr *err)
{
	RtCuda *r = rt_self(rt);
	float ms = 0;
	cudaError_t e = cudaEventSynchronize(r->done[lane]);

	if (e == cudaSuccess)
		e = cudaEventElapsedTime(&ms, r->began[lane], r->computed[lane]);
	*milliseconds = (double) ms;
	return rt_fail(e, "a batch", err);
}

static DfxStatus
rt_start(GpuRt *rt, DfxErr *err)
{
	return rt_fail(cudaEventRecord(rt_self(rt)->from, rt_self(rt)->compute), "a timer", err);
}

static DfxStatus
rt_stop(GpuRt *rt, double *milliseconds, DfxErr *err)
{
	RtCuda *r = rt_self(rt);
	float ms = 0;
	cudaError_t e = cudaEventRecord(r->to, r->compute);

	if (e == cudaSuccess)
		e = cudaEventSynchronize(r->to);
	if (e == cudaSuccess)
		e = cudaEventElapsedTime(&ms, r->from, r->to);
	*milliseconds = (double) ms;
	return rt_fail(e, "a timer", err);
}

/* ---- opening ---- */

static void
rt_destroy_event(cudaEvent_t e)
{
	if (e)
		cudaEventDestroy(e);
}

static void
rt_destroy_stream(cudaStream_t s)
{
	if (s)
		cudaStreamDestroy(s);
}

static void
rt_close(GpuRt *rt)
{
	RtCuda *r = rt_self(rt);

	for (int i = 0; i < GPU_LANES; i++)
	{
		rt_destroy_event(r->up[i]);
		rt_destroy_event(r->began[i]);
		rt_destroy_event(r->computed[i]);
		rt_destroy_event(r->done[i]);
	}
	rt_destroy_event(r->from);
	rt_destroy_event(r->to);
	rt_destroy_stream(r->compute);
	rt_destroy_stream(r->copy_up);
	rt_destroy_stream(r->copy_down);
	free(r);
}

static const GpuRtOps rt_cuda_ops = {
    .close = rt_close,
    .enter = rt_enter,
    .alloc = rt_alloc,
    .release = rt_release,
    .alloc_host = rt_alloc_host,
    .release_host = rt_release_host,
    .lock = rt_lock,
    .unlock = rt_unlock,
    .upload = rt_upload,
    .download = rt_download,
    .clear = rt_clear,
    .copy = rt_copy,
    .launch = rt_launch,
    .capture = rt_capture,
    .captured = rt_captured,
    .release_graph = rt_release_graph,
    .replay = rt_replay,
    .submit = rt_submit,
    .wait = rt_wait,
    .start = rt_start,
    .stop = rt_stop,
};

/* Name, size, capability, versions; refuses a device that the kernels were not built for. */
static DfxStatus
rt_describe(RtCuda *r, int ordinal, DfxErr *err)
{
	static struct cudaDeviceProp prop; /* large; devices are opened one at a time */
	int driver = 0, read_only = 0;
	cudaError_t e = cudaGetDeviceProperties(&prop, ordinal);

	if (e == cudaSuccess)
		e = cudaDriverGetVersion(&driver);
	if (e == cudaSuccess)
		e = cudaDeviceGetAttribute(&read_only, cudaDevAttrHostRegisterReadOnlySupported, ordinal);
	if (e != cudaSuccess)
		return rt_fail(e, "asking the device for its properties", err);
	if (prop.major * 10 + prop.minor < RT_MIN_CAPABILITY)
		return dfx_fail(err, DFX_EDEVICE, "%s has compute capability %d.%d, %d.%d is needed", prop.name,
		                prop.major, prop.minor, RT_MIN_CAPABILITY / 10, RT_MIN_CAPABILITY % 10);
	snprintf(r->rt.name, sizeof r->rt.name, "%.*s", (int) sizeof r->rt.name - 1, prop.name);
	r->rt.major = prop.major;
	r->rt.minor = prop.minor;
	r->rt.memory = prop.totalGlobalMem;
	r->lock_flags = cudaHostRegisterDefault | (read_only ? cudaHostRegisterReadOnly : 0);
	snprintf(r->rt.versions, sizeof r->rt.versions, "driver %d.%d", driver / 1000, driver % 1000 / 10);
	return DFX_OK;
}

static cudaError_t
rt_streams(RtCuda *r)
{
	cudaError_t e = cudaStreamCreateWithFlags(&r->compute, cudaStreamNonBlocking);

	if (e == cudaSuccess)
		e = cudaStreamCreateWithFlags(&r->copy_up, cudaStreamNonBlocking);
	if (e == cudaSuccess)
		e = cudaStreamCreateWithFlags(&r->copy_down, cudaStreamNonBlocking);
	for (int i = 0; e == cudaSuccess && i < GPU_LANES; i++)
	{
		e = cudaEventCreateWithFlags(&r->up[i], cudaEventDisableTiming);
		if (e == cudaSuccess)
			e = cudaEventCreate(&r->began[i]);
		if (e == cudaSuccess)
			e = cudaEventCreate(&r->computed[i]);
		if (e == cudaSuccess)
			e = cudaEventCreateWithFlags(&r->done[i], cudaEventDisableTiming);
	}
	if (e == cudaSuccess)
		e = cudaEventCreate(&r->from);
	if (e == cudaSuccess)
		e = cudaEventCreate(&r->to);
	return e;
}

DfxStatus
gpu_rt_open(int ordinal, GpuRt **rt, DfxErr *err)
{
	RtCuda *r;
	DfxStatus st;
	int count = 0;
	cudaError_t e = cudaGetDeviceCount(&count);

	*rt = NULL;
	if (e != cudaSuccess)
	{
		rt_fail(e, "looking for GPUs", err);
		return DFX_EDEVICE;
	}
	if (ordinal < 0 || ordinal >= count)
		return dfx_fail(err, DFX_EDEVICE, "there is no GPU number %d: %d %s here", ordinal, count,
		                count == 1 ? "is" : "are");
	r = calloc(1, sizeof *r);
	if (!r)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the CUDA device");
	r->rt.ops = &rt_cuda_ops;
	r->ordinal = ordinal;
	st = rt_describe(r, ordinal, err);
	if (st == DFX_OK)
		st = rt_fail(cudaSetDevice(ordinal), "opening the device", err);
	if (st == DFX_OK)
		st = rt_fail(rt_streams(r), "making streams", err);
	if (st != DFX_OK)
	{
		rt_close(&r->rt);
		return st;
	}
	r->rt.stream = r->compute;
	*rt = &r->rt;
	return DFX_OK;
}
