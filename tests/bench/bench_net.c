/*
 * bench_net.c
 *	  How fast the CPU backend runs a network: images per second of forward
 *	  alone, no decoding.
 *
 *	bench_net BACKBONE [branches 1|3] [batch] [threads] [seconds] [precision]
 *
 * Prints one line of JSON: medians over the runs (of time, and of CPU time per
 * image, which a busy machine disturbs less), compile time, the plan's bytes
 * and the process's peak memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/names.h"
#include "cpu/cpu.h"
#include "tests/bench/bench.h"

static int
fail(const DfxErr *err)
{
	fprintf(stderr, "bench_net: %s\n", err->msg);
	return 1;
}

/* Pixels; the same ones every time. */
static uint8_t *
images(const DfxBackbone *bb, int batch)
{
	size_t bytes = (size_t) batch * (size_t) bb->input_size * (size_t) bb->input_size * 3;
	uint8_t *in = malloc(bytes);

	if (in == NULL)
		abort();
	for (size_t i = 0; i < bytes; i++)
		in[i] = (uint8_t) (i * 2654435761u >> 13);
	return in;
}

/* Steps for 8-bit integers: an image's largest inputs, in fp32. */
static DfxStatus
calibrate(DfxDev *dev, const DfxBackbone *bb, DfxGraph *g, DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = 1, .precision = DFX_PRECISION_FP32};
	int *op = calloc((size_t) g->nop, sizeof *op), n = dfx_graph_quantizable(g, op);
	float *largest = calloc((size_t) n + 1, sizeof *largest);
	uint8_t *in = images(bb, 1);
	DfxPlan *plan;
	DfxStatus st = dfx_cpu_backend.compile(dev, g, &opts, &plan, err);

	if (st == DFX_OK)
		st = dfx_cpu_backend.largest(plan, in, 1, op, n, largest, err);
	for (int i = 0; st == DFX_OK && i < n; i++)
		g->op[op[i]].in_step = largest[i] / DFX_SCALE_STEPS;
	dfx_cpu_backend.release(plan);
	free(in);
	free(largest);
	free(op);
	return st;
}

static DfxPlan *
build(DfxDev *dev, const DfxBackbone *bb, int branches, const DfxPlanOpts *opts, double *seconds, DfxErr *err)
{
	DfxGraph *g = dfx_graph_new();
	DfxPlan *plan = NULL;
	double t;

	if (g == NULL)
		return NULL;
	if ((branches == 3 ? dfx_build_trinet(g, bb, 1, err) : dfx_build_backbone(g, bb, 1000, err)) == DFX_OK &&
	    dfx_weights_random(g, 1, err) == DFX_OK &&
	    dfx_graph_optimize(g, dfx_cpu_backend.supports, dev, err) == DFX_OK &&
	    (opts->precision != DFX_PRECISION_INT8 || calibrate(dev, bb, g, err) == DFX_OK))
	{
		t = now(CLOCK_MONOTONIC);
		dfx_cpu_backend.compile(dev, g, opts, &plan, err);
		*seconds = now(CLOCK_MONOTONIC) - t;
	}
	dfx_graph_free(g);
	return plan;
}

/* By its name; one that there is not is refused by the backend. */
static DfxPrecision
precision(const char *name)
{
	int p = 0;

	while (p < DFX_PRECISION_COUNT && strcmp(dfx_precision_name[p], name) != 0)
		p++;
	return (DfxPrecision) p;
}

int
main(int argc, char **argv)
{
	const DfxBackbone *bb = argc > 1 ? dfx_backbone_find(argv[1]) : NULL;
	int branches = argc > 2 ? atoi(argv[2]) : 1, batch = argc > 3 ? atoi(argv[3]) : 8;
	DfxDevOpts opts = {.threads = argc > 4 ? atoi(argv[4]) : 0};
	double limit = argc > 5 ? atof(argv[5]) : 3, compile = 0, start, took[1000], cpu[1000], wall, used;
	DfxPlanOpts how = {.max_batch = batch, .precision = argc > 6 ? precision(argv[6]) : DFX_PRECISION_FP32};
	int n = 0;
	DfxErr err = {.msg = "unknown backbone"};
	DfxDevInfo info;
	DfxDev *dev;
	DfxPlan *plan;
	uint8_t *in;
	struct rusage ru;

	if (bb == NULL || batch < 1 || dfx_cpu_backend.open(&opts, &dev, &err) != DFX_OK)
		return fail(&err);
	dfx_cpu_backend.info(dev, &info);
	plan = build(dev, bb, branches, &how, &compile, &err);
	if (plan == NULL)
		return fail(&err);
	in = images(bb, batch);

	start = now(CLOCK_MONOTONIC);
	while (n < 1000 && (n < 4 || now(CLOCK_MONOTONIC) - start < limit))
	{
		float *const out[DFX_MAX_OUT] = {NULL};
		double t = now(CLOCK_MONOTONIC), c = now(CLOCK_PROCESS_CPUTIME_ID);

		if (dfx_cpu_backend.forward(plan, in, batch, out, &err) != DFX_OK)
			return fail(&err);
		cpu[n] = now(CLOCK_PROCESS_CPUTIME_ID) - c;
		took[n++] = now(CLOCK_MONOTONIC) - t;
	}
	wall = median(took, n);
	used = median(cpu, n);
	getrusage(RUSAGE_SELF, &ru);
	printf(
	    "{\"backbone\": \"%s\", \"branches\": %d, \"batch\": %d, \"device\": \"%s\", \"threads\": %d, "
	    "\"precision\": \"%s\", "
	    "\"images_per_second\": %.2f, \"median_ms\": %.2f, \"cpu_ms_per_image\": %.2f, \"compile_ms\": %.0f, "
	    "\"plan_mb\": %.1f, \"peak_rss_mb\": %.1f}\n",
	    bb->name, branches, batch, info.name, info.threads, dfx_precision_name[how.precision], batch / wall,
	    wall * 1e3, used * 1e3 / batch, compile * 1e3, (double) dfx_cpu_backend.bytes(plan) / 1e6,
	    (double) ru.ru_maxrss / 1024);
	free(in);
	dfx_cpu_backend.release(plan);
	dfx_cpu_backend.close(dev);
	return 0;
}
