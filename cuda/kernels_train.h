/*
 * kernels_train.h
 *	  Records of the kernels that only training needs; part of kernels.h, whose
 *	  rules hold: NHWC rows, ld apart, everything but activations in fp32.
 *
 * Gradients lie like the values they belong to and are of the same type.  A
 * record with `add` adds to what is there, otherwise it writes.  Sums over
 * images and pixels are made in chunks of rows, and then over the chunks, in
 * an order that never changes: a step repeats bit for bit.
 */
#ifndef DFX_CUDA_KERNELS_TRAIN_H
#define DFX_CUDA_KERNELS_TRAIN_H

/* dx = src: C x H x W floats to rows, as the loss's gradient comes. */
typedef struct GpuSeedArgs
{
	const float *src;
	void *dx;
	int pixels, c, lddx;
	bool add;
} GpuSeedArgs;

/*
 * dx = dy * act'(x), act NONE: dx = dy; x is the activation's input, of a ReLU
 * input or output.  Row i of `rows` an image is row first + i of the image's
 * dy_rows (dx_rows) rows.
 */
typedef struct GpuPassArgs
{
	const void *dy, *x;
	void *dx;
	int rows, c, lddy, ldx, lddx;
	int dy_rows, dy_first, dx_rows, dx_first;
	GpuAct act;
	bool add;
} GpuPassArgs;

/*
 * BatchNorm in training, and sums over rows in general.  z = (x - mean) * inv,
 * y = act(z * weight + bias), dz the gradient behind the activation.
 *	GPU_BN_PART		part: of each chunk and channel the mean, and the sum of squares about it
 *	GPU_BN_STATS	mean and inv from part, and the running statistics moved; eval: from the running ones
 *	GPU_BN_MAP		y
 *	GPU_SUM_PART	part: sums of dz and, with x, of dz * z; by_row: mean and inv are of rows (LayerNorm)
 *	GPU_SUM			dbias and, unless NULL, dweight from part
 *	GPU_BN_GRAD		y is dx = weight * inv * (dz - (dbias + z * dweight) / count)
 */
typedef struct GpuNormArgs
{
	const void *x, *dy;
	void *y;
	int rows, c, ldx, lddy, ldy;
	GpuAct act;
	bool add, by_row, eval;
	float eps;
	const float *weight, *bias;
	float *mean, *inv, *run_mean, *run_var, *dweight, *dbias;
	float *part; /* chunks x c pairs */
	int chunk;   /* rows */
	int n;       /* images; set at launch */
} GpuNormArgs;

#define GPU_BN_MOMENTUM 0.1f /* torch.nn.BatchNorm2d's default */

/* The gradient of a pool goes to the first of the largest, or to all alike. */
typedef struct GpuPoolGradArgs
{
	GpuPoolArgs p; /* its x; y is not used */
	const void *dy;
	void *dx;
	int lddy, lddx;
	bool add;
} GpuPoolGradArgs;

/* da = dy * b; gate: b has one row an image. */
typedef struct GpuMulGradArgs
{
	const void *dy, *b;
	void *da;
	int rows, c, lddy, ldb, ldda;
	bool gate, add;
} GpuMulGradArgs;

/* db = the sum over an image's rows of dy * a. */
typedef struct GpuGateGradArgs
{
	const void *dy, *a;
	void *db;
	int rows, c, lddy, lda, lddb;
	bool add;
} GpuGateGradArgs;

/* y = x where dfx_drop_keep() says so, times 1 / (1 - p), and 0 elsewhere; gradients alike. */
typedef struct GpuDropArgs
{
	const void *x;
	void *y;
	int rows, c, ldx, ldy;
	int op;
	float p;
	bool whole, add;
	uint64_t seed; /* of the step; set at launch */
} GpuDropArgs;

/* dx = channel s.channel of the signal s.x, back to the vector s.y. */
typedef struct GpuUnstackArgs
{
	GpuStackArgs s;
	bool add;
} GpuUnstackArgs;

/* dpos, and dcls, which is the first of it: sums over images. */
typedef struct GpuPosGradArgs
{
	const void *dy;
	float *dpos, *dcls;
	int tokens, c, lddy;
	int n; /* set at launch */
} GpuPosGradArgs;

/* dx of a LayerNorm, a row at a time; mean and inv of each row stay for GPU_SUM_PART. */
typedef struct GpuLayernormGradArgs
{
	const void *x, *dy;
	void *dx;
	int rows, c, ldx, lddy, lddx;
	const float *weight;
	float eps;
	float *mean, *inv;
	bool add;
} GpuLayernormGradArgs;

/*
 * dx (rows of dq, dk, dv) of an attention whose packed input is x.
 *	GPU_ATTN_GRAD_Q		dq, and of each query two numbers for the other: stat
 *	GPU_ATTN_GRAD_KV	dk and dv
 */
typedef struct GpuAttnGradArgs
{
	const void *x, *dy;
	void *dx;
	int tokens, c, heads, ldx, lddy, lddx;
	float *stat; /* per image, head and query: log of the sum of exponentials; sum of p dp */
	bool add;
} GpuAttnGradArgs;

/*
 * The gradient of a convolution's weights: conv says what it read.
 *	GPU_WGRAD_TILED		part: [chunk][co][tap, ci]; not for groups
 *	GPU_WGRAD_MMA		the same on tensor cores
 *	GPU_WGRAD_DIRECT	part: [chunk][tap, ci / groups][co]
 *	GPU_WGRAD_SUM		grad [co][ci_to][tap], PyTorch's, from either
 */
typedef struct GpuWgradArgs
{
	GpuConvArgs conv;
	const void *dy;
	int lddy;
	float *part, *grad;
	int ci_to; /* channels of a group that the parameter has: fewer than conv's where the input is padded */
	int chunk;
	int n; /* set at launch */
} GpuWgradArgs;

/* Where weight (co, i of a group's ci channels, tap) of PyTorch's order goes; to_ci: what is padded to. */
typedef enum GpuLayout
{
	GPU_LAYOUT_FILTERS = 0, /* [co][tap][to_ci]: for dense products */
	GPU_LAYOUT_FLIPPED,     /* [i][last tap - tap][co]: the same, for the input's gradient */
	GPU_LAYOUT_TAPS,        /* [tap][i][co]: for grouped ones */
	GPU_LAYOUT_TAPS_BACK    /* [last tap - tap][co of the group][input channel] */
} GpuLayout;

typedef struct GpuLayoutArgs
{
	const float *src;
	void *dst;
	GpuLayout layout;
	int co, ci, taps, to_ci, groups;
} GpuLayoutArgs;

/* torch.optim.Adam over `count` parameters; the scalars are as src/cpu/train_params.c makes them. */
typedef struct GpuAdamArgs
{
	float *value, *m, *v;
	const float *grad;
	uint64_t count;
	float decay, beta1, beta2, rest1, rest2, step, root, eps;
} GpuAdamArgs;

#endif /* DFX_CUDA_KERNELS_TRAIN_H */
