/*
 * product.c
 *	  Convolutions and linear layers as steps: shapes, weights, kernel.
 *
 * Grouped ones run a thread an element on weights whose output channels lie
 * together; all others are dense products, on tensor cores where the type and
 * the channels allow it.  In half precision the network's input is padded with
 * zeros to 8 channels, and the stem's weights with it, which opens the tensor
 * cores to the stem.  Libraries get weights and bias in the program's type.
 */
#include "cuda/internal.h"

static void
product_epilogue(GpuBuild *b, const DfxOp *op, GpuEpilogue *e)
{
	*e = (GpuEpilogue){.act = (GpuAct) op->epi_act};
	if (op->param[DFX_B] >= 0)
		e->bias = gpu_lower_param(b, op->param[DFX_B]);
	if (op->epi_add >= 0)
	{
		e->add = gpu_lower_at(b, op->epi_add);
		e->ldadd = gpu_lower_stride(b, op->epi_add);
	}
	if (op->epi_scale >= 0)
	{
		e->scale = gpu_lower_param(b, op->epi_scale);
		e->shift = gpu_lower_param(b, op->epi_shift);
	}
}

GpuConvArgs
gpu_conv_shape(const DfxOp *op, const DfxValue *x, const DfxValue *y)
{
	const DfxConv one = {1, 1, 1, 1, 0, 0, 1};
	const DfxConv *conv = op->kind == DFX_OP_CONV ? &op->u.conv : &one;

	return (GpuConvArgs){.ci = x->c,
	                     .co = y->c,
	                     .ih = x->h,
	                     .iw = x->w,
	                     .oh = y->h,
	                     .ow = y->w,
	                     .kh = conv->kh,
	                     .kw = conv->kw,
	                     .sh = conv->sh,
	                     .sw = conv->sw,
	                     .ph = conv->ph,
	                     .pw = conv->pw,
	                     .groups = conv->groups};
}

/* Shapes and operands of a CONV or LINEAR, all but the weights. */
static void
product_shape(GpuBuild *b, int i, GpuConvArgs *a)
{
	const DfxOp *op = &b->op[i];

	*a = gpu_conv_shape(op, &b->g.val[op->in[0]], &b->g.val[op->out]);
	a->x = gpu_lower_at(b, op->in[0]);
	a->y = gpu_lower_at(b, op->out);
	a->ldx = gpu_lower_stride(b, op->in[0]);
	a->ldy = gpu_lower_stride(b, op->out);
	for (int j = 1; j < op->nin; j++)
		a->ci += b->g.val[op->in[j]].c;
	product_epilogue(b, op, &a->epi);
	if (b->pre[i] >= 0)
	{
		const DfxOp *affine = &b->op[b->pre[i]];

		a->pre_scale = gpu_weight_affine(b, affine, a->ci);
		a->pre_shift = a->pre_scale + a->ci;
		a->pre_act = (GpuAct) affine->epi_act;
	}
}

/* Whether a product reads the network's input itself, whose rows are padded with zeros. */
static bool
product_reads_input(const GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];

	return b->type != GPU_F32 && b->pre[i] < 0 && op->nin == 1 && op->in[0] == b->g.input &&
	       b->g.val[op->in[0]].root == op->in[0];
}

/* A CONV or LINEAR; false: out of memory. */
bool
gpu_lower_product(GpuBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	const DfxParam *w = &b->g.param[op->param[DFX_W]];
	GpuStep *s = gpu_lower_step(b, GPU_CONV_TILED, i);
	GpuConvArgs *a;
	int ci;

	if (!s)
		return false;
	a = &s->args[0].conv;
	product_shape(b, i, a);
	ci = a->ci / a->groups;
	if (a->groups == 1)
	{
		if (product_reads_input(b, i))
			a->ci = a->ldx;
		a->w = gpu_weight_filters(b, w->data, a->co, ci, a->kh, a->kw, a->ci);
		s->product[0].w = a->w;
	}
	else
	{
		s->kernel = GPU_CONV_DIRECT;
		a->w = gpu_weight_taps(b, w->data, a->co, ci, a->kh, a->kw);
		if (ci > 1 && b->type != GPU_F32)
			s->product[0].w = gpu_weight_filters(b, w->data, a->co, ci, a->kh, a->kw, ci);
	}
	if (b->type == GPU_F32)
		s->product[0].w = NULL; /* libraries would round to TF32, or bring little */
	else if (op->param[DFX_B] >= 0)
		s->product[0].bias = gpu_weight_typed(b, b->g.param[op->param[DFX_B]].data, (size_t) a->co);
	else
		s->product[0].bias = gpu_weight_typed(b, NULL, (size_t) a->co);
	if (a->groups == 1 && b->type != GPU_F32 && a->ci % 8 == 0 && (uintptr_t) a->x % 16 == 0)
		s->kernel = GPU_CONV_MMA;
	for (int k = 0; k < GPU_BUCKETS; k++)
		s->choice[k].kernel = s->kernel;
	return true;
}
