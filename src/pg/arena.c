/*
 * arena.c
 *	  Page allocator of the ring's arena: first fit over a bitmap.
 *
 * A request needs one contiguous run, for its image and its reply; runs live
 * for milliseconds and most have similar sizes, so first fit keeps the arena
 * compact enough, and a bitmap in PostgreSQL's own memory is all the state
 * there is: nothing that the engine writes can confuse it.
 *
 * No function here locks; callers hold the ring lock (shmem.h).
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "pg/arena.h"

#define ARENA_WORD_BITS 64

Size
dfx_arena_map_bytes(uint32 npages)
{
	return ((Size) npages + ARENA_WORD_BITS - 1) / ARENA_WORD_BITS * sizeof(uint64);
}

/* All pages free; bits after the last page are set, so that no run can end there. */
void
dfx_arena_init(DfxArena *arena, uint64 *map, uint32 npages)
{
	Size		bytes = dfx_arena_map_bytes(npages);

	memset(map, 0, bytes);
	if (npages % ARENA_WORD_BITS != 0)
		map[bytes / sizeof(uint64) - 1] = ~UINT64CONST(0) << (npages % ARENA_WORD_BITS);
	arena->npages = npages;
	arena->used = 0;
	arena->hint = 0;
	arena->map = map;
}

/* The first page at or after from whose bit is (taken ? 1 : 0), at the most limit. */
static uint32
arena_next(const DfxArena *arena, uint32 from, uint32 limit, bool taken)
{
	uint64		flip = taken ? 0 : ~UINT64CONST(0);

	while (from < limit)
	{
		uint64		word = (arena->map[from / ARENA_WORD_BITS] ^ flip) >> (from % ARENA_WORD_BITS);

		if (word != 0)
			return Min(limit, from + pg_rightmost_one_pos64(word));
		from += ARENA_WORD_BITS - from % ARENA_WORD_BITS;
	}
	return limit;
}

static void
arena_mark(DfxArena *arena, uint32 first, uint32 n, bool taken)
{
	for (uint32 page = first, end = first + n; page < end;)
	{
		uint32		bit = page % ARENA_WORD_BITS;
		uint32		count = Min(end - page, ARENA_WORD_BITS - bit);
		uint64		mask = (~UINT64CONST(0) >> (ARENA_WORD_BITS - count)) << bit;
		uint64	   *word = &arena->map[page / ARENA_WORD_BITS];

		Assert((*word & mask) == (taken ? 0 : mask));
		if (taken)
			*word |= mask;
		else
			*word &= ~mask;
		page += count;
	}
}

/* Take n contiguous pages; returns the first, or DFX_ARENA_FULL.  n may be 0. */
uint32
dfx_arena_take(DfxArena *arena, uint32 n)
{
	uint32		page = arena->hint;

	if (n == 0)
		return 0;
	if (n > arena->npages - arena->used)
		return DFX_ARENA_FULL;
	while ((page = arena_next(arena, page, arena->npages, false)) < arena->npages)
	{
		uint32		end;

		if (n > arena->npages - page)
			break;
		end = arena_next(arena, page, page + n, true);
		if (end == page + n)
		{
			arena_mark(arena, page, n, true);
			arena->used += n;
			if (page == arena->hint)
				arena->hint = page + n;
			return page;
		}
		page = end;
	}
	return DFX_ARENA_FULL;
}

/* Give back a run as it was taken. */
void
dfx_arena_give(DfxArena *arena, uint32 first, uint32 n)
{
	if (n == 0)
		return;
	arena_mark(arena, first, n, false);
	arena->used -= n;
	arena->hint = Min(arena->hint, first);
}
