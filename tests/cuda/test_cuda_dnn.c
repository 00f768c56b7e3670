/*
 * test_cuda_dnn.c
 *	  Does cuDNN make plans for the convolutions of our networks, as we describe
 *	  them, on an H100, those of training included; and can a plan be made again
 *	  from what it was saved as?
 *
 * No GPU is needed: cuDNN is given a description of one and a driver that only
 * pretends (stub/driver.c).  Nothing runs, so nothing is said about results.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/load.h"
#include "cuda/train.h"
#include "tests/cuda/host_rt.h"
#include "tests/cuda/stub_path.h"
#include "tests/unit/tap.h"
#include "tests/unit/train_net.h"

static const char h100[] =
    "{\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,"
    "\"multiProcessorCount\":132,\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152,"
    "\"maxSharedMemoryPerBlockOptin\":232448,\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":"
    "65536,"
    "\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,"
    "\"isTccDriver\":0,"
    "\"supportCoopLaunch\":1,\"totalGlobalMem\":85017755648,\"smClockRateKHz\":1980000,"
    "\"memClockRateKHz\":2619000,\"l2CacheSize\":52428800,\"cudaDeviceId\":0,\"deviceVer\":900,\"driverVer\":"
    "13000,"
    "\"deviceName\":\"NVIDIA H100 80GB HBM3\"}";

static const struct
{
	const char *what;
	int n, hw, ci, ldx, co, ldy, k, s, groups;
	bool add, relu;
	enum
	{
		PRE_NONE = 0,
		PRE_AFFINE,
		PRE_AFFINE_RELU
	} pre;
} conv[] = {
    {"ResNet's 3x3", 8, 64, 64, 64, 64, 64, 3, 1, 1, false, true},
    {"ResNet's 3x3 onto a residual", 8, 64, 64, 64, 64, 64, 3, 1, 1, true, true},
    {"ResNet's down-sampling 1x1", 8, 64, 256, 256, 512, 512, 1, 2, 1, false, false},
    {"DenseNet's 3x3 into a block's channels", 8, 64, 128, 128, 32, 256, 3, 1, 1, false, false},
    {"a stem of 3 channels padded to 8", 8, 256, 8, 8, 64, 64, 7, 2, 1, false, true},
    {"ResNeXt's 3x3 in 32 groups", 8, 32, 1024, 1024, 1024, 1024, 3, 1, 32, false, true},
    {"a single image", 1, 16, 256, 256, 256, 256, 3, 1, 1, false, true},
    {"DenseNet's BN, ReLU, 1x1 on some of a block's channels, ReLU", 64, 64, 192, 256, 128, 128, 1, 1, 1,
     false, true, PRE_AFFINE_RELU},
    {"that for a single image", 1, 64, 192, 256, 128, 128, 1, 1, 1, false, true, PRE_AFFINE_RELU},
    {"BN and ReLU before a transition's 1x1", 64, 32, 512, 512, 256, 256, 1, 1, 1, false, false,
     PRE_AFFINE_RELU},
    {"BN without ReLU before a 1x1 onto a residual", 8, 16, 64, 64, 64, 96, 1, 1, 1, true, true, PRE_AFFINE},
};

/* Any address: nothing runs. */
static const float numbers[4] __attribute__((aligned(16)));

static GpuConvArgs
conv_args(size_t i)
{
	int out = (conv[i].hw + 2 * (conv[i].k / 2) - conv[i].k) / conv[i].s + 1;
	GpuConvArgs a = {.ci = conv[i].ci,
	                 .co = conv[i].co,
	                 .ldx = conv[i].ldx,
	                 .ldy = conv[i].ldy,
	                 .ih = conv[i].hw,
	                 .iw = conv[i].hw,
	                 .oh = out,
	                 .ow = out,
	                 .kh = conv[i].k,
	                 .kw = conv[i].k,
	                 .sh = conv[i].s,
	                 .sw = conv[i].s,
	                 .ph = conv[i].k / 2,
	                 .pw = conv[i].k / 2,
	                 .groups = conv[i].groups};

	if (conv[i].add)
	{
		a.epi.add = numbers;
		a.epi.ldadd = conv[i].ldy;
	}
	a.epi.act = conv[i].relu ? GPU_ACT_RELU : GPU_ACT_NONE;
	if (conv[i].pre != PRE_NONE)
	{
		a.pre_scale = a.pre_shift = numbers;
		a.pre_act = conv[i].pre == PRE_AFFINE_RELU ? GPU_ACT_RELU : GPU_ACT_NONE;
	}
	return a;
}

static void
check_plan(GpuLib *lib, size_t i, GpuType type)
{
	static const char *const name[] = {"fp32", "fp16", "bf16"};
	GpuConvArgs a = conv_args(i);
	GpuProduct p = {0};
	void *plan = NULL, *again = NULL;
	char *saved = NULL;
	DfxErr err = {0};

	if (!ok(lib->ops->fits(&a, type) &&
	            lib->ops->build(lib, &a, &p, type, conv[i].n, "", &plan, &err) == DFX_OK,
	        "a plan for %s, %s", conv[i].what, name[type]))
	{
		diag("%s", err.msg);
		return;
	}
	saved = lib->ops->save(lib, plan);
	if (!ok(saved && lib->ops->build(lib, &a, &p, type, conv[i].n, saved, &again, &err) == DFX_OK,
	        "and again from %zu bytes", saved ? strlen(saved) : 0))
		diag("%s", err.msg);
	lib->ops->drop(lib, plan);
	if (again)
		lib->ops->drop(lib, again);
	free(saved);
}

