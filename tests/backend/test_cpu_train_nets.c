/*
 * test_cpu_train_nets.c
 *	  Do whole reduced networks train on the CPU backend as on the oracle, in
 *	  fp32 and, where the CPU has it, in bf16?
 *
 * In bf16 what is compared is the direction of the step, all gradients as one
 * vector.  PyTorch's autocast is as far off (cosines of 0.94 to 0.98 with 4
 * images, a difference of 0.2 to 0.35): rounding passes through ReLUs and
 * through BatchNorms of few numbers.
 */
#include "tests/backend/train_against_ref.h"
#include "tests/unit/tiny_nets.h"

static DfxDev *dev;

/* No BatchNorm, no ReLU: a transformer has rounding of its own only. */
static TrainTolerance
tolerance_bf16(const DfxBackbone *b)
{
	double grad = strcmp(b->family, "vit") == 0 ? 4e-2 : 0.6;

	return (TrainTolerance){.out = 8e-2, .grad = grad, .precision = DFX_PRECISION_BF16, .whole = true};
}

static void
check_net(const DfxBackbone *b, int n, int max, TrainTolerance t)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};

	if (dfx_build_backbone(g, b, 5, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK)
		trains_as_ref(dev, g, max, n, t, b->name);
	else if (!ok(false, "%s", b->name))
		diag("%s", err.msg);
	dfx_graph_free(g);
}

int
main(int argc, char **argv)
{
	DfxDevOpts opts = {.threads = 2};
	DfxErr err = {0};
	bool bf16;

	if (!ok(dfx_cpu_backend.open(&opts, &dev, &err) == DFX_OK, "the device opens"))
		return done_testing();
	bf16 = trains_in(dev, DFX_PRECISION_BF16);
	for (int i = 0; i < TINY_NETS; i++)
		if (argc < 2 || strcmp(argv[1], tiny_nets[i].name) == 0)
		{
			check_net(&tiny_nets[i], 4, 4, (TrainTolerance){1e-4, 1e-3});
			check_net(&tiny_nets[i], 3, 5, (TrainTolerance){1e-4, 1e-3});
			if (bf16)
				check_net(&tiny_nets[i], 16, 17, tolerance_bf16(&tiny_nets[i]));
		}
	dfx_cpu_backend.close(dev);
	return done_testing();
}
