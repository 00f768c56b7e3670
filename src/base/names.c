/*
 * names.c
 *	  Renaming as text (names.h): no network is known here, so whatever has no
 *	  rule keeps its name, and the engine says which names it does not know.
 */
#include "base/names.h"

#include <stdio.h>
#include <string.h>

/* How torchvision and timm call the last linear layer, by family. */
static const char *const names_classifier[] = {"fc.", "classifier.", "heads.", "head."};

/* torchvision's first DenseNet checkpoints have norm.1 where its code has norm1 since. */
static const char *const names_old_densenet[] = {".norm.", ".conv."};

static bool
names_begin(const char *name, const char *with)
{
	return strncmp(name, with, strlen(with)) == 0;
}

static bool
names_end(const char *name, const char *with)
{
	size_t n = strlen(name), k = strlen(with);

	return n >= k && strcmp(name + n - k, with) == 0;
}

bool
dfx_backbone_tensor_name(const char *theirs, char ours[DFX_NAME_LEN])
{
	if (names_end(theirs, ".num_batches_tracked"))
		return false;
	for (size_t i = 0; i < sizeof names_classifier / sizeof names_classifier[0]; i++)
		if (names_begin(theirs, names_classifier[i]))
			return false;

	snprintf(ours, DFX_NAME_LEN, "%s", theirs);
	if (names_begin(theirs, "features.denseblock"))
		for (size_t i = 0; i < sizeof names_old_densenet / sizeof names_old_densenet[0]; i++)
		{
			char *hit = strstr(ours, names_old_densenet[i]), *dot;

			if (!hit)
				continue;
			dot = hit + strlen(names_old_densenet[i]) - 1;
			memmove(dot, dot + 1, strlen(dot));
		}
	return true;
}

uint32_t
dfx_backbone_input_side(const char *backbone)
{
	return names_begin(backbone, "vit") ? 224 : 256;
}
