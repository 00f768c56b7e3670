/*
 * mma_train.cuh
 *	  The gradient of a convolution's weights on tensor cores, in bf16: loads
 *	  and results of one thread; fragments are mma.cuh's.
 *
 * The product's rows are (tap, ci), its columns output channels, and the sum
 * runs over a chunk's output pixels.  Memory has channels together and the
 * fragments want pixels together, so each thread turns what it loads: 8
 * channels of one pixel (one access) go to 8 rows of the tile, and the 32
 * lanes of a warp have 32 neighbouring pixels, which meet 16 different banks
 * in pairs.  Two stages are enough: what is written while the other one is
 * multiplied was last read before the barrier between.
 */
#ifndef DFX_CUDA_MMA_TRAIN_CUH
#define DFX_CUDA_MMA_TRAIN_CUH

#include "cuda/mma.cuh"
#include "cuda/reduce_train.cuh"

#define GPU_WGRAD_WARPS (GPU_MMA_THREADS / 32)

/* Whether it can take a product; channels go in eights. */
static inline bool
gpu_wgrad_mma_fits(const GpuWgradArgs &a)
{
	const GpuConvArgs &v = a.conv;

	return v.groups == 1 && v.ci % GPU_MMA_CHUNK == 0 && v.ldx % GPU_MMA_CHUNK == 0 &&
	       v.co % GPU_MMA_CHUNK == 0 && a.lddy % GPU_MMA_CHUNK == 0 &&
	       reinterpret_cast<uintptr_t>(v.x) % 16 == 0 && reinterpret_cast<uintptr_t>(a.dy) % 16 == 0;
}

/* What a thread knows of the tile's rows that it loads: the tap and the first of 8 channels. */
template <class S> struct GpuWgradThread
{
	static const int CHUNKS = S::M / GPU_MMA_CHUNK / GPU_WGRAD_WARPS;
	typename S::Thread mma; /* its sums */
	int ky[CHUNKS], kx[CHUNKS], c[CHUNKS];
	bool in[CHUNKS];
};

template <class S>
static GPU_HD void
gpu_wgrad_mma_begin(const GpuWgradArgs &a, int m0, int thread, GpuWgradThread<S> &t)
{
#pragma unroll
	for (int i = 0; i < GpuWgradThread<S>::CHUNKS; i++)
	{
		int m = m0 + (thread / 32 + i * GPU_WGRAD_WARPS) * GPU_MMA_CHUNK, tap = m / a.conv.ci;

		t.ky[i] = tap / a.conv.kw;
		t.kx[i] = tap % a.conv.kw;
		t.c[i] = m % a.conv.ci;
		t.in[i] = m < gpu_wgrad_depth(a);
	}
	gpu_mma_clear<S>(t.mma);
}

/* 8 channels of a pixel to 8 rows of a tile, at the pixel's column; zeros when !in. */
static GPU_HD void
gpu_wgrad_turn(uint16_t *to, const uint16_t *from, bool in)
{
	GpuPack<uint16_t, GPU_MMA_CHUNK> p = {};

	if (in)
		p = gpu_load<uint16_t, GPU_MMA_CHUNK>(from);
#pragma unroll
	for (int k = 0; k < GPU_MMA_CHUNK; k++)
		to[k * GPU_MMA_LD] = p.v[k];
}

/* Phase 1: this thread's share of the tiles of output pixels first .., into one stage. */
template <class S>
static GPU_HD void
gpu_wgrad_mma_load(const GpuWgradArgs &a, typename S::Tile &tile, int stage, int n0, size_t first, size_t end,
                   int thread, const GpuWgradThread<S> &t)
{
	const GpuConvArgs &v = a.conv;
	const uint16_t *x = static_cast<const uint16_t *>(v.x), *dy = static_cast<const uint16_t *>(a.dy);
	int lane = thread % 32, warp = thread / 32;
	size_t row = first + (size_t) lane, pixels = (size_t) v.oh * (size_t) v.ow, image = row / pixels;
	int pixel = (int) (row % pixels), y0 = pixel / v.ow * v.sh - v.ph, x0 = pixel % v.ow * v.sw - v.pw;

#pragma unroll
	for (int i = 0; i < GpuWgradThread<S>::CHUNKS; i++)
	{
		int iy = y0 + t.ky[i], ix = x0 + t.kx[i], m = (warp + i * GPU_WGRAD_WARPS) * GPU_MMA_CHUNK;
		bool in = t.in[i] && row < end && iy >= 0 && iy < v.ih && ix >= 0 && ix < v.iw;
		size_t at = ((image * (size_t) v.ih + (size_t) iy) * (size_t) v.iw + (size_t) ix) * (size_t) v.ldx;

		gpu_wgrad_turn(&tile.x[stage][m * GPU_MMA_LD + lane], in ? x + at + t.c[i] : x, in);
	}
	for (int n = warp * GPU_MMA_CHUNK; n < S::N; n += GPU_WGRAD_WARPS * GPU_MMA_CHUNK)
	{
		bool in = row < end && n0 + n < v.co;

		gpu_wgrad_turn(&tile.w[stage][n * GPU_MMA_LD + lane],
		               in ? dy + row * (size_t) a.lddy + (size_t) (n0 + n) : dy, in);
	}
}

/* Phase 3, after the last tile. */
template <class S>
static GPU_HD void
gpu_wgrad_mma_store(const GpuWgradArgs &a, int m0, int n0, size_t chunk, int thread,
                    const GpuWgradThread<S> &t)
{
	int warp = thread / 32, lane = thread % 32, depth = gpu_wgrad_depth(a);

#pragma unroll
	for (int i = 0; i < S::FM; i++)
#pragma unroll
		for (int j = 0; j < S::FN; j++)
#pragma unroll
			for (int r = 0; r < 4; r++)
			{
				int m = m0 + warp % (S::M / S::WM) * S::WM + i * 16 + lane / 4 + r / 2 * 8;
				int n = n0 + warp / (S::M / S::WM) * S::WN + j * 8 + lane % 4 * 2 + r % 2;

				if (m < depth && n < a.conv.co)
					a.part[(chunk * (size_t) a.conv.co + (size_t) n) * (size_t) depth + (size_t) m] =
					    t.mma.sum[i][j][r];
			}
}

#endif /* DFX_CUDA_MMA_TRAIN_CUH */
