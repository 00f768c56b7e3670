/*
 * proto.h
 *	  The ring: what PostgreSQL and the engine share, and nothing else.
 *
 * One memfd, mapped by the postmaster's children and by the engine:
 *
 *	offset 0			DfxRing						(DFX_RING_HEADER bytes)
 *	slots_off			DfxSlot[nslots + 1]			(the last one is the loader's)
 *	arena_off			image requests: input pages and reply pages
 *	loader_off			DFX_LOADER_BYTES			(weights only)
 *
 * Trust.  The engine parses hostile images, so PostgreSQL treats everything it
 * can write as hostile: who owns a slot is decided only in PostgreSQL's shared
 * memory, and every number read back from here is checked.  The engine in its
 * turn bounds-checks what it reads, so that a stray write cannot kill it.
 *
 * Publication.  A request has a generation, a 64-bit number never used again.
 *
 *	  owner: fill the request words, then submit_gen = gen		(seq_cst)
 *	  engine: start_gen = gen when it first touches the request
 *	  engine: fill the response words and reply, then done_gen = gen	(release)
 *	  owner gone: cancel_gen = gen; the engine still answers, with DFX_ECANCELED
 *
 * There is no queue: an engine scans the slots for those with submit_gen != 0
 * and != done_gen, by order and priority (dfx_ring_rank()).
 *
 * Several engines.  Each device of dfx.device has an engine of its own, with a
 * number from 0 and a part of the header (DfxRing.engine); all pick from the
 * same slots.  An engine picks a request by a compare-and-swap of picked, after
 * which no other one touches it; a request with engine != 0 is for one of them
 * only.  Of a dead engine the supervisor gives back what it had picked, under
 * the same generation, and never what another one has.
 *
 * Waking.  An engine sleeps in FUTEX_WAIT on its wake: it reads wake, sets
 * sleeping, scans once more, then waits for wake to change.  A submitter that
 * sees sleeping != 0 after its submit_gen store increments wake and calls
 * FUTEX_WAKE.  No descriptor is needed for it.
 *
 * Control socket (SOCK_SEQPACKET; engine -> supervisor).  First byte of a message:
 *	  'R'			ready to serve
 *	  'D'			some request is done
 *	  'L' level text	a log line
 *	  'F' text		cannot serve at all (device absent ...); the engine exits with 1 after it
 * The engine exits with 0 when the socket is closed.
 */
#ifndef DFX_ENGINE_PROTO_H
#define DFX_ENGINE_PROTO_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"
#include "base/perturbation.h"
#include "base/version.h"

#define DFX_RING_MAGIC      0x44465852u /* "DFXR" */
#define DFX_RING_VERSION    6u
#define DFX_PAGE            4096u
#define DFX_MAX_ENGINES     8 /* devices in one dfx.device */
#define DFX_RING_HEADER     (24 * DFX_PAGE)
#define DFX_RING_MODELS     128 /* versions that an engine keeps statistics of; more than are ever resident */
#define DFX_MAX_SLOTS       1024
#define DFX_LOADER_BYTES    (16u << 20)
#define DFX_MAX_BATCH       128
#define DFX_MAX_FEATURES    (3 * 4096) /* floats in a features reply at the most; 3 x D fits */
#define DFX_REPLY_VERDICT   256        /* bytes reserved for each kind of reply */
#define DFX_REPLY_FEATURES  (64u << 10)
#define DFX_REPLY_HEATMAP   (256u << 10) /* a PNG of 256 x 256 that does not compress takes 197 kB */
#define DFX_REPLY_IMAGE_MIN (1u << 20)   /* or the size of the input, if that is more ... */
#define DFX_REPLY_IMAGE_MAX 0x3fffff00u  /* ... and never more than a bytea holds */

