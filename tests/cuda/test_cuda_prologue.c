/*
 * test_cuda_prologue.c
 *	  When is a library asked for a product with a prologue, whose plan is dear:
 *	  to compete in the largest bucket only, if that is of many images, and
 *	  elsewhere where our own kernel differs, fails or has ended a process; and
 *	  does a ReLU in front of the product count when a library makes numbers of
 *	  what is none?
 */
#include <unistd.h>

#include "tests/backend/net_cases.h"
#include "tests/cuda/fake_lib.h"

enum
{
	FEW = 8,
	LARGEST = 16, /* images: five buckets */
	MORE = 32,
	ALL = 31, /* sets of buckets, a bit each */
	ALONE = 16,
	NONE = 0
};

/* BN and ReLU between a pool and a 1x1 convolution: one product, with a prologue. */
static DfxGraph *
one_product(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_pool(g, dfx_input_f32(g, 16, 4, 4), (DfxPool){.k = 2, .s = 2, .avg = true});
	DfxErr err;

	x = dfx_act(g, dfx_bn(g, x, "n", 1e-5f), DFX_ACT_RELU);
	dfx_output(g, dfx_conv(g, x, "a", 24, DFX_CONV2D(1, 1, 0), true), "out");
	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 3, &err) != DFX_OK ||
	    dfx_graph_optimize(g, gpu_supports, NULL, &err) != DFX_OK)
		abort();
	return g;
}

/* ---- a device on which our kernel for tensor cores is not what it should be ---- */

static enum Ours {
	OURS_RIGHT,
	OURS_WRONG, /* in its first number */
	OURS_FAILS, /* in fp16; the program that redoes batches in bf16 knows no other */
	OURS_LETHAL
} ours;

static DfxStatus (*right_launch)(GpuRt *rt, GpuKernel kernel, GpuType type, const GpuArgs *args, int count,
                                 int n, DfxErr *err);

static DfxStatus
our_launch(GpuRt *rt, GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n, DfxErr *err)
{
	DfxStatus st;

	if (kernel != GPU_CONV_MMA || ours == OURS_RIGHT)
		return right_launch(rt, kernel, type, args, count, n, err);
	if (ours == OURS_FAILS && type == GPU_F16)
		return dfx_fail(err, DFX_EDEVICE, "our kernel cannot");
	if (ours == OURS_LETHAL)
		return dfx_fail(err, DFX_ELOST, "our kernel is the end");
	st = right_launch(rt, kernel, type, args, count, n, err);
	if (st == DFX_OK)
		*(uint16_t *) args[0].conv.y ^= 0x4000;
	return st;
}

static const GpuChoice *
choice_at(const DfxPlan *plan, int bucket)
{
	for (int i = 0; i < plan->program[0].nstep; i++)
	{
		const GpuStep *s = &plan->program[0].step[i];

		if (s->product[0].w && s->args[0].conv.pre_scale)
			return &s->choice[bucket];
	}
	abort();
}

/* Compile and run with a fake library that takes prologues; the buckets in which it has got the product. */
static int
run_with(FakeLib *f, enum Ours how, const char *dir, int max_batch, const char *what)
{
	GpuLib *const lib[GPU_LIBS] = {&f->lib, NULL};
	DfxDevOpts opts = {0};
	DfxPlanOpts plan_opts = {.max_batch = max_batch, .precision = DFX_PRECISION_FP16};
	Subject on = {.be = &host_backend, .precision = DFX_PRECISION_FP16, .tolerance = 6e-3};
	DfxGraph *g = one_product();
	GpuLibOps takes_prologues = fake_ops;
	GpuRtOps ops;
	DfxPlan *plan = NULL;
	DfxStatus st;
	DfxErr err = {0};
	int buckets = NONE, by_ours = 0;

	takes_prologues.fits = fake_fits_all;
	f->lib.ops = &takes_prologues;
	f->rt = host_rt_new();
	ops = *f->rt->rt.ops;
	right_launch = ops.launch;
	ops.launch = our_launch;
	f->rt->rt.ops = &ops;
	ours = how;
	logged[0] = '\0';
	if (gpu_device_new(&f->rt->rt, lib, &opts, dir, &on.dev, &err) != DFX_OK)
		abort();
	st = gpu_compile(on.dev, g, &plan_opts, &plan, &err);
	for (int b = 0; st == DFX_OK && b < plan->nbucket; b++)
	{
		const GpuChoice *choice = choice_at(plan, b);

		buckets |= (choice->lib == &f->lib) << b;
		by_ours += !choice->lib && choice->kernel == GPU_CONV_MMA;
	}
	if (plan)
		gpu_release(plan);
	if (how == OURS_LETHAL)
		ok(st == DFX_ELOST, "%s: the device is lost", what);
	else
		same_as_ref(&on, g, max_batch, 0, what);
	if (how == OURS_WRONG || how == OURS_FAILS)
		ok(by_ours == 0, "%s: our kernel is not used", what);
	gpu_close(on.dev);
	ok(f->rt->blocks == 0 && f->built == f->dropped, "%s: all is given back", what);
	dfx_graph_free(g);
	free(f->rt);
	return buckets;
}