/* What it must not be asked for: its graph has nothing of the kind, or cuBLASLt does it. */
static void
check_unfit(GpuLib *lib)
{
	size_t i = 0;
	GpuConvArgs a;

	while (conv[i].pre != PRE_AFFINE_RELU)
		i++;
	a = conv_args(i);
	a.pre_act = GPU_ACT_SILU;
	ok(!lib->ops->fits(&a, GPU_F16), "a prologue with SiLU is not for it");
	a = conv_args(i);
	a.pre_shift = numbers + 1;
	ok(!lib->ops->fits(&a, GPU_F16), "nor one whose numbers are not aligned");
	a = conv_args(i);
	a.kh = a.kw = 3;
	a.ph = a.pw = 1;
	ok(!lib->ops->fits(&a, GPU_F16), "nor one with padding");
	a = conv_args(i);
	ok(!lib->ops->fits(&a, GPU_F32), "nor one in fp32");
	a.pre_scale = a.pre_shift = NULL;
	ok(!lib->ops->fits(&a, GPU_F16), "nor is a 1x1 without a prologue");
}

/* ---- training ---- */

enum
{
	TRAIN_BATCH = 32,
	TRAIN_SHAPES = 64
};

/* Plans for the products of a list that are cuDNN's, each shape once; how many it refuses. */
static int
plan_list(GpuLib *lib, const GpuTrainList *list, int *made)
{
	static char seen[TRAIN_SHAPES][GPU_DESCRIBE];
	int nseen = 0, refused = 0;

	for (int i = 0; i < list->n; i++)
	{
		const GpuTrainStep *s = &list->step[i];
		GpuStep as = {.kernel = s->kernel, .count = 1, .args = {s->args}};
		char line[GPU_DESCRIBE];
		void *plan = NULL;
		bool again = false;
		DfxErr err;

		if (!s->product.w || s->args.conv.epi.add || !lib->ops->fits(&s->args.conv, GPU_BF16))
			continue;
		gpu_step_describe(&as, line, sizeof line);
		for (int k = 0; k < nseen; k++)
			again = again || strcmp(seen[k], line) == 0;
		if (again || nseen == TRAIN_SHAPES)
			continue;
		memcpy(seen[nseen++], line, sizeof line);
		if (lib->ops->build(lib, &s->args.conv, &s->product, GPU_BF16, TRAIN_BATCH, "", &plan, &err) ==
		    DFX_OK)
		{
			lib->ops->drop(lib, plan);
			++*made;
		}
		else
		{
			refused++;
			diag("%s: %s", line, err.msg);
		}
	}
	return refused;
}

/* Shapes do not depend on the batch, so that of the plan itself is small. */
static void
check_training(GpuLib *lib, const char *name)
{
	HostRt *rt = host_rt_new();
	DfxDevOpts opts = {0};
	DfxDev *dev = host_device(rt, &opts);
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxPlan *plan = NULL;
	int forward = 0, backward = 0, refused = 0;

	if (dfx_build_backbone(g, dfx_backbone_find(name), 2, &err) == DFX_OK &&
	    dfx_weights_random(g, 1, &err) == DFX_OK)
		plan = train_compile_in(DFX_PRECISION_BF16, &host_backend, dev, g, 1, &err);
	if (plan)
	{
		refused += plan_list(lib, &plan->train->forward, &forward);
		refused += plan_list(lib, &plan->train->backward, &backward);
		gpu_release(plan);
	}
	ok(plan && refused == 0 && forward > 3 && backward > 2,
	   "training of %s at %d: plans for %d shapes forward, for %d backward", name, TRAIN_BATCH, forward,
	   backward);
	dfx_graph_free(g);
	gpu_close(dev);
	free(rt);
}

int
main(int argc, char **argv)
{
	GpuLib *lib = NULL;
	GpuConvArgs a = conv_args(0);
	GpuProduct p = {0};
	void *plan = NULL;
	DfxErr err = {0};

	(void) argc;
	if (!ok(load_stub(argv[0], "libcuda.so.1"), "the driver that is none loads"))
	{
		diag("%s", dlerror());
		return done_testing();
	}
	if (gpu_load_libraries(&err) != DFX_OK)
	{
		printf("1..0 # SKIP %s\n", err.msg);
		return 0;
	}
	if (!ok(gpu_dnn_open_described(h100, &lib, &err) == DFX_OK, "cuDNN opens on a description"))
	{
		diag("%s", err.msg);
		return done_testing();
	}
	for (size_t i = 0; i < sizeof conv / sizeof conv[0]; i++)
		for (GpuType type = GPU_F16; type <= GPU_BF16; type++)
			if (type == GPU_F16 || i < 2 || conv[i].pre != PRE_NONE)
				check_plan(lib, i, type);
	check_unfit(lib);
	check_training(lib, "resnet18");
	check_training(lib, "densenet121");
	ok(lib->ops->build(lib, &a, &p, GPU_F16, 8, "{\"not\":\"a plan\"}", &plan, &err) == DFX_EUNSUPPORTED &&
	       !plan && strstr(err.msg, "a kept plan"),
	   "a plan that was spoilt is refused");
	a.oh = a.ow = 5;
	ok(lib->ops->build(lib, &a, &p, GPU_F16, 8, "", &plan, &err) == DFX_EUNSUPPORTED && !plan && err.msg[0],
	   "so is a convolution that is none: %s", err.msg);
	lib->ops->close(lib);
	ok(gpu_dnn_open_described("{}", &lib, &err) != DFX_OK, "so is a device that is none");
	return done_testing();
}
