/*
 * families.h
 *	  The network families: one build function and one configuration struct
 *	  each.  backbone.c fills the published ones; tests fill reduced ones.
 */
#ifndef DFX_NN_FAMILIES_H
#define DFX_NN_FAMILIES_H

#include "nn/nn.h"

/* Huang et al., "Densely Connected Convolutional Networks", CVPR 2017. */
typedef struct DfxDensenet
{
	int growth;   /* channels each layer adds */
	int stem;     /* channels of the first convolution */
	int depth[4]; /* layers of each block */
} DfxDensenet;
extern DfxVal dfx_densenet(DfxGraph *g, const DfxBackbone *b, DfxVal x, int nclass, DfxVal *features);

/* He et al., "Deep Residual Learning", CVPR 2016; Xie et al., "Aggregated Residual Transformations", CVPR
 * 2017. */
typedef struct DfxResnet
{
	int depth[4];    /* blocks of each stage */
	bool bottleneck; /* 1x1, 3x3, 1x1 instead of two 3x3 */
	int planes;      /* channels of the stem and of the first stage's 3x3; doubled from stage to stage */
	int groups;      /* of a bottleneck's 3x3: 1 in ResNet, the cardinality in ResNeXt */
	int width;       /* channels a group in the first stage when planes is 64 */
} DfxResnet;
extern DfxVal dfx_resnet(DfxGraph *g, const DfxBackbone *b, DfxVal x, int nclass, DfxVal *features);

/* Tan, Le, "EfficientNet: Rethinking Model Scaling", ICML 2019. */
typedef struct DfxEfficientnet
{
	double width, depth; /* factors on channels and layers */
	float dropout;       /* before the classifier */
} DfxEfficientnet;
extern DfxVal dfx_efficientnet(DfxGraph *g, const DfxBackbone *b, DfxVal x, int nclass, DfxVal *features);

/* Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. */
typedef struct DfxVit
{
	int patch; /* side of a patch in pixels */
	int width; /* channels of a token */
	int mlp;   /* channels between the two layers of the perceptron */
	int heads;
	int layers;
} DfxVit;
extern DfxVal dfx_vit(DfxGraph *g, const DfxBackbone *b, DfxVal x, int nclass, DfxVal *features);

#define DFX_BN_EPS 1e-5f /* torchvision's for these families */

/* Channels of x; 0 after a failure, so that families can ask without checking. */
static inline int
dfx_channels(const DfxGraph *g, DfxVal x)
{
	return g->err.code == DFX_OK && x >= 0 && x < g->nval ? g->val[x].c : 0;
}

#endif /* DFX_NN_FAMILIES_H */
