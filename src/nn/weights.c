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

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Names of one complaint: how many, and the first few as text. */
typedef struct WeightsList
{
	int n, shown;
	char text[96];
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
	l->n++;
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

static bool
weights_ignored(const char *name)
{
	static const char tail[] = "num_batches_tracked";
	size_t n = strlen(name), k = sizeof tail - 1;

	return n >= k && strcmp(name + n - k, tail) == 0;
}

static int
weights_cmp(const void *a, const void *b)
{
	return strcmp((*(DfxParam *const *) a)->name, (*(DfxParam *const *) b)->name);
}

/* Walk both lists, sorted by name, side by side: set what matches, note what does not. */
static DfxStatus
weights_merge(DfxParam **p, size_t np, const DfxTensor *t, size_t nt, WeightsList list[3], DfxErr *err)
{
	size_t i = 0, j = 0;

	while (i < np || j < nt)
	{
		int c = i == np ? 1 : j == nt ? -1 : strcmp(p[i]->name, t[j].name);

		if (j > 0 && j < nt && strcmp(t[j - 1].name, t[j].name) >= 0)
			return dfx_fail(err, DFX_EINVAL, "tensor \"%s\" is not in order of name", t[j].name);
		if (c < 0)
			weights_list(&list[0], p[i++]->name);
		else if (c > 0)
		{
			if (!weights_ignored(t[j].name))
				weights_list(&list[1], t[j].name);
			j++;
		}
		else
		{
			if (!weights_same_shape(p[i], &t[j]))
				weights_list(&list[2], t[j].name);
			else if (t[j].data == NULL)
				return dfx_fail(err, DFX_EINVAL, "tensor \"%s\" has no data", t[j].name);
			else
			{
				DfxStatus st = weights_alloc(p[i], err);

				if (st != DFX_OK)
					return st;
				if (!dfx_tensor_to_f32(&t[j], 0, dfx_param_count(p[i]), p[i]->data))
					return dfx_fail(err, DFX_EWEIGHTS, "tensor \"%s\" has no floating-point data", t[j].name);
			}
			i++;
			j++;
		}
	}
	return DFX_OK;
}

/*
 * DFX_EWEIGHTS when names, shapes or types do not fit exactly, DFX_EINVAL when
 * the tensors are unsorted or without data.  After a failure some parameters
 * may be set and others not.
 */
DfxStatus
dfx_weights_set(DfxGraph *g, const DfxTensor *tensor, size_t n, DfxErr *err)
{
	WeightsList list[3] = {0};
	DfxParam **p;
	DfxStatus st = weights_check(g, err);

	if (st != DFX_OK)
		return st;
	p = malloc(((size_t) g->nparam + 1) * sizeof *p);
	if (p == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for weights");
	for (int i = 0; i < g->nparam; i++)
		p[i] = &g->param[i];
	qsort(p, (size_t) g->nparam, sizeof *p, weights_cmp);
	st = weights_merge(p, (size_t) g->nparam, tensor, n, list, err);
	free(p);
	if (st == DFX_OK && list[0].n + list[1].n + list[2].n > 0)
	{
		static const char *const what[3] = {"missing", "unexpected", "of another shape or type"};
		char text[DFX_MSG_LEN] = "";

		/* Counts first: whatever is cut from the end, they stay. */
		for (int i = 0; i < 3; i++)
			if (list[i].n > 0)
			{
				size_t used = strlen(text);

				snprintf(text + used, sizeof text - used, "%s%s: %s%s", used ? "; " : "", what[i],
				         list[i].text, list[i].n > list[i].shown ? " ..." : "");
			}
		st = dfx_fail(err, DFX_EWEIGHTS,
		              "weights do not fit the network (%d missing, %d unexpected, %d misshapen); %s",
		              list[0].n, list[1].n, list[2].n, text);
	}
	return st;
}
