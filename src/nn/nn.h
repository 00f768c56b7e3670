/*
 * nn.h
 *	  The network graph: what to compute, never how.
 *
 * A graph is a flat array of ops in execution order; every op writes one new
 * value (single assignment), so the backward pass is the same array walked in
 * reverse.  Values have per-image shapes C x H x W; the batch is the backend's
 * business.  1-D signals are C x 1 x L, tokens C x T x 1.
 *
 * Builders carry a sticky error: the first failure is kept, later calls do
 * nothing and return -1, dfx_graph_finish() reports it.  A scope stack gives
 * parameters the names of torchvision's state_dict.
 *
 * Life of a graph for inference:
 *	dfx_graph_new, dfx_build_*		ops, values, described parameters
 *	dfx_weights_*					parameter data, fp32, by name
 *	dfx_graph_optimize				exact rewrites (fold, fuse, place)
 *	backend->compile				reads the graph, copies what it needs
 *	dfx_graph_free
 * For training the graph goes to compile as it was built, with its weights.
 */
#ifndef DFX_NN_NN_H
#define DFX_NN_NN_H

#include "base/tensor.h"
#include "base/version.h"

typedef enum DfxAct
{
	DFX_ACT_NONE = 0,
	DFX_ACT_RELU,
	DFX_ACT_SILU,
	DFX_ACT_GELU, /* the erf form */
	DFX_ACT_SIGMOID,
	DFX_ACT_COUNT
} DfxAct;

typedef enum DfxOpKind
{
	DFX_OP_INPUT = 0, /* u.input */
	DFX_OP_CONV,      /* u.conv; param W [,B] */
	DFX_OP_BN,        /* u.eps; param W, B, MEAN, VAR; inputs > 1: of their channel concat (after optimize) */
	DFX_OP_AFFINE, /* made by optimize from BN: per-channel x * W + B; inputs > 1: of their channel concat */
	DFX_OP_LINEAR, /* over channels; param W, B */
	DFX_OP_LAYERNORM, /* over channels; u.eps; param W, B */
	DFX_OP_ATTN,      /* u.heads; input is packed q,k,v: 3C x T x 1 -> C x T x 1 */
	DFX_OP_ACT,       /* u.act */
	DFX_OP_ADD,       /* two inputs of one shape */
	DFX_OP_MUL,       /* second input may be C x 1 x 1 */
	DFX_OP_CONCAT,    /* along channels, any number of inputs */
	DFX_OP_STACK,     /* n inputs of C x 1 x 1 -> n x 1 x C (the three feature vectors become a 1-D signal) */
	DFX_OP_POOL,      /* u.pool */
	DFX_OP_TOKENS,    /* class token and position embedding; param W (1,1,C), B (1,T,C) */
	DFX_OP_TAKE,      /* u.index: token number index, C x T x 1 -> C x 1 x 1 */
	DFX_OP_DROP,      /* u.drop; identity in inference */
	DFX_OP_COUNT
} DfxOpKind;

typedef int DfxVal; /* index into graph->val; -1 after an error */

enum
{
	DFX_W = 0,
	DFX_B = 1,
	DFX_MEAN = 2,
	DFX_VAR = 3,
	DFX_MAX_PARAM = 4,
	DFX_MAX_OUT = 5
};

/* What a parameter is; decides its random initialisation (DESIGN 8) and its training rules. */
typedef enum DfxRole
{
	DFX_ROLE_WEIGHT = 0, /* convolution or linear weight */
	DFX_ROLE_SCALE,      /* BatchNorm or LayerNorm weight */
	DFX_ROLE_BIAS,       /* any bias */
	DFX_ROLE_MEAN,       /* running_mean: a buffer, not trained */
	DFX_ROLE_VAR,        /* running_var: a buffer, not trained */
	DFX_ROLE_EMBED       /* class token, position embedding */
} DfxRole;

