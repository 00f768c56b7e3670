/*
 * kernels_stem.c
 *	  The loops of kernels_stem.h, for AVX-512.
 */
#include "cpu/kernels_stem.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "cpu/kernels_vec.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")))
#define HALVES                                                                                               \
	__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,prefer-vector-width=512")))
#define INLINE TARGET static inline __attribute__((always_inline))

#define SIDE    CPU_STEM_SIDE
#define TILE    CPU_STEM_TILE
#define LANES16 16

/* --- pixels -------------------------------------------------------------- */

/* Numbers i .. of a row as floats, as many as the mask has. */
INLINE __m512
stem_load(const void *from, size_t i, __mmask16 m, CpuType type)
{
	if (type == CPU_F32)
		return _mm512_maskz_loadu_ps(m, (const float *) from + i);
	return (__m512) _mm512_slli_epi32(
	    _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, (const uint16_t *) from + i)), 16);
}

INLINE __mmask16
stem_mask(size_t left)
{
	return left >= LANES16 ? 0xffff : (__mmask16) ((1u << left) - 1);
}

INLINE void
stem_row_as(float *to, const void *from, int vec, size_t plane, size_t w, const CpuType type)
{
	if (vec == 3)
		for (size_t i = 0; i < 3 * w; i += LANES16)
			_mm512_mask_storeu_ps(to + i, stem_mask(3 * w - i),
			                      stem_load(from, i, stem_mask(3 * w - i), type));
	else
		for (size_t x = 0; x < w; x += LANES16)
		{
			const __mmask16 m = stem_mask(w - x);
			const __m512i third =
			    _mm512_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45);

			for (size_t c = 0; c < 3; c++)
				_mm512_mask_i32scatter_ps(to + 3 * x + c, m, third, stem_load(from, c * plane + x, m, type),
				                          4);
		}
}

TARGET static void
stem_row(float *to, const void *from, CpuType type, int vec, size_t plane, int w)
{
	if (type == CPU_F32)
		stem_row_as(to, from, vec, plane, (size_t) w, CPU_F32);
	else
		stem_row_as(to, from, vec, plane, (size_t) w, CPU_BF16);
}

/* --- split --------------------------------------------------------------- */

/* B^T d: seven numbers that are step apart in to.  Without the point 1/2 it would be six e's own. */
INLINE void
stem_split_one(float *to, size_t step, const __m512 d[SIDE])
{
	const __m512 half = _mm512_set1_ps(0.5f), two = _mm512_set1_ps(2), four = _mm512_set1_ps(4),
	             five = _mm512_set1_ps(5);
	__m512 e[SIDE - 1], a, b, f, g;

#pragma GCC unroll 6
	for (int i = 0; i < SIDE - 1; i++)
		e[i] = _mm512_fnmadd_ps(d[i], half, d[i + 1]);
	a = _mm512_fnmadd_ps(e[2], four, e[4]);
	b = _mm512_fnmadd_ps(e[1], four, e[3]);
	f = _mm512_sub_ps(e[4], e[2]);
	g = _mm512_sub_ps(e[3], e[1]);
	_mm512_storeu_ps(to, _mm512_fmadd_ps(e[0], four, _mm512_fnmadd_ps(e[2], five, e[4])));
	_mm512_storeu_ps(to + step, _mm512_add_ps(a, b));
	_mm512_storeu_ps(to + 2 * step, _mm512_sub_ps(a, b));
	_mm512_storeu_ps(to + 3 * step, _mm512_fmadd_ps(g, two, f));
	_mm512_storeu_ps(to + 4 * step, _mm512_fnmadd_ps(g, two, f));
	_mm512_storeu_ps(to + 5 * step, _mm512_fmadd_ps(d[1], four, _mm512_fnmadd_ps(d[3], five, d[5])));
	_mm512_storeu_ps(to + 6 * step, _mm512_fmadd_ps(e[1], four, _mm512_fnmadd_ps(e[3], five, e[5])));
}

