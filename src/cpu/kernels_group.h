/*
 * kernels_group.h
 *	  The loops of grouped convolutions (group.c), over values in nChw16c: there
 *	  is a table of them for floats and one for bf16.
 *
 * A unit is what one multiplication takes of a pixel: an input channel, or in
 * bf16 two neighbouring ones.  Both are words of 32 bits.  A set is the planes of
 * 16 channels that depend on each other: one, in which there may be several groups, or
 * as many as a group has.  The weights of a set are
 *	  weights[output plane][input plane][row of the kernel][unit][column of the kernel][16 outputs]
 * words, where the unit counts within an output's group.
 */
#ifndef DFX_CPU_KERNELS_GROUP_H
#define DFX_CPU_KERNELS_GROUP_H

#include "cpu/kernels.h"

#define CPU_GROUP_LANES 16
#define CPU_GROUP_TAPS  3  /* a kernel is 3 x 3, with a padding of 1 */
#define CPU_GROUP_TILE  16 /* pixels that are computed together, at most */

typedef struct CpuGroupConv
{
	int h, w; /* the source's pixels, and the result's */
	int oh, ow;
	int stride; /* 1 or 2 */
	int planes; /* of a set */
	int width;  /* channels of a group, 16 at most: of those of a plane that an output depends on */
	bool relu;
} CpuGroupConv;

typedef struct CpuGroupKernels
{
	const char *name;

	/*
	 * One set of an image: the sums + bias (16 for each plane), max(0, .) if relu.
	 * dst, src: the set's first plane; rows: scratch memory, cpu_group_scratch() bytes.
	 */
	void (*convolve)(void *dst, void *rows, const void *src, const CpuGroupConv *g, const void *weights,
	                 const float *bias);
} CpuGroupKernels;

/* Units of a group in a plane. */
static inline int
cpu_group_units(const CpuGroupConv *g, CpuType type)
{
	return type == CPU_BF16 ? g->width / 2 : g->width;
}

/* Words of a set's weights. */
static inline size_t
cpu_group_weights(const CpuGroupConv *g, CpuType type)
{
	return (size_t) (g->planes * g->planes * CPU_GROUP_TAPS * CPU_GROUP_TAPS * cpu_group_units(g, type)) *
	       CPU_GROUP_LANES;
}

/* Pixels of a row of the source as it lies in scratch memory: with padding, for whole tiles. */
static inline size_t
cpu_group_row(const CpuGroupConv *g)
{
	const int whole = (g->ow + CPU_GROUP_TILE - 1) / CPU_GROUP_TILE * CPU_GROUP_TILE;

	return (size_t) ((whole - 1) * g->stride + CPU_GROUP_TAPS);
}

/* Of each plane of a set as many rows as a kernel has; and a pixel more, for what is loaded with the last
 * one.
 */
static inline size_t
cpu_group_scratch(const CpuGroupConv *g, CpuType type)
{
	return ((size_t) (g->planes * CPU_GROUP_TAPS) * cpu_group_row(g) + 1) * CPU_GROUP_LANES * cpu_size(type);
}

/* For CPUs with AVX-512, the second with its instructions for bf16; NULL elsewhere than on x86-64. */
extern const CpuGroupKernels *cpu_group_kernels(void);
extern const CpuGroupKernels *cpu_group_bf16_kernels(void);

#endif /* DFX_CPU_KERNELS_GROUP_H */
