/*
 * kernels_wino_bf16.h
 *	  The loops of wino_bf16.c: an image's tiles to points, the points' products,
 *	  and back.
 *
 * A tile is 2x2 pixels of the output, and the 4x4 of the input that they depend
 * on; it becomes 16 points, each with all channels.  Where kernels are 1x3, it is
 * 1x2 pixels of the output and 1x4 of the input, and 4 points.  A block is some
 * tiles together, their number rounded up to CPU_WINO_BF16_ROWS:
 *	  points[point][plane][tile][16 channels]		bf16
 *	  weights[point][part][plane][pair of channels][wide x 16 outputs][2]	bf16, of one group
 *	  sums[point][tile][wide x 16 outputs]			floats, of one group
 * A group is up to CPU_WINO_BF16_WIDE planes of the output.
 */
#ifndef DFX_CPU_KERNELS_WINO_BF16_H
#define DFX_CPU_KERNELS_WINO_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPU_WINO_BF16_TAPS  3
#define CPU_WINO_BF16_TILE  2
#define CPU_WINO_BF16_SIDE  4  /* points in a direction */
#define CPU_WINO_BF16_LANES 16 /* channels of a plane */
#define CPU_WINO_BF16_ROWS  8  /* tiles whose products are made together */
#define CPU_WINO_BF16_WIDE  3

/* Planes of h x w pixels of 16 channels, bf16. */
typedef struct CpuWinoImage
{
	int planes, h, w;
} CpuWinoImage;

/* n neighbouring tiles of one row of tiles, from (y, x) on; numbers at .. of a block. */
typedef struct CpuWinoRun
{
	int y, x, n, at;
} CpuWinoRun;

/* What is padded by so many pixels, and split into so many points. */
typedef struct CpuWinoSplit
{
	int npoints; /* CPU_WINO_BF16_SIDE, or its square */
	int pad[2];
} CpuWinoSplit;

/*
 * Of each output channel: x + bias, + add (laid out like the destination, which it may be; NULL: none),
 * max(0, .) if relu, * scale + shift (NULL: as it is).
 */
typedef struct CpuWinoBf16Epilogue
{
	const float *bias, *scale, *shift;
	const uint16_t *add;
	bool relu;
} CpuWinoBf16Epilogue;

/*
 * In how many parts a point's weights come.  One of the 16 is the sum of pixels, nearly all that there is of
 * a smooth image; rounding its weights would shift whole planes.  So it is multiplied by the rounded weights
 * and by what rounding lost.
 */
#define CPU_WINO_BF16_SUM 5

static inline int
cpu_wino_bf16_parts(int npoints, int point)
{
	return npoints > CPU_WINO_BF16_SUM && point == CPU_WINO_BF16_SUM ? 2 : 1;
}

typedef struct CpuWinoBf16Kernels
{
	/* A run of an image into a block of so many tiles; those that no run fills are for nobody. */
	void (*split)(uint16_t *points, int tiles, const uint16_t *src, const CpuWinoImage *in,
	              const CpuWinoRun *run, const CpuWinoSplit *how);
	/* All points of a block, of so many planes, times a group of wide planes. */
	void (*multiply)(float *sums, const uint16_t *points, const uint16_t *weights, int npoints, int tiles,
	                 int planes, int wide);
	/* A run out of a block's sums of one group, planes plane .. plane + wide - 1 of the image. */
	void (*join)(uint16_t *dst, const float *sums, int npoints, int tiles, int plane, int wide,
	             const CpuWinoImage *out, const CpuWinoRun *run, const CpuWinoBf16Epilogue *epi);
} CpuWinoBf16Kernels;

/* How many numbers lie between two points of a block: never what the caches' sets repeat after. */
static inline size_t
cpu_wino_bf16_points_far(int tiles, int planes)
{
	return (size_t) tiles * (size_t) planes * CPU_WINO_BF16_LANES + 96;
}

static inline size_t
cpu_wino_bf16_sums_far(int tiles, int wide)
{
	return (size_t) tiles * (size_t) wide * CPU_WINO_BF16_LANES + 48;
}

/* For CPUs with AVX-512's instructions for bf16; NULL elsewhere than on x86-64. */
extern const CpuWinoBf16Kernels *cpu_wino_bf16_kernels(void);

#endif /* DFX_CPU_KERNELS_WINO_BF16_H */
