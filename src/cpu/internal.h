/*
 * internal.h
 *	  What the files of src/cpu share.
 *
 *	device.c	the device and the backend table
 *	workers.c	threads
 *	layout.c	which layout and which place each value gets
 *	plan.c		from a graph to steps: compile, release
 *	conv.c		steps that the library runs
 *	wino1d.c	convolutions of signals (kernels_wino.c has their loops)
 *	wino_bf16.c	those, and 3x3 ones of images, in bf16 (kernels_wino_bf16.c)
 *	group.c		grouped convolutions (kernels_group.c has their loops)
 *	mbconv.c	blocks of EfficientNets, fused (kernels_mbconv.c has their loops)
 *	prim.c		its primitives, with each worker's arguments
 *	ops.c		steps that we run (kernels.c and kernels_bf16.c have their loops)
 *	tokens.c	those of transformers (kernels_tokens.c has their loops)
 *	attn_bf16.c	attention in bf16
 *	int8.c		steps on 8-bit integers (kernels_int8.c has their loops)
 *	wino8.c		their 3x3 convolutions (kernels_wino8.c has their loops)
 *	strands.c	branches that can run side by side
 *	run.c		forward: images over workers
 *	train_*.c	plans for training (train.h)
 *
 * One number describes a layout: vec, how many neighbouring channels of one
 * pixel lie together.  vec 1 is nchw, vec 16 nChw16c, vec 8 nChw8c, vec C nhwc.
 * Channel c, pixel i of an image of P pixels lies at
 *		(c / vec * P + i) * vec + c % vec
 * and channels are padded with zeros to a multiple of vec, which is also what
 * oneDNN expects of its blocked formats.
 *
 * Another says what its numbers are: floats, or bf16 in a plan of that
 * precision, except where layout.c says otherwise.
 */
#ifndef DFX_CPU_INTERNAL_H
#define DFX_CPU_INTERNAL_H

#include <stdatomic.h>

#include "cpu/cpu.h"
#include "cpu/dnnl_compat.h"
#include "cpu/kernels.h"
#include "cpu/kernels_group.h"
#include "cpu/kernels_int8.h"
#include "cpu/kernels_mbconv.h"
#include "cpu/kernels_train.h"
#include "cpu/kernels_wino8.h"
#include "cpu/kernels_wino_bf16.h"
#include "cpu/workers.h"

#define CPU_MAX_BUCKET 3
#define CPU_ALIGN      64
#define CPU_HUGE       ((size_t) 2 << 20)

struct DfxDev
{
	CpuWorkers *workers;
	int threads;
	dnnl_engine_t engine;
	dnnl_stream_t *stream; /* one per worker */
	const CpuKernels *kernels;
	const CpuTokenKernels *token_kernels;
	const CpuKernels *bf16_kernels;
	const CpuTokenKernels *bf16_token_kernels;
	const CpuInt8Kernels *int8_kernels;
	const CpuWino8Kernels *wino8_kernels; /* NULL: this CPU has none */
	const CpuWinoKernels *wino_kernels;
	const CpuMbKernels *mb_kernels;
	const CpuMbKernels *mb_bf16_kernels;
	const CpuGroupKernels *group_kernels;        /* NULL: this CPU has none */
	const CpuGroupKernels *group_bf16_kernels;   /* NULL where the library is faster */
	const CpuWinoBf16Kernels *wino_bf16_kernels; /* NULL where the library is faster */
	const CpuTrainKernels *train_kernels;
	const CpuTrainWindowKernels *train_window_kernels;
	const CpuTrainTokenKernels *train_token_kernels;
	int block; /* channels in a block: 16 with AVX-512, else 8 */
	bool bf16; /* the CPU multiplies bfloat16s: AVX512_BF16 or AMX */
	bool int8; /* and 8-bit integers, without saturation half-way: VNNI */
	_Atomic uint64_t *progress;
	char name[96];
};

/* A value: its shape, its layout, its offset in every worker's arena. */
typedef struct CpuView
{
	int c, h, w;
	int vec;
	dnnl_format_tag_t tag;
	CpuType type;
	float step;    /* of u8: what a step is worth */
	size_t off;    /* bytes */
	size_t stride; /* numbers from one image of a micro-batch to the next */
} CpuView;

static inline size_t
cpu_pixels(const CpuView *v)
{
	return (size_t) v->h * (size_t) v->w;
}

static inline int
cpu_planes(const CpuView *v)
{
	return (v->c + v->vec - 1) / v->vec;
}