typedef enum DfxRingOp
{
	DFX_RING_PING = 0,   /* no payload, no model; answers DFX_OK: measures the round trip */
	DFX_RING_CLASSIFY,   /* encoded image -> DfxVerdictReply */
	DFX_RING_FEATURES,   /* encoded image -> float[] (3 x D, or D) */
	DFX_RING_IMAGE_INFO, /* encoded image -> DfxInfoReply; needs no model */
	DFX_RING_PERTURB,    /* encoded image -> JPEG for "jpeg", PNG otherwise; needs no model */
	DFX_RING_HEATMAP,    /* encoded image -> PNG; at DFX_PRIORITY_BULK, one at a time */
	DFX_RING_CALIBRATE,  /* encoded image -> for each convolution that 8-bit integers can compute: the name of
	                        its scale with a NUL, and its largest input, a float; in precision fp32 only */
	DFX_RING_LOAD_BEGIN, /* loader slot: DfxLoadBegin -> DfxLoadReply, or DFX_BUSY, DFX_ELIMIT */
	DFX_RING_LOAD_DATA,  /* loader slot: the next bytes of the canonical stream of base/version.h */
	DFX_RING_LOAD_END,   /* loader slot: verify the hash, build, compile; then the version is resident.
	                        DFX_EWEIGHTS: the reply is text, all tensors that do not fit */
	DFX_RING_LOAD_ABORT, /* loader slot: forget the load in progress */
	DFX_RING_EVICT,      /* loader slot: drop the version if nothing uses it (DFX_BUSY otherwise) */
	DFX_RING_OP_COUNT
} DfxRingOp;

typedef enum DfxPriority
{
	DFX_PRIORITY_INTERACTIVE = 0,
	DFX_PRIORITY_NORMAL,
	DFX_PRIORITY_BULK
} DfxPriority;

/* Order of the paper and of every array of class scores here. */
enum
{
	DFX_CLASS_DM = 0,
	DFX_CLASS_GAN,
	DFX_CLASS_REAL,
	DFX_CLASS_SYNTHETIC, /* as a label only of binary models */
	DFX_CLASS_ANY,       /* in a request: that of the verdict */
	DFX_NCLASS = 3
};

typedef struct DfxVerdictReply
{
	uint32_t label;  /* DFX_CLASS_* */
	uint32_t binary; /* non-zero: p_dm and p_gan are not meaningful */
	float confidence, p_synthetic, p_dm, p_gan, p_real;
	char generator[64]; /* NUL-terminated, "" when the model does not name one */
} DfxVerdictReply;

typedef struct DfxInfoReply
{
	char format[8];
	uint32_t width, height, channels, bits;
} DfxInfoReply;

typedef struct DfxLoadBegin
{
	uint64_t stream_bytes; /* of the whole canonical stream, "dfx1\n" included */
	uint64_t order;        /* of the request that needs it: models needed by older requests stay */
	uint32_t meta_len;     /* bytes of the metadata lines after "dfx1\n" */
	uint32_t ntensor;
} DfxLoadBegin;

typedef struct DfxLoadReply
{
	uint32_t resident; /* LOAD_BEGIN: it is already there, send nothing */
	uint64_t bytes;    /* LOAD_END: device memory it takes */
} DfxLoadReply;

typedef struct DfxSlot
{
	/* ---- request: written by the owning backend before submit_gen ---- */
	uint32_t op;        /* DfxRingOp */
	uint32_t priority;  /* DfxPriority */
	uint32_t precision; /* DfxPrecision of nn/backend.h, as a number */
	uint32_t solo;      /* suspected of killing the engine: run it with nothing else in flight (set by the
	                       supervisor) */
	uint64_t order;     /* queue position: of the request's first submission, see slot.c */
	uint64_t in_off, in_len;        /* payload, from the start of the ring */
	uint64_t reply_off, reply_cap;  /* reserved reply room, from the start of the ring */
	uint64_t max_bytes, max_pixels; /* image limits of the caller */
	DfxPerturbation how;            /* done to the image first; all zeroes: nothing */
	uint8_t version[DFX_VERSION_LEN];
	_Atomic uint64_t submit_gen;
	_Atomic uint64_t cancel_gen;
	uint32_t class;       /* HEATMAP: DFX_CLASS_*; here, so that the words above stay where they were */
	uint32_t fast_decode; /* non-zero: dfx_image_prepare_fast(), unless the image is perturbed */
	uint32_t engine;      /* 0: for any engine; else for number engine - 1, as the loader's always are */

	/* ---- response: written by the engine before done_gen ---- */
	_Alignas(64) _Atomic uint64_t start_gen;
	_Atomic uint64_t done_gen;
	uint32_t status;          /* DfxStatus */
	uint32_t batch;           /* how many images ran together with this one */
	uint64_t reply_len;       /* bytes written; with DFX_TOO_SMALL: bytes needed */
	uint64_t t_start, t_done; /* CLOCK_MONOTONIC, ns */
	_Atomic uint64_t picked;  /* dfx_picked() of the request that was picked last */
	char msg[DFX_MSG_LEN];
	char hint[DFX_HINT_LEN];
} DfxSlot;

#define DFX_SLOT_STRIDE 1024u
_Static_assert(sizeof(DfxSlot) <= DFX_SLOT_STRIDE, "a slot fits its stride");

