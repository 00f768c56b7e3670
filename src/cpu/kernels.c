/*
 * kernels.c
 *	  Vector loops over runs (kernels.h), compiled three times.
 *
 * Each loop is written once with the compiler's portable vector types and
 * forced inline into one wrapper per instruction set; the wrappers differ in
 * their target attribute only.  No -march=native: the choice is made at run
 * time.  All variants round alike (the multiply and the add of an affine are
 * never contracted, because -std=c11 forbids it), so that a verdict does not
 * depend on which one ran.
 */
#include "cpu/kernels.h"
#include "cpu/kernels_lanes.h"

/* The lanes of a V at l, all pixels; scale and shift stay in registers, and NaN passes the "not less" mask.
 */
#define AFFINE_LANES(V, M)                                                                                   \
	do                                                                                                       \
	{                                                                                                        \
		V s = *(const V *) (scale + l), t = *(const V *) (shift + l);                                        \
                                                                                                             \
		for (size_t i = 0; i < npix; i++)                                                                    \
		{                                                                                                    \
			V x = *(const V *) (src + i * sps + l) * s;                                                      \
                                                                                                             \
			x += t;                                                                                          \
			if (relu)                                                                                        \
				x = (V) ((M) x & ~(x < 0));                                                                  \
			*(V *) (dst + i * dps + l) = x;                                                                  \
		}                                                                                                    \
	} while (0)

KERNEL
affine_body(float *dst, size_t dps, const float *src, size_t sps, size_t npix, int nl, const float *scale,
            const float *shift, bool relu)
{
	int l = 0;

	for (; l + 16 <= nl; l += 16)
		AFFINE_LANES(V16, M16);
	for (; l + 8 <= nl; l += 8)
		AFFINE_LANES(V8, M8);
	for (; l < nl; l++)
		for (size_t i = 0; i < npix; i++)
		{
			float x = src[i * sps + l] * scale[l];

			x += shift[l];
			dst[i * dps + l] = relu && x < 0 ? 0 : x;
		}
}

#define BINARY_LANES(V, M)                                                                                   \
	for (size_t i = 0; i < npix; i++)                                                                        \
	{                                                                                                        \
		V x = *(const V *) (a + i * aps + l), y = *(const V *) (b + i * bps + l);                            \
                                                                                                             \
		x = mul ? x * y : x + y;                                                                             \
		if (relu)                                                                                            \
			x = (V) ((M) x & ~(x < 0));                                                                      \
		*(V *) (dst + i * dps + l) = x;                                                                      \
	}

KERNEL
binary_body(float *dst, size_t dps, const float *a, size_t aps, const float *b, size_t bps, size_t npix,
            int nl, bool mul, bool relu)
{
	int l = 0;

	for (; l + 16 <= nl; l += 16)
		BINARY_LANES(V16, M16)
	for (; l + 8 <= nl; l += 8)
		BINARY_LANES(V8, M8)
	for (; l < nl; l++)
		for (size_t i = 0; i < npix; i++)
		{
			float x = a[i * aps + l], y = b[i * bps + l];

			x = mul ? x * y : x + y;
			dst[i * dps + l] = relu && x < 0 ? 0 : x;
		}
}

/* The part of a window that lies inside the image. */
static inline void
pool_clip(int o, int s, int p, int k, int size, int *from, int *to)
{
	*from = o * s - p;
	*to = *from + k;
	if (*from < 0)
		*from = 0;
	if (*to > size)
		*to = size;
}

/* One window, the lanes of a V at l: the mean or the maximum of its pixels. */
#define POOL_WINDOW(V, MAX)                                                                                  \
	do                                                                                                       \
	{                                                                                                        \
		V acc = *(const V *) (src + ((size_t) y0 * g->iw + x0) * sps + l);                                   \
                                                                                                             \
		for (int y = y0; y < y1; y++)                                                                        \
			for (int x = x0 + (y == y0); x < x1; x++)                                                        \
			{                                                                                                \
				V v = *(const V *) (src + ((size_t) y * g->iw + x) * sps + l);                               \
                                                                                                             \
				if (avg)                                                                                     \
					acc += v;                                                                                \
				else                                                                                         \
					acc = MAX;                                                                               \
			}                                                                                                \
		if (avg)                                                                                             \
			acc *= inv;                                                                                      \
		*(V *) (to + l) = acc;                                                                               \
	} while (0)

#define VECTOR_MAX(V, M) ((V) (((M) v & (v > acc)) | ((M) acc & ~(v > acc))))

KERNEL
pool_body(float *dst, size_t dps, const float *src, size_t sps, int nl, const CpuPoolGeom *g, bool avg)
{
	const float inv = 1.0f / (float) (g->kh * g->kw);

	for (int oy = 0; oy < g->oh; oy++)
		for (int ox = 0; ox < g->ow; ox++)
		{
			float *to = dst + ((size_t) oy * g->ow + ox) * dps;
			int y0, y1, x0, x1, l = 0;

			pool_clip(oy, g->s, g->p, g->kh, g->ih, &y0, &y1);
			pool_clip(ox, g->s, g->p, g->kw, g->iw, &x0, &x1);
			for (; l + 16 <= nl; l += 16)
				POOL_WINDOW(V16, VECTOR_MAX(V16, M16));
			for (; l + 8 <= nl; l += 8)
				POOL_WINDOW(V8, VECTOR_MAX(V8, M8));
			for (; l < nl; l++)
				POOL_WINDOW(float, v > acc ? v : acc);
		}
}

/* One wrapper per kernel and instruction set; nl 16 is spelled out so that the common case has no tail code.
 */
#define VARIANT(suffix, attr)                                                                                \
	attr static void affine_##suffix(void *dst, size_t dps, const void *src, size_t sps, size_t npix,        \
	                                 int nl, const float *scale, const float *shift, bool relu)              \
	{                                                                                                        \
		if (relu)                                                                                            \
			affine_body(dst, dps, src, sps, npix, nl, scale, shift, true);                                   \
		else                                                                                                 \
			affine_body(dst, dps, src, sps, npix, nl, scale, shift, false);                                  \
	}                                                                                                        \
	attr static void binary_##suffix(void *dst, size_t dps, const void *a, size_t aps, const void *b,        \
	                                 size_t bps, size_t npix, int nl, bool mul, bool relu)                   \
	{                                                                                                        \
		binary_body(dst, dps, a, aps, b, bps, npix, nl, mul, relu);                                          \
	}                                                                                                        \
	attr static void pool_##suffix(void *dst, size_t dps, const void *src, size_t sps, int nl,               \
	                               const CpuPoolGeom *g, bool avg)                                           \
	{                                                                                                        \
		if (avg)                                                                                             \
			pool_body(dst, dps, src, sps, nl, g, true);                                                      \
		else                                                                                                 \
			pool_body(dst, dps, src, sps, nl, g, false);                                                     \
	}                                                                                                        \
	static const CpuKernels kernels_##suffix = {#suffix, affine_##suffix, binary_##suffix, pool_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, __attribute__((target("avx512f,prefer-vector-width=512"))))
VARIANT(avx2, __attribute__((target("avx2"))))
#endif
VARIANT(portable, )

CPU_KERNEL_CHOICE(CpuKernels, cpu_kernels, kernels)
