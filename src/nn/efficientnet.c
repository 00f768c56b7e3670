/*
 * efficientnet.c
 *	  EfficientNet (the first version), with torchvision's parameter names.
 *
 * Every member is the same seven stages, scaled: channels by a width factor
 * and rounded to multiples of 8, layers by a depth factor and rounded up.  Its
 * block is an inverted residual: 1x1 up, depthwise k x k, a gate a channel
 * (squeeze and excitation), 1x1 down.  A block's parts are numbered by their
 * place, so without the first convolution the others move up by one.
 */
#include "nn/families.h"

#include <math.h>

#define EFFICIENTNET_DIVISOR 8 /* channels are multiples of this */
#define EFFICIENTNET_SQUEEZE                                                                                 \
	4                            /* the gate's inner layer has this many times fewer channels than the input \
	                              */
#define EFFICIENTNET_LAST      4 /* the last convolution has this many times the channels before it */
#define EFFICIENTNET_DROP_PATH 0.2 /* of the last block; growing from 0 at the first */

/* Tan, Le, "EfficientNet", ICML 2019, table 1. */
static const struct Stage
{
	int expand, kernel, stride, channels, layers;
} efficientnet_stage[] = {
    {1, 3, 1, 16, 1},  {6, 3, 2, 24, 2},  {6, 5, 2, 40, 2},  {6, 3, 2, 80, 3},
    {6, 5, 1, 112, 3}, {6, 5, 2, 192, 4}, {6, 3, 1, 320, 1},
};
enum
{
	EFFICIENTNET_STAGES = sizeof efficientnet_stage / sizeof efficientnet_stage[0],
	EFFICIENTNET_STEM = 32
};

/* The nearest multiple of 8, not less than nine tenths. */
static int
efficientnet_width(const DfxEfficientnet *e, int channels)
{
	double want = channels * e->width;
	int c = (int) (want + EFFICIENTNET_DIVISOR / 2.0) / EFFICIENTNET_DIVISOR * EFFICIENTNET_DIVISOR;

	if (c < EFFICIENTNET_DIVISOR)
		c = EFFICIENTNET_DIVISOR;
	return c < 0.9 * want ? c + EFFICIENTNET_DIVISOR : c;
}

static int
efficientnet_depth(const DfxEfficientnet *e, int layers)
{
	return (int) ceil(layers * e->depth);
}

/* Convolution and BatchNorm, the children 0 and 1 of the part numbered by part. */
static DfxVal
efficientnet_conv(DfxGraph *g, DfxVal x, int part, int cout, DfxConv a)
{
	int mark = dfx_push(g, "%d", part);

	x = dfx_bn(g, dfx_conv(g, x, "0", cout, a, false), "1", DFX_BN_EPS);
	dfx_pop(g, mark);
	return x;
}

static DfxVal
efficientnet_silu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_SILU);
}

/* x times a factor a channel, made from the channels' means. */
static DfxVal
efficientnet_gate(DfxGraph *g, DfxVal x, int part, int squeezed)
{
	int mark = dfx_push(g, "%d", part);
	DfxVal s = dfx_pool(g, x, (DfxPool){.avg = true});

	s = efficientnet_silu(g, dfx_conv(g, s, "fc1", squeezed, DFX_CONV2D(1, 1, 0), true));
	s = dfx_conv(g, s, "fc2", dfx_channels(g, x), DFX_CONV2D(1, 1, 0), true);
	dfx_pop(g, mark);
	return dfx_mul(g, x, dfx_act(g, s, DFX_ACT_SIGMOID));
}

/* drop: the probability that training skips the block of an image. */
static DfxVal
efficientnet_block(DfxGraph *g, DfxVal x, const struct Stage *st, int stride, int cout, float drop)
{
	int cin = dfx_channels(g, x), part = 0;
	DfxConv depthwise = DFX_CONV2D(st->kernel, stride, st->kernel / 2);
	DfxVal y = x;

	if (st->expand != 1)
		y = efficientnet_silu(g, efficientnet_conv(g, y, part++, cin * st->expand, DFX_CONV2D(1, 1, 0)));
	depthwise.groups = cin * st->expand;
	y = efficientnet_silu(g, efficientnet_conv(g, y, part++, cin * st->expand, depthwise));
	y = efficientnet_gate(g, y, part++, cin / EFFICIENTNET_SQUEEZE);
	y = efficientnet_conv(g, y, part, cout, DFX_CONV2D(1, 1, 0));
	return stride == 1 && cin == cout ? dfx_add(g, dfx_drop_path(g, y, drop), x) : y;
}

/* x: 3 x H x W.  b->config is a DfxEfficientnet; the classifier is torchvision's "classifier.1". */
DfxVal
dfx_efficientnet(DfxGraph *g, const DfxBackbone *b, DfxVal x, int nclass, DfxVal *features)
{
	const DfxEfficientnet *e = b->config;
	int outer = dfx_push(g, "features"), blocks = 0, block = 0;

	for (int i = 0; i < EFFICIENTNET_STAGES; i++)
		blocks += efficientnet_depth(e, efficientnet_stage[i].layers);
	x = efficientnet_conv(g, x, 0, efficientnet_width(e, EFFICIENTNET_STEM), DFX_CONV2D(3, 2, 1));
	x = efficientnet_silu(g, x);
	for (int i = 0; i < EFFICIENTNET_STAGES; i++)
	{
		const struct Stage *st = &efficientnet_stage[i];

		for (int j = 0; j < efficientnet_depth(e, st->layers); j++)
		{
			int mark = dfx_push(g, "%d.%d.block", i + 1, j);

			x = efficientnet_block(g, x, st, j == 0 ? st->stride : 1, efficientnet_width(e, st->channels),
			                       (float) (EFFICIENTNET_DROP_PATH * block++ / blocks));
			dfx_pop(g, mark);
		}
	}
	x = efficientnet_conv(g, x, EFFICIENTNET_STAGES + 1, EFFICIENTNET_LAST * dfx_channels(g, x),
	                      DFX_CONV2D(1, 1, 0));
	x = efficientnet_silu(g, x);
	dfx_pop(g, outer);

	x = *features = dfx_pool(g, x, (DfxPool){.avg = true});
	return nclass > 0 ? dfx_linear(g, dfx_drop(g, x, e->dropout), "classifier.1", nclass) : x;
}
