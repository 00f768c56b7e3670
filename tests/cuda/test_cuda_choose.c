/*
 * test_cuda_choose.c
 *	  Who computes a product: is a library used only where it is right and
 *	  fastest, is a wrong one found out, does a refusal harm nothing, are
 *	  choices kept on disk so that the next process need not try, and is what has
 *	  ended one process not tried by the next?
 */
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/backend/net_cases.h"
#include "tests/cuda/fake_lib.h"

/* Two products with a bias and one with a prologue, for which test_cuda_prologue.c is. */
static DfxGraph *
three_products(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_input_f32(g, 16, 4, 4);
	DfxErr err;

	x = dfx_act(g, dfx_conv(g, x, "a", 24, DFX_CONV2D(3, 1, 1), true), DFX_ACT_RELU);
	x = dfx_act(g, dfx_bn(g, dfx_pool(g, x, (DfxPool){.k = 2, .s = 2, .avg = true}), "n", 1e-5f),
	            DFX_ACT_RELU);
	x = dfx_act(g, dfx_conv(g, x, "b", 16, DFX_CONV2D(1, 1, 0), true), DFX_ACT_RELU);
	dfx_output(g, dfx_linear(g, dfx_pool(g, x, (DfxPool){.avg = true}), "c", 8), "out");
	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 3, &err) != DFX_OK)
		abort();
	/* Biases that matter. */
	for (int i = 0; i < g->nparam; i++)
		for (size_t k = 0; g->param[i].role == DFX_ROLE_BIAS && k < dfx_param_count(&g->param[i]); k++)
			g->param[i].data[k] *= 20;
	if (dfx_graph_optimize(g, gpu_supports, NULL, &err) != DFX_OK)
		abort();
	return g;
}

/* Compile and run one image with a fake library; how many products it has got. */
static int
run_with(FakeLib *f, const char *dir, const char *what)
{
	GpuLib *const lib[GPU_LIBS] = {&f->lib, NULL};
	DfxDevOpts opts = {0};
	DfxPlanOpts plan_opts = {.max_batch = 1, .precision = DFX_PRECISION_FP16};
	Subject on = {.be = &host_backend, .precision = DFX_PRECISION_FP16, .tolerance = 6e-3};
	DfxGraph *g = three_products();
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	int n = 0;

	f->lib.ops = &fake_ops;
	f->rt = host_rt_new();
	logged[0] = '\0';
	if (gpu_device_new(&f->rt->rt, lib, &opts, dir, &on.dev, &err) != DFX_OK ||
	    gpu_compile(on.dev, g, &plan_opts, &plan, &err) != DFX_OK)
	{
		ok(false, "%s compiles", what);
		diag("%s", err.msg);
		return -1;
	}
	for (int i = 0; i < plan->program[0].nstep; i++)
		n += plan->program[0].step[i].choice[0].lib == &f->lib;
	gpu_release(plan);
	same_as_ref(&on, g, 1, 0, what);
	gpu_close(on.dev);
	ok(f->rt->blocks == 0 && f->built == f->dropped, "%s: all is given back", what);
	dfx_graph_free(g);
	free(f->rt);
	return n;
}

static void
check_candidates(void)
{
	FakeLib quick = {.cost = 0.1}, slow = {.cost = 10}, wrong = {.cost = 0.1, .wrong = true};
	FakeLib fickle = {.cost = 0.1,
	                  .patience = 10}; /* two products tried, the ReLU's once more, and one run */
	FakeLib tidy = {.cost = 0.1, .tidy = true};
	FakeLib refusing = {.cost = 0.1, .refuses = true}, failing = {.cost = 0.1, .fails = true};

	ok(run_with(&quick, NULL, "a quick library") == 2, "it gets the products that it can do");
	ok(run_with(&slow, NULL, "a slow library") == 0 && slow.run > 0, "it is tried and not used");
	ok(run_with(&wrong, NULL, "a wrong library") == 0 && wrong.run > 0, "it is found out");
	ok(strstr(logged, "W fake computes 1 fp16") && strstr(logged, "differently from the plain kernel"),
	   "which the log says");
	ok(run_with(&tidy, NULL, "a library that makes 0 of what is no number") == 1,
	   "it gets the product without a ReLU only");
	ok(strstr(logged, "W fake makes 0 of what is no number in 1 fp16") != NULL, "which the log says");
	ok(run_with(&refusing, NULL, "a library that refuses") == 0, "its products run on the plain kernels");
	ok(strstr(logged, "D fake refuses 1 fp16") && strstr(logged, "the fake does not want to"),
	   "with a reason in the log");
	ok(run_with(&failing, NULL, "a library that fails") == 0, "its products run on the plain kernels");
	ok(strstr(logged, "the fake cannot") != NULL, "with a reason in the log");
	ok(run_with(&fickle, NULL, "a library that fails in the network") == 0,
	   "its products are taken away again");
	ok(strstr(logged, "W libraries fail at batch 1, own kernels take over: the fake cannot") != NULL,
	   "which the log says");
}

