/*
 * group.cuh
 *	  What dispatch.cuh and dispatch_train.cuh share: groups of ops that go
 *	  together, and when channels can be moved several at a time.
 */
#ifndef DFX_CUDA_GROUP_CUH
#define DFX_CUDA_GROUP_CUH

#include "cuda/kernels.h"

#define GPU_DISPATCH_INVALID 1 /* cudaErrorInvalidValue */

/* Ops that differ in their pointers only. */
template <class Op> struct GpuGroup
{
	Op op[GPU_BRANCHES];
	int count;
};

/* The group of Ops that hold one member of the records each. */
template <class Op, class Args>
static GpuGroup<Op>
gpu_group(const GpuArgs *args, int count, Args GpuArgs::*member)
{
	GpuGroup<Op> group = {};

	group.count = count;
	for (int i = 0; i < count; i++)
		group.op[i] = Op{args[i].*member};
	return group;
}

/* Whether V channels at a time are aligned and without a rest. */
template <class T, int V>
static bool
gpu_wide(int c, int ld, const void *p)
{
	return c % V == 0 && ld % V == 0 && reinterpret_cast<uintptr_t>(p) % (sizeof(T) * V) == 0;
}

#endif /* DFX_CUDA_GROUP_CUH */
