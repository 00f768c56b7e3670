/*
 * vit.c
 *	  Vision Transformer, with torchvision's parameter names.
 *
 * The image is cut into patches, each projected to a token; a class token goes
 * before them, and encoder layers of attention and a two-layer perceptron
 * follow, each on a normalised copy and added to what it read.  The features
 * are the class token after the last normalisation.  Nothing else of the last
 * layer's output is ever read, so from its attention on, the layer works on
 * that one token: the same function for 5 % less arithmetic.
 */
#include "nn/families.h"

#define VIT_LN_EPS 1e-6f

static DfxVal
vit_mlp(DfxGraph *g, DfxVal x, const DfxVit *v)
{
	int mark = dfx_push(g, "mlp");

	x = dfx_act(g, dfx_linear(g, x, "0", v->mlp), DFX_ACT_GELU);
	x = dfx_linear(g, x, "3", v->width);
	dfx_pop(g, mark);
	return x;
}

/* last: only the class token of the result is wanted. */
static DfxVal
vit_layer(DfxGraph *g, DfxVal x, const DfxVit *v, bool last)
{
	DfxVal y = dfx_attn(g, dfx_layernorm(g, x, "ln_1", VIT_LN_EPS), "self_attention", v->heads);

	if (last)
	{
		x = dfx_take(g, x, 0);
		y = dfx_take(g, y, 0);
	}
	x = dfx_add(g, y, x);
	return dfx_add(g, vit_mlp(g, dfx_layernorm(g, x, "ln_2", VIT_LN_EPS), v), x);
}

/*
 * x: 3 x H x W, whole patches.  b->config is a DfxVit; the classifier is
 * torchvision's "heads.head".  torchvision's dropout layers have probability 0
 * and are left out.
 */
DfxVal
dfx_vit(DfxGraph *g, const DfxBackbone *b, DfxVal x, int nclass, DfxVal *features)
{
	const DfxVit *v = b->config;
	int mark;

	x = dfx_conv(g, x, "conv_proj", v->width, DFX_CONV2D(v->patch, v->patch, 0), true);
	x = dfx_tokens(g, x, "class_token", "encoder.pos_embedding");
	mark = dfx_push(g, "encoder");
	for (int i = 0; i < v->layers; i++)
	{
		int inner = dfx_push(g, "layers.encoder_layer_%d", i);

		x = vit_layer(g, x, v, i == v->layers - 1);
		dfx_pop(g, inner);
	}
	x = *features = dfx_layernorm(g, x, "ln", VIT_LN_EPS);
	dfx_pop(g, mark);
	return nclass > 0 ? dfx_linear(g, x, "heads.head", nclass) : x;
}
