/*
 * weights.c
 *	  Giving a graph its parameters: by the fixed random formula of DESIGN 8,
 *	  or from named tensors, strictly.
 *
 * Parameters are kept as fp32 masters in PyTorch's row-major shapes, whatever
 * the tensors' dtype; backends convert and reorder what they copy.
 */
#include "base/random.h"
#include "nn/graph_priv.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/names.h"

/* FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/). */
static uint64_t
weights_fnv1a(const char *s)
{
	uint64_t h = 0xCBF29CE484222325u;

	for (; *s; s++)
		h = (h ^ (unsigned char) *s) * 0x100000001B3u;
	return h;
}

/* A parameter's element is base + range * u, u uniform in [-1, 1). */
static void
weights_range(const DfxParam *p, double *base, double *range)
{
	size_t n = dfx_param_count(p);

	*base = 0;
	switch (p->role)
	{
		case DFX_ROLE_WEIGHT:
			*range = sqrt(6.0 / (double) (n / (size_t) p->dim[0]));
			break;
		case DFX_ROLE_SCALE:
			*base = 0.7;
			*range = 0.1;
			break;
		case DFX_ROLE_BIAS:
		case DFX_ROLE_MEAN:
			*range = 0.05;
			break;
		case DFX_ROLE_VAR:
			*base = 1;
			*range = 0.2;
			break;
		case DFX_ROLE_EMBED:
			*range = 0.02;
			break;
	}
}

static DfxStatus
weights_alloc(DfxParam *p, DfxErr *err)
{
	if (p->data == NULL)
		p->data = malloc(dfx_param_count(p) * sizeof(float));
	if (p->data == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for parameter \"%s\"", p->name);
	return DFX_OK;
}

/* DFX_EINVAL when the graph failed or was optimised, so that names no longer mean what they say. */
static DfxStatus
weights_check(const DfxGraph *g, DfxErr *err)
{
	if (g->err.code != DFX_OK)
	{
		if (err != NULL)
			*err = g->err;
		return g->err.code;
	}
	if (g->priv->optimized)
		return dfx_fail(err, DFX_EINVAL, "weights cannot be set in an optimised graph");
	return DFX_OK;
}

/*
 * Every parameter by its own name and role, so that a branch of the tri-branch
 * net differs from its neighbours and a PyTorch script can do the same.
 * DFX_ENOMEM, DFX_EINVAL in an optimised graph.
 */
DfxStatus
dfx_weights_random(DfxGraph *g, uint64_t seed, DfxErr *err)
{
	DfxStatus st = weights_check(g, err);

	for (int i = 0; i < g->nparam && st == DFX_OK; i++)
	{
		DfxParam *p = &g->param[i];
		uint64_t start = seed ^ weights_fnv1a(p->name);
		size_t n = dfx_param_count(p);
		double base = 0, range = 0;

		st = weights_alloc(p, err);
		weights_range(p, &base, &range);
		for (size_t k = 0; k < n && st == DFX_OK; k++)
		{
			double u = dfx_unit64(dfx_mix64(start + k * DFX_GOLDEN64)) * 2 - 1;

			p->data[k] = (float) (base + range * u);
		}
	}
	return st;
}

/* ---- from named tensors ---- */

/* The complaints, in the order in which they are told. */
enum
{
	WEIGHTS_MISSING,
	WEIGHTS_UNEXPECTED,
	WEIGHTS_MISSHAPEN,
	WEIGHTS_LISTS
};
static const char *const weights_complaint[WEIGHTS_LISTS] = {"missing", "unexpected",
                                                             "of another shape or type"};

/* Names of one complaint: how many, the first few as text, and all of them where somebody wants them. */
typedef struct WeightsList
{
	int n, shown;
	char text[96];
	FILE *all; /* NULL: nobody does */
} WeightsList;

static void
weights_list(WeightsList *l, const char *name)
{
	size_t used = strlen(l->text);

	/* A name that would not fit whole is left to the count. */
	if (used + strlen(name) + 4 < sizeof l->text)
	{
		snprintf(l->text + used, sizeof l->text - used, "%s%s", used ? ", " : "", name);
		l->shown++;
	}
	if (l->all)
		fprintf(l->all, "%s%s", l->n > 0 ? ", " : "", name);
	l->n++;
}

