/*
 * cmd_bench.c
 *	  bench: how fast a network runs, with random weights and random pixels; forward only.
 *
 * Reports the median of repeated runs: on a shared machine the mean measures
 * the neighbours.
 */
#include "engine/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/names.h"
#include "engine/output.h"
#include "engine/ring.h"

#define BENCH_MIN_RUNS 3
#define BENCH_MAX_RUNS 200
#define BENCH_NS       3000000000u /* measure for about this long */

static int
bench_compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* n images for m, to be freed by dfx_device_free(); NULL: out of memory. */
static uint8_t *
bench_pixels(const DfxDevice *device, const DfxModel *m, int n)
{
	size_t bytes = (size_t) n * dfx_model_input_bytes(m);
	uint8_t *in = dfx_device_alloc(device, bytes);
	uint32_t pixel = 1;

	for (size_t i = 0; in && i < bytes; i++)
	{
		pixel = pixel * 1664525u + 1013904223u;
		in[i] = (uint8_t) (pixel >> 24);
	}
	return in;
}

/* Steps for g, as random as its weights: from the same network in fp32, and the images to be measured with.
 */
static DfxStatus
bench_calibrate(const DfxDevice *device, const DfxModelMeta *meta, uint64_t seed, int n, DfxGraph *g,
                DfxErr *err)
{
	uint8_t *in = NULL;
	float *largest = NULL;
	DfxGraph *floats;
	DfxModel *m;
	DfxStatus st = dfx_random_graph(meta, 0, seed, &floats, err);

	if (st == DFX_OK)
		st = dfx_model_compile(device, meta, floats, DFX_PRECISION_FP32, n, &m, err);
	if (st != DFX_OK)
		return st;
	in = bench_pixels(device, m, n);
	largest = malloc(((size_t) n * (size_t) m->nscale + 1) * sizeof *largest);
	if (!in || !largest)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for a batch");
	else
		st = dfx_model_largest(m, in, n, largest, err);
	for (int i = 0; st == DFX_OK && i < m->nscale; i++)
		dfx_scale_owner(g, m->scale_name[i])->in_step =
		    largest[i] / DFX_SCALE_STEPS; /* the first image's will do */
	dfx_device_free(device, in);
	free(largest);
	dfx_model_free(m);
	return st;
}

/* Median nanoseconds of one forward of n images, after one run to warm up. */
static DfxStatus
bench_measure(const DfxDevice *device, const DfxModel *m, int n, uint64_t *median, DfxErr *err)
{
	uint8_t *in = bench_pixels(device, m, n);
	float *features = malloc((size_t) n * (size_t) m->features * sizeof(float));
	float *logits = malloc(((size_t) n * (size_t) m->logits + 1) * sizeof(float));
	uint64_t took[BENCH_MAX_RUNS], begin = 0;
	DfxStatus st = DFX_OK;
	int runs = 0;

	if (!in || !features || !logits)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for a batch");
	for (int i = -1; st == DFX_OK && i < BENCH_MAX_RUNS; i++)
	{
		uint64_t t0 = dfx_now_ns();

		if (i == 0)
			begin = t0;
		if (i >= BENCH_MIN_RUNS && t0 - begin > BENCH_NS)
			break;
		st = dfx_model_run(m, in, n, features, logits, err);
		if (i >= 0)
			took[runs++] = dfx_now_ns() - t0;
	}
	dfx_device_free(device, in);
	free(features);
	free(logits);
	if (st != DFX_OK)
		return st;
	qsort(took, (size_t) runs, sizeof took[0], bench_compare);
	*median = took[runs / 2];
	return DFX_OK;
}

static void
bench_show(const DfxOptions *o, const DfxDevice *device, const DfxModel *m, uint64_t median)
{
	struct rusage usage;
	DfxOutput out;

	getrusage(RUSAGE_SELF, &usage);
	dfx_out_begin(&out, o->json);
	dfx_out_text(&out, "backbone", o->backbone);
	dfx_out_int(&out, "branches", (int64_t) o->branches);
	dfx_out_int(&out, "batch", (int64_t) o->batch);
	dfx_out_text(&out, "device", device->spec);
	dfx_out_text(&out, "precision", dfx_precision_name[m->precision]);
	dfx_out_int(&out, "threads", device->info.threads);
	dfx_out_float(&out, "images_per_second", (double) o->batch * 1e9 / (double) median);
	dfx_out_float(&out, "median_ms", (double) median / 1e6);
	dfx_out_float(&out, "peak_rss_mb", (double) usage.ru_maxrss / 1024);
	dfx_out_text(&out, "device_name", device->info.name);
	dfx_out_float(&out, "plan_mb", (double) m->bytes / (1 << 20));
	dfx_out_end(&out);
}

int
dfx_cmd_bench(const DfxOptions *o)
{
	DfxDeviceOpts dev = {.spec = o->device, .threads = (int) o->threads};
	const DfxBackbone *b;
	DfxModelMeta meta;
	DfxDevice device;
	DfxGraph *g;
	DfxModel *m;
	uint64_t median, seed = o->has_seed ? o->seed : 1;
	DfxErr err;
	DfxStatus st;

	if (o->branches == 2)
	{
		fprintf(stderr, "dfx-engine bench: --branches is 1 or 3\n");
		return 2;
	}
	if (dfx_option_backbone(o, &b, &err) != DFX_OK)
		return dfx_complain(&err);
	meta = o->branches == 3 ? dfx_model_meta_trinet(b, (int) o->head_stride) : dfx_model_meta_backbone(b);
	if (dfx_device_open(&dev, &device, &err) != DFX_OK)
		return dfx_complain(&err);
	st = dfx_random_graph(&meta, 0, seed, &g, &err);
	if (st == DFX_OK && o->precision == DFX_PRECISION_INT8)
	{
		st = bench_calibrate(&device, &meta, seed, (int) o->batch, g, &err);
		if (st != DFX_OK)
			dfx_graph_free(g);
	}
	if (st == DFX_OK)
		st = dfx_model_compile(&device, &meta, g, o->precision, (int) o->batch, &m, &err);
	if (st == DFX_OK)
	{
		st = bench_measure(&device, m, (int) o->batch, &median, &err);
		if (st == DFX_OK)
			bench_show(o, &device, m, median);
		dfx_model_free(m);
	}
	dfx_device_close(&device);
	return st == DFX_OK ? 0 : dfx_complain(&err);
}
