/*
 * test_cuda_plan.c
 *	  Does a plan keep its promises: a graph lowered as it should be, batches in
 *	  pieces, less memory than wanted, results that fp16 cannot hold, a device
 *	  that is lost, requests that make no sense; and is everything given back?
 */
#include "tests/backend/large_sums.h"
#include "tests/backend/net_cases.h"
#include "tests/cuda/host_rt.h"

static char logged[4096];

static void
keep_log(char level, const char *message, void *arg)
{
	size_t used = strlen(logged);

	(void) arg;
	snprintf(logged + used, sizeof logged - used, "%c %s\n", level, message);
}

/* ---- lowering ---- */

static const char *const dense_steps[] = {
    "input 64 of 20 to 24(/24)",
    "mma 8x8x24(/24) > 8x8x16(/32) k1x1 s1,1 p0,0",
    "mma 8x8x16(/32) > 8x8x24(/24) k1x1 s1,1 p0,0 pre relu bias relu",
    "mma 8x8x24(/24) > 8x8x16(/32) k3x3 s1,1 p1,1",
    "pool 8x8x32(/32) > 4x4(/32) k2x2 s2 p0 average",
    "mma 4x4x32(/32) > 4x4x5(/8) k1x1 s1,1 p0,0 pre relu bias silu",
    "pool 4x4x5(/8) > 1x1(/8) k4x4 s1 p0 average",
    "output 16 of 5(/8)",
    "output 1 of 5(/8)",
};

/* A DenseNet layer and what follows it: prologues, placed pieces, a strided read. */
static void
build_dense_layer(DfxGraph *g)
{
	DfxVal v[2], x = dfx_input_f32(g, 20, 8, 8);

	v[0] = dfx_conv(g, x, "stem", 16, DFX_CONV2D(1, 1, 0), false);
	x = dfx_act(g, dfx_bn(g, v[0], "norm1", 1e-5f), DFX_ACT_RELU);
	x = dfx_conv(g, x, "conv1", 24, DFX_CONV2D(1, 1, 0), false);
	x = dfx_act(g, dfx_bn(g, x, "norm2", 1e-5f), DFX_ACT_RELU);
	v[1] = dfx_conv(g, x, "conv2", 16, DFX_CONV2D(3, 1, 1), false);
	x = dfx_pool(g, dfx_concat(g, v, 2), (DfxPool){.k = 2, .s = 2, .avg = true});
	x = dfx_act(g, dfx_bn(g, x, "norm", 1e-5f), DFX_ACT_RELU);
	x = dfx_act(g, dfx_conv(g, x, "last", 5, DFX_CONV2D(1, 1, 0), true), DFX_ACT_SILU);
	dfx_output(g, x, "map");
	dfx_output(g, dfx_pool(g, x, (DfxPool){.avg = true}), "mean");
}

static DfxGraph *
dense_layer(DfxSupports supports)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err;

	build_dense_layer(g);
	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 3, &err) != DFX_OK ||
	    dfx_graph_optimize(g, supports, NULL, &err) != DFX_OK)
		abort();
	return g;
}

static void
check_lowering(DfxDev *dev)
{
	DfxGraph *g = dense_layer(gpu_supports);
	DfxPlanOpts opts = {.max_batch = 2, .precision = DFX_PRECISION_FP16};
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	int n = (int) (sizeof dense_steps / sizeof dense_steps[0]);

	if (!ok(gpu_compile(dev, g, &opts, &plan, &err) == DFX_OK, "a dense layer compiles"))
		diag("%s", err.msg);
	ok(plan->nprogram == 2 && plan->program[0].type == GPU_F16 && plan->program[1].type == GPU_BF16,
	   "in fp16, with bf16 to fall back on");
	ok(plan->program[0].nstep == n, "in %d steps", n);
	for (int i = 0; i < n && i < plan->program[0].nstep; i++)
	{
		char line[256];

		gpu_step_describe(&plan->program[0].step[i], line, sizeof line);
		if (!ok(strcmp(line, dense_steps[i]) == 0, "step %d: %s", i, dense_steps[i]))
			diag("is: %s", line);
	}
	gpu_release(plan);
	dfx_graph_free(g);
}

