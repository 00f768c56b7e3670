/*
 * cache.h
 *	  The models that are ready to run, least recently used first out, under a
 *	  limit of bytes.
 *
 * Models are keyed by version and precision; a version is a content hash, so
 * nothing in here ever goes stale.
 *
 *	acquire		a request is admitted: the model cannot be evicted until release
 *	reserve		a load begins: room is made, or the caller is told to come again
 *	insert		a load ends: the reservation becomes a model
 *
 * Progress.  Two models that do not fit together, with requests for both
 * arriving all the time, must take turns.  Three rules do that.  A model
 * stays while a request older than the load that wants its room is waiting
 * for it, and until it has served once (some seconds at the most), so every
 * load serves somebody; one loaded for no request (order UINT64_MAX) does not.  A model whose only pin is
 *that it is in use is closed to requests younger than that load, so it falls idle and goes.
 */
#ifndef DFX_ENGINE_CACHE_H
#define DFX_ENGINE_CACHE_H

#include "engine/model.h"
#include "engine/ring.h"

typedef struct DfxCache DfxCache;
typedef struct DfxResident DfxResident; /* a model in the cache */

/* Whether a request older than order waits for version (dfx_ring_needs; tests put their own). */
typedef bool (*DfxNeeds)(void *arg, const uint8_t *version, uint64_t order);

/* NULL: out of memory.  stats and roster (DFX_RING_MODELS entries, all zero) may be NULL; limit in bytes. */
extern DfxCache *
dfx_cache_new(uint64_t limit, DfxNeeds needs, void *arg, DfxRingStats *stats, DfxRingModel *roster);

/*
 * DFX_OK with *resident held; DFX_NEED_MODEL when it is not there; DFX_BUSY
 * when it is closed to a request of this order: leave the request waiting.
 */
extern DfxStatus dfx_cache_acquire(DfxCache *cache, const uint8_t *version, DfxPrecision precision,
                                   uint64_t order, DfxResident **resident);
/* used: the model has served, rather than been looked at. */
extern void dfx_cache_release(DfxCache *cache, DfxResident *resident, bool used);
extern const DfxModel *dfx_cache_model(const DfxResident *resident);

extern bool dfx_cache_has(DfxCache *cache, const uint8_t *version, DfxPrecision precision);

/*
 * Make room on behalf of a request of this order, evicting what may go: for
 * stream_bytes, or for what a model of that length took before.
 * DFX_BUSY: not now.  DFX_ELIMIT: more than the limit, ever.
 */
extern DfxStatus dfx_cache_reserve(DfxCache *cache, DfxPrecision precision, uint64_t stream_bytes,
                                   uint64_t order, DfxErr *err);
extern void dfx_cache_unreserve(DfxCache *cache);

/* Takes the model over (frees it on failure) and ends the reservation.  DFX_ELIMIT when it alone is too
 * large. */
extern DfxStatus dfx_cache_insert(DfxCache *cache, DfxModel *model, uint64_t order, DfxErr *err);

/* Drop every precision of a version.  DFX_BUSY when one is in use; DFX_OK also when there is none. */
extern DfxStatus dfx_cache_evict(DfxCache *cache, const uint8_t *version, DfxErr *err);

#endif /* DFX_ENGINE_CACHE_H */
