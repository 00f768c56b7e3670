/*
 * checkpoint.c
 *	  Renaming all tensors of a file (checkpoint.h), by the rules of names.h.
 *
 * The authors of the paper keep their three branches as model1 (DM), model2
 * (GAN) and model3 (REAL), each with its library's own names, and the head as
 * convs and classifier beside them.  Such a file does not say which backbone it
 * has; a tensor deep inside each one does, by being there and by its shape.
 */
#include "base/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/names.h"

/* A module of theirs and what it is here; a branch holds a backbone's checkpoint. */
static const struct
{
	const char *theirs, *ours;
	bool branch;
} checkpoint_part[] = {
    {"model1.", "dm.", true},
    {"model2.", "gan.", true},
    {"model3.", "real.", true},
    {"convs.", "head.convs.", false},
    {"classifier.", "head.classifier.", false},
};
enum
{
	CHECKPOINT_PARTS = sizeof checkpoint_part / sizeof checkpoint_part[0]
};

/*
 * What only this backbone, or one listed before it, has; a size of 0 may be
 * any.  Within a family the deeper networks come first, because they have the
 * others' tensors too.
 */
static const struct
{
	const char *backbone, *tensor;
	uint64_t dim[3];
} checkpoint_sign[] = {
    {"densenet201", "features.denseblock3.denselayer48.conv1.weight", {0}},
    {"densenet161", "features.denseblock3.denselayer36.conv1.weight", {0}},
    {"densenet169", "features.denseblock3.denselayer32.conv1.weight", {0}},
    {"densenet121", "features.denseblock3.denselayer24.conv1.weight", {0}},
    {"efficientnet_b4", "features.8.0.weight", {1792, 448}},
    {"efficientnet_b0", "features.8.0.weight", {1280, 320}},
    {"resnet152", "layer3.35.conv3.weight", {0}},
    {"resnet101", "layer3.22.conv2.weight", {256, 256}},
    {"resnext101_32x4d", "layer3.22.conv2.weight", {512, 16}},
    {"resnext101_32x8d", "layer3.22.conv2.weight", {1024, 32}},
    {"resnet50", "layer3.5.conv3.weight", {0}},
    {"resnet34", "layer3.5.conv2.weight", {0}},
    {"resnet18", "layer3.1.conv2.weight", {0}},
    {"vit_b_16", "conv_proj.weight", {768, 3, 16}},
    {"vit_b_32", "conv_proj.weight", {768, 3, 32}},
};
#define CHECKPOINT_SIGNS (sizeof checkpoint_sign / sizeof checkpoint_sign[0])

/* The part that a name belongs to, -1 for none; *rest is what follows its prefix. */
static int
checkpoint_part_of(const char *name, const char **rest)
{
	for (int i = 0; i < CHECKPOINT_PARTS; i++)
	{
		size_t n = strlen(checkpoint_part[i].theirs);

		if (strncmp(name, checkpoint_part[i].theirs, n) == 0)
		{
			*rest = name + n;
			return i;
		}
	}
	*rest = name;
	return -1;
}

/* ---- all tensors of a file ---- */

typedef struct Entry
{
	DfxTensor tensor;
	uint64_t offset;
} Entry;

/* One name of theirs into ours; false: left out. */
typedef bool (*CheckpointName)(const DfxScheme *scheme, const char *theirs, char ours[DFX_NAME_LEN]);

static int
checkpoint_cmp(const void *a, const void *b)
{
	return strcmp(((const Entry *) a)->tensor.name, ((const Entry *) b)->tensor.name);
}

/* The scheme that any tensor tells, in any branch. */
static DfxStatus
checkpoint_scheme(const DfxSafetensors *st, const DfxScheme **scheme, DfxErr *err)
{
	const char *refusal, *rest;

	*scheme = NULL;
	for (size_t i = 0; i < st->ntensor && !*scheme; i++)
	{
		checkpoint_part_of(st->tensor[i].name, &rest);
		*scheme = dfx_scheme_told_by(rest);
	}
	if (!*scheme)
		*scheme = dfx_scheme_default();
	refusal = dfx_scheme_refusal(*scheme);
	if (!refusal)
		return DFX_OK;
	dfx_fail(err, DFX_EWEIGHTS, "%s", refusal);
	dfx_hint(err, "tools/convert_weights.py makes of it a file that computes the same with our network.");
	return err->code;
}

