/*
 * passes.c
 *	  Exact rewrites of a graph for inference.  "Exact" means the same function
 *	  over the reals; floating-point results move by rounding only.
 *
 * Order, each pass one walk over the ops:
 *	1 drop		DROP is the identity
 *	2 fold		conv, BN					-> conv with other weights
 *	3 pool		1x1 conv, average pool		-> average pool, 1x1 conv
 *	4 affine	BN -> AFFINE; a CONCAT that only feeds it becomes its input list
 *	5 fuse		add, activation and per-channel affine become epilogues of the
 *				op that feeds only them, as far as the backend agrees
 *	6 compact	squeeze out dead ops and parameters nobody reads
 *	7 place		(place.c) concats become ranges of one buffer
 *
 * An intermediate value may vanish only if a single op reads it and it is no
 * output of the graph; passes_sole() is that test, and outputs are counted as
 * uses for it.  No pass adds ops or values, so the working arrays keep their
 * size and the whole is linear in the graph, except for sorting in place.c.
 * A value that vanished keeps its index, with def and last_use -1.
 */
#include "nn/graph_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Passes
{
	DfxGraph *g;
	DfxSupports supports;
	void *arg;
	int *uses;      /* of each value: readers, plus one for an output */
	int *def;       /* the live op that writes each value, -1: none */
	DfxVal *rename; /* pass 1 */
	DfxVal *buffer; /* of each op: the value of the CONCAT it absorbed, -1: none */
	bool *dead;     /* ops */
} Passes;

static void
passes_close(Passes *p)
{
	free(p->uses);
	free(p->def);
	free(p->rename);
	free(p->buffer);
	free(p->dead);
}

static bool
passes_open(Passes *p)
{
	size_t nval = (size_t) p->g->nval + 1, nop = (size_t) p->g->nop + 1;

	p->uses = calloc(nval, sizeof *p->uses);
	p->def = calloc(nval, sizeof *p->def);
	p->rename = calloc(nval, sizeof *p->rename);
	p->buffer = calloc(nop, sizeof *p->buffer);
	p->dead = calloc(nop, sizeof *p->dead);
	if (!p->uses || !p->def || !p->rename || !p->buffer || !p->dead)
		return false;
	for (int i = 0; i < p->g->nop; i++)
		p->buffer[i] = -1;
	return true;
}

/* The op that writes v, if nothing but its one reader would miss v. */
static DfxOp *
passes_sole(const Passes *p, DfxVal v)
{
	return p->uses[v] == 1 && p->def[v] >= 0 ? &p->g->op[p->def[v]] : NULL;
}

/* Op i vanishes; its output is from now on written by op by. */
static void
passes_absorb(Passes *p, int i, DfxOp *by)
{
	p->def[by->out] = -1;
	by->out = p->g->op[i].out;
	p->def[by->out] = (int) (by - p->g->op);
	p->dead[i] = true;
}

/* Pass 1; an output that was a DROP becomes what the DROP read. */
static void
passes_drop(Passes *p)
{
	DfxGraph *g = p->g;

	for (int v = 0; v < g->nval; v++)
		p->rename[v] = v;
	for (int i = 0; i < g->nop; i++)
	{
		DfxOp *op = &g->op[i];

		for (int j = 0; j < op->nin; j++)
			op->in[j] = p->rename[op->in[j]];
		if (op->kind == DFX_OP_DROP)
		{
			p->rename[op->out] = op->in[0];
			p->dead[i] = true;
		}
	}
	for (int i = 0; i < g->nout; i++)
		g->out[i] = p->rename[g->out[i]];
}

/* uses and def, after DROPs are gone. */
static void
passes_count(Passes *p)
{
	const DfxGraph *g = p->g;

	for (int v = 0; v < g->nval; v++)
		p->def[v] = -1;
	for (int i = 0; i < g->nop; i++)
	{
		if (p->dead[i])
			continue;
		for (int j = 0; j < g->op[i].nin; j++)
			p->uses[g->op[i].in[j]]++;
		p->def[g->op[i].out] = i;
	}
	for (int i = 0; i < g->nout; i++)
		p->uses[g->out[i]]++;
}

/*
 * BN(x) = scale x + shift with scale = weight / sqrt(var + eps) and
 * shift = bias - mean scale, in double.
 */
static double
passes_bn_scale(const DfxGraph *g, const DfxOp *bn, size_t c)
{
	return (double) g->param[bn->param[DFX_W]].data[c] /
	       sqrt((double) g->param[bn->param[DFX_VAR]].data[c] + (double) bn->u.eps);
}

