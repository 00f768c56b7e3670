/*
 * host_rt.h
 *	  A device in host memory for the tests of cuda/: everything the backend
 *	  does with a GPU, done by the kernels' twins on the host, with faults on
 *	  demand.
 */
#ifndef DFX_TESTS_CUDA_HOST_RT_H
#define DFX_TESTS_CUDA_HOST_RT_H

#include "cuda/internal.h"

/* What a lane has been given to do. */
typedef struct HostBatch
{
	GpuSubmit submit;
	uint64_t number;
	bool waits; /* to be done */
	DfxStatus st;
	DfxErr err;
	double ms;
} HostBatch;

/* What the test sets, and what it may look at. */
typedef struct HostRt
{
	GpuRt rt;
	size_t room;     /* allocations beyond fail with DFX_ENOMEM; 0: no limit */
	size_t taken;    /* by device allocations */
	int blocks;      /* device and page-locked allocations that are not given back */
	long lose_after; /* launches until the device is lost; negative: never */
	long launches;   /* done, those of replayed graphs included */
	int graphs;      /* that are not given back */
	uint64_t seen;   /* bit k: kernel k has run */
	double clock;    /* advances with each launch by cost[kernel] milliseconds */
	double started;  /* when the timer was */
	double cost[GPU_KERNEL_COUNT];
	void *recording; /* the graph being captured */

	bool refuses_locks, refuses_host; /* to page-lock memory; to give page-locked memory */
	int locks;                        /* that are not undone */
	const char *locked, *locked_end;  /* the last of them */
	int staged;                       /* batches that went up from elsewhere */
	int fail_submit;                  /* the how manieth submit from now fails; 0: none */
	int meet; /* whoever waits for a batch first waits until so many were in flight at one time */

	pthread_mutex_t lock; /* guards all below, and the work on the stream */
	pthread_cond_t submitted;
	HostBatch batch[GPU_LANES];
	uint64_t batches;
	int in_flight, most_in_flight;
	bool opened; /* by host_backend.open, and so freed with its device */
} HostRt;

extern HostRt *host_rt_new(void);

/* A backend's device on rt, which it does not free, without libraries. */
extern DfxDev *host_device(HostRt *rt, const DfxDevOpts *opts);

/* The CUDA backend on such devices; its own open makes one that nobody can look at. */
extern const DfxBackend host_backend;

#endif /* DFX_TESTS_CUDA_HOST_RT_H */
