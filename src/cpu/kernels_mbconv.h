/*
 * kernels_mbconv.h
 *	  The loops of inverted residual blocks (mbconv.c), over values in
 *	  nChw16c: there is a table of them for floats and one for bf16.
 *
 * Weights of a 1x1 convolution come by blocks of 16 output channels.  In a
 * plan they are floats, "ready to be multiplied": row by row the 16 weights of
 * an input channel; for bf16 those of two input channels in turns, the second
 * one zero where there is none.  weights() makes of a block of them what the
 * other loops read, in numbers of their type: cpu_mb_weights_bytes().
 */
#ifndef DFX_CPU_KERNELS_MBCONV_H
#define DFX_CPU_KERNELS_MBCONV_H

#include "cpu/kernels.h"
#include "nn/nn.h"

#define CPU_MB_BLOCK 16 /* channels */

/* An expansion by a 1x1 convolution, SiLU, a depthwise convolution of k x k, SiLU. */
typedef struct CpuMbSpread
{
	int ci;     /* channels of the source; 0: there is no expansion, the source is the block itself */
	int h, w;   /* pixels of the source */
	int oh, ow; /* and of the result */
	int k, s;   /* 3 or 5; 1 or 2; the padding is k / 2 */
} CpuMbSpread;

/* What a block of 16 channels needs of it. */
typedef struct CpuMbParams
{
	const void *expand;       /* of weights() */
	const float *expand_bias; /* 16 */
	const float *depth;       /* k x k x 16 */
	const float *depth_bias;  /* 16 */
} CpuMbParams;

/* A 1x1 convolution. */
typedef struct CpuMbProject
{
	int ci;
	size_t npix;
	DfxAct act; /* none, SiLU, sigmoid */
} CpuMbProject;

typedef struct CpuMbKernels
{
	const char *name;

	/* A block of weights of ci input channels, each times its channel's factor (NULL: 1). */
	void (*weights)(void *to, const float *ready, const float *factor, int ci);

	/*
	 * One block of 16 channels into dst, and the means of its pixels into mean.
	 * src: the whole source, or without an expansion this block of it.
	 * ring: cpu_mb_ring_floats() of scratch memory.
	 */
	void (*spread)(void *dst, float *mean, float *ring, const void *src, const CpuMbSpread *g,
	               const CpuMbParams *p);

	/* nb (1 or 2) blocks of 16 channels: act(src weights + bias (16 each) + what is at add (NULL: nothing)).
	 */
	void (*project)(void *dst, const void *add, const void *src, const CpuMbProject *g, int nb,
	                const void *weights, const float *bias);
} CpuMbKernels;

/* Input channels come in these many units, of one channel or, in bf16, two. */
static inline size_t
cpu_mb_units(int ci, CpuType type)
{
	return type == CPU_BF16 ? ((size_t) ci + 1) / 2 : (size_t) ci;
}

/* Floats of a block of weights in a plan; bytes of what weights() makes of it. */
static inline size_t
cpu_mb_ready_floats(int ci, CpuType type)
{
	return cpu_mb_units(ci, type) * CPU_MB_BLOCK * (type == CPU_BF16 ? 2 : 1);
}

static inline size_t
cpu_mb_weights_bytes(int ci, CpuType type)
{
	return cpu_mb_units(ci, type) * CPU_MB_BLOCK * sizeof(float);
}

/* Rows of the source with padding on both sides, as many as a row of the result needs. */
static inline size_t
cpu_mb_ring_floats(const CpuMbSpread *g)
{
	return (size_t) g->k * (size_t) (g->w + g->k - 1) * CPU_MB_BLOCK;
}

/* For CPUs with AVX-512, the second with its instructions for bf16; NULL elsewhere than on x86-64. */
extern const CpuMbKernels *cpu_mb_kernels(void);
extern const CpuMbKernels *cpu_mb_bf16_kernels(void);

#endif /* DFX_CPU_KERNELS_MBCONV_H */
