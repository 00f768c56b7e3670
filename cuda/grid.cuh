/*
 * grid.cuh
 *	  Grids over the element functions: what launch.cu and launch_train.cu share.
 */
#ifndef DFX_CUDA_GRID_CUH
#define DFX_CUDA_GRID_CUH

#include <cuda_runtime.h>

#include "cuda/group.cuh"

#define LAUNCH_THREADS 256
#define LAUNCH_WARPS   4 /* of a block of row teams */
#define LAUNCH_BLOCKS  0x7fffffff

template <class Op>
static __global__ void
launch_each(const __grid_constant__ GpuGroup<Op> group, unsigned total, unsigned width)
{
	unsigned i = blockIdx.x * blockDim.x + threadIdx.x;

	if (i < total)
		group.op[blockIdx.z](i / width, (int) (i % width));
}

/* A warp as a team of lanes. */
struct GpuWarp
{
	static const int count = 32;
	__device__ int id() const
	{
		return (int) (threadIdx.x % 32);
	}
	__device__ float sum(float v) const
	{
		for (int step = 16; step > 0; step /= 2)
			v += __shfl_xor_sync(0xffffffffu, v, step);
		return v;
	}
	__device__ float max(float v) const
	{
		for (int step = 16; step > 0; step /= 2)
			v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, step));
		return v;
	}
	__device__ void sync() const
	{
		__syncwarp();
	}
};

template <class Op>
static __global__ void
launch_lanes(const __grid_constant__ GpuGroup<Op> group, unsigned rows, unsigned scratch)
{
	extern __shared__ float launch_scratch[];
	unsigned team = threadIdx.x / 32, row = blockIdx.x * LAUNCH_WARPS + team;

	if (row < rows)
		group.op[blockIdx.z]((size_t) row, launch_scratch + team * scratch, GpuWarp());
}

/* Blocks that cover n in steps of each; 0 when there are more than a grid's side takes. */
static unsigned
launch_blocks(size_t n, size_t each, size_t most)
{
	size_t blocks = (n + each - 1) / each;

	return blocks <= most ? (unsigned) blocks : 0;
}

/* The part of a Runner that both have. */
struct GpuGrid
{
	cudaStream_t stream;

	template <class Op> int each(const GpuGroup<Op> &group, size_t rows, int width)
	{
		size_t total = rows * (size_t) width;
		dim3 grid(launch_blocks(total, LAUNCH_THREADS, LAUNCH_BLOCKS), 1, group.count);

		if (grid.x == 0 || total > 0xffffffffu - LAUNCH_THREADS)
			return cudaErrorInvalidConfiguration;
		launch_each<<<grid, LAUNCH_THREADS, 0, stream>>>(group, (unsigned) total, (unsigned) width);
		return cudaPeekAtLastError();
	}
	template <class T, class Op> int lanes(const GpuGroup<Op> &group, size_t rows, int floats)
	{
		dim3 grid(launch_blocks(rows, LAUNCH_WARPS, LAUNCH_BLOCKS), 1, group.count);
		size_t shared = (size_t) floats * LAUNCH_WARPS * sizeof(float);

		if (grid.x == 0 || floats > 2 * GPU_MAX_TOKENS)
			return cudaErrorInvalidConfiguration;
		launch_lanes<<<grid, LAUNCH_WARPS * 32, shared, stream>>>(group, (unsigned) rows, (unsigned) floats);
		return cudaPeekAtLastError();
	}
};

#endif /* DFX_CUDA_GRID_CUH */
