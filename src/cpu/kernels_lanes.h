/*
 * kernels_lanes.h
 *	  What loops that are compiled once for each instruction set are written in:
 *	  the compiler's vector types, and KERNEL, a loop's body, forced inline into
 *	  one wrapper for each set.
 */
#ifndef DFX_CPU_KERNELS_LANES_H
#define DFX_CPU_KERNELS_LANES_H

#define KERNEL static inline __attribute__((always_inline)) void

/* Unaligned by type: runs of odd channel counts start anywhere. */
typedef float V16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float V8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int M16 __attribute__((vector_size(64))); /* of comparisons */
typedef int M8 __attribute__((vector_size(32)));

#endif /* DFX_CPU_KERNELS_LANES_H */
