/*
 * launch_train.cu
 *	  The kernels of training: grids over element_train.cuh and reduce_train.cuh.
 */
#include "cuda/dispatch_train.cuh"
#include "cuda/grid.cuh"
#include "cuda/mma_device.cuh"

#define LAUNCH_GRID_YZ 65535 /* blocks at most along these sides */

/* Blocks: (tap, ci) by output channels by chunks of rows. */
template <class T>
static __global__ void
__launch_bounds__(GPU_TILE_THREADS) launch_wgrad(const __grid_constant__ GpuWgradArgs a)
{
	__shared__ GpuTile tile;
	float sum[GPU_TILE_EACH][GPU_TILE_EACH] = {};
	int k0 = (int) blockIdx.x * GPU_TILE_N, co0 = (int) blockIdx.y * GPU_TILE_M, thread = (int) threadIdx.x;
	size_t chunk = blockIdx.z, end = gpu_wgrad_end(a, chunk);

	for (size_t row = chunk * (size_t) a.chunk; row < end; row += GPU_TILE_K)
	{
		gpu_wgrad_load<T>(a, tile, co0, k0, row, end, thread);
		__syncthreads();
		gpu_tile_add(tile, thread, sum);
		__syncthreads();
	}
	gpu_wgrad_store(a, co0, k0, chunk, thread, sum);
}

/* The same on tensor cores. */
template <class T, class S>
static __global__ void
__launch_bounds__(GPU_MMA_THREADS) launch_wgrad_mma(const __grid_constant__ GpuWgradArgs a)
{
	extern __shared__ __align__(16) unsigned char launch_shared[];
	typename S::Tile &tile = *reinterpret_cast<typename S::Tile *>(launch_shared);
	GpuWgradThread<S> t;
	int m0 = (int) blockIdx.x * S::M, n0 = (int) blockIdx.y * S::N, thread = (int) threadIdx.x, stage = 0;
	size_t chunk = blockIdx.z, end = gpu_wgrad_end(a, chunk);

	gpu_wgrad_mma_begin<S>(a, m0, thread, t);
	for (size_t row = chunk * (size_t) a.chunk; row < end; row += GPU_MMA_K)
	{
		gpu_wgrad_mma_load<S>(a, tile, stage, n0, row, end, thread, t);
		__syncthreads();
		launch_mma_stage<T, S, false>(a.conv, tile, stage, 0, t.mma);
		stage ^= 1;
	}
	gpu_wgrad_mma_store<S>(a, m0, n0, chunk, thread, t);
}

struct LaunchTrainRunner : GpuGrid
{
	template <class T, class S> int wgrad_mma(const GpuWgradArgs &a, size_t chunks)
	{
		dim3 grid((unsigned) ((gpu_wgrad_depth(a) + S::M - 1) / S::M),
		          (unsigned) ((a.conv.co + S::N - 1) / S::N), (unsigned) chunks);
		int shared = (int) sizeof(typename S::Tile);
		cudaError_t error;

		if (grid.y > LAUNCH_GRID_YZ || chunks > LAUNCH_GRID_YZ)
			return cudaErrorInvalidConfiguration;
		error =
		    cudaFuncSetAttribute(launch_wgrad_mma<T, S>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
		if (error != cudaSuccess)
			return error;
		launch_wgrad_mma<T, S><<<grid, GPU_MMA_THREADS, shared, stream>>>(a);
		return cudaPeekAtLastError();
	}
	template <class T>
	int wgrad(const GpuGroup<GpuWgradTiledOp<T>> &group, size_t co, size_t depth, size_t chunks)
	{
		dim3 grid((unsigned) depth, (unsigned) co, (unsigned) chunks);

		if (co > LAUNCH_GRID_YZ || chunks > LAUNCH_GRID_YZ)
			return cudaErrorInvalidConfiguration;
		launch_wgrad<T><<<grid, GPU_TILE_THREADS, 0, stream>>>(group.op[0].a);
		return cudaPeekAtLastError();
	}
};

int
gpu_launch_train(GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n, void *stream)
{
	LaunchTrainRunner runner = {{static_cast<cudaStream_t>(stream)}};

	return gpu_dispatch_train(runner, kernel, type, args, count, (size_t) n);
}
