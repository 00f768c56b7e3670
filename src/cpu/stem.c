/*
 * stem.c
 *	  The first convolution of ResNets and DenseNets, 7x7 with stride 2 over the three
 *	  channels of an image, by Winograd's algorithm (kernels_stem.h).
 *
 * Three channels fill the library's vectors badly, in any precision, and a stride has no
 * Winograd.  As a convolution of 4x4 over cells of 2x2 pixels it has both 12 channels and a
 * stride of 1.  All of it is in floats, in bf16 too, where it is more precise than
 * the direct sum of rounded weights.
 *
 * A row of tiles at a time: 14 rows of pixels become 7 of points, then, 8 tiles at a time,
 * 49 points, which are multiplied by the weights and joined to outputs with 32 output
 * channels at a time, so that points and sums stay in the first caches.
 */
#include <stdio.h>
#include <string.h>

#include "cpu/internal.h"

#define STEM_TAPS   7
#define STEM_ROWS   (2 * CPU_STEM_SIDE) /* of pixels, for a row of tiles */
#define STEM_BEFORE 4                   /* pixels of padding before the first one: two cells */

/* s->param of such a step; the rest is offsets in its scratch memory, in floats. */
typedef struct Stem
{
	const float *weights, *bias;
	int across;                   /* tiles in a row */
	int cells;                    /* in a row of them */
	size_t far;                   /* numbers from one row of pixels to the next */
	size_t columns, points, sums; /* after the rows */
} Stem;

bool
cpu_stem_wants(const CpuBuild *b, const DfxOp *op, const CpuConvShape *c)
{
	const CpuView *in = &b->view[op->in[0]], *out = &b->view[op->out];

	return (in->type == CPU_F32 ? b->dev->stem_kernels : b->dev->stem_bf16_kernels) &&
	       op->kind == DFX_OP_CONV && c->groups == 1 && c->ci == 3 && c->kh == STEM_TAPS &&
	       c->kw == STEM_TAPS && c->stride[0] == 2 && c->stride[1] == 2 && c->pad[0] == 3 && c->pad[1] == 3 &&
	       c->co % CPU_STEM_LANES == 0 && out->vec % 16 == 0 && (in->vec == 1 || in->vec == 3) &&
	       out->type == in->type && op->epi_add < 0 && op->epi_scale < 0 && op->epi_shift < 0 &&
	       (op->epi_act == DFX_ACT_NONE || op->epi_act == DFX_ACT_RELU);
}

/* --- weights ------------------------------------------------------------- */

/* What a side's seven points are of four weights: values at the finite ones, over the product of the
 * distances from the others. */
static void
stem_points(double to[CPU_STEM_SIDE][CPU_STEM_TAPS])
{
	static const double at[CPU_STEM_SIDE - 1] = {0, 1, -1, 2, -2, 0.5};

	memset(to, 0, CPU_STEM_SIDE * sizeof *to);
	for (int i = 0; i < CPU_STEM_SIDE - 1; i++)
	{
		double power = 1;

		for (int j = 0; j < CPU_STEM_SIDE - 1; j++)
			power /= j == i ? 1 : at[i] - at[j];
		for (int j = 0; j < CPU_STEM_TAPS; j++, power *= at[i])
			to[i][j] = power;
	}
	to[CPU_STEM_SIDE - 1][CPU_STEM_TAPS - 1] = 1;
}

/* Weight of channel k of cell (y, x): the cells begin one pixel before the kernel. */
static double
stem_weight(const float *w, int y, int x, int k)
{
	int ky = 2 * y - 1 + k / CPU_STEM_ROW, kx = 2 * x - 1 + k % CPU_STEM_ROW / 3;

	return ky < 0 || kx < 0 ? 0 : (double) w[(k % 3 * STEM_TAPS + ky) * STEM_TAPS + kx];
}

/* Groups of output channels, each of 49 matrices of 12 x 32. */
static void
stem_split_weights(float *to, const float *w, int co)
{
	double g[CPU_STEM_SIDE][CPU_STEM_TAPS];

	stem_points(g);
	for (int o = 0; o < co; o++)
		for (int p = 0; p < CPU_STEM_POINTS; p++)
			for (int k = 0; k < CPU_STEM_CELL; k++)
			{
				int group = o / CPU_STEM_LANES * CPU_STEM_POINTS + p;
				double sum = 0;

				for (int i = 0; i < CPU_STEM_TAPS * CPU_STEM_TAPS; i++)
				{
					int y = i / CPU_STEM_TAPS, x = i % CPU_STEM_TAPS;

					sum += g[p / CPU_STEM_SIDE][y] * g[p % CPU_STEM_SIDE][x] *
					       stem_weight(w + o * 3 * STEM_TAPS * STEM_TAPS, y, x, k);
				}
				to[(group * CPU_STEM_CELL + k) * CPU_STEM_LANES + o % CPU_STEM_LANES] = (float) sum;
			}
}