typedef struct DfxParam
{
	char name[DFX_NAME_LEN];
	DfxRole role;
	int rank;
	int dim[4];  /* PyTorch's shape */
	float *data; /* owned by the graph; NULL until weights are set */
} DfxParam;

typedef struct DfxValue
{
	int c, h, w;
	int def;      /* op that writes it; -1: none (gone, or a buffer that only its ranges fill) */
	int last_use; /* last op that reads it or, of a root, any of its ranges; nop for an output */

	/*
	 * Placement (dfx_graph_optimize): a value that is a channel range of a
	 * larger value's buffer.  root == its own index, c0 == 0: not placed.  A
	 * root may exist only as a buffer that others fill (a placed CONCAT).
	 */
	DfxVal root;
	int c0;
} DfxValue;

/* groups == 0 is read as 1, strides of 0 as 1. */
typedef struct DfxConv
{
	int kh, kw;
	int sh, sw;
	int ph, pw;
	int groups;
} DfxConv;
#define DFX_CONV2D(k, s, p) ((DfxConv){.kh = (k), .kw = (k), .sh = (s), .sw = (s), .ph = (p), .pw = (p)})
#define DFX_CONV1D(k, s, p) ((DfxConv){.kh = 1, .kw = (k), .sh = 1, .sw = (s), .ph = 0, .pw = (p)})

/* k == 0: global, over all of H x W.  Average pooling has no padding here (no backbone pads it). */
typedef struct DfxPool
{
	int k, s, p;
	bool avg;
} DfxPool;

/*
 * Dropout: each element with probability p; whole: all of an image's at once
 * (stochastic depth).  What is kept is multiplied by 1 / (1 - p).
 */
typedef struct DfxDrop
{
	float p;
	bool whole;
} DfxDrop;

/*
 * Whether an element survives: a function of its place, so that every backend
 * draws the same masks in any order.  op: index in graph->op; image: 0 .. n-1
 * of the batch; element: row-major over C x H x W, 0 when the drop is whole.
 */
extern bool dfx_drop_keep(const DfxDrop *drop, uint64_t seed, int op, int image, uint64_t element);

/*
 * rgb8: the caller feeds uint8 H x W x 3 pixels, and the op is
 * (x / 255 - mean) / std per channel (METHOD "Preprocessing").  Otherwise the
 * caller feeds float C x H x W.
 */
typedef struct DfxInput
{
	bool rgb8;
	float mean[3], std[3];
} DfxInput;

typedef struct DfxOp
{
	DfxOpKind kind;
	int nin;
	DfxVal *in; /* owned by the graph */
	DfxVal out;
	int param[DFX_MAX_PARAM]; /* index into graph->param, -1: none */
	union
	{
		DfxInput input;
		DfxConv conv;
		DfxPool pool;
		float eps;
		DfxDrop drop;
		DfxAct act;
		int heads;
		int index;
	} u;

	/*
	 * Epilogue, set by dfx_graph_optimize, in this order:
	 *	 out = epi_scale * act(op(in) + add) + epi_shift
	 * add is a value of the output's shape (-1: none), act none by default,
	 * scale and shift per-channel parameters (-1: none; they come from a BN
	 * that follows an activation, as in the paper's head).
	 */
	DfxVal epi_add;
	DfxAct epi_act;
	int epi_scale, epi_shift;

	bool placed; /* a CONCAT whose inputs already lie in its buffer: nothing to do */

	/* CONV, calibrated: what a step of its input in 8 bits is worth (quantize.c); 0: it is not */
	float in_step;
} DfxOp;

typedef struct DfxGraph
{
	DfxOp *op;
	int nop;
	DfxValue *val;
	int nval;
	DfxParam *param;
	int nparam;
	DfxVal input;
	DfxVal out[DFX_MAX_OUT]; /* in the order of dfx_output() calls */
	char out_name[DFX_MAX_OUT][16];
	int nout;
	DfxErr err;                /* sticky */
	struct DfxGraphPriv *priv; /* capacities, scope, arena */
} DfxGraph;

