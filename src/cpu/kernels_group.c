/*
 * kernels_group.c
 *	  The loops of grouped convolutions of 3x3, for AVX-512.
 *
 * A vector has the 16 output channels of a plane, whatever groups they are in.
 * What an output channel is multiplied with, unit u of its own group, is brought to
 * its lane by one permutation of the pixel's plane, which serves all three columns of the
 * kernel.  So no lane is idle, however narrow the groups; where a group fills a plane,
 * the permutation is a broadcast from memory.  A tile of neighbouring pixels stays in
 * registers for all of it.
 *
 * Rows of the source are copied, each once, to where there are zeros beside them;
 * as many as a kernel has rows lie there in turns.  A pixel's products are added in the same
 * order in whatever tile it is.
 */
#include "cpu/kernels_group.h"

#if defined(__x86_64__)
#include <string.h>

#include "cpu/kernels_bf16.h"

/* i from 0 to below n, a constant, without a loop. */
#define TIMES(i, n) _Pragma("GCC unroll 33") for (int i = 0; i < (n); i++)

#define LANES  CPU_GROUP_LANES
#define TAPS   CPU_GROUP_TAPS
#define VECTOR 64 /* bytes */

/* Bytes of a pixel's plane. */
KERNEL size_t
group_pixel(const bool half)
{
	return half ? LANES * sizeof(uint16_t) : LANES * sizeof(float);
}

/* Each lane's unit of a pixel: the one that lane has; or, the same for all, the one at only. */
KERNEL __m512i
group_units(const bool alone, const char *pixel, __m512i lane, size_t only)
{
	int word;

	if (!alone)
		return _mm512_permutexvar_epi32(lane, _mm512_loadu_si512(pixel));
	memcpy(&word, pixel + only, sizeof word);
	return _mm512_set1_epi32(word);
}

KERNEL __m512
group_madd(const bool half, __m512 acc, __m512i weights, __m512i units)
{
	return half ? _mm512_dpbf16_ps(acc, (__m512bh) weights, (__m512bh) units)
	            : _mm512_fmadd_ps(_mm512_castsi512_ps(weights), _mm512_castsi512_ps(units), acc);
}

/* Sums of t pixels by one row of the kernel; x: the first one's window; first: of each lane, its group's
 * first unit. */
KERNEL void
group_row(const bool half, const bool alone, const int s, const int t, __m512 *acc, const char *x, int units,
          __m512i first, const char *weights)
{
	for (int u = 0; u < units; u++, weights += TAPS * VECTOR)
	{
		const __m512i lane = _mm512_add_epi32(first, _mm512_set1_epi32(u));
		const __m512i w[TAPS] = {_mm512_loadu_si512(weights), _mm512_loadu_si512(weights + VECTOR),
		                         _mm512_loadu_si512(weights + 2 * VECTOR)};

		TIMES(c, (t - 1) * s + TAPS)
		{
			const __m512i unit =
			    group_units(alone, x + (size_t) c * group_pixel(half), lane, (size_t) u * sizeof(int));

			TIMES(k, TAPS)
			{
				if (c >= k && (c - k) % s == 0 && (c - k) / s < t)
					acc[(c - k) / s] = group_madd(half, acc[(c - k) / s], w[k], unit);
			}
		}
	}
}

/* A place in a set: of which output plane, of which row and from which column on. */
typedef struct GroupPlace
{
	int plane, y, x;
} GroupPlace;

/* What is the same for all tiles of a set. */
typedef struct GroupSet
{
	const CpuGroupConv *conv;
	const char *rows; /* row y of the source, padded, in slot y % TAPS of its plane */
	size_t pitch;     /* bytes */
	int units;
	__m512i first;
	const char *weights;
	const float *bias;
} GroupSet;