/* The convolution's weights and bias, with the BN after it worked in.  Without a bias it takes the BN's. */
static void
passes_fold_weights(DfxGraph *g, DfxOp *conv, const DfxOp *bn)
{
	const float *mean = g->param[bn->param[DFX_MEAN]].data;
	float *shift = g->param[bn->param[DFX_B]].data;
	DfxParam *w = &g->param[conv->param[DFX_W]];
	float *bias = conv->param[DFX_B] >= 0 ? g->param[conv->param[DFX_B]].data : NULL;
	size_t cout = (size_t) w->dim[0];
	size_t row = dfx_param_count(w) / cout;

	for (size_t c = 0; c < cout; c++)
	{
		double scale = passes_bn_scale(g, bn, c);
		double b = bias ? (double) bias[c] : 0;

		for (size_t k = 0; k < row; k++)
			w->data[c * row + k] = (float) (w->data[c * row + k] * scale);
		shift[c] = (float) ((double) shift[c] + (b - (double) mean[c]) * scale);
	}
	conv->param[DFX_B] = bn->param[DFX_B];
}

/* Pass 2.  Only backwards: forward into a padding convolution it would be wrong at the border. */
static void
passes_fold(Passes *p)
{
	for (int i = 0; i < p->g->nop; i++)
	{
		DfxOp *bn = &p->g->op[i];
		DfxOp *conv;

		if (p->dead[i] || bn->kind != DFX_OP_BN || bn->nin != 1)
			continue;
		conv = passes_sole(p, bn->in[0]);
		if (conv == NULL || conv->kind != DFX_OP_CONV || !dfx_op_plain(conv))
			continue;
		passes_fold_weights(p->g, conv, bn);
		passes_absorb(p, i, conv);
	}
}

/* A 1x1 convolution commutes with any average: it acts on channels, the average on positions. */
static bool
passes_is_1x1(const DfxOp *op)
{
	const DfxConv *a = &op->u.conv;

	return op->kind == DFX_OP_CONV && dfx_op_plain(op) && a->kh == 1 && a->kw == 1 && a->sh == 1 &&
	       a->sw == 1 && a->ph == 0 && a->pw == 0;
}

/* The two ops change places; the value between them gets the pooled shape of conv's input. */
bool
dfx_pool_first(DfxGraph *g, DfxOp *conv, DfxOp *pool)
{
	DfxOp t = *conv;
	DfxVal mid = conv->out;

	if (pool->kind != DFX_OP_POOL || !pool->u.pool.avg || !passes_is_1x1(conv))
		return false;
	g->val[mid].c = g->val[conv->in[0]].c;
	g->val[mid].h = g->val[pool->out].h;
	g->val[mid].w = g->val[pool->out].w;
	*conv = *pool;
	conv->in = t.in;
	conv->out = mid;
	t.in = pool->in;
	t.out = pool->out;
	*pool = t;
	return true;
}

/* Pass 3. */
static void
passes_pool(Passes *p)
{
	for (int i = 0; i < p->g->nop; i++)
	{
		DfxOp *pool = &p->g->op[i], *conv;

		if (p->dead[i] || pool->kind != DFX_OP_POOL)
			continue;
		conv = passes_sole(p, pool->in[0]);
		if (conv != NULL)
			dfx_pool_first(p->g, conv, pool);
	}
}

/* Pass 4.  The parameters W and B are overwritten in place; MEAN and VAR fall to pass 6. */
static void
passes_affine(Passes *p)
{
	DfxGraph *g = p->g;

	for (int i = 0; i < g->nop; i++)
	{
		DfxOp *op = &g->op[i];
		DfxOp *concat;
		float *w, *b;
		const float *mean;

		if (p->dead[i] || op->kind != DFX_OP_BN)
			continue;
		w = g->param[op->param[DFX_W]].data;
		b = g->param[op->param[DFX_B]].data;
		mean = g->param[op->param[DFX_MEAN]].data;
		for (int c = 0; c < g->val[op->out].c; c++)
		{
			double scale = passes_bn_scale(g, op, (size_t) c);

			b[c] = (float) ((double) b[c] - (double) mean[c] * scale);
			w[c] = (float) scale;
		}
		op->kind = DFX_OP_AFFINE;
		op->param[DFX_MEAN] = op->param[DFX_VAR] = -1;

		concat = op->nin == 1 ? passes_sole(p, op->in[0]) : NULL;
		if (concat != NULL && concat->kind == DFX_OP_CONCAT)
		{
			p->buffer[i] = concat->out;
			p->dead[concat - g->op] = true;
			p->def[concat->out] = -1;
			op->in = concat->in;
			op->nin = concat->nin;
		}
	}
}

/* What op i would be as the epilogue of the op behind its input j; false when the form does not allow it. */
static bool
passes_trial(const Passes *p, const DfxOp *op, int j, DfxOp *trial)
{
	const DfxOp *q = passes_sole(p, op->in[j]);

	if (q == NULL || !dfx_op_info[q->kind].can_fuse || q->epi_scale >= 0)
		return false;
	*trial = *q;
	trial->out = op->out;
	switch (op->kind)
	{
		case DFX_OP_ADD:
			trial->epi_add = op->in[1 - j];
			return dfx_op_plain(q) && dfx_op_plain(op);
		case DFX_OP_ACT:
			trial->epi_act = op->u.act;
			return q->epi_act == DFX_ACT_NONE;
		case DFX_OP_AFFINE:
			trial->epi_scale = op->param[DFX_W];
			trial->epi_shift = op->param[DFX_B];
			return op->nin == 1 && dfx_op_plain(op);
		default:
			return false;
	}
}

