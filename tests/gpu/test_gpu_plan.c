/*
 * test_gpu_plan.c
 *	  Does a plan on a GPU keep its promises: any batch gives what its images
 *	  give alone, less memory than wanted makes smaller batches, sums beyond fp16
 *	  are done again in bf16, two threads may compile while a third runs, three
 *	  may run batches at one time, from page-locked memory and from other, and
 *	  the next device of the same kind starts from kept choices?
 */
#include <pthread.h>

#include "tests/backend/large_sums.h"
#include "tests/backend/net_cases.h"
#include "tests/bench/bench.h"
#include "tests/gpu/gpu_device.h"

static const DfxBackend *be;

static DfxGraph *
network(DfxDev *dev, const DfxBackbone *b)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err;

	if (dfx_build_backbone(g, b, 10, &err) != DFX_OK || dfx_weights_random(g, 7, &err) != DFX_OK ||
	    dfx_graph_optimize(g, be->supports, dev, &err) != DFX_OK)
		abort();
	return g;
}

static void
check_batches(DfxDev *dev, const DfxBackbone *b, double tolerance)
{
	enum
	{
		MOST = 150
	};
	static const int batch[] = {2, 3, 7, 31, 64, 100, 128, 150};
	DfxGraph *g = network(dev, b);
	DfxPlanOpts opts = {.max_batch = MOST, .precision = DFX_PRECISION_FP16};
	size_t floats = graph_output_floats(g, 1), image = (size_t) b->input_size * (size_t) b->input_size * 3;
	float *alone = calloc(MOST * floats, sizeof *alone), *together = calloc(MOST * floats, sizeof *together);
	char *in = noise_images(g, MOST, 5);
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	DfxStatus st = be->compile(dev, g, &opts, &plan, &err);

	for (int i = 0; st == DFX_OK && i < MOST; i++)
	{
		float *const out[DFX_MAX_OUT] = {NULL, alone + (size_t) i * floats};

		st = be->forward(plan, in + (size_t) i * image, 1, out, &err);
	}
	for (size_t i = 0; st == DFX_OK && i < sizeof batch / sizeof batch[0]; i++)
	{
		float *const out[DFX_MAX_OUT] = {NULL, together};
		double e;

		st = be->forward(plan, in, batch[i], out, &err);
		e = relative_error(together, alone, (size_t) batch[i] * floats);
		ok(st == DFX_OK && e <= tolerance, "%s: %d images together are what they are alone, within %.2g",
		   b->name, batch[i], e);
	}
	if (!ok(st == DFX_OK, "%s: every batch runs", b->name))
		diag("%s", err.msg);
	be->release(plan);
	dfx_graph_free(g);
	free(alone);
	free(together);
	free(in);
}

static void
check_budget(const DfxBackbone *b)
{
	DfxDevOpts opts = {.memory = (uint64_t) 400 << 20};
	DfxPlanOpts plan_opts = {.max_batch = 128, .precision = DFX_PRECISION_FP16};
	DfxDev *dev = NULL;
	DfxGraph *g;
	DfxPlan *plan = NULL;
	void *in;
	float *const none[DFX_MAX_OUT] = {NULL};
	DfxErr err = {0};

	if (!ok(be->open(&opts, &dev, &err) == DFX_OK, "a second device, with a budget"))
		return;
	g = network(dev, b);
	in = noise_images(g, 128, 3);
	ok(be->compile(dev, g, &plan_opts, &plan, &err) == DFX_OK && be->bytes(plan) <= opts.memory,
	   "a plan within the budget: %zu MB", plan ? be->bytes(plan) >> 20 : 0);
	ok(plan && be->forward(plan, in, 128, none, &err) == DFX_OK, "it takes a batch of 128 all the same");
	if (plan)
		be->release(plan);
	be->close(dev);
	dfx_graph_free(g);
	free(in);
}

static void
check_guard(DfxDev *dev, bool relu, const char *what)
{
	Subject on = {.be = be, .dev = dev, .precision = DFX_PRECISION_FP16, .tolerance = 4e-2};
	DfxGraph *g = large_sums(be->supports, dev, 1.5e5f, relu);

	same_as_ref(&on, g, 4, 0, what);
	dfx_graph_free(g);
}

