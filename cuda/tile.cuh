/*
 * tile.cuh
 *	  The plain path of every dense product: an implicit matrix product in
 *	  tiles, in fp32 arithmetic whatever the storage, as phases of one thread.
 *
 * Rows of the product are output pixels over all images, columns are output
 * channels, and the sum runs over k = (ky, kx, ci).  A block of 256 threads
 * makes 64 x 64 results, 4 x 4 a thread, from tiles of 16 k that it loads
 * into shared memory.  Slow and simple: it is what faster paths are held
 * against, and what runs where they do not apply.
 */
#ifndef DFX_CUDA_TILE_CUH
#define DFX_CUDA_TILE_CUH

#include "cuda/element.cuh"

enum
{
	GPU_TILE_M = 64,
	GPU_TILE_N = 64,
	GPU_TILE_K = 16,
	GPU_TILE_THREADS = 256,
	GPU_TILE_EACH = 4 /* results a thread makes along each side */
};

struct GpuTile
{
	float x[GPU_TILE_K][GPU_TILE_M];
	float w[GPU_TILE_K][GPU_TILE_N];
};

/*
 * Blocks of M x N results over rows x co of them, numbered along the columns
 * first, whose blocks read the same input.  A grid has them all along its first
 * side: the others end at 65,535, and 256 images of 128 x 128 are more rows of
 * blocks than that.
 */
template <int M, int N>
static GPU_HD size_t
gpu_blocks(const GpuConvArgs &a, size_t rows)
{
	return (rows + M - 1) / M * (size_t) ((a.co + N - 1) / N);
}
template <int M, int N>
static GPU_HD void
gpu_block_at(const GpuConvArgs &a, unsigned block, size_t *m0, int *n0)
{
	unsigned across = (unsigned) (a.co + N - 1) / N;

	*m0 = (size_t) (block / across) * M;
	*n0 = (int) (block % across) * N;
}

/* The input that output row `row` multiplies with weight k, 0 outside the image. */
template <class T>
static GPU_HD float
gpu_tile_x(const GpuConvArgs &a, size_t row, int k)
{
	size_t image = row / ((size_t) a.oh * (size_t) a.ow);
	int pixel = (int) (row % ((size_t) a.oh * (size_t) a.ow));
	int c = k % a.ci, tap = k / a.ci;
	int iy = pixel / a.ow * a.sh - a.ph + tap / a.kw, ix = pixel % a.ow * a.sw - a.pw + tap % a.kw;
	float v;

	if (!gpu_conv_reads(a, &iy, &ix))
		return 0;
	v = gpu_get(static_cast<const T *>(
	    a.x)[((image * (size_t) a.ih + (size_t) iy) * (size_t) a.iw + (size_t) ix) * (size_t) a.ldx +
	         (size_t) c]);
	return a.pre_scale ? gpu_activate(a.pre_act, v * a.pre_scale[c] + a.pre_shift[c]) : v;
}

/* Phase 1: this thread's share of the tiles from (m0, k0) and (n0, k0). */
template <class T>
static GPU_HD void
gpu_tile_load(const GpuConvArgs &a, GpuTile &tile, size_t rows, size_t m0, int n0, int k0, int thread)
{
	int depth = a.kh * a.kw * a.ci;

	for (int i = thread; i < GPU_TILE_M * GPU_TILE_K; i += GPU_TILE_THREADS)
	{
		int k = i % GPU_TILE_K, m = i / GPU_TILE_K;
		bool in = m0 + (size_t) m < rows && k0 + k < depth;

		tile.x[k][m] = in ? gpu_tile_x<T>(a, m0 + (size_t) m, k0 + k) : 0.0f;
	}
	for (int i = thread; i < GPU_TILE_N * GPU_TILE_K; i += GPU_TILE_THREADS)
	{
		int k = i % GPU_TILE_K, n = i / GPU_TILE_K;
		bool in = n0 + n < a.co && k0 + k < depth;

		tile.w[k][n] =
		    in ? gpu_get(static_cast<const T *>(a.w)[(size_t) (n0 + n) * (size_t) depth + (size_t) (k0 + k)])
		       : 0.0f;
	}
}

/* Phase 2: add this tile's products to the thread's results. */
static GPU_HD void
gpu_tile_add(const GpuTile &tile, int thread, float (&sum)[GPU_TILE_EACH][GPU_TILE_EACH])
{
	int m = thread / (GPU_TILE_N / GPU_TILE_EACH) * GPU_TILE_EACH;
	int n = thread % (GPU_TILE_N / GPU_TILE_EACH) * GPU_TILE_EACH;

#pragma unroll
	for (int k = 0; k < GPU_TILE_K; k++)
#pragma unroll
		for (int i = 0; i < GPU_TILE_EACH; i++)
#pragma unroll
			for (int j = 0; j < GPU_TILE_EACH; j++)
				sum[i][j] += tile.x[k][m + i] * tile.w[k][n + j];
}

/* Phase 3, after the last tile. */
template <class T>
static GPU_HD void
gpu_tile_store(const GpuConvArgs &a, size_t rows, size_t m0, int n0, int thread,
               const float (&sum)[GPU_TILE_EACH][GPU_TILE_EACH])
{
	size_t m = m0 + (size_t) (thread / (GPU_TILE_N / GPU_TILE_EACH) * GPU_TILE_EACH);
	int n = n0 + thread % (GPU_TILE_N / GPU_TILE_EACH) * GPU_TILE_EACH;

#pragma unroll
	for (int i = 0; i < GPU_TILE_EACH; i++)
#pragma unroll
		for (int j = 0; j < GPU_TILE_EACH; j++)
			if (m + (size_t) i < rows && n + j < a.co)
				gpu_put(static_cast<T *>(a.y) + (m + (size_t) i) * (size_t) a.ldy + (size_t) (n + j),
				        gpu_epilogue<T>(a.epi, sum[i][j], m + (size_t) i, n + j));
}

#endif /* DFX_CUDA_TILE_CUH */