/* Numbers of one image, padding included. */
static inline size_t
cpu_floats(const CpuView *v)
{
	return (size_t) cpu_planes(v) * (size_t) v->vec * cpu_pixels(v);
}

/* Bytes from one image to the next. */
static inline size_t
cpu_image_bytes(const CpuView *v)
{
	return v->stride * cpu_size(v->type);
}

/* Where an image of a micro-batch starts. */
static inline void *
cpu_at(char *arena, const CpuView *v, int image)
{
	return arena + v->off + (size_t) image * cpu_image_bytes(v);
}

/* Which number of an image channel c starts at. */
static inline size_t
cpu_channel(const CpuView *v, int c)
{
	return (size_t) (c / v->vec) * cpu_pixels(v) * (size_t) v->vec + (size_t) (c % v->vec);
}

/* Where number i of an image is. */
static inline void *
cpu_to(void *image, const CpuView *v, size_t i)
{
	return (char *) image + i * cpu_size(v->type);
}

static inline const void *
cpu_from(const void *image, const CpuView *v, size_t i)
{
	return (const char *) image + i * cpu_size(v->type);
}

/* How many channels from c on lie together. */
static inline int
cpu_lanes(const CpuView *v, int c)
{
	return v->vec - c % v->vec;
}

static inline int
cpu_min(int a, int b)
{
	return a < b ? a : b;
}

/* The loops for what reads numbers of this type. */
static inline const CpuKernels *
cpu_kernels_for(const DfxDev *dev, CpuType type)
{
	return type == CPU_F32 ? dev->kernels : dev->bf16_kernels;
}

static inline const CpuTokenKernels *
cpu_token_kernels_for(const DfxDev *dev, CpuType type)
{
	return type == CPU_F32 ? dev->token_kernels : dev->bf16_token_kernels;
}

/* A primitive for one bucket, with each worker's arguments (memory objects that point into its arena). */
typedef struct CpuPrim
{
	dnnl_primitive_t prim;
	int narg;
	dnnl_exec_arg_t *arg; /* threads x narg */
} CpuPrim;

/* What a worker is doing: one micro-batch. */
typedef struct CpuRun
{
	const DfxPlan *plan;
	int worker, bucket; /* bucket: index of the micro-batch size n */
	int n;
	char *arena;
	const void *in; /* the caller's, at this micro-batch's first image */
} CpuRun;

typedef struct CpuStep CpuStep;
typedef DfxStatus (*CpuStepFn)(const CpuStep *s, const CpuRun *run, DfxErr *err);

/* One op of the graph, ready to run. */
struct CpuStep
{
	CpuStepFn run;
	DfxOpKind kind;
	int op; /* its index in the graph */
	int nin;
	CpuView *in;
	CpuView out;
	bool relu;
	DfxPool pool;
	int index;     /* TAKE */
	int heads;     /* ATTN */
	float eps;     /* LAYERNORM */
	void *param;   /* affine: scale, then shift, each padded; input: 3 x 256 pixel values; or a file's own */
	bool copy_add; /* conv: the residual add_from must be copied into out first */
	CpuView add_from;
	bool add_apart; /* int8: add_from is an argument of its own */

	/* Steps that the library runs. */
	DfxStatus (*bind)(DfxPlan *p, CpuStep *s, DfxErr *err); /* makes the workers' arguments; NULL: none */
	CpuPrim prim[CPU_MAX_BUCKET];
	int nprim;                 /* buckets from here on use the last one */
	dnnl_exec_arg_t shared[4]; /* weights, bias, a scale and a shift: the same for all workers */
	int nshared;
	char impl[48]; /* the library's name for its implementation, "" for our own loops */
};

struct DfxPlan
{
	DfxDev *dev;
	int max_batch;
	bool int8;
	int nbucket, bucket[CPU_MAX_BUCKET]; /* micro-batch sizes, descending, the last 1 */
	size_t image_bytes;                  /* of one input image */
	struct CpuTrain *train; /* of a plan for training: all that follows is empty but for block and mem */

	CpuStep *step;
	int nstep;
	struct CpuStrands *strands; /* NULL: the network is one piece */
	CpuView out[DFX_MAX_OUT];
	int nout;

	char **arena; /* one per worker; scratch follows at scratch_off */
	size_t arena_bytes, scratch_off;

	/* What release gives back: weights and other blocks, memory objects. */
	void **block;
	int nblock, block_cap;
	size_t block_bytes;
	dnnl_memory_t *mem;
	int nmem, mem_cap;
};

