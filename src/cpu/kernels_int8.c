/*
 * kernels_int8.c
 *	  The loops of kernels_int8.h, compiled once per instruction set, as in
 *	  kernels.c; all variants round alike.
 */
#include "cpu/kernels_int8.h"

#include "cpu/kernels.h"
#include "cpu/kernels_lanes.h"

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
static inline __attribute__((always_inline)) float
load_one(const void *src, size_t i, bool bf16)
{
	union
	{
		uint32_t bits;
		float number;
	} x;

	if (!bf16)
		return ((const float *) src)[i];
	x.bits = (uint32_t) ((const uint16_t *) src)[i] << 16;
	return x.number;
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

#define VARIANT(suffix, attr)                                                                                \
	attr static void steps_##suffix(uint8_t *dst, size_t dps, const float *src, size_t sps, size_t npix,     \
	                                int nl, const float *scale, const float *shift)                          \
	{                                                                                                        \
		steps_body(dst, dps, src, sps, npix, nl, scale, shift, false);                                       \
	}                                                                                                        \
	attr static void steps_bf16_##suffix(uint8_t *dst, size_t dps, const uint16_t *src, size_t sps,          \
	                                     size_t npix, int nl, const float *scale, const float *shift)        \
	{                                                                                                        \
		steps_body(dst, dps, src, sps, npix, nl, scale, shift, true);                                        \
	}                                                                                                        \
	attr static void floats_##suffix(float *dst, const uint8_t *src, size_t n, float scale)                  \
	{                                                                                                        \
		floats_body(dst, src, n, scale);                                                                     \
	}                                                                                                        \
	static const CpuInt8Kernels int8_##suffix = {#suffix, steps_##suffix, steps_bf16_##suffix,               \
	                                             floats_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, __attribute__((target("avx512f,avx512bw,avx512vl,prefer-vector-width=512"))))
VARIANT(avx2, __attribute__((target("avx2"))))
#endif
VARIANT(portable, )

CPU_KERNEL_CHOICE(CpuInt8Kernels, cpu_int8_kernels, int8)
