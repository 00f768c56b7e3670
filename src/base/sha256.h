/*
 * sha256.h
 *	  SHA-256 (FIPS 180-4), incremental.  x86 SHA extensions are used where the
 *	  CPU has them, chosen at run time; src/base links libc only, hence no OpenSSL.
 */
#ifndef DFX_BASE_SHA256_H
#define DFX_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct DfxSha256
{
	uint32_t state[8];
	uint64_t total;
	uint8_t block[64];
} DfxSha256;

extern void dfx_sha256_init(DfxSha256 *s);
extern void dfx_sha256_update(DfxSha256 *s, const void *p, size_t n);
extern void dfx_sha256_final(DfxSha256 *s, uint8_t digest[32]);

#endif /* DFX_BASE_SHA256_H */
