/*
 * stream.c
 *	  The canonical stream of a model (base/version.h) back to metadata and
 *	  tensors, in place.
 */
#include "engine/loader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/safetensors.h"

static const char stream_magic[] = "dfx1\n";
#define STREAM_MAGIC_LEN (sizeof stream_magic - 1)

/* The next tensor at stream + *pos; names must ascend. */
static DfxStatus
stream_tensor(const uint8_t *stream, uint64_t len, uint64_t *pos, const DfxTensor *previous, DfxTensor *t,
              DfxErr *err)
{
	uint64_t room = len - *pos;
	size_t used;
	DfxStatus st = dfx_tensor_head_parse(
	    stream + *pos, room < DFX_TENSOR_HEAD_MAX ? room : DFX_TENSOR_HEAD_MAX, t, &used, err);

	if (st == DFX_TOO_SMALL)
		return dfx_fail(err, DFX_EWEIGHTS, "model stream: it ends in the head of a tensor");
	if (st != DFX_OK)
		return st;
	if (previous && strcmp(previous->name, t->name) >= 0)
		return dfx_fail(err, DFX_EWEIGHTS, "model stream: tensor \"%s\" is not in order of name", t->name);
	*pos += used;
	if (t->nbytes > len - *pos)
		return dfx_fail(err, DFX_EWEIGHTS, "model stream: it ends in the data of tensor \"%s\"", t->name);
	t->data = stream + *pos;
	*pos += t->nbytes;
	return DFX_OK;
}

DfxStatus
dfx_stream_parse(const uint8_t *stream, uint64_t len, uint32_t meta_len, uint32_t ntensor, DfxModelMeta *meta,
                 DfxTensor **tensor, DfxErr *err)
{
	uint64_t pos = STREAM_MAGIC_LEN + (uint64_t) meta_len;
	DfxStatus st;
	DfxTensor *t;

	*tensor = NULL;
	if (ntensor > DFX_ST_MAX_TENSORS)
		return dfx_fail(err, DFX_EWEIGHTS, "model stream: %" PRIu32 " tensors, at most %d", ntensor,
		                DFX_ST_MAX_TENSORS);
	if (meta_len >= DFX_META_TEXT_MAX || len < pos || memcmp(stream, stream_magic, STREAM_MAGIC_LEN) != 0)
		return dfx_fail(err, DFX_EWEIGHTS, "model stream: it does not begin with dfx1 and the metadata");
	st = dfx_meta_parse((const char *) stream + STREAM_MAGIC_LEN, meta_len, meta, err);
	if (st != DFX_OK)
		return st;

	t = calloc((size_t) ntensor + 1, sizeof *t);
	if (!t)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %" PRIu32 " tensors", ntensor);
	for (uint32_t i = 0; i < ntensor && st == DFX_OK; i++)
		st = stream_tensor(stream, len, &pos, i > 0 ? &t[i - 1] : NULL, &t[i], err);
	if (st == DFX_OK && pos != len)
		st = dfx_fail(err, DFX_EWEIGHTS, "model stream: %" PRIu64 " bytes follow the last tensor", len - pos);
	if (st != DFX_OK)
	{
		free(t);
		return st;
	}
	*tensor = t;
	return DFX_OK;
}