/* Ops that are one step of mbconv.c, by the last of them. */
typedef struct CpuMbGroup
{
	enum
	{
		CPU_MB_NONE = 0,
		CPU_MB_SPREAD,
		CPU_MB_GATED,
		CPU_MB_ACT
	} kind;
	CpuMbSource source; /* spread: what conv is, if it is anything */
	int conv, depth;    /* the 1x1 convolution or stem, the depthwise one */
	DfxVal wide;        /* spread: the depthwise one's result; else the residual, -1: none */
} CpuMbGroup;

/*
 * A compilation under way.  The graph is a shallow copy whose placements and
 * aliases layout.c has made its own; parameters and inputs are the caller's.
 */
typedef struct CpuBuild
{
	DfxDev *dev;
	DfxPlan *plan;
	DfxGraph g;
	CpuType type;  /* of values, but for those that layout.c makes floats */
	CpuView *view; /* of each value */
	int *last_use; /* of each value, as the copy has it */
	bool int8;     /* a plan on integers, where the graph has steps for them ... */
	float *step;   /* ... which are these, of each value: dfx_graph_steps() */
	bool nhwc;
	bool placed;  /* some value is a range of a larger one: images go one by one */
	bool uneven;  /* set by conv.c: the buckets would not compute alike */
	bool no_conv; /* set by conv.c: the library has nothing for a convolution in its layout */
	size_t scratch;
	DfxMemPlan mem;
	CpuMbGroup *mb; /* of each op */
} CpuBuild;

/* A step needs so many bytes of scratch memory while it runs. */
static inline void
cpu_need_scratch(CpuBuild *b, size_t bytes)
{
	if (bytes > b->scratch)
		b->scratch = bytes;
}

/* layout.c */
extern DfxStatus cpu_layout(CpuBuild *b, const DfxGraph *g, DfxErr *err); /* copy, layouts, placements */
extern DfxStatus cpu_layout_memory(CpuBuild *b, DfxErr *err);             /* views, for the largest bucket */
extern void cpu_layout_free(CpuBuild *b);

/* plan.c */
extern DfxStatus
cpu_compile(DfxDev *dev, const DfxGraph *g, const DfxPlanOpts *opts, DfxPlan **plan, DfxErr *err);
extern void cpu_release(DfxPlan *plan);
extern size_t cpu_bytes(const DfxPlan *plan);
extern char *cpu_arena_new(size_t bytes, DfxErr *err); /* huge-page aligned; bytes a multiple of CPU_HUGE */
extern void *cpu_plan_alloc(DfxPlan *p, size_t bytes, DfxErr *err); /* zeroed, lives as long as the plan */
extern DfxStatus cpu_plan_memory(DfxPlan *p, DnnlConstMd md, void *handle, dnnl_memory_t *mem, DfxErr *err);
extern DfxStatus cpu_fail_dnnl(dnnl_status_t st, const char *what, DfxErr *err);

/* strands.c: a network's parts; a part is a strand's number from 0, or one of these */
typedef struct CpuStrands CpuStrands;
#define CPU_PART_ALL  (-1) /* a step that every strand runs for itself */
#define CPU_PART_REST (-2) /* what is left when all strands are through */

/* *out: NULL when the graph, whose steps are made, is one piece. */
extern DfxStatus cpu_strands_find(const CpuBuild *b, CpuStrands **out, DfxErr *err);
extern void cpu_strands_free(CpuStrands *s);
extern int cpu_strands_count(const CpuStrands *s); /* of NULL: 1 */
extern bool
cpu_strands_has(const CpuStrands *s, int part, int step);    /* whether a step is run for that part */
extern size_t cpu_strands_parcel_bytes(const CpuStrands *s); /* of one image */
/* What leaves a strand, from a worker's arena into the image's parcel; and all of it into an arena. */
extern void cpu_strands_pack(const CpuStrands *s, int part, char *parcel, char *arena);
extern void cpu_strands_unpack(const CpuStrands *s, const char *parcel, char *arena);

/* What a CONV or LINEAR op convolves; a linear layer is a 1x1 convolution. */
typedef struct CpuConvShape
{
	dnnl_dim_t groups, ci, co, kh, kw;
	dnnl_dims_t stride, pad; /* of the two spatial dimensions */
} CpuConvShape;

extern CpuConvShape cpu_conv_shape(const DfxGraph *g, const DfxOp *op);
extern bool cpu_conv_winograd(const CpuConvShape *c, const CpuView *out); /* whether it may be asked for */

