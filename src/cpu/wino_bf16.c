/*
 * wino_bf16.c
 *	  Convolutions in bf16 of images with kernels of 3x3, in 1 / 2.25 of the
 *	  multiplications, and of signals with kernels of 3, in 1 / 1.5.
 *
 * The library's direct convolutions run at the peak of VDPBF16PS, so only doing
 * less is faster, and it has no Winograd in bf16.  Ours is F(2x2, 3x3)
 * (kernels_wino_bf16.c): four outputs of a channel need 16 products instead of
 * 36; or F(2, 3), 4 instead of 6.  Larger tiles would save more, but their
 * transforms multiply, and bf16 has not the digits for that.
 *
 * The micro-batch's tiles go block by block, so that what a block needs stays in
 * the second cache: its tiles are split into points; for each group of output
 * channels the points are multiplied by the weights', and the sums are joined to
 * outputs, with the op's epilogue.  A tile's result depends neither on its block
 * nor on what is beside it there, so an image's bits do not depend on its batch.
 *
 * The weights are split once, in doubles, and rounded once.  With those of one
 * point in two parts (cpu_wino_bf16_parts()) images' results are as near to fp32's
 * as by direct sums.
 */
#include <string.h>

#include "cpu/internal.h"

#define WINO_LANES        CPU_WINO_BF16_LANES
#define WINO_SIDE         CPU_WINO_BF16_SIDE
#define WINO_MAX_POINTS   (WINO_SIDE * WINO_SIDE)
#define WINO_MAX_PARTS    (WINO_MAX_POINTS + 1) /* of weights; cpu_wino_bf16_parts() */
#define WINO_MIN_CHANNELS 32 /* into the op: below, splitting and joining cost what is won */
#define WINO_MIN_TILES    8  /* of an image: products are made for so many */
#define WINO_MAX_TILES    128
#define WINO_BLOCK_BYTES  ((size_t) 512 << 10) /* of a block's points: half of a second cache */

/* What a step needs beside its views: s->param. */
typedef struct WinoBf16
{
	CpuWinoImage in, out;
	CpuWinoSplit split;
	int high, wide;  /* an image in tiles */
	int tiles;       /* of a block */
	int group;       /* planes of outputs in a group; the last one may have fewer */
	size_t sums_off; /* in the scratch memory, after the points */
	const float *bias, *scale, *shift;
	uint16_t *weights; /* the groups one after the other */
} WinoBf16;

static size_t
wino_round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

static int
wino_tiles(int pixels)
{
	return (pixels + CPU_WINO_BF16_TILE - 1) / CPU_WINO_BF16_TILE;
}

/* An image's rows of tiles. */
static int
wino_high(const CpuConvShape *c, const CpuView *out)
{
	return c->kh == 1 ? out->h : wino_tiles(out->h);
}

/* Planes in the group of outputs that begins with this one. */
static int
wino_group(const WinoBf16 *w, int plane)
{
	return cpu_min(w->group, w->out.planes - plane);
}

/* Parts of a kernel's weights, of all points. */
static int
wino_parts(const WinoBf16 *w)
{
	return w->split.npoints == WINO_SIDE ? WINO_SIDE : WINO_MAX_PARTS;
}

/* How many weights lie before those of that group. */
static size_t
wino_weights_before(const WinoBf16 *w, int plane)
{
	return (size_t) wino_parts(w) * (size_t) (w->in.planes * WINO_LANES) * (size_t) (plane * WINO_LANES);
}

bool
cpu_wino_bf16_wants(const CpuBuild *b, const DfxOp *op, const CpuConvShape *c)
{
	const CpuView *in = &b->view[op->in[0]], *out = &b->view[op->out];
	const CpuView *add = op->epi_add >= 0 ? &b->view[op->epi_add] : out;

	return b->dev->wino_bf16_kernels && op->kind == DFX_OP_CONV && c->groups == 1 &&
	       (c->kh == CPU_WINO_BF16_TAPS || c->kh == 1) && c->kw == CPU_WINO_BF16_TAPS && c->stride[0] == 1 &&
	       c->stride[1] == 1 && in->type == CPU_BF16 && out->type == CPU_BF16 && add->type == CPU_BF16 &&
	       in->vec == WINO_LANES && out->vec == WINO_LANES && add->vec == WINO_LANES &&
	       in->c >= WINO_MIN_CHANNELS && wino_high(c, out) * wino_tiles(out->w) >= WINO_MIN_TILES &&
	       (op->epi_act == DFX_ACT_NONE || op->epi_act == DFX_ACT_RELU);
}

/* The tiles of one row of one image (its number in *image) that begin with number first of the micro-batch
 * and end before end. */
