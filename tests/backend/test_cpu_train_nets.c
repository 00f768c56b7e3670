/*
 * test_cpu_train_nets.c
 *	  Do whole reduced networks train on the CPU backend as on the oracle?
 */
#include "tests/backend/train_against_ref.h"
#include "tests/unit/tiny_nets.h"

static DfxDev *dev;

static void
check_net(const DfxBackbone *b, int n, int max)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};

	if (dfx_build_backbone(g, b, 5, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK)
		trains_as_ref(dev, g, max, n, (TrainTolerance){1e-4, 1e-3}, b->name);
	else if (!ok(false, "%s", b->name))
		diag("%s", err.msg);
	dfx_graph_free(g);
}

int
main(int argc, char **argv)
{
	DfxDevOpts opts = {.threads = 2};
	DfxErr err = {0};

	if (!ok(dfx_cpu_backend.open(&opts, &dev, &err) == DFX_OK, "the device opens"))
		return done_testing();
	for (int i = 0; i < TINY_NETS; i++)
		if (argc < 2 || strcmp(argv[1], tiny_nets[i].name) == 0)
		{
			check_net(&tiny_nets[i], 4, 4);
			check_net(&tiny_nets[i], 3, 5);
		}
	dfx_cpu_backend.close(dev);
	return done_testing();
}
