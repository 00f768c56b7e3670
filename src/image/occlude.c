/*
 * occlude.c
 *	  Windows over an image, and the falls of a score as colours over it.
 */
#include "image/occlude.h"

#include <math.h>
#include <string.h>

#define OCCLUDE_STEPS (DFX_OCCLUDE_CELLS - 1)

/* How much of the grey image full colour replaces. */
#define OCCLUDE_COVER 0.75

/* 255 x METHOD's mean. */
static const uint8_t occlude_grey[3] = {124, 116, 104};

/* For and against: ends of ColorBrewer's RdYlBu, which the colour-blind can tell apart. */
static const uint8_t occlude_colour[2][3] = {{215, 48, 39}, {69, 117, 180}};

void
dfx_occlude(const uint8_t *pixels, int side, int window, uint8_t *out)
{
	int cell = side / DFX_OCCLUDE_CELLS;
	int x0 = window % OCCLUDE_STEPS * cell, y0 = window / OCCLUDE_STEPS * cell;

	memcpy(out, pixels, (size_t) side * (size_t) side * 3);
	for (int y = y0; y < y0 + 2 * cell; y++)
	{
		uint8_t *p = out + ((size_t) y * (size_t) side + (size_t) x0) * 3;

		for (int x = 0; x < 2 * cell; x++, p += 3)
			memcpy(p, occlude_grey, 3);
	}
}

/* The mean over the windows that cover a cell: four, fewer at the edges. */
static double
occlude_cell(const float *fall, int x, int y)
{
	double sum = 0;
	int n = 0;

	for (int wy = y - 1; wy <= y; wy++)
		for (int wx = x - 1; wx <= x; wx++)
			if (wx >= 0 && wx < OCCLUDE_STEPS && wy >= 0 && wy < OCCLUDE_STEPS)
			{
				sum += (double) fall[wy * OCCLUDE_STEPS + wx];
				n++;
			}
	return sum / n;
}

/* A pixel's place between the middles of cells: the one before, and how far it is to the next. */
static int
occlude_between(int at, int cell, double *part)
{
	double place = fmin(fmax((at + 0.5) / cell - 0.5, 0), DFX_OCCLUDE_CELLS - 1);
	int before = place < DFX_OCCLUDE_CELLS - 2 ? (int) place : DFX_OCCLUDE_CELLS - 2;

	*part = place - before;
	return before;
}

/* heat: -1 to 1. */
static void
occlude_pixel(const uint8_t *in, double heat, uint8_t *out)
{
	const uint8_t *colour = occlude_colour[heat < 0];
	double grey = 0.299 * in[0] + 0.587 * in[1] + 0.114 * in[2]; /* ITU-R BT.601, as Pillow's convert("L") */
	double cover = OCCLUDE_COVER * fabs(heat);

	for (int c = 0; c < 3; c++)
		out[c] = (uint8_t) (grey * (1 - cover) + colour[c] * cover + 0.5);
}

void
dfx_occlude_paint(const uint8_t *pixels, int side, const float fall[DFX_OCCLUDE_WINDOWS], double least,
                  uint8_t *out)
{
	double heat[DFX_OCCLUDE_CELLS][DFX_OCCLUDE_CELLS], most = least;
	int cell = side / DFX_OCCLUDE_CELLS;

	for (int y = 0; y < DFX_OCCLUDE_CELLS; y++)
		for (int x = 0; x < DFX_OCCLUDE_CELLS; x++)
		{
			heat[y][x] = occlude_cell(fall, x, y);
			most = fmax(most, fabs(heat[y][x]));
		}
	for (int y = 0; y < side; y++)
		for (int x = 0; x < side; x++, pixels += 3, out += 3)
		{
			double fx, fy;
			int cx = occlude_between(x, cell, &fx), cy = occlude_between(y, cell, &fy);
			double above = heat[cy][cx] * (1 - fx) + heat[cy][cx + 1] * fx;
			double below = heat[cy + 1][cx] * (1 - fx) + heat[cy + 1][cx + 1] * fx;

			occlude_pixel(pixels, (above * (1 - fy) + below * fy) / most, out);
		}
}
