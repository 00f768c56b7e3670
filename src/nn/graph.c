/*
 * graph.c
 *	  A graph's storage: growable arrays of ops, values and parameters, the
 *	  scope stack, the sticky error, and the checks of a finished graph.
 *
 * Nothing here has a fixed capacity except names (DFX_NAME_LEN) and outputs
 * (DFX_MAX_OUT), and both are refused, not cut.  The builders of the single
 * layers are in layers.c; they come here for a new op, value or parameter.
 */
#include "nn/graph_priv.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRAPH_BLOCK_MIN 1024
#define GRAPH_VALUE_MAX (1 << 30) /* elements of a value: leaves headroom for padding in int arithmetic */

/* An empty graph; NULL when memory is out. */
DfxGraph *
dfx_graph_new(void)
{
	DfxGraph *g = calloc(1, sizeof *g);

	if (g == NULL)
		return NULL;
	g->input = -1;
	g->priv = calloc(1, sizeof *g->priv);
	if (g->priv == NULL)
	{
		free(g);
		return NULL;
	}
	return g;
}

/* Frees ops, values, parameters and their data; NULL is allowed. */
void
dfx_graph_free(DfxGraph *g)
{
	if (g == NULL)
		return;
	for (int i = 0; i < g->nparam; i++)
		free(g->param[i].data);
	for (GraphBlock *b = g->priv->block, *next; b != NULL; b = next)
	{
		next = b->next;
		free(b);
	}
	free(g->op);
	free(g->val);
	free(g->param);
	free(g->priv);
	free(g);
}

void
dfx_graph_fail(DfxGraph *g, DfxStatus code, const char *name, const char *fmt, ...)
{
	char msg[DFX_MSG_LEN];
	const char *scope = g->priv->scope;
	va_list ap;

	if (g->err.code != DFX_OK)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof msg, fmt, ap);
	va_end(ap);
	dfx_fail(&g->err, code, "%s%s%s: %s", scope, *scope && *name ? "." : "",
	         *scope || *name ? name : "network", msg);
}

bool
dfx_graph_has(DfxGraph *g, DfxVal x, const char *name)
{
	if (g->err.code != DFX_OK)
		return false;
	if (x < 0 || x >= g->nval)
	{
		dfx_graph_fail(g, DFX_EINVAL, name, "there is no value %d", x);
		return false;
	}
	return true;
}

/* Make room for one more element; doubles, so that appending is linear over all. */
static bool
graph_grow(DfxGraph *g, void **array, int n, int *cap, size_t size)
{
	int want = *cap ? *cap * 2 : 64;
	void *p;

	if (n < *cap)
		return true;
	p = *cap > INT_MAX / 2 ? NULL : realloc(*array, (size_t) want * size);
	if (p == NULL)
	{
		dfx_graph_fail(g, DFX_ENOMEM, "", "out of memory for the graph");
		return false;
	}
	*array = p;
	*cap = want;
	return true;
}

DfxVal *
dfx_graph_list(DfxGraph *g, int n)
{
	GraphBlock *b = g->priv->block;

	if (b == NULL || b->cap - b->used < n)
	{
		int cap = n > GRAPH_BLOCK_MIN ? n : GRAPH_BLOCK_MIN;

		b = malloc(sizeof *b + (size_t) cap * sizeof b->list[0]);
		if (b == NULL)
		{
			dfx_graph_fail(g, DFX_ENOMEM, "", "out of memory for the graph");
			return NULL;
		}
		*b = (GraphBlock){.next = g->priv->block, .cap = cap};
		g->priv->block = b;
	}
	b->used += n;
	return b->list + b->used - n;
}

