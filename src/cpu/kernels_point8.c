/*
 * kernels_point8.c
 *	  The loop of kernels_point8.h, for AVX-512 with VNNI.
 *
 * Six pixels by 64 output channels: 24 sums hide how long each product takes, and
 * a vector of weights serves six of them.  What is to be rounded and stored of one
 * such block overlaps with the next one's products.
 */
#include "cpu/kernels_point8.h"

#if defined(__x86_64__)
#include "cpu/kernels_vnni.h"

#define PIXELS  CPU_POINT8_PIXELS
#define VECTORS (CPU_POINT8_PANEL / INT8_LANES)

/* Where the channels of output pixel number i come from. */
INLINE const uint8_t *
point8_pixel(const CpuPoint8Image *image, int i)
{
	int at = image->stride == 1 ? i : (i / image->w * image->from_w + i % image->w) * image->stride;

	return image->from + (size_t) at * (size_t) image->ci;
}

/* Sums of 6 pixels, of which those from number n on are the first one's again; add: where a residual's
 * channels are, which are on their way meanwhile, NULL: none. */
INLINE void
point8_sums(__m512i sum[PIXELS][VECTORS], const CpuPoint8Image *image, int first, int n,
            const int8_t *weights, const void *add)
{
	const uint8_t *from[PIXELS];

#pragma GCC unroll 6
	for (int i = 0; i < PIXELS; i++)
	{
		from[i] = point8_pixel(image, first + (i < n ? i : 0));
#pragma GCC unroll 4
		for (int v = 0; v < VECTORS; v++)
			sum[i][v] = _mm512_setzero_si512();
	}
	if (add)
		for (int i = 0; i < PIXELS; i++)
			_mm_prefetch((const uint8_t *) add + (size_t) i * (size_t) image->co, _MM_HINT_T0);
	for (int k = 0; k < image->ci; k += 4, weights += 4 * CPU_POINT8_PANEL)
	{
		__m512i w[VECTORS];

#pragma GCC unroll 4
		for (int v = 0; v < VECTORS; v++)
			w[v] = _mm512_loadu_si512(weights + v * 4 * INT8_LANES);
#pragma GCC unroll 6
		for (int i = 0; i < PIXELS; i++)
		{
			int32_t four_channels;
			__m512i x;

			memcpy(&four_channels, from[i] + k, sizeof four_channels);
			x = _mm512_set1_epi32(four_channels);
#pragma GCC unroll 4
			for (int v = 0; v < VECTORS; v++)
				sum[i][v] = _mm512_dpbusd_epi32(sum[i][v], x, w[v]);
		}
	}
}

INLINE __m512
point8_scale(__m512i sum, const CpuInt8Epilogue *epi, int o)
{
	return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(epi->scale + o),
	                       _mm512_loadu_ps(epi->bias + o));
}

/* Channels in their order, of any type. */
INLINE void
point8_finish(const CpuPoint8Image *image, __m512i sum[PIXELS][VECTORS], int first, int n, int o,
              const CpuInt8Epilogue *epi, const CpuType type)
{
#pragma GCC unroll 4
	for (int v = 0; v < VECTORS; v++)
	{
		const int c = o + v * INT8_LANES;
		const __m512 scale = _mm512_loadu_ps(epi->scale + c), bias = _mm512_loadu_ps(epi->bias + c);

#pragma GCC unroll 6
		for (int i = 0; i < PIXELS; i++)
			if (i < n)
				int8_finish(image->to, (size_t) (first + i) * (size_t) image->co + (size_t) c,
				            _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][v]), scale, bias), epi, type);
	}
}

/*
 * Channels in the order of CPU_POINT8_PLACE, from steps to steps: packing puts four vectors together by
 * four numbers of each in turns, and what is saturated half-way ends where it should, once it is an integer.
 */
INLINE void
point8_pack(const CpuPoint8Image *image, __m512i sum[PIXELS][VECTORS], int first, int n, int o,
            const CpuInt8Epilogue *epi, const bool add)
{
	const __m512 most = _mm512_set1_ps(255), step = _mm512_set1_ps(epi->add_step);

#pragma GCC unroll 6
	for (int i = 0; i < PIXELS; i++)
		if (i < n)
		{
			size_t at = (size_t) (first + i) * (size_t) image->co + (size_t) o;
			__m512i residual =
			    add ? _mm512_loadu_si512((const uint8_t *) epi->add + at) : _mm512_setzero_si512();
			__m512i q[VECTORS];

#pragma GCC unroll 4
			for (int v = 0; v < VECTORS; v++)
			{
				/* The bytes 4 v .. 4 v + 3 of each 16, widened. */
				const __m512i widen = _mm512_broadcast_i32x4(
				    _mm_add_epi32(_mm_setr_epi32(-256, -255, -254, -253), _mm_set1_epi32(4 * v)));
				__m512 x = point8_scale(sum[i][v], epi, o + v * INT8_LANES);

				if (add)
					x = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_shuffle_epi8(residual, widen)), step, x);
				q[v] = _mm512_cvtps_epi32(_mm512_min_ps(x, most));
			}
			_mm512_storeu_si512(
			    (uint8_t *) image->to + at,
			    _mm512_packus_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3])));
		}
}

typedef enum Point8Way
{
	POINT8_FLOATS, /* the result is not in steps */
	POINT8_MIXED,  /* but the residual is not */
	POINT8_STEPS,
	POINT8_SUM /* of steps and a residual in steps */
} Point8Way;

INLINE void
point8_multiply_as(const CpuPoint8Image *image, int first, int end, const int8_t *weights,
                   const CpuInt8Epilogue *epi, const Point8Way way)
{
	for (int o = 0; o < image->co; o += CPU_POINT8_PANEL, weights += CPU_POINT8_PANEL * image->ci)
		for (int i = first; i < end; i += PIXELS)
		{
			const int n = end - i < PIXELS ? end - i : PIXELS;
			__m512i sum[PIXELS][VECTORS];

			point8_sums(sum, image, i, n, weights,
			            way == POINT8_SUM ? (const uint8_t *) epi->add + (size_t) i * (size_t) image->co + o
			                              : NULL);
			if (way == POINT8_STEPS || way == POINT8_SUM)
				point8_pack(image, sum, i, n, o, epi, way == POINT8_SUM);
			else
				point8_finish(image, sum, i, n, o, epi, way == POINT8_MIXED ? CPU_U8 : epi->type);
		}
}

TARGET static void
point8_multiply(const CpuPoint8Image *image, int first, int n, const int8_t *weights,
                const CpuInt8Epilogue *epi)
{
	if (epi->type != CPU_U8)
		point8_multiply_as(image, first, first + n, weights, epi, POINT8_FLOATS);
	else if (epi->add == NULL)
		point8_multiply_as(image, first, first + n, weights, epi, POINT8_STEPS);
	else if (epi->add_type == CPU_U8)
		point8_multiply_as(image, first, first + n, weights, epi, POINT8_SUM);
	else
		point8_multiply_as(image, first, first + n, weights, epi, POINT8_MIXED);
}

static const CpuPoint8Kernels point8_kernels = {"avx512_vnni", point8_multiply};

const CpuPoint8Kernels *
cpu_point8_kernels(void)
{
	return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	               __builtin_cpu_supports("avx512vnni")
	           ? &point8_kernels
	           : NULL;
}

#else

const CpuPoint8Kernels *
cpu_point8_kernels(void)
{
	return NULL;
}

#endif
