/*
 * train_wire.h
 *	  Frames to and from the session that a training engine belongs to (proto_train.h).
 *
 * A session that is gone needs nothing any more: end of file and broken pipes
 * end the process with status 0 wherever they are met.
 */
#ifndef DFX_ENGINE_TRAIN_WIRE_H
#define DFX_ENGINE_TRAIN_WIRE_H

#include <pthread.h>

#include "engine/proto_train.h"

typedef struct DfxWire
{
	int fd;
	pthread_mutex_t lock; /* held while a frame, or all frames of a blob, are sent */
} DfxWire;

/* A received blob, whole; bytes is a mapping. */
typedef struct DfxWireBlob
{
	DfxTrainBlob head;
	uint8_t *bytes;
} DfxWireBlob;

#define DFX_WIRE_BLOB_MAX ((uint64_t) 64 << 30)

/* DFX_EINVAL when fd is not a stream socket. */
extern DfxStatus dfx_wire_open(DfxWire *w, int fd, DfxErr *err);

/* Send a frame of two parts (the second may be empty); from any thread. */
extern void
dfx_wire_send(DfxWire *w, DfxFrameType type, const void *a, size_t alen, const void *b, size_t blen);

/* The same for news that nobody waits for: dropped when the session is behind. */
extern void dfx_wire_offer(DfxWire *w, DfxFrameType type, const void *a, size_t alen);

extern void
dfx_wire_send_blob(DfxWire *w, DfxBlobKind kind, const char *name, const uint8_t *bytes, uint64_t len);

/* Say err and end: the FAIL frame. */
extern void dfx_wire_fail(DfxWire *w, const DfxErr *err);

/* The head of the next frame.  DFX_EINVAL when it cannot be one. */
extern DfxStatus dfx_wire_next(DfxWire *w, DfxFrame *f, DfxErr *err);

/* Bytes of the frame whose head was read; skip: read and forget them. */
extern void dfx_wire_read(DfxWire *w, void *to, size_t len);
extern void dfx_wire_skip(DfxWire *w, uint64_t len);

/* The blob whose BLOB frame's head was read.  DFX_EINVAL, DFX_ELIMIT, DFX_ENOMEM; blob->bytes is NULL then.
 */
extern DfxStatus dfx_wire_read_blob(DfxWire *w, const DfxFrame *f, DfxWireBlob *blob, DfxErr *err);
extern void dfx_wire_free_blob(DfxWireBlob *blob);

#endif /* DFX_ENGINE_TRAIN_WIRE_H */
