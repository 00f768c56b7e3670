/*
 * train_product.c
 *	  Convolutions and linear layers in training: three products each.
 *
 * forward		y  = w * x + bias, as in inference
 * by input		dx = w' * dy, a convolution as well: of dy, spread out by the
 *				strides, with each filter turned round and its channels' roles
 *				swapped.  So it runs on the kernels and by the libraries that
 *				inference has proven
 * by weights	dw = dy * x over all output rows, in chunks of rows that are
 *				summed in order
 *
 * The weights are copied from the parameters in the layouts that these want
 * (GpuLayout), and the bias in the plan's type, for libraries.
 */
#include "cuda/train.h"

#define PRODUCT_BLOCKS  528                 /* that a product by weights should have: four a multiprocessor */
#define PRODUCT_THREADS 131072              /* of a grouped one */
#define PRODUCT_ROWS    64                  /* that a chunk has at least */
#define PRODUCT_SPREAD  4                   /* pixels for each that is not a zero, at most, to go by tiles */
#define PRODUCT_PART    ((size_t) 64 << 20) /* bytes that all chunks' results may take */

/* Channels of an output channel's filter that the parameter has. */
static int
product_ci(const GpuTrainBuild *b, const DfxOp *op)
{
	return b->g.param[op->param[DFX_W]].dim[1];
}

/* The forward product but for weights and epilogue; in bf16 the network's input has 8 channels. */
static GpuConvArgs
product_shape(const GpuTrainBuild *b, const DfxOp *op)
{
	DfxVal x = op->in[0], y = op->out;
	GpuConvArgs a = gpu_conv_shape(op, &b->val[x], &b->val[y]);

	a.x = gpu_train_at(b, x);
	a.y = gpu_train_at(b, y);
	a.ldx = gpu_train_ld(b, x);
	a.ldy = gpu_train_ld(b, y);
	if (b->type != GPU_F32 && a.groups == 1 && x == b->g.input && b->val[x].root == x && !b->shared[x])
		a.ci = a.ldx;
	return a;
}

/* Weights in a layout, copied whenever they have moved. */
static void *
product_weights(GpuTrainBuild *b, const DfxOp *op, const GpuConvArgs *a, GpuLayout layout, int to_ci)
{
	int ci = product_ci(b, op), p = op->param[DFX_W];
	void *to = gpu_train_copy(b, (size_t) a->co * (size_t) to_ci * (size_t) (a->kh * a->kw));
	GpuTrainStep *s = gpu_train_step(b, &b->t->weights, GPU_LAYOUT, (int) (op - b->op));

	s->args.layout = (GpuLayoutArgs){.src = gpu_train_param(b->t, DFX_STATE_VALUE, p),
	                                 .dst = to,
	                                 .layout = layout,
	                                 .co = a->co,
	                                 .ci = ci,
	                                 .taps = a->kh * a->kw,
	                                 .to_ci = to_ci,
	                                 .groups = a->groups};
	return to;
}

/* The bias as libraries want it; zeros where there is none. */
static void *
product_bias(GpuTrainBuild *b, const DfxOp *op, int co)
{
	void *to = gpu_train_copy(b, (size_t) co);
	GpuTrainStep *s;

	if (op->param[DFX_B] < 0)
		return to;
	s = gpu_train_step(b, &b->t->weights, GPU_LAYOUT, (int) (op - b->op));
	s->args.layout = (GpuLayoutArgs){.src = gpu_train_param(b->t, DFX_STATE_VALUE, op->param[DFX_B]),
	                                 .dst = to,
	                                 .co = co,
	                                 .ci = 1,
	                                 .taps = 1,
	                                 .to_ci = 1,
	                                 .groups = 1};
	return to;
}

/* Groups, and what is mostly the zeros between rows that are spread out, go an element at a time. */
static bool
product_is_direct(const GpuConvArgs *a)
{
	return a->groups != 1 || a->uh * a->uw > PRODUCT_SPREAD;
}

/* The best kernel of our own for a product. */
static GpuKernel
product_kernel(const GpuTrainBuild *b, const GpuConvArgs *a)
{
	if (product_is_direct(a))
		return GPU_CONV_DIRECT;
	if (b->type != GPU_F32 && a->ci % 8 == 0 && a->ldx % 8 == 0 && (uintptr_t) a->x % 16 == 0 && a->ph >= 0 &&
	    a->pw >= 0)
		return GPU_CONV_MMA;
	return GPU_CONV_TILED;
}

static void
product_put(GpuTrainBuild *b, GpuTrainList *list, int i, GpuConvArgs a, const void *bias)
{
	GpuKernel kernel = product_kernel(b, &a);
	GpuTrainStep *s = gpu_train_step(b, list, kernel, i);

	s->args.conv = a;
	if (kernel == GPU_CONV_MMA)
		s->product = (GpuProduct){.w = a.w, .bias = bias};
}

void
gpu_train_product_forward(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuConvArgs a = product_shape(b, op);

	a.w = a.groups == 1 ? product_weights(b, op, &a, GPU_LAYOUT_FILTERS, a.ci)
	                    : product_weights(b, op, &a, GPU_LAYOUT_TAPS, product_ci(b, op));
	if (op->param[DFX_B] >= 0)
		a.epi.bias = gpu_train_param(b->t, DFX_STATE_VALUE, op->param[DFX_B]);
	product_put(b, &b->t->forward, i, a, product_bias(b, op, a.co));
}

