/*
 * test_cpu_plan.c
 *	  Are plans of the CPU backend what they must be: no reference kernel in any
 *	  backbone, an image's result the same to the last bit in whatever batch and
 *	  on whatever worker, bad requests refused, the right size?  In fp32, and in
 *	  bf16 where the CPU has it.
 */
#include <stdatomic.h>

#include "cpu/kernels.h"
#include "cpu/cpu.h"
#include "tests/backend/against_ref.h"
#include "tests/unit/tiny_nets.h"

static DfxDev *
open_device(int threads, _Atomic uint64_t *progress)
{
	DfxDevOpts opts = {.threads = threads, .progress = progress};
	DfxErr err = {0};
	DfxDev *dev = NULL;

	if (!ok(dfx_cpu_backend.open(&opts, &dev, &err) == DFX_OK, "a device of %d workers opens", threads))
	{
		diag("%s", err.msg);
		exit(1);
	}
	return dev;
}

/* An optimised network, its parameters set; NULL after a failed test. */
static DfxGraph *
optimised(DfxDev *dev, const DfxBackbone *bb, int branches)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxStatus st = branches == 1 ? dfx_build_backbone(g, bb, 1000, &err) : dfx_build_trinet(g, bb, 1, &err);

	if (st == DFX_OK)
		st = dfx_weights_random(g, 3, &err);
	if (st == DFX_OK)
		st = dfx_graph_optimize(g, dfx_cpu_backend.supports, dev, &err);
	if (st == DFX_OK)
		return g;
	ok(false, "%s builds", bb->name);
	diag("%s", err.msg);
	dfx_graph_free(g);
	return NULL;
}

static void
check_no_reference_kernel(DfxDev *dev, const DfxBackbone *bb, int branches, DfxPrecision precision)
{
	DfxGraph *g = optimised(dev, bb, branches);
	DfxPlanOpts opts = {.max_batch = 8, .precision = precision};
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	int library = 0, reference = 0;

	if (g == NULL)
		return;
	if (dfx_cpu_backend.compile(dev, g, &opts, &plan, &err) != DFX_OK)
		diag("%s", err.msg);
	else
		for (int i = 0; i < dfx_cpu_plan_steps(plan); i++)
		{
			const char *impl = dfx_cpu_plan_impl(plan, i);

			library += impl != NULL;
			if (impl && strstr(impl, "ref"))
			{
				reference++;
				diag("step %d: %s", i, impl);
			}
		}
	ok(plan && library > 10 && reference == 0,
	   "%s, %d branch(es), %s: %d library steps, none in reference code", bb->name, branches,
	   dfx_precision_name[precision], library);
	dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
}

/* Every image alone, in a plan for one, then together in batches of n on several workers: the same bits. */
static void
check_same_bits_in(DfxDev *dev, const DfxGraph *g, DfxPrecision precision, const char *name)
{
	enum
	{
		IMAGES = 9
	};
	static const int batches[] = {IMAGES, 7, 4, 3}; /* over 3 workers: every bucket */
	DfxPlanOpts one = {.max_batch = 1, .precision = precision},
	            opts = {.max_batch = IMAGES, .precision = precision};
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	size_t floats = graph_output_floats(g, 0);
	bool rgb8;
	size_t bytes = graph_input_bytes(g, &rgb8);
	char *in = noise_images(g, IMAGES, 99);
	float *alone = calloc(IMAGES, floats * sizeof *alone), *together = calloc(IMAGES, floats * sizeof *alone);
	DfxStatus st = dfx_cpu_backend.compile(dev, g, &one, &plan, &err);

	for (int i = 0; i < IMAGES && st == DFX_OK; i++)
	{
		float *const out[DFX_MAX_OUT] = {alone + (size_t) i * floats};

		st = dfx_cpu_backend.forward(plan, in + (size_t) i * bytes, 1, out, &err);
	}
	dfx_cpu_backend.release(plan);
	plan = NULL;
	if (st == DFX_OK)
		st = dfx_cpu_backend.compile(dev, g, &opts, &plan, &err);
	for (int i = 0; i < 4 && st == DFX_OK; i++)
	{
		int n = batches[i];
		float *const out[DFX_MAX_OUT] = {together};

		memset(together, 0, IMAGES * floats * sizeof *together);
		st = dfx_cpu_backend.forward(plan, in, n, out, &err);
		ok(memcmp(alone, together, (size_t) n * floats * sizeof *alone) == 0,
		   "%s, %s: %d images together give the bits that they give alone", name,
		   dfx_precision_name[precision], n);
	}
	if (!ok(st == DFX_OK, "%s runs", name))
		diag("%s", err.msg);
	dfx_cpu_backend.release(plan);
	free(alone);
	free(together);
	free(in);
}

