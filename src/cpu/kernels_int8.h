/*
 * kernels_int8.h
 *	  Our own loops between floats and 8-bit steps (nn/quantize.c); runs are those
 *	  of kernels.h.
 */
#ifndef DFX_CPU_KERNELS_INT8_H
#define DFX_CPU_KERNELS_INT8_H

#include <stddef.h>
#include <stdint.h>

#include "cpu/kernels.h"

/*
 * What becomes of an output channel's sum: sum * scale + bias, + add * add_step, then max(0, .) if relu;
 * stored as type.  For u8 all of it is in steps of the output, rounded to the nearest, and ends at 0 and 255.
 */
typedef struct CpuInt8Epilogue
{
	const float *scale, *bias;
	const void *add; /* an image like the output; NULL: none */
	CpuType add_type, type;
	float add_step;
	bool relu;
} CpuInt8Epilogue;

typedef struct CpuInt8Kernels
{
	const char *name;

	/*
	 * dst = src * scale[l] + shift[l], rounded to the nearest (halves to even)
	 * and kept within 0 .. 255, which makes a ReLU of it; NaN gives 0.
	 */
	void (*steps)(uint8_t *dst, size_t dps, const float *src, size_t sps, size_t npix, int nl,
	              const float *scale, const float *shift);
	void (*steps_bf16)(uint8_t *dst, size_t dps, const uint16_t *src, size_t sps, size_t npix, int nl,
	                   const float *scale, const float *shift);

	/* dst = src * scale; halves rounds it to bf16 (to the nearest, ties to even) */
	void (*floats)(float *dst, const uint8_t *src, size_t n, float scale);
	void (*halves)(uint16_t *dst, const uint8_t *src, size_t n, float scale);
} CpuInt8Kernels;

extern const CpuInt8Kernels *cpu_int8_kernels(void);
extern const CpuInt8Kernels *cpu_int8_kernels_variant(int i);

#endif /* DFX_CPU_KERNELS_INT8_H */
