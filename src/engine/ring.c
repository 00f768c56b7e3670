/*
 * ring.c
 *	  The engine's end of the ring: mapping, reading requests, answering, sleeping.
 *
 * Memory order.  submit_gen, cancel_gen, picked, wake and sleeping are sequentially
 * consistent on both sides: "store sleeping, then scan" here against "store
 * submit_gen, then load sleeping" there needs a total order, or a request
 * could be submitted to an engine that has just decided to sleep.  done_gen
 * is a release store after every response word.
 */
#include "engine/ring.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A progressive JPEG with more scans than this is refused (image.h); callers set only bytes and pixels. */
#define RING_MAX_SCANS 100

uint64_t
dfx_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

/* --- mapping ------------------------------------------------------------- */

/* Whether [off, off + len) lies inside [base, base + size). */
static bool
ring_within(uint64_t off, uint64_t len, uint64_t base, uint64_t size)
{
	return off >= base && off - base <= size && len <= size - (off - base);
}

/* What is wrong with the header, NULL when nothing is.  The geometry is judged as copied into map. */
static const char *
ring_check(const DfxRingMap *map, uint32_t magic, uint32_t version, uint64_t total)
{
	uint64_t slots_bytes;

	if (magic != DFX_RING_MAGIC)
		return "it does not begin with the ring's magic number";
	if (version != DFX_RING_VERSION)
		return "it has another version than this engine";
	if (total != map->bytes)
		return "its header and its file disagree about its size";
	if (map->nslots == 0 || map->nslots > DFX_MAX_SLOTS)
		return "its number of slots is out of range";
	slots_bytes = ((uint64_t) map->nslots + 1) * DFX_SLOT_STRIDE;
	if (map->slots_off % DFX_SLOT_STRIDE != 0 || map->slots_off < sizeof(DfxRing) ||
	    !ring_within(map->slots_off, slots_bytes, 0, map->bytes))
		return "its slots lie outside of it";
	if (map->arena_bytes == 0 || !ring_within(map->arena_off, map->arena_bytes, 0, map->bytes) ||
	    map->arena_off < map->slots_off + slots_bytes)
		return "its arena lies outside of it";
	if (map->loader_bytes == 0 || !ring_within(map->loader_off, map->loader_bytes, 0, map->bytes) ||
	    map->loader_off < map->arena_off + map->arena_bytes)
		return "its loader region lies outside of it";
	return NULL;
}

