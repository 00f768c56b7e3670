/*
 * backbone.c
 *	  The table of backbones, and a lone backbone as a graph.
 *
 * A new member of a family is one line here.  Names, depths and widths are
 * torchvision's (0.14).
 */
#include "nn/families.h"

#include <string.h>

#define BACKBONE_DENSENET(d, growth, stem, ...)                                                              \
	.family = "densenet", .features = (d), .input_size = 256, .build = dfx_densenet,                         \
	.config = &(const DfxDensenet)                                                                           \
	{                                                                                                        \
		(growth), (stem),                                                                                    \
		{                                                                                                    \
			__VA_ARGS__                                                                                      \
		}                                                                                                    \
	}
#define BACKBONE_RESNET(fam, d, deep, groups, width, ...)                                                    \
	.family = (fam), .features = (d), .input_size = 256, .build = dfx_resnet, .config = &(const DfxResnet)   \
	{                                                                                                        \
		{__VA_ARGS__}, (deep), 64, (groups), (width)                                                         \
	}

const DfxBackbone dfx_backbones[] = {
    {"densenet121", BACKBONE_DENSENET(1024, 32, 64, 6, 12, 24, 16)},
    {"densenet161", BACKBONE_DENSENET(2208, 48, 96, 6, 12, 36, 24)},
    {"densenet169", BACKBONE_DENSENET(1664, 32, 64, 6, 12, 32, 32)},
    {"densenet201", BACKBONE_DENSENET(1920, 32, 64, 6, 12, 48, 32)},
    {"resnet18", BACKBONE_RESNET("resnet", 512, false, 1, 64, 2, 2, 2, 2)},
    {"resnet34", BACKBONE_RESNET("resnet", 512, false, 1, 64, 3, 4, 6, 3)},
    {"resnet50", BACKBONE_RESNET("resnet", 2048, true, 1, 64, 3, 4, 6, 3)},
    {"resnet101", BACKBONE_RESNET("resnet", 2048, true, 1, 64, 3, 4, 23, 3)},
    {"resnet152", BACKBONE_RESNET("resnet", 2048, true, 1, 64, 3, 8, 36, 3)},
    {"resnext101_32x4d", BACKBONE_RESNET("resnext", 2048, true, 32, 4, 3, 4, 23, 3)},
    {"resnext101_32x8d", BACKBONE_RESNET("resnext", 2048, true, 32, 8, 3, 4, 23, 3)},
};
const int dfx_nbackbones = sizeof dfx_backbones / sizeof dfx_backbones[0];

const DfxBackbone *
dfx_backbone_find(const char *name)
{
	for (int i = 0; i < dfx_nbackbones; i++)
		if (strcmp(dfx_backbones[i].name, name) == 0)
			return &dfx_backbones[i];
	return NULL;
}

DfxStatus
dfx_build_backbone(DfxGraph *g, const DfxBackbone *b, int nclass, DfxErr *err)
{
	DfxVal features = -1;
	DfxVal logits = b->build(g, b, dfx_input_rgb8(g, b->input_size, b->input_size), nclass, &features);

	dfx_output(g, features, "features");
	if (nclass > 0)
		dfx_output(g, logits, "logits");
	return dfx_graph_finish(g, err);
}
