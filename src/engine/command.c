/*
 * command.c
 *	  What the subcommands share.
 */
#include "engine/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
dfx_complain(const DfxErr *err)
{
	fprintf(stderr, "dfx-engine: %s (%s)\n", err->msg, dfx_sqlstate(err->code));
	if (err->hint[0])
		fprintf(stderr, "dfx-engine: %s\n", err->hint);
	return 1;
}

/* Grows by doubling, so that pipes can be read too. */
static DfxStatus
command_slurp(FILE *f, const char *path, uint64_t max, uint8_t **bytes, size_t *len, DfxErr *err)
{
	size_t cap = 0;

	*bytes = NULL;
	*len = 0;
	do
	{
		if (*len == cap)
		{
			uint8_t *p = realloc(*bytes, cap = cap ? 2 * cap : 65536);

			if (!p)
				return dfx_fail(err, DFX_ENOMEM, "out of memory for \"%s\"", path);
			*bytes = p;
		}
		*len += fread(*bytes + *len, 1, cap - *len, f);
		if (*len > max)
			return dfx_fail(err, DFX_ELIMIT, "\"%s\" has more than %" PRIu64 " bytes", path, max);
	} while (!feof(f) && !ferror(f));
	if (ferror(f))
		return dfx_fail(err, DFX_EIO, "could not read \"%s\": %s", path, strerror(errno));
	return DFX_OK;
}

DfxStatus
dfx_read_file(const char *path, uint64_t max, uint8_t **bytes, size_t *len, DfxErr *err)
{
	FILE *f = fopen(path, "rb");
	DfxStatus st;

	*bytes = NULL;
	if (!f)
		return dfx_fail(err, DFX_EIO, "could not open \"%s\": %s", path, strerror(errno));
	st = command_slurp(f, path, max, bytes, len, err);
	fclose(f);
	if (st != DFX_OK)
	{
		free(*bytes);
		*bytes = NULL;
	}
	return st;
}

DfxStatus
dfx_option_backbone(const DfxOptions *o, const DfxBackbone **b, DfxErr *err)
{
	*b = dfx_backbone_find(o->backbone);
	if (*b)
		return DFX_OK;
	dfx_fail(err, DFX_EINVAL, "unknown backbone \"%s\"", o->backbone);
	dfx_hint(err, "dfx-engine --help names those there are.");
	return err->code;
}

DfxStatus
dfx_random_graph(const DfxModelMeta *meta, int nclass, uint64_t seed, DfxGraph **out, DfxErr *err)
{
	DfxGraph *g = dfx_graph_new();
	DfxStatus st;

	*out = NULL;
	if (!g)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a network");
	st = dfx_build_model(g, meta, nclass, err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, seed, err);
	if (st != DFX_OK)
	{
		dfx_graph_free(g);
		return st;
	}
	*out = g;
	return DFX_OK;
}

DfxStatus
dfx_file_graph(const DfxModelMeta *meta, const DfxSafetensors *file, DfxGraph **g, DfxErr *err)
{
	DfxStatus st = dfx_model_graph(meta, file->tensor, file->ntensor, g, err);
	char *misfits = st == DFX_EWEIGHTS ? dfx_model_misfits(meta, file->tensor, file->ntensor) : NULL;

	if (misfits)
		fprintf(stderr, "dfx-engine: %s\n", misfits);
	free(misfits);
	return st;
}
