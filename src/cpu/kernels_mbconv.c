/*
 * kernels_mbconv.c
 *	  The loops of inverted residual blocks, for AVX-512.
 *
 * A 1x1 convolution in nChw16c is a product of matrices: a tile of pixels
 * stays in registers, each input channel's 16 weights are loaded once for it,
 * and each pixel's number is broadcast from memory.  In bf16 a unit is two
 * neighbouring channels, which one instruction multiplies and adds, and which
 * are one 32-bit word of a pixel.  So both types walk through words alike.
 *
 * spread() takes one block of 16 channels from the source to the result of the
 * depthwise convolution: a row of the map between them is made when the
 * depthwise kernel gets to it, in floats, and lives in a ring of as many rows as
 * the kernel is high, in the first or second cache.  So the map, for an
 * expansion six times the size of its source, is never stored.
 *
 * Vectors of 16 floats are written as intrinsics because products must be
 * fused with sums here: everything else would halve the speed.
 */
#include "cpu/kernels_mbconv.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/*
 * One target for both tables, so that one body makes both; the instructions
 * of bf16 stand in branches that the table of floats does not have.
 */
#define TARGET                                                                                               \
	__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,prefer-vector-width=512")))
#define KERNEL TARGET static inline __attribute__((always_inline))
/* i from 0 to below n, a constant, without a loop. */
#define TIMES(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); i++)

#define BLOCK CPU_MB_BLOCK
#define MAX_K 5

/* y / (1 + exp(-x)), within 1e-6 of it; what is not finite comes out as it does by that formula. */
KERNEL __m512
mb_logistic(__m512 y, __m512 x)
{
	/* exp(-x) = 2^t = 2^n 2^f with n whole and |f| <= 1/2; the polynomial is 2^f within 2e-7. */
	__m512 t = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
	__m512 n = _mm512_roundscale_ps(t, 0), f = _mm512_reduce_ps(t, 0);
	__m512 p = _mm512_set1_ps(1.3276472e-3f);

	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6755413e-3f));
	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5507133e-2f));
	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022212e-1f));
	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314698e-1f));
	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0000001f));
	return _mm512_div_ps(y, _mm512_add_ps(_mm512_set1_ps(1), _mm512_scalef_ps(p, n)));
}

KERNEL __m512
mb_silu(__m512 x)
{
	return mb_logistic(x, x);
}

KERNEL __m512
mb_act(DfxAct act, __m512 x)
{
	return act == DFX_ACT_NONE ? x : mb_logistic(act == DFX_ACT_SILU ? x : _mm512_set1_ps(1), x);
}

/* 16 numbers, number i of an array of the type on. */
KERNEL __m512
mb_load(const bool half, const void *p, size_t i)
{
	if (half)
		return _mm512_castsi512_ps(_mm512_slli_epi32(
		    _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *) ((const uint16_t *) p + i))), 16));
	return _mm512_loadu_ps((const float *) p + i);
}

KERNEL void
mb_store(const bool half, void *p, size_t i, __m512 x)
{
	if (half)
		_mm256_storeu_si256((void *) ((uint16_t *) p + i), (__m256i) _mm512_cvtneps_pbh(x));
	else
		_mm512_storeu_ps((float *) p + i, x);
}

/* Words of a pixel's block. */
KERNEL int
mb_words(const bool half)
{
	return half ? BLOCK / 2 : BLOCK;
}

/* acc + weights times a unit of one pixel. */
KERNEL __m512
mb_madd(const bool half, __m512 acc, const uint32_t *weights, const uint32_t *unit)
{
	float x;
	int pair;

	if (half)
	{
		memcpy(&pair, unit, sizeof pair);
		return _mm512_dpbf16_ps(acc, (__m512bh) _mm512_loadu_si512(weights),
		                        (__m512bh) _mm512_set1_epi32(pair));
	}
	memcpy(&x, unit, sizeof x);
	return _mm512_fmadd_ps(_mm512_loadu_ps(weights), _mm512_set1_ps(x), acc);
}

