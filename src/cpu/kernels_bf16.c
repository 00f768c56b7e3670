/*
 * kernels_bf16.c
 *	  The loops of kernels.h over bf16 numbers.
 *
 * bf16 is the upper half of a float, so widening is a shift; narrowing is the
 * instruction that makes a CPU worth using for it (AVX-512 BF16), which rounds
 * to the nearest, halves to even, and takes subnormal numbers for 0.  All
 * arithmetic is on 16 floats at a time.  There is one variant only: without
 * that instruction the library's convolutions would be slower than in fp32,
 * and the device does not offer the precision.
 */
#include "cpu/kernels.h"

#if defined(__x86_64__)
#include <math.h>

#include "cpu/kernels_bf16.h"

#define BF16_TILE 32 /* pixels */

KERNEL void
bf16_affine_lanes(uint16_t *dst, size_t dps, const uint16_t *src, size_t sps, size_t npix, __mmask16 m,
                  __m512 scale, __m512 shift, bool relu)
{
	for (size_t i = 0; i < npix; i++)
	{
		__m512 x = _mm512_fmadd_ps(bf16_load(src + i * sps, m), scale, shift);

		bf16_store(dst + i * dps, relu ? bf16_relu(x) : x, m);
	}
}

KERNEL void
bf16_affine_tile(uint16_t *dst, size_t dps, const uint16_t *src, size_t sps, size_t npix, int nl,
                 const float *scale, const float *shift, bool relu)
{
	for (int l = 0; l < nl; l += 16)
	{
		__mmask16 m = bf16_mask(l, nl);
		__m512 s = _mm512_maskz_loadu_ps(m, scale + l), t = _mm512_maskz_loadu_ps(m, shift + l);

		if (relu && m == 0xffff) /* DenseNet's, which should not test masks */
			bf16_affine_lanes(dst + l, dps, src + l, sps, npix, 0xffff, s, t, true);
		else
			bf16_affine_lanes(dst + l, dps, src + l, sps, npix, m, s, t, relu);
	}
}

/* In nhwc a cache line has two vectors of lanes: a few pixels at a time, so that it is still there for the
 * second. */
TARGET static void
bf16_affine(void *dst, size_t dps, const void *src, size_t sps, size_t npix, int nl, const float *scale,
            const float *shift, bool relu)
{
	size_t tile = nl > 16 ? BF16_TILE : npix;

	for (size_t i = 0; i < npix; i += tile)
		bf16_affine_tile((uint16_t *) dst + i * dps, dps, (const uint16_t *) src + i * sps, sps,
		                 npix - i < tile ? npix - i : tile, nl, scale, shift, relu);
}

TARGET static void
bf16_binary(void *dst, size_t dps, const void *a, size_t aps, const void *b, size_t bps, size_t npix, int nl,
            bool mul, bool relu)
{
	for (int l = 0; l < nl; l += 16)
	{
		__mmask16 m = bf16_mask(l, nl);
		__m512 y = _mm512_setzero_ps();

		if (bps == 0)
			y = _mm512_maskz_loadu_ps(m, (const float *) b + l);
		for (size_t i = 0; i < npix; i++)
		{
			__m512 x = bf16_load((const uint16_t *) a + i * aps + l, m);

			if (bps != 0)
				y = bf16_load((const uint16_t *) b + i * bps + l, m);
			x = mul ? _mm512_mul_ps(x, y) : _mm512_add_ps(x, y);
			bf16_store((uint16_t *) dst + i * dps + l, relu ? bf16_relu(x) : x, m);
		}
	}
}

/* The part of a window that lies inside the image: its first number, and how many rows and pixels of them. */
typedef struct Bf16Window
{
	const uint16_t *src;
	size_t row, sps; /* numbers from a row to the next, from a pixel to the next */
	int h, w;
	bool avg;
	__m512 factor; /* of a mean */
} Bf16Window;

KERNEL int
bf16_clip(int at, int size)
{
	return at < 0 ? 0 : at > size ? size : at;
}

/* The 16 lanes from l on, and (with pair) the 16 after them. */
KERNEL void
bf16_window(const Bf16Window *v, int l, __mmask16 m, bool pair, __m512 *one, __m512 *two)
{
	__m512 a = v->avg ? _mm512_setzero_ps() : _mm512_set1_ps(-INFINITY), b = a;

	for (int y = 0; y < v->h; y++)
	{
		const uint16_t *p = v->src + (size_t) y * v->row + l;

		for (int x = 0; x < v->w; x++, p += v->sps)
		{
			__m512 c = bf16_load(p, m), d = pair ? bf16_load(p + 16, m) : c;

			a = v->avg ? _mm512_add_ps(a, c) : _mm512_max_ps(a, c);
			if (pair)
				b = v->avg ? _mm512_add_ps(b, d) : _mm512_max_ps(b, d);
		}
	}
	*one = v->avg ? _mm512_mul_ps(a, v->factor) : a;
	*two = v->avg ? _mm512_mul_ps(b, v->factor) : b;
}

