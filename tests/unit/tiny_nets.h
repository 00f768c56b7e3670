/*
 * tiny_nets.h
 *	  Reduced networks for tests: the published families through the same
 *	  builders, only shallower and narrower, over 64 x 64 pixels.  The oracle
 *	  runs one in milliseconds.
 *
 * Channel counts are multiples of 16, as in most published networks, except in
 * "tiny_efficientnet" and in those called odd, whose pieces or heads start off
 * any vector boundary.
 */
#ifndef DFX_TESTS_TINY_NETS_H
#define DFX_TESTS_TINY_NETS_H

#include "nn/families.h"

static const DfxBackbone tiny_nets[] = {
    {"tiny_densenet", "densenet", 68, 64, dfx_densenet, &(const DfxDensenet){16, 32, {2, 3, 2, 2}}},
    {"tiny_densenet_odd", "densenet", 33, 64, dfx_densenet, &(const DfxDensenet){7, 10, {1, 2, 2, 3}}},
    {"tiny_resnet", "resnet", 128, 64, dfx_resnet, &(const DfxResnet){{2, 1, 1, 1}, false, 16, 1, 64}},
    {"tiny_resnet_deep", "resnet", 512, 64, dfx_resnet, &(const DfxResnet){{1, 2, 1, 1}, true, 16, 1, 64}},
    {"tiny_resnext", "resnext", 512, 64, dfx_resnet, &(const DfxResnet){{1, 1, 1, 1}, true, 16, 8, 8}},
    {"tiny_efficientnet", "efficientnet", 128, 64, dfx_efficientnet,
     &(const DfxEfficientnet){0.1, 0.5, 0.2f}},
    {"tiny_vit", "vit", 64, 64, dfx_vit, &(const DfxVit){16, 64, 128, 2, 2}},
    {"tiny_vit_odd", "vit", 36, 64, dfx_vit, &(const DfxVit){8, 36, 50, 3, 3}},
};
enum
{
	TINY_NETS = sizeof tiny_nets / sizeof tiny_nets[0]
};

/* The parameter of that name; NULL: there is none. */
__attribute__((unused)) static const DfxParam *
find_param(const DfxGraph *g, const char *name)
{
	for (int i = 0; i < g->nparam; i++)
		if (strcmp(g->param[i].name, name) == 0)
			return &g->param[i];
	return NULL;
}

#endif /* DFX_TESTS_TINY_NETS_H */
