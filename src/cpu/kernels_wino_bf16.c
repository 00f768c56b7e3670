/*
 * kernels_wino_bf16.c
 *	  The loops of convolutions in bf16 by Winograd's algorithm (wino_bf16.c).
 *
 * F(2x2, 3x3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural
 * Networks", CVPR 2016, and F(2, 3): interpolation at 0, 1, -1 and infinity in
 * each direction.  Both transforms add and subtract only, in floats.  What is
 * rounded to bf16 is the transformed input, once; products are summed in floats
 * by VDPBF16PS, in the same order for each tile, whatever tiles are with it.
 */
#include <string.h>

#include "cpu/kernels_wino_bf16.h"

#if defined(__x86_64__)
#include "cpu/kernels_bf16.h"

#define LANES CPU_WINO_BF16_LANES
#define ROWS  CPU_WINO_BF16_ROWS
#define WIDE  CPU_WINO_BF16_WIDE
#define SIDE  CPU_WINO_BF16_SIDE
#define TILE  CPU_WINO_BF16_TILE

/* Four pixels to points. */
KERNEL void
wino_fold(__m512 to[SIDE], const __m512 d[SIDE])
{
	to[0] = _mm512_sub_ps(d[0], d[2]);
	to[1] = _mm512_add_ps(d[1], d[2]);
	to[2] = _mm512_sub_ps(d[2], d[1]);
	to[3] = _mm512_sub_ps(d[1], d[3]);
}

/* Column x of a row of tiles, SIDE pixels high and then folded, or one; rows that lie outside are NULL. */
KERNEL void
wino_column(__m512 to[SIDE], const uint16_t *const row[SIDE], int high, int x, int w, bool inside)
{
	__m512 d[SIDE];

#pragma GCC unroll 16
	for (int i = 0; i < high; i++)
	{
		if (inside || (row[i] && x >= 0 && x < w))
			d[i] = bf16_load(row[i] + (size_t) x * LANES, 0xffff);
		else
			d[i] = _mm512_setzero_ps();
	}
	if (high == SIDE)
		wino_fold(to, d);
	else
		to[0] = d[0];
}

/* n tiles, the first one's input from column x on.  Of a tile's four columns the next one has two. */
KERNEL void
wino_split_tiles(uint16_t *to, size_t far, const uint16_t *const row[SIDE], int high, int x, int n, int w,
                 bool inside)
{
	__m512 column[SIDE][SIDE];

	if (n <= 0)
		return;
	wino_column(column[0], row, high, x, w, inside);
	wino_column(column[1], row, high, x + 1, w, inside);
	for (int t = 0; t < n; t++, to += LANES)
	{
		x += TILE;
		wino_column(column[2], row, high, x, w, inside);
		wino_column(column[3], row, high, x + 1, w, inside);
#pragma GCC unroll 16
		for (int i = 0; i < high; i++)
		{
			const __m512 d[SIDE] = {column[0][i], column[1][i], column[2][i], column[3][i]};
			__m512 point[SIDE];

			wino_fold(point, d);
#pragma GCC unroll 16
			for (int j = 0; j < SIDE; j++)
				bf16_store(to + (size_t) (SIDE * i + j) * far, point[j], 0xffff);
			column[0][i] = d[2];
			column[1][i] = d[3];
		}
	}
}

/* One plane; tiles first .. end - 1 of the run lie inside the image. */
KERNEL void
wino_split_plane(uint16_t *to, size_t far, const uint16_t *const row[SIDE], int high, int x, int first,
                 int end, int n, int w)
{
	wino_split_tiles(to, far, row, high, x, first, w, false);
	wino_split_tiles(to + first * LANES, far, row, high, x + TILE * first, end - first, w, true);
	wino_split_tiles(to + end * LANES, far, row, high, x + TILE * end, n - end, w, false);
}

