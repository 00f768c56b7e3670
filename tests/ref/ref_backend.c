/*
 * ref_backend.c
 *	  The oracle's backend table: a plan is a deep copy of the graph and one
 *	  buffer a value; forward walks the ops image by image.  What training adds
 *	  is in ref_train.c.
 */
#include "tests/ref/ref_priv.h"

#include <stdlib.h>
#include <string.h>

static DfxStatus
ref_open(const DfxDevOpts *opts, DfxDev **dev, DfxErr *err)
{
	if (opts->ordinal != 0)
		return dfx_fail(err, DFX_EDEVICE, "the reference backend has no device %d", opts->ordinal);
	*dev = malloc(sizeof **dev);
	if (*dev == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory");
	(*dev)->opts = *opts;
	return DFX_OK;
}

static void
ref_close(DfxDev *dev)
{
	free(dev);
}

static void
ref_info(const DfxDev *dev, DfxDevInfo *info)
{
	(void) dev;
	*info = (DfxDevInfo){.name = "reference: plain loops", .threads = 1, .lanes = 1};
	info->precision[DFX_PRECISION_AUTO] = info->precision[DFX_PRECISION_FP32] =
	    info->precision[DFX_PRECISION_INT8] = true;
}

static bool
ref_supports(void *dev, const DfxGraph *g, const DfxOp *op)
{
	(void) dev;
	(void) g;
	(void) op;
	return true;
}

static void
ref_release(DfxPlan *p)
{
	if (p == NULL)
		return;
	ref_train_free(p);
	for (int i = 0; i < p->g.nparam && p->g.param != NULL; i++)
		free(p->g.param[i].data);
	for (int v = 0; v < p->g.nval && p->data != NULL; v++)
		free(p->data[v]);
	free(p->g.op);
	free(p->g.val);
	free(p->g.param);
	free(p->list);
	free(p->data);
	free(p->step);
	free(p);
}

void *
ref_copy(DfxPlan *p, const void *from, size_t n, size_t size)
{
	void *to = malloc(n * size + 1);

	if (to != NULL && from != NULL)
		memcpy(to, from, n * size);
	p->bytes += n * size;
	return to;
}

static bool
ref_copy_graph(DfxPlan *p, const DfxGraph *g)
{
	size_t nin = 0;

	for (int i = 0; i < g->nop; i++)
		nin += (size_t) g->op[i].nin;
	p->g = *g;
	p->g.priv = NULL;
	p->g.op = ref_copy(p, g->op, (size_t) g->nop, sizeof *g->op);
	p->g.val = ref_copy(p, g->val, (size_t) g->nval, sizeof *g->val);
	p->g.param = ref_copy(p, g->param, (size_t) g->nparam, sizeof *g->param);
	p->list = ref_copy(p, NULL, nin, sizeof *p->list);
	p->data = calloc((size_t) g->nval + 1, sizeof *p->data);
	for (int i = 0; i < g->nparam && p->g.param != NULL; i++)
		p->g.param[i].data = NULL;
	if (!p->g.op || !p->g.val || !p->g.param || !p->list || !p->data)
		return false;

	nin = 0;
	for (int i = 0; i < g->nop; i++)
	{
		DfxOp *op = &p->g.op[i];
		const DfxValue *v = &g->val[op->out];

		if (op->nin > 0)
			memcpy(p->list + nin, op->in, (size_t) op->nin * sizeof *op->in);
		op->in = p->list + nin;
		nin += (size_t) op->nin;
		p->data[op->out] = ref_copy(p, NULL, ref_count(v), sizeof(float));
		if (p->data[op->out] == NULL)
			return false;
	}
	for (int i = 0; i < g->nparam; i++)
	{
		p->g.param[i].data = ref_copy(p, g->param[i].data, dfx_param_count(&g->param[i]), sizeof(float));
		if (p->g.param[i].data == NULL)
			return false;
	}
	return true;
}

/* A graph that was optimised has ops and epilogues that training does not know. */
static bool
ref_is_raw(const DfxGraph *g)
{
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];

		if (op->kind == DFX_OP_AFFINE || (op->kind == DFX_OP_BN && op->nin != 1) || op->epi_add >= 0 ||
		    op->epi_act != DFX_ACT_NONE || op->epi_scale >= 0)
			return false;
	}
	return true;
}

