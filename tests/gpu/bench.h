/*
 * bench.h
 *	  The clock and the median of the programs that measure on a GPU.
 */
#ifndef DFX_TESTS_GPU_BENCH_H
#define DFX_TESTS_GPU_BENCH_H

#include <stdlib.h>
#include <time.h>

static double
bench_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

__attribute__((unused)) static int
bench_compare(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return (x > y) - (x < y);
}

/* Sorts them. */
__attribute__((unused)) static double
bench_median(double *v, int n)
{
	qsort(v, (size_t) n, sizeof *v, bench_compare);
	return v[n / 2];
}

#endif /* DFX_TESTS_GPU_BENCH_H */
