/*
 * densenet.c
 *	  DenseNet, with torchvision's parameter names.
 *
 * A layer reads the channel concat of all pieces before it in its block.  The
 * graph says so with one CONCAT a layer over the same growing list of pieces;
 * dfx_graph_optimize turns all of them into ranges of one buffer.
 */
#include "nn/families.h"
#include "nn/graph_priv.h"

#include <stdlib.h>

#define DENSENET_BN_SIZE 4 /* a bottleneck has this many times growth channels */

static DfxVal
densenet_norm_relu(DfxGraph *g, DfxVal x, const char *name)
{
	return dfx_act(g, dfx_bn(g, x, name, DFX_BN_EPS), DFX_ACT_RELU);
}

/* Two bottleneck convolutions, each after its own normalisation: growth new channels. */
static DfxVal
densenet_layer(DfxGraph *g, DfxVal x, int growth)
{
	x = densenet_norm_relu(g, x, "norm1");
	x = dfx_conv(g, x, "conv1", DENSENET_BN_SIZE * growth, DFX_CONV2D(1, 1, 0), false);
	x = densenet_norm_relu(g, x, "norm2");
	return dfx_conv(g, x, "conv2", growth, DFX_CONV2D(3, 1, 1), false);
}

/* depth layers; the result is the concat of the input and all that they add. */
static DfxVal
densenet_block(DfxGraph *g, DfxVal x, int depth, int growth)
{
	DfxVal *piece = malloc(((size_t) depth + 1) * sizeof *piece);

	if (piece == NULL)
	{
		dfx_graph_fail(g, DFX_ENOMEM, "", "out of memory for the graph");
		return -1;
	}
	piece[0] = x;
	for (int i = 0; i < depth; i++)
	{
		int mark = dfx_push(g, "denselayer%d", i + 1);

		piece[i + 1] = densenet_layer(g, dfx_concat(g, piece, i + 1), growth);
		dfx_pop(g, mark);
	}
	x = dfx_concat(g, piece, depth + 1);
	free(piece);
	return x;
}

/* Half the channels, half the height and width. */
static DfxVal
densenet_transition(DfxGraph *g, DfxVal x)
{
	x = densenet_norm_relu(g, x, "norm");
	x = dfx_conv(g, x, "conv", dfx_channels(g, x) / 2, DFX_CONV2D(1, 1, 0), false);
	return dfx_pool(g, x, (DfxPool){.k = 2, .s = 2, .avg = true});
}

/* x: 3 x H x W.  b->config is a DfxDensenet; the classifier is torchvision's "classifier". */
DfxVal
dfx_densenet(DfxGraph *g, const DfxBackbone *b, DfxVal x, int nclass, DfxVal *features)
{
	const DfxDensenet *d = b->config;
	int mark = dfx_push(g, "features");

	x = dfx_conv(g, x, "conv0", d->stem, DFX_CONV2D(7, 2, 3), false);
	x = densenet_norm_relu(g, x, "norm0");
	x = dfx_pool(g, x, (DfxPool){.k = 3, .s = 2, .p = 1});
	for (int i = 0; i < 4; i++)
	{
		int inner = dfx_push(g, "denseblock%d", i + 1);

		x = densenet_block(g, x, d->depth[i], d->growth);
		dfx_pop(g, inner);
		if (i == 3)
			break;
		inner = dfx_push(g, "transition%d", i + 1);
		x = densenet_transition(g, x);
		dfx_pop(g, inner);
	}
	x = densenet_norm_relu(g, x, "norm5");
	dfx_pop(g, mark);

	x = *features = dfx_pool(g, x, (DfxPool){.avg = true});
	return nclass > 0 ? dfx_linear(g, x, "classifier", nclass) : x;
}