static DfxStatus (*right_launch)(GpuRt *rt, GpuKernel kernel, GpuType type, const GpuArgs *args, int count,
                                 int n, DfxErr *err);

/* A device on which the tensor cores' kernel gives another first number. */
static DfxStatus
wrong_launch(GpuRt *rt, GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n, DfxErr *err)
{
	DfxStatus st = right_launch(rt, kernel, type, args, count, n, err);

	if (st == DFX_OK && kernel == GPU_CONV_MMA)
		*(uint16_t *) args[0].conv.y ^= 0x4000;
	return st;
}

/* A kernel of ours that is wrong must not be the measure of others in larger batches. */
static void
check_wrong_kernel(void)
{
	FakeLib f = {.cost = 0.1, .lib.ops = &fake_ops, .rt = host_rt_new()};
	GpuLib *const lib[GPU_LIBS] = {&f.lib, NULL};
	DfxDevOpts opts = {0};
	DfxPlanOpts plan_opts = {.max_batch = 16, .precision = DFX_PRECISION_FP16};
	DfxGraph *g = three_products();
	GpuRtOps ops = *f.rt->rt.ops;
	DfxPlan *plan = NULL;
	DfxDev *dev;
	DfxErr err = {0};
	int wrong = 0, by_lib = 0;

	right_launch = ops.launch;
	ops.launch = wrong_launch;
	f.rt->rt.ops = &ops;
	if (gpu_device_new(&f.rt->rt, lib, &opts, NULL, &dev, &err) != DFX_OK ||
	    gpu_compile(dev, g, &plan_opts, &plan, &err) != DFX_OK)
		abort();
	for (int i = 0; i < plan->program[0].nstep; i++)
		for (int b = 0; plan->program[0].step[i].product[0].w && b < plan->nbucket; b++)
		{
			const GpuChoice *choice = &plan->program[0].step[i].choice[b];

			wrong += !choice->lib && choice->kernel == GPU_CONV_MMA;
			by_lib += choice->lib == &f.lib;
		}
	ok(wrong == 0 && by_lib == 2 * plan->nbucket,
	   "a wrong kernel of ours is not used, whatever the batch: %d products by the library", by_lib);
	gpu_release(plan);
	gpu_close(dev);
	dfx_graph_free(g);
	free(f.rt);
}

/* Replace the kept choices by text. */
static void
spoil(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f) != 0)
		abort();
}

static void
check_kept(void)
{
	char dir[] = "/tmp/dfx-cuda-XXXXXX", below[64], command[160], path[160] = "";
	FakeLib first = {.cost = 0.1}, second = {.cost = 0.1}, third = {.cost = 0.1}, fourth = {.cost = 0.1};
	FILE *list;

	if (!mkdtemp(dir))
		abort();
	snprintf(below, sizeof below, "%s/not/yet", dir);
	run_with(&first, below, "with a place to keep choices");
	ok(first.run > 2, "products are tried");
	ok(run_with(&second, below, "the next process") == 2, "has the same choices");
	ok(second.recalled == 2 && second.built == 2 && strstr(logged, "products at batch") == NULL,
	   "from what was kept, without trying");

	snprintf(command, sizeof command, "ls %s/cuda-*", below);
	list = popen(command, "r");
	ok(list && fgets(path, sizeof path, list), "they are in one file");
	if (list)
		pclose(list);
	path[strcspn(path, "\n")] = '\0';
	spoil(path, "dfx-cuda-choices 1, another device, other versions\nx\ty\tz\n");
	ok(run_with(&third, below, "a file of another device") == 2 && third.recalled == 0, "is not believed");
	spoil(path, "dfx-cuda-choices 1, host twin, no driver\nhalf a line");
	ok(run_with(&fourth, below, "a torn file") == 2 && fourth.recalled == 0, "is not believed");
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ok(system(command) == 0, "cleaned up");
}

/* ---- candidates that end the process ---- */

/* Compile with a fake library that takes the device with it. */
static DfxStatus
die_with(FakeLib *f, const char *dir)
{
	GpuLib *const lib[GPU_LIBS] = {&f->lib, NULL};
	DfxDevOpts opts = {0};
	DfxPlanOpts plan_opts = {.max_batch = 1, .precision = DFX_PRECISION_FP16};
	DfxGraph *g = three_products();
	DfxPlan *plan = NULL;
	DfxDev *dev;
	DfxErr err;
	DfxStatus st;

	f->lib.ops = &fake_ops;
	f->rt = host_rt_new();
	if (gpu_device_new(&f->rt->rt, lib, &opts, dir, &dev, &err) != DFX_OK)
		abort();
	st = gpu_compile(dev, g, &plan_opts, &plan, &err);
	if (plan)
		gpu_release(plan);
	gpu_close(dev);
	dfx_graph_free(g);
	free(f->rt);
	return st;
}

