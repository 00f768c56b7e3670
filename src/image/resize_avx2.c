/*
 * resize_avx2.c
 *	  The resize kernels by AVX2, with the same results as the plain ones.
 *
 * A 22-bit weight does not fit the 16-bit multipliers, and 32-bit multiplies
 * are slow.  So weight = high * 2^15 + low, both of 15 bits, and
 *
 *	sum(pixel * weight) = sum(pixel * high) * 2^15 + sum(pixel * low)
 *
 * modulo 2^32.  The true sum fits 32 bits, so partial sums may wrap: the
 * result is exact, not approximate.  vpmaddwd does two taps at once.
 *
 * The functions carry their target attribute; the rest of the program does
 * not need AVX2.
 */
#include "image/resize.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))

/*
 * Along x, four taps at a time.  16 bytes of RGB are loaded into both lanes
 * and shuffled into words: lane 0 gets r0 r1 g0 g1 b0 b1 of taps 0 and 1,
 * lane 1 the same of taps 2 and 3.  (12 of the 16 bytes are used; the rest is
 * the slack that resize.h speaks of.)
 */
AVX2 static void
avx2_along_x(const DfxResizeAxis *a, const uint8_t *const src[DFX_RESIZE_ROWS],
             uint8_t *const dst[DFX_RESIZE_ROWS])
{
	const __m256i pairs = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, /* */
	                                       6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
	const __m256i pick_low = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
	const __m256i pick_high = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);

	for (uint32_t i = 0; i < a->size; i++)
	{
		const int16_t *split = a->split + (size_t) i * a->taps * 2;
		size_t at = (size_t) a->start[i] * 3;
		__m256i low[DFX_RESIZE_ROWS], high[DFX_RESIZE_ROWS];

		for (int r = 0; r < DFX_RESIZE_ROWS; r++)
			low[r] = high[r] = _mm256_setzero_si256();
		for (uint32_t j = 0; j < a->count[i]; j += DFX_RESIZE_GROUP, split += 8, at += 12)
		{
			__m256i w = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) split));
			__m256i w_low = _mm256_permutevar8x32_epi32(w, pick_low);
			__m256i w_high = _mm256_permutevar8x32_epi32(w, pick_high);

#pragma GCC unroll 4
			for (int r = 0; r < DFX_RESIZE_ROWS; r++)
			{
				__m128i raw = _mm_loadu_si128((const __m128i *) (src[r] + at));
				__m256i px = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(raw), pairs);

				low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(px, w_low));
				high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(px, w_high));
			}
		}
		for (int r = 0; r < DFX_RESIZE_ROWS; r++)
		{
			__m256i both = _mm256_add_epi32(low[r], _mm256_slli_epi32(high[r], 15));
			__m128i sum = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
			uint32_t rgb;

			sum = _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(DFX_RESIZE_HALF)), DFX_RESIZE_BITS);
			sum = _mm_packs_epi32(sum, sum);
			sum = _mm_packus_epi16(sum, sum); /* saturates to 0 .. 255 */
			rgb = (uint32_t) _mm_cvtsi128_si32(sum);
			memcpy(dst[r] + 3 * (size_t) i, &rgb, 3);
		}
	}
}

/* Two weights side by side in every 32-bit lane, for two rows interleaved. */
AVX2 static inline __m256i
avx2_pair(int16_t first, int16_t second)
{
	return _mm256_set1_epi32((int32_t) ((uint32_t) (uint16_t) second << 16 | (uint16_t) first));
}

/* 16 columns along y, two rows at a time. */
AVX2 static inline __m128i
avx2_columns(const int16_t *split, uint32_t count, const uint8_t *const *row, size_t x)
{
	__m256i low0 = _mm256_setzero_si256(), low1 = low0, high0 = low0, high1 = low0, sum0, sum1;
	const __m256i half = _mm256_set1_epi32(DFX_RESIZE_HALF);

	for (uint32_t j = 0; j < count; j += 2)
	{
		const int16_t *s = split + j / 4 * 8 + j % 4;
		/* After an odd last row its own pixels stand in; the weight there is 0. */
		const uint8_t *even = row[j] + x, *odd = (j + 1 < count ? row[j + 1] : row[j]) + x;
		__m256i a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *) even));
		__m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *) odd));
		__m256i ab0 = _mm256_unpacklo_epi16(a, b), ab1 = _mm256_unpackhi_epi16(a, b);
		__m256i w_low = avx2_pair(s[0], s[1]), w_high = avx2_pair(s[4], s[5]);

		low0 = _mm256_add_epi32(low0, _mm256_madd_epi16(ab0, w_low));
		low1 = _mm256_add_epi32(low1, _mm256_madd_epi16(ab1, w_low));
		high0 = _mm256_add_epi32(high0, _mm256_madd_epi16(ab0, w_high));
		high1 = _mm256_add_epi32(high1, _mm256_madd_epi16(ab1, w_high));
	}
	sum0 = _mm256_add_epi32(_mm256_add_epi32(low0, _mm256_slli_epi32(high0, 15)), half);
	sum1 = _mm256_add_epi32(_mm256_add_epi32(low1, _mm256_slli_epi32(high1, 15)), half);
	sum0 = _mm256_packs_epi32(_mm256_srai_epi32(sum0, DFX_RESIZE_BITS),
	                          _mm256_srai_epi32(sum1, DFX_RESIZE_BITS));
	return _mm_packus_epi16(_mm256_castsi256_si128(sum0), _mm256_extracti128_si256(sum0, 1));
}

AVX2 static void
avx2_along_y(const DfxResizeAxis *a, uint32_t i, const uint8_t *const *row, size_t nbytes, uint8_t *dst)
{
	const int16_t *split = a->split + (size_t) i * a->taps * 2;
	const int32_t *w = a->weight + (size_t) i * a->taps;
	size_t x = 0;

	for (; x + 16 <= nbytes; x += 16)
		_mm_storeu_si128((__m128i *) (dst + x), avx2_columns(split, a->count[i], row, x));
	for (; x < nbytes; x++)
	{
		int32_t sum = DFX_RESIZE_HALF;

		for (uint32_t j = 0; j < a->count[i]; j++)
			sum += row[j][x] * w[j];
		dst[x] = dfx_resize_clip(sum);
	}
}

const DfxResizeKernels *
dfx_resize_avx2(void)
{
	static const DfxResizeKernels kernels = {"avx2", avx2_along_x, avx2_along_y};

	return __builtin_cpu_supports("avx2") ? &kernels : NULL;
}

#else

const DfxResizeKernels *
dfx_resize_avx2(void)
{
	return NULL;
}

#endif
