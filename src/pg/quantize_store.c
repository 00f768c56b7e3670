/*
 * quantize_store.c
 *	  A version made of another one's tensors and of scales.
 *
 * Both are in byte order of their names, so they are merged as they are read:
 * once to find the hash that names the version, once to store it.
 */
#include "postgres.h"

#include "base/names.h"
#include "miscadmin.h"
#include "pg/quantize.h"

typedef struct QuantizeStore
{
	const DfxModelRef *model;
	const DfxScale *scale;
	int			nscale;
	uint8		version[DFX_VERSION_LEN];
	bytea	   *buf;			/* room for DFX_CHUNK_BYTES */
	bool		storing;		/* the second pass */
	DfxVersioner hash;			/* the first */
	int32		number;			/* of tensors so far */
} QuantizeStore;

static void
store_head(QuantizeStore *q, const DfxTensor *t, const uint8 *sha256)
{
	if (q->storing)
		dfx_store_tensor(q->version, q->number, t, sha256);
	else
		dfx_version_tensor(&q->hash, t);
}

/* Bytes of the present tensor, which are in buf. */
static void
store_bytes(QuantizeStore *q, int32 chunk, Size n)
{
	SET_VARSIZE(q->buf, VARHDRSZ + n);
	if (q->storing)
		dfx_store_chunk(q->version, q->number, chunk, q->buf);
	else
		dfx_version_bytes(&q->hash, VARDATA(q->buf), n);
}

static void
store_scale(QuantizeStore *q, const DfxScale *scale)
{
	DfxTensor	t = {.dtype = DFX_F32,.nbytes = sizeof(scale->step)};
	uint8		sha256[32];
	DfxSha256	sha;

	strlcpy(t.name, scale->name, sizeof(t.name));
	dfx_sha256_init(&sha);
	dfx_sha256_update(&sha, &scale->step, sizeof(scale->step));
	dfx_sha256_final(&sha, sha256);
	store_head(q, &t, sha256);
	memcpy(VARDATA(q->buf), &scale->step, sizeof(scale->step));
	store_bytes(q, 0, sizeof(scale->step));
	q->number++;
}

/* The present tensor, but for an old scale. */
static void
store_tensor(QuantizeStore *q, DfxWeights *w)
{
	bool		keep = !dfx_tensor_is_scale(w->tensor.name);
	int32		chunk = 0;
	Size		n;

	if (keep)
		store_head(q, &w->tensor, w->sha256);
	while ((n = dfx_weights_read(w, keep ? VARDATA(q->buf) : NULL, keep ? DFX_CHUNK_BYTES : SIZE_MAX)) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (keep)
			store_bytes(q, chunk++, n);
	}
	q->number += keep;
}

static void
store_merge(QuantizeStore *q)
{
	DfxWeights	w;
	bool		more;
	int			i = 0;

	q->number = 0;
	dfx_weights_open(&w, q->model);
	more = dfx_weights_next(&w);
	while (more || i < q->nscale)
		if (!more || (i < q->nscale && strcmp(q->scale[i].name, w.tensor.name) < 0))
			store_scale(q, &q->scale[i++]);
		else
		{
			store_tensor(q, &w);
			more = dfx_weights_next(&w);
		}
	dfx_weights_close(&w);
}

bool
dfx_quantize_store(const DfxModelRef *model, const DfxScale *scale, int nscale, const char *name, const char *owner,
				   uint8 *version)
{
	QuantizeStore q = {.model = model,.scale = scale,.nscale = nscale,.buf = palloc(VARHDRSZ + DFX_CHUNK_BYTES)};
	DfxModelMeta meta;
	DfxStore	store;
	bool		stored;

	dfx_model_meta(model, &meta);
	dfx_version_begin(&q.hash, &meta);
	store_merge(&q);
	dfx_version_end(&q.hash, q.version);
	dfx_store_begin(&store);
	stored = dfx_store_version(q.version, &meta);
	q.storing = true;
	if (stored)
		store_merge(&q);
	dfx_store_name(name, q.version, owner);
	dfx_store_end(&store);
	memcpy(version, q.version, DFX_VERSION_LEN);
	pfree(q.buf);
	return stored;
}
