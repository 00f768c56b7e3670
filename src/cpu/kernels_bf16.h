/*
 * kernels_bf16.h
 *	  What loops over bf16 numbers share: AVX-512 BF16 as their target, and
 *	  loading and storing up to 16 numbers as floats.  For x86-64 alone.
 */
#ifndef DFX_CPU_KERNELS_BF16_H
#define DFX_CPU_KERNELS_BF16_H

#include <immintrin.h>
#include <stdint.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,prefer-vector-width=512")))
#define KERNEL TARGET static inline __attribute__((always_inline))

/* The lanes from l on, 16 at the most. */
KERNEL __mmask16
bf16_mask(int l, int nl)
{
	return nl - l >= 16 ? 0xffff : (__mmask16) ((1u << (nl - l)) - 1);
}

KERNEL __m512
bf16_load(const uint16_t *p, __mmask16 m)
{
	__m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p));

	return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

KERNEL void
bf16_store(uint16_t *p, __m512 x, __mmask16 m)
{
	_mm256_mask_storeu_epi16(p, m, (__m256i) _mm512_cvtneps_pbh(x));
}

/* What is not a number passes: the second operand is the result then. */
KERNEL __m512
bf16_relu(__m512 x)
{
	return _mm512_max_ps(_mm512_setzero_ps(), x);
}

#endif /* DFX_CPU_KERNELS_BF16_H */
