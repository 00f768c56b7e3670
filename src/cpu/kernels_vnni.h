/*
 * kernels_vnni.h
 *	  What the loops on 8-bit integers for AVX-512 with VNNI share: how they are
 *	  compiled, and what becomes of a sum (CpuInt8Epilogue).
 */
#ifndef DFX_CPU_KERNELS_VNNI_H
#define DFX_CPU_KERNELS_VNNI_H

#include <immintrin.h>

#include "cpu/kernels_int8.h"
#include "cpu/kernels_vec.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,prefer-vector-width=512")))
#define INLINE TARGET static inline __attribute__((always_inline))

#define INT8_LANES 16

INLINE __m512
int8_load(const void *image, size_t i, CpuType type)
{
	if (type == CPU_U8)
		return _mm512_cvtepi32_ps(
		    _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *) ((const uint8_t *) image + i))));
	return (__m512) load_as(image, i, INT8_LANES, type);
}

/* Numbers i .. of the image become x, a sum that is scaled already. */
INLINE void
int8_finish(void *image, size_t i, __m512 x, const CpuInt8Epilogue *epi, const CpuType type)
{
	if (epi->add)
		x = _mm512_fmadd_ps(int8_load(epi->add, i, epi->add_type), _mm512_set1_ps(epi->add_step), x);
	if (epi->relu || type == CPU_U8)
		x = _mm512_max_ps(x, _mm512_setzero_ps());
	if (type == CPU_U8)
		_mm_storeu_si128((void *) ((uint8_t *) image + i), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x)));
	else
		store_as(image, i, (V16) x, INT8_LANES, type);
}

#endif /* DFX_CPU_KERNELS_VNNI_H */
