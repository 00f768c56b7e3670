/*
 * names.c
 *	  Renaming as text (names.h): no network is known here, so whatever has no
 *	  rule keeps its name, and the engine says which names it does not know.
 *
 * A rule replaces the beginning of a name, up to a dot or to the name's end.
 * '#' stands for a number; on our side it is that number again, and '+' is that
 * number plus one, each taking theirs from left to right.  The first rule that
 * fits is the one.
 *
 * Sources: the state_dict keys of torchvision 0.14, of timm
 * (huggingface/pytorch-image-models: timm/models/efficientnet.py,
 * _efficientnet_blocks.py, vision_transformer.py) and of
 * NVIDIA/DeepLearningExamples (PyTorch/Classification/ConvNets,
 * image_classification/models/efficientnet.py).  timm's networks listed here
 * compute what torchvision's do: BatchNorm eps 1e-5, LayerNorm eps 1e-6, symmetric
 * padding, squeeze to a quarter of a block's input, in_proj as query, key, value.
 */
#include "base/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_LISTED 5 /* entries of a scheme's classifier list at most, with the NULL at its end */

typedef struct NamesRule
{
	const char *theirs, *ours;
} NamesRule;

struct DfxScheme
{
	const char *told_by;                  /* a tensor that only files of this scheme have */
	const char *classifier[NAMES_LISTED]; /* the last linear layer's module, by family */
	const NamesRule *rule;                /* ended by one without names */
	const char *refusal;
};

/* What torchvision's own published files have and its code renames as it loads them. */
static const NamesRule names_torchvision[] = {
    {"features.denseblock#.denselayer#.norm.#", "features.denseblock#.denselayer#.norm#"},
    {"features.denseblock#.denselayer#.conv.#", "features.denseblock#.denselayer#.conv#"},
    {"encoder.layers.encoder_layer_#.mlp.linear_1", "encoder.layers.encoder_layer_#.mlp.0"},
    {"encoder.layers.encoder_layer_#.mlp.linear_2", "encoder.layers.encoder_layer_#.mlp.3"},
    {NULL, NULL},
};

/* Its stages count from 0; those without expansion, the first one's, have names of their own. */
static const NamesRule names_timm_efficientnet[] = {
    {"conv_stem", "features.0.0"},
    {"bn1", "features.0.1"},
    {"blocks.0.#.conv_dw", "features.1.#.block.0.0"},
    {"blocks.0.#.bn1", "features.1.#.block.0.1"},
    {"blocks.0.#.se.conv_reduce", "features.1.#.block.1.fc1"},
    {"blocks.0.#.se.conv_expand", "features.1.#.block.1.fc2"},
    {"blocks.0.#.conv_pw", "features.1.#.block.2.0"},
    {"blocks.0.#.bn2", "features.1.#.block.2.1"},
    {"blocks.#.#.conv_pw", "features.+.#.block.0.0"},
    {"blocks.#.#.bn1", "features.+.#.block.0.1"},
    {"blocks.#.#.conv_dw", "features.+.#.block.1.0"},
    {"blocks.#.#.bn2", "features.+.#.block.1.1"},
    {"blocks.#.#.se.conv_reduce", "features.+.#.block.2.fc1"},
    {"blocks.#.#.se.conv_expand", "features.+.#.block.2.fc2"},
    {"blocks.#.#.conv_pwl", "features.+.#.block.3.0"},
    {"blocks.#.#.bn3", "features.+.#.block.3.1"},
    {"conv_head", "features.8.0"},
    {"bn2", "features.8.1"},
    {NULL, NULL},
};

static const NamesRule names_timm_vit[] = {
    {"cls_token", "class_token"},
    {"pos_embed", "encoder.pos_embedding"},
    {"patch_embed.proj", "conv_proj"},
    {"blocks.#.norm1", "encoder.layers.encoder_layer_#.ln_1"},
    {"blocks.#.attn.qkv.weight", "encoder.layers.encoder_layer_#.self_attention.in_proj_weight"},
    {"blocks.#.attn.qkv.bias", "encoder.layers.encoder_layer_#.self_attention.in_proj_bias"},
    {"blocks.#.attn.proj", "encoder.layers.encoder_layer_#.self_attention.out_proj"},
    {"blocks.#.norm2", "encoder.layers.encoder_layer_#.ln_2"},
    {"blocks.#.mlp.fc1", "encoder.layers.encoder_layer_#.mlp.0"},
    {"blocks.#.mlp.fc2", "encoder.layers.encoder_layer_#.mlp.3"},
    {"norm", "encoder.ln"},
    {NULL, NULL},
};

static const NamesRule names_none[] = {{NULL, NULL}};

