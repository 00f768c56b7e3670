/*
 * bench.h
 *	  What the timing programs share: a clock and a median.
 */
#ifndef DFX_TESTS_BENCH_H
#define DFX_TESTS_BENCH_H

#include <stdlib.h>
#include <time.h>

static double
now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* Sorts x. */
__attribute__((unused)) static double
median(double *x, int n)
{
	qsort(x, (size_t) n, sizeof *x, by_value);
	return x[n / 2];
}

#endif /* DFX_TESTS_BENCH_H */
