/*
 * golden_net.h
 *	  Reading tests/golden/nets/<network>.txt, and the inputs they were made
 *	  from (tests/golden/make_nets.py).  Tests run from the top of the tree.
 */
#ifndef DFX_TESTS_GOLDEN_NET_H
#define DFX_TESTS_GOLDEN_NET_H

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN_SIDE   256
#define GOLDEN_PIXELS (GOLDEN_SIDE * GOLDEN_SIDE * 3)
#define GOLDEN_PHI    0x9E3779B97F4A7C15u

/* A vector of n numbers, of which every step-th is kept. */
typedef struct GoldenVector
{
	int n, step;
	double norm, max, min; /* L2 norm, largest magnitude, minimum of all n */
	double kept[1024];
} GoldenVector;

typedef struct GoldenCase
{
	uint64_t seed;
	char image[64]; /* "pattern:0", or a file of tests/golden/images */
	uint64_t hash;  /* of the 256 x 256 pixels */
	GoldenVector features, logits;
} GoldenCase;

__attribute__((unused)) static uint64_t
golden_fnv1a(const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	uint64_t h = 0xCBF29CE484222325u;

	while (n--)
		h = (h ^ *p++) * 0x100000001B3u;
	return h;
}

__attribute__((unused)) static uint64_t
golden_mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

/* Image k of make_nets.py's pattern(): a coarse random lattice interpolated in integers, noise on top. */
__attribute__((unused)) static void
golden_pattern(int k, uint8_t *rgb)
{
	int lattice[9][9][3];

	for (int i = 0; i < 9 * 9 * 3; i++)
		lattice[i / 27][i / 3 % 9][i % 3] =
		    (int) (golden_mix(9000 + (uint64_t) k + (uint64_t) i * GOLDEN_PHI) >> 56);
	for (int i = 0; i < GOLDEN_PIXELS; i++)
	{
		int c = i % 3, x = i / 3 % GOLDEN_SIDE, y = i / 3 / GOLDEN_SIDE;
		int fx = x % 32, fy = y % 32;
		int(*at)[3] = &lattice[y / 32][x / 32], (*below)[3] = &lattice[y / 32 + 1][x / 32];
		int noise = (int) (golden_mix(7000 + (uint64_t) k + (uint64_t) i * GOLDEN_PHI) >> 56);
		int v = (at[0][c] * (32 - fy) * (32 - fx) + at[1][c] * (32 - fy) * fx + below[0][c] * fy * (32 - fx) +
		         below[1][c] * fy * fx) >>
		        10;

		rgb[i] = (uint8_t) (k == 2 ? noise : k == 1 ? (v * 7 + noise) >> 3 : v);
	}
}

/* The next vector of a file and its name; false when it is not what make_nets.py's write_vector() writes. */
static bool
golden_read_vector(FILE *f, char name[128], GoldenVector *v)
{
	if (fscanf(f, "%127s %d %d %lf %lf %lf", name, &v->n, &v->step, &v->norm, &v->max, &v->min) != 6 ||
	    v->n < 1 || v->step < 1 || (v->n - 1) / v->step >= 1024)
		return false;
	for (int i = 0; i * v->step < v->n; i++)
		if (fscanf(f, "%lf", &v->kept[i]) != 1)
			return false;
	return true;
}

static bool
golden_read_named(FILE *f, const char *name, GoldenVector *v)
{
	char got[128];

	return golden_read_vector(f, got, v) && strcmp(got, name) == 0;
}

/* The next case of a file; 1, 0 at its end, -1 when the file is not what make_nets.py writes. */
__attribute__((unused)) static int
golden_next(FILE *f, GoldenCase *c)
{
	if (ftell(f) == 0 && fscanf(f, "#%*[^\n]\n") != 0)
		return -1;
	switch (fscanf(f, " case %" SCNu64 " %63s %" SCNx64, &c->seed, c->image, &c->hash))
	{
		case EOF:
			return 0;
		case 3:
			return golden_read_named(f, "features", &c->features) &&
			               golden_read_named(f, "logits", &c->logits)
			           ? 1
			           : -1;
		default:
			return -1;
	}
}

/* The largest of all differences that can be seen, relative to the vector's largest magnitude (or its norm).
 */
__attribute__((unused)) static double
golden_error(const GoldenVector *want, const float *got)
{
	double sum = 0, max = 0, min = INFINITY, worst = 0;

	for (int i = 0; i < want->n; i++)
	{
		double v = (double) got[i];

		if (!isfinite(v))
			return INFINITY;
		sum += v * v;
		max = fmax(max, fabs(v));
		min = fmin(min, v);
		if (i % want->step == 0)
			worst = fmax(worst, fabs(v - want->kept[i / want->step]) / want->max);
	}
	worst = fmax(worst, fabs(max - want->max) / want->max);
	worst = fmax(worst, fabs(min - want->min) / want->max);
	return fmax(worst, fabs(sqrt(sum) - want->norm) / want->norm);
}

#endif /* DFX_TESTS_GOLDEN_NET_H */
