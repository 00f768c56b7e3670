/*
 * reply.h
 *	  Reading what the engine wrote (reply.c).
 */
#ifndef DFX_PG_REPLY_H
#define DFX_PG_REPLY_H

#include "pg/compat.h"
#include "pg/queue.h"

extern void dfx_reply_read(int slot, uint64 reply_off, Size reply_cap, DfxReply *reply);
extern void dfx_clean_text(char *to, Size to_size, const char *from, Size from_size);
pg_noreturn extern void dfx_unavailable(const char *reason);

#endif							/* DFX_PG_REPLY_H */