/* t pixels, as many of them as there are. */
KERNEL void
group_tile(const bool half, const bool alone, const int s, const int t, char *dst, const GroupSet *set,
           const GroupPlace *at)
{
	const CpuGroupConv *g = set->conv;
	const int top = at->y * s - 1, n = g->ow - at->x < t ? g->ow - at->x : t;
	const size_t step = (size_t) (set->units * TAPS) * VECTOR;
	const char *weights = set->weights + (size_t) (at->plane * g->planes * TAPS) * step;
	__m512 acc[CPU_GROUP_TILE];

	TIMES(i, t)
	{
		acc[i] = _mm512_loadu_ps(set->bias + at->plane * LANES);
	}
	for (int p = 0; p < g->planes; p++)
		for (int y = top; y < top + TAPS; y++, weights += step)
			if (y >= 0 && y < g->h)
				group_row(half, alone, s, t, acc,
				          set->rows + (size_t) (p * TAPS + y % TAPS) * set->pitch +
				              (size_t) (at->x * s) * group_pixel(half),
				          set->units, set->first, weights);
	dst += (((size_t) at->plane * (size_t) g->oh + (size_t) at->y) * (size_t) g->ow + (size_t) at->x) *
	       group_pixel(half);
	TIMES(i, t)
	{
		const __m512 sum = g->relu ? bf16_relu(acc[i]) : acc[i];

		if (i >= n)
			break;
		if (half)
			bf16_store((uint16_t *) (void *) dst + i * LANES, sum, 0xffff);
		else
			_mm512_storeu_ps((float *) (void *) dst + i * LANES, sum);
	}
}

/* A row of one plane of the result. */
KERNEL void
group_line(const bool half, const bool alone, const int s, char *dst, const GroupSet *set, GroupPlace *at)
{
	for (at->x = 0; at->x < set->conv->ow;)
		if (s == 1 && set->conv->ow - at->x > CPU_GROUP_TILE / 2)
		{
			group_tile(half, alone, s, CPU_GROUP_TILE, dst, set, at);
			at->x += CPU_GROUP_TILE;
		}
		else
		{
			group_tile(half, alone, s, CPU_GROUP_TILE / 2, dst, set, at);
			at->x += CPU_GROUP_TILE / 2;
		}
}

KERNEL void
group_body(const bool half, const bool alone, const int s, char *dst, char *rows, const char *src,
           const CpuGroupConv *g, const char *weights, const float *bias)
{
	const CpuType type = half ? CPU_BF16 : CPU_F32;
	const size_t width = (size_t) g->w * group_pixel(half);
	GroupSet set = {.conv = g,
	                .rows = rows,
	                .pitch = cpu_group_row(g) * group_pixel(half),
	                .units = cpu_group_units(g, type),
	                .weights = weights,
	                .bias = bias};
	int first[LANES], made = 0;

	for (int i = 0; i < LANES; i++)
		first[i] = i / g->width * set.units;
	set.first = _mm512_loadu_si512(first);
	memset(rows, 0, cpu_group_scratch(g, type));
	for (int oy = 0; oy < g->oh; oy++)
	{
		const int below = oy * s - 1 + TAPS, end = below < g->h ? below : g->h;

		for (; made < end; made++)
			for (int p = 0; p < g->planes; p++)
				memcpy(rows + (size_t) (p * TAPS + made % TAPS) * set.pitch + group_pixel(half),
				       src + ((size_t) p * (size_t) g->h + (size_t) made) * width, width);
		for (int p = 0; p < g->planes; p++)
			group_line(half, alone, s, dst, &set, &(GroupPlace){.plane = p, .y = oy});
	}
}

/* Strides, and whether a group fills its planes, as constants. */
#define TABLE(suffix, half, label)                                                                           \
	TARGET static void group_convolve_##suffix(void *dst, void *rows, const void *src,                       \
	                                           const CpuGroupConv *g, const void *weights,                   \
	                                           const float *bias)                                            \
	{                                                                                                        \
		if (g->width == LANES && g->stride == 1)                                                             \
			group_body(half, true, 1, dst, rows, src, g, weights, bias);                                     \
		else if (g->width == LANES)                                                                          \
			group_body(half, true, 2, dst, rows, src, g, weights, bias);                                     \
		else if (g->stride == 1)                                                                             \
			group_body(half, false, 1, dst, rows, src, g, weights, bias);                                    \
		else                                                                                                 \
			group_body(half, false, 2, dst, rows, src, g, weights, bias);                                    \
	}                                                                                                        \
	static const CpuGroupKernels group_kernels_##suffix = {label, group_convolve_##suffix};

TABLE(f32, false, "avx512")
TABLE(bf16, true, "avx512_bf16")

const CpuGroupKernels *
cpu_group_kernels(void)
{
	return &group_kernels_f32;
}

const CpuGroupKernels *
cpu_group_bf16_kernels(void)
{
	return &group_kernels_bf16;
}

#else

const CpuGroupKernels *
cpu_group_kernels(void)
{
	return NULL;
}

const CpuGroupKernels *
cpu_group_bf16_kernels(void)
{
	return NULL;
}

#endif
