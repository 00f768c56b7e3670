/*
 * bench_peak.c
 *	  What this machine's cores can do at the most: products in fp32, bf16 and
 *	  int8 out of registers, and reading memory.  The other figures are shares of these.
 *
 *	bench_peak [threads]
 *
 * Each thread multiplies and adds in enough independent registers to hide the
 * latency; all begin together.  Prints one line of JSON: the best of a few
 * rounds in GFLOP/s (GOP/s for int8; a product and its sum are two) and GB/s.
 * A precision whose instructions the CPU lacks is left out.
 */
#include <immintrin.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define ROUNDS      5
#define STEPS       (1 << 22) /* of a loop over all registers */
#define READ_BYTES  ((size_t) 256 << 20)
#define MAX_THREADS 256

/* One loop; its result keeps the compiler from leaving it out. */
typedef float (*PeakLoop)(const char *memory);

/* Eight accumulators and their step, for the loops below. */
#define PEAK_LOOP(name, isa, reg, zero, step, sum)                                                           \
	__attribute__((target(isa))) static float name(const char *memory)                                       \
	{                                                                                                        \
		reg a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero;                  \
                                                                                                             \
		(void) memory;                                                                                       \
		for (int i = 0; i < STEPS; i++)                                                                      \
		{                                                                                                    \
			a = step(a);                                                                                     \
			b = step(b);                                                                                     \
			c = step(c);                                                                                     \
			d = step(d);                                                                                     \
			e = step(e);                                                                                     \
			f = step(f);                                                                                     \
			g = step(g);                                                                                     \
			h = step(h);                                                                                     \
			__asm__ volatile("" : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h));   \
		}                                                                                                    \
		return sum(a) + sum(b) + sum(c) + sum(d) + sum(e) + sum(f) + sum(g) + sum(h);                        \
	}

#define FMA2(x)  _mm256_fmadd_ps(x, x, x)
#define LOW2(x)  _mm256_cvtss_f32(x)
#define FMA5(x)  _mm512_fmadd_ps(x, x, x)
#define LOW5(x)  _mm512_cvtss_f32(x)
#define DOT16(x) _mm512_dpbf16_ps(x, (__m512bh) (x), (__m512bh) (x))
#define DOT8(x)  _mm512_dpbusd_epi32(x, x, x)
#define LOW8(x)  (float) _mm512_cvtsi512_si32(x)

PEAK_LOOP(peak_fma_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), FMA2, LOW2)
PEAK_LOOP(peak_fma_avx512, "avx512f", __m512, _mm512_setzero_ps(), FMA5, LOW5)
PEAK_LOOP(peak_bf16, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), DOT16, LOW5)
PEAK_LOOP(peak_int8, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), DOT8, LOW8)

/* Every cache line, four streams at a time. */
static float
peak_read(const char *memory)
{
	const size_t quarter = READ_BYTES / 4;
	uint64_t sum = 0, word;

	for (size_t i = 0; i < quarter; i += 64)
		for (int k = 0; k < 4; k++)
		{
			memcpy(&word, memory + (size_t) k * quarter + i, sizeof word);
			sum += word;
		}
	return (float) sum;
}

typedef struct PeakThread
{
	pthread_t thread;
	pthread_barrier_t *begin, *end;
	PeakLoop loop;
	char *memory;
	float result;
} PeakThread;

static void *
peak_thread(void *arg)
{
	PeakThread *t = arg;

	if (t->loop == peak_read)
	{
		t->memory = malloc(READ_BYTES);
		if (t->memory == NULL)
			abort();
		memset(t->memory, 1, READ_BYTES);
	}
	for (int r = 0; r < ROUNDS; r++)
	{
		pthread_barrier_wait(t->begin);
		t->result = t->loop(t->memory);
		pthread_barrier_wait(t->end);
	}
	free(t->memory);
	return NULL;
}

/* The least seconds that all threads together took for one loop each. */
static double
peak_seconds(int threads, PeakLoop loop)
{
	static PeakThread t[MAX_THREADS];
	pthread_barrier_t begin, end;
	double best = 1e9;

	pthread_barrier_init(&begin, NULL, (unsigned) threads + 1);
	pthread_barrier_init(&end, NULL, (unsigned) threads + 1);
	for (int i = 0; i < threads; i++)
	{
		t[i] = (PeakThread){.begin = &begin, .end = &end, .loop = loop};
		if (pthread_create(&t[i].thread, NULL, peak_thread, &t[i]) != 0)
			abort();
	}
	for (int r = 0; r < ROUNDS; r++)
	{
		double start;

		pthread_barrier_wait(&begin);
		start = now(CLOCK_MONOTONIC);
		pthread_barrier_wait(&end);
		start = now(CLOCK_MONOTONIC) - start;
		best = start < best ? start : best;
	}
	for (int i = 0; i < threads; i++)
		pthread_join(t[i].thread, NULL);
	pthread_barrier_destroy(&begin);
	pthread_barrier_destroy(&end);
	return best;
}

/* "name": billions of what a step of one register does, by all threads in a second. */
static void
peak_show(const char *name, int threads, PeakLoop loop, double operations)
{
	printf(", \"%s\": %.1f", name, threads * 8.0 * STEPS * operations / peak_seconds(threads, loop) / 1e9);
}

int
main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : (int) sysconf(_SC_NPROCESSORS_ONLN);

	if (threads < 1 || threads > MAX_THREADS)
	{
		fprintf(stderr, "bench_peak: 1 to %d threads\n", MAX_THREADS);
		return 2;
	}
	printf("{\"threads\": %d", threads);
	if (__builtin_cpu_supports("avx512f"))
		peak_show("fp32_gflops", threads, peak_fma_avx512, 32);
	else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		peak_show("fp32_gflops", threads, peak_fma_avx2, 16);
	if (__builtin_cpu_supports("avx512bf16"))
		peak_show("bf16_gflops", threads, peak_bf16, 64);
	if (__builtin_cpu_supports("avx512vnni"))
		peak_show("int8_gops", threads, peak_int8, 128);
	printf(", \"read_gb_per_second\": %.1f}\n",
	       (double) threads * (double) READ_BYTES / peak_seconds(threads, peak_read) / 1e9);
	return 0;
}
