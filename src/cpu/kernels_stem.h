/*
 * kernels_stem.h
 *	  The loops of stem.c: convolutions of 7x7 pixels of three channels, with
 *	  stride 2, by Winograd's algorithm.
 *
 * Four neighbouring pixels are one cell of 12 channels, of which the
 * convolution is one of 4x4 with stride 1.  F(4x4, 4x4) needs 49 products a channel for
 * 16 outputs, where the direct sum has 256: interpolation at 0, 1, -1, 2, -2, 1/2
 * and infinity (Lavin and Gray, CVPR 2016, whose F(2x2, 3x3) it is with other points).
 */
#ifndef DFX_CPU_KERNELS_STEM_H
#define DFX_CPU_KERNELS_STEM_H

#include <stddef.h>

#include "cpu/kernels.h"

#define CPU_STEM_SIDE   7 /* of a tile's input in cells, and of its points */
#define CPU_STEM_POINTS 49
#define CPU_STEM_TILE   4  /* of its output in pixels */
#define CPU_STEM_TAPS   4  /* of the convolution in cells */
#define CPU_STEM_CELL   12 /* channels of a cell: the upper two pixels', then the lower two's */
#define CPU_STEM_STRIDE 16 /* numbers from one cell to the next */
#define CPU_STEM_ROW    6  /* numbers of a cell in a row of pixels */
#define CPU_STEM_TILES  8  /* at a time */
#define CPU_STEM_LANES  32 /* output channels at a time */

/* A tile's first pixel of output. */
typedef struct CpuStemTile
{
	int y, x;
} CpuStemTile;

/* The output's side of it: 32 channels of an image, whose pixels are stride numbers apart. */
typedef struct CpuStemOut
{
	void *at[2]; /* the first pixel's first 16 channels, and the others */
	size_t stride;
	int h, w;
	CpuType type; /* floats, or bf16 where the CPU has instructions for that */
	const float *bias;
	bool relu;
} CpuStemOut;

typedef struct CpuStemKernels
{
	const char *name;

	/* A row of w pixels as floats, the three channels of a pixel together; they are vec 3 or 1 numbers
	 * apart, as are planes of pixels with vec 1. */
	void (*row)(float *to, const void *from, CpuType type, int vec, size_t plane, int w);

	/* n columns of 7 cells, out of 14 rows that are far numbers apart, to 7 rows of points of n cells. */
	void (*columns)(float *to, const float *rows, size_t far, int n);

	/* Tiles of such rows, which have n cells each, to 49 points. */
	void (*split)(float *points, const float *rows, size_t n, int tiles);

	/* sums = points (tiles x 16) times weights (12 x 32), of each point. */
	void (*multiply)(float *sums, const float *points, const float *weights, int tiles);

	/* Tile number t of the sums to 4x4 pixels, as far as there are as many. */
	void (*join)(const CpuStemOut *out, const float *sums, int t, const CpuStemTile *tile);
} CpuStemKernels;

/* NULL on a CPU without AVX-512. */
extern const CpuStemKernels *cpu_stem_kernels(void);

#endif /* DFX_CPU_KERNELS_STEM_H */