static CpuWinoRun
wino_run_of(const WinoBf16 *w, int first, int end, int *image)
{
	int x = first % w->wide, row = first / w->wide;

	*image = row / w->high;
	return (CpuWinoRun){.y = row % w->high, .x = x, .n = cpu_min(w->wide - x, end - first)};
}

static void
wino_split_block(const CpuStep *s, const CpuRun *run, uint16_t *points, int first, int end, int tiles)
{
	const WinoBf16 *w = s->param;
	CpuWinoRun r;
	int image;

	for (int t = first; t < end; t += r.n)
	{
		r = wino_run_of(w, t, end, &image);
		r.at = t - first;
		run->plan->dev->wino_bf16_kernels->split(points, tiles, cpu_at(run->arena, &s->in[0], image), &w->in,
		                                         &r, &w->split);
	}
}

static void
wino_join_block(const CpuStep *s, const CpuRun *run, const float *sums, int first, int end, int tiles,
                int plane)
{
	const WinoBf16 *w = s->param;
	CpuWinoBf16Epilogue epi = {.bias = w->bias, .scale = w->scale, .shift = w->shift, .relu = s->relu};
	CpuWinoRun r;
	int image;

	for (int t = first; t < end; t += r.n)
	{
		r = wino_run_of(w, t, end, &image);
		r.at = t - first;
		epi.add = s->add_from.c > 0 ? cpu_at(run->arena, &s->add_from, image) : NULL;
		run->plan->dev->wino_bf16_kernels->join(cpu_at(run->arena, &s->out, image), sums, w->split.npoints,
		                                        tiles, plane, wino_group(w, plane), &w->out, &r, &epi);
	}
}

static DfxStatus
wino_run(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const WinoBf16 *w = s->param;
	const int all = run->n * w->high * w->wide;
	char *scratch = run->arena + run->plan->scratch_off;
	uint16_t *points = (uint16_t *) (void *) scratch;
	float *sums = (float *) (void *) (scratch + w->sums_off);

	(void) err;
	for (int first = 0, end; first < all; first = end)
	{
		int tiles;

		end = cpu_min(first + w->tiles, all);
		tiles = (int) wino_round_up((size_t) (end - first), CPU_WINO_BF16_ROWS);
		wino_split_block(s, run, points, first, end, tiles);
		for (int plane = 0; plane < w->out.planes; plane += w->group)
		{
			run->plan->dev->wino_bf16_kernels->multiply(
			    sums, points, w->weights + wino_weights_before(w, plane), w->split.npoints, tiles,
			    w->in.planes, wino_group(w, plane));
			wino_join_block(s, run, sums, first, end, tiles, plane);
		}
	}
	return DFX_OK;
}

