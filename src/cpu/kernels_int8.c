/*
 * kernels_int8.c
 *	  The loops of kernels_int8.h, compiled once per instruction set, as in
 *	  kernels.c; all variants round alike.
 */
#include "cpu/kernels_int8.h"

#include "cpu/kernels.h"
#include "cpu/kernels_lanes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef int I16 __attribute__((vector_size(64)));
typedef uint32_t U16 __attribute__((vector_size(64)));
typedef uint16_t H16 __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint8_t B16 __attribute__((vector_size(16), aligned(1), may_alias));

/*
 * Adding and taking away 1.5 * 2^23 rounds a float to an integer, as the sum has no
 * bits left for a fraction.  Exact for what lies within 0 .. 255.
 */
#define STEPS_ROUND 12582912.0f
#define STEPS_MAX   255.0f

#define STEPS_ONE(x) ((x) > 0 ? (x) < STEPS_MAX ? (x) : STEPS_MAX : 0)

/* A bf16 is a float's upper half. */
typedef union Bits
{
	uint32_t bits;
	float number;
} Bits;

static inline __attribute__((always_inline)) float
load_one(const void *src, size_t i, bool bf16)
{
	Bits x = {.bits = bf16 ? (uint32_t) ((const uint16_t *) src)[i] << 16 : 0};

	return bf16 ? x.number : ((const float *) src)[i];
}

#define LOAD_16(src, i, bf16)                                                                                \
	((bf16) ? (V16) (__builtin_convertvector(*(const H16 *) ((const uint16_t *) (src) + (i)), U16) << 16)    \
	        : *(const V16 *) ((const float *) (src) + (i)))

KERNEL
steps_body(uint8_t *dst, size_t dps, const void *src, size_t sps, size_t npix, int nl, const float *scale,
           const float *shift, bool bf16)
{
	int l = 0;

	for (; l + 16 <= nl; l += 16)
	{
		V16 s = *(const V16 *) (scale + l), t = *(const V16 *) (shift + l);

		for (size_t i = 0; i < npix; i++)
		{
			V16 x = LOAD_16(src, i * sps + (size_t) l, bf16) * s + t, top = (V16){0} + STEPS_MAX;
			I16 keep = x > 0, less = x < STEPS_MAX;

			x = (V16) (((I16) x & less) | ((I16) top & ~less));
			x = (V16) ((I16) x & keep) + STEPS_ROUND - STEPS_ROUND;
			*(B16 *) (dst + i * dps + l) = __builtin_convertvector(__builtin_convertvector(x, I16), B16);
		}
	}
	for (; l < nl; l++)
		for (size_t i = 0; i < npix; i++)
		{
			float x = load_one(src, i * sps + (size_t) l, bf16) * scale[l] + shift[l];

			dst[i * dps + l] = (uint8_t) (STEPS_ONE(x) + STEPS_ROUND - STEPS_ROUND);
		}
}

KERNEL
floats_body(float *dst, const uint8_t *src, size_t n, float scale)
{
	size_t i = 0;

	for (; i + 16 <= n; i += 16)
		*(V16 *) (dst + i) = __builtin_convertvector(*(const B16 *) (src + i), V16) * scale;
	for (; i < n; i++)
		dst[i] = (float) src[i] * scale;
}

KERNEL
halves_body(uint16_t *dst, const uint8_t *src, size_t n, float scale)
{
	size_t i = 0;

	for (; i + 16 <= n; i += 16)
	{
		U16 bits = (U16) (__builtin_convertvector(*(const B16 *) (src + i), V16) * scale);

		bits += 0x7fff + (bits >> 16 & 1);
		*(H16 *) (dst + i) = __builtin_convertvector(bits >> 16, H16);
	}
	for (; i < n; i++)
	{
		Bits x = {.number = (float) src[i] * scale};

		dst[i] = (uint16_t) ((x.bits + 0x7fff + (x.bits >> 16 & 1)) >> 16);
	}
}

#if defined(__x86_64__)

#define WIDE_ISA __attribute__((target("avx512f,avx512bw,avx512vl,prefer-vector-width=512")))