/*
 * nb x t sums: t neighbouring pixels, from x on, whose channels' blocks are
 * plane words apart; nb blocks of weights, each of so many units.
 */
KERNEL void
mb_products(const bool half, const int nb, const int t, __m512 *acc, const uint32_t *x, size_t plane,
            size_t units, const uint32_t *weights)
{
	const size_t words = (size_t) mb_words(half), block = units * BLOCK;

	for (size_t k = 0; k < units; k += words, x += plane)
		for (size_t u = 0; u < words && k + u < units; u++, weights += BLOCK)
		{
			TIMES(i, t)
			{
				TIMES(b, nb)
				{
					acc[b * t + i] = mb_madd(half, acc[b * t + i], weights + (size_t) b * block,
					                         x + (size_t) i * words + u);
				}
			}
		}
}

/* ---- spread ---- */

/* Calls tile(t, i) for pixels i .. i + t - 1 of a row of the map, until all have had their turn. */
#define MAP_TILES(tile)                                                                                      \
	do                                                                                                       \
	{                                                                                                        \
		int i = 0;                                                                                           \
                                                                                                             \
		for (; i + 16 <= g->w; i += 16)                                                                      \
			tile(16, i);                                                                                     \
		for (; i + 8 <= g->w; i += 8)                                                                        \
			tile(8, i);                                                                                      \
		for (; i < g->w; i++)                                                                                \
			tile(1, i);                                                                                      \
	} while (0)

KERNEL void
mb_start(const int t, __m512 *acc, const float *bias)
{
	TIMES(i, t)
	{
		acc[i] = _mm512_loadu_ps(bias);
	}
}

KERNEL void
mb_end_silu(const int t, float *to, const __m512 *acc)
{
	TIMES(i, t)
	{
		_mm512_storeu_ps(to + (size_t) i * BLOCK, mb_silu(acc[i]));
	}
}

KERNEL void
mb_point_tile(const bool half, const int t, float *to, const uint32_t *x, const CpuMbSpread *g,
              const CpuMbParams *p)
{
	const size_t plane = (size_t) g->h * (size_t) g->w * (size_t) mb_words(half);
	__m512 acc[16];

	mb_start(t, acc, p->bias);
	mb_products(half, 1, t, acc, x, plane, cpu_mb_units(g->ci, half ? CPU_BF16 : CPU_F32), p->weights);
	mb_end_silu(t, to, acc);
}

/* A row of the map, expanded. */
KERNEL void
mb_point_row(const bool half, float *to, const void *src, const CpuMbSpread *g, const CpuMbParams *p, int y)
{
	const size_t words = (size_t) mb_words(half);
	const uint32_t *x = (const uint32_t *) src + (size_t) y * (size_t) g->w * words;

#define TILE(t, i) mb_point_tile(half, t, to + BLOCK * (size_t) (i), x + words * (size_t) (i), g, p)
	MAP_TILES(TILE);
#undef TILE
}

/* x: the first pixel's window in the first of the rows, which are pitch floats apart. */
KERNEL void
mb_stem_tile(const int t, float *to, const float *x, size_t pitch, const CpuMbSpread *g, const CpuMbParams *p)
{
	const float *w = p->weights;
	__m512 acc[16];

	mb_start(t, acc, p->bias);
	for (int r = 0; r < g->ci * CPU_MB_STEM_K; r++, x += pitch)
		for (int j = 0; j < CPU_MB_STEM_K; j++, w += BLOCK)
		{
			TIMES(i, t)
			{
				acc[i] = _mm512_fmadd_ps(_mm512_loadu_ps(w), _mm512_set1_ps(x[2 * i + j]), acc[i]);
			}
		}
	mb_end_silu(t, to, acc);
}