typedef struct Worker
{
	DfxDev *dev;
	const DfxBackbone *b;
	DfxPlan *plan; /* to run; NULL: compile one */
	DfxStatus st;
} Worker;

static void *
work(void *arg)
{
	Worker *w = arg;
	DfxGraph *g = network(w->dev, w->b);
	float *const none[DFX_MAX_OUT] = {NULL};
	DfxPlanOpts opts = {.max_batch = 8, .precision = DFX_PRECISION_FP16};
	void *in = noise_images(g, 2, 1);
	DfxPlan *plan;
	DfxErr err;

	if (!w->plan)
	{
		w->st = be->compile(w->dev, g, &opts, &plan, &err);
		if (w->st == DFX_OK)
			be->release(plan);
	}
	for (int i = 0; w->plan && i < 200 && w->st == DFX_OK; i++)
		w->st = be->forward(w->plan, in, 2, none, &err);
	dfx_graph_free(g);
	free(in);
	return NULL;
}

static void
check_threads(DfxDev *dev)
{
	DfxGraph *g = network(dev, &tiny_nets[2]);
	DfxPlanOpts opts = {.max_batch = 2, .precision = DFX_PRECISION_FP16};
	Worker w[3] = {{.dev = dev, .b = dfx_backbone_find("resnet34")},
	               {.dev = dev, .b = dfx_backbone_find("efficientnet_b0")},
	               {.dev = dev, .b = &tiny_nets[2]}};
	pthread_t thread[3];
	DfxErr err;

	ok(be->compile(dev, g, &opts, &w[2].plan, &err) == DFX_OK, "a plan to run meanwhile");
	for (int i = 0; i < 3; i++)
		if (pthread_create(&thread[i], NULL, work, &w[i]) != 0)
			abort();
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	ok(w[0].st == DFX_OK && w[1].st == DFX_OK && w[2].st == DFX_OK,
	   "two threads compile while one runs batches");
	be->release(w[2].plan);
	dfx_graph_free(g);
}

/* ---- batches at one time ---- */

enum
{
	RUN_IMAGES = 24,
	RUN_ROUNDS = 100,
	RUN_THREADS = 3 /* more than lanes */
};

typedef struct Runner
{
	DfxPlan *plan;
	const char *in; /* RUN_IMAGES of them */
	const float *alone;
	size_t image, floats;
	int number, wrong;
	double worst;
} Runner;

static void *
run_batches(void *arg)
{
	Runner *r = arg;
	float *got = calloc(RUN_IMAGES * r->floats, sizeof *got), *const out[DFX_MAX_OUT] = {NULL, got};
	DfxErr err;

	for (int i = 0; i < RUN_ROUNDS; i++)
	{
		int n = 1 + (5 * i + 3 * r->number) % 8, first = (7 * i + r->number) % (RUN_IMAGES - n);
		double e = INFINITY;

		if (be->forward(r->plan, r->in + (size_t) first * r->image, n, out, &err) == DFX_OK)
			e = relative_error(got, r->alone + (size_t) first * r->floats, (size_t) n * r->floats);
		r->worst = e > r->worst ? e : r->worst;
		r->wrong += e > 2e-3;
	}
	free(got);
	return NULL;
}

