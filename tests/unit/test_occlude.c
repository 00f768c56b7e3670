/*
 * test_occlude.c
 *	  Do windows hide what they should and nothing else, and do falls become
 *	  the colours they should, where they should?
 */
#include <stdlib.h>
#include <string.h>

#include "image/occlude.h"
#include "tests/unit/tap.h"

#define MAX_SIDE 256

static uint8_t image[MAX_SIDE * MAX_SIDE * 3], out[MAX_SIDE * MAX_SIDE * 3];

static const uint8_t *
pixel(const uint8_t *p, int side, int x, int y)
{
	return p + (y * side + x) * 3;
}

static bool
is_colour(const uint8_t *p, int r, int g, int b)
{
	return p[0] == r && p[1] == g && p[2] == b;
}

/* ---- windows ---- */

/* How many pixels are hidden within the square and how many changed without. */
static void
check_windows(int side)
{
	static int covered[MAX_SIDE][MAX_SIDE];
	int cell = side / DFX_OCCLUDE_CELLS, wrong = 0, bad = 0;

	memset(covered, 0, sizeof covered);
	for (int w = 0; w < DFX_OCCLUDE_WINDOWS; w++)
	{
		int x0 = w % 15 * cell, y0 = w / 15 * cell;

		dfx_occlude(image, side, w, out);
		for (int y = 0; y < side; y++)
			for (int x = 0; x < side; x++)
			{
				bool inside = x >= x0 && x < x0 + 2 * cell && y >= y0 && y < y0 + 2 * cell;
				const uint8_t *p = pixel(out, side, x, y);

				covered[y][x] += inside;
				wrong += inside ? !is_colour(p, 124, 116, 104) : memcmp(p, pixel(image, side, x, y), 3) != 0;
			}
	}
	ok(wrong == 0, "side %d: each window is grey, the rest is as it was", side);
	for (int y = 0; y < side; y++)
		for (int x = 0; x < side; x++)
		{
			bool edge_x = x < cell || x >= side - cell, edge_y = y < cell || y >= side - cell;

			bad += covered[y][x] != (edge_x ? 1 : 2) * (edge_y ? 1 : 2);
		}
	ok(bad == 0, "side %d: every pixel is below four windows, fewer at the edges", side);
}

/* ---- painting ---- */

static void
check_grey(void)
{
	float fall[DFX_OCCLUDE_WINDOWS] = {0};
	int wrong = 0;

	dfx_occlude_paint(image, 224, fall, 0.01, out);
	for (int i = 0; i < 224 * 224; i++)
	{
		const uint8_t *p = image + 3 * i;
		int grey = (299 * p[0] + 587 * p[1] + 114 * p[2] + 500) / 1000;

		wrong += abs(out[3 * i] - grey) > 1 || out[3 * i] != out[3 * i + 1] || out[3 * i] != out[3 * i + 2];
	}
	ok(wrong == 0, "without falls the image is grey");
}

/* Over black, full colour is three quarters of red or blue. */
static void
check_colours(void)
{
	float fall[DFX_OCCLUDE_WINDOWS] = {0};
	static const uint8_t black[MAX_SIDE * MAX_SIDE * 3];
	const uint8_t *p;

	fall[0] = 4;                        /* the corner: a cell that one window covers */
	fall[DFX_OCCLUDE_WINDOWS - 1] = -2; /* the other corner */
	fall[7 * 15 + 7] = 4;               /* the middle: its cells have three other windows */
	dfx_occlude_paint(black, 256, fall, 0.01, out);
	ok(is_colour(pixel(out, 256, 0, 0), 161, 36, 29) && is_colour(pixel(out, 256, 7, 7), 161, 36, 29),
	   "the strongest fall: full red, from the edge to the middle of its cell");
	ok(is_colour(pixel(out, 256, 255, 255), 26, 44, 68), "half as strong a rise: half of blue");
	p = pixel(out, 256, 128, 128);
	ok(p[0] >= 39 && p[0] <= 41 && p[1] < 12 && p[2] < 12,
	   "a cell has the mean of its windows: a quarter (%d %d %d)", p[0], p[1], p[2]);
	p = pixel(out, 256, 16, 0);
	ok(p[0] > 80 && p[0] < 130, "between cells it fades (%d)", p[0]);
	ok(is_colour(pixel(out, 256, 200, 40), 0, 0, 0), "elsewhere nothing");
	fall[7 * 15 + 7] = 0;
	dfx_occlude_paint(black, 256, fall, 8, out);
	ok(is_colour(pixel(out, 256, 0, 0), 81, 18, 15),
	   "when nothing is as strong as must be, colours stay pale");
}

int
main(void)
{
	for (size_t i = 0; i < sizeof image; i++)
		image[i] = (uint8_t) (i * 7 + i / 768 * 31);
	check_windows(256);
	check_windows(224);
	check_grey();
	check_colours();
	return done_testing();
}