KERNEL void
bf16_pool_store(void *dst, int l, __m512 x, __mmask16 m, bool floats)
{
	if (floats)
		_mm512_mask_storeu_ps((float *) dst + l, m, x);
	else
		bf16_store((uint16_t *) dst + l, x, m);
}

/* A pixel's channels one after the other: in nhwc that is how they lie, and a block has no more than 16. */
KERNEL void
bf16_pool_body(void *dst, size_t dps, const void *src, size_t sps, int nl, const CpuPoolGeom *g, bool avg)
{
	bool floats = g->oh == 1 && g->ow == 1;
	Bf16Window v = {.row = (size_t) g->iw * sps,
	                .sps = sps,
	                .avg = avg,
	                .factor = _mm512_set1_ps(1.0f / (float) (g->kh * g->kw))};
	__m512 one, two;

	for (int oy = 0; oy < g->oh; oy++)
	{
		int top = bf16_clip(oy * g->s - g->p, g->ih);

		v.h = bf16_clip(oy * g->s - g->p + g->kh, g->ih) - top;
		for (int ox = 0; ox < g->ow; ox++)
		{
			int left = bf16_clip(ox * g->s - g->p, g->iw), l = 0;
			uint16_t *to = (uint16_t *) dst + ((size_t) oy * (size_t) g->ow + (size_t) ox) * dps;

			v.w = bf16_clip(ox * g->s - g->p + g->kw, g->iw) - left;
			v.src = (const uint16_t *) src + ((size_t) top * (size_t) g->iw + (size_t) left) * sps;
			for (; l + 32 <= nl; l += 32)
			{
				bf16_window(&v, l, 0xffff, true, &one, &two);
				bf16_pool_store(to, l, one, 0xffff, floats);
				bf16_pool_store(to, l + 16, two, 0xffff, floats);
			}
			for (; l < nl; l += 16)
			{
				bf16_window(&v, l, bf16_mask(l, nl), false, &one, &two);
				bf16_pool_store(to, l, one, bf16_mask(l, nl), floats);
			}
		}
	}
}

TARGET static void
bf16_pool(void *dst, size_t dps, const void *src, size_t sps, int nl, const CpuPoolGeom *g, bool avg)
{
	if (avg)
		bf16_pool_body(dst, dps, src, sps, nl, g, true);
	else
		bf16_pool_body(dst, dps, src, sps, nl, g, false);
}

/* Runs body for each 16 channels of a token: they are x, at channel at, and the last may be fewer (m). */
#define TOKEN_CHANNELS(body)                                                                                 \
	for (int p = 0, base = 0; base < c; p++, base += nl)                                                     \
		for (int l = 0, n = c - base < nl ? c - base : nl; l < n; l += 16)                                   \
		{                                                                                                    \
			const int at = base + l;                                                                         \
			__mmask16 m = bf16_mask(l, n);                                                                   \
			__m512 x = bf16_load((const uint16_t *) src + (size_t) p * sps + l, m);                          \
                                                                                                             \
			body;                                                                                            \
		}

/* Two passes for the moments, as with floats. */
TARGET static void
bf16_layernorm(void *dst, size_t dps, const void *src, size_t sps, int nl, int c, const float *scale,
               const float *shift, float eps)
{
	__m512 sums = _mm512_setzero_ps(), squares = _mm512_setzero_ps(), mean, inv;

	TOKEN_CHANNELS((void) at; sums = _mm512_mask_add_ps(sums, m, sums, x));
	mean = _mm512_set1_ps(_mm512_reduce_add_ps(sums) / (float) c);

	TOKEN_CHANNELS((void) at; x = _mm512_maskz_sub_ps(m, x, mean); squares = _mm512_fmadd_ps(x, x, squares));
	inv = _mm512_set1_ps(1 / sqrtf(_mm512_reduce_add_ps(squares) / (float) c + eps));

	TOKEN_CHANNELS(
	    x = _mm512_mul_ps(_mm512_sub_ps(x, mean), inv);
	    x = _mm512_fmadd_ps(x, _mm512_maskz_loadu_ps(m, scale + at), _mm512_maskz_loadu_ps(m, shift + at));
	    bf16_store((uint16_t *) dst + (size_t) p * dps + l, x, m));
}

/* Narrowing from the front never overtakes what is still to be read. */
TARGET static void
bf16_softmax(float *x, int n)
{
	cpu_token_kernels()->softmax(x, n);
	for (int i = 0; i < n; i += 16)
	{
		__m512 v = _mm512_loadu_ps(x + i);

		bf16_store((uint16_t *) (void *) x + i, v, 0xffff);
	}
}

static const CpuKernels bf16_kernels = {"avx512_bf16", bf16_affine, bf16_binary, bf16_pool};
static const CpuTokenKernels bf16_token_kernels = {"avx512_bf16", bf16_layernorm, bf16_softmax};

const CpuKernels *
cpu_bf16_kernels(void)
{
	return &bf16_kernels;
}

const CpuTokenKernels *
cpu_bf16_token_kernels(void)
{
	return &bf16_token_kernels;
}

#else

const CpuKernels *
cpu_bf16_kernels(void)
{
	return NULL;
}

const CpuTokenKernels *
cpu_bf16_token_kernels(void)
{
	return NULL;
}

#endif