TARGET static void
stem_columns(float *to, const float *rows, size_t far, int n)
{
	const __mmask16 upper = (1u << CPU_STEM_ROW) - 1, lower = upper << CPU_STEM_ROW;

	for (int x = 0; x < n; x++)
	{
		const float *from = rows + (size_t) x * CPU_STEM_ROW;
		__m512 d[SIDE];

#pragma GCC unroll 7
		for (int y = 0; y < SIDE; y++, from += 2 * far)
			d[y] = _mm512_mask_loadu_ps(_mm512_maskz_loadu_ps(upper, from), lower, from + far - CPU_STEM_ROW);
		stem_split_one(to + (size_t) x * CPU_STEM_STRIDE, (size_t) n * CPU_STEM_STRIDE, d);
	}
}

TARGET static void
stem_split(float *points, const float *rows, size_t n, int tiles)
{
	const size_t far = CPU_STEM_TILES * CPU_STEM_STRIDE;

	for (int t = 0; t < tiles; t++)
		for (size_t y = 0; y < SIDE; y++)
		{
			const float *from = rows + (y * n + (size_t) (t * TILE)) * CPU_STEM_STRIDE;
			__m512 d[SIDE];

#pragma GCC unroll 7
			for (int x = 0; x < SIDE; x++)
				d[x] = _mm512_loadu_ps(from + x * CPU_STEM_STRIDE);
			stem_split_one(points + y * SIDE * far + (size_t) t * CPU_STEM_STRIDE, far, d);
		}
}

/* --- products ------------------------------------------------------------ */

INLINE void
stem_multiply_few(float *sums, const float *points, const float *weights, const int tiles)
{
	__m512 one[CPU_STEM_TILES], two[CPU_STEM_TILES];

#pragma GCC unroll 8
	for (int t = 0; t < tiles; t++)
		one[t] = two[t] = _mm512_setzero_ps();
#pragma GCC unroll 2
	for (int k = 0; k < CPU_STEM_CELL; k++)
	{
		__m512 w = _mm512_loadu_ps(weights + k * CPU_STEM_LANES);
		__m512 w2 = _mm512_loadu_ps(weights + k * CPU_STEM_LANES + LANES16);

#pragma GCC unroll 8
		for (int t = 0; t < tiles; t++)
		{
			__m512 x = _mm512_set1_ps(points[t * CPU_STEM_STRIDE + k]);

			one[t] = _mm512_fmadd_ps(x, w, one[t]);
			two[t] = _mm512_fmadd_ps(x, w2, two[t]);
		}
	}
#pragma GCC unroll 8
	for (int t = 0; t < tiles; t++)
	{
		_mm512_storeu_ps(sums + t * CPU_STEM_LANES, one[t]);
		_mm512_storeu_ps(sums + t * CPU_STEM_LANES + LANES16, two[t]);
	}
}

/* Of tiles that there are not the sums are of no use, but cost less than loops of their own would. */
TARGET static void
stem_multiply(float *sums, const float *points, const float *weights, int tiles)
{
	for (int p = 0; p < CPU_STEM_POINTS; p++)
	{
		if (tiles > CPU_STEM_TILES / 2)
			stem_multiply_few(sums, points, weights, CPU_STEM_TILES);
		else
			stem_multiply_few(sums, points, weights, CPU_STEM_TILES / 2);
		sums += CPU_STEM_TILES * CPU_STEM_LANES;
		points += CPU_STEM_TILES * CPU_STEM_STRIDE;
		weights += CPU_STEM_CELL * CPU_STEM_LANES;
	}
}

/* --- join ---------------------------------------------------------------- */

/* A^T m. */
INLINE void
stem_join_one(__m512 to[TILE], const __m512 m[SIDE])
{
	__m512 p = _mm512_add_ps(m[1], m[2]), r = _mm512_sub_ps(m[1], m[2]);
	__m512 q = _mm512_add_ps(m[3], m[4]), s = _mm512_sub_ps(m[3], m[4]);

	to[0] = _mm512_add_ps(_mm512_add_ps(m[0], m[5]), _mm512_add_ps(p, q));
	to[1] = _mm512_fmadd_ps(m[5], _mm512_set1_ps(0.5f), _mm512_fmadd_ps(s, _mm512_set1_ps(2), r));
	to[2] = _mm512_fmadd_ps(m[5], _mm512_set1_ps(0.25f), _mm512_fmadd_ps(q, _mm512_set1_ps(4), p));
	to[3] = _mm512_fmadd_ps(m[5], _mm512_set1_ps(0.125f),
	                        _mm512_fmadd_ps(s, _mm512_set1_ps(8), _mm512_add_ps(r, m[6])));
}

