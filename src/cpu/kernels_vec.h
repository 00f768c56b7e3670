/*
 * kernels_vec.h
 *	  Vectors of 16 lanes for the loops of training: loading and storing some of
 *	  the lanes, and walking a run's channels.
 *
 * A run with fewer lanes left goes through the same code with n < 16; n is a
 * constant in the two cases that matter, 16 and 8.
 */
#ifndef DFX_CPU_KERNELS_VEC_H
#define DFX_CPU_KERNELS_VEC_H

#include <string.h>

#define KERNEL static inline __attribute__((always_inline))

typedef float V16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int I16 __attribute__((vector_size(64), aligned(4), may_alias));

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
