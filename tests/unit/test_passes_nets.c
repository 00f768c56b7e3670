/*
 * test_passes_nets.c
 *	  Do whole networks keep their outputs under dfx_graph_optimize, lose the
 *	  ops they should, and take no noticeable time?
 */
#include <time.h>

#include "tests/unit/raw_vs_optimised.h"
#include "tests/unit/tiny_nets.h"

/* ---- whole networks ---- */

static void
check_networks(void)
{
	char name[64];

	for (int i = 0; i < TINY_NETS; i++)
		for (int stride = 0; stride <= 2; stride++)
		{
			/* The head costs the oracle seconds on a long feature vector and is the same for all. */
			if (stride > 0 && tiny_nets[i].features > 70)
				continue;

			snprintf(name, sizeof name, "%s, head stride %d", tiny_nets[i].name, stride);
			check(&(Subject){.name = name, .backbone = &tiny_nets[i], .head_stride = stride}, NULL);
		}
}

/* All pieces of a DenseNet block lie in one buffer, side by side. */
static void
check_densenet(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err;
	int affines = 0, apart = 0, left = 0;

	if (dfx_build_backbone(g, dfx_backbone_find("densenet121"), 0, &err) != DFX_OK ||
	    dfx_weights_random(g, 1, &err) != DFX_OK || dfx_graph_optimize(g, supports_all, NULL, &err) != DFX_OK)
	{
		ok(false, "%s", err.msg);
		return;
	}
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];
		int c = 0;

		left += op->kind == DFX_OP_CONCAT || op->kind == DFX_OP_BN || op->kind == DFX_OP_ACT;
		affines += op->kind == DFX_OP_AFFINE;
		for (int j = 0; j < op->nin && op->kind == DFX_OP_AFFINE; j++)
		{
			apart += g->val[op->in[j]].root != g->val[op->in[0]].root || g->val[op->in[j]].c0 != c;
			c += g->val[op->in[j]].c;
		}
	}
	ok(affines == 58 + 4 && apart == 0 && left == 0,
	   "densenet121: %d affines, all pieces side by side, no bn, relu or concat left", affines);
	ok(dfx_graph_flops(g) < 6.9e9, "densenet121: pooling before the transitions saves 8 %% (%.3g GFLOP)",
	   dfx_graph_flops(g) / 1e9);
	dfx_graph_free(g);
}

/* Linear time: the largest network's 2133 ops take milliseconds plus one pass over the weights. */
static void
check_time(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	clock_t start;
	double ms;
	DfxStatus st = dfx_build_trinet(g, dfx_backbone_find("densenet201"), 1, &err);

	if (st == DFX_OK)
		st = dfx_weights_random(g, 1, &err);
	start = clock();
	if (st == DFX_OK)
		st = dfx_graph_optimize(g, supports_all, NULL, &err);
	ms = (double) (clock() - start) * 1e3 / CLOCKS_PER_SEC;
	ok(st == DFX_OK && ms < 1000, "the tri-branch densenet201 is optimised in %.0f ms of CPU", ms);
	dfx_graph_free(g);
}

int
main(void)
{
	check_networks();
	check_densenet();
	check_time();
	return done_testing();
}