/* mbconv.c: finds groups in the build's graph; then makes the step of a group's last op */
extern DfxStatus cpu_mb_find(CpuBuild *b, DfxErr *err);
extern bool cpu_mb_wants(const CpuBuild *b, int op);
extern DfxStatus cpu_mb_step(CpuBuild *b, int op, CpuStep *s, DfxErr *err);

/* prim.c: the library's primitives in steps */

/* An argument that each worker has in its own arena, at off. */
typedef struct CpuPrimArg
{
	int arg;
	dnnl_query_t what; /* which of the primitive's descriptors it has */
	size_t off;
} CpuPrimArg;

extern dnnl_data_type_t cpu_dnnl_type(CpuType type);
extern const char *cpu_type_name(CpuType type); /* "bf16" */
extern const_dnnl_primitive_desc_t cpu_prim_pd(const CpuPrim *prim);
extern size_t cpu_prim_scratch(const CpuPrim *prim); /* bytes */
/* The workers' arguments, once their arenas exist: their own, and nshared that are the same for all. */
extern DfxStatus cpu_prim_bind(DfxPlan *p, CpuPrim *prim, const CpuPrimArg *own, int nown,
                               const dnnl_exec_arg_t *shared, int nshared, DfxErr *err);
/*
 * A product z = x y of matrices, or of batches of them, as primitive k of a step; with attr, which goes.
 * dnnl_unimplemented when the library has only its reference.
 */
extern dnnl_status_t cpu_matmul_prim(CpuBuild *b, CpuStep *s, int k, DnnlConstMd x, DnnlConstMd y,
                                     DnnlConstMd z, dnnl_primitive_attr_t attr);
extern dnnl_status_t cpu_prim_execute(const CpuPrim *prim, const CpuRun *run);

/* conv.c: steps for CONV, LINEAR and ACT; and what convolutions on integers share with them */

/* Of one convolution; weights in any layout, bias NULL: none. */
typedef struct CpuConvMds
{
	DnnlConstMd src, weights, bias, dst;
} CpuConvMds;

extern DfxStatus cpu_view_md(DnnlMd *md, const CpuView *v, int n, DfxErr *err);
/*
 * The primitive of bucket k, with attr, which goes.  The first one's
 * implementation and choice of weights are everybody's.  dnnl_unimplemented when
 * the library has no such one, or only its reference.
 */
extern dnnl_status_t cpu_conv_prim(CpuBuild *b, CpuStep *s, int k, const DnnlConv *conv, const CpuConvMds *m,
                                   dnnl_primitive_attr_t attr);
/* Data (as plain says) in a block of the plan in the format of md: an argument that all workers share. */
extern DfxStatus cpu_conv_share(CpuBuild *b, CpuStep *s, int arg, const void *data, DnnlConstMd plain,
                                DnnlConstMd md, DfxErr *err);
/*
 * Weights as numbers of a type, each rounded to the nearest after what the one before it in its kernel lost
 * was added.  So every kernel (of so many weights) keeps its sum, and that is most of what it does to
 * neighbouring pixels, which are much alike: a quarter to three quarters of the error that plain rounding of
 * the weights makes is gone (docs/PERFORMANCE.md).
 */
extern void cpu_conv_round(void *to, CpuType type, const float *weights, size_t n, size_t kernel);
extern DfxStatus cpu_conv_run(const CpuStep *s, const CpuRun *run, DfxErr *err);
extern DfxStatus cpu_conv_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err);
extern DfxStatus cpu_act_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err);

/* wino1d.c: whether a convolution is one for it; its step then, unless (*made false) the library cannot */
extern bool cpu_wino1d_wants(const CpuBuild *b, const DfxOp *op, const CpuConvShape *c);
extern DfxStatus cpu_wino1d_step(CpuBuild *b, const DfxOp *op, CpuStep *s, bool *made, DfxErr *err);

/* group.c: whether a convolution is one for it, in the layout that its values have; its step then */
extern bool cpu_group_wants(const CpuBuild *b, const DfxOp *op, const CpuConvShape *c);
extern DfxStatus cpu_group_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err);

/* wino_bf16.c: whether a convolution is one for it; its step then */
extern bool cpu_wino_bf16_wants(const CpuBuild *b, const DfxOp *op, const CpuConvShape *c);
extern DfxStatus cpu_wino_bf16_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err);