static void
check_overlap(DfxDev *dev, const DfxBackbone *b)
{
	DfxGraph *g = network(dev, b);
	DfxPlanOpts opts = {.max_batch = 8, .precision = DFX_PRECISION_FP16};
	size_t floats = graph_output_floats(g, 1), image = (size_t) b->input_size * (size_t) b->input_size * 3;
	size_t room = (RUN_IMAGES * image + 4095) / 4096 * 4096;
	char *in = noise_images(g, RUN_IMAGES, 5), *locked = aligned_alloc(4096, room);
	float *alone = calloc(RUN_IMAGES * floats, sizeof *alone);
	Runner r[RUN_THREADS];
	pthread_t thread[RUN_THREADS];
	DfxDevInfo before, after;
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	int wrong = 0;
	double worst = 0;

	memcpy(locked, in, RUN_IMAGES * image);
	if (!ok(be->lock(dev, locked, room, &err) == DFX_OK, "memory can be page-locked"))
		diag("%s", err.msg);
	if (be->compile(dev, g, &opts, &plan, &err) != DFX_OK)
		abort();
	for (int i = 0; i < RUN_IMAGES; i++)
	{
		float *const out[DFX_MAX_OUT] = {NULL, alone + (size_t) i * floats};

		if (be->forward(plan, in + (size_t) i * image, 1, out, &err) != DFX_OK)
			ok(false, "image %d runs alone", i);
	}
	be->info(dev, &before);
	for (int i = 0; i < RUN_THREADS; i++)
	{
		r[i] = (Runner){.plan = plan, .in = i == 1 ? in : locked, .alone = alone, .image = image};
		r[i].floats = floats;
		r[i].number = i;
		if (pthread_create(&thread[i], NULL, run_batches, &r[i]) != 0)
			abort();
	}
	for (int i = 0; i < RUN_THREADS; i++)
	{
		pthread_join(thread[i], NULL);
		wrong += r[i].wrong;
		worst = r[i].worst > worst ? r[i].worst : worst;
	}
	be->info(dev, &after);
	ok(wrong == 0, "%s: %d of %d batches of three threads at one time are wrong, the worst by %.2g", b->name,
	   wrong, RUN_THREADS * RUN_ROUNDS, worst);
	ok(after.busy_ns > before.busy_ns, "the device says how long it has computed: %.1f ms",
	   (double) (after.busy_ns - before.busy_ns) * 1e-6);
	be->unlock(dev, locked);
	be->release(plan);
	dfx_graph_free(g);
	free(locked);
	free(in);
	free(alone);
}

/* Compiled twice, on a device each: the second time from what was kept. */
static void
check_kept(const DfxBackbone *b)
{
	double seconds[2];

	for (int i = 0; i < 2; i++)
	{
		DfxDevOpts opts = {0};
		DfxPlanOpts plan_opts = {.max_batch = 16, .precision = DFX_PRECISION_FP16};
		DfxDev *dev = NULL;
		DfxPlan *plan = NULL;
		DfxGraph *g;
		DfxErr err = {0};
		double began;

		if (be->open(&opts, &dev, &err) != DFX_OK)
			abort();
		g = network(dev, b);
		began = now(CLOCK_MONOTONIC);
		if (!ok(be->compile(dev, g, &plan_opts, &plan, &err) == DFX_OK, "%s compiles", b->name))
			diag("%s", err.msg);
		seconds[i] = now(CLOCK_MONOTONIC) - began;
		be->release(plan);
		be->close(dev);
		dfx_graph_free(g);
	}
	ok(seconds[1] <= seconds[0], "%s: %.2f s at first, %.2f s from kept choices", b->name, seconds[0],
	   seconds[1]);
}

int
main(void)
{
	DfxDev *dev;
	char dir[] = "/tmp/dfx-gpu-XXXXXX", command[64];
	int status;

	/* Choices of its own, so that the first compilation has to make them. */
	if (!mkdtemp(dir) || setenv("XDG_CACHE_HOME", dir, 1) != 0)
		return 1;
	if (!gpu_open(&be, &dev))
		status = 0;
	else
	{
		check_kept(dfx_backbone_find("resnet50"));
		check_batches(dev, dfx_backbone_find("resnet18"), 2e-3);
		check_batches(dev, dfx_backbone_find("densenet121"), 1e-2);
		check_budget(dfx_backbone_find("densenet121"));
		check_guard(dev, false, "sums beyond fp16 are done again in bf16");
		check_guard(dev, true, "so are those behind ReLUs");
		check_threads(dev);
		check_overlap(dev, dfx_backbone_find("resnet18"));
		be->close(dev);
		status = done_testing();
	}
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command) == 0 ? status : 1;
}
