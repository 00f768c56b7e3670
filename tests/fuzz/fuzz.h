/*
 * fuzz.h
 *	  What the mutation drivers share: a seeded generator and byte mutations.
 *
 * The drivers are deterministic: the same seed gives the same inputs on every
 * machine.  DFX_FUZZ_ROUNDS in the environment multiplies the work, and
 * DFX_FUZZ_SEED starts elsewhere; make them count under SANITIZE=1.
 */
#ifndef DFX_TESTS_FUZZ_H
#define DFX_TESTS_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t fuzz_state;

/* splitmix64 */
static uint64_t
fuzz_next(void)
{
	uint64_t z = (fuzz_state += 0x9E3779B97F4A7C15u);

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return z ^ z >> 31;
}

/* 0 .. n-1 */
static size_t
fuzz_below(size_t n)
{
	return n ? (size_t) (fuzz_next() % n) : 0;
}

/* Seed from the environment; returns how many times the usual work is to be done. */
static size_t
fuzz_begin(void)
{
	const char *seed = getenv("DFX_FUZZ_SEED"), *rounds = getenv("DFX_FUZZ_ROUNDS");

	fuzz_state = seed ? strtoull(seed, NULL, 10) : 1;
	return rounds ? (size_t) strtoul(rounds, NULL, 10) : 1;
}

/*
 * One random change to the *len bytes at p, which has room for cap: bits and
 * bytes changed, interesting numbers written, a piece removed, repeated or
 * copied elsewhere, the end cut off.
 */
__attribute__((unused)) static void
fuzz_mutate(uint8_t *p, size_t *len, size_t cap)
{
	static const uint8_t interesting[] = {0x00, 0x01, 0x7f, 0x80, 0xff, 0xfe, 0x10, 0x20};
	size_t at = fuzz_below(*len), n = 1 + fuzz_below(16), to = fuzz_below(*len);

	if (*len == 0)
		return;
	if (n > *len - at)
		n = *len - at;
	switch (fuzz_below(7))
	{
		case 0:
			p[at] ^= (uint8_t) (1u << fuzz_below(8));
			break;
		case 1:
			p[at] = (uint8_t) fuzz_next();
			break;
		case 2:
			memset(p + at, interesting[fuzz_below(sizeof interesting)], n);
			break;
		case 3:
			memmove(p + at, p + at + n, *len - at - n);
			*len -= n;
			break;
		case 4:
			if (*len + n <= cap)
			{
				memmove(p + at + n, p + at, *len - at);
				*len += n;
			}
			break;
		case 5:
			if (n > *len - to)
				n = *len - to;
			memmove(p + to, p + at, n);
			break;
		default:
			if (fuzz_below(4) == 0)
				*len = at;
			else
				p[at]++;
			break;
	}
}

#endif /* DFX_TESTS_FUZZ_H */
