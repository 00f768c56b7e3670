/*
 * wino8.c
 *	  3x3 convolutions of u8 by s8 by Winograd's algorithm, without its error.
 *
 * F(4x4, 3x3) needs a quarter of the products.  Its transforms of the input have
 * whole numbers; those of the weights have fractions, but with one denominator
 * for each of the six points of a side (4, 6, 6, 24, 24, 1), so that they too are
 * kept as whole numbers, at most 49 * 127, and what they are fractions of is
 * made up for in joining (kernels_wino8.c).  So the sums of products are exact, like
 * the direct ones, and what is joined from them in floats is off by about 1e-7 of its size.
 *
 * That holds as long as no sum leaves 32 bits.  Whether some input might make it
 * do so is found out from the weights when a plan is compiled; such convolutions,
 * and those that would not be faster, are left to the library.  (Its own
 * Winograd for integers rounds points to 8 bits, which doubles what int8 costs
 * in accuracy.)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

#define WINO8_BLOCK    32 /* tiles at a time: their points and sums stay in the L2 cache */
#define WINO8_MIN_SIDE 12 /* pixels: fewer tiles do not make up for loading the weights */

/* s->param of such a step. */
typedef struct Wino8
{
	const int16_t *weights;
	const float *channel; /* cpu_int8_channels() */
} Wino8;

/* Numbers between a point's and the next one's; not a multiple of what caches count in. */
static size_t
wino8_plane(const CpuView *v)
{
	return (size_t) WINO8_BLOCK * (size_t) v->c + 32;
}

static size_t
wino8_points_bytes(const CpuStep *s)
{
	return CPU_WINO8_POINTS * wino8_plane(&s->in[0]) * sizeof(int16_t);
}

bool
cpu_wino8_wants(const CpuBuild *b, const CpuStep *s, const CpuConvShape *c)
{
	return b->dev->wino8_kernels && cpu_conv_winograd(c, &s->out) && s->out.h >= WINO8_MIN_SIDE &&
	       s->out.w >= WINO8_MIN_SIDE && c->ci % (2 * CPU_WINO8_LANES) == 0 && c->co % CPU_WINO8_LANES == 0 &&
	       c->ci <= CPU_WINO8_MAX_CHANNELS && s->in[0].type == CPU_U8;
}

/* --- weights ------------------------------------------------------------- */

/* What a side's six points are of three weights, and the denominators that are left out. */
static const int wino8_g[CPU_WINO8_SIDE][3] = {{1, 0, 0}, {1, 1, 1},  {1, -1, 1},
                                               {1, 2, 4}, {1, -2, 4}, {0, 0, 1}};

/* What a side's input can add up to, in steps of 255: its positive and its negative factors. */
static const int wino8_most[CPU_WINO8_SIDE][2] = {{5, 5}, {2, 8}, {5, 5}, {3, 3}, {3, 3}, {5, 5}};

/* The points of nine weights, and in largest and smallest what each can add to a sum. */
static void
wino8_points(int16_t u[CPU_WINO8_POINTS], const int8_t *w, int64_t *largest, int64_t *smallest)
{
	for (int p = 0; p < CPU_WINO8_POINTS; p++)
	{
		const int *a = wino8_most[p / CPU_WINO8_SIDE], *b = wino8_most[p % CPU_WINO8_SIDE];
		const int *g = wino8_g[p / CPU_WINO8_SIDE], *h = wino8_g[p % CPU_WINO8_SIDE];
		int top = 255 * (a[0] * b[0] + a[1] * b[1]), bottom = -255 * (a[0] * b[1] + a[1] * b[0]), sum = 0;

		for (int y = 0; y < 3; y++)
			sum += g[y] * (h[0] * w[3 * y] + h[1] * w[3 * y + 1] + h[2] * w[3 * y + 2]);
		u[p] = (int16_t) sum;
		largest[p] += (int64_t) sum * (sum > 0 ? top : bottom);
		smallest[p] += (int64_t) sum * (sum > 0 ? bottom : top);
	}
}

/* Fills to, a matrix for each point; false: with some input a sum would not fit 32 bits. */
static bool
wino8_split_weights(int16_t *to, const int8_t *w, size_t ci, size_t co)
{
	for (size_t o = 0; o < co; o++)
	{
		int64_t largest[CPU_WINO8_POINTS] = {0}, smallest[CPU_WINO8_POINTS] = {0};
		int16_t *panel = to + o / CPU_WINO8_LANES * CPU_WINO8_LANES * ci, u[CPU_WINO8_POINTS];

		for (size_t c = 0; c < ci; c++)
		{
			size_t at = (c / 2 * CPU_WINO8_LANES + o % CPU_WINO8_LANES) * 2 + c % 2;

			wino8_points(u, w + (o * ci + c) * 9, largest, smallest);
			for (size_t p = 0; p < CPU_WINO8_POINTS; p++)
				panel[p * ci * co + at] = u[p];
		}
		for (int p = 0; p < CPU_WINO8_POINTS; p++)
			if (largest[p] > INT32_MAX || smallest[p] < INT32_MIN)
				return false;
	}
	return true;
}