static const DfxScheme names_scheme[] = {
    {"conv_stem.weight", {"classifier"}, names_timm_efficientnet, NULL},
    {"patch_embed.proj.weight", {"head"}, names_timm_vit, NULL},
    {"stem.conv.weight",
     {"classifier"},
     names_none,
     "the names are those of NVIDIA's EfficientNet, which is not the network here: "
     "its BatchNorm has eps 1e-3, not 1e-5"},
    {NULL, {"fc", "classifier", "heads", "head"}, names_torchvision, NULL}, /* the last: it fits all */
};
#define NAMES_SCHEMES (sizeof names_scheme / sizeof names_scheme[0])

/* ---- rules ---- */

enum
{
	NAMES_NUMBERS = 4,     /* in one rule */
	NAMES_MAX_NUMBER = 999 /* larger ones are no place in any network */
};

/* A number at *p without leading zeros, and *p after it; -1 when there is none. */
static int
names_number(const char **p)
{
	char *end;
	long n;

	if (**p < '0' || **p > '9' || (**p == '0' && (*p)[1] >= '0' && (*p)[1] <= '9'))
		return -1;
	n = strtol(*p, &end, 10);
	*p = end;
	return n <= NAMES_MAX_NUMBER ? (int) n : -1;
}

/* What follows the pattern in name, with the numbers that it has in '#'s places; NULL when it does not fit.
 */
static const char *
names_match(const char *pattern, const char *name, int number[NAMES_NUMBERS])
{
	int n = 0;

	for (; *pattern; pattern++)
		if (*pattern != '#')
		{
			if (*name++ != *pattern)
				return NULL;
		}
		else if ((number[n++] = names_number(&name)) < 0)
			return NULL;
	return *name == '\0' || *name == '.' ? name : NULL;
}

/* A name that would not fit is cut: no network has one so long. */
static void
names_write(char ours[DFX_NAME_LEN], const char *pattern, const int *number, const char *rest)
{
	size_t n = 0;

	for (; *pattern && n < DFX_NAME_LEN - 1; pattern++)
		if (*pattern == '#' || *pattern == '+')
			n += (size_t) snprintf(ours + n, DFX_NAME_LEN - n, "%d", *number++ + (*pattern == '+'));
		else
			ours[n++] = *pattern;
	if (n < DFX_NAME_LEN)
		snprintf(ours + n, DFX_NAME_LEN - n, "%s", rest);
}

/* ---- schemes ---- */

const DfxScheme *
dfx_scheme_told_by(const char *name)
{
	for (size_t i = 0; i < NAMES_SCHEMES; i++)
		if (names_scheme[i].told_by && strcmp(names_scheme[i].told_by, name) == 0)
			return &names_scheme[i];
	return NULL;
}

const DfxScheme *
dfx_scheme_default(void)
{
	return &names_scheme[NAMES_SCHEMES - 1];
}

const char *
dfx_scheme_refusal(const DfxScheme *scheme)
{
	return scheme->refusal;
}

/* Whether tail is the end of name. */
static bool
names_end(const char *name, const char *tail)
{
	size_t n = strlen(name), k = strlen(tail);

	return n >= k && strcmp(name + n - k, tail) == 0;
}

bool
dfx_tensor_is_counter(const char *name)
{
	return names_end(name, ".num_batches_tracked");
}

bool
dfx_tensor_is_scale(const char *name)
{
	return names_end(name, DFX_SCALE_SUFFIX);
}

int
dfx_tensor_dense_block(const char *name)
{
	static const char block[] = "features.denseblock";
	const char *at = strstr(name, block);

	if (at == NULL || (at > name && at[-1] != '.'))
		return 0;
	at += sizeof block - 1;
	return at[0] >= '1' && at[0] <= '9' && at[1] == '.' ? at[0] - '0' : 0;
}

bool
dfx_backbone_tensor_name(const DfxScheme *scheme, const char *theirs, char ours[DFX_NAME_LEN])
{
	int number[NAMES_NUMBERS];

	if (dfx_tensor_is_counter(theirs))
		return false;
	for (int i = 0; scheme->classifier[i]; i++)
	{
		const char *rest = names_match(scheme->classifier[i], theirs, number);

		if (rest && *rest)
			return false;
	}
	for (const NamesRule *r = scheme->rule; r->theirs; r++)
	{
		const char *rest = names_match(r->theirs, theirs, number);

		if (rest)
		{
			names_write(ours, r->ours, number, rest);
			return true;
		}
	}
	snprintf(ours, DFX_NAME_LEN, "%s", theirs);
	return true;
}

uint32_t
dfx_backbone_input_side(const char *backbone)
{
	return strncmp(backbone, "vit", 3) == 0 ? 224 : 256;
}
