/*
 * kernels_tokens.c
 *	  The loops of transformers (kernels.h), compiled three times as those of
 *	  kernels.c are, and rounding alike in all variants: vectors have the same
 *	  number of lanes everywhere, so that sums are taken in the same order.
 */
#include <assert.h>
#include <math.h>

#include "cpu/kernels.h"
#include "cpu/kernels_lanes.h"

typedef int I16 __attribute__((vector_size(64), aligned(4), may_alias));

static_assert(sizeof(V16) == CPU_SOFTMAX_STEP * sizeof(float), "one step of the softmax is one vector");

/* Runs body for each vector of 8 of a token's channels (x, at c), then rest for each channel left. */
#define TOKEN_CHANNELS(body, rest)                                                                           \
	for (int p = 0, base = 0; base < c; p++, base += nl)                                                     \
	{                                                                                                        \
		const float *from = src + (size_t) p * sps;                                                          \
		int n = c - base < nl ? c - base : nl, l = 0;                                                        \
                                                                                                             \
		for (; l + 8 <= n; l += 8)                                                                           \
		{                                                                                                    \
			V8 x = *(const V8 *) (from + l);                                                                 \
                                                                                                             \
			body;                                                                                            \
		}                                                                                                    \
		for (; l < n; l++)                                                                                   \
		{                                                                                                    \
			float x = from[l];                                                                               \
                                                                                                             \
			rest;                                                                                            \
		}                                                                                                    \
	}

/* Two passes for the moments: the difference of two large sums would lose the variance. */
KERNEL
layernorm_body(float *dst, size_t dps, const float *src, size_t sps, int nl, int c, const float *scale,
               const float *shift, float eps)
{
	V8 sums = {0}, squares = {0};
	float mean = 0, var = 0, inv;

	TOKEN_CHANNELS(sums += x, mean += x);
	for (int i = 0; i < 8; i++)
		mean += sums[i];
	mean /= (float) c;

	TOKEN_CHANNELS(x -= mean; squares += x * x, x -= mean; var += x * x);
	for (int i = 0; i < 8; i++)
		var += squares[i];
	inv = 1 / sqrtf(var / (float) c + eps);

	TOKEN_CHANNELS(x = (x - mean) * inv * *(const V8 *) (scale + base + l);
	               *(V8 *) (dst + (size_t) p * dps + l) = x + *(const V8 *) (shift + base + l),
	               x = (x - mean) * inv * scale[base + l];
	               dst[(size_t) p * dps + l] = x + shift[base + l]);
}

/*
 * e^x for x <= 0, within 2 units in the last place: x = n ln 2 + r, e^r by its
 * Taylor polynomial over |r| <= ln 2 / 2, 2^n by putting n into the exponent.
 * Below -87 the result would leave the normal numbers and stays at e^-87,
 * which is nothing next to the sum of a softmax (at least 1).
 */
KERNEL
softmax_exp(float *at)
{
	const float magic = 0x1.8p23f; /* adding it rounds to an integer, kept in the low bits */
	const V16 lowest = {-87, -87, -87, -87, -87, -87, -87, -87, -87, -87, -87, -87, -87, -87, -87, -87};
	V16 x = *(V16 *) at, shifted, n, r, e;
	I16 low = x < -87;

	x = (V16) (((I16) x & ~low) | ((I16) lowest & low));
	shifted = x * 1.44269504f + magic;
	n = shifted - magic;
	r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts, the first exact for any n here */
	e = r * (1 / 5040.0f) + 1 / 720.0f;
	e = e * r + 1 / 120.0f;
	e = e * r + 1 / 24.0f;
	e = e * r + 1 / 6.0f;
	e = e * r + 0.5f;
	e = e * r + 1;
	e = e * r + 1;
	*(V16 *) at = (V16) ((I16) e + ((I16) shifted << 23));
}

KERNEL
softmax_body(float *x, int n)
{
	int end = (n + CPU_SOFTMAX_STEP - 1) / CPU_SOFTMAX_STEP * CPU_SOFTMAX_STEP;
	V16 tops, sums = {0};
	float top, sum = 0;

	for (int i = n; i < end; i++)
		x[i] = -INFINITY;
	tops = *(V16 *) x;
	for (int i = CPU_SOFTMAX_STEP; i < end; i += CPU_SOFTMAX_STEP)
	{
		V16 v = *(V16 *) (x + i);
		I16 more = v > tops;

		tops = (V16) (((I16) v & more) | ((I16) tops & ~more));
	}
	top = tops[0];
	for (int i = 1; i < CPU_SOFTMAX_STEP; i++)
		top = tops[i] > top ? tops[i] : top;

	for (int i = 0; i < end; i += CPU_SOFTMAX_STEP)
	{
		*(V16 *) (x + i) -= top;
		softmax_exp(x + i);
		sums += *(V16 *) (x + i);
	}
	for (int i = 0; i < CPU_SOFTMAX_STEP; i++)
		sum += sums[i];
	for (int i = 0; i < end; i += CPU_SOFTMAX_STEP)
		*(V16 *) (x + i) *= 1 / sum;
}

#define VARIANT(suffix, attr)                                                                                \
	attr static void layernorm_##suffix(void *dst, size_t dps, const void *src, size_t sps, int nl, int c,   \
	                                    const float *scale, const float *shift, float eps)                   \
	{                                                                                                        \
		layernorm_body(dst, dps, src, sps, nl, c, scale, shift, eps);                                        \
	}                                                                                                        \
	attr static void softmax_##suffix(float *x, int n)                                                       \
	{                                                                                                        \
		softmax_body(x, n);                                                                                  \
	}                                                                                                        \
	static const CpuTokenKernels token_kernels_##suffix = {#suffix, layernorm_##suffix, softmax_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, __attribute__((target("avx512f,prefer-vector-width=512"))))
VARIANT(avx2, __attribute__((target("avx2"))))
#endif
VARIANT(portable, )

CPU_KERNEL_CHOICE(CpuTokenKernels, cpu_token_kernels, token_kernels)
