/*
 * kernels_vec.h
 *	  Vectors of 16 lanes for the loops of training: loading and storing some of
 *	  the lanes, and walking a run's channels.
 *
 * A run with fewer lanes left goes through the same code with n < 16; n is a
 * constant in the two cases that matter, 16 and 8.  All arithmetic is in
 * floats: a bfloat16 is widened as it is loaded, and rounded to the nearest
 * (ties to even) as it is stored.
 */
#ifndef DFX_CPU_KERNELS_VEC_H
#define DFX_CPU_KERNELS_VEC_H

#include <stdint.h>
#include <string.h>

#include "cpu/kernels.h"

#define KERNEL static inline __attribute__((always_inline))

typedef float V16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int I16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t U16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t H16 __attribute__((vector_size(32), aligned(2), may_alias));
typedef uint16_t H32 __attribute__((vector_size(64), aligned(2), may_alias));

/* Functions that return vectors exist only inline, so how the calling convention passes them does not matter.
 */
#pragma GCC diagnostic ignored "-Wpsabi"

KERNEL V16
load(const float *p, int n)
{
	V16 x = {0};

	if (n == 16)
		return *(const V16 *) p;
	memcpy(&x, p, (size_t) n * sizeof *p);
	return x;
}

KERNEL void
store(float *p, V16 x, int n)
{
	if (n == 16)
		*(V16 *) p = x;
	else
		memcpy(p, &x, (size_t) n * sizeof *p);
}

KERNEL V16
pick(I16 mask, V16 yes, V16 no)
{
	return (V16) ((mask & (I16) yes) | (~mask & (I16) no));
}

/* A bfloat16 is the upper half of a float.  As shuffles: one instruction each with AVX-512BW. */
KERNEL V16
widen16(H16 h)
{
	const H16 zero = {0};

	return (V16) __builtin_shufflevector(zero, h, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8,
	                                     24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

/* What is not a number stays that: rounding alone could carry it over to infinity or 0. */
KERNEL H16
narrow16(V16 x)
{
	U16 bits = (U16) x, even = bits + 0x7FFF + ((bits >> 16) & 1);
	H32 h = (H32) pick(x == x, (V16) even, (V16) (bits | 0x400000));

	return __builtin_shufflevector(h, h, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}

/* Numbers i .. i + n - 1 of an array of this kind. */
KERNEL V16
load_as(const void *p, size_t i, int n, CpuType type)
{
	H16 h = {0};

	if (type == CPU_F32)
		return load((const float *) p + i, n);
	if (n == 16)
		h = *(const H16 *) ((const uint16_t *) p + i);
	else
		memcpy(&h, (const uint16_t *) p + i, (size_t) n * sizeof(uint16_t));
	return widen16(h);
}

KERNEL void
store_as(void *p, size_t i, V16 x, int n, CpuType type)
{
	H16 h;

	if (type == CPU_F32)
	{
		store((float *) p + i, x, n);
		return;
	}
	h = narrow16(x);
	if (n == 16)
		*(H16 *) ((uint16_t *) p + i) = h;
	else
		memcpy((uint16_t *) p + i, &h, (size_t) n * sizeof(uint16_t));
}

/* Runs call for each 16 lanes l of nl; the last may have fewer (n). */
#define LANES(call)                                                                                          \
	do                                                                                                       \
		for (int l = 0; l < nl; l += 16)                                                                     \
		{                                                                                                    \
			if (nl - l >= 16)                                                                                \
			{                                                                                                \
				const int n = 16;                                                                            \
                                                                                                             \
				call;                                                                                        \
			}                                                                                                \
			else if (nl - l == 8)                                                                            \
			{                                                                                                \
				const int n = 8;                                                                             \
                                                                                                             \
				call;                                                                                        \
			}                                                                                                \
			else                                                                                             \
			{                                                                                                \
				const int n = nl - l;                                                                        \
                                                                                                             \
				call;                                                                                        \
			}                                                                                                \
		}                                                                                                    \
	while (0)

#endif /* DFX_CPU_KERNELS_VEC_H */
