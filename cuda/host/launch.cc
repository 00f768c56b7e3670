/*
 * launch.cc
 *	  The kernels as loops (launch.h).
 *
 * A block's threads run one after another from barrier to barrier, over the
 * same shared tile; a warp's mma.sync is done by taking the fragments of its
 * 32 lanes apart by the layout that the PTX ISA gives.  Copies that are
 * asynchronous on the device happen at once here, so what this cannot show is
 * a missing wait.
 */
#include "cuda/host/launch.h"

#include "cuda/dispatch.cuh"
#include "cuda/host/loops.h"
#include "cuda/host/mma.h"

#define HOST_ATTN_THREADS 7 /* any number: each copies its share */

template <class T, class S, bool Pre>
static void
host_mma_block(const GpuConvArgs &a, size_t rows, size_t m0, int n0)
{
	std::vector<typename S::Thread> threads(GPU_MMA_THREADS);
	std::vector<typename S::Tile> shared(1);
	typename S::Tile &tile = shared[0];
	int tiles = (a.kh * a.kw * a.ci + GPU_MMA_K - 1) / GPU_MMA_K;

	for (int t = 0; t < GPU_MMA_THREADS; t++)
		gpu_mma_begin<S>(a, rows, m0, t, threads[t]);
	for (int i = 0; i < GPU_MMA_STAGES - 1 && i < tiles; i++)
		for (int t = 0; t < GPU_MMA_THREADS; t++)
			gpu_mma_load<S>(a, tile, i, n0, i * GPU_MMA_K, t, threads[t]);
	for (int i = 0; i < tiles; i++)
	{
		int next = i + GPU_MMA_STAGES - 1;

		for (int t = 0; t < GPU_MMA_THREADS && next < tiles; t++)
			gpu_mma_load<S>(a, tile, next % GPU_MMA_STAGES, n0, next * GPU_MMA_K, t, threads[t]);
		host_mma_stage<T, S, Pre>(a, tile, i % GPU_MMA_STAGES, i * GPU_MMA_K, threads);
	}
	for (int t = 0; t < GPU_MMA_THREADS; t++)
		gpu_mma_store<T, S>(a, rows, m0, n0, t, threads[t]);
}

template <class T>
static void
host_tile_block(const GpuConvArgs &a, size_t rows, size_t m0, int n0)
{
	static float sum[GPU_TILE_THREADS][GPU_TILE_EACH][GPU_TILE_EACH];
	static GpuTile tile;

	memset(sum, 0, sizeof sum);
	for (int k0 = 0; k0 < a.kh * a.kw * a.ci; k0 += GPU_TILE_K)
	{
		for (int t = 0; t < GPU_TILE_THREADS; t++)
			gpu_tile_load<T>(a, tile, rows, m0, n0, k0, t);
		for (int t = 0; t < GPU_TILE_THREADS; t++)
			gpu_tile_add(tile, t, sum[t]);
	}
	for (int t = 0; t < GPU_TILE_THREADS; t++)
		gpu_tile_store<T>(a, rows, m0, n0, t, sum[t]);
}

struct HostRunner : HostLoops
{
	template <class T> int attn(const GpuGroup<GpuAttnOp<T>> &group, size_t n)
	{
		return all(group,
		           [=](const GpuAttnOp<T> &op)
		           {
			           std::vector<GpuPack<T, 2>> copy(gpu_attn_bytes<T>(op.a) / sizeof(GpuPack<T, 2>));
			           std::vector<float> scratch((size_t) op.a.tokens);
			           T *to = copy[0].v;

			           for (size_t image = 0; image < n; image++)
				           for (int head = 0; head < op.a.heads; head++)
				           {
					           for (int t = 0; t < HOST_ATTN_THREADS; t++)
						           gpu_attn_copy(op.a, gpu_attn_head<T>(op.a, image, head), to, t,
						                         HOST_ATTN_THREADS);
					           for (int q = 0; q < op.a.tokens; q++)
						           gpu_attn_query<T, 2>(op.a, image, head, gpu_attn_copied(op.a, to), q,
						                                scratch.data(), GpuOneLane());
				           }
		           });
	}
	template <class T> int tiled(const GpuGroup<GpuConvOp> &group, size_t n)
	{
		if (group.op[0].a.groups != 1)
			return GPU_DISPATCH_INVALID;
		return all(group,
		           [=](const GpuConvOp &op)
		           {
			           size_t rows = n * (size_t) op.a.oh * (size_t) op.a.ow;

			           for (unsigned b = 0; b < gpu_blocks<GPU_TILE_M, GPU_TILE_N>(op.a, rows); b++)
			           {
				           size_t m0;
				           int n0;

				           gpu_block_at<GPU_TILE_M, GPU_TILE_N>(op.a, b, &m0, &n0);
				           host_tile_block<T>(op.a, rows, m0, n0);
			           }
		           });
	}
	template <class T, class S> int mma(const GpuGroup<GpuConvOp> &group, size_t n)
	{
		return all(group,
		           [=](const GpuConvOp &op)
		           {
			           size_t rows = n * (size_t) op.a.oh * (size_t) op.a.ow;

			           for (unsigned b = 0; b < gpu_blocks<S::M, S::N>(op.a, rows); b++)
			           {
				           size_t m0;
				           int n0;

				           gpu_block_at<S::M, S::N>(op.a, b, &m0, &n0);
				           if (op.a.pre_scale)
					           host_mma_block<T, S, true>(op.a, rows, m0, n0);
				           else
					           host_mma_block<T, S, false>(op.a, rows, m0, n0);
			           }
		           });
	}
};

int
gpu_host_launch(GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n)
{
	static bool backwards;
	HostRunner runner = {{backwards = !backwards}};

	if (kernel >= GPU_TRAIN_FIRST)
		return gpu_host_launch_train(kernel, type, args, count, n);
	return gpu_dispatch(runner, kernel, type, args, count, (size_t) n);
}