/* ---- backward ---- */

static void
product_bias_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuNormArgs a = {.dy = gpu_train_grad_at(b, op->out),
	                 .rows = gpu_train_rows(b, op->out),
	                 .c = b->val[op->out].c,
	                 .lddy = gpu_train_ld(b, op->out)};

	if (op->param[DFX_B] < 0)
		return;
	a.dbias = gpu_train_param(b->t, DFX_STATE_GRAD, op->param[DFX_B]);
	gpu_train_sum_steps(b, a, GPU_SUM_PART, GPU_SUM, &b->t->backward, i, TRAIN_LEARN);
}

/* Sums over pixels for weights: tensor cores take channels in eights. */
static GpuKernel
product_sum_kernel(const GpuTrainBuild *b, const GpuWgradArgs *a)
{
	const GpuConvArgs *v = &a->conv;

	if (v->groups != 1)
		return GPU_WGRAD_DIRECT;
	if (b->type != GPU_F32 && v->ci % 8 == 0 && v->ldx % 8 == 0 && v->co % 8 == 0 && a->lddy % 8 == 0 &&
	    (uintptr_t) v->x % 16 == 0 && (uintptr_t) a->dy % 16 == 0)
		return GPU_WGRAD_MMA;
	return GPU_WGRAD_TILED;
}

/* Into how many chunks the rows of the largest batch go. */
static size_t
product_chunks(const GpuConvArgs *a, GpuKernel kernel, size_t rows)
{
	size_t side = kernel == GPU_WGRAD_MMA ? 128 : 64;
	size_t depth = (size_t) (a->kh * a->kw * (a->ci / a->groups)), co = (size_t) a->co, chunks;

	if (a->groups == 1)
		chunks = PRODUCT_BLOCKS / (((co + side - 1) / side) * ((depth + side - 1) / side));
	else
		chunks = PRODUCT_THREADS / (co * depth);
	if (chunks > rows / PRODUCT_ROWS)
		chunks = rows / PRODUCT_ROWS;
	if (chunks > PRODUCT_PART / (co * depth * sizeof(float)))
		chunks = PRODUCT_PART / (co * depth * sizeof(float));
	return chunks > 0 ? chunks : 1;
}

static void
product_weights_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuWgradArgs a = {.conv = product_shape(b, op),
	                  .dy = gpu_train_grad_at(b, op->out),
	                  .lddy = gpu_train_ld(b, op->out),
	                  .grad = gpu_train_param(b->t, DFX_STATE_GRAD, op->param[DFX_W]),
	                  .ci_to = product_ci(b, op)};
	GpuKernel kernel = product_sum_kernel(b, &a);
	size_t rows = (size_t) b->max_batch * (size_t) gpu_train_rows(b, op->out);
	size_t chunk = rows / product_chunks(&a.conv, kernel, rows) + 1, chunks = (rows + chunk - 1) / chunk;
	size_t weights = (size_t) (a.conv.kh * a.conv.kw * (a.conv.ci / a.conv.groups)) * (size_t) a.conv.co;

	a.chunk = (int) chunk;
	a.part = gpu_train_scratch(b, chunks * weights * sizeof(float));
	gpu_train_step(b, &b->t->backward, kernel, i)->args.wgrad = a;
	gpu_train_step(b, &b->t->backward, GPU_WGRAD_SUM, i)->args.wgrad = a;
}

static void
product_input_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuConvArgs f = product_shape(b, op), a;
	int ci = b->val[op->in[0]].c;

	f.ci = ci;
	a = (GpuConvArgs){.x = gpu_train_grad_at(b, op->out),
	                  .y = gpu_train_grad_at(b, op->in[0]),
	                  .ci = f.co,
	                  .co = ci,
	                  .ldx = f.ldy,
	                  .ldy = f.ldx,
	                  .ih = f.oh,
	                  .iw = f.ow,
	                  .oh = f.ih,
	                  .ow = f.iw,
	                  .kh = f.kh,
	                  .kw = f.kw,
	                  .sh = 1,
	                  .sw = 1,
	                  .ph = f.kh - 1 - f.ph,
	                  .pw = f.kw - 1 - f.pw,
	                  .groups = f.groups,
	                  .uh = f.sh,
	                  .uw = f.sw};
	a.w = product_weights(b, op, &f, product_is_direct(&a) ? GPU_LAYOUT_TAPS_BACK : GPU_LAYOUT_FLIPPED,
	                      product_ci(b, op));
	if (gpu_train_adds(b, op->in[0], i))
	{
		a.epi.add = a.y;
		a.epi.ldadd = a.ldy;
	}
	product_put(b, &b->t->backward, i, a, gpu_train_copy(b, (size_t) ci));
}

void
gpu_train_product_backward(GpuTrainBuild *b, int i)
{
	product_bias_back(b, i);
	product_weights_back(b, i);
	if (gpu_train_wants(b, b->op[i].in[0]))
		product_input_back(b, i);
}
