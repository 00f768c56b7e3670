/*
 * launch_train.cc
 *	  The kernels of training as loops (launch.h).
 */
#include <string.h>

#include "cuda/dispatch_train.cuh"
#include "cuda/host/launch.h"
#include "cuda/host/loops.h"
#include "cuda/host/mma.h"

template <class T>
static void
host_wgrad_block(const GpuWgradArgs &a, int co0, int k0, size_t chunk)
{
	static float sum[GPU_TILE_THREADS][GPU_TILE_EACH][GPU_TILE_EACH];
	static GpuTile tile;
	size_t end = gpu_wgrad_end(a, chunk);

	memset(sum, 0, sizeof sum);
	for (size_t row = chunk * (size_t) a.chunk; row < end; row += GPU_TILE_K)
	{
		for (int t = 0; t < GPU_TILE_THREADS; t++)
			gpu_wgrad_load<T>(a, tile, co0, k0, row, end, t);
		for (int t = 0; t < GPU_TILE_THREADS; t++)
			gpu_tile_add(tile, t, sum[t]);
	}
	for (int t = 0; t < GPU_TILE_THREADS; t++)
		gpu_wgrad_store(a, co0, k0, chunk, t, sum[t]);
}

template <class T, class S>
static void
host_wgrad_mma_block(const GpuWgradArgs &a, int m0, int n0, size_t chunk)
{
	std::vector<GpuWgradThread<S>> threads(GPU_MMA_THREADS);
	std::vector<typename S::Thread> sums(GPU_MMA_THREADS);
	std::vector<typename S::Tile> shared(1);
	size_t end = gpu_wgrad_end(a, chunk);
	int stage = 0;

	for (int t = 0; t < GPU_MMA_THREADS; t++)
	{
		gpu_wgrad_mma_begin<S>(a, m0, t, threads[t]);
		sums[t] = threads[t].mma;
	}
	for (size_t row = chunk * (size_t) a.chunk; row < end; row += GPU_MMA_K, stage ^= 1)
	{
		for (int t = 0; t < GPU_MMA_THREADS; t++)
			gpu_wgrad_mma_load<S>(a, shared[0], stage, n0, row, end, t, threads[t]);
		host_mma_stage<T, S, false>(a.conv, shared[0], stage, 0, sums);
	}
	for (int t = 0; t < GPU_MMA_THREADS; t++)
	{
		threads[t].mma = sums[t];
		gpu_wgrad_mma_store<S>(a, m0, n0, chunk, t, threads[t]);
	}
}

struct HostTrainRunner : HostLoops
{
	template <class T, class S> int wgrad_mma(const GpuWgradArgs &a, size_t chunks)
	{
		for (size_t chunk = 0; chunk < chunks; chunk++)
			for (int n0 = 0; n0 < a.conv.co; n0 += S::N)
				for (int m0 = 0; m0 < gpu_wgrad_depth(a); m0 += S::M)
					host_wgrad_mma_block<T, S>(a, m0, n0, chunk);
		return 0;
	}
	template <class T>
	int wgrad(const GpuGroup<GpuWgradTiledOp<T>> &group, size_t co, size_t depth, size_t chunks)
	{
		return all(group,
		           [=](const GpuWgradTiledOp<T> &op)
		           {
			           for (size_t chunk = 0; chunk < chunks; chunk++)
				           for (size_t y = 0; y < co; y++)
					           for (size_t x = 0; x < depth; x++)
						           host_wgrad_block<T>(op.a, (int) y * GPU_TILE_M, (int) x * GPU_TILE_N,
						                               chunk);
		           });
	}
};

int
gpu_host_launch_train(GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n)
{
	HostTrainRunner runner = {{false}};

	return gpu_dispatch_train(runner, kernel, type, args, count, (size_t) n);
}
