/*
 * kernels_point8.h
 *	  The loop of point8.c: 1x1 convolutions of u8 by s8.
 */
#ifndef DFX_CPU_KERNELS_POINT8_H
#define DFX_CPU_KERNELS_POINT8_H

#include "cpu/kernels_int8.h"

#define CPU_POINT8_PANEL  64 /* output channels at a time */
#define CPU_POINT8_PIXELS 6  /* at a time */

/*
 * Where channel o of a panel has its weights, its scale and its bias when neither the result nor the
 * residual has anything but steps; else channels are in their order.
 */
#define CPU_POINT8_PLACE(o) ((o) % 16 / 4 * 16 + (o) / 16 * 4 + (o) % 4)

/* An image of u8 in nhwc, of which pixels stride apart are read, to one of w pixels in a row. */
typedef struct CpuPoint8Image
{
	const uint8_t *from;
	int ci, from_w, stride;
	void *to;
	int co, w;
} CpuPoint8Image;

typedef struct CpuPoint8Kernels
{
	const char *name;

	/* n pixels of output from number first on, all channels: co / 64 panels of weights, ci / 4 x 64 x 4 each.
	 */
	void (*multiply)(const CpuPoint8Image *image, int first, int n, const int8_t *weights,
	                 const CpuInt8Epilogue *epi);
} CpuPoint8Kernels;

/* NULL on a CPU without AVX-512 VNNI. */
extern const CpuPoint8Kernels *cpu_point8_kernels(void);

#endif /* DFX_CPU_KERNELS_POINT8_H */
