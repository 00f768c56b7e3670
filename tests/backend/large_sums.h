/*
 * large_sums.h
 *	  A network whose sums fp16 cannot hold: some 1e5 in the middle, small
 *	  numbers at the end.
 *
 * With relu there are two ReLUs between, the second of which gets sums of
 * infinities of both signs and must not make numbers of them: the guard of
 * fp16 looks at the end.
 */
#ifndef DFX_TESTS_BACKEND_LARGE_SUMS_H
#define DFX_TESTS_BACKEND_LARGE_SUMS_H

#include <stdlib.h>

#include "nn/backend.h"

/* The first weights are multiplied by weight, the last divided by it; optimised for a backend. */
static DfxGraph *
large_sums(DfxSupports supports, DfxDev *dev, float weight, bool relu)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_input_f32(g, 64, 4, 4);
	DfxParam *first, *last;
	DfxErr err;

	x = dfx_conv(g, x, "up", 64, DFX_CONV2D(1, 1, 0), false);
	if (relu)
	{
		x = dfx_conv(g, dfx_act(g, x, DFX_ACT_RELU), "1x1", 64, DFX_CONV2D(1, 1, 0), false);
		x = dfx_conv(g, dfx_act(g, x, DFX_ACT_RELU), "3x3", 64, DFX_CONV2D(3, 1, 1), false);
		x = dfx_act(g, x, DFX_ACT_RELU);
	}
	dfx_output(g, dfx_conv(g, x, "down", 8, DFX_CONV2D(1, 1, 0), false), "out");
	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 3, &err) != DFX_OK)
		abort();
	first = &g->param[0];
	last = &g->param[g->nparam - 1];
	for (size_t i = 0; i < dfx_param_count(first); i++)
		first->data[i] *= weight;
	for (size_t i = 0; i < dfx_param_count(last); i++)
		last->data[i] /= weight;
	if (dfx_graph_optimize(g, supports, dev, &err) != DFX_OK)
		abort();
	return g;
}

#endif /* DFX_TESTS_BACKEND_LARGE_SUMS_H */
