/*
 * model.c
 *	  Weights to a compiled plan, and its outputs to features and logits.
 */
#include "engine/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- building ------------------------------------------------------------ */

static const DfxTensor *
model_find(const DfxTensor *tensor, size_t n, const char *name)
{
	size_t lo = 0, hi = n;

	while (lo < hi)
	{
		size_t mid = (lo + hi) / 2;
		int c = strcmp(tensor[mid].name, name);

		if (c == 0)
			return &tensor[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

/*
 * How many classes a lone backbone's classifier has, 0 without one.  What the
 * classifier is called is the family's knowledge, so a graph built with one
 * class is asked: its last weight is the classifier's.
 */
static DfxStatus
model_classes(const DfxModelMeta *meta, const DfxTensor *tensor, size_t n, int *nclass, DfxErr *err)
{
	DfxGraph *g = dfx_graph_new();
	const DfxTensor *t = NULL;
	DfxStatus st;

	*nclass = 0;
	if (!g)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a network");
	st = dfx_build_model(g, meta, 1, err);
	if (st == DFX_OK)
		for (int i = g->nparam - 1; i >= 0 && !t; i--)
			if (g->param[i].role == DFX_ROLE_WEIGHT)
			{
				t = model_find(tensor, n, g->param[i].name);
				break;
			}
	if (t && t->rank == 2 && t->dim[0] > 0 && t->dim[0] <= 100000)
		*nclass = (int) t->dim[0];
	dfx_graph_free(g);
	return st;
}

/* The network of meta, without parameters; with a classifier as large as the tensors' own. */
static DfxStatus
model_network(const DfxModelMeta *meta, const DfxTensor *tensor, size_t n, DfxGraph **out, DfxErr *err)
{
	int nclass = 0;
	DfxStatus st = DFX_OK;
	DfxGraph *g;

	if (strcmp(meta->kind, "backbone") == 0)
		st = model_classes(meta, tensor, n, &nclass, err);
	if (st != DFX_OK)
		return st;
	g = dfx_graph_new();
	if (!g)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a network");
	st = dfx_build_model(g, meta, nclass, err);
	if (st != DFX_OK)
	{
		dfx_graph_free(g);
		return st;
	}
	*out = g;
	return DFX_OK;
}

DfxStatus
dfx_model_graph(const DfxModelMeta *meta, const DfxTensor *tensor, size_t n, DfxGraph **out, DfxErr *err)
{
	DfxGraph *g;
	DfxStatus st = model_network(meta, tensor, n, &g, err);

	*out = NULL;
	if (st != DFX_OK)
		return st;
	st = dfx_weights_set(g, tensor, n, err);
	if (st != DFX_OK)
	{
		dfx_graph_free(g);
		return st;
	}
	*out = g;
	return DFX_OK;
}

char *
dfx_model_misfits(const DfxModelMeta *meta, const DfxTensor *tensor, size_t n)
{
	char *misfits;
	DfxGraph *g;

	if (model_network(meta, tensor, n, &g, NULL) != DFX_OK)
		return NULL;
	misfits = dfx_weights_misfits(g, tensor, n);
	dfx_graph_free(g);
	return misfits;
}

/* Which output is "features", and how long each is: what is not features is logits. */
static void
model_outputs(DfxModel *m, const DfxGraph *g)
{
	m->nout = g->nout;
	m->out_features = -1;
	for (int i = 0; i < g->nout; i++)
	{
		const DfxValue *v = &g->val[g->out[i]];

		m->out_count[i] = v->c * v->h * v->w;
		if (strcmp(g->out_name[i], "features") == 0)
		{
			m->out_features = i;
			m->features = m->out_count[i];
		}
		else
			m->logits += m->out_count[i];
	}
}

/* What the plan computes in, and whether AUTO would be the same. */
static DfxStatus
model_precision(const DfxDevice *device, const DfxGraph *g, DfxPrecision asked, DfxModel *m, DfxErr *err)
{
	bool calibrated = dfx_graph_calibrated(g);
	DfxPrecision automatic =
	    calibrated && device->info.precision[DFX_PRECISION_INT8] ? DFX_PRECISION_INT8 : DFX_PRECISION_AUTO;
	DfxStatus st = dfx_device_precision(device, automatic, &automatic, err);

	if (st == DFX_OK)
		st =
		    dfx_device_precision(device, asked == DFX_PRECISION_AUTO ? automatic : asked, &m->precision, err);
	m->automatic = m->precision == automatic;
	if (st != DFX_OK || calibrated || m->precision != DFX_PRECISION_INT8)
		return st;
	dfx_fail(err, DFX_EUNSUPPORTED, "the model has not been calibrated for precision int8");
	dfx_hint(err, "CALL dfx_quantize() calibrates it.");
	return DFX_EUNSUPPORTED;
}

/* Which convolutions calibration would be about. */
static DfxStatus
model_scales(DfxModel *m, const DfxGraph *g, DfxErr *err)
{
	m->scale_op = calloc((size_t) g->nop + 1, sizeof *m->scale_op);
	if (!m->scale_op)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a model");
	m->nscale = dfx_graph_quantizable(g, m->scale_op);
	m->scale_name = calloc((size_t) m->nscale + 1, sizeof *m->scale_name);
	if (!m->scale_name)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a model");
	for (int i = 0; i < m->nscale; i++)
		if (!dfx_scale_name(g, m->scale_op[i], m->scale_name[i]))
			return dfx_fail(err, DFX_EUNSUPPORTED, "the name of a convolution is too long");
	return DFX_OK;
}

static void
model_release(DfxModel *m)
{
	free(m->scale_op);
	free(m->scale_name);
	free(m);
}

DfxStatus
dfx_model_compile(const DfxDevice *device, const DfxModelMeta *meta, DfxGraph *g, DfxPrecision precision,
                  int max_batch, DfxModel **model, DfxErr *err)
{
	DfxModel *m = calloc(1, sizeof *m);
	DfxPlanOpts opts = {.max_batch = max_batch};
	DfxStatus st;

	*model = NULL;
	if (!m)
	{
		dfx_graph_free(g);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a model");
	}
	m->meta = *meta;
	m->backend = device->backend;
	m->input_size = meta->input_size;
	st = model_precision(device, g, precision, m, err);
	if (st == DFX_OK)
		st = dfx_graph_optimize(g, device->backend->supports, device->dev, err);
	if (st == DFX_OK)
	{
		opts.precision = m->precision;
		model_outputs(m, g);
	}
	if (st == DFX_OK)
		st = model_scales(m, g, err);
	if (st == DFX_OK)
		st = device->backend->compile(device->dev, g, &opts, &m->plan, err);
	dfx_graph_free(g);
	if (st != DFX_OK)
	{
		model_release(m);
		return st;
	}
	m->bytes = m->backend->bytes(m->plan);
	*model = m;
	return DFX_OK;
}

void
dfx_model_free(DfxModel *model)
{
	if (!model)
		return;
	model->backend->release(model->plan);
	model_release(model);
}

size_t
dfx_model_input_bytes(const DfxModel *model)
{
	return (size_t) model->input_size * model->input_size * 3;
}

/* n images' logits, network by network in apart, to image by image. */
static void
model_join(const DfxModel *m, const float *apart, int n, float *logits)
{
	int done = 0;

	for (int i = 0; i < m->nout; i++)
	{
		int count = m->out_count[i];

		if (i == m->out_features)
			continue;
		for (int k = 0; k < n; k++, apart += count)
			memcpy(logits + (size_t) k * (size_t) m->logits + done, apart, (size_t) count * sizeof(float));
		done += count;
	}
}

DfxStatus
dfx_model_run(const DfxModel *model, const uint8_t *in, int n, float *features, float *logits, DfxErr *err)
{
	/* A network's logits of a batch come together, an image's are wanted together. */
	bool several = model->nout - (model->out_features >= 0) > 1;
	float *out[DFX_MAX_OUT] = {NULL}, *apart = NULL, *next = logits;
	DfxStatus st;

	if (logits && several)
	{
		next = apart = malloc((size_t) n * (size_t) model->logits * sizeof(float));
		if (!apart)
			return dfx_fail(err, DFX_ENOMEM, "out of memory for the logits of %d images", n);
	}
	for (int i = 0; i < model->nout; i++)
		if (i == model->out_features)
			out[i] = features;
		else if (logits)
		{
			out[i] = next;
			next += (size_t) n * (size_t) model->out_count[i];
		}
	st = model->backend->forward(model->plan, in, n, out, err);
	if (st == DFX_OK && apart)
		model_join(model, apart, n, logits);
	free(apart);
	return st;
}

/* --- calibration --------------------------------------------------------- */

DfxStatus
dfx_model_check_calibration(const DfxModel *m, DfxErr *err)
{
	if (m->nscale == 0)
	{
		dfx_fail(err, DFX_EUNSUPPORTED, "%s cannot be computed on 8-bit integers", m->meta.backbone);
		dfx_hint(err, "DenseNets and ResNets can.");
		return DFX_EUNSUPPORTED;
	}
	if (!m->backend->largest)
	{
		dfx_fail(err, DFX_EUNSUPPORTED, "device %s cannot calibrate a model", m->backend->name);
		dfx_hint(err, "Set dfx.device to cpu for it; the calibrated model runs on any device.");
		return DFX_EUNSUPPORTED;
	}
	if (m->precision != DFX_PRECISION_FP32)
		return dfx_fail(err, DFX_EINVAL, "a model is calibrated in precision fp32, not %s",
		                dfx_precision_name[m->precision]);
	return DFX_OK;
}

DfxStatus
dfx_model_largest(const DfxModel *m, const uint8_t *in, int n, float *largest, DfxErr *err)
{
	DfxStatus st = dfx_model_check_calibration(m, err);

	return st == DFX_OK ? m->backend->largest(m->plan, in, n, m->scale_op, m->nscale, largest, err) : st;
}

/* --- metadata ------------------------------------------------------------ */

DfxModelMeta
dfx_model_meta(const char *kind, const DfxBackbone *b, const char *classes, int head_stride)
{
	DfxModelMeta meta = {.head_stride = (uint32_t) head_stride, .input_size = (uint32_t) b->input_size};

	snprintf(meta.kind, sizeof meta.kind, "%s", kind);
	snprintf(meta.backbone, sizeof meta.backbone, "%s", b->name);
	snprintf(meta.classes, sizeof meta.classes, "%s", classes);
	return meta;
}

DfxModelMeta
dfx_model_meta_trinet(const DfxBackbone *b, int head_stride)
{
	return dfx_model_meta("trinet", b, "dm,gan,real", head_stride);
}

DfxModelMeta
dfx_model_meta_backbone(const DfxBackbone *b)
{
	return dfx_model_meta("backbone", b, "", 0);
}