/*
 * A generation and who has picked it, in one word so that a death in between
 * cannot part them: engine is a number + 1, 0 when it was given back.  Read the
 * word before the generations of the slot, and pick by compare-and-swap from
 * the value read: then the request that was seen is the one that is picked.
 */
#define DFX_PICKED_BY 16
_Static_assert(DFX_MAX_ENGINES < DFX_PICKED_BY, "an engine's number + 1 fits");

static inline uint64_t
dfx_picked(uint64_t gen, uint32_t engine)
{
	return gen * DFX_PICKED_BY + engine;
}

/* Who has picked generation gen, by the word picked: a number + 1, or 0. */
static inline uint32_t
dfx_picked_by(uint64_t picked, uint64_t gen)
{
	return picked / DFX_PICKED_BY == gen ? (uint32_t) (picked % DFX_PICKED_BY) : 0;
}

/* Cumulative since the engine started; written by the engine, read by anyone for statistics only. */
typedef struct DfxRingStats
{
	_Atomic uint64_t started;  /* CLOCK_REALTIME, ns */
	_Atomic uint64_t progress; /* moves while work proceeds: the supervisor's watchdog reads it */
	_Atomic uint64_t requests, images, batches, canceled, image_errors;
	_Atomic uint64_t decode_ns, inference_ns; /* summed over threads; over batches, which may overlap */
	_Atomic uint64_t largest_batch;
	_Atomic uint64_t model_loads, model_evictions, models, model_bytes, model_limit;
} DfxRingStats;

/*
 * What the engine knows about one model version at one precision.  An entry
 * stays when its model is evicted, until the engine needs its place.
 *
 * The engine writes (one thread at a time), others read at any moment: seq is
 * odd while the entry is being written, and moves with every writing.
 */
typedef struct DfxModelStat
{
	uint32_t precision; /* DfxPrecision as a number, never 0 in an entry that is used */
	uint32_t resident;
	uint8_t version[DFX_VERSION_LEN];
	uint64_t bytes;    /* that it takes, or took, on the device */
	uint64_t loads;    /* since the engine started */
	uint64_t hits;     /* requests that it has served */
	uint64_t last_use; /* CLOCK_REALTIME, ns; 0: never */
} DfxModelStat;

typedef struct DfxRingModel
{
	_Atomic uint64_t seq;
	DfxModelStat stat;
} DfxRingModel;

/* One engine's part of the header; all but wake is written by that engine only. */
typedef struct DfxRingEngine
{
	_Alignas(64) _Atomic uint32_t wake;
	_Atomic uint32_t sleeping;
	_Alignas(64) DfxRingStats stats;
	char device[128];  /* what it runs on, before 'R' */
	char refused[512]; /* which backends were refused, and why */
	_Alignas(64) DfxRingModel model[DFX_RING_MODELS];
} DfxRingEngine;

typedef struct DfxRing
{
	/* written once, by PostgreSQL, before anyone else maps it */
	uint32_t magic, version;
	uint32_t nslots; /* without the loader's */
	uint64_t slots_off;
	uint64_t arena_off, arena_bytes;
	uint64_t loader_off, loader_bytes;
	uint64_t total_bytes;

	DfxRingEngine engine[DFX_MAX_ENGINES];
} DfxRing;
_Static_assert(sizeof(DfxRing) <= DFX_RING_HEADER, "the ring header fits its room");

static inline DfxSlot *
dfx_ring_slot(DfxRing *ring, uint32_t i)
{
	return (DfxSlot *) ((char *) ring + ring->slots_off + (uint64_t) i * DFX_SLOT_STRIDE);
}

/*
 * How the supervisor starts the engine, always with all of these:
 *
 *	dfx-engine serve --device D --engine N --engines COUNT --threads N --max-batch N
 *		--batch-wait MS --model-memory BYTES --gpu-memory BYTES --parent PID
 *
 * D is one device, the engine's own.  COUNT engines share the threads.
 * PID is the supervisor's: an engine whose getppid() is another one at start
 * has lost its parent already and must exit.  The ring descriptor is an open
 * file description of its own, so an OFD lock on its byte number N (the lease:
 * one engine of each number) lasts as long as the engine does.
 *
 * Descriptor numbers that the engine finds open at start, besides 0-2:
 */
#define DFX_ENGINE_RING_FD    3
#define DFX_ENGINE_CONTROL_FD 4

#endif /* DFX_ENGINE_PROTO_H */
