/*
 * trinet.c
 *	  The complete model of Pontorno, Guarnera, Battiato, "DeepFeatureX Net",
 *	  ICPR 2024, arXiv:2404.15697, section 4.2: three backbones over one image,
 *	  their feature vectors stacked to a signal of 3 x D, and a Conv1d head that
 *	  says which class it is.
 *
 * Channel counts and the order convolution, ReLU, BatchNorm are those of the
 * authors' reference code; the stride is 1 in the paper and 2, 2, 1, 1, 1 in
 * the code, so it is an argument and part of a model's metadata.
 */
#include "nn/families.h"

static const struct
{
	int cout, kernel;
} trinet_conv[] = {{16, 7}, {64, 5}, {256, 3}, {512, 3}, {1024, 3}};
enum
{
	TRINET_CONVS = sizeof trinet_conv / sizeof trinet_conv[0],
	TRINET_STRIDED = 2, /* how many of them head_stride applies to */
	TRINET_CLASSES = 3
};
static const char *const trinet_branch[TRINET_CLASSES] = {"dm", "gan", "real"};

/* Names are positions in an nn.Sequential: ReLU holds one too, hence steps of three. */
static DfxVal
trinet_head(DfxGraph *g, DfxVal x, int stride)
{
	int mark = dfx_push(g, "head");
	int convs = dfx_push(g, "convs");

	for (int i = 0; i < TRINET_CONVS; i++)
	{
		static const char *const conv[TRINET_CONVS] = {"0", "3", "6", "9", "12"};
		static const char *const bn[TRINET_CONVS - 1] = {"2", "5", "8", "11"};

		x = dfx_conv1d(g, x, conv[i], trinet_conv[i].cout, trinet_conv[i].kernel,
		               i < TRINET_STRIDED ? stride : 1, 1);
		x = dfx_act(g, x, DFX_ACT_RELU);
		if (i < TRINET_CONVS - 1)
			x = dfx_bn(g, x, bn[i], DFX_BN_EPS);
	}
	dfx_pop(g, convs);
	x = dfx_pool(g, x, (DfxPool){.avg = true});
	x = dfx_linear(g, x, "classifier.0", TRINET_CLASSES);
	dfx_pop(g, mark);
	return x;
}

static DfxStatus
trinet_bad_stride(int stride, DfxErr *err)
{
	return dfx_fail(err, DFX_EINVAL, "head stride %d is neither 1 (the paper) nor 2 (the reference code)",
	                stride);
}

DfxStatus
dfx_build_trinet(DfxGraph *g, const DfxBackbone *b, int head_stride, DfxErr *err)
{
	DfxVal features[TRINET_CLASSES] = {-1, -1, -1};
	DfxVal x, stacked;

	if (head_stride != 1 && head_stride != 2)
		return trinet_bad_stride(head_stride, err);
	x = dfx_input_rgb8(g, b->input_size, b->input_size);
	for (int i = 0; i < TRINET_CLASSES; i++)
	{
		int mark = dfx_push(g, "%s", trinet_branch[i]);

		b->build(g, b, x, 0, &features[i]);
		dfx_pop(g, mark);
	}
	stacked = dfx_stack(g, features, TRINET_CLASSES);
	dfx_output(g, stacked, "features");
	dfx_output(g, trinet_head(g, stacked, head_stride), "logits");
	return dfx_graph_finish(g, err);
}

DfxStatus
dfx_build_head(DfxGraph *g, int features, int head_stride, DfxErr *err)
{
	if (head_stride != 1 && head_stride != 2)
		return trinet_bad_stride(head_stride, err);
	dfx_output(g, trinet_head(g, dfx_input_f32(g, TRINET_CLASSES, 1, features), head_stride), "logits");
	return dfx_graph_finish(g, err);
}
