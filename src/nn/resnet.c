/*
 * resnet.c
 *	  ResNet and ResNeXt (torchvision's version, with a bottleneck's stride on
 *	  its 3x3), with torchvision's parameter names.
 */
#include "nn/families.h"

static DfxVal
resnet_conv_bn(DfxGraph *g, DfxVal x, const char *conv, const char *bn, int cout, DfxConv a)
{
	return dfx_bn(g, dfx_conv(g, x, conv, cout, a, false), bn, DFX_BN_EPS);
}

static DfxVal
resnet_relu(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_RELU);
}

/* Two 3x3. */
static DfxVal
resnet_basic(DfxGraph *g, DfxVal x, int planes, int stride)
{
	x = resnet_relu(g, resnet_conv_bn(g, x, "conv1", "bn1", planes, DFX_CONV2D(3, stride, 1)));
	return resnet_conv_bn(g, x, "conv2", "bn2", planes, DFX_CONV2D(3, 1, 1));
}

/* 1x1 down to width, (grouped) 3x3, 1x1 up to four times planes. */
static DfxVal
resnet_bottleneck(DfxGraph *g, const DfxResnet *r, DfxVal x, int planes, int stride)
{
	int width = planes * r->width / 64 * r->groups;
	DfxConv middle = DFX_CONV2D(3, stride, 1);

	middle.groups = r->groups;
	x = resnet_relu(g, resnet_conv_bn(g, x, "conv1", "bn1", width, DFX_CONV2D(1, 1, 0)));
	x = resnet_relu(g, resnet_conv_bn(g, x, "conv2", "bn2", width, middle));
	return resnet_conv_bn(g, x, "conv3", "bn3", planes * 4, DFX_CONV2D(1, 1, 0));
}

/* The residual branch plus the input, which is projected where the shape changes. */
static DfxVal
resnet_block(DfxGraph *g, const DfxResnet *r, DfxVal x, int planes, int stride)
{
	DfxVal skip = x;
	int cin = dfx_channels(g, x);
	DfxVal y =
	    r->bottleneck ? resnet_bottleneck(g, r, x, planes, stride) : resnet_basic(g, x, planes, stride);

	if (stride != 1 || cin != dfx_channels(g, y))
		skip = resnet_conv_bn(g, x, "downsample.0", "downsample.1", dfx_channels(g, y),
		                      DFX_CONV2D(1, stride, 0));
	return resnet_relu(g, dfx_add(g, y, skip));
}

/* x: 3 x H x W.  b->config is a DfxResnet; the classifier is torchvision's "fc". */
DfxVal
dfx_resnet(DfxGraph *g, const DfxBackbone *b, DfxVal x, int nclass, DfxVal *features)
{
	const DfxResnet *r = b->config;

	x = resnet_relu(g, resnet_conv_bn(g, x, "conv1", "bn1", r->planes, DFX_CONV2D(7, 2, 3)));
	x = dfx_pool(g, x, (DfxPool){.k = 3, .s = 2, .p = 1});
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < r->depth[i]; j++)
		{
			int mark = dfx_push(g, "layer%d.%d", i + 1, j);

			x = resnet_block(g, r, x, r->planes << i, i > 0 && j == 0 ? 2 : 1);
			dfx_pop(g, mark);
		}
	x = *features = dfx_pool(g, x, (DfxPool){.avg = true});
	return nclass > 0 ? dfx_linear(g, x, "fc", nclass) : x;
}