TARGET static void
wino_split(uint16_t *points, int tiles, const uint16_t *src, const CpuWinoImage *in, const CpuWinoRun *run,
           const CpuWinoSplit *how)
{
	const bool flat = how->npoints == SIDE;
	const size_t far = cpu_wino_bf16_points_far(tiles, in->planes), pitch = (size_t) in->w * LANES;
	const int high = flat ? 1 : SIDE;
	const int top = (flat ? 1 : TILE) * run->y - how->pad[0], left = TILE * run->x - how->pad[1];
	int first = left < 0 ? (1 - left) / TILE : 0;
	int end = in->w >= left + SIDE ? (in->w - left - SIDE) / TILE + 1 : 0;

	end = end < run->n ? end : run->n;
	if (top < 0 || top + high > in->h || end <= first)
		first = end = run->n;
	for (int p = 0; p < in->planes; p++)
	{
		uint16_t *to = points + ((size_t) p * (size_t) tiles + (size_t) run->at) * LANES;
		const uint16_t *row[SIDE];

		for (int i = 0; i < high; i++)
			row[i] = top + i >= 0 && top + i < in->h
			             ? src + ((size_t) p * (size_t) in->h + (size_t) (top + i)) * pitch
			             : NULL;
		if (flat)
			wino_split_plane(to, far, row, 1, left, first, end, run->n, in->w);
		else
			wino_split_plane(to, far, row, SIDE, left, first, end, run->n, in->w);
	}
}

/*
 * ROWS tiles at one point, times wide planes of outputs, whose weights come in so many parts; planes of the
 * points lie plane numbers apart.
 */
KERNEL void
wino_product(float *sums, const uint16_t *points, const uint16_t *weights, size_t plane, int planes,
             int parts, int wide)
{
	__m512 sum[ROWS][WIDE];

#pragma GCC unroll 16
	for (int t = 0; t < ROWS; t++)
#pragma GCC unroll 16
		for (int v = 0; v < wide; v++)
			sum[t][v] = _mm512_setzero_ps();
	for (int p = 0; p < parts * planes; p++)
		for (int k = 0; k < LANES; k += 2)
		{
			const uint16_t *from = points + (size_t) (p % planes) * plane + k;
			__m512i weight[WIDE];

#pragma GCC unroll 16
			for (int v = 0; v < wide; v++, weights += 2 * LANES)
				weight[v] = _mm512_loadu_si512(weights);
#pragma GCC unroll 16
			for (int t = 0; t < ROWS; t++)
			{
				__m512i pair;
				int x;

				memcpy(&x, from + t * LANES, sizeof x);
				pair = _mm512_set1_epi32(x);
#pragma GCC unroll 16
				for (int v = 0; v < wide; v++)
					sum[t][v] = _mm512_dpbf16_ps(sum[t][v], (__m512bh) pair, (__m512bh) weight[v]);
			}
		}
#pragma GCC unroll 16
	for (int t = 0; t < ROWS; t++)
#pragma GCC unroll 16
		for (int v = 0; v < wide; v++)
			_mm512_storeu_ps(sums + (t * wide + v) * LANES, sum[t][v]);
}

KERNEL void
wino_multiply_group(float *sums, const uint16_t *points, const uint16_t *weights, int npoints, int tiles,
                    int planes, int wide)
{
	const size_t far = cpu_wino_bf16_points_far(tiles, planes), row = (size_t) (wide * LANES);
	const size_t sums_far = cpu_wino_bf16_sums_far(tiles, wide), matrix = (size_t) planes * LANES * row;

	for (int i = 0; i < npoints; i++, points += far, sums += sums_far)
	{
		const int parts = cpu_wino_bf16_parts(npoints, i);

		for (size_t t = 0; t < (size_t) tiles; t += ROWS)
			wino_product(sums + t * row, points + t * LANES, weights, (size_t) tiles * LANES, planes, parts,
			             wide);
		weights += (size_t) parts * matrix;
	}
}

TARGET static void
wino_multiply(float *sums, const uint16_t *points, const uint16_t *weights, int npoints, int tiles,
              int planes, int wide)
{
	if (wide == 3)
		wino_multiply_group(sums, points, weights, npoints, tiles, planes, 3);
	else if (wide == 2)
		wino_multiply_group(sums, points, weights, npoints, tiles, planes, 2);
	else
		wino_multiply_group(sums, points, weights, npoints, tiles, planes, 1);
}

/* Four points' sums to pixels. */
KERNEL void
wino_unfold(__m512 to[TILE], __m512 a, __m512 b, __m512 c, __m512 d)
{
	to[0] = _mm512_add_ps(_mm512_add_ps(a, b), c);
	to[1] = _mm512_sub_ps(_mm512_sub_ps(b, c), d);
}