static DfxStatus
ref_compile(DfxDev *dev, const DfxGraph *g, const DfxPlanOpts *opts, DfxPlan **plan, DfxErr *err)
{
	DfxPlan *p;

	bool int8 = opts->precision == DFX_PRECISION_INT8 && !opts->train;

	if (opts->precision != DFX_PRECISION_AUTO && opts->precision != DFX_PRECISION_FP32 && !int8)
		return dfx_fail(err, DFX_EUNSUPPORTED, "the reference backend does not run in %s",
		                dfx_precision_name[opts->precision]);
	if (opts->max_batch < 1)
		return dfx_fail(err, DFX_EINVAL, "a batch of %d", opts->max_batch);
	if (opts->train && !ref_is_raw(g))
		return dfx_fail(err, DFX_EINVAL, "an optimised graph cannot be trained");
	for (int i = 0; i < g->nparam; i++)
		if (g->param[i].data == NULL)
			return dfx_fail(err, DFX_EWEIGHTS, "parameter \"%s\" is not set", g->param[i].name);
	p = calloc(1, sizeof *p);
	if (p != NULL)
	{
		p->dev = dev;
		p->max_batch = opts->max_batch;
		p->train = opts->train;
	}
	if (p == NULL || !ref_copy_graph(p, g) || (p->train && !ref_train_alloc(p)) ||
	    (int8 && !ref_quant_alloc(p)))
	{
		ref_release(p);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the plan");
	}
	*plan = p;
	return DFX_OK;
}

static size_t
ref_bytes(const DfxPlan *plan)
{
	return plan->bytes;
}

size_t
ref_input_bytes(const DfxGraph *g)
{
	const DfxValue *v = &g->val[g->input];

	return ref_count(v) * (g->op[v->def].u.input.rgb8 ? 1 : sizeof(float));
}

/* One op of inference, on floats or in the steps of its values. */
static void
ref_step_op(DfxPlan *p, const DfxOp *op, const void *image)
{
	float in = p->step != NULL && op->kind == DFX_OP_CONV ? p->step[op->in[0]] : 0;
	float out = p->step != NULL ? p->step[op->out] : 0;

	if (in > 0)
	{
		RefOp r = ref_view(&p->g, op, p->data, image);

		ref_quant_conv(&r, in);
	}
	else
		ref_run(&p->g, op, p->data, image);
	ref_epilogue(&p->g, op, p->data);
	if (out > 0)
		ref_quant_round(&p->g.val[op->out], p->data[op->out], out);
}

/* What the plan's own loop and the search for the largest inputs share: one image through all ops. */
static void
ref_image(DfxPlan *p, const void *image)
{
	for (int i = 0; i < p->g.nop; i++)
	{
		ref_step_op(p, &p->g.op[i], image);
		if (p->dev->opts.progress != NULL)
			(*p->dev->opts.progress)++;
	}
}

static DfxStatus
ref_largest(DfxPlan *p, const void *in, int n, const int *op, int nop, float *largest, DfxErr *err)
{
	size_t in_size = ref_input_bytes(&p->g);

	if (n < 1 || n > p->max_batch)
		return dfx_fail(err, DFX_EINVAL, "%d images for a plan of 1 to %d", n, p->max_batch);
	for (int k = 0; k < n; k++)
	{
		ref_image(p, (const char *) in + (size_t) k * in_size);
		for (int j = 0; j < nop; j++)
		{
			DfxVal v = p->g.op[op[j]].in[0];
			float *max = &largest[(size_t) k * (size_t) nop + (size_t) j];

			*max = 0;
			for (size_t i = 0; i < ref_count(&p->g.val[v]); i++)
				*max = p->data[v][i] > *max ? p->data[v][i] : *max;
		}
	}
	return DFX_OK;
}

static DfxStatus
ref_forward(DfxPlan *p, const void *in, int n, float *const *out, DfxErr *err)
{
	const DfxGraph *g = &p->g;
	size_t in_size = ref_input_bytes(g);

	if (n < 1 || n > p->max_batch)
		return dfx_fail(err, DFX_EINVAL, "%d images for a plan of 1 to %d", n, p->max_batch);
	for (int k = 0; k < n; k++)
	{
		ref_image(p, (const char *) in + (size_t) k * in_size);
		for (int i = 0; i < g->nout; i++)
		{
			size_t count = ref_count(&g->val[g->out[i]]);

			if (out[i] != NULL)
				memcpy(out[i] + (size_t) k * count, p->data[g->out[i]], count * sizeof(float));
		}
	}
	return DFX_OK;
}

const DfxBackend dfx_ref_backend = {
    .api = DFX_BACKEND_API,
    .name = "reference",
    .open = ref_open,
    .close = ref_close,
    .info = ref_info,
    .supports = ref_supports,
    .compile = ref_compile,
    .release = ref_release,
    .bytes = ref_bytes,
    .forward = ref_forward,
    .forward_train = ref_forward_train,
    .backward = ref_backward,
    .step = ref_step,
    .read_params = ref_read_params,
    .write_params = ref_write_params,
    .largest = ref_largest,
};
