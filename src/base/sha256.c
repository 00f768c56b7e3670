/*
 * sha256.c
 *	  SHA-256 (FIPS 180-4): the message schedule in plain C, padding, dispatch.
 *
 * The block function is chosen at run time by what the CPU can do
 * (sha256_ni.c).
 */
#include "base/sha256.h"

#include <string.h>

#include "base/sha256_block.h"

const uint32_t dfx_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t
sha_rotr(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static inline uint32_t
sha_load_be32(const uint8_t *p)
{
	return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

static void
sha_store_be32(uint8_t *p, uint32_t x)
{
	p[0] = (uint8_t) (x >> 24);
	p[1] = (uint8_t) (x >> 16);
	p[2] = (uint8_t) (x >> 8);
	p[3] = (uint8_t) x;
}

/* FIPS 180-4 section 6.2.2, with its names: W, a to h, T1, T2. */
static void
sha_block(uint32_t state[8], const uint8_t *p)
{
	uint32_t w[64];
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

	for (int i = 0; i < 16; i++)
		w[i] = sha_load_be32(p + 4 * i);
	for (int i = 16; i < 64; i++)
	{
		uint32_t s0 = sha_rotr(w[i - 15], 7) ^ sha_rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
		uint32_t s1 = sha_rotr(w[i - 2], 17) ^ sha_rotr(w[i - 2], 19) ^ w[i - 2] >> 10;

		w[i] = w[i - 16] + s0 + w[i - 7] + s1;
	}
	for (int i = 0; i < 64; i++)
	{
		uint32_t s1 = sha_rotr(e, 6) ^ sha_rotr(e, 11) ^ sha_rotr(e, 25);
		uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + dfx_sha256_k[i] + w[i];
		uint32_t s0 = sha_rotr(a, 2) ^ sha_rotr(a, 13) ^ sha_rotr(a, 22);
		uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));

		h = g;
		g = f;
		f = e;
		e = d + t1;
		d = c;
		c = b;
		b = a;
		a = t1 + t2;
	}
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
	state[4] += e;
	state[5] += f;
	state[6] += g;
	state[7] += h;
}

void
dfx_sha256_blocks_portable(uint32_t state[8], const uint8_t *p, size_t n)
{
	for (; n > 0; n--, p += 64)
		sha_block(state, p);
}

static void
sha_blocks(uint32_t state[8], const uint8_t *p, size_t n)
{
	if (dfx_sha256_have_ni())
		dfx_sha256_blocks_ni(state, p, n);
	else
		dfx_sha256_blocks_portable(state, p, n);
}

void
dfx_sha256_init(DfxSha256 *s)
{
	static const uint32_t first[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

	memcpy(s->state, first, sizeof first);
	s->total = 0;
}

void
dfx_sha256_update(DfxSha256 *s, const void *data, size_t n)
{
	const uint8_t *p = data;
	size_t held = s->total % 64;

	if (n == 0)
		return; /* p may be NULL, which memcpy must not see */
	s->total += n;
	if (held > 0)
	{
		size_t take = n < 64 - held ? n : 64 - held;

		memcpy(s->block + held, p, take);
		p += take;
		n -= take;
		if (held + take < 64)
			return;
		sha_blocks(s->state, s->block, 1);
	}
	if (n >= 64)
		sha_blocks(s->state, p, n / 64);
	memcpy(s->block, p + n / 64 * 64, n % 64);
}

void
dfx_sha256_final(DfxSha256 *s, uint8_t digest[32])
{
	static const uint8_t padding[64] = {0x80};
	uint64_t bits = s->total * 8;
	size_t held = s->total % 64;
	uint8_t length[8];

	sha_store_be32(length, (uint32_t) (bits >> 32));
	sha_store_be32(length + 4, (uint32_t) bits);
	dfx_sha256_update(s, padding, (held < 56 ? 56 : 120) - held);
	dfx_sha256_update(s, length, sizeof length);
	for (int i = 0; i < 8; i++)
		sha_store_be32(digest + 4 * i, s->state[i]);
}
