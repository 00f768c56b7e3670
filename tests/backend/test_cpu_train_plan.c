/*
 * test_cpu_train_plan.c
 *	  Does training on the CPU repeat bit for bit with the same number of
 *	  threads; can every network of the table be trained without the library's
 *	  reference loops, in fp32 and in bf16; does a step show signs of life; is
 *	  what cannot be done refused, bf16 on a CPU without it above all?
 */
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/backend/cpu_precisions.h"
#include "tests/backend/train_nets.h"

static _Atomic uint64_t progress;

/* ---- repeatability ---- */

/* Some steps on one device and on another. */
static void
check_threads(const DfxBackbone *bb, int threads, DfxPrecision precision)
{
	Subject on[2] = {{.be = &dfx_cpu_backend, .precision = precision},
	                 {.be = &dfx_cpu_backend, .precision = precision}};
	DfxDevOpts opts = {.threads = threads};
	DfxErr err = {0};
	char what[96];

	snprintf(what, sizeof what, "%s with %d threads in %s", bb->name, threads, dfx_precision_name[precision]);
	if (dfx_cpu_backend.open(&opts, &on[0].dev, &err) == DFX_OK &&
	    dfx_cpu_backend.open(&opts, &on[1].dev, &err) == DFX_OK)
		check_repeats(&on[0], &on[1], bb, what);
	else
		ok(false, "%s: %s", what, err.msg);
	for (int i = 0; i < 2; i++)
		if (on[i].dev)
			dfx_cpu_backend.close(on[i].dev);
}

/* ---- the networks of the table ---- */

static void
check_compiles(DfxDev *dev, const DfxBackbone *bb, DfxPrecision precision)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	int impls = 0, ref = 0;

	if (dfx_build_backbone(g, bb, 3, &err) == DFX_OK && dfx_weights_random(g, 3, &err) == DFX_OK)
		plan = train_compile_in(precision, &dfx_cpu_backend, dev, g, 2, &err);
	for (int i = 0; plan && i < dfx_cpu_plan_steps(plan); i++)
	{
		const char *name = dfx_cpu_plan_impl(plan, i);

		impls += name != NULL;
		ref += name != NULL && strncmp(name, "ref", 3) == 0;
	}
	if (!ok(plan && impls > 3 && ref == 0,
	        "%s can be trained in %s: %d primitives, none of them the reference's", bb->name,
	        dfx_precision_name[precision], impls))
		diag("%d ref; %s", ref, err.msg);
	if (plan)
		dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
}

/* In GB, less than most (PyTorch: 6.3, in bf16 3.4).  Nothing of a plan's arena is touched until it runs. */
static double
check_memory(DfxDev *dev, DfxPrecision precision, double most)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	double gb;

	if (dfx_build_backbone(g, dfx_backbone_find("densenet121"), 2, &err) == DFX_OK &&
	    dfx_weights_random(g, 3, &err) == DFX_OK)
		plan = train_compile_in(precision, &dfx_cpu_backend, dev, g, 32, &err);
	gb = plan ? (double) dfx_cpu_backend.bytes(plan) / 1e9 : 0;
	ok(gb > 0.3 && gb < most, "a DenseNet-121 trains on 32 images in %s in %.2f GB",
	   dfx_precision_name[precision], gb);
	if (plan)
		dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
	return gb;
}

/* ---- rules of its own ---- */

static void
check_refused(DfxDev *dev)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	DfxPlanOpts opts = {.max_batch = 2, .precision = DFX_PRECISION_FP16, .train = true};
	const DfxAdam bad[] = {{1e-3, 1, 0.999, 1e-8, 0, 1},
	                       {1e-3, 0.9, -1, 1e-8, 0, 1},
	                       {-1, 0.9, 0.999, 1e-8, 0, 1},
	                       {1e-3, 0.9, 0.999, NAN, 0, 1},
	                       {1e-3, 0.9, 0.999, 1e-8, -1, 1}};

	dfx_build_backbone(g, &tiny_nets[2], 3, &err);
	dfx_weights_random(g, 3, &err);
	ok(dfx_cpu_backend.compile(dev, g, &opts, &plan, &err) == DFX_EUNSUPPORTED && strstr(err.msg, "fp16"),
	   "another precision: %s", err.msg);
	plan = train_compile(&dfx_cpu_backend, dev, g, 2, &err);
	for (size_t i = 0; plan && i < sizeof bad / sizeof bad[0]; i++)
		ok(dfx_cpu_backend.step(plan, &bad[i], &err) == DFX_EINVAL, "a step: %s", err.msg);
	if (plan)
		dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
}

