/*
 * cmd_tools.c
 *	  decode: what the network sees of an image; devices: what there is to run
 *	  on; backbones: which networks there are.
 */
#include "engine/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/output.h"
#include "image/image.h"

int
dfx_cmd_decode(const DfxOptions *o)
{
	static uint8_t pixels[DFX_RESIZE_SIDE * DFX_RESIZE_SIDE * 3];
	DfxErr err;
	DfxStatus st;

	if (o->nfile != 1)
	{
		fprintf(stderr, "dfx-engine decode: give one image\n");
		return 2;
	}
	st = dfx_read_image(o, o->file[0], DFX_RESIZE_SIDE, pixels, &err);
	if (st == DFX_OK)
		st = dfx_write_file(o->out, pixels, sizeof pixels, &err);
	if (st != DFX_OK)
	{
		dfx_out_error(o->json, o->file[0], &err);
		return 1;
	}
	return 0;
}

int
dfx_cmd_devices(const DfxOptions *o)
{
	DfxDeviceReport r;

	for (int i = 0; dfx_device_report(i, &r); i++)
	{
		DfxOutput out;
		char precisions[64] = "";

		for (int p = DFX_PRECISION_AUTO + 1; p < DFX_PRECISION_COUNT && r.usable; p++)
			if (r.info.precision[p])
			{
				size_t used = strlen(precisions);

				snprintf(precisions + used, sizeof precisions - used, "%s%s", used ? "," : "",
				         dfx_precision_name[p]);
			}
		dfx_out_begin(&out, o->json);
		dfx_out_text(&out, "backend", r.backend);
		dfx_out_bool(&out, "usable", r.usable);
		dfx_out_text(&out, "name", r.usable ? r.info.name : "");
		dfx_out_int(&out, "threads", r.info.threads);
		dfx_out_int(&out, "memory", (int64_t) r.info.memory);
		dfx_out_text(&out, "precisions", precisions);
		dfx_out_text(&out, "automatic", r.usable ? dfx_precision_name[dfx_device_automatic(&r.info)] : "");
		dfx_out_text(&out, "reason", r.usable ? "" : r.reason.msg);
		dfx_out_end(&out);
	}
	return 0;
}

/* Parameters and arithmetic are those of one branch: up to the feature vector, without a classifier. */
static DfxStatus
tools_backbone(const DfxBackbone *b, bool json, DfxErr *err)
{
	DfxGraph *g = dfx_graph_new();
	DfxOutput out;
	DfxStatus st;

	if (!g)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a network");
	st = dfx_build_backbone(g, b, 0, err);
	if (st == DFX_OK)
	{
		dfx_out_begin(&out, json);
		dfx_out_text(&out, "name", b->name);
		dfx_out_text(&out, "family", b->family);
		dfx_out_int(&out, "features", b->features);
		dfx_out_int(&out, "input_size", b->input_size);
		dfx_out_int(&out, "parameters", (int64_t) dfx_graph_parameters(g));
		dfx_out_float(&out, "gflops", dfx_graph_flops(g) / 1e9);
		dfx_out_end(&out);
	}
	dfx_graph_free(g);
	return st;
}

int
dfx_cmd_backbones(const DfxOptions *o)
{
	DfxErr err;

	for (int i = 0; i < dfx_nbackbones; i++)
		if (tools_backbone(&dfx_backbones[i], o->json, &err) != DFX_OK)
			return dfx_complain(&err);
	return 0;
}
