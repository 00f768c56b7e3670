/*
 * test_train_augment.c
 *	  Are training images changed as asked, as often as asked, and the same way
 *	  every time?
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "image/filter.h"
#include "image/perturb.h"
#include "tests/unit/tap.h"
#include "train/data.h"

#define SIDE  64u
#define BYTES (SIDE * SIDE * 3)

static uint8_t original[BYTES], changed[BYTES];

static void
make_original(void)
{
	for (uint32_t i = 0; i < BYTES; i++)
		original[i] = (uint8_t) (i / 3 % SIDE * 2 + i / 3 / SIDE + (dfx_mix64(i) >> 60));
}

/* The original, changed under a key, in changed. */
static bool
change(const DfxAugment *a, uint64_t key)
{
	DfxErr err;

	memcpy(changed, original, BYTES);
	return dfx_augment(a, key, changed, SIDE, &err) == DFX_OK;
}

static bool
is(const DfxImage *want)
{
	return memcmp(changed, want->pixels, BYTES) == 0;
}

static DfxImage
copy(void)
{
	DfxImage image = {SIDE, SIDE, malloc(BYTES)};

	memcpy(image.pixels, original, BYTES);
	return image;
}

static void
check_each(void)
{
	static const DfxAugment none = {.crop_min = 0.5, .jpeg_min = 30, .jpeg_max = 100, .blur_max = 3};
	static const DfxAugment flip = {.flip = 1}, jpeg = {.jpeg = 1, .jpeg_min = 60, .jpeg_max = 60};
	static const DfxAugment blur = {.blur = 1, .blur_min = 1, .blur_max = 1},
	                        barely = {.blur = 1, .blur_max = 0.2};
	DfxImageLimits limits = DFX_DEFAULT_LIMITS;
	DfxImage want = copy();
	DfxErr err;
	bool mirrored = true;

	ok(change(&none, 1) && is(&want), "none asked for: none made");
	ok(change(&barely, 1) && is(&want), "a blur that moves nothing");
	change(&flip, 1);
	for (uint32_t y = 0; y < SIDE; y++)
		for (uint32_t x = 0; x < SIDE; x++)
			mirrored = mirrored &&
			           memcmp(changed + (y * SIDE + x) * 3, original + (y * SIDE + SIDE - 1 - x) * 3, 3) == 0;
	ok(mirrored, "a mirror image");
	change(&jpeg, 1);
	ok(dfx_image_perturb(&want, &(DfxPerturbation){DFX_PERTURB_JPEG, 60}, &limits, &err) == DFX_OK &&
	       is(&want),
	   "JPEG of the quality asked for");
	dfx_image_free(&want);
	want = copy();
	change(&blur, 1);
	ok(dfx_image_blur(&want, 7, 1.0, &err) == DFX_OK && is(&want), "a blur of the sigma asked for");
	dfx_image_free(&want);
}

static void
check_turns(void)
{
	static const DfxAugment turn = {.turn = 1};
	int seen[4] = {0};

	for (uint64_t key = 0; key < 60; key++)
	{
		DfxImage want = copy();
		int quarters = 0;

		change(&turn, dfx_mix64(key));
		while (quarters < 4 && !is(&want))
		{
			/* Clockwise: the lower left corner comes to the upper left one. */
			uint8_t *turned = malloc(BYTES);

			for (uint32_t y = 0; y < SIDE; y++)
				for (uint32_t x = 0; x < SIDE; x++)
					memcpy(turned + (y * SIDE + x) * 3, want.pixels + ((SIDE - 1 - x) * SIDE + y) * 3, 3);
			memcpy(want.pixels, turned, BYTES);
			free(turned);
			quarters++;
		}
		seen[quarters & 3]++;
		dfx_image_free(&want);
	}
	ok(seen[0] == 0 && seen[1] > 5 && seen[2] > 5 && seen[3] > 5,
	   "turned by 90, 180 and 270 degrees: %d, %d, %d times", seen[1], seen[2], seen[3]);
}

