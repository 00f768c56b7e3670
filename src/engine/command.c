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

#include "base/safetensors.h"
#include "image/image.h"

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
dfx_read_image(const DfxOptions *o, const char *path, uint32_t input_size, uint8_t *pixels, DfxErr *err)
{
	DfxImageLimits limits = DFX_DEFAULT_LIMITS;
	uint8_t *bytes;
	size_t len;
	DfxStatus st = dfx_read_file(path, limits.max_bytes, &bytes, &len, err);

	if (st == DFX_OK && o->fast_decode)
		st = dfx_image_prepare_fast(bytes, len, &limits, input_size, pixels, err);
	else if (st == DFX_OK)
		st = dfx_image_prepare(bytes, len, &limits, input_size, pixels, err);
	free(bytes);
	return st;
}

DfxStatus
dfx_write_file(const char *path, const uint8_t *bytes, size_t len, DfxErr *err)
{
	FILE *f = fopen(path, "wb");
	bool ok;

	if (!f)
		return dfx_fail(err, DFX_EIO, "could not create \"%s\": %s", path, strerror(errno));
	ok = fwrite(bytes, 1, len, f) == len;
	ok = fclose(f) == 0 && ok;
	if (!ok)
		return dfx_fail(err, DFX_EIO, "could not write \"%s\": %s", path, strerror(errno));
	return DFX_OK;
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

/* --- model files --------------------------------------------------------- */

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

/* One of our own files says in its metadata what it is. */
static DfxStatus
command_file_meta(const DfxSafetensors *st, const char *path, DfxModelMeta *meta, DfxErr *err)
{
	static const char *const keys[] = {"backbone", "classes", "head_stride", "input_size", "kind"};
	char text[DFX_META_TEXT_MAX];
	size_t used = 0;

	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
	{
		const char *value = dfx_st_meta(st, keys[i]);
		int n = value ? snprintf(text + used, sizeof text - used, "%s=%s\n", keys[i], value) : -1;

		if (n < 0 || (size_t) n >= sizeof text - used)
			return dfx_fail(err, DFX_EWEIGHTS,
			                "\"%s\" is not a model of this program: its metadata lack \"%s\"", path, keys[i]);
		used += (size_t) n;
	}
	return dfx_meta_parse(text, used, meta, err);
}

static void
command_file_version(const DfxSafetensors *st, const DfxModelMeta *meta, uint8_t version[DFX_VERSION_LEN])
{
	DfxVersioner v;

	dfx_version_begin(&v, meta);
	for (size_t i = 0; i < st->ntensor; i++)
	{
		dfx_version_tensor(&v, &st->tensor[i]);
		dfx_version_bytes(&v, st->tensor[i].data, st->tensor[i].nbytes);
	}
	dfx_version_end(&v, version);
}

DfxStatus
dfx_model_file(const char *path, DfxModelMeta *meta, DfxGraph **g, uint8_t version[DFX_VERSION_LEN],
               DfxErr *err)
{
	DfxSafetensors st;
	DfxStatus rc;

	*g = NULL;
	if (dfx_st_open(path, &st, err) != DFX_OK)
		return err->code;
	rc = command_file_meta(&st, path, meta, err);
	if (rc == DFX_OK)
		rc = dfx_file_graph(meta, &st, g, err);
	if (rc == DFX_OK)
		command_file_version(&st, meta, version);
	dfx_st_free(&st);
	return rc;
}