/* n numbers, as floats. */
KERNEL void
mb_widen(const bool half, float *to, const void *src, size_t from, size_t n)
{
	size_t i = 0;

	for (; i + BLOCK <= n; i += BLOCK)
		_mm512_storeu_ps(to + i, mb_load(half, src, from + i));
	for (; half && i < n; i++)
	{
		uint32_t bits = (uint32_t) ((const uint16_t *) src)[from + i] << 16;

		memcpy(to + i, &bits, sizeof bits);
	}
	for (; i < n; i++)
		to[i] = ((const float *) src)[from + i];
}

/* A row of the map, made by the stem: first the image's rows that it needs, padded with zeros. */
KERNEL void
mb_stem_row(const bool half, float *to, const void *src, float *rows, const CpuMbSpread *g,
            const CpuMbParams *p, int y)
{
	const size_t width = (size_t) g->iw, pitch = 2 * (size_t) g->w + CPU_MB_STEM_K;

	for (int c = 0; c < g->ci; c++)
		for (int r = 0; r < CPU_MB_STEM_K; r++)
		{
			float *row = rows + (size_t) (c * CPU_MB_STEM_K + r) * pitch;
			const int at = 2 * y - 1 + r;

			memset(row, 0, pitch * sizeof *row);
			if (at >= 0 && at < g->ih)
				mb_widen(half, row + 1, src, ((size_t) c * (size_t) g->ih + (size_t) at) * width, width);
		}
#define TILE(t, i) mb_stem_tile(t, to + BLOCK * (size_t) (i), rows + 2 * (size_t) (i), pitch, g, p)
	MAP_TILES(TILE);
#undef TILE
}

/* Row y of the map, in floats; compiled once for each type, as mb_row_*. */
typedef void (*MbRow)(float *to, const void *src, float *stem, const CpuMbSpread *g, const CpuMbParams *p,
                      int y);

KERNEL void
mb_map_row(const bool half, float *to, const void *src, float *stem, const CpuMbSpread *g,
           const CpuMbParams *p, int y)
{
	const size_t width = (size_t) g->w * BLOCK;

	if (g->source == CPU_MB_POINT)
		mb_point_row(half, to, src, g, p, y);
	else if (g->source == CPU_MB_STEM)
		mb_stem_row(half, to, src, stem, g, p, y);
	else
		mb_widen(half, to, src, (size_t) y * width, width);
}

/* t pixels of the result, of which the first's window starts at row[] (those from y0 to y1 are in the image).
 */
KERNEL __m512
mb_depth_tile(const bool half, const int k, const int s, const int t, void *dst, size_t at, float *const *row,
              size_t from, int y0, int y1, const CpuMbParams *p)
{
	__m512 acc[8], sum = _mm512_setzero_ps();

	mb_start(t, acc, p->depth_bias);
	for (int y = y0; y < y1; y++)
	{
		const float *x = row[y] + from;

		TIMES(j, k)
		{
			__m512 w = _mm512_loadu_ps(p->depth + (size_t) (y * k + j) * BLOCK);

			TIMES(i, t)
			{
				acc[i] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x + (size_t) (i * s + j) * BLOCK), acc[i]);
			}
		}
	}
	TIMES(i, t)
	{
		__m512 y = mb_silu(acc[i]);

		mb_store(half, dst, at + (size_t) i * BLOCK, y);
		sum = _mm512_add_ps(sum, y);
	}
	return sum;
}