/* --- running ------------------------------------------------------------- */

/* Rows of pixels first .. of an image, each after four pixels of padding; what is beyond the image is zero.
 */
static void
stem_rows(float *rows, const CpuStemKernels *k, const Stem *stem, const CpuView *in, const void *image,
          int first)
{
	for (int i = 0; i < STEM_ROWS; i++)
	{
		float *row = rows + (size_t) i * stem->far;
		int y = first + i;

		memset(row, 0, stem->far * sizeof *row);
		if (y >= 0 && y < in->h)
			k->row(row + 3 * STEM_BEFORE, cpu_from(image, in, (size_t) (y * in->w) * (size_t) in->vec),
			       in->type, in->vec, cpu_pixels(in), in->w);
	}
}

/* The next tiles of a row, whose points of columns begin at columns. */
static void
stem_tiles(const CpuStep *s, const CpuStemKernels *k, float *scratch, const float *columns, void *image,
           int y, int x, int n)
{
	const Stem *stem = s->param;
	float *points = scratch + stem->points, *sums = scratch + stem->sums;
	CpuStemOut out = {
	    .stride = (size_t) s->out.vec, .h = s->out.h, .w = s->out.w, .type = s->out.type, .relu = s->relu};

	k->split(points, columns, (size_t) stem->cells, n);
	for (int c = 0; c < s->out.c; c += CPU_STEM_LANES)
	{
		out.bias = stem->bias + c;
		for (int i = 0; i < 2; i++)
			out.at[i] = cpu_to(image, &s->out, cpu_channel(&s->out, c + CPU_STEM_LANES / 2 * i));
		k->multiply(sums, points, stem->weights + (size_t) (c * CPU_STEM_POINTS * CPU_STEM_CELL), n);
		for (int t = 0; t < n; t++)
			k->join(&out, sums, t, &(CpuStemTile){y, x + t * CPU_STEM_TILE});
	}
}

static DfxStatus
stem_run(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuStemKernels *k = run->plan->dev->stem_kernels;
	const Stem *stem = s->param;
	float *scratch = (float *) (void *) (run->arena + run->plan->scratch_off),
	      *columns = scratch + stem->columns;

	(void) err;
	for (int image = 0; image < run->n; image++)
		for (int y = 0; y < s->out.h; y += CPU_STEM_TILE)
		{
			stem_rows(scratch, k, stem, &s->in[0], cpu_at(run->arena, &s->in[0], image), 2 * y - STEM_BEFORE);
			k->columns(columns, scratch, stem->far, stem->cells);
			for (int t = 0; t < stem->across; t += CPU_STEM_TILES)
				stem_tiles(s, k, scratch, columns + (size_t) (t * CPU_STEM_TILE * CPU_STEM_STRIDE),
				           cpu_at(run->arena, &s->out, image), y, t * CPU_STEM_TILE,
				           cpu_min(stem->across - t, CPU_STEM_TILES));
		}
	return DFX_OK;
}

/* --- making -------------------------------------------------------------- */

DfxStatus
cpu_stem_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const DfxParam *w = &b->g.param[op->param[DFX_W]];
	size_t co = (size_t) s->out.c, count = co * CPU_STEM_POINTS * CPU_STEM_CELL;
	Stem *stem = cpu_plan_alloc(b->plan, sizeof *stem, err);
	float *weights = stem ? cpu_plan_alloc(b->plan, (count + co) * sizeof *weights, err) : NULL;

	if (weights == NULL)
		return DFX_ENOMEM;
	stem_split_weights(weights, w->data, s->out.c);
	if (op->param[DFX_B] >= 0)
		memcpy(weights + count, b->g.param[op->param[DFX_B]].data, co * sizeof *weights);
	*stem = (Stem){.weights = weights,
	               .bias = weights + count,
	               .across = (s->out.w + CPU_STEM_TILE - 1) / CPU_STEM_TILE};
	stem->cells = stem->across * CPU_STEM_TILE + CPU_STEM_TAPS - 1;
	/* A cell's lower pixels are loaded beside the upper ones of the row before it. */
	stem->far = (size_t) (stem->cells * CPU_STEM_ROW + 16) / 16 * 16 + 16;
	stem->columns = STEM_ROWS * stem->far;
	stem->points = stem->columns + (size_t) (CPU_STEM_SIDE * stem->cells * CPU_STEM_STRIDE);
	stem->sums = stem->points + CPU_STEM_POINTS * CPU_STEM_TILES * CPU_STEM_STRIDE;
	s->param = stem;
	s->relu = op->epi_act == DFX_ACT_RELU;
	s->run = stem_run;
	snprintf(s->impl, sizeof s->impl, "wino_stem:%s", b->dev->stem_kernels->name);
	cpu_need_scratch(b, (stem->sums + CPU_STEM_POINTS * CPU_STEM_TILES * CPU_STEM_LANES) * sizeof(float));
	return DFX_OK;
}
