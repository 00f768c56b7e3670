/*
 * kernels.h
 *	  The loops that are ours, not the library's, in variants chosen once per
 *	  device by what the CPU can do.
 *
 * Every kernel works on "runs": npix pixels, each with nl neighbouring
 * channels (lanes), at a distance of ps floats from pixel to pixel.  A run
 * is one block of a blocked layout, a whole NHWC image, or (nl 1) one plane
 * of a plain one, so that one loop serves all layouts.
 *
 * There is a table of them for floats and one for bf16, whose distances count
 * bf16 numbers.  The latter reads bf16, adds and multiplies floats, and writes
 * bf16; what is one pixel large is floats there too.
 */
#ifndef DFX_CPU_KERNELS_H
#define DFX_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

/* How numbers lie in memory; whatever is computed is computed in floats. */
typedef enum CpuType
{
	CPU_F32 = 0,
	CPU_BF16,
	CPU_U8 /* steps (nn/quantize.c); only int8.c knows them */
} CpuType;

static inline size_t
cpu_size(CpuType type)
{
	return type == CPU_U8 ? 1 : type == CPU_BF16 ? 2 : 4;
}

/* Geometry of one pooling window walk; p is padding before and after. */
typedef struct CpuPoolGeom
{
	int ih, iw, oh, ow;
	int kh, kw, s, p;
} CpuPoolGeom;

typedef struct CpuKernels
{
	const char *name;

	/* dst = src * scale[l] + shift[l], then max(0, .) if relu */
	void (*affine)(void *dst, size_t dps, const void *src, size_t sps, size_t npix, int nl,
	               const float *scale, const float *shift, bool relu);

	/* dst = a + b or a * b, then max(0, .) if relu; bps 0 repeats one pixel of b (floats) */
	void (*binary)(void *dst, size_t dps, const void *a, size_t aps, const void *b, size_t bps, size_t npix,
	               int nl, bool mul, bool relu);

	/* Mean (no padding then) or maximum over windows; a single window's result is floats. */
	void (*pool)(void *dst, size_t dps, const void *src, size_t sps, int nl, const CpuPoolGeom *g, bool avg);
} CpuKernels;

/*
 * Defines name(), the best variant this CPU runs, and name_variant(i), all of
 * them, best first, NULL past the end: of tables called table_avx512 (which may
 * use BW and VL: all CPUs with AVX-512 but Xeon Phi have them), table_avx2 and
 * table_portable.
 */
#if defined(__x86_64__)
#define CPU_KERNEL_CHOICE(Type, name, table)                                                                 \
	const Type *name##_variant(int i)                                                                        \
	{                                                                                                        \
		const Type *found[3];                                                                                \
		int n = 0;                                                                                           \
                                                                                                             \
		if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))                        \
			found[n++] = &table##_avx512;                                                                    \
		if (__builtin_cpu_supports("avx2"))                                                                  \
			found[n++] = &table##_avx2;                                                                      \
		found[n++] = &table##_portable;                                                                      \
		return i >= 0 && i < n ? found[i] : NULL;                                                            \
	}                                                                                                        \
	const Type *name(void)                                                                                   \
	{                                                                                                        \
		return name##_variant(0);                                                                            \
	}
#else
#define CPU_KERNEL_CHOICE(Type, name, table)                                                                 \
	const Type *name##_variant(int i)                                                                        \
	{                                                                                                        \
		return i == 0 ? &table##_portable : NULL;                                                            \
	}                                                                                                        \
	const Type *name(void)                                                                                   \
	{                                                                                                        \
		return &table##_portable;                                                                            \
	}
#endif

/* The best variant this CPU runs. */
extern const CpuKernels *cpu_kernels(void);

/* Those for bf16, for CPUs with AVX-512's instructions for it; NULL elsewhere than on x86-64. */
extern const CpuKernels *cpu_bf16_kernels(void);

/* All variants this CPU runs, best first, so that tests can compare them; NULL past the end. */
extern const CpuKernels *cpu_kernels_variant(int i);

/*
 * The loops of transformers.  A token's channels lie in planes of nl lanes,
 * ps floats apart; the last plane may hold fewer than nl real ones.
 */
typedef struct CpuTokenKernels
{
	const char *name;

	/* One token of c channels: (x - mean) / sqrt(variance + eps) * scale + shift. */
	void (*layernorm)(void *dst, size_t dps, const void *src, size_t sps, int nl, int c, const float *scale,
	                  const float *shift, float eps);

	/*
	 * exp(x) / sum of exp(x), in place; room for n rounded up to CPU_SOFTMAX_STEP, whose rest is overwritten.
	 * The table for bf16 takes floats too and leaves n bf16 numbers in the first half of their place.
	 */
	void (*softmax)(float *x, int n);
} CpuTokenKernels;

#define CPU_SOFTMAX_STEP 16

extern const CpuTokenKernels *cpu_token_kernels(void);
extern const CpuTokenKernels *cpu_bf16_token_kernels(void);
extern const CpuTokenKernels *cpu_token_kernels_variant(int i);

/*
 * The transforms of wino1d.c.  One side of its convolution is a signal of c
 * channels and w pixels in planes of vec channels (a multiple of 8), plane
 * floats apart; points are CPU_WINO_POINTS matrices of tiles x c.
 */
#define CPU_WINO_TILE   4
#define CPU_WINO_POINTS 6

typedef struct CpuWinoSide
{
	int c, vec, w, tiles;
	size_t plane;
} CpuWinoSide;

/* Of each output channel: max(0, x + bias) if relu, else x + bias, then * scale + shift. */
typedef struct CpuWinoEpilogue
{
	const float *bias, *scale, *shift;
	bool relu;
} CpuWinoEpilogue;

typedef struct CpuWinoKernels
{
	const char *name;
	void (*split)(float *points, const float *src, const CpuWinoSide *g);
	void (*join)(float *dst, const float *points, const CpuWinoSide *g, const CpuWinoEpilogue *epi);
} CpuWinoKernels;

extern const CpuWinoKernels *cpu_wino_kernels(void);
extern const CpuWinoKernels *cpu_wino_kernels_variant(int i);

#endif /* DFX_CPU_KERNELS_H */
