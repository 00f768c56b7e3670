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

/*
 * A source's rows become those of a map, of h x w pixels, which a depthwise
 * convolution of k x k with SiLU reads: as they are, or through a convolution with SiLU,
 * of 1x1 (an expansion) or of 3x3 with stride 2 and padding 1 (the stem) over
 * a plain image (nchw) of ih x iw pixels.
 */
typedef enum CpuMbSource
{
	CPU_MB_MAP = 0,
	CPU_MB_POINT,
	CPU_MB_STEM
} CpuMbSource;

typedef struct CpuMbSpread
{
	CpuMbSource source;
	int ci;     /* channels of the source */
	int ih, iw; /* its pixels, those of the map, those of the result */
	int h, w;
	int oh, ow;
	int k, s; /* 3 or 5; 1 or 2; the padding is k / 2 */
} CpuMbSpread;

/* What a block of 16 channels needs of it. */
typedef struct CpuMbParams
{
	const void *weights;     /* of the convolution before: of weights(); the stem's: ci x 3 x 3 x 16 floats */
	const float *bias;       /* 16 */
	const float *depth;      /* k x k x 16 */
	const float *depth_bias; /* 16 */
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
	 * src: the whole source; of a map this block.
	 * scratch: cpu_mb_spread_floats().
	 */
	void (*spread)(void *dst, float *mean, float *scratch, const void *src, const CpuMbSpread *g,
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

#define CPU_MB_STEM_K 3

/* A ring of rows of the map, with padding on both sides, as many as a row of the result needs. */
static inline size_t
cpu_mb_ring_floats(const CpuMbSpread *g)
{
	return (size_t) g->k * (size_t) (g->w + g->k - 1) * CPU_MB_BLOCK;
}

/* And, for a stem, of each channel the rows that a row of the map needs, with padding. */
static inline size_t
cpu_mb_spread_floats(const CpuMbSpread *g)
{
	size_t stem = (size_t) g->ci * CPU_MB_STEM_K * (size_t) (2 * g->w + CPU_MB_STEM_K);

	return cpu_mb_ring_floats(g) + (g->source == CPU_MB_STEM ? stem : 0);
}

/* For CPUs with AVX-512, the second with its instructions for bf16; NULL elsewhere than on x86-64. */
extern const CpuMbKernels *cpu_mb_kernels(void);
extern const CpuMbKernels *cpu_mb_bf16_kernels(void);

#endif /* DFX_CPU_KERNELS_MBCONV_H */
