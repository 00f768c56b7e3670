/*
 * kernels_train_tokens.c
 *	  The loops of a transformer's training (kernels_train.h), compiled and
 *	  rounding as those of kernels_train.c.
 */
#include <math.h>

#include "cpu/kernels_train.h"
#include "cpu/kernels_vec.h"

KERNEL float
total(V16 x)
{
	float sum = 0;

	for (int i = 0; i < 16; i++)
		sum += x[i];
	return sum;
}

/* Runs body for each plane of a token: n channels from base on, at offset at. */
#define PLANES(body)                                                                                         \
	do                                                                                                       \
		for (int base = 0; base < c; base += nl)                                                             \
		{                                                                                                    \
			size_t at = (size_t) (base / nl) * ps;                                                           \
                                                                                                             \
			if (nl == 16 && c - base >= 16)                                                                  \
			{                                                                                                \
				const int n = 16;                                                                            \
                                                                                                             \
				body;                                                                                        \
			}                                                                                                \
			else                                                                                             \
			{                                                                                                \
				const int n = c - base < nl ? c - base : nl;                                                 \
                                                                                                             \
				body;                                                                                        \
			}                                                                                                \
		}                                                                                                    \
	while (0)

/* Lanes beyond the n real ones must not count: x - mean is not zero there. */
KERNEL V16
centred(const float *x, float mean, int n)
{
	V16 d = load(x, n) - mean;

	for (int i = n; i < 16; i++)
		d[i] = 0;
	return d;
}

/* What a plane adds to the sums of a LayerNorm's gradient. */
KERNEL void
layernorm_sums(V16 z, V16 d, V16 w, V16 *dz_sums, V16 *dzz_sums, float *dw, float *db, int n)
{
	V16 dz = d * w;

	*dz_sums += dz;
	*dzz_sums += dz * z;
	store(dw, load(dw, n) + d * z, n);
	store(db, load(db, n) + d, n);
}

/* One plane of it. */
KERNEL void
layernorm_write(float *dx, V16 z, V16 dz, float mean_dz, float mean_dzz, float inv, int n)
{
	store(dx, (dz - mean_dz - z * mean_dzz) * inv, n);
}

KERNEL void
add_square(V16 *sums, V16 d)
{
	*sums += d * d;
}

/* With z = (x - mean) / deviation and dz = w dy: dx = (dz - mean of dz - z * mean of dz z) / deviation. */
KERNEL void
layernorm_body(float *dx, const float *dy, const float *x, size_t ps, int nl, int c, const float *w,
               float eps, float *dw, float *db)
{
	V16 sums = {0}, squares = {0}, dz_sums = {0}, dzz_sums = {0};
	float mean, inv, mean_dz, mean_dzz;

	PLANES(sums += load(x + at, n));
	mean = total(sums) / (float) c;
	PLANES(add_square(&squares, centred(x + at, mean, n)));
	inv = 1 / sqrtf(total(squares) / (float) c + eps);
	PLANES(layernorm_sums(centred(x + at, mean, n) * inv, load(dy + at, n), load(w + base, n), &dz_sums,
	                      &dzz_sums, dw + base, db + base, n));
	mean_dz = total(dz_sums) / (float) c;
	mean_dzz = total(dzz_sums) / (float) c;
	PLANES(layernorm_write(dx + at, centred(x + at, mean, n) * inv, load(dy + at, n) * load(w + base, n),
	                       mean_dz, mean_dzz, inv, n));
}

KERNEL void
softmax_body(float *d, const float *p, int count)
{
	V16 sums = {0};
	float sum = 0;
	int i = 0;

	for (; i + 16 <= count; i += 16)
		sums += *(V16 *) (d + i) * *(const V16 *) (p + i);
	for (; i < count; i++)
		sum += d[i] * p[i];
	sum += total(sums);
	for (i = 0; i + 16 <= count; i += 16)
		*(V16 *) (d + i) = (*(V16 *) (d + i) - sum) * *(const V16 *) (p + i);
	for (; i < count; i++)
		d[i] = (d[i] - sum) * p[i];
}

#define VARIANT(suffix, attr)                                                                                \
	attr static void layernorm_##suffix(float *dx, const float *dy, const float *x, size_t ps, int nl,       \
	                                    int c, const float *w, float eps, float *dw, float *db)              \
	{                                                                                                        \
		layernorm_body(dx, dy, x, ps, nl, c, w, eps, dw, db);                                                \
	}                                                                                                        \
	attr static void softmax_##suffix(float *d, const float *p, int n)                                       \
	{                                                                                                        \
		softmax_body(d, p, n);                                                                               \
	}                                                                                                        \
	static const CpuTrainTokenKernels train_token_kernels_##suffix = {#suffix, layernorm_##suffix,           \
	                                                                  softmax_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, __attribute__((target("avx512f,prefer-vector-width=512"))))
VARIANT(avx2, __attribute__((target("avx2"))))
#endif
VARIANT(portable, )

const CpuTrainTokenKernels *
cpu_train_token_kernels_variant(int i)
{
	const CpuTrainTokenKernels *found[3];
	int n = 0;

#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx512f"))
		found[n++] = &train_token_kernels_avx512;
	if (__builtin_cpu_supports("avx2"))
		found[n++] = &train_token_kernels_avx2;
#endif
	found[n++] = &train_token_kernels_portable;
	return i >= 0 && i < n ? found[i] : NULL;
}

const CpuTrainTokenKernels *
cpu_train_token_kernels(void)
{
	return cpu_train_token_kernels_variant(0);
}