/* Which of the original's tiles lies at tile i of what was changed; -1: none, -2: several. */
static int
tile_from(uint32_t i)
{
	uint32_t tile = SIDE / 4;
	int found = -1;

	for (uint32_t j = 0; j < 16; j++)
	{
		bool same = true;

		for (uint32_t y = 0; y < tile; y++)
			same = same && memcmp(changed + ((i / 4 * tile + y) * SIDE + i % 4 * tile) * 3,
			                      original + ((j / 4 * tile + y) * SIDE + j % 4 * tile) * 3, tile * 3) == 0;
		if (same)
			found = found == -1 ? (int) j : -2;
	}
	return found;
}

static void
check_shuffle(void)
{
	static const DfxAugment shuffle = {.shuffle = 1};
	int at[16][16] = {{0}};
	bool each_once = true, everywhere = true;

	for (uint64_t key = 0; key < 300; key++)
	{
		uint32_t seen = 0;

		change(&shuffle, dfx_mix64(key));
		for (uint32_t i = 0; i < 16; i++)
		{
			int from = tile_from(i);

			if (from >= 0)
			{
				seen |= 1u << from;
				at[i][from]++;
			}
		}
		each_once = each_once && seen == 0xffff;
	}
	ok(each_once, "each tile is somewhere");
	/* 300 / 16 = 18.75 times are expected; 1 or fewer, or 40, are over four standard deviations off. */
	for (int i = 0; i < 256; i++)
		everywhere = everywhere && at[i / 16][i % 16] > 1 && at[i / 16][i % 16] < 40;
	ok(everywhere, "and anywhere");
}

/* A ramp stays a ramp: its slope is the part's share of the side, and its values are some of the whole's. */
static void
check_crop(void)
{
	static const DfxAugment whole = {.crop = 1, .crop_min = 1}, half = {.crop = 1, .crop_min = 0.5};
	double least = 1, most = 0, left = SIDE;
	DfxImage want = copy();
	bool within = true;

	ok(change(&whole, 1) && is(&want), "a part that is the whole");
	dfx_image_free(&want);
	for (uint32_t i = 0; i < BYTES; i++)
		original[i] = (uint8_t) (i / 3 % SIDE * 4);
	for (uint64_t key = 0; key < 200; key++)
	{
		double share;

		change(&half, dfx_mix64(key));
		share = (changed[(SIDE - 4) * 3] - changed[4 * 3]) / (4.0 * (SIDE - 8));
		least = fmin(least, share);
		most = fmax(most, share);
		left = fmin(left, changed[0] / 4.0);
		within = within && changed[0] <= changed[(SIDE - 1) * 3] && changed[(SIDE - 1) * 3] <= (SIDE - 1) * 4;
	}
	ok(within && least > 0.47 && least < 0.53 && most > 0.96 && most <= 1.001 && left < 1,
	   "parts of half the side to the whole: %.2f to %.2f", least, most);
	make_original();
}

static void
check_draws(void)
{
	static const DfxAugment half = {
	    .flip = 0.5, .jpeg = 0.5, .jpeg_min = 30, .jpeg_max = 100, .blur = 0.5, .blur_max = 3};
	static const DfxAugment rare = {.flip = 0.25};
	uint8_t first[BYTES];
	bool same = true;
	int flipped = 0, unlike = 0;

	change(&half, 7);
	memcpy(first, changed, BYTES);
	for (uint64_t key = 0; key < 50; key++)
	{
		change(&half, dfx_mix64(key));
		unlike += memcmp(first, changed, BYTES) != 0;
	}
	change(&half, 7);
	same = memcmp(first, changed, BYTES) == 0;
	ok(same, "one key, one change");
	ok(unlike >= 45, "other keys, other changes");
	for (uint64_t key = 0; key < 1000; key++)
	{
		change(&rare, dfx_mix64(key));
		flipped += memcmp(original, changed, BYTES) != 0;
	}
	/* four standard deviations */
	ok(abs(flipped - 250) < 55, "a quarter asked for: %d of 1000", flipped);
}

int
main(void)
{
	make_original();
	check_each();
	check_turns();
	check_shuffle();
	check_crop();
	check_draws();
	return done_testing();
}