static void
check_same_bits(DfxDev *dev, const DfxGraph *g, const char *name)
{
	DfxDevInfo info;

	dfx_cpu_backend.info(dev, &info);
	check_same_bits_in(dev, g, DFX_PRECISION_FP32, name);
	if (info.precision[DFX_PRECISION_BF16])
		check_same_bits_in(dev, g, DFX_PRECISION_BF16, name);
}

static void
check_requests(DfxDev *dev, DfxGraph *g)
{
	DfxPlanOpts opts = {.max_batch = 3};
	DfxPlan *plan = NULL, *none = NULL;
	DfxErr err = {0};
	float *const out[DFX_MAX_OUT] = {NULL};
	void *in = noise_images(g, 4, 1);
	size_t weights = 0;

	for (int i = 0; i < g->nparam; i++)
	{
		size_t n = sizeof(float);

		for (int d = 0; d < g->param[i].rank; d++)
			n *= (size_t) g->param[i].dim[d];
		weights += n;
	}
	ok(dfx_cpu_backend.compile(dev, g, &opts, &plan, &err) == DFX_OK, "a plan for 3 images");
	ok(dfx_cpu_backend.bytes(plan) > weights, "its bytes hold at least the weights");
	ok(dfx_cpu_backend.forward(plan, in, 3, out, &err) == DFX_OK, "3 images run, with no output wanted");
	ok(dfx_cpu_backend.forward(plan, in, 4, out, &err) == DFX_EINVAL, "4 images are refused");
	ok(dfx_cpu_backend.forward(plan, in, 0, out, &err) == DFX_EINVAL, "0 images are refused");
	dfx_cpu_backend.release(plan);

	opts.precision = DFX_PRECISION_FP16;
	ok(dfx_cpu_backend.compile(dev, g, &opts, &none, &err) == DFX_EUNSUPPORTED && strstr(err.msg, "fp16"),
	   "an unsupported precision is refused by name");
	opts = (DfxPlanOpts){.max_batch = 3, .train = true};
	ok(dfx_cpu_backend.compile(dev, g, &opts, &none, &err) == DFX_EINVAL,
	   "training an optimised graph is refused");
	opts = (DfxPlanOpts){.max_batch = 0};
	ok(dfx_cpu_backend.compile(dev, g, &opts, &none, &err) == DFX_EINVAL, "a batch of 0 is refused");
	ok(none == NULL, "no plan comes with a refusal");
	free(in);
}

/* A plan outlives its graph, and many come and go. */
static void
check_lifetimes(DfxDev *dev, _Atomic uint64_t *progress)
{
	DfxPlan *plan[3] = {NULL};
	DfxErr err = {0};
	DfxPlanOpts opts = {.max_batch = 2};
	float first[10], later[10];
	float *const out[DFX_MAX_OUT] = {NULL, first}, *const out2[DFX_MAX_OUT] = {NULL, later};
	void *in = NULL;
	uint64_t before;

	for (int i = 0; i < 3; i++)
	{
		DfxGraph *g = dfx_graph_new();

		ok(dfx_build_backbone(g, &tiny_nets[0], 10, &err) == DFX_OK &&
		       dfx_weights_random(g, 3, &err) == DFX_OK &&
		       dfx_graph_optimize(g, dfx_cpu_backend.supports, dev, &err) == DFX_OK &&
		       dfx_cpu_backend.compile(dev, g, &opts, &plan[i], &err) == DFX_OK,
		   "plan %d compiles", i);
		if (in == NULL)
			in = noise_images(g, 1, 4);
		dfx_graph_free(g);
	}
	before = atomic_load(progress);
	ok(dfx_cpu_backend.forward(plan[0], in, 1, out, &err) == DFX_OK, "a plan runs after its graph is gone");
	ok(atomic_load(progress) > before, "a run bumps the progress counter");
	dfx_cpu_backend.release(plan[0]);
	dfx_cpu_backend.release(plan[1]);
	ok(dfx_cpu_backend.forward(plan[2], in, 1, out2, &err) == DFX_OK &&
	       memcmp(first, later, sizeof first) == 0,
	   "another plan of the same network gives the same bits after the first is released");
	dfx_cpu_backend.release(plan[2]);
	free(in);
}