static void
check_contest(void)
{
	FakeLib quick = {.cost = 0.1}, few = quick, slow = {.cost = 10}, wrong = {.cost = 0.1, .wrong = true};
	FakeLib refusing = {.cost = 0.1, .refuses = true};

	ok(run_with(&quick, OURS_RIGHT, NULL, LARGEST, "a quick library") == ALONE && quick.built == 1,
	   "it gets the largest batch, and is not asked for others");
	ok(run_with(&few, OURS_RIGHT, NULL, FEW, "a quick library for few images") == NONE && few.built == 0,
	   "it is not asked");
	ok(run_with(&slow, OURS_RIGHT, NULL, LARGEST, "a slow library") == NONE && slow.built == 1,
	   "it is asked for the largest batch, and not used");
	ok(run_with(&wrong, OURS_RIGHT, NULL, LARGEST, "a wrong library") == NONE && wrong.run > 0 &&
	       strstr(logged, "W fake computes 16 fp16 largest") != NULL,
	   "it is found out in the largest batch, which the log says");
	ok(run_with(&refusing, OURS_RIGHT, NULL, LARGEST, "a library that refuses") == NONE,
	   "the product runs on our kernel");
}

static void
check_fallback(void)
{
	FakeLib slow = {.cost = 10}, again = slow, both = {.cost = 10, .wrong = true};
	FakeLib fickle = {.cost = 10, .patience = 6}; /* tried, timed, with what is no number, and one run */

	ok(run_with(&slow, OURS_WRONG, NULL, LARGEST, "our kernel is wrong") == ALL && slow.built == 5,
	   "a library stands in for it in every bucket");
	ok(strstr(logged, "W mma computes 1 fp16") != NULL, "which the log says");
	ok(run_with(&again, OURS_FAILS, NULL, LARGEST, "our kernel fails") == ALL && again.built == 5,
	   "a library stands in for it in every bucket");
	ok(run_with(&both, OURS_WRONG, NULL, LARGEST, "our kernel is wrong, and so is the library") == NONE,
	   "neither is used");
	ok(run_with(&fickle, OURS_WRONG, NULL, 1, "a stand-in that fails in the network") == NONE,
	   "its product is taken away again, and not given to the wrong kernel");
	ok(strstr(logged, "W libraries fail at batch 1, own kernels take over") != NULL, "which the log says");
}

static void
check_barred(void)
{
	char dir[] = "/tmp/dfx-cuda-XXXXXX", command[64];
	FakeLib first = {.cost = 10}, second = first;

	if (!mkdtemp(dir))
		abort();
	for (int i = 0; i < 2; i++)
		ok(run_with(&first, OURS_LETHAL, dir, LARGEST, "our kernel ends the device") == NONE,
		   "nobody is chosen");
	ok(run_with(&second, OURS_RIGHT, dir, LARGEST, "the next process") == 1 && second.built == 2,
	   "has a library in that bucket, and asks for the largest");
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ok(system(command) == 0, "cleaned up");
}

/* What was found for a batch that was not the largest does not speak for one that is. */
static void
check_kept(void)
{
	char dir[] = "/tmp/dfx-cuda-XXXXXX", command[64];
	FakeLib first = {.cost = 0.1}, same = first, more = first, after = first;

	if (!mkdtemp(dir))
		abort();
	ok(run_with(&more, OURS_RIGHT, dir, MORE, "with a place to keep choices") == MORE,
	   "a library gets the largest batch");
	ok(run_with(&first, OURS_RIGHT, dir, LARGEST, "a plan for smaller batches") == ALONE &&
	       first.recalled == 0,
	   "asks a library for the largest of these");
	ok(run_with(&same, OURS_RIGHT, dir, LARGEST, "the next process") == ALONE && same.built == 1 &&
	       same.recalled == 1,
	   "has the same choices without trying");
	ok(run_with(&after, OURS_RIGHT, dir, MORE, "and a plan for the larger ones") == MORE &&
	       after.recalled == 1,
	   "has its own");
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ok(system(command) == 0, "cleaned up");
}

static void
check_no_number(void)
{
	FakeLib tidy = {.cost = 0.1, .tidy = true};

	ok(run_with(&tidy, OURS_RIGHT, NULL, LARGEST, "a library that makes 0 of what is no number") == NONE,
	   "it does not get a product with a ReLU in front");
	ok(strstr(logged, "W fake makes 0 of what is no number in 16 fp16") != NULL, "which the log says");
}

int
main(void)
{
	dfx_log_set_sink(keep_log, NULL);
	check_contest();
	check_fallback();
	check_barred();
	check_kept();
	check_no_number();
	return done_testing();
}
