/*
 * net_cases.h
 *	  A reduced network of any family, on any backend, against the oracle.
 */
#ifndef DFX_TESTS_NET_CASES_H
#define DFX_TESTS_NET_CASES_H

#include "nn/models.h"
#include "tests/backend/against_ref.h"
#include "tests/unit/tiny_nets.h"

/* branches: 1, 3 (with the head), or 4: a hierarchy's networks, each with a classifier of its own. */
__attribute__((unused)) static DfxStatus
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

/* As built, or as optimised for the backend. */
__attribute__((unused)) static void
check_net(const Subject *on, const DfxBackbone *bb, int branches, bool optimised, int n)
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
		st = dfx_graph_optimize(g, on->be->supports, on->dev, &err);
	if (st == DFX_OK)
		same_as_ref(on, g, n, 2e-5, what);
	else if (!ok(false, "%s", what))
		diag("%s", err.msg);
	dfx_graph_free(g);
}

#endif /* DFX_TESTS_NET_CASES_H */
