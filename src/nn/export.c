/*
 * export.c
 *	  A network's parameters as tensors, and as a model file.
 */
#include "nn/nn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/safetensors.h"

DfxTensor
dfx_param_tensor(const DfxParam *p)
{
	DfxTensor t = {.dtype = DFX_F32, .rank = (uint32_t) p->rank, .data = p->data};
	uint64_t elements;

	snprintf(t.name, sizeof t.name, "%s", p->name);
	for (int i = 0; i < p->rank; i++)
		t.dim[i] = (uint64_t) p->dim[i];
	dfx_tensor_count(&t, &elements, &t.nbytes);
	return t;
}

DfxStatus
dfx_graph_tensors(const DfxGraph *g, DfxTensor **tensor, DfxErr *err)
{
	DfxTensor *t = calloc((size_t) g->nparam + 1, sizeof *t);

	*tensor = t;
	if (!t)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %d tensors", g->nparam);
	for (int i = 0; i < g->nparam; i++)
		t[i] = dfx_param_tensor(&g->param[i]);
	qsort(t, (size_t) g->nparam, sizeof *t, dfx_tensor_compare);
	return DFX_OK;
}

/* In which dtype a parameter is stored. */
static DfxDtype
export_dtype(const DfxParam *p, DfxDtype dtype)
{
	return p->role == DFX_ROLE_WEIGHT || p->role == DFX_ROLE_EMBED ? dtype : DFX_F32;
}

static DfxStatus
export_convert(const DfxParam *p, DfxDtype dtype, void *out, DfxErr *err)
{
	if (dfx_tensor_of_f32(dtype, p->data, dfx_param_count(p), out))
		return DFX_OK;
	return dfx_fail(err, DFX_EWEIGHTS, "parameter \"%s\" has values that %s cannot hold", p->name,
	                dfx_dtype_name(dtype));
}

DfxStatus
dfx_weights_round(DfxGraph *g, DfxDtype dtype, DfxErr *err)
{
	DfxStatus st = DFX_OK;

	for (int i = 0; i < g->nparam && st == DFX_OK; i++)
	{
		DfxParam *p = &g->param[i];
		DfxTensor t = {.dtype = export_dtype(p, dtype)};
		void *rounded;

		if (t.dtype == DFX_F32)
			continue;
		t.data = rounded = malloc(dfx_param_count(p) * dfx_dtype_size(dtype));
		if (!rounded)
			return dfx_fail(err, DFX_ENOMEM, "out of memory for parameter \"%s\"", p->name);
		st = export_convert(p, dtype, rounded, err);
		if (st == DFX_OK)
			dfx_tensor_to_f32(&t, 0, dfx_param_count(p), p->data);
		free(rounded);
	}
	return st;
}

static int
export_by_name(const void *a, const void *b)
{
	return strcmp((*(const DfxParam *const *) a)->name, (*(const DfxParam *const *) b)->name);
}

/* t: described, in the order of param; their bytes follow the header. */
static DfxStatus
export_write(const DfxModelMeta *meta, const DfxParam *const *param, DfxTensor *t, size_t n, uint8_t **bytes,
             size_t *len, DfxErr *err)
{
	char stride[12], size[12];
	const char *keys[] = {"backbone", "classes", "format", "head_stride", "input_size", "kind"};
	const char *values[] = {meta->backbone, meta->classes, "dfx1", stride, size, meta->kind};
	size_t total = 0, at;
	uint8_t *header, *all;
	DfxStatus st;

	snprintf(stride, sizeof stride, "%u", meta->head_stride);
	snprintf(size, sizeof size, "%u", meta->input_size);
	st = dfx_st_header(t, n, keys, values, sizeof keys / sizeof keys[0], &header, &at, err);
	if (st != DFX_OK)
		return st;
	for (size_t i = 0; i < n; i++)
		total += t[i].nbytes;
	all = realloc(header, at + total);
	if (!all)
	{
		free(header);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a model of %zu bytes", at + total);
	}
	for (size_t i = 0; i < n && st == DFX_OK; i++)
	{
		t[i].data = all + at;
		st = export_convert(param[i], t[i].dtype, all + at, err);
		at += t[i].nbytes;
	}
	if (st != DFX_OK)
	{
		free(all);
		return st;
	}
	*bytes = all;
	*len = at;
	return DFX_OK;
}

static void
export_version(const DfxModelMeta *meta, const DfxTensor *t, size_t n, uint8_t version[DFX_VERSION_LEN])
{
	DfxVersioner v;

	dfx_version_begin(&v, meta);
	for (size_t i = 0; i < n; i++)
	{
		dfx_version_tensor(&v, &t[i]);
		dfx_version_bytes(&v, t[i].data, t[i].nbytes);
	}
	dfx_version_end(&v, version);
}

DfxStatus
dfx_graph_export(const DfxGraph *g, const DfxModelMeta *meta, DfxDtype dtype, uint8_t **bytes, size_t *len,
                 uint8_t version[DFX_VERSION_LEN], DfxErr *err)
{
	size_t n = (size_t) g->nparam;
	const DfxParam **param = malloc((n + 1) * sizeof *param);
	DfxTensor *t = calloc(n + 1, sizeof *t);
	uint64_t elements;
	DfxStatus st;

	*bytes = NULL;
	if (!param || !t)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for %zu tensors", n);
	else
	{
		for (size_t i = 0; i < n; i++)
			param[i] = &g->param[i];
		qsort(param, n, sizeof *param, export_by_name);
		for (size_t i = 0; i < n; i++)
		{
			t[i] = dfx_param_tensor(param[i]);
			t[i].dtype = export_dtype(param[i], dtype);
			dfx_tensor_count(&t[i], &elements, &t[i].nbytes);
		}
		st = export_write(meta, param, t, n, bytes, len, err);
	}
	if (st == DFX_OK)
		export_version(meta, t, n, version);
	free(param);
	free(t);
	return st;
}
