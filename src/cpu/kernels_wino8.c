/*
 * kernels_wino8.c
 *	  The loops of kernels_wino8.h, for AVX-512 with VNNI.
 *
 * Points of u8 and of whole-numbered weights (wino8.c) fit 16 bits, and VPDPWSSD
 * sums their products two at a time: half as many as VPDPBUSD of bytes, of a
 * quarter of the products.  Sums are exact; joining them is in floats.
 */
#include "cpu/kernels_wino8.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/kernels_vnni.h"

#define SIDE CPU_WINO8_SIDE
#define TILE CPU_WINO8_TILE
#define PAIR (2 * CPU_WINO8_LANES) /* numbers of 16 bits in a vector */

/* --- split --------------------------------------------------------------- */

/* B^T d, of 32 channels, to six vectors that are step apart. */
#define SPLIT_ONE(to, step, d0, d1, d2, d3, d4, d5)                                                          \
	do                                                                                                       \
	{                                                                                                        \
		const __m512i one = (d1), two = (d2), three = (d3), four = (d4);                                     \
		__m512i a = _mm512_sub_epi16(four, _mm512_slli_epi16(two, 2));  /* d4 - 4 d2 */                      \
		__m512i b = _mm512_sub_epi16(three, _mm512_slli_epi16(one, 2)); /* d3 - 4 d1 */                      \
		__m512i e = _mm512_slli_epi16(_mm512_sub_epi16(three, one), 1); /* 2 (d3 - d1) */                    \
		__m512i f = _mm512_sub_epi16(four, two);                                                             \
                                                                                                             \
		/* 4 d0 - 5 d2 + d4 */                                                                               \
		split_store((to), _mm512_add_epi16(_mm512_sub_epi16(a, two), _mm512_slli_epi16((d0), 2)));           \
		split_store((to) + (step), _mm512_add_epi16(a, b));                                                  \
		split_store((to) + 2 * (step), _mm512_sub_epi16(a, b));                                              \
		split_store((to) + 3 * (step), _mm512_add_epi16(f, e));                                              \
		split_store((to) + 4 * (step), _mm512_sub_epi16(f, e));                                              \
		/* 4 d1 - 5 d3 + d5 */                                                                               \
		split_store((to) + 5 * (step),                                                                       \
		            _mm512_sub_epi16(_mm512_sub_epi16((d5), three), _mm512_slli_epi16(e, 1)));               \
	} while (0)

/* The place after it, where the next channels or the next tile's go, is on its way meanwhile. */
INLINE void
split_store(int16_t *to, __m512i x)
{
	_mm512_storeu_si512(to, x);
	_mm_prefetch(to + PAIR, _MM_HINT_T0);
}

/* The pixels of a tile's input; those beyond the image's edge are zero. */
static void
wino8_pixels(const uint8_t **pixel, const uint8_t *image, int c, const CpuWino8Tile *t)
{
	static const uint8_t zero[CPU_WINO8_MAX_CHANNELS];

	for (int j = 0; j < SIDE; j++)
	{
		int y = t->y - 1 + j;
		ptrdiff_t at = ((ptrdiff_t) y * t->w + t->x - 1) * c;

		for (int x = t->x - 1; x < t->x - 1 + SIDE; x++, at += c)
			*pixel++ = y >= 0 && y < t->h && x >= 0 && x < t->w ? image + at : zero;
	}
}

INLINE __m512i
wino8_widen(const uint8_t *p)
{
	return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *) p));
}