/* Steps of the branches run three at a time; how many other steps there are is the same as for one. */
static void
check_branches(DfxDev *dev, const DfxBackbone *b)
{
	DfxPlanOpts opts = {.max_batch = 1, .precision = DFX_PRECISION_BF16};
	int nstep[2] = {0}, together = 0;

	for (int tri = 0; tri <= 1; tri++)
	{
		DfxGraph *g = dfx_graph_new();
		DfxPlan *plan = NULL;
		DfxErr err = {0};
		DfxStatus st = tri ? dfx_build_trinet(g, b, 1, &err) : dfx_build_backbone(g, b, 0, &err);

		if (st == DFX_OK)
			st = dfx_weights_random(g, 3, &err);
		if (st == DFX_OK)
			st = dfx_graph_optimize(g, gpu_supports, dev, &err);
		if (st == DFX_OK)
			st = gpu_compile(dev, g, &opts, &plan, &err);
		if (!ok(st == DFX_OK, "%s, %d branch(es), compiles", b->name, tri ? 3 : 1))
			diag("%s", err.msg);
		for (int i = 0; plan && i < plan->program[0].nstep; i++)
		{
			nstep[tri]++;
			together += tri && plan->program[0].step[i].count == GPU_BRANCHES;
		}
		gpu_release(plan);
		dfx_graph_free(g);
	}
	/* Of the lone backbone's steps, the input is shared and the output is not there. */
	ok(together == nstep[0] - 2, "%s: all %d steps of the branches go together", b->name, nstep[0] - 2);
	ok(nstep[1] - together < 20, "%s: besides the head's", b->name);
}

/* ---- batches ---- */

static void
check_buckets(void)
{
	static const struct
	{
		int nbucket, left, bucket;
	} want[] = {{1, 1, 0},  {1, 9, 0},  {8, 1, 0},   {8, 2, 1},   {8, 3, 1},  {8, 4, 2},
	            {8, 6, 2},  {8, 7, 3},  {8, 8, 3},   {8, 12, 3},  {8, 13, 4}, {8, 100, 7},
	            {8, 96, 6}, {8, 97, 7}, {8, 128, 7}, {8, 500, 7}, {3, 4, 2},  {3, 7, 2}};

	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
		ok(gpu_bucket(want[i].nbucket, want[i].left) == want[i].bucket,
		   "%d images left, %d buckets: batch of %d", want[i].left, want[i].nbucket, 1 << want[i].bucket);
}

/* n images together against each alone. */
static void
check_batch(DfxPlan *plan, const DfxGraph *g, int n, const void *in, const float *alone)
{
	size_t floats = graph_output_floats(g, 0);
	float *together = calloc((size_t) n * floats, sizeof *together);
	float *const out[DFX_MAX_OUT] = {together};
	DfxErr err = {0};
	DfxStatus st = gpu_forward(plan, in, n, out, &err);

	if (!ok(st == DFX_OK && relative_error(together, alone, (size_t) n * floats) < 1e-6,
	        "%d images together are what they are alone", n))
		diag("%s", err.msg);
	free(together);
}

static void
check_batches(DfxDev *dev)
{
	DfxGraph *g = dense_layer(gpu_supports);
	DfxPlanOpts opts = {.max_batch = 23, .precision = DFX_PRECISION_FP16};
	size_t floats = graph_output_floats(g, 0);
	float *alone = calloc(23 * floats, sizeof *alone);
	char *in = noise_images(g, 23, 5);
	DfxPlan *plan = NULL;
	DfxErr err;

	if (!ok(gpu_compile(dev, g, &opts, &plan, &err) == DFX_OK && plan->nbucket == 6,
	        "six buckets for 23 images"))
		diag("%s", err.msg);
	for (int i = 0; i < 23; i++)
	{
		float *const out[DFX_MAX_OUT] = {alone + (size_t) i * floats};

		if (gpu_forward(plan, in + (size_t) i * plan->image_bytes, 1, out, &err) != DFX_OK)
			ok(false, "image %d runs alone", i);
	}
	for (int n = 1; n <= 23; n++)
		check_batch(plan, g, n, in, alone);
	gpu_release(plan);

	opts.max_batch = 300;
	ok(gpu_compile(dev, g, &opts, &plan, &err) == DFX_OK && plan->nbucket == GPU_BUCKETS,
	   "300 images go in pieces of at most %d", 1 << (GPU_BUCKETS - 1));
	gpu_release(plan);
	free(alone);
	free(in);
	dfx_graph_free(g);
}

/* ---- memory ---- */

