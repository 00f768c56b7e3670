/*
 * kernels_wino.c
 *	  The two transforms of a one-dimensional Winograd convolution (wino1d.c),
 *	  in vector loops compiled three times as kernels.c's are, rounding alike.
 *
 * F(4, 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural
 * Networks", CVPR 2016, in one dimension: interpolation at 0, 1, -1, 2, -2 and
 * infinity.  The sums are written so that what two points share is computed
 * once.
 */
#include "cpu/kernels.h"
#include "cpu/kernels_lanes.h"

/* Lanes l of plane p of tile t, whose pixels are 4t - 1 .. 4t + 4; beyond the ends lies padding. */
#define SPLIT_LANES(V)                                                                                       \
	do                                                                                                       \
	{                                                                                                        \
		const float *from = src + (size_t) p * g->plane + l;                                                 \
		float *to = points + (size_t) t * g->c + (size_t) p * g->vec + l;                                    \
		const size_t far = (size_t) g->tiles * g->c;                                                         \
		V x[CPU_WINO_POINTS];                                                                                \
                                                                                                             \
		for (int k = 0; k < CPU_WINO_POINTS; k++)                                                            \
		{                                                                                                    \
			int at = CPU_WINO_TILE * t - 1 + k;                                                              \
                                                                                                             \
			x[k] = at >= 0 && at < g->w ? *(const V *) (from + (size_t) at * g->vec) : (V){0};               \
		}                                                                                                    \
		V even = x[4] - 4 * x[2], odd = x[3] - 4 * x[1], near = x[4] - x[2], side = 2 * (x[3] - x[1]);       \
                                                                                                             \
		*(V *) to = 4 * x[0] - 5 * x[2] + x[4];                                                              \
		*(V *) (to + far) = even + odd;                                                                      \
		*(V *) (to + 2 * far) = even - odd;                                                                  \
		*(V *) (to + 3 * far) = near + side;                                                                 \
		*(V *) (to + 4 * far) = near - side;                                                                 \
		*(V *) (to + 5 * far) = 4 * x[1] - 5 * x[3] + x[5];                                                  \
	} while (0)

KERNEL
split_body(float *points, const float *src, const CpuWinoSide *g)
{
	for (int t = 0; t < g->tiles; t++)
		for (int p = 0; p < g->c / g->vec; p++)
		{
			int l = 0;

			for (; l + 16 <= g->vec; l += 16)
				SPLIT_LANES(V16);
			for (; l + 8 <= g->vec; l += 8)
				SPLIT_LANES(V8);
		}
}

#define JOIN_LANES(V, M)                                                                                     \
	do                                                                                                       \
	{                                                                                                        \
		const size_t c = (size_t) p * g->vec + l, far = (size_t) g->tiles * g->c;                            \
		const float *from = points + (size_t) t * g->c + c;                                                  \
		float *to = dst + (size_t) p * g->plane + (size_t) CPU_WINO_TILE * t * g->vec + l;                   \
		V bias = *(const V *) (epi->bias + c), scale = *(const V *) (epi->scale + c),                        \
		  shift = *(const V *) (epi->shift + c), y[CPU_WINO_TILE];                                           \
		V p1 = *(const V *) (from + far), m1 = *(const V *) (from + 2 * far);                                \
		V p2 = *(const V *) (from + 3 * far), m2 = *(const V *) (from + 4 * far);                            \
		V sum1 = p1 + m1, sum2 = p2 + m2, diff1 = p1 - m1, diff2 = p2 - m2;                                  \
                                                                                                             \
		y[0] = *(const V *) from + sum1 + sum2;                                                              \
		y[1] = diff1 + 2 * diff2;                                                                            \
		y[2] = sum1 + 4 * sum2;                                                                              \
		y[3] = diff1 + 8 * diff2 + *(const V *) (from + 5 * far);                                            \
		for (int k = 0; k < CPU_WINO_TILE && CPU_WINO_TILE * t + k < g->w; k++)                              \
		{                                                                                                    \
			V x = y[k] + bias;                                                                               \
                                                                                                             \
			if (epi->relu)                                                                                   \
				x = (V) ((M) x & ~(x < 0));                                                                  \
			*(V *) (to + (size_t) k * g->vec) = x * scale + shift;                                           \
		}                                                                                                    \
	} while (0)

KERNEL
join_body(float *dst, const float *points, const CpuWinoSide *g, const CpuWinoEpilogue *epi)
{
	for (int t = 0; t < g->tiles; t++)
		for (int p = 0; p < g->c / g->vec; p++)
		{
			int l = 0;

			for (; l + 16 <= g->vec; l += 16)
				JOIN_LANES(V16, M16);
			for (; l + 8 <= g->vec; l += 8)
				JOIN_LANES(V8, M8);
		}
}

#define VARIANT(suffix, attr)                                                                                \
	attr static void split_##suffix(float *points, const float *src, const CpuWinoSide *g)                   \
	{                                                                                                        \
		split_body(points, src, g);                                                                          \
	}                                                                                                        \
	attr static void join_##suffix(float *dst, const float *points, const CpuWinoSide *g,                    \
	                               const CpuWinoEpilogue *epi)                                               \
	{                                                                                                        \
		join_body(dst, points, g, epi);                                                                      \
	}                                                                                                        \
	static const CpuWinoKernels wino_##suffix = {#suffix, split_##suffix, join_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, __attribute__((target("avx512f,prefer-vector-width=512"))))
VARIANT(avx2, __attribute__((target("avx2"))))
#endif
VARIANT(portable, )

CPU_KERNEL_CHOICE(CpuWinoKernels, cpu_wino_kernels, wino)