TARGET static void
wino8_split(int16_t *points, size_t plane, const uint8_t *image, int c, const CpuWino8Tile *t)
{
	const uint8_t *pixel[CPU_WINO8_POINTS];
	int16_t d[CPU_WINO8_POINTS * PAIR] __attribute__((aligned(64)));

	wino8_pixels(pixel, image, c, t);
	for (int l = 0; l < c; l += PAIR)
	{
#pragma GCC unroll 6
		for (int x = 0; x < SIDE; x++)
			SPLIT_ONE(d + x * PAIR, SIDE * PAIR, wino8_widen(pixel[x] + l), wino8_widen(pixel[x + SIDE] + l),
			          wino8_widen(pixel[x + 2 * SIDE] + l), wino8_widen(pixel[x + 3 * SIDE] + l),
			          wino8_widen(pixel[x + 4 * SIDE] + l), wino8_widen(pixel[x + 5 * SIDE] + l));
		for (int i = 0; i < SIDE; i++)
		{
			const __m512i *row = (const void *) (d + i * SIDE * PAIR);

			SPLIT_ONE(points + (size_t) (i * SIDE) * plane + l, plane, row[0], row[1], row[2], row[3], row[4],
			          row[5]);
		}
	}
}

/* --- products ------------------------------------------------------------ */

/*
 * So many tiles (8 at the most) by one panel of weights, or two: enough sums at a
 * time to hide how long each takes.  Two channels lie together in points and weights.
 */
INLINE void
wino8_multiply_few(int32_t *sums, const int16_t *points, const int16_t *weights, const int tiles, int c,
                   int co, const bool pair)
{
	const size_t panel = (size_t) c * CPU_WINO8_LANES;
	__m512i one[8], two[8];

#pragma GCC unroll 8
	for (int i = 0; i < tiles; i++)
		one[i] = two[i] = _mm512_setzero_si512();
	for (int k = 0; k < c; k += 2)
	{
		const int16_t *at = weights + (size_t) k * CPU_WINO8_LANES;
		__m512i w = _mm512_loadu_si512(at), w2 = pair ? _mm512_loadu_si512(at + panel) : w;

		/* The next panels, which may come from afar. */
		_mm_prefetch(at + 2 * panel, _MM_HINT_T0);
		_mm_prefetch(at + 3 * panel, _MM_HINT_T0);

#pragma GCC unroll 8
		for (int i = 0; i < tiles; i++)
		{
			int32_t two_channels;
			__m512i x;

			memcpy(&two_channels, points + (size_t) i * (size_t) c + k, sizeof two_channels);
			x = _mm512_set1_epi32(two_channels);
			one[i] = _mm512_dpwssd_epi32(one[i], x, w);
			if (pair)
				two[i] = _mm512_dpwssd_epi32(two[i], x, w2);
		}
	}
#pragma GCC unroll 8
	for (int i = 0; i < tiles; i++)
	{
		_mm512_storeu_si512(sums + (size_t) i * (size_t) co, one[i]);
		if (pair)
			_mm512_storeu_si512(sums + (size_t) i * (size_t) co + CPU_WINO8_LANES, two[i]);
	}
}

INLINE void
wino8_multiply_panels(int32_t *sums, const int16_t *points, const int16_t *weights, int tiles, int c, int co,
                      const bool pair)
{
	for (int t = 0, n; t < tiles; t += n)
	{
		int32_t *to = sums + (size_t) t * (size_t) co;
		const int16_t *from = points + (size_t) t * (size_t) c;

		n = tiles - t >= 8 ? 8 : tiles - t >= 4 ? 4 : 1;
		if (n == 8)
			wino8_multiply_few(to, from, weights, 8, c, co, pair);
		else if (n == 4)
			wino8_multiply_few(to, from, weights, 4, c, co, pair);
		else
			wino8_multiply_few(to, from, weights, 1, c, co, pair);
	}
}

TARGET static void
wino8_multiply(int32_t *sums, const int16_t *points, const int16_t *weights, int tiles, int c, int co)
{
	int o = 0;

	for (; o + 2 * CPU_WINO8_LANES <= co; o += 2 * CPU_WINO8_LANES)
		wino8_multiply_panels(sums + o, points, weights + (size_t) o * (size_t) c, tiles, c, co, true);
	if (o < co)
		wino8_multiply_panels(sums + o, points, weights + (size_t) o * (size_t) c, tiles, c, co, false);
}