DfxOp *
dfx_graph_op(DfxGraph *g, DfxOpKind kind, const char *name, int c, int h, int w, const DfxVal *in, int nin)
{
	DfxOp *op;
	DfxVal *list = NULL;

	if (g->err.code != DFX_OK)
		return NULL;
	if (c <= 0 || h <= 0 || w <= 0)
	{
		dfx_graph_fail(g, DFX_EINVAL, name, "the output would be empty (%d x %d x %d)", c, h, w);
		return NULL;
	}
	if ((double) c * h * w > GRAPH_VALUE_MAX)
	{
		dfx_graph_fail(g, DFX_ELIMIT, name, "the output would be too large (%d x %d x %d)", c, h, w);
		return NULL;
	}
	if (!graph_grow(g, (void **) &g->op, g->nop, &g->priv->cap_op, sizeof *g->op) ||
	    !graph_grow(g, (void **) &g->val, g->nval, &g->priv->cap_val, sizeof *g->val))
		return NULL;
	if (nin > 0)
	{
		list = dfx_graph_list(g, nin);
		if (list == NULL)
			return NULL;
		memcpy(list, in, (size_t) nin * sizeof *list);
	}

	op = &g->op[g->nop];
	*op = (DfxOp){.kind = kind, .nin = nin, .in = list, .out = g->nval};
	for (int i = 0; i < DFX_MAX_PARAM; i++)
		op->param[i] = -1;
	op->epi_add = op->epi_scale = op->epi_shift = -1;
	g->val[g->nval] = (DfxValue){.c = c, .h = h, .w = w, .def = g->nop, .last_use = g->nop, .root = g->nval};
	g->nop++;
	g->nval++;
	return op;
}

size_t
dfx_param_count(const DfxParam *p)
{
	size_t n = 1;

	for (int i = 0; i < p->rank; i++)
		n *= (size_t) p->dim[i];
	return n;
}

int
dfx_graph_param(DfxGraph *g, const char *name, const char *leaf, DfxRole role, int rank, const int *dim)
{
	const char *scope = g->priv->scope;
	DfxParam *p;
	double count = 1; /* a double cannot overflow on the way to the check */
	int len;

	if (g->err.code != DFX_OK ||
	    !graph_grow(g, (void **) &g->param, g->nparam, &g->priv->cap_param, sizeof *g->param))
		return -1;
	p = &g->param[g->nparam];
	*p = (DfxParam){.role = role, .rank = rank, .dim = {1, 1, 1, 1}};
	len = snprintf(p->name, sizeof p->name, "%s%s%s%s%s", scope, *scope && *name ? "." : "", name,
	               (*scope || *name) && *leaf ? "." : "", leaf);
	for (int i = 0; i < rank; i++)
	{
		p->dim[i] = dim[i];
		count *= dim[i];
	}
	if (len <= 0 || len >= (int) sizeof p->name)
	{
		dfx_graph_fail(g, DFX_ELIMIT, name, "a parameter name must have 1 to %d bytes", DFX_NAME_LEN - 1);
		return -1;
	}
	if (count > INT_MAX)
	{
		dfx_graph_fail(g, DFX_ELIMIT, name, "parameter \"%s\" would have %.0f elements", leaf, count);
		return -1;
	}
	return g->nparam++;
}

/*
 * Open a scope below the present one; the names of parameters described
 * inside start with it.  One push may open several levels ("layer1.0").
 * Returns the mark that dfx_pop takes.  DFX_ELIMIT when names would not fit.
 */
int
dfx_push(DfxGraph *g, const char *fmt, ...)
{
	char *scope = g->priv->scope;
	int mark = (int) strlen(scope);
	int at = mark;
	int len;
	va_list ap;

	if (at > 0 && at < DFX_NAME_LEN - 1)
		scope[at++] = '.';
	va_start(ap, fmt);
	len = vsnprintf(scope + at, (size_t) (DFX_NAME_LEN - at), fmt, ap);
	va_end(ap);
	if (len <= 0 || len >= DFX_NAME_LEN - at)
	{
		scope[mark] = '\0';
		dfx_graph_fail(g, DFX_ELIMIT, "", "a scope below this one would be empty or longer than %d bytes",
		               DFX_NAME_LEN - 1);
	}
	return mark;
}

