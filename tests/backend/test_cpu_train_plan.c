/*
 * test_cpu_train_plan.c
 *	  Does training on the CPU repeat bit for bit with the same number of
 *	  threads; can every network of the table be trained without the library's
 *	  reference loops; does a step show signs of life; is what cannot be done
 *	  refused?
 */
#include <stdatomic.h>

#include "cpu/cpu.h"
#include "tests/backend/train_nets.h"

static _Atomic uint64_t progress;

/* ---- repeatability ---- */

static void
check_threads(const DfxBackbone *bb, int threads)
{
	Subject on = {.be = &dfx_cpu_backend, .precision = DFX_PRECISION_FP32}, other = on;
	DfxDevOpts opts = {.threads = threads};
	DfxErr err = {0};
	char what[64];

	snprintf(what, sizeof what, "%s with %d threads", bb->name, threads);
	if (on.be->open(&opts, &on.dev, &err) == DFX_OK && other.be->open(&opts, &other.dev, &err) == DFX_OK)
		check_repeats(&on, &other, bb, what);
	else if (!ok(false, "%s: two devices open", what))
		diag("%s", err.msg);
	on.be->close(on.dev);
	other.be->close(other.dev);
}

/* ---- the networks of the table ---- */

static void
check_compiles(DfxDev *dev, const DfxBackbone *bb)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	int impls = 0, ref = 0;

	if (dfx_build_backbone(g, bb, 3, &err) == DFX_OK && dfx_weights_random(g, 3, &err) == DFX_OK)
		plan = train_compile(&dfx_cpu_backend, dev, g, 2, &err);
	for (int i = 0; plan && i < dfx_cpu_plan_steps(plan); i++)
	{
		const char *name = dfx_cpu_plan_impl(plan, i);

		impls += name != NULL;
		ref += name != NULL && strncmp(name, "ref", 3) == 0;
	}
	if (!ok(plan && impls > 3 && ref == 0, "%s can be trained: %d primitives, none of them the reference's",
	        bb->name, impls))
		diag("%d ref; %s", ref, err.msg);
	if (plan)
		dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
}

/* Nothing of a plan's arena is touched until it runs, so even this costs little. */
static void
check_memory(DfxDev *dev)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	double gb;

	if (dfx_build_backbone(g, dfx_backbone_find("densenet121"), 2, &err) == DFX_OK &&
	    dfx_weights_random(g, 3, &err) == DFX_OK)
		plan = train_compile(&dfx_cpu_backend, dev, g, 32, &err);
	gb = plan ? (double) dfx_cpu_backend.bytes(plan) / 1e9 : 0;
	ok(gb > 0.5 && gb < 2, "a DenseNet-121 trains on 32 images in %.2f GB (PyTorch: 6.3)", gb);
	if (plan)
		dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
}

/* ---- rules of its own ---- */

static void
check_refused(DfxDev *dev)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	DfxPlanOpts opts = {.max_batch = 2, .precision = DFX_PRECISION_BF16, .train = true};
	const DfxAdam bad[] = {{1e-3, 1, 0.999, 1e-8, 0, 1},
	                       {1e-3, 0.9, -1, 1e-8, 0, 1},
	                       {-1, 0.9, 0.999, 1e-8, 0, 1},
	                       {1e-3, 0.9, 0.999, NAN, 0, 1},
	                       {1e-3, 0.9, 0.999, 1e-8, -1, 1}};

	dfx_build_backbone(g, &tiny_nets[2], 3, &err);
	dfx_weights_random(g, 3, &err);
	ok(dfx_cpu_backend.compile(dev, g, &opts, &plan, &err) == DFX_EUNSUPPORTED && strstr(err.msg, "bf16"),
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
	TrainSide s;
	Subject on = {.be = &dfx_cpu_backend, .dev = dev, .precision = DFX_PRECISION_FP32};
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

int
main(void)
{
	DfxDevOpts opts = {.threads = 2, .progress = &progress};
	DfxErr err = {0};
	DfxDev *dev;

	for (int i = 0; i < TINY_NETS; i++)
		for (int threads = 1; threads <= 3; threads++)
			check_threads(&tiny_nets[i], threads);
	if (!ok(dfx_cpu_backend.open(&opts, &dev, &err) == DFX_OK, "the device opens"))
		return done_testing();
	for (int i = 0; i < dfx_nbackbones; i++)
		check_compiles(dev, &dfx_backbones[i]);
	check_memory(dev);
	check_refused(dev);
	check_pass(dev);
	dfx_cpu_backend.close(dev);
	return done_testing();
}
