/*
 * cmd_init.c
 *	  init: write an untrained model, filled by the fixed formula.
 *
 * Such a model says nothing about images; it lets tests, demonstrations and
 * benchmarks exercise everything else with a file that anyone can remake.
 */
#include "engine/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/safetensors.h"
#include "engine/output.h"

static int
init_compare(const void *a, const void *b)
{
	return strcmp(((const DfxTensor *) a)->name, ((const DfxTensor *) b)->name);
}

/* The graph's parameters as tensors in byte order of name; views into the graph. */
static DfxTensor *
init_tensors(const DfxGraph *g, DfxErr *err)
{
	DfxTensor *t = calloc((size_t) g->nparam + 1, sizeof *t);

	if (!t)
	{
		dfx_fail(err, DFX_ENOMEM, "out of memory for %d tensors", g->nparam);
		return NULL;
	}
	for (int i = 0; i < g->nparam; i++)
	{
		const DfxParam *p = &g->param[i];
		uint64_t elements;

		snprintf(t[i].name, sizeof t[i].name, "%s", p->name);
		t[i].dtype = DFX_F32;
		t[i].rank = (uint32_t) p->rank;
		for (int k = 0; k < p->rank; k++)
			t[i].dim[k] = (uint64_t) p->dim[k];
		t[i].data = p->data;
		dfx_tensor_count(&t[i], &elements, &t[i].nbytes);
	}
	qsort(t, (size_t) g->nparam, sizeof *t, init_compare);
	return t;
}

static DfxStatus
init_write(const char *path, const DfxModelMeta *meta, const DfxTensor *t, size_t n, DfxErr *err)
{
	char stride[12], size[12];
	const char *keys[] = {"backbone", "classes", "format", "head_stride", "input_size", "kind"};
	const char *values[] = {meta->backbone, meta->classes, "dfx1", stride, size, meta->kind};
	uint8_t *header;
	size_t header_len;
	FILE *f;
	bool ok;
	DfxStatus st;

	snprintf(stride, sizeof stride, "%u", meta->head_stride);
	snprintf(size, sizeof size, "%u", meta->input_size);
	st = dfx_st_header(t, n, keys, values, sizeof keys / sizeof keys[0], &header, &header_len, err);
	if (st != DFX_OK)
		return st;
	f = fopen(path, "wb");
	if (!f)
	{
		free(header);
		return dfx_fail(err, DFX_EIO, "could not create \"%s\": %s", path, strerror(errno));
	}
	ok = fwrite(header, 1, header_len, f) == header_len;
	free(header);
	for (size_t i = 0; i < n && ok; i++)
		ok = fwrite(t[i].data, 1, t[i].nbytes, f) == t[i].nbytes;
	ok = fclose(f) == 0 && ok;
	if (!ok)
		return dfx_fail(err, DFX_EIO, "could not write \"%s\": %s", path, strerror(errno));
	return DFX_OK;
}

static void
init_version(const DfxModelMeta *meta, const DfxTensor *t, size_t n, char hex[DFX_VERSION_HEX_LEN])
{
	uint8_t version[DFX_VERSION_LEN];
	DfxVersioner v;

	dfx_version_begin(&v, meta);
	for (size_t i = 0; i < n; i++)
	{
		dfx_version_tensor(&v, &t[i]);
		dfx_version_bytes(&v, t[i].data, t[i].nbytes);
	}
	dfx_version_end(&v, version);
	dfx_version_hex(version, hex);
}

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
	DfxTensor *t = NULL;
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
	t = init_tensors(g, &err);
	st = t ? init_write(o->out, &meta, t, (size_t) g->nparam, &err) : err.code;
	if (st == DFX_OK)
	{
		init_version(&meta, t, (size_t) g->nparam, hex);
		dfx_out_begin(&out, true);
		dfx_out_text(&out, "out", o->out);
		dfx_out_text(&out, "kind", meta.kind);
		dfx_out_text(&out, "backbone", meta.backbone);
		dfx_out_text(&out, "classes", meta.classes);
		dfx_out_int(&out, "head_stride", meta.head_stride);
		dfx_out_text(&out, "version", hex);
		dfx_out_end(&out);
	}
	free(t);
	dfx_graph_free(g);
	return st == DFX_OK ? 0 : dfx_complain(&err);
}