/* The loops for every instruction set this CPU has agree to the bit, for any number of lanes. */
static void
check_kernels(void)
{
	enum
	{
		LANES = 45,
		PIXELS = 35
	};
	static float a[LANES * PIXELS], b[LANES * PIXELS], want[3][LANES * PIXELS], got[LANES * PIXELS];
	const CpuPoolGeom geom = {.ih = 5, .iw = 7, .oh = 3, .ow = 4, .kh = 3, .kw = 3, .s = 2, .p = 1};
	uint32_t seed = 5;
	const CpuKernels *k;

	for (int i = 0; i < LANES * PIXELS; i++)
	{
		a[i] = noise(&seed);
		b[i] = noise(&seed);
	}
	for (int i = 0; (k = cpu_kernels_variant(i)) != NULL; i++)
	{
		bool same = true;

		for (int step = 0; step < 3; step++)
		{
			float *to = i == 0 ? want[step] : got;

			memset(to, 0, sizeof got);
			if (step == 0)
				k->affine(to, LANES, a, LANES, PIXELS, LANES, b, b + LANES, true);
			else if (step == 1)
				k->binary(to, LANES, a, LANES, b, LANES, PIXELS, LANES, true, false);
			else
				k->pool(to, LANES, a, LANES, LANES, &geom, false);
			same = same && memcmp(to, want[step], sizeof got) == 0;
		}
		ok(same, "kernels for %s agree with the best variant", k->name);
	}
}

int
main(void)
{
	static _Atomic uint64_t progress;
	DfxDev *dev = open_device(3, &progress);
	DfxDevInfo info;
	DfxGraph *g;
	DfxDevOpts bad = {.threads = -1};
	DfxDev *none = NULL;
	DfxErr err = {0};

	dfx_cpu_backend.info(dev, &info);
	ok(strncmp(info.name, "cpu: ", 5) == 0 && strstr(info.name, "3 threads, oneDNN "), "info: %s", info.name);
	ok(info.threads == 3 && info.precision[DFX_PRECISION_FP32] && !info.precision[DFX_PRECISION_FP16],
	   "info tells threads and precisions");
	ok(dfx_cpu_backend.open(&bad, &none, &err) == DFX_EINVAL && none == NULL, "-1 threads are refused");

	check_kernels();
	for (int i = 0; i < TINY_NETS; i++)
	{
		g = optimised(dev, &tiny_nets[i], 3);
		if (g)
			check_same_bits(dev, g, tiny_nets[i].name);
		dfx_graph_free(g);
	}
	/* The library's choices depend on sizes, so one network of each kind in full too. */
	for (int i = 0; i < 5; i++)
	{
		static const char *const full[] = {"resnet50", "densenet121", "resnext101_32x4d", "efficientnet_b0",
		                                   "vit_b_32"};

		g = optimised(dev, dfx_backbone_find(full[i]), 1);
		if (g)
			check_same_bits(dev, g, full[i]);
		dfx_graph_free(g);
	}
	g = optimised(dev, &tiny_nets[2], 1);
	if (g)
		check_requests(dev, g);
	dfx_graph_free(g);
	check_lifetimes(dev, &progress);
	dfx_cpu_backend.close(dev);

	dev = open_device(1, NULL);
	for (int i = 0; i < dfx_nbackbones; i++)
	{
		check_no_reference_kernel(dev, &dfx_backbones[i], 1, DFX_PRECISION_FP32);
		check_no_reference_kernel(dev, &dfx_backbones[i], 3, DFX_PRECISION_FP32);
		if (info.precision[DFX_PRECISION_BF16])
			check_no_reference_kernel(dev, &dfx_backbones[i], 3, DFX_PRECISION_BF16);
	}
	dfx_cpu_backend.close(dev);
	return done_testing();
}
