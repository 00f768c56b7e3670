/*
 * sha256_block.h
 *	  The two block functions behind sha256.h, private to src/base and its test,
 *	  which compares them.
 */
#ifndef DFX_BASE_SHA256_BLOCK_H
#define DFX_BASE_SHA256_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern const uint32_t dfx_sha256_k[64];

/* Fold n blocks of 64 bytes at p into state. */
extern void dfx_sha256_blocks_portable(uint32_t state[8], const uint8_t *p, size_t n);

/* The same by the x86 SHA extensions; only to be called where dfx_sha256_have_ni(). */
extern bool dfx_sha256_have_ni(void);
extern void dfx_sha256_blocks_ni(uint32_t state[8], const uint8_t *p, size_t n);

#endif /* DFX_BASE_SHA256_BLOCK_H */
