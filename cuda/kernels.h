/*
 * kernels.h
 *	  What each kernel is asked to do: plain records, shared by the C code that
 *	  lowers a graph (lower.c), the kernels (*.cu) and their twins on the host
 *	  (tests/cuda), which run the same element functions (element.cuh).
 *
 * Memory is NHWC: a value of C x H x W per image is rows of channels, one row
 * a pixel (a token, a place of a 1-D signal), images one after another.  Row r,
 * channel c lies at element r * ld + c; a value that is a channel range of a
 * larger one (nn.h, placement) has the larger one's ld.  Activations are of
 * the program's type; sums, scales, shifts and biases are fp32 throughout.
 */
#ifndef DFX_CUDA_KERNELS_H
#define DFX_CUDA_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

/* What activations and weights are stored as. */
typedef enum GpuType
{
	GPU_F32 = 0,
	GPU_F16,
	GPU_BF16,
	GPU_TYPE_COUNT
} GpuType;

typedef enum GpuKernel
{
	GPU_INPUT = 0,
	GPU_MAP,
	GPU_BINARY,
	GPU_POOL,
	GPU_STACK,
	GPU_TOKENS,
	GPU_LAYERNORM,
	GPU_ATTN,
	GPU_CONV_DIRECT, /* a thread an output element: depthwise and grouped */
	GPU_CONV_TILED,  /* shared-memory tiles, fp32 arithmetic: the plain path of every other product */
	GPU_CONV_MMA,    /* tensor cores; fp16 and bf16 */
	GPU_OUTPUT,
	GPU_COMPARE, /* how far two results are apart, for the choice among implementations */

	GPU_TRAIN_FIRST, /* those of kernels_train.h; not in fp16 */
	GPU_SEED = GPU_TRAIN_FIRST,
	GPU_PASS,
	GPU_BN_PART,
	GPU_BN_STATS,
	GPU_BN_MAP,
	GPU_SUM_PART,
	GPU_SUM,
	GPU_BN_GRAD,
	GPU_POOL_GRAD,
	GPU_MUL_GRAD,
	GPU_GATE_GRAD,
	GPU_DROP,
	GPU_UNSTACK,
	GPU_POS_GRAD,
	GPU_LAYERNORM_GRAD,
	GPU_ATTN_GRAD_Q,
	GPU_ATTN_GRAD_KV,
	GPU_WGRAD_TILED,
	GPU_WGRAD_MMA, /* bf16 */
	GPU_WGRAD_DIRECT,
	GPU_WGRAD_SUM,
	GPU_LAYOUT,
	GPU_ADAM,
	GPU_KERNEL_COUNT
} GpuKernel;

/* Numbers as in nn.h's DfxAct; the kernels' side must not see nn.h. */
typedef enum GpuAct
{
	GPU_ACT_NONE = 0,
	GPU_ACT_RELU,
	GPU_ACT_SILU,
	GPU_ACT_GELU,
	GPU_ACT_SIGMOID
} GpuAct;

#define GPU_BRANCHES   3    /* launches of one shape that may go together */
#define GPU_MAX_TOKENS 1024 /* of an attention: its scores are kept in shared memory */

/* Pixels to rows of c channels, and zeros up to width.  rgb8: (v / 255 - mean) / std. */
typedef struct GpuInputArgs
{
	const void *src; /* rgb8: H x W x 3 bytes; else C x H x W floats */
	void *dst;
	int pixels, c, width, ld;
	bool rgb8;
	float mean[3], std[3];
} GpuInputArgs;

/*
 * y[r][c] = act(x[r * step + first][c] * scale[c] + shift[c]), of rows per image.
 * scale NULL: a copy (CONCAT, TAKE, DROP) or a lone activation.
 */
typedef struct GpuMapArgs
{
	const void *x;
	void *y;
	int rows, step, first;
	int c, ldx, ldy;
	const float *scale, *shift;
	GpuAct act;
} GpuMapArgs;

/* y = act(a + b) or act(a * b); gate: b has one row an image. */
typedef struct GpuBinaryArgs
{
	const void *a, *b;
	void *y;
	int rows, c, lda, ldb, ldy;
	bool mul, gate;
	GpuAct act;
} GpuBinaryArgs;

/* Windows of kh x kw; an average divides by the whole window. */
typedef struct GpuPoolArgs
{
	const void *x;
	void *y;
	int c, ldx, ldy;
	int ih, iw, oh, ow;
	int kh, kw, s, p;
	bool avg;
} GpuPoolArgs;

