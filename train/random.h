/*
 * random.h
 *	  The random choices of training: each a function of the run's seed, of
 *	  what it is for, and of the thing it is about, never of what was drawn
 *	  before.  So neither the order of rows nor a resumed run changes any.
 */
#ifndef DFX_TRAIN_RANDOM_H
#define DFX_TRAIN_RANDOM_H

#include <stddef.h>

#include "base/random.h"

/* What a choice is for. */
typedef enum DfxDraw
{
	DFX_DRAW_PART = 1, /* Base Models, head or test */
	DFX_DRAW_VAL,      /* training or validation inside the Base Models' part */
	DFX_DRAW_HEAD_VAL, /* the same inside the head's */
	DFX_DRAW_OTHERS,   /* who represents the other classes to a Base Model */
	DFX_DRAW_BALANCE,  /* which test images are left when classes are made equal */
	DFX_DRAW_SHUFFLE,  /* the order of an epoch */
	DFX_DRAW_DROPOUT,  /* masks of a step */
	DFX_DRAW_AUGMENT,  /* changes to an image */
	DFX_DRAW_INIT      /* first weights */
} DfxDraw;

/* 64 random bits for number i of the stream that key names. */
static inline uint64_t
dfx_draw_next(uint64_t key, uint64_t i)
{
	return dfx_mix64(key + (i + 1) * DFX_GOLDEN64);
}

/* The key of a choice: seed, purpose, and two numbers that narrow it down (a network, an epoch ...). */
static inline uint64_t
dfx_draw_key(uint64_t seed, DfxDraw draw, uint64_t a, uint64_t b)
{
	return dfx_draw_next(dfx_draw_next(dfx_draw_next(dfx_mix64(seed), (uint64_t) draw), a), b);
}

/* 64 bits of the 32 bytes of a hash, under a key. */
static inline uint64_t
dfx_draw_hash(uint64_t key, const uint8_t hash[32])
{
	for (int i = 0; i < 4; i++)
	{
		uint64_t word = 0;

		for (int b = 0; b < 8; b++)
			word |= (uint64_t) hash[8 * i + b] << (8 * b);
		key = dfx_mix64(key + word + DFX_GOLDEN64);
	}
	return key;
}

/* FNV-1a of a name, to tell streams of different networks apart. */
static inline uint64_t
dfx_draw_name(const char *name)
{
	uint64_t h = 0xCBF29CE484222325u;

	for (; *name; name++)
		h = (h ^ (unsigned char) *name) * 0x100000001B3u;
	return h;
}

#endif /* DFX_TRAIN_RANDOM_H */
