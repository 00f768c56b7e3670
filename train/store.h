/*
 * store.h
 *	  Decoded samples on disk: 256 x 256 x 3 bytes each, in one file without a
 *	  name, mapped for reading, so that training a table of any size needs the
 *	  memory that the kernel cares to give.
 */
#ifndef DFX_TRAIN_STORE_H
#define DFX_TRAIN_STORE_H

#include "image/image.h"

#define DFX_STORE_SIDE  DFX_RESIZE_SIDE
#define DFX_STORE_BYTES ((size_t) DFX_STORE_SIDE * DFX_STORE_SIDE * 3)

typedef struct DfxStore
{
	int fd; /* -1: not open */
	uint64_t limit;
	size_t n;    /* samples */
	size_t room; /* for how many the file has its blocks */
	const uint8_t *map;
} DfxStore;

/*
 * Make the file in dir ("": the system's directory for temporary files), to
 * take at most limit bytes (0: no limit).  DFX_EIO.
 */
extern DfxStatus dfx_store_open(DfxStore *c, const char *dir, uint64_t limit, DfxErr *err);
extern void dfx_store_close(DfxStore *c);

/*
 * Give the next sample its place, blocks and all: whoever has a place can
 * write to it.  DFX_ELIMIT over the limit, DFX_EIO when the disk is full.
 */
extern DfxStatus dfx_store_add(DfxStore *c, size_t *place, DfxErr *err);

/* Store a sample's pixels; from any thread.  DFX_EIO. */
extern DfxStatus dfx_store_write(const DfxStore *c, size_t place, const uint8_t *pixels, DfxErr *err);

/* After the last add: map the file.  DFX_EIO. */
extern DfxStatus dfx_store_map(DfxStore *c, DfxErr *err);

/* After map: room for bytes more in the same file, mapped for writing; dfx_store_drop() ends it.  DFX_EIO. */
extern DfxStatus dfx_store_extra(const DfxStore *c, size_t bytes, void **map, DfxErr *err);
extern void dfx_store_drop(void *map, size_t bytes);

static inline const uint8_t *
dfx_store_pixels(const DfxStore *c, size_t place)
{
	return c->map + place * DFX_STORE_BYTES;
}

#endif /* DFX_TRAIN_STORE_H */
