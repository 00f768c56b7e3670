/*
 * cmd_infer.c
 *	  classify, logits, trinet: a model from a file or a formula, run over image files.
 *
 * The three differ in where the network comes from and in what a line shows;
 * the loop over the images is one.  An image that cannot be read gets its
 * line, the others still run.
 */
#include "engine/command.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/output.h"
#include "engine/verdict.h"

#define INFER_CLASSES 1000 /* ImageNet's, of a lone backbone with random weights */

/* Files are taken this many at a time, so that the backend can use all its workers. */
#define INFER_GROUP 8

typedef struct Infer
{
	const DfxOptions *options;
	DfxDevice device;
	DfxModel *model;
	uint8_t *pixels; /* INFER_GROUP inputs */
	float *features, *logits;
} Infer;

/* What a line shows of one image that succeeded. */
typedef struct InferResult
{
	const char *path;
	const float *features, *logits;
} InferResult;

typedef DfxStatus (*InferShow)(const Infer *in, const InferResult *result, DfxErr *err);

/* --- the loop ------------------------------------------------------------ */

/* Run n files together and print a line for each, in their order; false when one of them failed. */
static bool
infer_group(const Infer *in, char *const *path, int n, InferShow show)
{
	const DfxModel *m = in->model;
	DfxStatus st[INFER_GROUP], run = DFX_OK;
	DfxErr err[INFER_GROUP], run_err;
	int good = 0, next = 0;
	bool all = true;

	for (int i = 0; i < n; i++)
	{
		st[i] = dfx_read_image(in->options, path[i], m->input_size,
		                       in->pixels + (size_t) good * dfx_model_input_bytes(m), &err[i]);
		good += st[i] == DFX_OK;
	}
	if (good > 0)
		run = dfx_model_run(m, in->pixels, good, in->features, in->logits, &run_err);
	for (int i = 0; i < n; i++)
	{
		if (st[i] == DFX_OK && run != DFX_OK)
		{
			st[i] = run;
			err[i] = run_err;
		}
		if (st[i] == DFX_OK)
		{
			InferResult result = {path[i], in->features + (size_t) next * (size_t) m->features,
			                      in->logits + (size_t) next * (size_t) m->logits};

			next++;
			st[i] = show(in, &result, &err[i]);
		}
		if (st[i] != DFX_OK)
		{
			dfx_out_error(in->options->json, path[i], &err[i]);
			all = false;
		}
	}
	return all;
}

static int
infer_all(Infer *in, InferShow show)
{
	const DfxOptions *o = in->options;
	const DfxModel *m = in->model;
	int rc = 0;

	in->pixels = malloc(INFER_GROUP * dfx_model_input_bytes(m));
	in->features = malloc(INFER_GROUP * ((size_t) m->features + 1) * sizeof(float));
	in->logits = malloc(INFER_GROUP * ((size_t) m->logits + 1) * sizeof(float));
	if (in->pixels && in->features && in->logits)
		for (int i = 0; i < o->nfile; i += INFER_GROUP)
		{
			int n = o->nfile - i < INFER_GROUP ? o->nfile - i : INFER_GROUP;

			if (!infer_group(in, o->file + i, n, show))
				rc = 1;
		}
	else
	{
		fprintf(stderr, "dfx-engine: out of memory\n");
		rc = 1;
	}
	free(in->pixels);
	free(in->features);
	free(in->logits);
	return rc;
}

/* Compile g (freed in any case) for the options' device, then run over the files. */
static int
infer_run(const DfxOptions *o, const DfxModelMeta *meta, DfxGraph *g, const uint8_t *version, InferShow show)
{
	DfxDeviceOpts dev = {.spec = o->device, .threads = (int) o->threads};
	int max_batch = o->nfile < INFER_GROUP ? o->nfile : INFER_GROUP;
	Infer in = {.options = o};
	DfxErr err;
	int rc;

	if (dfx_device_open(&dev, &in.device, &err) != DFX_OK)
	{
		dfx_graph_free(g);
		return dfx_complain(&err);
	}
	if (dfx_model_compile(&in.device, meta, g, o->precision, max_batch, &in.model, &err) != DFX_OK)
		rc = dfx_complain(&err);
	else
	{
		if (version)
			memcpy(in.model->version, version, DFX_VERSION_LEN);
		rc = infer_all(&in, show);
		dfx_model_free(in.model);
	}
	dfx_device_close(&in.device);
	return rc;
}