/* ---- building: graph.c ---- */

extern DfxGraph *dfx_graph_new(void); /* NULL: out of memory */
extern void dfx_graph_free(DfxGraph *g);
extern DfxStatus dfx_graph_finish(DfxGraph *g, DfxErr *err);

/* Scopes: "layer1", then "0" give "layer1.0.conv1.weight".  dfx_push returns a mark for dfx_pop. */
extern int dfx_push(DfxGraph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
extern void dfx_pop(DfxGraph *g, int mark);

extern DfxVal dfx_input_rgb8(DfxGraph *g, int h, int w); /* ImageNet mean and std */
extern DfxVal dfx_input_f32(DfxGraph *g, int c, int h, int w);
/* rank of the weight: 4, or 3 when kh == 1 and one_d (PyTorch's Conv1d) */
extern DfxVal dfx_conv(DfxGraph *g, DfxVal x, const char *name, int cout, DfxConv a, bool bias);
extern DfxVal dfx_conv1d(DfxGraph *g, DfxVal x, const char *name, int cout, int k, int stride, int pad);
extern DfxVal dfx_bn(DfxGraph *g, DfxVal x, const char *name, float eps);
extern DfxVal dfx_linear(DfxGraph *g, DfxVal x, const char *name, int cout);
extern DfxVal dfx_layernorm(DfxGraph *g, DfxVal x, const char *name, float eps);
extern DfxVal
dfx_attn(DfxGraph *g, DfxVal x, const char *name, int heads); /* in_proj_*, attention, out_proj */
extern DfxVal dfx_act(DfxGraph *g, DfxVal x, DfxAct act);
extern DfxVal dfx_add(DfxGraph *g, DfxVal a, DfxVal b);
extern DfxVal dfx_mul(DfxGraph *g, DfxVal a, DfxVal b);
extern DfxVal dfx_concat(DfxGraph *g, const DfxVal *x, int n);
extern DfxVal dfx_stack(DfxGraph *g, const DfxVal *x, int n);
extern DfxVal dfx_pool(DfxGraph *g, DfxVal x, DfxPool a);
extern DfxVal dfx_tokens(DfxGraph *g, DfxVal x, const char *cls, const char *pos);
extern DfxVal dfx_take(DfxGraph *g, DfxVal x, int index);
extern DfxVal dfx_drop(DfxGraph *g, DfxVal x, float p);
extern DfxVal dfx_drop_path(DfxGraph *g, DfxVal x, float p); /* a whole image's values or none */
extern void dfx_output(DfxGraph *g, DfxVal x, const char *name);

/* ---- the op table: optable.c ---- */

typedef struct DfxOpInfo
{
	const char *name; /* "conv" */
	bool can_fuse;    /* takes an epilogue */
} DfxOpInfo;
extern const DfxOpInfo dfx_op_info[DFX_OP_COUNT];

/* Multiplications and additions, counted as 2 per multiply-add, for one image. */
extern double dfx_op_flops(const DfxGraph *g, const DfxOp *op);
extern double dfx_graph_flops(const DfxGraph *g);

/* Training adjusts it: BatchNorm's running statistics are state, not parameters. */
static inline bool
dfx_param_trained(const DfxParam *p)
{
	return p->role != DFX_ROLE_MEAN && p->role != DFX_ROLE_VAR;
}

/* Elements of a parameter. */
extern size_t dfx_param_count(const DfxParam *p);

/* How many numbers training adjusts. */
extern size_t dfx_graph_parameters(const DfxGraph *g);

/* ---- networks: backbone.c, a file a family, trinet.c ---- */

typedef struct DfxBackbone
{
	const char *name;   /* "densenet121" */
	const char *family; /* "densenet" */
	int features;       /* D */
	int input_size;     /* 256, 224 for ViT */
	/* Emits the network up to its feature vector (D x 1 x 1); nclass > 0 adds the classifier and returns its
	 * logits. */
	DfxVal (*build)(DfxGraph *g, const struct DfxBackbone *b, DfxVal x, int nclass, DfxVal *features);
	const void *config; /* the family's own */
} DfxBackbone;

extern const DfxBackbone dfx_backbones[];
extern const int dfx_nbackbones;
extern const DfxBackbone *dfx_backbone_find(const char *name); /* NULL: unknown */

/* A lone backbone: outputs "features" (D) and, when nclass > 0, "logits" (nclass). */
extern DfxStatus dfx_build_backbone(DfxGraph *g, const DfxBackbone *b, int nclass, DfxErr *err);

/*
 * The tri-branch net of the paper (section 4.2): branches scoped dm, gan,
 * real, stacked to 3 x D, the Conv1d head scoped head; outputs "features"
 * (3 x D) and "logits" (3, in the order dm, gan, real).
 * head_stride 1: the paper; 2: the reference code (strides 2, 2, 1, 1, 1).
 */
extern DfxStatus dfx_build_trinet(DfxGraph *g, const DfxBackbone *b, int head_stride, DfxErr *err);

/*
 * Its head alone, over a float input of 3 x 1 x features (three vectors that
 * were computed before); output "logits" (3).  Parameter names as in the
 * whole, head.*.
 */
extern DfxStatus dfx_build_head(DfxGraph *g, int features, int head_stride, DfxErr *err);

/*
 * A model of any kind by its metadata, all of which must be what the kind
 * calls for (nn/models.h).  nclass: of a lone backbone's classifier, which the
 * metadata do not tell; 0: none.  DFX_EUNSUPPORTED, DFX_EWEIGHTS.
 */
extern DfxStatus dfx_build_model(DfxGraph *g, const DfxModelMeta *meta, int nclass, DfxErr *err);

/* ---- weights: weights.c ---- */

/* Fill every parameter by the formula of DESIGN 8. */
extern DfxStatus dfx_weights_random(DfxGraph *g, uint64_t seed, DfxErr *err);

/*
 * Set every parameter from tensors sorted by name in byte order (data not
 * NULL), strictly by name and shape.  Ignored: names ending in
 * num_batches_tracked.  One DFX_EWEIGHTS names what is missing, extra or
 * misshapen (the first few of each, and how many).
 */
extern DfxStatus dfx_weights_set(DfxGraph *g, const DfxTensor *tensor, size_t n, DfxErr *err);

/*
 * All that dfx_weights_set() would complain of, however long: "missing: a, b;
 * unexpected: c; of another shape or type: d (F32 [2], not [64])".  Sets
 * nothing; malloc'd, NULL when there is no list to give.
 */
extern char *dfx_weights_misfits(DfxGraph *g, const DfxTensor *tensor, size_t n);

/* ---- and back: export.c ---- */

/* A parameter as a tensor: a view of its data. */
extern DfxTensor dfx_param_tensor(const DfxParam *p);

/* All parameters, in byte order of name: views; *tensor is malloc'd.  DFX_ENOMEM. */
extern DfxStatus dfx_graph_tensors(const DfxGraph *g, DfxTensor **tensor, DfxErr *err);

/*
 * What weights become when they are stored: convolution and linear weights
 * and embeddings rounded to dtype; biases, scales and running statistics stay F32.  DFX_EWEIGHTS
 * when dtype cannot hold one.
 */
extern DfxStatus dfx_weights_round(DfxGraph *g, DfxDtype dtype, DfxErr *err);

/*
 * The model as a safetensors file, as dfx_export_model() writes it, with
 * weights rounded as above, and its version; *bytes is malloc'd.
 * DFX_EWEIGHTS, DFX_ENOMEM.
 */
extern DfxStatus
dfx_graph_export(const DfxGraph *g, const DfxModelMeta *meta, DfxDtype dtype, uint8_t **bytes, size_t *len,
                 uint8_t version[DFX_VERSION_LEN], DfxErr *err);

/* ---- eight bits: quantize.c ---- */

/* Steps of a weight, this many to either side of 0; those of a value are DFX_SCALE_STEPS (base/names.h). */
#define DFX_WEIGHT_STEPS 127

/*
 * The convolutions of an optimised graph that are worth calibrating, and run on
 * 8-bit integers then: their indices into op (room for nop), and how many.
 */
extern int dfx_graph_quantizable(const DfxGraph *g, int *op);

/* The name of a convolution's scale; false when it would be too long. */
extern bool dfx_scale_name(const DfxGraph *g, int op, char name[DFX_NAME_LEN]);

/* The convolution whose scale has that name; NULL: none. */
extern DfxOp *dfx_scale_owner(DfxGraph *g, const char *name);

/* Whether any convolution is calibrated. */
extern bool dfx_graph_calibrated(const DfxGraph *g);

/*
 * In a plan on 8-bit integers: what a step of each value is worth (room for
 * nval); 0: it stays floating point.  A convolution runs on integers when its
 * input is in steps.
 */
extern void dfx_graph_steps(const DfxGraph *g, float *step);

/* rows x row weights as steps, and each row's step; halves to even. */
extern void dfx_quantize_weights(const float *w, size_t rows, size_t row, int8_t *q, float *step);

/* ---- passes: passes.c, place.c, plan.c ---- */

/* Whether a backend executes op with the epilogue it carries. */
typedef bool (*DfxSupports)(void *arg, const DfxGraph *g, const DfxOp *op);

/*
 * Exact rewrites for inference; parameters must be set.  Drop DROP; fold BN
 * into a preceding convolution; move an average pool before a 1x1 convolution
 * (DenseNet's transitions); turn the remaining BNs into AFFINE, absorbing a
 * CONCAT input and an activation that follows; attach add, activation and
 * affine epilogues where supports() agrees; place concats.
 */
extern DfxStatus dfx_graph_optimize(DfxGraph *g, DfxSupports supports, void *arg, DfxErr *err);

/*
 * One of them alone, as training can use it: when conv is a plain 1x1
 * convolution and pool an average pool that alone reads its output, the two
 * change places, and the convolution does a quarter of the work (for a 2x2
 * pool).  False: they are something else, and nothing is done.
 */
extern bool dfx_pool_first(DfxGraph *g, DfxOp *conv, DfxOp *pool);

/*
 * Another: place concats (place.c says how), setting root and c0 of values and
 * placed of ops.  absorbed[i] is the value whose CONCAT op i has taken over,
 * -1: none.  DFX_ENOMEM.
 */
extern DfxStatus dfx_graph_place(DfxGraph *g, const DfxVal *absorbed, DfxErr *err);

/* A piece of memory that is needed from moment first to moment last, both included. */
typedef struct DfxMemBlock
{
	int id; /* the caller's */
	int first, last;
	size_t size, off; /* bytes; off is what dfx_plan_blocks finds */
} DfxMemBlock;
extern DfxStatus dfx_plan_blocks(DfxMemBlock *block, int n, size_t *bytes, DfxErr *err);

/* Where each root value lies in one arena: best fit over lifetimes. */
typedef struct DfxMemPlan
{
	size_t bytes;
	size_t *off; /* per value, in bytes; only a root's own entry counts */
} DfxMemPlan;

/*
 * size(arg, g, v) gives the bytes of root value v as the backend lays it out
 * (0: not in the arena).  Offsets are multiples of 64.
 */
extern DfxStatus dfx_plan_memory(const DfxGraph *g, size_t (*size)(void *arg, const DfxGraph *g, DfxVal v),
                                 void *arg, DfxMemPlan *plan, DfxErr *err);
extern void dfx_plan_memory_free(DfxMemPlan *plan);

#endif /* DFX_NN_NN_H */
