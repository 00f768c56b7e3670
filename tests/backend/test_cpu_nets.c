/*
 * test_cpu_nets.c
 *	  Do reduced networks of every family give the oracle's results on the CPU
 *	  backend, as built and as optimised, alone, with the tri-branch head and as
 *	  a hierarchy, for any batch and number of workers?
 */
#include "nn/models.h"
#include "tests/backend/against_ref.h"
#include "tests/unit/tiny_nets.h"

/* branches: 1, 3 (with the head), or 4: a hierarchy's networks, each with a classifier of its own. */
static DfxStatus
build_net(DfxGraph *g, const DfxBackbone *bb, int branches, DfxErr *err)
{
	switch (branches)
	{
		case 1:
			return dfx_build_backbone(g, bb, 10, err);
		case 3:
			return dfx_build_trinet(g, bb, 1, err);
		default:
			return dfx_build_hierarchy(g, bb, "synthetic,real;dm,gan;a,b,c;d,e,f,g,h", err);
	}
}

static void
check_net(DfxDev *dev, const DfxBackbone *bb, int branches, bool optimised, int n)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	char what[128];
	DfxStatus st;

	snprintf(what, sizeof what, "%s, %d branch(es), %s", bb->name, branches, optimised ? "optimised" : "raw");
	st = build_net(g, bb, branches, &err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, 5, &err);
	if (st == DFX_OK && optimised)
		st = dfx_graph_optimize(g, dfx_cpu_backend.supports, dev, &err);
	if (st == DFX_OK)
		same_as_ref(dev, g, n, 2e-5, what);
	else if (!ok(false, "%s", what))
		diag("%s", err.msg);
	dfx_graph_free(g);
}

int
main(void)
{
	for (int threads = 1; threads <= 3; threads++)
	{
		static const int batch[] = {0, 1, 9,
		                            4}; /* of each number of workers: test_cpu_plan.c proves the rest */
		DfxDevOpts opts = {.threads = threads};
		DfxErr err = {0};
		DfxDev *dev = NULL;

		if (!ok(dfx_cpu_backend.open(&opts, &dev, &err) == DFX_OK, "%d worker(s) start", threads))
		{
			diag("%s", err.msg);
			return done_testing();
		}
		for (int i = 0; i < TINY_NETS; i++)
		{
			check_net(dev, &tiny_nets[i], 1, true, batch[threads]);
			if (threads == 1)
				check_net(dev, &tiny_nets[i], 1, false, 1);
			if (threads == 2)
				check_net(dev, &tiny_nets[i], 3, true, 1);
			if (threads == 3)
				check_net(dev, &tiny_nets[i], 4, true, 2);
		}
		dfx_cpu_backend.close(dev);
	}
	return done_testing();
}