/* The points of one kernel, G w G' or G w, in parts. */
static void
wino_split_kernel(uint16_t part[WINO_MAX_PARTS], const float *kernel, int npoints)
{
	static const double g[WINO_SIDE][CPU_WINO_BF16_TAPS] = {
	    {1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
	double across[CPU_WINO_BF16_TAPS][WINO_SIDE];
	float exact[WINO_MAX_POINTS];
	uint16_t rounded[WINO_MAX_POINTS];
	int high = npoints == WINO_SIDE ? 1 : CPU_WINO_BF16_TAPS;

	for (int y = 0; y < high; y++, kernel += CPU_WINO_BF16_TAPS)
		for (int i = 0; i < WINO_SIDE; i++)
			across[y][i] =
			    g[i][0] * (double) kernel[0] + g[i][1] * (double) kernel[1] + g[i][2] * (double) kernel[2];
	for (int i = 0; i < npoints; i++)
	{
		const int x = i % WINO_SIDE;
		const double *down = g[i / WINO_SIDE];

		exact[i] =
		    (float) (high == 1 ? across[0][x]
		                       : down[0] * across[0][x] + down[1] * across[1][x] + down[2] * across[2][x]);
	}
	cpu_convert(rounded, CPU_BF16, exact, CPU_F32, (size_t) npoints);
	for (int i = 0; i < npoints; i++)
	{
		float lost;

		*part++ = rounded[i];
		if (cpu_wino_bf16_parts(npoints, i) == 1)
			continue;
		cpu_convert(&lost, CPU_F32, &rounded[i], CPU_BF16, 1);
		lost = exact[i] - lost;
		cpu_convert(part++, CPU_BF16, &lost, CPU_F32, 1);
	}
}

/* All kernels' points, in the order of kernels_wino_bf16.h; for the channels that pad planes they stay 0. */
static void
wino_split_weights(const WinoBf16 *w, const float *kernel, int ci, int co)
{
	const size_t pairs = (size_t) (w->in.planes * WINO_LANES / 2);
	const int npoints = w->split.npoints;

	for (int o = 0; o < co; o++)
	{
		const int plane = o / WINO_LANES / w->group * w->group;
		const size_t row = (size_t) (wino_group(w, plane) * WINO_LANES);
		uint16_t *group = w->weights + wino_weights_before(w, plane) + (o - plane * WINO_LANES) * 2;

		for (int i = 0; i < ci; i++, kernel += npoints == WINO_SIDE ? 3 : 9)
		{
			uint16_t part[WINO_MAX_PARTS];

			wino_split_kernel(part, kernel, npoints);
			for (int k = 0; k < wino_parts(w); k++)
				group[((size_t) k * pairs + (size_t) i / 2) * row * 2 + (size_t) (i % 2)] = part[k];
		}
	}
}

/* One of the op's parameters, its planes padded with zeros; else a constant. */
static const float *
wino_channels(CpuBuild *b, const CpuStep *s, int param, float absent, DfxErr *err)
{
	float *to = cpu_plan_alloc(b->plan, (size_t) (cpu_planes(&s->out) * WINO_LANES) * sizeof *to, err);

	for (int i = 0; to && i < s->out.c; i++)
		to[i] = param >= 0 ? b->g.param[param].data[i] : absent;
	return to;
}

static DfxStatus
wino_share_params(CpuBuild *b, const DfxOp *op, CpuStep *s, WinoBf16 *w, DfxErr *err)
{
	const bool affine = op->epi_scale >= 0 || op->epi_shift >= 0;

	w->bias = wino_channels(b, s, op->param[DFX_B], 0, err);
	if (w->bias && affine)
		w->scale = wino_channels(b, s, op->epi_scale, 1, err);
	if (w->scale)
		w->shift = wino_channels(b, s, op->epi_shift, 0, err);
	if (w->bias == NULL || (affine && w->shift == NULL))
		return DFX_ENOMEM;
	w->weights = cpu_plan_alloc(b->plan, wino_weights_before(w, w->out.planes) * sizeof *w->weights, err);
	if (w->weights == NULL)
		return DFX_ENOMEM;
	wino_split_weights(w, b->g.param[op->param[DFX_W]].data, s->in[0].c, s->out.c);
	return DFX_OK;
}

/* How large blocks are, and the scratch memory for one. */
static void
wino_plan_blocks(CpuBuild *b, WinoBf16 *w)
{
	const size_t npoints = (size_t) w->split.npoints, rows = CPU_WINO_BF16_ROWS;
	size_t all = (size_t) b->plan->bucket[0] * (size_t) w->high * (size_t) w->wide;
	size_t tile = npoints * (size_t) (w->in.planes * WINO_LANES) * sizeof(uint16_t);
	size_t fit = WINO_BLOCK_BYTES / tile / rows * rows;

	fit = fit < 2 * rows ? 2 * rows : fit > WINO_MAX_TILES ? WINO_MAX_TILES : fit;
	w->tiles = (int) (fit < all ? fit : wino_round_up(all, rows));
	w->sums_off = wino_round_up(npoints * cpu_wino_bf16_points_far(w->tiles, w->in.planes) * sizeof(uint16_t),
	                            CPU_ALIGN);
	cpu_need_scratch(b, w->sums_off + npoints * cpu_wino_bf16_sums_far(w->tiles, w->group) * sizeof(float));
}

DfxStatus
cpu_wino_bf16_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const CpuConvShape c = cpu_conv_shape(&b->g, op);
	const CpuView *in = &s->in[0], *out = &s->out;
	WinoBf16 *w = cpu_plan_alloc(b->plan, sizeof *w, err);
	DfxStatus st;

	if (w == NULL)
		return DFX_ENOMEM;
	*w = (WinoBf16){.in = {cpu_planes(in), in->h, in->w},
	                .out = {cpu_planes(out), out->h, out->w},
	                .split = {.npoints = c.kh == 1 ? WINO_SIDE : WINO_MAX_POINTS,
	                          .pad = {(int) c.pad[0], (int) c.pad[1]}},
	                .high = wino_high(&c, out),
	                .wide = wino_tiles(out->w)};
	w->group = w->out.planes % 3 == 0 ? 3 : cpu_min(2, w->out.planes);
	st = wino_share_params(b, op, s, w, err);
	if (st != DFX_OK)
		return st;
	wino_plan_blocks(b, w);
	if (op->epi_add >= 0)
		s->add_from = b->view[op->epi_add];
	s->relu = op->epi_act == DFX_ACT_RELU;
	s->param = w;
	s->run = wino_run;
	strcpy(s->impl, c.kh == 1 ? "wino_bf16 F(2, 3)" : "wino_bf16 F(2x2, 3x3)");
	return DFX_OK;
}
