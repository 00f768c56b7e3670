/*
 * proto_train.h
 *	  Training: what a session (CALL dfx_train) and its own `dfx-engine train`
 *	  say to each other.
 *
 * The session forks the program with one end of a SOCK_STREAM socket pair as
 * descriptor 3 and both speak in frames: DfxFrame, then len bytes.  Neither
 * trusts the other's lengths and counts.  The order of the conversation:
 *
 *	session								engine
 *	CONFIG
 *										READY, or FAIL
 *	[BLOB INIT]		weights to start from
 *	SAMPLE ...							TAKEN for each, in order
 *	END									PLAN (or FAIL: too few rows, cache full ...)
 *	(writes down which row went where, commits)
 *	[BLOB CHECKPOINT]	to resume
 *	GO
 *										PROGRESS ...
 *										per epoch: EPOCH, then BLOB CHECKPOINT
 *	SAVED after each checkpoint is committed
 *										METRICS
 *										BLOB MODEL for each model made
 *										DONE
 *
 * LOG and FAIL may come at any time; after FAIL the engine exits.  The engine
 * trains on while a checkpoint is written down, but never begins to send one
 * before the last is SAVED: at most one epoch is lost with either process.
 * Nothing comes between a blob's frames.  TAKEN may lag behind SAMPLE by some
 * dozens and is sent without being asked for, so a session that sends must
 * read as well, or both wait for ever.
 * The session cancels by SIGTERM or by closing the socket; the engine exits
 * at once.  Integers are the machine's own; text is UTF-8 without NUL.
 */
#ifndef DFX_ENGINE_PROTO_TRAIN_H
#define DFX_ENGINE_PROTO_TRAIN_H

#include <stdint.h>

#include "base/err.h"
#include "base/training.h"

#define DFX_TRAIN_VERSION 1u
#define DFX_TRAIN_FD      3
#define DFX_FRAME_MAX     (1u << 30)  /* of an image; other frames are far smaller */
#define DFX_BLOB_DATA_MAX (4u << 20)  /* bytes of a blob in one frame, at most */
#define DFX_TRAIN_TEXT    (64u << 10) /* CONFIG, METRICS, PLAN's text */

typedef enum DfxFrameType
{
	/* session -> engine */
	DFX_FRAME_CONFIG = 1, /* JSON; see train/config.h for the keys */
	DFX_FRAME_SAMPLE,     /* DfxTrainSample, then the encoded image */
	DFX_FRAME_END,
	DFX_FRAME_GO,
	DFX_FRAME_SAVED,

	/* both ways: BLOB, BLOB_DATA ..., in order, until all of its bytes were sent */
	DFX_FRAME_BLOB = 16, /* DfxTrainBlob */
	DFX_FRAME_BLOB_DATA,

	/* engine -> session */
	DFX_FRAME_READY = 32, /* DfxTrainReady */
	DFX_FRAME_TAKEN,      /* DfxTrainTaken */
	DFX_FRAME_PLAN,     /* array of DfxTrainPlan, in as many frames as it takes: one for each sample that was
	                       taken, in the order of SAMPLE */
	DFX_FRAME_PROGRESS, /* DfxTrainProgress */
	DFX_FRAME_EPOCH,    /* DfxTrainEpoch */
	DFX_FRAME_METRICS,  /* JSON: the figures on the test split, for dfx_model_version.metrics */
	DFX_FRAME_DONE,
	DFX_FRAME_LOG, /* a level's letter as in base/err.h, then text */
	DFX_FRAME_FAIL /* DfxErr */
} DfxFrameType;

typedef struct DfxFrame
{
	uint32_t type; /* DfxFrameType */
	uint32_t zero;
	uint64_t len; /* bytes that follow */
} DfxFrame;

typedef struct DfxTrainReady
{
	uint32_t version; /* DFX_TRAIN_VERSION */
	uint32_t threads;
	char device[128];
} DfxTrainReady;

typedef struct DfxTrainTaken
{
	uint64_t number;
	uint32_t status; /* DFX_OK, or why the image cannot be used: DFX_EIMAGE, DFX_ELIMIT */
	uint32_t zero;
	char msg[DFX_MSG_LEN];
} DfxTrainTaken;

typedef enum DfxBlobKind
{
	DFX_BLOB_INIT = 1,   /* a safetensors file: the weights to start from */
	DFX_BLOB_CHECKPOINT, /* the engine's own, opaque to the session */
	DFX_BLOB_MODEL       /* a safetensors file as dfx_export_model() writes it */
} DfxBlobKind;

typedef struct DfxTrainBlob
{
	uint32_t kind; /* DfxBlobKind */
	uint32_t zero;
	uint64_t bytes;
	/*
	 * INIT: "": where every network starts (a backbone in torchvision's or
	 * timm's names; of a complete model each Base Model takes its branch), or a
	 * Base Model's class.  MODEL: "" for the result, else a part's suffix.
	 */
	char name[64];
} DfxTrainBlob;

/*
 * How a session starts it, always with all of these:
 *
 *	dfx-engine train --stream --parent PID --device D --threads N
 *		--gpu-memory BYTES --cache-dir DIR --cache-limit BYTES
 *
 * The cache file has no name (O_TMPFILE, or unlinked at once), so no death of
 * either process leaves it behind.
 */

#endif /* DFX_ENGINE_PROTO_TRAIN_H */