/* --- join ---------------------------------------------------------------- */

/* 24 A^T m, with the fractions of the weights' transform (wino8.c): four numbers of six. */
INLINE void
wino8_join_one(__m512 to[TILE], __m512 m0, __m512 m1, __m512 m2, __m512 m3, __m512 m4, __m512 m5)
{
	const __m512 two = _mm512_set1_ps(2), four = _mm512_set1_ps(4);
	__m512 p = _mm512_add_ps(m1, m2), r = _mm512_sub_ps(m1, m2);
	__m512 q = _mm512_add_ps(m3, m4), t = _mm512_sub_ps(m3, m4), r4 = _mm512_mul_ps(r, four);

	to[0] = _mm512_fmadd_ps(m0, _mm512_set1_ps(6), _mm512_fnmadd_ps(p, four, q));
	to[1] = _mm512_fmsub_ps(t, two, r4);
	to[2] = _mm512_mul_ps(_mm512_sub_ps(q, p), four);
	to[3] = _mm512_fmadd_ps(m5, _mm512_set1_ps(24), _mm512_fmsub_ps(t, _mm512_set1_ps(8), r4));
}

INLINE __m512
wino8_sums(const int32_t *sums)
{
	_mm_prefetch(sums + CPU_WINO8_LANES, _MM_HINT_T0);
	return _mm512_cvtepi32_ps(_mm512_loadu_si512(sums));
}

INLINE void
wino8_join_as(void *image, const int32_t *sums, size_t plane, int co, const CpuWino8Tile *t,
              const CpuInt8Epilogue *epi, const CpuType type)
{
	int rows = t->h - t->y < TILE ? t->h - t->y : TILE, columns = t->w - t->x < TILE ? t->w - t->x : TILE;
	__m512 m[SIDE][TILE], out[TILE];

	for (int l = 0; l < co; l += CPU_WINO8_LANES)
	{
		__m512 scale = _mm512_loadu_ps(epi->scale + l), bias = _mm512_loadu_ps(epi->bias + l);

		/* A row of points at a time, then a column of what came of that. */
		for (int i = 0; i < SIDE; i++)
		{
			const int32_t *row = sums + (size_t) (i * SIDE) * plane + l;

			wino8_join_one(m[i], wino8_sums(row), wino8_sums(row + plane), wino8_sums(row + 2 * plane),
			               wino8_sums(row + 3 * plane), wino8_sums(row + 4 * plane),
			               wino8_sums(row + 5 * plane));
		}
		for (int x = 0; x < columns; x++)
		{
			size_t at = ((size_t) t->y * (size_t) t->w + (size_t) (t->x + x)) * (size_t) co + (size_t) l;

			wino8_join_one(out, m[0][x], m[1][x], m[2][x], m[3][x], m[4][x], m[5][x]);
#pragma GCC unroll 4
			for (int y = 0; y < TILE; y++)
				if (y < rows)
					int8_finish(image, at + (size_t) (y * t->w) * (size_t) co,
					            _mm512_fmadd_ps(out[y], scale, bias), epi, type);
		}
	}
}

TARGET static void
wino8_join(void *image, const int32_t *sums, size_t plane, int co, const CpuWino8Tile *t,
           const CpuInt8Epilogue *epi)
{
	if (epi->type == CPU_U8)
		wino8_join_as(image, sums, plane, co, t, epi, CPU_U8);
	else
		wino8_join_as(image, sums, plane, co, t, epi, epi->type);
}

static const CpuWino8Kernels wino8_kernels = {"avx512_vnni", wino8_split, wino8_multiply, wino8_join};

const CpuWino8Kernels *
cpu_wino8_kernels(void)
{
	return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	               __builtin_cpu_supports("avx512vnni")
	           ? &wino8_kernels
	           : NULL;
}

#else

const CpuWino8Kernels *
cpu_wino8_kernels(void)
{
	return NULL;
}

#endif
