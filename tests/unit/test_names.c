/*
 * test_names.c
 *	  Are tensors of torchvision's checkpoints given the names that our networks look for?
 *
 * (Other libraries' and whole files: test_checkpoint.c.)
 */
#include <string.h>

#include "base/names.h"
#include "tests/unit/tap.h"

static const struct
{
	const char *theirs, *ours; /* NULL: dropped */
} names[] = {
    {"conv1.weight", "conv1.weight"},
    {"layer1.0.downsample.1.running_var", "layer1.0.downsample.1.running_var"},
    {"features.denseblock4.denselayer24.norm1.weight", "features.denseblock4.denselayer24.norm1.weight"},
    {"features.denseblock4.denselayer24.norm.1.weight", "features.denseblock4.denselayer24.norm1.weight"},
    {"features.denseblock1.denselayer1.norm.2.running_mean",
     "features.denseblock1.denselayer1.norm2.running_mean"},
    {"features.denseblock1.denselayer1.conv.2.weight", "features.denseblock1.denselayer1.conv2.weight"},
    {"features.transition1.norm.weight", "features.transition1.norm.weight"},
    {"features.transition1.conv.weight", "features.transition1.conv.weight"},
    {"features.denseblock1.denselayer1.norm.01.weight", "features.denseblock1.denselayer1.norm.01.weight"},
    {"features.denseblock1.denselayer1.norm.1x", "features.denseblock1.denselayer1.norm.1x"},
    {"features.denseblock1.denselayer99999999999999999999.norm.1.weight",
     "features.denseblock1.denselayer99999999999999999999.norm.1.weight"},
    {"encoder.layers.encoder_layer_11.mlp.linear_1.weight", "encoder.layers.encoder_layer_11.mlp.0.weight"},
    {"encoder.layers.encoder_layer_0.mlp.linear_2.bias", "encoder.layers.encoder_layer_0.mlp.3.bias"},
    {"encoder.layers.encoder_layer_0.mlp.3.bias", "encoder.layers.encoder_layer_0.mlp.3.bias"},
    {"blocks.0.conv.1.weight", "blocks.0.conv.1.weight"},
    {"bn1.num_batches_tracked", NULL},
    {"fc.weight", NULL},
    {"classifier.bias", NULL},
    {"classifier.1.weight", NULL},
    {"heads.head.weight", NULL},
    {"head.weight", NULL},
    {"header.weight", "header.weight"},
    {"fc", "fc"},
};

int
main(void)
{
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
	{
		char ours[DFX_NAME_LEN] = "";
		bool kept = dfx_backbone_tensor_name(dfx_scheme_default(), names[i].theirs, ours);

		ok(kept == (names[i].ours != NULL) && (!kept || strcmp(ours, names[i].ours) == 0), "%s: %s",
		   names[i].theirs, kept ? ours : "dropped");
	}
	ok(dfx_backbone_input_side("vit_b_16") == 224 && dfx_backbone_input_side("resnet18") == 256,
	   "sides of the input");
	ok(dfx_tensor_dense_block("dm.features.denseblock2.denselayer1.conv1.input_scale") == 2 &&
	       dfx_tensor_dense_block("features.denseblock4.denselayer1.norm1.weight") == 4 &&
	       dfx_tensor_dense_block("features.transition1.conv.weight") == 0 &&
	       dfx_tensor_dense_block("features.denseblock12.x") == 0 &&
	       dfx_tensor_dense_block("layer1.0.conv1.weight") == 0,
	   "blocks of DenseNets");
	return done_testing();
}
