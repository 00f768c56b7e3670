/*
 * backbone.c
 *	  The table of backbones, and a lone backbone as a graph.
 *
 * A new member of a family is one line here.  Names, depths and widths are
 * torchvision's (0.14).
 */
#include "nn/families.h"

#include <string.h>

/* growth, stem, layers of the four blocks */
#define DENSENET(...)                                                                                        \
	dfx_densenet, &(const DfxDensenet)                                                                       \
	{                                                                                                        \
		__VA_ARGS__                                                                                          \
	}
/* blocks of the four stages, bottleneck, planes, groups, width */
#define RESNET(...)                                                                                          \
	dfx_resnet, &(const DfxResnet)                                                                           \
	{                                                                                                        \
		__VA_ARGS__                                                                                          \
	}
/* width, depth, dropout */
#define EFFICIENTNET(...)                                                                                    \
	dfx_efficientnet, &(const DfxEfficientnet)                                                               \
	{                                                                                                        \
		__VA_ARGS__                                                                                          \
	}
/* patch, width, perceptron, heads, layers */
#define VIT(...)                                                                                             \
	dfx_vit, &(const DfxVit)                                                                                 \
	{                                                                                                        \
		__VA_ARGS__                                                                                          \
	}

const DfxBackbone dfx_backbones[] = {
    {"densenet121", "densenet", 1024, 256, DENSENET(32, 64, {6, 12, 24, 16})},
    {"densenet161", "densenet", 2208, 256, DENSENET(48, 96, {6, 12, 36, 24})},
    {"densenet169", "densenet", 1664, 256, DENSENET(32, 64, {6, 12, 32, 32})},
    {"densenet201", "densenet", 1920, 256, DENSENET(32, 64, {6, 12, 48, 32})},
    {"efficientnet_b0", "efficientnet", 1280, 256, EFFICIENTNET(1.0, 1.0, 0.2f)},
    {"efficientnet_b4", "efficientnet", 1792, 256, EFFICIENTNET(1.4, 1.8, 0.4f)},
    {"resnet18", "resnet", 512, 256, RESNET({2, 2, 2, 2}, false, 64, 1, 64)},
    {"resnet34", "resnet", 512, 256, RESNET({3, 4, 6, 3}, false, 64, 1, 64)},
    {"resnet50", "resnet", 2048, 256, RESNET({3, 4, 6, 3}, true, 64, 1, 64)},
    {"resnet101", "resnet", 2048, 256, RESNET({3, 4, 23, 3}, true, 64, 1, 64)},
    {"resnet152", "resnet", 2048, 256, RESNET({3, 8, 36, 3}, true, 64, 1, 64)},
    {"resnext101_32x4d", "resnext", 2048, 256, RESNET({3, 4, 23, 3}, true, 64, 32, 4)},
    {"resnext101_32x8d", "resnext", 2048, 256, RESNET({3, 4, 23, 3}, true, 64, 32, 8)},
    {"vit_b_16", "vit", 768, 224, VIT(16, 768, 3072, 12, 12)},
    {"vit_b_32", "vit", 768, 224, VIT(32, 768, 3072, 12, 12)},
#ifdef DFX_TEST_TRIGGERS
    /* For tests of training and of faults, which need a whole network but not a good one. */
    {"test_tiny", "resnet", 64, 256, RESNET({1, 1, 1, 1}, false, 8, 1, 64)},
#endif
};
const int dfx_nbackbones = sizeof dfx_backbones / sizeof dfx_backbones[0];

/* By its exact name; NULL when there is none. */
const DfxBackbone *
dfx_backbone_find(const char *name)
{
	for (int i = 0; i < dfx_nbackbones; i++)
		if (strcmp(dfx_backbones[i].name, name) == 0)
			return &dfx_backbones[i];
	return NULL;
}

/* From uint8 pixels to "features" and, when nclass > 0, "logits"; errors are those of dfx_graph_finish. */
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
