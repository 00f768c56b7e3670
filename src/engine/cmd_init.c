/*
 * cmd_init.c
 *	  init: write an untrained model, filled by the fixed formula.
 *
 * Such a model says nothing about images; it lets tests, demonstrations and
 * benchmarks exercise everything else with a file that anyone can remake.
 */
#include "engine/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/output.h"

/* What the options ask for; whether it makes sense is for dfx_build_model() to say, of all but the options
 * themselves. */
static DfxStatus
init_meta(const DfxOptions *o, DfxModelMeta *meta, DfxErr *err)
{
	const char *kind = o->kind ? o->kind : "trinet", *classes = o->classes ? o->classes : "";
	bool trinet = strcmp(kind, "trinet") == 0;
	const DfxBackbone *b;

	if (dfx_option_backbone(o, &b, err) != DFX_OK)
		return err->code;
	if (!trinet && o->head_stride != 1)
		return dfx_fail(err, DFX_EINVAL, "--head-stride is for models of kind trinet, not %s", kind);
	if (strlen(kind) >= sizeof meta->kind || strlen(classes) >= sizeof meta->classes)
		return dfx_fail(err, DFX_ELIMIT, "--kind has at most %zu bytes, --classes %zu", sizeof meta->kind - 1,
		                sizeof meta->classes - 1);
	*meta = trinet && !o->classes ? dfx_model_meta_trinet(b, (int) o->head_stride)
	                              : dfx_model_meta(kind, b, classes, trinet ? (int) o->head_stride : 0);
	return DFX_OK;
}

int
dfx_cmd_init(const DfxOptions *o)
{
	DfxModelMeta meta;
	uint8_t *bytes, version[DFX_VERSION_LEN];
	size_t len;
	DfxGraph *g;
	DfxOutput out;
	DfxErr err;
	DfxStatus st;
	char hex[DFX_VERSION_HEX_LEN];

	if (!o->has_seed || o->nfile != 0)
	{
		fprintf(stderr, "dfx-engine init: %s\n",
		        o->has_seed ? "it takes no file besides --out" : "--random-weights is missing");
		return 2;
	}
	if (init_meta(o, &meta, &err) != DFX_OK)
		return dfx_complain(&err);
	if (dfx_random_graph(&meta, 0, o->seed, &g, &err) != DFX_OK)
		return dfx_complain(&err);
	st = dfx_graph_export(g, &meta, DFX_F32, &bytes, &len, version, &err);
	if (st == DFX_OK)
		st = dfx_write_file(o->out, bytes, len, &err);
	if (st == DFX_OK)
	{
		dfx_version_hex(version, hex);
		dfx_out_begin(&out, true);
		dfx_out_text(&out, "out", o->out);
		dfx_out_text(&out, "kind", meta.kind);
		dfx_out_text(&out, "backbone", meta.backbone);
		dfx_out_text(&out, "classes", meta.classes);
		dfx_out_int(&out, "head_stride", meta.head_stride);
		dfx_out_text(&out, "version", hex);
		dfx_out_end(&out);
	}
	free(bytes);
	dfx_graph_free(g);
	return st == DFX_OK ? 0 : dfx_complain(&err);
}