/*
 * The fused op takes the later of the two places, where everything it reads
 * exists already, the addend included.
 */
static bool
passes_fuse_one(Passes *p, int i, int j)
{
	DfxOp trial;
	int q = p->def[p->g->op[i].in[j]];

	if (!passes_trial(p, &p->g->op[i], j, &trial) || !p->supports(p->arg, p->g, &trial))
		return false;
	p->def[p->g->op[i].in[j]] = -1;
	p->g->op[i] = trial;
	p->buffer[i] = p->buffer[q];
	p->dead[q] = true;
	return true;
}

/* Pass 5.  In order of the ops, so that an activation meets the addend already inside. */
static void
passes_fuse(Passes *p)
{
	for (int i = 0; i < p->g->nop; i++)
	{
		const DfxOp *op = &p->g->op[i];

		if (p->dead[i])
			continue;
		if (op->kind == DFX_OP_ADD)
		{
			/* Rather the operand computed last: the other one then waits least. */
			int late = p->def[op->in[1]] > p->def[op->in[0]];

			if (!passes_fuse_one(p, i, late))
				passes_fuse_one(p, i, 1 - late);
		}
		else if (op->kind == DFX_OP_ACT || op->kind == DFX_OP_AFFINE)
			passes_fuse_one(p, i, 0);
	}
}

/* Renumber ops and parameters without the gaps; frees what no op reads. */
static bool
passes_compact(Passes *p)
{
	DfxGraph *g = p->g;
	int *map = malloc(((size_t) g->nparam + 1) * sizeof *map);
	int n = 0;

	if (map == NULL)
		return false;
	for (int i = 0; i < g->nop; i++)
		if (!p->dead[i])
		{
			g->op[n] = g->op[i];
			p->buffer[n++] = p->buffer[i];
		}
	g->nop = n;

	for (int i = 0; i < g->nparam; i++)
		map[i] = -1;
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];

		for (int j = 0; j < DFX_MAX_PARAM; j++)
			if (op->param[j] >= 0)
				map[op->param[j]] = 0;
		if (op->epi_scale >= 0)
			map[op->epi_scale] = map[op->epi_shift] = 0;
	}
	n = 0;
	for (int i = 0; i < g->nparam; i++)
	{
		if (map[i] < 0)
			free(g->param[i].data);
		else
		{
			g->param[n] = g->param[i];
			map[i] = n++;
		}
	}
	g->nparam = n;
	for (int i = 0; i < g->nop; i++)
	{
		DfxOp *op = &g->op[i];

		for (int j = 0; j < DFX_MAX_PARAM; j++)
			op->param[j] = op->param[j] >= 0 ? map[op->param[j]] : -1;
		if (op->epi_scale >= 0)
		{
			op->epi_scale = map[op->epi_scale];
			op->epi_shift = map[op->epi_shift];
		}
	}
	free(map);
	return true;
}

static bool
passes_no_epilogue(void *arg, const DfxGraph *g, const DfxOp *op)
{
	(void) arg;
	(void) g;
	(void) op;
	return false;
}

/*
 * Runs once a graph, after its weights are set; supports NULL: no epilogues.
 * DFX_EINVAL when it ran already, DFX_EWEIGHTS when a parameter has no data.
 * After DFX_ENOMEM the graph is good for dfx_graph_free only.
 */
DfxStatus
dfx_graph_optimize(DfxGraph *g, DfxSupports supports, void *arg, DfxErr *err)
{
	Passes p = {.g = g, .supports = supports ? supports : passes_no_epilogue, .arg = arg};
	DfxStatus st = dfx_graph_finish(g, err);

	if (st != DFX_OK)
		return st;
	if (g->priv->optimized)
		return dfx_fail(err, DFX_EINVAL, "the graph is optimised already");
	for (int i = 0; i < g->nparam; i++)
		if (g->param[i].data == NULL)
			return dfx_fail(err, DFX_EWEIGHTS, "parameter \"%s\" is not set", g->param[i].name);

	g->priv->optimized = true;
	st = DFX_ENOMEM;
	if (passes_open(&p))
	{
		passes_drop(&p);
		passes_count(&p);
		passes_fold(&p);
		passes_pool(&p);
		passes_affine(&p);
		passes_fuse(&p);
		if (passes_compact(&p))
		{
			dfx_graph_relive(g);
			st = dfx_graph_place(g, p.buffer, err);
		}
	}
	passes_close(&p);
	return st == DFX_ENOMEM ? dfx_fail(err, st, "out of memory for the graph") : st;
}
