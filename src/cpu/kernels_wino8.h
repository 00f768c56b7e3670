/*
 * kernels_wino8.h
 *	  The loops of wino8.c: 3x3 convolutions of u8 by s8 by Winograd's algorithm,
 *	  F(4x4, 3x3) (Lavin and Gray, CVPR 2016), in integers.
 *
 * A tile is 4x4 pixels of output, for which 6x6 of input make 36 points.  A point's
 * matrix has a row of channels for each tile; planes are as many numbers apart.
 */
#ifndef DFX_CPU_KERNELS_WINO8_H
#define DFX_CPU_KERNELS_WINO8_H

#include <stddef.h>
#include <stdint.h>

#include "cpu/kernels_int8.h"

#define CPU_WINO8_TILE         4
#define CPU_WINO8_SIDE         6 /* of its input, and of its points */
#define CPU_WINO8_POINTS       36
#define CPU_WINO8_MAX_CHANNELS 256 /* of the input */
#define CPU_WINO8_LANES        16  /* output channels come in as many, input channels in twice as many */
#define CPU_WINO8_SCALE        576 /* joined sums are as many times too large */

/* A tile's first pixel of output, in an image of h x w pixels in nhwc. */
typedef struct CpuWino8Tile
{
	int y, x, h, w;
} CpuWino8Tile;

typedef struct CpuWino8Kernels
{
	const char *name;

	/* A tile's points of c channels. */
	void (*split)(int16_t *points, size_t plane, const uint8_t *image, int c, const CpuWino8Tile *t);

	/* sums = points (tiles x c) times weights, of one point: co / 16 panels of c / 2 x 16 x 2. */
	void (*multiply)(int32_t *sums, const int16_t *points, const int16_t *weights, int tiles, int c, int co);

	/* A tile of an image of co channels. */
	void (*join)(void *image, const int32_t *sums, size_t plane, int co, const CpuWino8Tile *t,
	             const CpuInt8Epilogue *epi);
} CpuWino8Kernels;

/* NULL on a CPU without AVX-512 VNNI. */
extern const CpuWino8Kernels *cpu_wino8_kernels(void);

#endif /* DFX_CPU_KERNELS_WINO8_H */