/* Row oy of the result; its sum. */
KERNEL __m512
mb_depth_row(const bool half, const int k, const int s, void *dst, float *const *row, const CpuMbSpread *g,
             const CpuMbParams *p, int oy)
{
	const int above = k / 2 - oy * s, below = oy * s - k / 2 + k - g->h;
	const int y0 = above > 0 ? above : 0, y1 = below > 0 ? k - below : k;
	const size_t first = (size_t) oy * (size_t) g->ow;
	__m512 sum = _mm512_setzero_ps();
	int i = 0;

	for (; i + 8 <= g->ow; i += 8)
		sum = _mm512_add_ps(sum, mb_depth_tile(half, k, s, 8, dst, (first + (size_t) i) * BLOCK, row,
		                                       (size_t) (i * s) * BLOCK, y0, y1, p));
	for (; i < g->ow; i++)
		sum = _mm512_add_ps(sum, mb_depth_tile(half, k, s, 1, dst, (first + (size_t) i) * BLOCK, row,
		                                       (size_t) (i * s) * BLOCK, y0, y1, p));
	return sum;
}

/* Row y of the map lies in slot y % k of the ring, between k / 2 pixels of zeros on either side. */
KERNEL void
mb_spread_body(const bool half, MbRow make, const int k, const int s, void *dst, float *mean, float *scratch,
               const void *src, const CpuMbSpread *g, const CpuMbParams *p)
{
	const size_t pad = (size_t) (k / 2) * BLOCK, pitch = (size_t) (g->w + k - 1) * BLOCK;
	float *row[MAX_K], *ring = scratch, *stem = scratch + cpu_mb_ring_floats(g);
	__m512 sum = _mm512_setzero_ps();
	int made = 0;

	for (int i = 0; i < k; i++)
	{
		memset(ring + (size_t) i * pitch, 0, pad * sizeof *ring);
		memset(ring + (size_t) (i + 1) * pitch - pad, 0, pad * sizeof *ring);
	}
	for (int oy = 0; oy < g->oh; oy++)
	{
		const int top = oy * s - k / 2, end = top + k < g->h ? top + k : g->h;

		for (; made < end; made++)
			make(ring + (size_t) (made % k) * pitch + pad, src, stem, g, p, made);
		for (int i = 0; i < k; i++)
			row[i] = ring + (size_t) ((top + i + k) % k) * pitch;
		sum = _mm512_add_ps(sum, mb_depth_row(half, k, s, dst, row, g, p, oy));
	}
	_mm512_storeu_ps(mean, _mm512_mul_ps(sum, _mm512_set1_ps(1.0f / (float) (g->oh * g->ow))));
}

/* ---- project ---- */

/* t pixels of nb blocks; at: the first one's place. */
KERNEL void
mb_project_tile(const bool half, const int nb, const int t, void *dst, const void *add, const void *src,
                size_t at, const CpuMbProject *g, const void *weights, const float *bias)
{
	const size_t words = (size_t) mb_words(half), units = cpu_mb_units(g->ci, half ? CPU_BF16 : CPU_F32);
	__m512 acc[16];

	TIMES(b, nb)
	{
		mb_start(t, acc + b * t, bias + (size_t) b * BLOCK);
	}
	mb_products(half, nb, t, acc, (const uint32_t *) src + at * words, g->npix * words, units, weights);
	TIMES(i, nb * t)
	{
		const size_t to = ((size_t) (i / t) * g->npix + at + (size_t) (i % t)) * BLOCK;
		__m512 y = acc[i];

		if (add)
			y = _mm512_add_ps(y, mb_load(half, add, to));
		mb_store(half, dst, to, mb_act(g->act, y));
	}
}

KERNEL void
mb_project_body(const bool half, const int nb, void *dst, const void *add, const void *src,
                const CpuMbProject *g, const void *weights, const float *bias)
{
	const size_t tile = (size_t) (16 / nb);
	size_t i = 0;

	for (; i + tile <= g->npix; i += tile)
		mb_project_tile(half, nb, 16 / nb, dst, add, src, i, g, weights, bias);
	for (; i < g->npix; i++)
		mb_project_tile(half, nb, 1, dst, add, src, i, g, weights, bias);
}

/* ---- tables ---- */