/* With room for less than the whole, a plan has fewer buckets and the same results. */
static void
check_room(const char *what, size_t room, uint64_t budget, bool fits)
{
	HostRt *rt = host_rt_new();
	DfxDevOpts opts = {.memory = budget};
	Subject on = {.be = &host_backend, .precision = DFX_PRECISION_FP16, .tolerance = 6e-3};
	DfxGraph *g = dense_layer(gpu_supports);
	DfxPlanOpts plan_opts = {.max_batch = 64, .precision = DFX_PRECISION_FP16};
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	DfxStatus st;

	rt->room = room;
	on.dev = host_device(rt, &opts);
	logged[0] = '\0';
	st = gpu_compile(on.dev, g, &plan_opts, &plan, &err);
	if (fits)
	{
		ok(st == DFX_OK && plan->nbucket < 7 && strstr(logged, "not enough device memory for batches of 64"),
		   "%s: smaller batches, and the log says so", what);
		if (plan)
			ok(gpu_bytes(plan) <= (room ? room : budget), "%s: no more than allowed", what);
		gpu_release(plan);
		same_as_ref(&on, g, 21, 0, what);
	}
	else
		ok(st == DFX_ENOMEM && plan == NULL && err.msg[0], "%s: out of memory, in so many words: %s", what,
		   err.msg);
	gpu_close(on.dev);
	ok(rt->blocks == 0 && rt->graphs == 0, "%s: all is given back", what);
	dfx_graph_free(g);
	free(rt);
}

/* ---- numbers that fp16 cannot hold ---- */

static void
check_guard(DfxDev *dev)
{
	Subject on = {.be = &host_backend, .dev = dev, .precision = DFX_PRECISION_FP16, .tolerance = 4e-2};
	DfxGraph *g = large_sums(gpu_supports, NULL, 1.5e5f, false);
	DfxPlanOpts opts = {.max_batch = 4, .precision = DFX_PRECISION_FP16};
	DfxPlan *plan = NULL;
	void *in = noise_images(g, 4, 1);
	float *const none[DFX_MAX_OUT] = {NULL};
	DfxErr err;

	logged[0] = '\0';
	same_as_ref(&on, g, 4, 0, "sums beyond fp16 are done again in bf16");
	ok(strstr(logged, "W fp16 could not hold a batch of 4: done again in bf16 (1 so far)") != NULL,
	   "and the log says so");
	ok(gpu_compile(dev, g, &opts, &plan, &err) == DFX_OK && gpu_forward(plan, in, 4, none, &err) == DFX_OK &&
	       gpu_forward(plan, in, 2, none, &err) == DFX_OK && plan->redone == 2,
	   "and they are counted");
	gpu_release(plan);
	free(in);
	dfx_graph_free(g);

	g = large_sums(gpu_supports, NULL, 1.5e5f, true);
	logged[0] = '\0';
	same_as_ref(&on, g, 4, 0, "so are those behind ReLUs");
	ok(strstr(logged, "done again in bf16") != NULL, "which keep what is no number");
	dfx_graph_free(g);

	g = large_sums(gpu_supports, NULL, 3e5f, false);
	logged[0] = '\0';
	same_as_ref(&on, g, 3, 0, "weights beyond fp16 make the model run in bf16");
	ok(strstr(logged, "exceed fp16") != NULL && strstr(logged, "done again") == NULL, "from the start");
	dfx_graph_free(g);
}

/* ---- a device that is lost ---- */

static void
check_lost(void)
{
	HostRt *rt = host_rt_new();
	DfxDevOpts opts = {0};
	DfxDev *dev = host_device(rt, &opts);
	DfxGraph *g = dense_layer(gpu_supports);
	DfxPlanOpts plan_opts = {.max_batch = 4, .precision = DFX_PRECISION_FP16};
	DfxPlan *plan = NULL;
	void *in = noise_images(g, 4, 1);
	float *const none[DFX_MAX_OUT] = {NULL};
	DfxErr err;

	for (rt->lose_after = 0; rt->lose_after < 50; rt->lose_after += 7)
	{
		rt->launches = 0;
		if (gpu_compile(dev, g, &plan_opts, &plan, &err) != DFX_ELOST || plan)
			break;
	}
	ok(rt->lose_after >= 50, "wherever the device is lost, compile says so");
	rt->lose_after = -1;
	ok(gpu_compile(dev, g, &plan_opts, &plan, &err) == DFX_OK, "a plan");
	rt->lose_after = rt->launches + 5;
	ok(gpu_forward(plan, in, 4, none, &err) == DFX_ELOST && strstr(err.msg, "the device is gone"),
	   "forward says so, too");
	gpu_release(plan);
	gpu_close(dev);
	ok(rt->blocks == 0 && rt->graphs == 0, "and nothing is kept");
	free(in);
	dfx_graph_free(g);
	free(rt);
}

/* ---- requests ---- */

