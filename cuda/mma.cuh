/*
 * mma.cuh
 *	  The product of tile.cuh on tensor cores, for fp16 and bf16: loads and
 *	  fragments of one thread.
 *
 * A block of 256 threads makes BM x BN results.  Tiles of 32 k are copied to
 * shared memory by cp.async, three of them in flight; 16 bytes a copy, which
 * are 8 neighbouring channels of one tap, so ci must be a multiple of 8.  The
 * warps multiply by mma.sync m16n8k16 with fp32 sums.  A prologue
 * (act(x * scale + shift), DenseNet's BN and ReLU before a 1x1) is worked in
 * while fragments go from shared memory to registers: the activation is read
 * once and never written.
 *
 * Fragment layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating
 * point type".  With g = lane / 4 and q = lane % 4:
 *	A	registers 0..3: rows g, g + 8, g, g + 8; columns 2q, 2q + 1 (+ 8 in registers 2, 3)
 *	B	registers 0..1: column g; rows 2q, 2q + 1 (+ 8 in register 1)
 *	C	results 0..3: rows g, g, g + 8, g + 8; columns 2q, 2q + 1, 2q, 2q + 1
 * Tile rows are 40 elements apart, so that the 32 lanes of a fragment load
 * meet 32 different banks (20 words times g, plus q).
 */
#ifndef DFX_CUDA_MMA_CUH
#define DFX_CUDA_MMA_CUH

#include <string.h>

#include "cuda/element.cuh"

enum
{
	GPU_MMA_K = 32,
	GPU_MMA_LD = 40,
	GPU_MMA_STAGES = 3,
	GPU_MMA_THREADS = 256,
	GPU_MMA_CHUNK = 8, /* elements of one copy */
	GPU_MMA_CHUNKS = GPU_MMA_K / GPU_MMA_CHUNK
};

/* Shapes of a block: its results, and how its 8 warps share them. */
template <int Bm, int Bn, int WarpsM> struct GpuMmaShape
{
	static const int M = Bm, N = Bn;
	static const int WM = Bm / WarpsM, WN = Bn / (GPU_MMA_THREADS / 32 / WarpsM); /* results of a warp */
	static const int FM = WM / 16, FN = WN / 8;                                   /* fragments of a warp */
	static const int ROWS = Bm * GPU_MMA_CHUNKS / GPU_MMA_THREADS;                /* a thread loads */

	struct Tile
	{
		alignas(16) uint16_t x[GPU_MMA_STAGES][Bm * GPU_MMA_LD];
		alignas(16) uint16_t w[GPU_MMA_STAGES][Bn * GPU_MMA_LD];
	};
	/* Where an output row's window begins in the input. */
	struct Row
	{
		size_t image; /* in elements from a.x */
		int y0, x0;
		bool in;
	};
	struct Thread
	{
		Row row[ROWS];
		float sum[FM][FN][4];
	};
};
typedef GpuMmaShape<128, 128, 4> GpuMma128;
typedef GpuMmaShape<128, 64, 4> GpuMma64;
typedef GpuMmaShape<128, 32, 8> GpuMma32;

/* 16 bytes to shared memory, zeros when !in (from must be readable all the same).  Asynchronous on the
 * device. */
static GPU_HD void
gpu_mma_copy(uint16_t *to, const uint16_t *from, bool in)
{
#ifdef __CUDA_ARCH__
	asm volatile(
	    "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned) __cvta_generic_to_shared(to)),
	    "l"(from), "r"(in ? 16 : 0)
	    : "memory");
#else
	if (in)
		memcpy(to, from, 16);
	else
		memset(to, 0, 16);
#endif
}

static GPU_HD uint32_t
gpu_mma_pair(const uint16_t *from)
{
	return *reinterpret_cast<const uint32_t *>(from);
}

