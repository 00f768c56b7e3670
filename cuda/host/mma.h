/*
 * mma.h
 *	  A warp's products on tensor cores, on the host: mma.sync is done by taking
 *	  the fragments of its 32 lanes apart by the layout that the PTX ISA gives.
 */
#ifndef DFX_CUDA_HOST_MMA_H
#define DFX_CUDA_HOST_MMA_H

#include <vector>

#include "cuda/mma.cuh"

/* The two elements of a register. */
template <class T>
static void
host_pair(uint32_t pair, float *first, float *second)
{
	*first = gpu_mma_half(pair, 0, static_cast<const T *>(nullptr));
	*second = gpu_mma_half(pair, 1, static_cast<const T *>(nullptr));
}

/* The 16 x 16 A of a warp's m16n8k16, out of its lanes' fragments. */
template <class T, class S, bool Pre>
static void
host_mma_x(const GpuConvArgs &a, const typename S::Tile &tile, int stage, int warp, int i, int k, int kk,
           float (*x)[16])
{
	for (int lane = 0; lane < 32; lane++)
	{
		int g = lane / 4, q = lane % 4 * 2;
		uint32_t frag[4];

		gpu_mma_fragment_x<T, S, Pre>(a, tile, stage, warp, lane, i, k, kk, frag);
		host_pair<T>(frag[0], &x[g][q], &x[g][q + 1]);
		host_pair<T>(frag[1], &x[g + 8][q], &x[g + 8][q + 1]);
		host_pair<T>(frag[2], &x[g][q + 8], &x[g][q + 9]);
		host_pair<T>(frag[3], &x[g + 8][q + 8], &x[g + 8][q + 9]);
	}
}

/* The 16 x 8 B. */
template <class T, class S>
static void
host_mma_w(const typename S::Tile &tile, int stage, int warp, int j, int kk, float (*w)[8])
{
	for (int lane = 0; lane < 32; lane++)
	{
		int g = lane / 4, q = lane % 4 * 2;
		uint32_t frag[2];

		gpu_mma_fragment_w<S>(tile, stage, warp, lane, j, kk, frag);
		host_pair<T>(frag[0], &w[q][g], &w[q + 1][g]);
		host_pair<T>(frag[1], &w[q + 8][g], &w[q + 9][g]);
	}
}

/* The product, added to the results of 32 lanes. */
template <class Thread, class Sum>
static void
host_mma(const float (*x)[16], const float (*w)[8], Thread *lanes, Sum sum)
{
	float d[16][8] = {};

	for (int row = 0; row < 16; row++)
		for (int k = 0; k < 16; k++)
			for (int column = 0; column < 8; column++)
				d[row][column] += x[row][k] * w[k][column];
	for (int lane = 0; lane < 32; lane++)
		for (int r = 0; r < 4; r++)
			sum(lanes[lane])[r] += d[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
}

template <class T, class S, bool Pre>
static void
host_mma_stage(const GpuConvArgs &a, const typename S::Tile &tile, int stage, int k0,
               std::vector<typename S::Thread> &threads)
{
	static float x[S::FM][16][16], w[S::FN][16][8];

	for (int warp = 0; warp < GPU_MMA_THREADS / 32; warp++)
		for (int kk = 0; kk < GPU_MMA_K; kk += 16)
		{
			for (int i = 0; i < S::FM; i++)
				host_mma_x<T, S, Pre>(a, tile, stage, warp, i, k0, kk, x[i]);
			for (int j = 0; j < S::FN; j++)
				host_mma_w<T, S>(tile, stage, warp, j, kk, w[j]);
			for (int i = 0; i < S::FM; i++)
				for (int j = 0; j < S::FN; j++)
					host_mma(x[i], w[j], &threads[warp * 32],
					         [=](typename S::Thread &t) { return t.sum[i][j]; });
		}
}

#endif /* DFX_CUDA_HOST_MMA_H */
