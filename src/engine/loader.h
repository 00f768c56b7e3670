/*
 * loader.h
 *	  Weights through the ring: the LOAD_* operations of proto.h.
 *
 * One load at a time, in a thread of its own, so that inference of other
 * models goes on meanwhile.
 */
#ifndef DFX_ENGINE_LOADER_H
#define DFX_ENGINE_LOADER_H

#include "engine/cache.h"

typedef struct DfxLoader
{
	const DfxRingMap *map;
	const DfxDevice *device;
	DfxCache *cache;
	int max_batch;

	/* the load in progress */
	bool active;
	uint8_t version[DFX_VERSION_LEN];
	DfxPrecision precision;
	DfxLoadBegin begin;
	uint8_t *stream; /* begin.stream_bytes, mapped; got of them are filled */
	uint64_t got;
	DfxSha256 sha;
} DfxLoader;

/*
 * Carry out one request of the loader's slot and fill its reply.  Any failure
 * ends the load in progress and frees what it held.
 */
extern DfxStatus dfx_loader_run(DfxLoader *loader, const DfxRequest *req, uint64_t *reply_len, DfxErr *err);

/* Forget the load in progress, which nobody will go on with: its stream and its reservation. */
extern void dfx_loader_forget(DfxLoader *loader);

/*
 * The tensors of a canonical stream (base/version.h), as views into it.
 * *tensor is malloc'd.  DFX_EWEIGHTS when it is not one: a hash that fits
 * only proves that these are the bytes that were stored.
 */
extern DfxStatus dfx_stream_parse(const uint8_t *stream, uint64_t len, uint32_t meta_len, uint32_t ntensor,
                                  DfxModelMeta *meta, DfxTensor **tensor, DfxErr *err);

#endif /* DFX_ENGINE_LOADER_H */