static GPU_HD float
gpu_mma_half(uint32_t pair, int which, const __half *)
{
	__half_raw raw;

	raw.x = (unsigned short) (pair >> (16 * which));
	return __half2float(__half(raw));
}
static GPU_HD float
gpu_mma_half(uint32_t pair, int which, const __nv_bfloat16 *)
{
	__nv_bfloat16_raw raw;

	raw.x = (unsigned short) (pair >> (16 * which));
	return __bfloat162float(__nv_bfloat16(raw));
}

static GPU_HD uint32_t
gpu_mma_bits(float v, const __half *)
{
	return static_cast<__half_raw>(__float2half_rn(v)).x;
}
static GPU_HD uint32_t
gpu_mma_bits(float v, const __nv_bfloat16 *)
{
	return static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(v)).x;
}

template <class S>
static GPU_HD void
gpu_mma_clear(typename S::Thread &t)
{
#pragma unroll
	for (int i = 0; i < S::FM; i++)
#pragma unroll
		for (int j = 0; j < S::FN; j++)
#pragma unroll
			for (int k = 0; k < 4; k++)
				t.sum[i][j][k] = 0;
}

/* Before the first tile. */
template <class S>
static GPU_HD void
gpu_mma_begin(const GpuConvArgs &a, size_t rows, size_t m0, int thread, typename S::Thread &t)
{
	size_t pixels = (size_t) a.oh * (size_t) a.ow;

#pragma unroll
	for (int i = 0; i < S::ROWS; i++)
	{
		size_t row = m0 + (size_t) (thread / GPU_MMA_CHUNKS + i * (GPU_MMA_THREADS / GPU_MMA_CHUNKS));
		int pixel = (int) (row % pixels);

		t.row[i].image = row / pixels * (size_t) a.ih * (size_t) a.iw * (size_t) a.ldx;
		t.row[i].y0 = pixel / a.ow * a.sh - a.ph;
		t.row[i].x0 = pixel % a.ow * a.sw - a.pw;
		t.row[i].in = row < rows;
	}
	gpu_mma_clear<S>(t);
}

/* Phase 1: this thread's share of the tiles at k0, into one stage. */
template <class S>
static GPU_HD void
gpu_mma_load(const GpuConvArgs &a, typename S::Tile &tile, int stage, int n0, int k0, int thread,
             const typename S::Thread &t)
{
	const uint16_t *x = static_cast<const uint16_t *>(a.x), *w = static_cast<const uint16_t *>(a.w);
	int depth = a.kh * a.kw * a.ci;
	int chunk = thread % GPU_MMA_CHUNKS * GPU_MMA_CHUNK, first = thread / GPU_MMA_CHUNKS;
	int k = k0 + chunk, tap = depth == a.ci ? 0 : k / a.ci, c = k - tap * a.ci, ky = tap / a.kw,
	    kx = tap % a.kw;

#pragma unroll
	for (int i = 0; i < S::ROWS; i++)
	{
		int iy = t.row[i].y0 + ky, ix = t.row[i].x0 + kx;
		int m = first + i * (GPU_MMA_THREADS / GPU_MMA_CHUNKS);
		bool in = t.row[i].in && k < depth && gpu_conv_reads(a, &iy, &ix);
		size_t at =
		    t.row[i].image + ((size_t) iy * (size_t) a.iw + (size_t) ix) * (size_t) a.ldx + (size_t) c;

		gpu_mma_copy(&tile.x[stage][m * GPU_MMA_LD + chunk], in ? x + at : x, in);
	}
	for (int n = first; n < S::N; n += GPU_MMA_THREADS / GPU_MMA_CHUNKS)
	{
		bool in = n0 + n < a.co && k < depth;

		gpu_mma_copy(&tile.w[stage][n * GPU_MMA_LD + chunk],
		             in ? w + (size_t) (n0 + n) * (size_t) depth + (size_t) k : w, in);
	}
}