/* --- running ------------------------------------------------------------- */

static int
wino8_across(const CpuStep *s)
{
	return (s->out.w + CPU_WINO8_TILE - 1) / CPU_WINO8_TILE;
}

/* Tiles of an image. */
static int
wino8_tiles(const CpuStep *s)
{
	return wino8_across(s) * ((s->out.h + CPU_WINO8_TILE - 1) / CPU_WINO8_TILE);
}

/* Where tile number t of a micro-batch is, counting through its images; *image: in which. */
static CpuWino8Tile
wino8_tile(const CpuStep *s, int t, int *image)
{
	int of = t % wino8_tiles(s), across = wino8_across(s);

	*image = t / wino8_tiles(s);
	return (CpuWino8Tile){of / across * CPU_WINO8_TILE, of % across * CPU_WINO8_TILE, s->out.h, s->out.w};
}

static void
wino8_join_tile(const CpuStep *s, const CpuRun *run, const int32_t *sums, int t)
{
	const Wino8 *w = s->param;
	int image;
	CpuWino8Tile tile = wino8_tile(s, t, &image);
	CpuInt8Epilogue epi = cpu_int8_epilogue(s, run, image, w->channel);

	run->plan->dev->wino8_kernels->join(cpu_at(run->arena, &s->out, image), sums, wino8_plane(&s->out),
	                                    s->out.c, &tile, &epi);
}

static DfxStatus
wino8_run(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuWino8Kernels *k = run->plan->dev->wino8_kernels;
	const Wino8 *w = s->param;
	char *scratch = run->arena + run->plan->scratch_off;
	int16_t *points = (int16_t *) (void *) scratch;
	int32_t *sums = (int32_t *) (void *) (scratch + wino8_points_bytes(s));
	size_t ci = (size_t) s->in[0].c, co = (size_t) s->out.c, from = wino8_plane(&s->in[0]),
	       to = wino8_plane(&s->out);
	int total = run->n * wino8_tiles(s), image;

	(void) err;
	for (int first = 0; first < total; first += WINO8_BLOCK)
	{
		int n = cpu_min(total - first, WINO8_BLOCK);

		for (int t = 0; t < n; t++)
		{
			CpuWino8Tile tile = wino8_tile(s, first + t, &image);

			k->split(points + (size_t) t * ci, from, cpu_at(run->arena, &s->in[0], image), (int) ci, &tile);
		}
		for (size_t p = 0; p < CPU_WINO8_POINTS; p++)
			k->multiply(sums + p * to, points + p * from, w->weights + p * ci * co, n, (int) ci, (int) co);
		for (int t = 0; t < n; t++)
			wino8_join_tile(s, run, sums + (size_t) t * co, first + t);
	}
	return DFX_OK;
}

/* --- making -------------------------------------------------------------- */

/* s->param: a copy of the points, and what becomes of sums. */
static DfxStatus
wino8_share(CpuBuild *b, CpuStep *s, const int16_t *points, const CpuInt8Weights *w, DfxErr *err)
{
	size_t co = (size_t) s->out.c, bytes = CPU_WINO8_POINTS * (size_t) s->in[0].c * co * sizeof *points;
	Wino8 *own = cpu_plan_alloc(b->plan, sizeof *own, err);
	const float *channel = own ? cpu_int8_channels(b, s, w, 1.0f / CPU_WINO8_SCALE, err) : NULL;
	int16_t *copy = channel ? cpu_plan_alloc(b->plan, bytes, err) : NULL;

	if (copy == NULL)
		return DFX_ENOMEM;
	memcpy(copy, points, bytes);
	*own = (Wino8){copy, channel};
	s->param = own;
	return DFX_OK;
}

DfxStatus
cpu_wino8_step(CpuBuild *b, const DfxOp *op, CpuStep *s, const CpuInt8Weights *w, bool *made, DfxErr *err)
{
	size_t ci = (size_t) s->in[0].c, co = (size_t) s->out.c;
	int16_t *points = malloc(CPU_WINO8_POINTS * ci * co * sizeof *points);
	DfxStatus st = DFX_OK;

	if (points == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the weights of a convolution");
	*made = wino8_split_weights(points, w->q, ci, co);
	if (*made)
		st = wino8_share(b, s, points, w, err);
	free(points);
	if (st != DFX_OK || !*made)
		return st;
	s->run = wino8_run;
	cpu_int8_own(b, op, s);
	snprintf(s->impl, sizeof s->impl, "wino_4x3:%s", b->dev->wino8_kernels->name);
	cpu_need_scratch(b, wino8_points_bytes(s) + CPU_WINO8_POINTS * wino8_plane(&s->out) * sizeof(int32_t));
	return DFX_OK;
}