INLINE void
stem_store_f32(void *image, size_t i, __m512 x)
{
	_mm512_storeu_ps((float *) image + i, x);
}

HALVES static inline __attribute__((always_inline)) void
stem_store_bf16(void *image, size_t i, __m512 x)
{
	_mm256_storeu_si256((void *) ((uint16_t *) image + i), (__m256i) _mm512_cvtneps_pbh(x));
}

/* A row of points at a time, then a column of what came of that. */
#define STEM_JOIN(name, attr, store)                                                                         \
	attr static inline __attribute__((always_inline)) void name##_lanes(                                     \
	    const CpuStemOut *out, void *image, const float *sums, const float *bias, const CpuStemTile *tile)   \
	{                                                                                                        \
		const int rows = out->h - tile->y, columns = out->w - tile->x;                                       \
		const __m512 b = _mm512_loadu_ps(bias), floor = _mm512_set1_ps(out->relu ? 0 : -INFINITY);           \
		__m512 m[SIDE][TILE];                                                                                \
                                                                                                             \
		_Pragma("GCC unroll 7") for (int i = 0; i < SIDE; i++)                                               \
		{                                                                                                    \
			__m512 row[SIDE];                                                                                \
                                                                                                             \
			_Pragma("GCC unroll 7") for (int j = 0; j < SIDE; j++) row[j] =                                  \
			    _mm512_loadu_ps(sums + (i * SIDE + j) * CPU_STEM_TILES * CPU_STEM_LANES);                    \
			stem_join_one(m[i], row);                                                                        \
		}                                                                                                    \
		_Pragma("GCC unroll 4") for (int x = 0; x < TILE; x++)                                               \
		{                                                                                                    \
			size_t at = ((size_t) tile->y * (size_t) out->w + (size_t) (tile->x + x)) * out->stride;         \
			__m512 column[SIDE], y[TILE];                                                                    \
                                                                                                             \
			_Pragma("GCC unroll 7") for (int i = 0; i < SIDE; i++) column[i] = m[i][x];                      \
			stem_join_one(y, column);                                                                        \
			if (x < columns)                                                                                 \
				_Pragma("GCC unroll 4") for (int i = 0; i < TILE; i++) if (i < rows)                         \
				    store(image, at + (size_t) (i * out->w) * out->stride,                                   \
				          _mm512_max_ps(floor, _mm512_add_ps(y[i], b)));                                     \
		}                                                                                                    \
	}                                                                                                        \
	attr static void name(const CpuStemOut *out, const float *sums, const CpuStemTile *tile)                 \
	{                                                                                                        \
		name##_lanes(out, out->at[0], sums, out->bias, tile);                                                \
		name##_lanes(out, out->at[1], sums + LANES16, out->bias + LANES16, tile);                            \
	}

STEM_JOIN(stem_join_f32, TARGET, stem_store_f32)
STEM_JOIN(stem_join_bf16, HALVES, stem_store_bf16)

static void
stem_join(const CpuStemOut *out, const float *sums, int t, const CpuStemTile *tile)
{
	if (out->type == CPU_F32)
		stem_join_f32(out, sums + t * CPU_STEM_LANES, tile);
	else
		stem_join_bf16(out, sums + t * CPU_STEM_LANES, tile);
}

static const CpuStemKernels stem_kernels = {"avx512",   stem_row,      stem_columns,
                                            stem_split, stem_multiply, stem_join};

const CpuStemKernels *
cpu_stem_kernels(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
	           ? &stem_kernels
	           : NULL;
}

#else

const CpuStemKernels *
cpu_stem_kernels(void)
{
	return NULL;
}

#endif