/* 16 lanes, of which a mask picks some.  The maximum's second operand is its result where there is no number.
 */
WIDE_ISA static inline __attribute__((always_inline)) void
wide_lanes(uint8_t *dst, const void *src, size_t i, __mmask16 m, __m512 scale, __m512 shift, bool bf16)
{
	__m512 x;

	if (bf16)
		x = (__m512) _mm512_slli_epi32(
		    _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, (const uint16_t *) src + i)), 16);
	else
		x = _mm512_maskz_loadu_ps(m, (const float *) src + i);
	x = _mm512_mul_ps(x, scale);
	x = _mm512_max_ps(_mm512_add_ps(x, shift), _mm512_setzero_ps());
	/* What is too large for an integer becomes 2^31, which like all above 255 is cut down to that. */
	_mm_mask_storeu_epi8(dst, m, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x)));
}

/*
 * steps_body() with instructions that round and cut off by themselves.  Two vectors
 * at a time: a piece of a DenseNet's has 32 channels, so that they are whole cache lines.
 */
WIDE_ISA KERNEL
wide_body(uint8_t *dst, size_t dps, const void *src, size_t sps, size_t npix, int nl, const float *scale,
          const float *shift, bool bf16)
{
	int l = 0;

	for (; l + 32 <= nl; l += 32)
	{
		__m512 s = _mm512_loadu_ps(scale + l), t = _mm512_loadu_ps(shift + l);
		__m512 s2 = _mm512_loadu_ps(scale + l + 16), t2 = _mm512_loadu_ps(shift + l + 16);

		for (size_t i = 0; i < npix; i++)
		{
			wide_lanes(dst + i * dps + l, src, i * sps + (size_t) l, 0xffff, s, t, bf16);
			wide_lanes(dst + i * dps + l + 16, src, i * sps + (size_t) l + 16, 0xffff, s2, t2, bf16);
		}
	}
	for (; l < nl; l += 16)
	{
		__mmask16 m = nl - l >= 16 ? 0xffff : (__mmask16) ((1u << (nl - l)) - 1);
		__m512 s = _mm512_maskz_loadu_ps(m, scale + l), t = _mm512_maskz_loadu_ps(m, shift + l);

		for (size_t i = 0; i < npix; i++)
			wide_lanes(dst + i * dps + l, src, i * sps + (size_t) l, m, s, t, bf16);
	}
}

#endif

#define VARIANT(suffix, attr, steps_of)                                                                      \
	attr static void steps_##suffix(uint8_t *dst, size_t dps, const float *src, size_t sps, size_t npix,     \
	                                int nl, const float *scale, const float *shift)                          \
	{                                                                                                        \
		steps_of(dst, dps, src, sps, npix, nl, scale, shift, false);                                         \
	}                                                                                                        \
	attr static void steps_bf16_##suffix(uint8_t *dst, size_t dps, const uint16_t *src, size_t sps,          \
	                                     size_t npix, int nl, const float *scale, const float *shift)        \
	{                                                                                                        \
		steps_of(dst, dps, src, sps, npix, nl, scale, shift, true);                                          \
	}                                                                                                        \
	attr static void floats_##suffix(float *dst, const uint8_t *src, size_t n, float scale)                  \
	{                                                                                                        \
		floats_body(dst, src, n, scale);                                                                     \
	}                                                                                                        \
	attr static void halves_##suffix(uint16_t *dst, const uint8_t *src, size_t n, float scale)               \
	{                                                                                                        \
		halves_body(dst, src, n, scale);                                                                     \
	}                                                                                                        \
	static const CpuInt8Kernels int8_##suffix = {#suffix, steps_##suffix, steps_bf16_##suffix,               \
	                                             floats_##suffix, halves_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, WIDE_ISA, wide_body)
VARIANT(avx2, __attribute__((target("avx2"))), steps_body)
#endif
VARIANT(portable, , steps_body)

CPU_KERNEL_CHOICE(CpuInt8Kernels, cpu_int8_kernels, int8)