DfxStatus
dfx_ring_map(int fd, uint32_t engine, DfxRingMap *map, DfxErr *err)
{
	struct stat st;
	const char *wrong;
	void *p;
	DfxRing *ring;

	memset(map, 0, sizeof *map);
	if (fstat(fd, &st) != 0)
		return dfx_fail(err, DFX_EIO, "descriptor %d is not a ring: %s", fd, strerror(errno));
	if (st.st_size < (off_t) sizeof(DfxRing))
		return dfx_fail(err, DFX_EINVAL, "descriptor %d is not a ring: it has %jd bytes", fd,
		                (intmax_t) st.st_size);
	p = mmap(NULL, (size_t) st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return dfx_fail(err, DFX_EIO, "could not map the ring: %s", strerror(errno));

	ring = p;
	*map = (DfxRingMap){.ring = ring,
	                    .own = &ring->engine[engine],
	                    .self = engine + 1,
	                    .bytes = (uint64_t) st.st_size,
	                    .nslots = ring->nslots,
	                    .slots_off = ring->slots_off,
	                    .arena_off = ring->arena_off,
	                    .arena_bytes = ring->arena_bytes,
	                    .loader_off = ring->loader_off,
	                    .loader_bytes = ring->loader_bytes};
	wrong = ring_check(map, ring->magic, ring->version, ring->total_bytes);
	if (wrong)
	{
		dfx_ring_unmap(map);
		return dfx_fail(err, DFX_EINVAL, "the ring cannot be used: %s", wrong);
	}
	return DFX_OK;
}

void
dfx_ring_unmap(DfxRingMap *map)
{
	if (map->ring)
		munmap(map->ring, (size_t) map->bytes);
	map->ring = NULL;
}

/* By the private copy of the geometry, unlike dfx_ring_slot(). */
static DfxSlot *
ring_slot(const DfxRingMap *map, uint32_t i)
{
	return (DfxSlot *) ((char *) map->ring + map->slots_off + (uint64_t) i * DFX_SLOT_STRIDE);
}

/* --- requests ------------------------------------------------------------ */

/* The generation in slot i that is not answered, and in *by who has picked it, or 0; 0 when there is none. */
static uint64_t
ring_unanswered(const DfxRingMap *map, uint32_t i, uint32_t *by)
{
	DfxSlot *slot = ring_slot(map, i);
	uint64_t picked = atomic_load(&slot->picked), gen = atomic_load(&slot->submit_gen);

	if (gen == atomic_load_explicit(&slot->done_gen, memory_order_relaxed))
		return 0;
	*by = dfx_picked_by(picked, gen);
	return gen;
}

/* Whether this engine may take the request in slot i. */
static bool
ring_concerns(const DfxRingMap *map, uint32_t i)
{
	uint32_t engine = ring_slot(map, i)->engine;

	return engine == 0 || engine == map->self;
}

uint64_t
dfx_ring_pending(const DfxRingMap *map, uint32_t i)
{
	uint32_t by = 0;
	uint64_t gen = ring_unanswered(map, i, &by);

	return gen != 0 && by == 0 && ring_concerns(map, i) ? gen : 0;
}

static DfxPriority
ring_priority(const DfxSlot *slot)
{
	uint32_t priority = slot->priority;

	return priority <= DFX_PRIORITY_BULK ? (DfxPriority) priority : DFX_PRIORITY_BULK;
}

uint64_t
dfx_ring_rank(const DfxRingMap *map, uint32_t i)
{
	const DfxSlot *slot = ring_slot(map, i);

	return slot->order + (uint64_t) ring_priority(slot) * map->nslots;
}

bool
dfx_ring_wants_model(DfxRingOp op)
{
	return op == DFX_RING_CLASSIFY || op == DFX_RING_FEATURES || op == DFX_RING_HEATMAP ||
	       op == DFX_RING_CALIBRATE;
}

bool
dfx_ring_needs(void *arg, const uint8_t *version, uint64_t order)
{
	const DfxRingMap *map = arg;

	for (uint32_t i = 0; i < map->nslots; i++)
	{
		const DfxSlot *slot = ring_slot(map, i);
		uint32_t by;

		if (ring_unanswered(map, i, &by) != 0 && (by == 0 || by == map->self) && ring_concerns(map, i) &&
		    slot->order < order && dfx_ring_wants_model((DfxRingOp) slot->op) &&
		    memcmp(slot->version, version, DFX_VERSION_LEN) == 0)
			return true;
	}
	return false;
}

static const bool ring_op_is_loader[DFX_RING_OP_COUNT] = {
    [DFX_RING_LOAD_BEGIN] = true, [DFX_RING_LOAD_DATA] = true, [DFX_RING_LOAD_END] = true,
    [DFX_RING_LOAD_ABORT] = true, [DFX_RING_EVICT] = true,
};

DfxStatus
dfx_ring_read(const DfxRingMap *map, uint32_t i, uint64_t gen, DfxRequest *req, DfxErr *err)
{
	DfxSlot *slot = ring_slot(map, i);
	bool loader = i == map->nslots;
	uint64_t base = loader ? map->loader_off : map->arena_off;
	uint64_t size = loader ? map->loader_bytes : map->arena_bytes;
	uint64_t in_off = slot->in_off, reply_off = slot->reply_off;
	uint32_t op = slot->op, precision = slot->precision;

	memset(req, 0, sizeof *req);
	req->slot = i;
	req->gen = gen;
	req->picked = atomic_load(&slot->picked);
	req->solo = slot->solo != 0;
	req->order = slot->order;
	req->rank = dfx_ring_rank(map, i);
	req->in_len = slot->in_len;
	req->reply_cap = slot->reply_cap;
	req->priority = ring_priority(slot);
	req->limits = (DfxImageLimits){
	    .max_bytes = slot->max_bytes, .max_pixels = slot->max_pixels, .max_scans = RING_MAX_SCANS};
	req->how = slot->how;
	req->class = slot->class;
	req->fast_decode = slot->fast_decode != 0;
	memcpy(req->version, slot->version, sizeof req->version);

	if (op >= DFX_RING_OP_COUNT || (ring_op_is_loader[op] != loader && op != DFX_RING_PING))
		return dfx_fail(err, DFX_EINVAL, "slot %" PRIu32 ": operation %" PRIu32 " does not belong here", i,
		                op);
	req->op = (DfxRingOp) op;
	if (precision >= DFX_PRECISION_COUNT)
		return dfx_fail(err, DFX_EINVAL, "slot %" PRIu32 ": there is no precision %" PRIu32, i, precision);
	req->precision = (DfxPrecision) precision;
	if (dfx_perturbation_check(&req->how, err) != DFX_OK)
		return DFX_EINVAL;
	if (req->in_len > 0)
	{
		if (!ring_within(in_off, req->in_len, base, size))
			return dfx_fail(err, DFX_EINVAL, "slot %" PRIu32 ": the payload lies outside the arena", i);
		req->in = (const uint8_t *) map->ring + in_off;
	}
	if (req->reply_cap > 0)
	{
		if (!ring_within(reply_off, req->reply_cap, base, size))
			return dfx_fail(err, DFX_EINVAL, "slot %" PRIu32 ": the reply room lies outside the arena", i);
		req->reply = (uint8_t *) map->ring + reply_off;
	}
	return DFX_OK;
}

bool
dfx_ring_pick(const DfxRingMap *map, const DfxRequest *req)
{
	DfxSlot *slot = ring_slot(map, req->slot);
	uint64_t seen = req->picked;

	/* Still this request, after picked was read: so while picked stays, it is nobody else's. */
	return dfx_picked_by(seen, req->gen) == 0 && atomic_load(&slot->submit_gen) == req->gen &&
	       atomic_load(&slot->done_gen) != req->gen &&
	       atomic_compare_exchange_strong(&slot->picked, &seen, dfx_picked(req->gen, map->self));
}

bool
dfx_ring_canceled(const DfxRingMap *map, const DfxRequest *req)
{
	return atomic_load(&ring_slot(map, req->slot)->cancel_gen) == req->gen;
}

void
dfx_ring_start(const DfxRingMap *map, const DfxRequest *req)
{
	DfxSlot *slot = ring_slot(map, req->slot);

	slot->t_start = dfx_now_ns();
	atomic_store(&slot->start_gen, req->gen);
}

void
dfx_ring_absolve(const DfxRingMap *map, const DfxRequest *req)
{
	atomic_store(&ring_slot(map, req->slot)->start_gen, 0);
}

void
dfx_ring_answer(const DfxRingMap *map, const DfxRequest *req, DfxStatus status, const DfxErr *err,
                uint32_t batch, uint64_t reply_len)
{
	DfxSlot *slot = ring_slot(map, req->slot);

	slot->status = (uint32_t) status;
	slot->batch = batch;
	slot->reply_len = reply_len;
	snprintf(slot->msg, sizeof slot->msg, "%s", err ? err->msg : "");
	snprintf(slot->hint, sizeof slot->hint, "%s", err ? err->hint : "");
	slot->t_done = dfx_now_ns();
	if (atomic_load_explicit(&slot->start_gen, memory_order_relaxed) != req->gen)
		slot->t_start = slot->t_done; /* answered without having been started */
	atomic_store_explicit(&slot->done_gen, req->gen, memory_order_release);
}

/* --- sleeping ------------------------------------------------------------ */

uint32_t
dfx_ring_wake_word(const DfxRingMap *map)
{
	return atomic_load(&map->own->wake);
}

void
dfx_ring_set_sleeping(const DfxRingMap *map, bool sleeping)
{
	atomic_store(&map->own->sleeping, sleeping ? 1u : 0u);
}

void
dfx_ring_sleep(const DfxRingMap *map, uint32_t seen)
{
	/* The second bounds the harm of a wake-up lost to a scribbled ring. */
	struct timespec limit = {.tv_sec = 1};

	syscall(SYS_futex, &map->own->wake, FUTEX_WAIT, seen, &limit, NULL, 0);
}

void
dfx_ring_kick(const DfxRingMap *map)
{
	atomic_fetch_add(&map->own->wake, 1);
	if (atomic_load(&map->own->sleeping))
		syscall(SYS_futex, &map->own->wake, FUTEX_WAKE, 1, NULL, NULL, 0);
}
