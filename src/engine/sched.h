/*
 * sched.h
 *	  The scheduler: from waiting slots through decoding and batches to answers.
 *
 *	slots --scan--> [decode queue] --decode threads--> [ready list] --lanes--> answers
 *
 * sched.c scans and admits (the main thread), decode.c decodes, batch.c runs
 * the device: a lane is a thread that runs one batch after the other, and there
 * are as many as the device runs batches side by side.  Every slot has one task
 * here; no queue can grow beyond the slots.
 *
 * Invariants
 *	1. A task is busy from its admission until its answer is published; its
 *	   slot is not looked at meanwhile.
 *	2. At most limit image tasks are busy: 2 x lanes x batch, or (lanes + 1) x batch
 *	   where lanes compute in turn.  So while the lanes run, what they run next is
 *	   decoded.  Interactive ones may be half as many more, or they would wait for
 *	   an answer to somebody else before they are even decoded.  That bounds
 *	   memory, and how many requests a crash can be blamed on.
 *	3. A solo task is busy alone: nothing is admitted beside it, the loader included;
 *	   it may be beside a heatmap that is absolved.
 *	4. A task is busy only after its request was picked (dfx_ring_pick): other engines
 *	   serve the same slots.
 *	5. lock guards everything below it; the ring's own words are atomics.
 *	   Order of locks: lock, then the cache's own.
 */
#ifndef DFX_ENGINE_SCHED_H
#define DFX_ENGINE_SCHED_H

#include <pthread.h>

#include "engine/heat.h"
#include "engine/loader.h"

#define DFX_MAX_INPUT_SIDE 256 /* of a network's input: every backbone's is 224 or 256 */
#define DFX_PIXELS_BYTES   ((size_t) DFX_MAX_INPUT_SIDE * DFX_MAX_INPUT_SIDE * 3)

/*
 * Pixels of the images being decoded at one time: 3 to 9 bytes each, depending
 * on the codec.  One image is always admitted, however large.
 */
#define DFX_DECODE_PIXELS 128000000u

typedef struct DfxTask
{
	DfxRequest req;
	bool busy;
	bool counted;          /* in DfxSched.busy: not so for answers given at once, nor for the loader */
	DfxResident *resident; /* held while busy; NULL for tasks without a model */
	const DfxModel *model;
	uint8_t *pixels; /* one buffer of the pool while busy */
	uint64_t ready_ns;
	struct DfxTask *next;
} DfxTask;

/* Sorted by rank. */
typedef struct DfxTaskList
{
	DfxTask *head;
	int n;
} DfxTaskList;

/* What runs one batch after the other, and what a batch needs besides its tasks. */
typedef struct DfxLane
{
	struct DfxSched *sched;
	DfxTask **task;
	uint8_t *in;
	float *features, *logits;
} DfxLane;

typedef struct DfxSched
{
	const DfxRingMap *map;
	DfxRingStats *stats;
	DfxCache *cache;
	DfxLoader *loader;
	const DfxDevice *device;
	int lanes;
	int batch;    /* images of one batch at the most */
	bool in_turn; /* lanes compute in turn, not side by side */
	int limit;
	int threads;
	uint64_t batch_wait_ns;
	DfxLane *lane;

	pthread_mutex_t lock;
	pthread_cond_t decode_cv; /* the decode queue has something */
	pthread_cond_t ready_cv;  /* the ready list has something */
	pthread_cond_t pixels_cv; /* decode_pixels fell */
	pthread_cond_t loader_cv; /* loader_work was set */
	DfxTask *task;            /* one for each slot, the loader's last */
	DfxTaskList decode, ready;
	int running;            /* images in the lanes' batches */
	bool loader_work;       /* the loader's task is there to be run */
	int busy;               /* image tasks */
	DfxTask *heating;       /* the one heatmap among them, if there is one ... */
	bool absolved;          /* ... and its first batch did no harm: no crash is blamed on it any more */
	int passed;             /* images that others have run since the last batch of it */
	bool solo;              /* the one busy task runs alone */
	bool blocked;           /* the scan left something behind: wake it when a task ends */
	uint64_t decode_pixels; /* of the images being decoded now */
	uint8_t *pool;          /* pixel buffers, one for each task that may be busy, then the lanes' ... */
	uint8_t **pool_free;    /* ... of which these are free */
	int pool_nfree;
	DfxHeat heat;    /* of heating, once it has begun; the lane's that has taken it off the ready list */
	bool answered;   /* the scan's own: this pass has answered something ... */
	bool solo_waits; /* ... and met a solo request that waits for everything else to end */
} DfxSched;

typedef struct DfxSchedOpts
{
	const DfxRingMap *map;
	const DfxDevice *device;
	DfxCache *cache;
	int lanes;    /* batches at a time ... */
	int batch;    /* ... of so many images at the most ... */
	bool in_turn; /* ... that compute in turn (nn/backend.h) */
	int threads;  /* that decode */
	uint64_t batch_wait_ns;
} DfxSchedOpts;

/* Allocate, start the threads.  DFX_ENOMEM, DFX_EINTERNAL. */
extern DfxStatus dfx_sched_start(DfxSched *s, const DfxSchedOpts *opts, DfxErr *err);

/* Serve for ever, in the calling thread. */
extern void dfx_sched_run(DfxSched *s) __attribute__((noreturn));

/* ---- between the stages ---- */

extern void dfx_task_insert(DfxTaskList *list, DfxTask *task);
extern DfxTask *dfx_task_pop(DfxTaskList *list);

/* Publish the answer of a busy task and let go of what it held.  Not with the lock held. */
extern void dfx_task_finish(DfxSched *s, DfxTask *task, DfxStatus status, const DfxErr *err, uint32_t batch,
                            uint64_t reply_len);

/* Bytes of the answer to a calibration request. */
extern uint64_t dfx_calibration_bytes(const DfxModel *m);

extern void *dfx_decode_thread(void *sched);
extern void *dfx_lane_thread(void *lane);

#endif /* DFX_ENGINE_SCHED_H */