/* The same, and for the whole list what the tensor is and what it should be: "F32 [2], not [64]". */
static void
weights_list_shape(WeightsList *l, const DfxParam *p, const DfxTensor *t)
{
	weights_list(l, t->name);
	if (!l->all)
		return;
	fprintf(l->all, " (%s [", dfx_dtype_name(t->dtype));
	for (uint32_t i = 0; i < t->rank; i++)
		fprintf(l->all, "%s%" PRIu64, i > 0 ? "," : "", t->dim[i]);
	fprintf(l->all, "], not [");
	for (int i = 0; i < p->rank; i++)
		fprintf(l->all, "%s%d", i > 0 ? "," : "", p->dim[i]);
	fprintf(l->all, "])");
}

static bool
weights_same_shape(const DfxParam *p, const DfxTensor *t)
{
	if (t->rank != (uint32_t) p->rank || t->dtype == DFX_I64)
		return false;
	for (int i = 0; i < p->rank; i++)
		if (t->dim[i] != (uint64_t) p->dim[i])
			return false;
	return true;
}

static int
weights_cmp(const void *a, const void *b)
{
	return strcmp((*(DfxParam *const *) a)->name, (*(DfxParam *const *) b)->name);
}

/* A convolution's input_scale: it has no parameter, and need not be there.  Sets it, or lists it. */
static void
weights_scale(DfxGraph *g, const DfxTensor *t, bool set, WeightsList list[WEIGHTS_LISTS])
{
	DfxOp *conv = dfx_scale_owner(g, t->name);
	float scale = 1;

	if (conv == NULL)
		weights_list(&list[WEIGHTS_UNEXPECTED], t->name);
	else if (t->rank != 0 || t->dtype != DFX_F32 ||
	         (t->data != NULL && !(dfx_tensor_to_f32(t, 0, 1, &scale) && scale > 0 && isfinite(scale))))
		weights_list(&list[WEIGHTS_MISSHAPEN], t->name);
	else if (set)
		conv->in_step = scale;
}

/* A tensor that fits its parameter, copied. */
static DfxStatus
weights_copy(DfxParam *p, const DfxTensor *t, DfxErr *err)
{
	DfxStatus st;

	if (t->data == NULL)
		return dfx_fail(err, DFX_EINVAL, "tensor \"%s\" has no data", t->name);
	st = weights_alloc(p, err);
	if (st != DFX_OK)
		return st;
	if (!dfx_tensor_to_f32(t, 0, dfx_param_count(p), p->data))
		return dfx_fail(err, DFX_EWEIGHTS, "tensor \"%s\" has no floating-point data", t->name);
	return DFX_OK;
}

/* Walk both lists, sorted by name, side by side: set what matches, if it is to be set, note what does not. */
static DfxStatus
weights_merge(DfxGraph *g, DfxParam **p, const DfxTensor *t, size_t nt, bool set,
              WeightsList list[WEIGHTS_LISTS], DfxErr *err)
{
	DfxStatus st = DFX_OK;
	size_t i = 0, j = 0, np = (size_t) g->nparam;

	while (st == DFX_OK && (i < np || j < nt))
	{
		int c = i == np ? 1 : j == nt ? -1 : strcmp(p[i]->name, t[j].name);

		if (j > 0 && j < nt && strcmp(t[j - 1].name, t[j].name) >= 0)
			return dfx_fail(err, DFX_EINVAL, "tensor \"%s\" is not in order of name", t[j].name);
		if (c < 0)
			weights_list(&list[WEIGHTS_MISSING], p[i++]->name);
		else if (c > 0)
		{
			if (dfx_tensor_is_scale(t[j].name))
				weights_scale(g, &t[j], set, list);
			else if (!dfx_tensor_is_counter(t[j].name))
				weights_list(&list[WEIGHTS_UNEXPECTED], t[j].name);
			j++;
		}
		else
		{
			if (!weights_same_shape(p[i], &t[j]))
				weights_list_shape(&list[WEIGHTS_MISSHAPEN], p[i], &t[j]);
			else if (set)
				st = weights_copy(p[i], &t[j], err);
			i++;
			j++;
		}
	}
	return st;
}