/* One tile of high rows: 2, or 1. */
KERNEL void
wino_join_tile(__m512 y[TILE][TILE], const float *sums, size_t far, int high)
{
	__m512 half[TILE][SIDE];

#pragma GCC unroll 16
	for (int j = 0; j < SIDE; j++)
	{
		__m512 pair[TILE], a = _mm512_loadu_ps(sums + (size_t) j * far);

		if (high == 1)
			half[0][j] = a;
		else
		{
			wino_unfold(pair, a, _mm512_loadu_ps(sums + (size_t) (SIDE + j) * far),
			            _mm512_loadu_ps(sums + (size_t) (2 * SIDE + j) * far),
			            _mm512_loadu_ps(sums + (size_t) (3 * SIDE + j) * far));
			half[0][j] = pair[0];
			half[1][j] = pair[1];
		}
	}
#pragma GCC unroll 16
	for (int i = 0; i < high; i++)
		wino_unfold(y[i], half[i][0], half[i][1], half[i][2], half[i][3]);
}

/* The epilogue for one plane. */
typedef struct WinoPlane
{
	__m512 bias, scale, shift;
	const uint16_t *add; /* from the run's first pixel on, as all below */
	bool scaled, relu;
	int h, w; /* what is left of the image */
	size_t pitch;
} WinoPlane;

KERNEL void
wino_finish(uint16_t *dst, size_t at, __m512 x, const WinoPlane *e)
{
	x = _mm512_add_ps(x, e->bias);
	if (e->add)
		x = _mm512_add_ps(x, bf16_load(e->add + at, 0xffff));
	if (e->relu)
		x = bf16_relu(x);
	if (e->scaled)
		x = _mm512_fmadd_ps(x, e->scale, e->shift);
	bf16_store(dst + at, x, 0xffff);
}

/* One plane's n tiles; the sums of neighbours lie next numbers apart. */
KERNEL void
wino_join_plane(uint16_t *dst, const float *sums, size_t far, size_t next, int n, int high,
                const WinoPlane *e)
{
	for (int t = 0; t < n; t++, sums += next)
	{
		__m512 y[TILE][TILE];

		wino_join_tile(y, sums, far, high);
#pragma GCC unroll 16
		for (int i = 0; i < high; i++)
#pragma GCC unroll 16
			for (int j = 0; j < TILE; j++)
				if (i < e->h && TILE * t + j < e->w)
					wino_finish(dst, (size_t) i * e->pitch + (size_t) (TILE * t + j) * LANES, y[i][j], e);
	}
}

TARGET static void
wino_join(uint16_t *dst, const float *sums, int npoints, int tiles, int plane, int wide,
          const CpuWinoImage *out, const CpuWinoRun *run, const CpuWinoBf16Epilogue *epi)
{
	const bool flat = npoints == SIDE;
	const size_t far = cpu_wino_bf16_sums_far(tiles, wide), next = (size_t) (wide * LANES);
	const int y = (flat ? 1 : TILE) * run->y, x = TILE * run->x;

	for (int v = 0; v < wide; v++)
	{
		const int c = (plane + v) * LANES;
		const float *from = sums + (size_t) run->at * next + (size_t) (v * LANES);
		WinoPlane e = {.bias = _mm512_loadu_ps(epi->bias + c),
		               .scaled = epi->scale,
		               .relu = epi->relu,
		               .h = out->h - y,
		               .w = out->w - x,
		               .pitch = (size_t) out->w * LANES};
		const size_t at =
		    ((size_t) (plane + v) * (size_t) out->h + (size_t) y) * e.pitch + (size_t) (x * LANES);

		e.add = epi->add ? epi->add + at : NULL;
		if (e.scaled)
		{
			e.scale = _mm512_loadu_ps(epi->scale + c);
			e.shift = _mm512_loadu_ps(epi->shift + c);
		}
		if (flat)
			wino_join_plane(dst + at, from, far, next, run->n, 1, &e);
		else
			wino_join_plane(dst + at, from, far, next, run->n, TILE, &e);
	}
}

static const CpuWinoBf16Kernels wino_kernels = {wino_split, wino_multiply, wino_join};

const CpuWinoBf16Kernels *
cpu_wino_bf16_kernels(void)
{
	return &wino_kernels;
}

#else

const CpuWinoBf16Kernels *
cpu_wino_bf16_kernels(void)
{
	return NULL;
}

#endif