/* One vector of c becomes channel `channel` of a signal of c places. */
typedef struct GpuStackArgs
{
	const void *x;
	void *y;
	int c, ldx, ldy, channel;
} GpuStackArgs;

/* y[0] = cls + pos[0], y[t] = x[t - 1] + pos[t]; t < tokens. */
typedef struct GpuTokensArgs
{
	const void *x;
	void *y;
	int tokens, c, ldx, ldy;
	const float *cls, *pos;
} GpuTokensArgs;

typedef struct GpuLayernormArgs
{
	const void *x;
	void *y;
	int rows, c, ldx, ldy;
	const float *weight, *bias;
	float eps;
} GpuLayernormArgs;

/* x: rows of q, k, v, each c wide; heads of c / heads channels. */
typedef struct GpuAttnArgs
{
	const void *x;
	void *y;
	int tokens, c, heads, ldx, ldy;
} GpuAttnArgs;

/* y = scale * act(sum + bias + add) + shift; NULL: without. */
typedef struct GpuEpilogue
{
	const float *bias;
	const void *add;
	int ldadd;
	GpuAct act;
	const float *scale, *shift;
} GpuEpilogue;

/*
 * A convolution, or a linear layer (kh = kw = 1).  Weights are in the
 * program's type, laid out
 *	GPU_CONV_DIRECT		[kh][kw][ci / groups][co]
 *	the others			[co][kh][kw][ci]
 * pre_scale: the input is act(x * pre_scale[c] + pre_shift[c]), only where
 * there is no padding.  uh, uw: the input is spread out by these factors, with
 * zeros between (0 and 1: it is not), as the gradient by the input of a
 * convolution with strides wants it; libraries cannot.
 */
typedef struct GpuConvArgs
{
	const void *x, *w;
	void *y;
	int ci, co, ldx, ldy;
	int ih, iw, oh, ow;
	int kh, kw, sh, sw, ph, pw;
	int groups;
	int uh, uw;
	const float *pre_scale, *pre_shift;
	GpuAct pre_act;
	GpuEpilogue epi;
} GpuConvArgs;

/* Rows to plain C x H x W floats; *bad becomes non-zero when one is not finite. */
typedef struct GpuOutputArgs
{
	const void *x;
	float *dst;
	int pixels, c, ldx;
	unsigned *bad;
} GpuOutputArgs;

/* result[0] = max |a - b|, result[1] = max |b| (as the bits of non-negative floats), over rows an image. */
typedef struct GpuCompareArgs
{
	const void *a, *b;
	int rows, c, lda, ldb;
	unsigned *result;
} GpuCompareArgs;

#include "cuda/kernels_train.h"

typedef union GpuArgs
{
	GpuInputArgs input;
	GpuMapArgs map;
	GpuBinaryArgs binary;
	GpuPoolArgs pool;
	GpuStackArgs stack;
	GpuTokensArgs tokens;
	GpuLayernormArgs layernorm;
	GpuAttnArgs attn;
	GpuConvArgs conv;
	GpuOutputArgs output;
	GpuCompareArgs compare;
	GpuSeedArgs seed;
	GpuPassArgs pass;
	GpuNormArgs norm;
	GpuPoolGradArgs pool_grad;
	GpuMulGradArgs mul_grad;
	GpuGateGradArgs gate_grad;
	GpuDropArgs drop;
	GpuUnstackArgs unstack;
	GpuPosGradArgs pos_grad;
	GpuLayernormGradArgs layernorm_grad;
	GpuAttnGradArgs attn_grad;
	GpuWgradArgs wgrad;
	GpuLayoutArgs layout;
	GpuAdamArgs adam;
} GpuArgs;

#ifdef __cplusplus
#define GPU_FROM_C extern "C"
#else
#define GPU_FROM_C extern
#endif

/*
 * Launch one kernel for n images on stream (a cudaStream_t): count records
 * (1 .. GPU_BRANCHES) that differ in their pointers only, side by side in one
 * grid.  Returns the cudaError_t of the launch as a number, 0 for success.
 * launch.cu.
 */
GPU_FROM_C int
gpu_launch(GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n, void *stream);

/* Its part for kernels of training; launch_train.cu. */
GPU_FROM_C int
gpu_launch_train(GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n, void *stream);

#endif /* DFX_CUDA_KERNELS_H */