/* int8.c: whether op reads or writes steps; its step then */
extern bool cpu_int8_wants(const CpuBuild *b, const DfxOp *op);
extern DfxStatus cpu_int8_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err);
/* Copy one image of a residual, whatever its type. */
extern void
cpu_int8_copy(const DfxDev *dev, void *dst, const CpuView *out, const void *src, const CpuView *from);

/* Of a convolution on integers: co x ci x kh x kw steps, what one is worth for each output channel; bias
 * NULL: none. */
typedef struct CpuInt8Weights
{
	const int8_t *q;
	const float *step, *bias;
} CpuInt8Weights;

/* wino8.c: whether a convolution is one for it; its step then, unless (*made false) the weights are too large
 */
extern bool cpu_wino8_wants(const CpuBuild *b, const CpuStep *s, const CpuConvShape *c);
extern DfxStatus
cpu_wino8_step(CpuBuild *b, const DfxOp *op, CpuStep *s, const CpuInt8Weights *w, bool *made, DfxErr *err);

/* ops.c */
extern DfxStatus cpu_own_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err);
extern bool cpu_own_supports(const DfxGraph *g, const DfxOp *op);
/* Copy one image's channels into channels c0 .. of dst, whatever the two layouts. */
extern void cpu_copy_channels(void *dst, const CpuView *dv, int c0, const void *src, const CpuView *sv);

/* Channels beyond the last real one must read as zero. */
extern void cpu_zero_padding(void *dst, const CpuView *v);

/* One image each: the input (table as cpu_input_table makes it: the 256 values that each channel's bytes
 * stand for, in PyTorch's order of operations; NULL for floats), a pool, a sum or product (y of C x 1 x 1 is
 * repeated over x's pixels). */
extern DfxStatus cpu_input_table(DfxPlan *plan, const DfxInput *in, float **table, DfxErr *err);
extern void cpu_input_image(void *dst, const CpuView *v, const void *in, const void *table);
extern CpuPoolGeom cpu_pool_geometry(const DfxPool *pool, const CpuView *in, const CpuView *out);
extern void cpu_pool_image(const DfxDev *dev, const DfxPool *pool, void *dst, const CpuView *out,
                           const void *src, const CpuView *in);
extern void cpu_binary_image(const DfxDev *dev, void *dst, const CpuView *out, const void *x,
                             const CpuView *a, const void *y, const CpuView *b, bool mul, bool relu);
/* n numbers as another type, rounded to the nearest. */
extern void cpu_convert(void *to, CpuType to_type, const void *from, CpuType from_type, size_t n);

/* tokens.c: steps for TOKENS, LAYERNORM and ATTN; and what training shares of them */

/* What attention of one head needs: q, k, v and the result, T x width each, and the scores, T x row. */
typedef struct CpuHead
{
	size_t tokens, width, row;
	float *q, *k, *v, *out, *score;
} CpuHead;

extern size_t cpu_head_floats(const CpuView *out, int heads); /* of a head's scratch memory */
extern CpuHead cpu_head(float *scratch, const CpuView *out, int heads);
/* width channels of all tokens, from c on, out of the layout into a dense matrix, and back. */
extern void cpu_head_pack(void *dense, const void *value, const CpuView *v, int c, size_t width);
extern void cpu_head_unpack(void *value, const CpuView *v, int c, const void *dense, size_t width);
extern DfxStatus cpu_head_scores(const DfxDev *dev, const CpuHead *h, DfxErr *err);
extern DfxStatus cpu_attn_image(const DfxDev *dev, float *scratch, float *dst, const CpuView *out,
                                const float *src, const CpuView *in, int heads, DfxErr *err);
extern void cpu_layernorm_image(const DfxDev *dev, void *dst, const CpuView *out, const void *src,
                                const CpuView *in, const float *scale, const float *shift, float eps);
extern DfxStatus cpu_tokens_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err);
extern bool cpu_tokens_supports(const DfxOp *op);

/* attn_bf16.c: ATTN over bf16 */
extern DfxStatus cpu_attn_bf16_step(CpuBuild *b, CpuStep *s, DfxErr *err);

/* A sign of life for the watchdog. */
static inline void
cpu_progress(const DfxDev *dev)
{
	if (dev->progress)
		atomic_fetch_add_explicit(dev->progress, 1, memory_order_relaxed);
}

/* run.c */
extern DfxStatus cpu_forward(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err);
extern DfxStatus
cpu_largest(DfxPlan *plan, const void *in, int n, const int *op, int nop, float *largest, DfxErr *err);

#endif /* DFX_CPU_INTERNAL_H */