/* One pass, and what may not follow it. */
static void
check_pass(DfxDev *dev)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	Subject on = {.be = &dfx_cpu_backend, .dev = dev, .precision = DFX_PRECISION_FP32};
	TrainSide s;
	uint64_t before, forward;
	void *in;
	float *dlogits;
	bool good;

	dfx_build_backbone(g, &tiny_nets[0], 3, &err);
	dfx_weights_random(g, 3, &err);
	in = noise_images(g, 2, 1);
	dlogits = calloc(2 * 3, sizeof *dlogits);
	good = side_open(&s, &on, g, 2, &err);
	before = atomic_load(&progress);
	good = good && dfx_cpu_backend.forward_train(s.plan, in, 2, 1, s.out, &err) == DFX_OK;
	forward = atomic_load(&progress);
	good =
	    good && dfx_cpu_backend.backward(s.plan, 2, (const float *[]){NULL, dlogits}, NULL, &err) == DFX_OK;
	ok(good && forward >= before + 20 && atomic_load(&progress) >= forward + 20,
	   "forward and backward each give many signs of life");
	ok(good &&
	       dfx_cpu_backend.backward(s.plan, 2, (const float *[]){NULL, dlogits}, NULL, &err) == DFX_EINVAL,
	   "backward again: %s", err.msg);
	side_close(&s, g);
	free(dlogits);
	free(in);
	dfx_graph_free(g);
}

/*
 * In a process that tells the library so before its first call: this CPU has no
 * bf16.  Its exit code is 0 when training in bf16 is refused, by that name, and
 * training in fp32 is not.
 */
static void
check_without_bf16(void)
{
	int status = -1;
	pid_t child = fork();

	if (child == 0)
	{
		DfxDevOpts opts = {.threads = 1};
		DfxGraph *g = dfx_graph_new();
		DfxErr err = {0};
		DfxDev *dev;
		bool good;

		setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE", 1);
		dfx_output(g, dfx_linear(g, dfx_input_f32(g, 16, 1, 1), "fc", 16), "y");
		good = dfx_graph_finish(g, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK &&
		       dfx_cpu_backend.open(&opts, &dev, &err) == DFX_OK &&
		       train_compile(&dfx_cpu_backend, dev, g, 1, &err) != NULL &&
		       train_compile_in(DFX_PRECISION_BF16, &dfx_cpu_backend, dev, g, 1, &err) == NULL &&
		       err.code == DFX_EUNSUPPORTED && strstr(err.msg, "bf16") != NULL;
		_exit(good ? 0 : 1);
	}
	ok(child > 0 && waitpid(child, &status, 0) == child && status == 0,
	   "a CPU without it refuses to train in bf16");
}

static void
check_bf16(DfxDev *dev, double fp32)
{
	for (int i = 0; i < TINY_NETS; i++)
		for (int threads = 1; threads <= 3; threads += 2)
			check_threads(&tiny_nets[i], threads, DFX_PRECISION_BF16);
	for (int i = 0; i < dfx_nbackbones; i++)
		check_compiles(dev, &dfx_backbones[i], DFX_PRECISION_BF16);
	check_memory(dev, DFX_PRECISION_BF16, fp32 * 0.75);
}

int
main(void)
{
	DfxDevOpts opts = {.threads = 2, .progress = &progress};
	DfxErr err = {0};
	DfxDev *dev;
	double gb;

	check_without_bf16(); /* first: it forks */
	for (int i = 0; i < TINY_NETS; i++)
		for (int threads = 1; threads <= 3; threads++)
			check_threads(&tiny_nets[i], threads, DFX_PRECISION_FP32);
	if (!ok(dfx_cpu_backend.open(&opts, &dev, &err) == DFX_OK, "the device opens"))
		return done_testing();
	for (int i = 0; i < dfx_nbackbones; i++)
		check_compiles(dev, &dfx_backbones[i], DFX_PRECISION_FP32);
	gb = check_memory(dev, DFX_PRECISION_FP32, 2);
	if (trains_in(dev, DFX_PRECISION_BF16))
		check_bf16(dev, gb);
	check_refused(dev);
	check_pass(dev);
	dfx_cpu_backend.close(dev);
	return done_testing();
}