static void
check_requests(DfxDev *dev)
{
	DfxGraph *g = dense_layer(gpu_supports);
	DfxPlanOpts opts = {.max_batch = 3};
	DfxPlan *plan = NULL, *none = NULL;
	float *const out[DFX_MAX_OUT] = {NULL};
	void *in = noise_images(g, 4, 1);
	DfxDevInfo info;
	DfxErr err;

	gpu_info(dev, &info);
	ok(strncmp(info.name, "cuda: host twin (9.0), ", 23) == 0, "info: %s", info.name);
	ok(info.automatic == DFX_PRECISION_FP16 && info.precision[DFX_PRECISION_BF16] &&
	       !info.precision[DFX_PRECISION_INT8],
	   "fp16 by itself, and bf16 on demand");
	ok(gpu_compile(dev, g, &opts, &plan, &err) == DFX_OK && plan->program[0].type == GPU_F16,
	   "a plan for 3 images, in fp16 unless told otherwise");
	ok(gpu_forward(plan, in, 3, out, &err) == DFX_OK, "3 images run, with no output wanted");
	ok(gpu_forward(plan, in, 4, out, &err) == DFX_EINVAL, "4 images are refused");
	ok(gpu_forward(plan, in, 0, out, &err) == DFX_EINVAL, "0 images are refused");
	gpu_release(plan);
	opts.precision = DFX_PRECISION_INT8;
	ok(gpu_compile(dev, g, &opts, &none, &err) == DFX_EUNSUPPORTED && strstr(err.msg, "int8"),
	   "an unsupported precision is refused by name");
	opts = (DfxPlanOpts){.max_batch = 0};
	ok(gpu_compile(dev, g, &opts, &none, &err) == DFX_EINVAL && none == NULL, "a batch of 0 is refused");
	free(in);
	dfx_graph_free(g);
}

/* ---- two threads ---- */

typedef struct Worker
{
	DfxDev *dev;
	DfxGraph *g;
	DfxPlan *plan; /* to run; NULL: compile one */
	const void *in;
	DfxStatus st;
} Worker;

static void *
work(void *arg)
{
	Worker *w = arg;
	float *const none[DFX_MAX_OUT] = {NULL};
	DfxPlanOpts opts = {.max_batch = 8, .precision = DFX_PRECISION_FP16};
	DfxPlan *plan;
	DfxErr err;

	if (!w->plan)
	{
		w->st = gpu_compile(w->dev, w->g, &opts, &plan, &err);
		if (w->st == DFX_OK)
			gpu_release(plan);
	}
	for (int i = 0; w->plan && i < 20 && w->st == DFX_OK; i++)
		w->st = gpu_forward(w->plan, w->in, 2, none, &err);
	return NULL;
}

static void
check_threads(DfxDev *dev)
{
	DfxGraph *g = dense_layer(gpu_supports);
	DfxPlanOpts opts = {.max_batch = 2, .precision = DFX_PRECISION_FP16};
	void *in = noise_images(g, 2, 1);
	Worker w[3] = {{.dev = dev, .g = g}, {.dev = dev, .g = g}, {.dev = dev, .g = g, .in = in}};
	pthread_t thread[3];
	DfxErr err;

	ok(gpu_compile(dev, g, &opts, &w[2].plan, &err) == DFX_OK, "a plan to run meanwhile");
	for (int i = 0; i < 3; i++)
		if (pthread_create(&thread[i], NULL, work, &w[i]) != 0)
			abort();
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	ok(w[0].st == DFX_OK && w[1].st == DFX_OK && w[2].st == DFX_OK,
	   "two threads compile while one runs batches");
	gpu_release(w[2].plan);
	free(in);
	dfx_graph_free(g);
}

int
main(void)
{
	static _Atomic uint64_t progress;
	HostRt *rt = host_rt_new();
	DfxDevOpts opts = {.progress = &progress};
	DfxDev *dev = host_device(rt, &opts);

	dfx_log_set_sink(keep_log, NULL);
	check_lowering(dev);
	for (int i = 0; i < TINY_NETS; i++)
		check_branches(dev, &tiny_nets[i]);
	check_buckets();
	check_batches(dev);
	ok(atomic_load(&progress) > 0, "there were signs of life");
	check_guard(dev);
	check_requests(dev);
	check_threads(dev);
	gpu_close(dev);
	ok(rt->blocks == 0 && rt->graphs == 0, "all memory and graphs are given back");
	free(rt);

	check_room("a small device", 500000, 0, true);
	check_room("a small budget", 0, 500000, true);
	check_room("a tiny device", 9000, 0, false);
	check_lost();
	return done_testing();
}
