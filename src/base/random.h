/*
 * random.h
 *	  Numbers that look random and are a pure function of a key, so that
 *	  weights, masks, splits and shuffles repeat on every machine, in any order
 *	  and from any thread.
 */
#ifndef DFX_BASE_RANDOM_H
#define DFX_BASE_RANDOM_H

#include <stdint.h>

/* Of functions that CUDA's compiler makes for the device as well. */
#ifdef __CUDACC__
#define DFX_ANYWHERE static inline __host__ __device__
#else
#define DFX_ANYWHERE static inline
#endif

/* The increment and the finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
 * generators", 2014): element i of a stream is dfx_mix64(key + i * DFX_GOLDEN64). */
#define DFX_GOLDEN64 0x9E3779B97F4A7C15u

DFX_ANYWHERE uint64_t
dfx_mix64(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	return z ^ (z >> 31);
}

/* 53 of the bits as a number in [0, 1). */
DFX_ANYWHERE double
dfx_unit64(uint64_t z)
{
	return (double) (z >> 11) * 0x1p-53;
}

#endif /* DFX_BASE_RANDOM_H */