TARGET static void
mb_weights_f32(void *to, const float *ready, const float *factor, int ci)
{
	if (factor == NULL)
	{
		memcpy(to, ready, (size_t) ci * BLOCK * sizeof *ready);
		return;
	}
	for (size_t k = 0; k < (size_t) ci; k++)
		_mm512_storeu_ps((float *) to + k * BLOCK,
		                 _mm512_mul_ps(_mm512_loadu_ps(ready + k * BLOCK), _mm512_set1_ps(factor[k])));
}

/* Where ci is odd, the last pair's second factor is 1, and its weights are 0. */
TARGET static void
mb_weights_bf16(void *to, const float *ready, const float *factor, int ci)
{
	for (int k = 0; k < ci; k += 2, ready += 2 * BLOCK, to = (uint16_t *) to + 2 * BLOCK)
	{
		const float pair[2] = {factor ? factor[k] : 1, factor && k + 1 < ci ? factor[k + 1] : 1};
		double both;
		__m512 f, low, high;

		memcpy(&both, pair, sizeof both);
		f = _mm512_castpd_ps(_mm512_set1_pd(both));
		low = _mm512_mul_ps(_mm512_loadu_ps(ready), f);
		high = _mm512_mul_ps(_mm512_loadu_ps(ready + BLOCK), f);
		_mm512_storeu_si512(to, (__m512i) _mm512_cvtne2ps_pbh(high, low));
	}
}

/* Kernel sizes and strides as constants, so that windows are unrolled. */
#define TABLE(suffix, half, label)                                                                           \
	TARGET __attribute__((noinline)) static void mb_row_##suffix(                                            \
	    float *to, const void *src, float *stem, const CpuMbSpread *g, const CpuMbParams *p, int y)          \
	{                                                                                                        \
		mb_map_row(half, to, src, stem, g, p, y);                                                            \
	}                                                                                                        \
	TARGET static void mb_spread_##suffix(void *dst, float *mean, float *scratch, const void *src,           \
	                                      const CpuMbSpread *g, const CpuMbParams *p)                        \
	{                                                                                                        \
		if (g->k == 3 && g->s == 1)                                                                          \
			mb_spread_body(half, mb_row_##suffix, 3, 1, dst, mean, scratch, src, g, p);                      \
		else if (g->k == 3)                                                                                  \
			mb_spread_body(half, mb_row_##suffix, 3, 2, dst, mean, scratch, src, g, p);                      \
		else if (g->s == 1)                                                                                  \
			mb_spread_body(half, mb_row_##suffix, 5, 1, dst, mean, scratch, src, g, p);                      \
		else                                                                                                 \
			mb_spread_body(half, mb_row_##suffix, 5, 2, dst, mean, scratch, src, g, p);                      \
	}                                                                                                        \
	TARGET static void mb_project_##suffix(void *dst, const void *add, const void *src,                      \
	                                       const CpuMbProject *g, int nb, const void *weights,               \
	                                       const float *bias)                                                \
	{                                                                                                        \
		if (nb == 2)                                                                                         \
			mb_project_body(half, 2, dst, add, src, g, weights, bias);                                       \
		else                                                                                                 \
			mb_project_body(half, 1, dst, add, src, g, weights, bias);                                       \
	}                                                                                                        \
	static const CpuMbKernels mb_kernels_##suffix = {label, mb_weights_##suffix, mb_spread_##suffix,         \
	                                                 mb_project_##suffix};

TABLE(f32, false, "avx512")
TABLE(bf16, true, "avx512_bf16")

const CpuMbKernels *
cpu_mb_kernels(void)
{
	return &mb_kernels_f32;
}

const CpuMbKernels *
cpu_mb_bf16_kernels(void)
{
	return &mb_kernels_bf16;
}

#else

const CpuMbKernels *
cpu_mb_kernels(void)
{
	return NULL;
}

const CpuMbKernels *
cpu_mb_bf16_kernels(void)
{
	return NULL;
}

#endif