/* Back to where dfx_push was called; a mark that is not inside the scope is a bug of the caller. */
void
dfx_pop(DfxGraph *g, int mark)
{
	if (mark < 0 || mark > (int) strlen(g->priv->scope))
		dfx_graph_fail(g, DFX_EINTERNAL, "", "scope mark %d is not of this scope", mark);
	else
		g->priv->scope[mark] = '\0';
}

/* Make x an output under this name; DFX_ELIMIT, DFX_EINVAL for a name used twice. */
void
dfx_output(DfxGraph *g, DfxVal x, const char *name)
{
	if (!dfx_graph_has(g, x, name))
		return;
	if (g->nout == DFX_MAX_OUT)
	{
		dfx_graph_fail(g, DFX_ELIMIT, name, "a graph has at most %d outputs", DFX_MAX_OUT);
		return;
	}
	if (*name == '\0' || strlen(name) >= sizeof g->out_name[0])
	{
		dfx_graph_fail(g, DFX_ELIMIT, name, "an output name has 1 to %zu bytes", sizeof g->out_name[0] - 1);
		return;
	}
	for (int i = 0; i < g->nout; i++)
		if (strcmp(g->out_name[i], name) == 0)
		{
			dfx_graph_fail(g, DFX_EINVAL, name, "there is an output of this name already");
			return;
		}
	strcpy(g->out_name[g->nout], name);
	g->out[g->nout++] = x;
}

/* An op reads its inputs and its addend; a value nobody reads ends where it begins. */
void
dfx_graph_relive(DfxGraph *g)
{
	for (int v = 0; v < g->nval; v++)
		g->val[v].def = g->val[v].last_use = -1;
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];

		for (int j = 0; j < op->nin; j++)
			g->val[op->in[j]].last_use = i;
		if (op->epi_add >= 0)
			g->val[op->epi_add].last_use = i;
		g->val[op->out].def = g->val[op->out].last_use = i;
	}
	for (int i = 0; i < g->nout; i++)
		g->val[g->out[i]].last_use = g->nop;
}

static int
graph_cmp_name(const void *a, const void *b)
{
	return strcmp((*(const DfxParam *const *) a)->name, (*(const DfxParam *const *) b)->name);
}

/* Weights are found by name, so no two parameters may share one. */
static void
graph_check_names(DfxGraph *g)
{
	const DfxParam **p = malloc(((size_t) g->nparam + 1) * sizeof *p);

	if (p == NULL)
	{
		dfx_graph_fail(g, DFX_ENOMEM, "", "out of memory for the graph");
		return;
	}
	for (int i = 0; i < g->nparam; i++)
		p[i] = &g->param[i];
	qsort(p, (size_t) g->nparam, sizeof *p, graph_cmp_name);
	for (int i = 1; i < g->nparam; i++)
		if (strcmp(p[i - 1]->name, p[i]->name) == 0)
			dfx_graph_fail(g, DFX_EINVAL, p[i]->name, "two parameters have this name");
	free(p);
}

/*
 * The end of building: reports the sticky error, or that the graph has no
 * input or output, an open scope or two parameters of one name.  Sets the
 * values' lifetimes.
 */
DfxStatus
dfx_graph_finish(DfxGraph *g, DfxErr *err)
{
	if (g->input < 0)
		dfx_graph_fail(g, DFX_EINVAL, "", "the graph has no input");
	if (g->nout == 0)
		dfx_graph_fail(g, DFX_EINVAL, "", "the graph has no output");
	if (g->priv->scope[0] != '\0')
		dfx_graph_fail(g, DFX_EINTERNAL, "", "this scope was never popped");
	graph_check_names(g);
	if (g->err.code != DFX_OK)
	{
		if (err != NULL)
			*err = g->err;
		return g->err.code;
	}
	dfx_graph_relive(g);
	return DFX_OK;
}
