/*
 * kernels_train.h
 *	  The loops of training, over runs as in kernels.h: npix pixels of nl
 *	  neighbouring channels each.
 *
 * Values and gradients are floats or bfloat16s (a strip says which); sums,
 * statistics and parameters are floats or doubles always.  Of two strips of one
 * call the stored one may be the narrower, never the wider.
 */
#ifndef DFX_CPU_KERNELS_TRAIN_H
#define DFX_CPU_KERNELS_TRAIN_H

#include "cpu/kernels.h"
#include "nn/training.h"

/* One side of a run: its first number, and numbers from pixel to pixel. */
typedef struct CpuStrip
{
	void *at;
	size_t ps;
	CpuType type;
} CpuStrip;

/* What BatchNorm does to a run, per channel. */
typedef struct CpuNorm
{
	const float *mean, *scale, *shift;
} CpuNorm;

/* The gradient of a source's input (train.h). */
typedef struct CpuPush
{
	CpuStrip g;  /* gradient of x */
	CpuStrip dz; /* gradient of act(t), t = (x - mean) * scale + shift */
	CpuStrip x;  /* of the kind of g */
	size_t npix;
	int nl;
	CpuNorm norm;
	DfxAct act;
	bool add; /* to g; else g is written */
	/* What the pass adds up: dt and dt * (x - mean), where dt = dz * act'(t). */
	double *sum, *sum_x;
} CpuPush;

/* Geometry of a depthwise convolution over one run. */
typedef struct CpuDepthwise
{
	int ih, iw, oh, ow;
	int kh, kw, sh, sw, ph, pw;
} CpuDepthwise;

typedef struct CpuTrainKernels
{
	const char *name;

	/* dst = act((src - mean) * scale + shift) */
	void (*act)(CpuStrip dst, CpuStrip src, size_t npix, int nl, const CpuNorm *norm, DfxAct act);

	void (*push)(const CpuPush *p);

	/* dst (+)= src, of any two kinds */
	void (*copy)(CpuStrip dst, CpuStrip src, size_t npix, int nl, bool add);

	/* Mean of a run and the sum of squared distances from it, per lane. */
	void (*moments)(CpuStrip src, size_t npix, int nl, float *mean, float *m2);

	/* g = (g - a - b * (y - mean)) * [y > 0]; a NULL: only the bracket; relu false: without it */
	void (*finish)(CpuStrip g, CpuStrip y, size_t npix, int nl, bool relu, const float *mean, const float *a,
	               const float *b);

	/* dst (+)= a * b over all pixels, per lane; b NULL: ones */
	void (*sum)(double *dst, CpuStrip a, const CpuStrip *b, size_t npix, int nl);

	/* dst += src */
	void (*add)(float *dst, const float *src, size_t n);

	void (*adam)(float *p, const float *g, float *m, float *v, size_t n, const DfxAdamScalars *a);
} CpuTrainKernels;

/* The best variant this CPU runs; all variants, best first, NULL past the end. */
extern const CpuTrainKernels *cpu_train_kernels(void);
extern const CpuTrainKernels *cpu_train_kernels_variant(int i);

typedef struct CpuTrainWindowKernels
{
	const char *name;

	/* dz of a window from dy of its output: to the first largest pixel, or dy / pixels to each. */
	void (*unpool)(float *dz, const float *z, size_t zps, const float *dy, size_t yps, int nl,
	               const CpuPoolGeom *g, bool avg);

	/* The gradient of a depthwise convolution's weights: dw[lane][ky][kx] += x * dy over one image. */
	void (*depthwise)(float *dw, CpuStrip x, CpuStrip dy, int nl, const CpuDepthwise *g);
} CpuTrainWindowKernels;

extern const CpuTrainWindowKernels *cpu_train_window_kernels(void);
extern const CpuTrainWindowKernels *cpu_train_window_kernels_variant(int i);

typedef struct CpuTrainTokenKernels
{
	const char *name;

	/*
	 * LayerNorm's gradient for one token, laid out as CpuTokenKernels.layernorm has it: dx by x, and dw and
	 * db are added to.  nl is at most 16.
	 */
	void (*layernorm)(float *dx, const float *dy, const float *x, size_t ps, int nl, int c, const float *w,
	                  float eps, float *dw, float *db);

	/* Softmax's: d = p * (d - sum of p * d) */
	void (*softmax)(float *d, const float *p, int n);
} CpuTrainTokenKernels;

extern const CpuTrainTokenKernels *cpu_train_token_kernels(void);
extern const CpuTrainTokenKernels *cpu_train_token_kernels_variant(int i);

#endif /* DFX_CPU_KERNELS_TRAIN_H */
