/*
 * bench_train.c
 *	  How fast the CPU backend trains a network: images per second of a whole
 *	  step (forward, backward, Adam), and the memory it takes.
 *
 *	bench_train BACKBONE|head[1|2] [batch] [threads] [seconds] [precision]
 *
 * "head" is the tri-branch head alone over vectors of 1024 (head1 with stride
 * 1, head2 with stride 2).  Prints one line of JSON as bench_net does, with
 * the medians of the three parts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cpu/cpu.h"
#include "tests/bench/bench.h"

#define MOST_STEPS 1000

static int
fail(const DfxErr *err)
{
	fprintf(stderr, "bench_train: %s\n", err->msg);
	return 1;
}

static DfxStatus
build(DfxGraph *g, const char *name, DfxErr *err)
{
	const DfxBackbone *bb = dfx_backbone_find(name);
	DfxStatus st;

	if (strncmp(name, "head", 4) == 0)
		st = dfx_build_head(g, 1024, name[4] == '2' ? 2 : 1, err);
	else if (bb == NULL)
		st = dfx_fail(err, DFX_EINVAL, "unknown backbone %s", name);
	else
		st = dfx_build_backbone(g, bb, 2, err);
	return st == DFX_OK ? dfx_weights_random(g, 1, err) : st;
}

/* The input's bytes for one image. */
static size_t
image_bytes(const DfxGraph *g)
{
	const DfxValue *v = &g->val[g->input];

	return (size_t) v->c * (size_t) v->h * (size_t) v->w * (g->op[v->def].u.input.rgb8 ? 1 : sizeof(float));
}

/* One step; the times of its parts go to t. */
static DfxStatus
step(DfxPlan *plan, const void *in, int n, float *const *out, int i, double t[4], DfxErr *err)
{
	const DfxAdam adam = {1e-4, 0.9, 0.999, 1e-8, 1e-3, (uint64_t) i + 1};
	double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	DfxStatus st = dfx_cpu_backend.forward_train(plan, in, n, (uint64_t) i, out, err);

	t[0] = now(CLOCK_MONOTONIC) - start;
	if (st == DFX_OK)
		st = dfx_cpu_backend.backward(plan, n, (const float *const *) out, NULL, err);
	t[1] = now(CLOCK_MONOTONIC) - start - t[0];
	if (st == DFX_OK)
		st = dfx_cpu_backend.step(plan, &adam, err);
	t[2] = now(CLOCK_MONOTONIC) - start - t[0] - t[1];
	t[3] = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	return st;
}

static DfxStatus
measure(DfxPlan *plan, const DfxGraph *g, int batch, double seconds, double *part[5], int *steps, DfxErr *err)
{
	size_t bytes = image_bytes(g) * (size_t) batch;
	uint8_t *in = malloc(bytes);
	float *out[DFX_MAX_OUT] = {NULL};
	double start = now(CLOCK_MONOTONIC);
	DfxStatus st = DFX_OK;
	int n = 0;

	for (size_t i = 0; i < bytes; i++)
		in[i] = (uint8_t) (i * 2654435761u >> 13) & 0x3F; /* small floats too */
	for (int i = 0; i < g->nout; i++)
		out[i] = calloc((size_t) g->val[g->out[i]].c * (size_t) g->val[g->out[i]].w * (size_t) batch,
		                sizeof(float));
	while (st == DFX_OK && n < MOST_STEPS && (n < 3 || now(CLOCK_MONOTONIC) - start < seconds))
	{
		double t[4];

		st = step(plan, in, batch, out, n, t, err);
		for (int i = 0; i < 4; i++)
			part[i][n] = t[i];
		part[4][n++] = t[0] + t[1] + t[2];
	}
	for (int i = 0; i < g->nout; i++)
		free(out[i]);
	free(in);
	*steps = n;
	return st;
}

int
main(int argc, char **argv)
{
	int batch = argc > 2 ? atoi(argv[2]) : 32, n = 0;
	DfxDevOpts opts = {.threads = argc > 3 ? atoi(argv[3]) : 0};
	double seconds = argc > 4 ? atof(argv[4]) : 5, compile, *part[5];
	DfxPlanOpts po = {.max_batch = batch, .precision = DFX_PRECISION_FP32, .train = true};
	const char *precision = argc > 5 ? argv[5] : "fp32";
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {.msg = "a backbone and a batch of at least one are needed"};
	DfxPlan *plan;
	DfxDev *dev;
	struct rusage ru;

	for (int i = 0; i < 5; i++)
		part[i] = calloc(MOST_STEPS, sizeof **part);
	if (argc < 2 || batch < 1 || dfx_cpu_backend.open(&opts, &dev, &err) != DFX_OK ||
	    build(g, argv[1], &err) != DFX_OK)
		return fail(&err);
	while (po.precision < DFX_PRECISION_COUNT && strcmp(precision, dfx_precision_name[po.precision]) != 0)
		po.precision++;
	compile = now(CLOCK_MONOTONIC);
	if (dfx_cpu_backend.compile(dev, g, &po, &plan, &err) != DFX_OK)
		return fail(&err);
	compile = now(CLOCK_MONOTONIC) - compile;
	if (measure(plan, g, batch, seconds, part, &n, &err) != DFX_OK)
		return fail(&err);
	getrusage(RUSAGE_SELF, &ru);
	printf("{\"backbone\": \"%s\", \"precision\": \"%s\", \"batch\": %d, \"steps\": %d, "
	       "\"images_per_second\": %.2f, "
	       "\"cpu_ms_per_image\": %.2f, \"forward_ms\": %.1f, \"backward_ms\": %.1f, \"adam_ms\": %.1f, "
	       "\"compile_ms\": %.0f, \"plan_mb\": %.1f, \"peak_rss_mb\": %.1f}\n",
	       argv[1], precision, batch, n, batch / median(part[4], n), median(part[3], n) * 1e3 / batch,
	       median(part[0], n) * 1e3, median(part[1], n) * 1e3, median(part[2], n) * 1e3, compile * 1e3,
	       (double) dfx_cpu_backend.bytes(plan) / 1e6, (double) ru.ru_maxrss / 1024);
	for (int i = 0; i < 5; i++)
		free(part[i]);
	dfx_cpu_backend.release(plan);
	dfx_cpu_backend.close(dev);
	dfx_graph_free(g);
	return 0;
}