/* The merge over the graph's parameters in order of their names. */
static DfxStatus
weights_compare(DfxGraph *g, const DfxTensor *tensor, size_t n, bool set, WeightsList list[WEIGHTS_LISTS],
                DfxErr *err)
{
	DfxParam **p = malloc(((size_t) g->nparam + 1) * sizeof *p);
	DfxStatus st;

	if (p == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for weights");
	for (int i = 0; i < g->nparam; i++)
		p[i] = &g->param[i];
	qsort(p, (size_t) g->nparam, sizeof *p, weights_cmp);
	st = weights_merge(g, p, tensor, n, set, list, err);
	free(p);
	return st;
}

/*
 * DFX_EWEIGHTS when names, shapes or types do not fit exactly, DFX_EINVAL when
 * the tensors are unsorted or without data.  After a failure some parameters
 * may be set and others not.
 */
DfxStatus
dfx_weights_set(DfxGraph *g, const DfxTensor *tensor, size_t n, DfxErr *err)
{
	WeightsList list[WEIGHTS_LISTS] = {0};
	char text[DFX_MSG_LEN] = "";
	DfxStatus st = weights_check(g, err);
	int misfits = 0;

	if (st == DFX_OK)
		st = weights_compare(g, tensor, n, true, list, err);
	for (int i = 0; i < WEIGHTS_LISTS; i++)
		misfits += list[i].n;
	if (st != DFX_OK || misfits == 0)
		return st;

	/* Counts first: whatever is cut from the end, they stay. */
	for (int i = 0; i < WEIGHTS_LISTS; i++)
		if (list[i].n > 0)
		{
			size_t used = strlen(text);

			snprintf(text + used, sizeof text - used, "%s%s: %s%s", used ? "; " : "", weights_complaint[i],
			         list[i].text, list[i].n > list[i].shown ? " ..." : "");
		}
	return dfx_fail(err, DFX_EWEIGHTS,
	                "weights do not fit the network (%d missing, %d unexpected, %d misshapen); %s",
	                list[WEIGHTS_MISSING].n, list[WEIGHTS_UNEXPECTED].n, list[WEIGHTS_MISSHAPEN].n, text);
}

/* ---- all that does not fit ---- */

/* "missing: a, b; unexpected: c", from the lists' texts; NULL when memory is out. */
static char *
weights_join(const WeightsList list[WEIGHTS_LISTS], char *const text[WEIGHTS_LISTS])
{
	char *joined = NULL;
	size_t len;
	FILE *f = open_memstream(&joined, &len);
	bool first = true, good;

	if (!f)
		return NULL;
	for (int i = 0; i < WEIGHTS_LISTS; i++)
		if (list[i].n > 0)
		{
			fprintf(f, "%s%s: %s", first ? "" : "; ", weights_complaint[i], text[i]);
			first = false;
		}
	good = !ferror(f);
	if (fclose(f) == 0 && good)
		return joined;
	free(joined);
	return NULL;
}

char *
dfx_weights_misfits(DfxGraph *g, const DfxTensor *tensor, size_t n)
{
	WeightsList list[WEIGHTS_LISTS] = {0};
	char *text[WEIGHTS_LISTS] = {NULL}, *joined = NULL;
	size_t len[WEIGHTS_LISTS];
	bool good = g->err.code == DFX_OK;

	for (int i = 0; i < WEIGHTS_LISTS; i++)
	{
		list[i].all = open_memstream(&text[i], &len[i]);
		good = good && list[i].all != NULL;
	}
	good = good && weights_compare(g, tensor, n, false, list, NULL) == DFX_OK;
	for (int i = 0; i < WEIGHTS_LISTS; i++)
	{
		good = good && !ferror(list[i].all);
		good = list[i].all && fclose(list[i].all) == 0 && good;
	}
	if (good && list[0].n + list[1].n + list[2].n > 0)
		joined = weights_join(list, text);
	for (int i = 0; i < WEIGHTS_LISTS; i++)
		free(text[i]);
	return joined;
}
