/*
 * test_cuda_train_nets.c
 *	  Do reduced networks of every family train on the CUDA backend (its kernels
 *	  on the host) as on the oracle and in PyTorch; does it keep the rules of
 *	  training plans; does a step repeat bit for bit; is what cannot be done
 *	  refused, and what does not fit named?
 */
#include "tests/backend/train_nets.h"
#include "tests/cuda/host_rt.h"
#include "tests/unit/grad_nets.h"

/* Against PyTorch, and the rules. */
static void
check_golden(HostRt *rt)
{
	DfxDevOpts opts = {0};
	GradBackend b = {.be = &host_backend, .dev = host_device(rt, &opts)};

	check_grad_golden(&b, 4e-6, grad_nets, GRAD_SMALL_NETS);
	ok(rt->seen >> GPU_ADAM & 1, "Adam ran");
	gpu_close(b.dev);
}

/* The networks are small, and so are their batches: bf16 costs the gradients some of their direction. */
static void
check_bf16(HostRt *rt)
{
	DfxDevOpts opts = {0};
	Subject on = {.be = &host_backend, .dev = host_device(rt, &opts), .precision = DFX_PRECISION_BF16};

	for (int i = 0; i < TINY_NETS; i++)
		check_train_direction(&on, &tiny_nets[i], 8, 0.85);
	check_repeats(&on, &on, &tiny_nets[0], tiny_nets[0].name);
	gpu_close(on.dev);
}

/* ---- refusals ---- */

static DfxStatus
compile(DfxDev *dev, const DfxGraph *g, int batch, DfxPrecision precision, DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = batch, .precision = precision, .train = true};
	DfxPlan *plan = NULL;
	DfxStatus st = host_backend.compile(dev, g, &opts, &plan, err);

	if (st == DFX_OK)
		host_backend.release(plan);
	return st;
}

static void
check_refused(HostRt *rt)
{
	DfxDevOpts opts = {.memory = 64 << 20};
	DfxDev *dev = host_device(rt, &opts);
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};

	dfx_build_backbone(g, dfx_backbone_find("densenet121"), 2, &err);
	dfx_weights_random(g, 1, &err);
	ok(compile(dev, g, 1, DFX_PRECISION_FP16, &err) == DFX_EUNSUPPORTED && strstr(err.msg, "fp16"),
	   "fp16: %s", err.msg);
	ok(compile(dev, g, 1, DFX_PRECISION_INT8, &err) == DFX_EUNSUPPORTED && strstr(err.msg, "int8"),
	   "int8: %s", err.msg);
	ok(compile(dev, g, 32, DFX_PRECISION_FP32, &err) == DFX_ENOMEM && strstr(err.msg, "64 MB") &&
	       strstr(err.hint, "batch, 16"),
	   "too little memory: %s (%s)", err.msg, err.hint);
	ok(rt->blocks == 0, "and nothing is kept");
	dfx_graph_free(g);
	gpu_close(dev);
}

/* The device has less room than is allowed, or goes away during a step. */
static void
check_faults(HostRt *rt)
{
	DfxDevOpts opts = {0};
	Subject on = {.be = &host_backend, .dev = host_device(rt, &opts), .precision = DFX_PRECISION_FP32};
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	TrainSide s;
	void *in;

	dfx_build_backbone(g, &tiny_nets[0], 3, &err);
	dfx_weights_random(g, 1, &err);
	in = noise_images(g, 2, 1);
	rt->room = 1 << 20;
	ok(compile(on.dev, g, 8, DFX_PRECISION_FP32, &err) == DFX_ENOMEM && strstr(err.hint, "smaller") &&
	       rt->blocks == 0,
	   "a device without room: %s (%s)", err.msg, err.hint);
	rt->room = 0;
	if (ok(side_open(&s, &on, g, 2, &err), "a plan is made"))
	{
		rt->lose_after = rt->launches + 20;
		ok(side_pass(&s, g, in, 2, 1, &err) == DFX_ELOST, "a device that goes away: %s", err.msg);
		rt->lose_after = -1;
		ok(host_backend.backward(s.plan, 2, (const float *[DFX_MAX_OUT]){NULL}, NULL, &err) == DFX_EINVAL,
		   "nothing is kept of that step: %s", err.msg);
		ok(side_pass(&s, g, in, 2, 1, &err) == DFX_OK, "the plan itself is sound");
	}
	side_close(&s, g);
	free(in);
	dfx_graph_free(g);
	gpu_close(on.dev);
}

int
main(void)
{
	HostRt *rt = host_rt_new();

	check_refused(rt);
	check_faults(rt);
	check_golden(rt);
	check_bf16(rt);
	ok(rt->blocks == 0 && rt->graphs == 0, "all memory is given back");
	free(rt);
	return done_testing();
}