static void
check_lethal(void)
{
	char dir[] = "/tmp/dfx-cuda-XXXXXX", command[160];
	FakeLib first = {.cost = 0.1, .lethal = true}, again = first, second = first, third = first;

	if (!mkdtemp(dir))
		abort();
	ok(die_with(&first, dir) == DFX_ELOST, "a library ends the device in its trial");
	ok(die_with(&again, dir) == DFX_ELOST, "which may be chance: it is tried again, and ends it again");
	ok(run_with(&second, dir, "the next process") == 1, "leaves it out there, and tries it elsewhere");
	ok(strstr(logged, "W an engine ended while it tried fake at 1 fp16") &&
	       strstr(logged, "W fake is left out at 1 fp16"),
	   "which the log says");
	ok(run_with(&third, dir, "the one after it") == 1 && strstr(logged, "W ") == NULL, "has the choices");
	snprintf(command, sizeof command, "grep -q '3x3.*!!fake' %s/cuda-*", dir);
	ok(system(command) == 0, "that it is not to be tried is kept with them");
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ok(system(command) == 0, "cleaned up");
}

/* A process that opens the cache, tries who, and ends. */
static void
end_with(const char *dir, const char *who)
{
	GpuCache *cache = gpu_cache_open(dir, "twin", "1");

	gpu_cache_try(cache, "x", "fine");
	gpu_cache_tried(cache);
	gpu_cache_try(cache, "key with words", who);
	gpu_cache_close(cache);
}

static bool
is_barred(const char *dir, const char *versions, const char *key, const char *who)
{
	GpuCache *cache = gpu_cache_open(dir, "twin", versions);
	bool barred = gpu_cache_barred(cache, key, who);

	gpu_cache_close(cache);
	return barred;
}

/* What another process tries is not found while that one lives; and one end bars nobody. */
static void
check_marks(void)
{
	char dir[] = "/tmp/dfx-cuda-XXXXXX", command[64];
	GpuCache *alive;

	if (!mkdtemp(dir))
		abort();
	alive = gpu_cache_open(dir, "twin", "1");
	gpu_cache_try(alive, "other", "deadly");
	end_with(dir, "deadly");
	ok(!is_barred(dir, "1", "key with words", "deadly"), "a process that ended once may have been stopped");
	ok(!is_barred(dir, "1", "key with words", "deadly"), "and is not counted twice");
	end_with(dir, "another");
	end_with(dir, "deadly");
	ok(is_barred(dir, "1", "key with words", "deadly"), "twice at the same candidate bars it");
	ok(!is_barred(dir, "1", "x", "fine") && !is_barred(dir, "1", "key with words", "another"),
	   "no other one");
	ok(is_barred(dir, "1", "key with words", "deadly"), "it stays barred");
	ok(!is_barred(dir, "2", "key with words", "deadly"), "not to other versions");
	end_with(dir, "deadly");
	ok(is_barred(dir, "1", "key with words", "deadly"), "nor does a third end free it");

	gpu_cache_try(alive, "other", "deadly");
	ok(!is_barred(dir, "1", "other", "deadly"), "one who lives is not said to be dead");
	gpu_cache_close(alive);
	alive = gpu_cache_open(dir, "twin", "1");
	gpu_cache_try(alive, "other", "deadly");
	gpu_cache_close(alive);
	ok(is_barred(dir, "1", "other", "deadly"), "but is when he has ended, twice");
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ok(system(command) == 0, "cleaned up");
}

/* The supervisor starts the engine with no HOME. */
static void
check_place(void)
{
	const struct passwd *user = getpwuid(geteuid());
	char dir[512] = "", wanted[512];

	setenv("XDG_CACHE_HOME", "/x", 1);
	ok(gpu_cache_dir(dir, sizeof dir) && strcmp(dir, "/x/deepfeaturex") == 0, "choices are kept in %s", dir);
	setenv("XDG_CACHE_HOME", "relative", 1); /* which the specification says to ignore */
	setenv("HOME", "/h", 1);
	ok(gpu_cache_dir(dir, sizeof dir) && strcmp(dir, "/h/.cache/deepfeaturex") == 0, "or in %s", dir);
	ok(!gpu_cache_dir(dir, 8), "or nowhere, where the path is too long");
	unsetenv("XDG_CACHE_HOME");
	unsetenv("HOME");
	snprintf(wanted, sizeof wanted, "%s/.cache/deepfeaturex", user ? user->pw_dir : "");
	ok(gpu_cache_dir(dir, sizeof dir) == (wanted[0] == '/' && user) && (!user || strcmp(dir, wanted) == 0),
	   "and without an environment in %s", dir);
}

int
main(void)
{
	dfx_log_set_sink(keep_log, NULL);
	check_candidates();
	check_wrong_kernel();
	check_kept();
	check_lethal();
	check_marks();
	check_place();
	return done_testing();
}