/* --- classify ------------------------------------------------------------ */

static DfxStatus
infer_show_verdict(const Infer *in, const InferResult *r, DfxErr *err)
{
	char hex[DFX_VERSION_HEX_LEN];
	DfxVerdictReply v;
	DfxOutput o;

	if (dfx_verdict(&in->model->meta, r->logits, &v, err) != DFX_OK)
		return err->code;
	dfx_version_hex(in->model->version, hex);
	dfx_out_begin(&o, in->options->json);
	dfx_out_text(&o, "image", r->path);
	dfx_out_text(&o, "label", dfx_class_label[v.label]);
	dfx_out_float(&o, "confidence", v.confidence);
	dfx_out_float(&o, "p_synthetic", v.p_synthetic);
	dfx_out_float(&o, "p_dm", v.binary ? NAN : (double) v.p_dm);
	dfx_out_float(&o, "p_gan", v.binary ? NAN : (double) v.p_gan);
	dfx_out_float(&o, "p_real", v.p_real);
	dfx_out_text(&o, "model", in->options->model);
	dfx_out_text(&o, "version", hex);
	dfx_out_text(&o, "generator", v.generator[0] ? v.generator : NULL);
	dfx_out_end(&o);
	return DFX_OK;
}

int
dfx_cmd_classify(const DfxOptions *o)
{
	uint8_t version[DFX_VERSION_LEN];
	DfxModelMeta meta;
	DfxGraph *g;
	DfxErr err;

	if (dfx_model_file(o->model, &meta, &g, version, &err) != DFX_OK)
		return dfx_complain(&err);
	if (dfx_verdict_check(&meta, &err) != DFX_OK)
	{
		dfx_graph_free(g);
		return dfx_complain(&err);
	}
	return infer_run(o, &meta, g, version, infer_show_verdict);
}

/* --- logits, trinet ------------------------------------------------------ */

static DfxStatus
infer_show_raw(const Infer *in, const InferResult *r, DfxErr *err)
{
	DfxOutput o;

	(void) err;
	dfx_out_begin(&o, in->options->json);
	dfx_out_text(&o, "image", r->path);
	dfx_out_text(&o, "backbone", in->model->meta.backbone);
	dfx_out_floats(&o, "features", r->features, (size_t) in->model->features);
	dfx_out_floats(&o, "logits", r->logits, (size_t) in->model->logits);
	dfx_out_end(&o);
	return DFX_OK;
}

int
dfx_cmd_logits(const DfxOptions *o)
{
	const DfxBackbone *b;
	DfxSafetensors st;
	DfxModelMeta meta;
	DfxGraph *g;
	DfxErr err;
	DfxStatus rc;

	if ((o->weights != NULL) == o->has_seed)
	{
		fprintf(stderr, "dfx-engine logits: give one of --weights and --random-weights\n");
		return 2;
	}
	if (dfx_option_backbone(o, &b, &err) != DFX_OK)
		return dfx_complain(&err);
	meta = dfx_model_meta_backbone(b);
	if (o->has_seed)
		rc = dfx_random_graph(&meta, INFER_CLASSES, o->seed, &g, &err);
	else
	{
		rc = dfx_st_open(o->weights, &st, &err);
		if (rc != DFX_OK)
			return dfx_complain(&err);
		rc = dfx_file_graph(&meta, &st, &g, &err);
		dfx_st_free(&st);
	}
	if (rc != DFX_OK)
		return dfx_complain(&err);
	return infer_run(o, &meta, g, NULL, infer_show_raw);
}

int
dfx_cmd_trinet(const DfxOptions *o)
{
	const DfxBackbone *b;
	DfxModelMeta meta;
	DfxGraph *g;
	DfxErr err;

	if (!o->has_seed)
	{
		fprintf(stderr, "dfx-engine trinet: --random-weights is missing\n");
		return 2;
	}
	if (dfx_option_backbone(o, &b, &err) != DFX_OK)
		return dfx_complain(&err);
	meta = dfx_model_meta_trinet(b, (int) o->head_stride);
	if (dfx_random_graph(&meta, 0, o->seed, &g, &err) != DFX_OK)
		return dfx_complain(&err);
	return infer_run(o, &meta, g, NULL, infer_show_raw);
}
