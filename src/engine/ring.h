/*
 * ring.h
 *	  The engine's end of the ring (proto.h): mapping, reading requests, answering.
 *
 * Nothing read from the ring is used before it is checked.  The geometry is
 * validated once and kept in private memory; each request is copied out of
 * its slot and its offsets are checked against that geometry, so that a stray
 * write by PostgreSQL can spoil answers but cannot make the engine touch
 * memory outside the mapping.
 */
#ifndef DFX_ENGINE_RING_H
#define DFX_ENGINE_RING_H

#include "engine/proto.h"
#include "image/image.h"
#include "nn/backend.h"

typedef struct DfxRingMap
{
	DfxRing *ring;
	DfxRingEngine *own; /* this engine's part of the header ... */
	uint32_t self;      /* ... and its number + 1 */
	uint64_t bytes;
	uint32_t nslots; /* image slots; the loader's is number nslots */
	uint64_t slots_off;
	uint64_t arena_off, arena_bytes;
	uint64_t loader_off, loader_bytes;
} DfxRingMap;

/* A request, copied from its slot and checked. */
typedef struct DfxRequest
{
	uint32_t slot;
	uint64_t gen;
	uint64_t picked; /* the slot's word when it was read */
	DfxRingOp op;
	DfxPriority priority;
	DfxPrecision precision;
	bool solo;
	uint64_t order;
	uint64_t rank; /* in the order of service */
	const uint8_t *in;
	uint64_t in_len;
	uint8_t *reply;
	uint64_t reply_cap;
	DfxImageLimits limits;
	DfxPerturbation how;
	uint32_t class;
	bool fast_decode;
	uint8_t version[DFX_VERSION_LEN];
} DfxRequest;

/* Map the ring behind fd as engine number engine, and check its header.  DFX_EIO, DFX_EINVAL. */
extern DfxStatus dfx_ring_map(int fd, uint32_t engine, DfxRingMap *map, DfxErr *err);
extern void dfx_ring_unmap(DfxRingMap *map);

/* The generation waiting in slot i for this engine, 0 when there is none (or it is picked, or answered). */
extern uint64_t dfx_ring_pending(const DfxRingMap *map, uint32_t i);

/*
 * Where slot i stands in the order of service, without taking the request: by
 * age, but each step down in priority lets as many later ones pass as the ring has
 * slots.  So a request of a higher priority goes first, and yet everybody's turn comes.
 */
extern uint64_t dfx_ring_rank(const DfxRingMap *map, uint32_t i);

/*
 * Copy request gen out of slot i.  DFX_EINVAL with what is wrong when it is
 * malformed; *req is then good for dfx_ring_answer() only.
 */
extern DfxStatus dfx_ring_read(const DfxRingMap *map, uint32_t i, uint64_t gen, DfxRequest *req, DfxErr *err);

/*
 * Take the request, which was read, so that no other engine does.  False when
 * another one has been faster, or it is not there any more: forget it then.
 */
extern bool dfx_ring_pick(const DfxRingMap *map, const DfxRequest *req);

/* Whether the owner has gone away. */
extern bool dfx_ring_canceled(const DfxRingMap *map, const DfxRequest *req);

/*
 * Whether a request older than order that waits, or is this engine's, needs the
 * version: a DfxNeeds (cache.h), map its arg.
 */
extern bool dfx_ring_needs(void *map, const uint8_t *version, uint64_t order);

/* Whether requests of that kind run on a model. */
extern bool dfx_ring_wants_model(DfxRingOp op);

/*
 * Publish that the request has been touched: from here on a crash is blamed on
 * it.  And that no crash to come is its fault: it will be run again instead.
 */
extern void dfx_ring_start(const DfxRingMap *map, const DfxRequest *req);
extern void dfx_ring_absolve(const DfxRingMap *map, const DfxRequest *req);

/*
 * Publish the answer.  reply_len bytes are already at req->reply.  err gives
 * message and hint (NULL: none).  The slot may have a new owner on return.
 */
extern void dfx_ring_answer(const DfxRingMap *map, const DfxRequest *req, DfxStatus status, const DfxErr *err,
                            uint32_t batch, uint64_t reply_len);

/* Futex of proto.h: sleep until wake differs from seen (or a second has passed); wake a sleeper. */
extern uint32_t dfx_ring_wake_word(const DfxRingMap *map);
extern void dfx_ring_set_sleeping(const DfxRingMap *map, bool sleeping);
extern void dfx_ring_sleep(const DfxRingMap *map, uint32_t seen);
extern void dfx_ring_kick(const DfxRingMap *map);

/* CLOCK_MONOTONIC in nanoseconds. */
extern uint64_t dfx_now_ns(void);

#endif /* DFX_ENGINE_RING_H */
