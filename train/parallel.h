/*
 * parallel.h
 *	  A loop over independent items on several threads.
 */
#ifndef DFX_TRAIN_PARALLEL_H
#define DFX_TRAIN_PARALLEL_H

#include <stddef.h>

#include "base/err.h"

/* Item i; the first failure, by number, is the loop's. */
typedef DfxStatus (*DfxItem)(void *arg, size_t i, DfxErr *err);

/*
 * Do items 0 .. n-1 on at most threads threads, this one among them.  After a
 * failure no further item is begun.  Threads that cannot be had are done without.
 */
extern DfxStatus dfx_parallel(size_t n, int threads, DfxItem item, void *arg, DfxErr *err);

#endif /* DFX_TRAIN_PARALLEL_H */