/* act(x * scale + shift) on the two elements of a register, whose channels are c and c + 1. */
template <class T>
static GPU_HD uint32_t
gpu_mma_prologue(const GpuConvArgs &a, uint32_t pair, int c)
{
	const T *type = nullptr;
	float lo, hi;

	if (c >= a.ci)
		return 0; /* beyond the last channel: a zero, whatever the shift */
	lo = gpu_activate(a.pre_act, gpu_mma_half(pair, 0, type) * a.pre_scale[c] + a.pre_shift[c]);
	hi = gpu_activate(a.pre_act, gpu_mma_half(pair, 1, type) * a.pre_scale[c + 1] + a.pre_shift[c + 1]);
	return gpu_mma_bits(lo, type) | gpu_mma_bits(hi, type) << 16;
}

/* Phase 2a: the A fragment i of this lane's warp at columns kk.. of a stage; k is the tile's first. */
template <class T, class S, bool Pre>
static GPU_HD void
gpu_mma_fragment_x(const GpuConvArgs &a, const typename S::Tile &tile, int stage, int warp, int lane, int i,
                   int k, int kk, uint32_t (&frag)[4])
{
	int m = warp % (S::M / S::WM) * S::WM + i * 16 + lane / 4, c = kk + lane % 4 * 2;
	const uint16_t *x = tile.x[stage];

	frag[0] = gpu_mma_pair(&x[m * GPU_MMA_LD + c]);
	frag[1] = gpu_mma_pair(&x[(m + 8) * GPU_MMA_LD + c]);
	frag[2] = gpu_mma_pair(&x[m * GPU_MMA_LD + c + 8]);
	frag[3] = gpu_mma_pair(&x[(m + 8) * GPU_MMA_LD + c + 8]);
#pragma unroll
	for (int r = 0; Pre && r < 4; r++)
		frag[r] = gpu_mma_prologue<T>(a, frag[r], k + c + r / 2 * 8);
}

/* Phase 2b: the B fragment j. */
template <class S>
static GPU_HD void
gpu_mma_fragment_w(const typename S::Tile &tile, int stage, int warp, int lane, int j, int kk,
                   uint32_t (&frag)[2])
{
	int n = warp / (S::M / S::WM) * S::WN + j * 8 + lane / 4, c = kk + lane % 4 * 2;
	const uint16_t *w = tile.w[stage];

	frag[0] = gpu_mma_pair(&w[n * GPU_MMA_LD + c]);
	frag[1] = gpu_mma_pair(&w[n * GPU_MMA_LD + c + 8]);
}

/* Two neighbouring results of one row, written together where the row allows it. */
template <class T>
static GPU_HD void
gpu_mma_put(const GpuConvArgs &a, size_t row, int n, float first, float second)
{
	T *y = static_cast<T *>(a.y) + row * (size_t) a.ldy + (size_t) n;
	GpuPack<T, 2> pack;

	gpu_put(&pack.v[0], gpu_epilogue<T>(a.epi, first, row, n));
	if (n + 1 >= a.co)
	{
		*y = pack.v[0];
		return;
	}
	gpu_put(&pack.v[1], gpu_epilogue<T>(a.epi, second, row, n + 1));
	if (reinterpret_cast<uintptr_t>(y) % sizeof pack == 0)
		gpu_store<T, 2>(y, pack);
	else
	{
		y[0] = pack.v[0];
		y[1] = pack.v[1];
	}
}

/* Phase 3, after the last tile. */
template <class T, class S>
static GPU_HD void
gpu_mma_store(const GpuConvArgs &a, size_t rows, size_t m0, int n0, int thread, const typename S::Thread &t)
{
	int warp = thread / 32, lane = thread % 32;

#pragma unroll
	for (int i = 0; i < S::FM; i++)
#pragma unroll
		for (int j = 0; j < S::FN; j++)
#pragma unroll
			for (int r = 0; r < 2; r++)
			{
				size_t row = m0 + (size_t) (warp % (S::M / S::WM) * S::WM + i * 16 + lane / 4 + r * 8);
				int n = n0 + warp / (S::M / S::WM) * S::WN + j * 8 + lane % 4 * 2;

				if (row < rows && n < a.co)
					gpu_mma_put<T>(a, row, n, t.sum[i][j][2 * r], t.sum[i][j][2 * r + 1]);
			}
}

#endif /* DFX_CUDA_MMA_CUH */
