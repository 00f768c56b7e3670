/*
 * cmd_heatmap.c
 *	  heatmap: what a verdict on one image rests on, as a picture and as numbers.
 */
#include "engine/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/heat.h"
#include "engine/output.h"
#include "engine/verdict.h"

#define HEATMAP_BATCH 16

typedef struct Heatmap
{
	const DfxOptions *options;
	DfxDevice device;
	DfxModel *model;
	uint8_t *pixels, *in; /* the image; a batch of copies */
	float *logits;
	DfxHeat heat;
} Heatmap;

/* --class; the verdict's when it is not given. */
static DfxStatus
heatmap_class(const char *name, uint32_t *class, DfxErr *err)
{
	*class = DFX_CLASS_ANY;
	if (!name)
		return DFX_OK;
	for (uint32_t i = 0; i <= DFX_CLASS_SYNTHETIC; i++)
		if (strcmp(name, dfx_class_label[i]) == 0)
		{
			*class = i;
			return DFX_OK;
		}
	return dfx_fail(err, DFX_EINVAL, "--class is dm, gan, real or synthetic, not \"%s\"", name);
}

/* Open the device, load the model, make room. */
static DfxStatus
heatmap_open(Heatmap *h, DfxErr *err)
{
	const DfxOptions *o = h->options;
	DfxDeviceOpts dev = {.spec = o->device, .threads = (int) o->threads};
	uint8_t version[DFX_VERSION_LEN];
	DfxModelMeta meta;
	DfxGraph *g;
	DfxStatus st = dfx_model_file(o->model, &meta, &g, version, err);

	if (st != DFX_OK)
		return st;
	st = dfx_device_open(&dev, &h->device, err);
	if (st != DFX_OK)
	{
		dfx_graph_free(g);
		return st;
	}
	st = dfx_model_compile(&h->device, &meta, g, o->precision, HEATMAP_BATCH, &h->model, err);
	if (st != DFX_OK)
	{
		dfx_device_close(&h->device);
		return st;
	}
	h->pixels = malloc(dfx_model_input_bytes(h->model));
	h->in = malloc(HEATMAP_BATCH * dfx_model_input_bytes(h->model));
	h->logits = malloc(HEATMAP_BATCH * ((size_t) h->model->logits + 1) * sizeof(float));
	return h->pixels && h->in && h->logits ? DFX_OK
	                                       : dfx_fail(err, DFX_ENOMEM, "out of memory for a heatmap");
}

static void
heatmap_close(Heatmap *h)
{
	free(h->pixels);
	free(h->in);
	free(h->logits);
	if (h->model)
	{
		dfx_model_free(h->model);
		dfx_device_close(&h->device);
	}
}

static DfxStatus
heatmap_run(Heatmap *h, uint32_t class, DfxErr *err)
{
	const DfxOptions *o = h->options;
	DfxStatus st = dfx_read_image(o, o->file[0], h->model->input_size, h->pixels, err);

	if (st == DFX_OK)
		st = dfx_heat_begin(&h->heat, h->model, h->pixels, class, err);
	while (st == DFX_OK && !dfx_heat_done(&h->heat))
	{
		int n = dfx_heat_fill(&h->heat, HEATMAP_BATCH, h->in);

		st = dfx_model_run(h->model, h->in, n, NULL, h->logits, err);
		if (st == DFX_OK)
			st = dfx_heat_take(&h->heat, n, h->logits, err);
	}
	return st;
}

static DfxStatus
heatmap_write(const Heatmap *h, DfxErr *err)
{
	DfxEncoded png = {.limit = DFX_REPLY_HEATMAP};
	DfxOutput out;
	DfxStatus st = dfx_heat_encode(&h->heat, &png, err);

	if (st == DFX_OK)
		st = dfx_write_file(h->options->out, png.data, png.len, err);
	free(png.data);
	if (st != DFX_OK)
		return st;
	dfx_out_begin(&out, h->options->json);
	dfx_out_text(&out, "image", h->options->file[0]);
	dfx_out_text(&out, "class", dfx_class_label[h->heat.class]);
	dfx_out_float(&out, "log_odds", h->heat.whole);
	dfx_out_floats(&out, "fall", h->heat.fall, DFX_OCCLUDE_WINDOWS);
	dfx_out_text(&out, "out", h->options->out);
	dfx_out_end(&out);
	return DFX_OK;
}

int
dfx_cmd_heatmap(const DfxOptions *o)
{
	Heatmap h = {.options = o};
	uint32_t class;
	DfxErr err;
	DfxStatus st;

	if (o->nfile != 1)
	{
		fprintf(stderr, "dfx-engine heatmap: give one image\n");
		return 2;
	}
	if (heatmap_class(o->class, &class, &err) != DFX_OK)
		return dfx_complain(&err);
	st = heatmap_open(&h, &err);
	if (st == DFX_OK)
		st = heatmap_run(&h, class, &err);
	if (st == DFX_OK)
		st = heatmap_write(&h, &err);
	heatmap_close(&h);
	return st == DFX_OK ? 0 : dfx_complain(&err);
}