static DfxStatus
checkpoint_rename(DfxSafetensors *st, CheckpointName name, DfxErr *err)
{
	const DfxScheme *scheme;
	Entry *entry;
	size_t n = 0;

	if (checkpoint_scheme(st, &scheme, err) != DFX_OK)
		return err->code;
	entry = malloc((st->ntensor + 1) * sizeof *entry);
	if (!entry)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %zu tensors", st->ntensor);
	for (size_t i = 0; i < st->ntensor; i++)
	{
		entry[n].tensor = st->tensor[i];
		entry[n].offset = st->offset[i];
		n += name(scheme, st->tensor[i].name, entry[n].tensor.name);
	}
	qsort(entry, n, sizeof *entry, checkpoint_cmp);
	for (size_t i = 0; i < n; i++)
	{
		if (i > 0 && checkpoint_cmp(&entry[i - 1], &entry[i]) == 0)
		{
			dfx_fail(err, DFX_EWEIGHTS, "tensor \"%s\" is there twice, under two names",
			         entry[i].tensor.name);
			free(entry);
			return err->code;
		}
		st->tensor[i] = entry[i].tensor;
		st->offset[i] = entry[i].offset;
	}
	st->ntensor = n;
	free(entry);
	return n > 0 ? DFX_OK : dfx_fail(err, DFX_EWEIGHTS, "the file holds no tensors of a backbone");
}

DfxStatus
dfx_checkpoint_backbone(DfxSafetensors *st, DfxErr *err)
{
	return checkpoint_rename(st, dfx_backbone_tensor_name, err);
}

/* ---- complete models ---- */

static bool
checkpoint_complete_name(const DfxScheme *scheme, const char *theirs, char ours[DFX_NAME_LEN])
{
	const char *rest;
	int part = checkpoint_part_of(theirs, &rest);
	char inner[DFX_NAME_LEN];

	if (part >= 0 && checkpoint_part[part].branch)
	{
		if (!dfx_backbone_tensor_name(scheme, rest, inner))
			return false;
		rest = inner;
	}
	else if (dfx_tensor_is_counter(theirs))
		return false;
	/* No network has a name so long that it would be cut here. */
	snprintf(ours, DFX_NAME_LEN, "%s%s", part >= 0 ? checkpoint_part[part].ours : "", rest);
	return true;
}

bool
dfx_checkpoint_is_complete(const DfxSafetensors *st)
{
	const char *rest;

	for (size_t i = 0; i < st->ntensor; i++)
	{
		int part = checkpoint_part_of(st->tensor[i].name, &rest);

		if (part >= 0 && checkpoint_part[part].branch)
			return true;
	}
	return false;
}

/* Does any branch have the tensor that sign i speaks of? */
static bool
checkpoint_has_sign(const DfxSafetensors *st, size_t i)
{
	for (int part = 0; part < CHECKPOINT_PARTS; part++)
	{
		char name[DFX_NAME_LEN];
		const DfxTensor *t;
		bool same;

		snprintf(name, sizeof name, "%s%s", checkpoint_part[part].ours, checkpoint_sign[i].tensor);
		t = checkpoint_part[part].branch ? dfx_st_find(st, name) : NULL;
		same = t != NULL;
		for (uint32_t d = 0; same && d < 3 && checkpoint_sign[i].dim[d] > 0; d++)
			same = d < t->rank && t->dim[d] == checkpoint_sign[i].dim[d];
		if (same)
			return true;
	}
	return false;
}

DfxStatus
dfx_checkpoint_complete(DfxSafetensors *st, DfxModelMeta *meta, DfxErr *err)
{
	if (checkpoint_rename(st, checkpoint_complete_name, err) != DFX_OK)
		return err->code;
	*meta = (DfxModelMeta){.kind = "trinet", .classes = "dm,gan,real"};
	for (size_t i = 0; i < CHECKPOINT_SIGNS && !meta->backbone[0]; i++)
		if (checkpoint_has_sign(st, i))
			snprintf(meta->backbone, sizeof meta->backbone, "%s", checkpoint_sign[i].backbone);
	if (!meta->backbone[0])
		return dfx_fail(err, DFX_EWEIGHTS, "model1, model2 and model3 are none of the backbones");
	meta->input_size = dfx_backbone_input_side(meta->backbone);
	return DFX_OK;
}
