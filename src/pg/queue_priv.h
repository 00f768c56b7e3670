/*
 * queue_priv.h
 *	  What queue.c and loader.c share.
 */
#ifndef DFX_PG_QUEUE_PRIV_H
#define DFX_PG_QUEUE_PRIV_H

#include "utils/resowner.h"

#include "pg/queue.h"

extern void dfx_queue_init(void);
extern void dfx_queue_at_exit(void);
extern void dfx_queue_fill(int slot, DfxRingOp op, const uint8 *version);
extern void dfx_queue_require_engine(void);

extern void dfx_loader_release(ResourceOwner owner);

#endif							/* DFX_PG_QUEUE_PRIV_H */
