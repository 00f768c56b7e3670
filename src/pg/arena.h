/*
 * arena.h
 *	  Which pages of the ring's arena are taken (arena.c).
 */
#ifndef DFX_PG_ARENA_H
#define DFX_PG_ARENA_H

#include "postgres.h"

typedef struct DfxArena
{
	uint32		npages;			/* constant */
	uint32		used;
	uint32		hint;			/* no page below it is free */
	uint64	   *map;			/* one bit a page; set: taken, or beyond npages */
} DfxArena;

#define DFX_ARENA_FULL PG_UINT32_MAX

extern Size dfx_arena_map_bytes(uint32 npages);
extern void dfx_arena_init(DfxArena *arena, uint64 *map, uint32 npages);
extern uint32 dfx_arena_take(DfxArena *arena, uint32 n);
extern void dfx_arena_give(DfxArena *arena, uint32 first, uint32 n);

#endif							/* DFX_PG_ARENA_H */
