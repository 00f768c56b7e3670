/*
 * train_plan.c
 *	  From a graph to training steps: which values are stored, and what each op
 *	  reads.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/train_conv.h"

/* ---- which values are stored ---- */

/* What is known of each value while the steps are made. */
typedef struct PlanValue
{
	bool forced;  /* a virtual kind, but stored */
	int readers;  /* ops, and the output */
	DfxVal fused; /* the ReLU's output that takes this value's place; -1: none */
	bool gone;    /* an ACT that was applied in place */
} PlanValue;

typedef struct PlanBuild
{
	TrainBuild *b;
	PlanValue *value;
	TrainNorm **norm; /* per op */
	DfxGraph copy;    /* with ops and values of its own */
} PlanBuild;

static DfxOpKind
plan_kind(const PlanBuild *p, DfxVal v)
{
	return p->b->g->op[p->b->g->val[v].def].kind;
}

static bool
plan_is_stored(const PlanBuild *p, DfxVal v)
{
	DfxOpKind kind = plan_kind(p, v);

	if (p->value[v].fused >= 0)
		return false;
	return p->value[v].forced || p->value[v].gone ||
	       (kind != DFX_OP_CONCAT && kind != DFX_OP_BN && kind != DFX_OP_ACT);
}

static void
plan_count_readers(PlanBuild *p)
{
	const DfxGraph *g = p->b->g;

	for (int v = 0; v < g->nval; v++)
		p->value[v].fused = -1;
	for (int i = 0; i < g->nop; i++)
		for (int j = 0; j < g->op[i].nin; j++)
			p->value[g->op[i].in[j]].readers++;
	for (int i = 0; i < g->nout; i++)
		p->value[g->out[i]].readers++;
}

/* ReLUs that alone read a convolution, a linear layer or a sum are applied in place. */
static void
plan_fuse(PlanBuild *p)
{
	const DfxGraph *g = p->b->g;

	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];
		DfxOpKind kind;

		if (op->kind != DFX_OP_ACT || op->u.act != DFX_ACT_RELU || p->value[op->in[0]].readers != 1)
			continue;
		kind = plan_kind(p, op->in[0]);
		if (kind != DFX_OP_CONV && kind != DFX_OP_LINEAR && kind != DFX_OP_ADD)
			continue;
		p->value[op->in[0]].fused = op->out;
		p->value[op->out].gone = true;
	}
}

/* Chains that are more than concat, BN, activation, in this order, are broken by storing a value. */
static bool
plan_force_one(PlanBuild *p, const DfxOp *op)
{
	bool changed = false;

	for (int j = 0; j < op->nin; j++)
	{
		DfxVal x = op->in[j];
		DfxOpKind kind = plan_kind(p, x);
		bool good = plan_is_stored(p, x);

		if (p->value[op->out].gone)
			continue; /* applied in place: it reads nothing */
		if (op->kind == DFX_OP_BN)
			good = good || kind == DFX_OP_CONCAT;
		else if (op->kind == DFX_OP_ACT)
			good = good || kind == DFX_OP_CONCAT || kind == DFX_OP_BN;
		else if (op->kind != DFX_OP_CONCAT)
			good = true;
		if (!good)
			p->value[x].forced = changed = true;
	}
	return changed;
}

static void
plan_force(PlanBuild *p)
{
	bool changed = true;

	while (changed)
	{
		changed = false;
		for (int i = 0; i < p->b->g->nop; i++)
			changed = plan_force_one(p, &p->b->g->op[i]) || changed;
	}
}

/* DenseNet's transitions: the graph is a copy by now. */
static void
plan_pool_first(PlanBuild *p, DfxGraph *g)
{
	for (int i = 0; i < g->nop; i++)
	{
		DfxOp *pool = &g->op[i];

		if (pool->kind == DFX_OP_POOL && p->value[pool->in[0]].readers == 1)
			dfx_pool_first(g, &g->op[g->val[pool->in[0]].def], pool);
	}
}

/* ---- values and sources ---- */

static CpuView
plan_view(const TrainBuild *b, const DfxValue *v, bool plain)
{
	CpuView view = {.c = v->c, .h = v->h, .w = v->w, .type = b->t->type};

	return train_relayout(&view, plain ? 1 : b->dev->block);
}

static void
plan_values(PlanBuild *p)
{
	TrainBuild *b = p->b;
	const DfxGraph *g = b->g;

	for (int v = 0; v < g->nval; v++)
	{
		TrainValue *val = &b->t->value[v];
		DfxOpKind kind = plan_kind(p, v);

		val->stored = plan_is_stored(p, v);
		val->relu = p->value[v].gone;
		/* As the first convolution reads it fastest. */
		val->view =
		    plan_view(b, &g->val[v], g->val[v].c <= 3 && (kind == DFX_OP_INPUT || kind == DFX_OP_STACK));
		val->wants_grad = v != g->input || b->t->input_f32;
	}
}

/* What an op reads when it reads v. */
static DfxStatus
plan_source(PlanBuild *p, DfxVal v, TrainSource *s, DfxErr *err)
{
	const DfxGraph *g = p->b->g;
	const TrainValue *val = p->b->t->value;
	const DfxOp *op = &g->op[g->val[v].def];
	const DfxVal *piece = &v;

	*s = (TrainSource){.npiece = 1, .view = val[v].view};
	if (!val[v].stored && op->kind == DFX_OP_ACT)
	{
		s->act = op->u.act;
		v = op->in[0];
		op = &g->op[g->val[v].def];
	}
	if (!val[v].stored && op->kind == DFX_OP_BN)
	{
		s->norm = p->norm[op - g->op];
		v = op->in[0];
		op = &g->op[g->val[v].def];
	}
	if (!val[v].stored) /* a CONCAT: plan_force has seen to it */
	{
		s->npiece = op->nin;
		piece = op->in;
	}
	s->piece = cpu_plan_alloc(p->b->plan, (size_t) s->npiece * sizeof *s->piece, err);
	s->first = cpu_plan_alloc(p->b->plan, (size_t) s->npiece * sizeof *s->first, err);
	if (s->piece == NULL || s->first == NULL)
		return DFX_ENOMEM;
	memcpy(s->piece, piece, (size_t) s->npiece * sizeof *s->piece);
	return DFX_OK;
}

/* ---- steps ---- */

static DfxStatus
plan_new_step(PlanBuild *p, const DfxOp *op, TrainStep **step, DfxErr *err)
{
	CpuTrain *t = p->b->t;
	TrainStep *s = &t->step[t->nstep++];
	DfxStatus st = DFX_OK;

	*step = s;
	*s = (TrainStep){
	    .kind = op->kind, .op = (int) (op - p->b->g->op), .nin = op->nin, .out = op->out, .chunk = 1};
	memcpy(s->param, op->param, sizeof s->param);
	if (p->value[op->out].fused >= 0)
		s->out = p->value[op->out].fused;
	s->in = cpu_plan_alloc(p->b->plan, ((size_t) op->nin + 1) * sizeof *s->in, err);
	if (s->in == NULL)
		return DFX_ENOMEM;
	for (int j = 0; j < op->nin && st == DFX_OK; j++)
		st = plan_source(p, op->in[j], &s->in[j], err);
	return st;
}

/* A stored BN, ACT or CONCAT reads what it would be if it were virtual. */
static DfxStatus
plan_store_step(PlanBuild *p, const DfxOp *op, DfxErr *err)
{
	TrainValue *out = &p->b->t->value[op->out];
	TrainStep *s;
	DfxStatus st = plan_new_step(p, op, &s, err);

	if (st != DFX_OK)
		return st;
	out->stored = false;
	s->nin = 1;
	st = plan_source(p, op->out, &s->in[0], err);
	out->stored = true;
	return st == DFX_OK ? train_own_step(p->b, op, s, err) : st;
}

static DfxStatus
plan_step(PlanBuild *p, const DfxOp *op, DfxErr *err)
{
	bool stored = p->b->t->value[op->out].stored;
	TrainStep *s;
	DfxStatus st = DFX_OK;

	if (op->kind == DFX_OP_BN)
	{
		st = train_norm_new(p->b, op, &p->norm[op - p->b->g->op], err);
		if (st == DFX_OK)
			st = plan_new_step(p, op, &s, err);
		if (st != DFX_OK)
			return st;
		s->out = -1;
		s->norm = p->norm[s->op];
		st = train_norm_step(p->b, s, err);
	}
	if (st != DFX_OK)
		return st;
	if (op->kind == DFX_OP_BN || op->kind == DFX_OP_ACT || op->kind == DFX_OP_CONCAT)
		return stored && !p->value[op->out].gone ? plan_store_step(p, op, err) : DFX_OK;
	st = plan_new_step(p, op, &s, err);
	if (st != DFX_OK)
		return st;
	if (op->kind == DFX_OP_CONV || op->kind == DFX_OP_LINEAR)
		return train_conv_step(p->b, op, s, err);
	if (op->kind == DFX_OP_TOKENS || op->kind == DFX_OP_LAYERNORM || op->kind == DFX_OP_ATTN)
		return train_tokens_step(p->b, op, s, err);
	return train_own_step(p->b, op, s, err);
}

static DfxStatus
plan_steps(PlanBuild *p, DfxErr *err)
{
	const DfxGraph *g = p->b->g;
	CpuTrain *t = p->b->t;
	size_t floats = 0;

	t->step = cpu_plan_alloc(p->b->plan, 2 * ((size_t) g->nop + 1) * sizeof *t->step, err);
	if (t->step == NULL)
		return DFX_ENOMEM;
	for (int i = 0; i < g->nop; i++)
	{
		DfxStatus st = plan_step(p, &g->op[i], err);

		if (st != DFX_OK)
			return st;
		cpu_progress(p->b->dev);
	}
	for (int i = 0; i < g->nout; i++)
	{
		DfxStatus st = plan_source(p, g->out[i], &t->out[i], err);

		if (st != DFX_OK)
			return st;
		floats = t->out[i].view.stride;
		train_need(p->b, TRAIN_SRC, floats * sizeof(float));
		train_need(p->b, TRAIN_DSRC, floats * sizeof(float));
	}
	return DFX_OK;
}

/* ---- compile ---- */

static DfxStatus
plan_check(const DfxGraph *g, DfxErr *err)
{
	return dfx_graph_is_raw(g)
	           ? DFX_OK
	           : dfx_fail(err, DFX_EINVAL, "a plan for training needs a graph that is not optimised");
}

/* A BN reads pixels: then their gradient is made after all, because the BN's own sums come with it. */
static void
plan_normed_input(const PlanBuild *p)
{
	const DfxGraph *g = p->b->g;

	for (int i = 0; i < g->nop; i++)
		for (int j = 0; j < g->op[i].nin; j++)
			if (g->op[i].in[j] == g->input && (g->op[i].kind == DFX_OP_BN || g->op[i].kind == DFX_OP_CONCAT))
				p->b->t->value[g->input].wants_grad = true;
}

static DfxStatus
plan_build(PlanBuild *p, DfxErr *err)
{
	TrainBuild *b = p->b;
	CpuTrain *t = b->t;
	DfxStatus st;

	t->input = b->g->input;
	t->input_f32 = !b->g->op[b->g->val[t->input].def].u.input.rgb8;
	t->nvalue = b->g->nval;
	t->value = cpu_plan_alloc(b->plan, ((size_t) t->nvalue + 1) * sizeof *t->value, err);
	if (t->value == NULL)
		return DFX_ENOMEM;
	plan_count_readers(p);
	plan_pool_first(p, &p->copy);
	plan_fuse(p);
	plan_force(p);
	plan_values(p);
	plan_normed_input(p);
	st = train_params_new(b, err);
	if (st == DFX_OK)
		st = plan_steps(p, err);
	if (st == DFX_OK)
		st = train_memory(b, err);
	return st;
}

static DfxStatus
plan_copy_graph(PlanBuild *p, const DfxGraph *g, DfxErr *err)
{
	p->copy = *g;
	p->copy.op = malloc(((size_t) g->nop + 1) * sizeof *g->op);
	p->copy.val = malloc(((size_t) g->nval + 1) * sizeof *g->val);
	p->value = calloc((size_t) g->nval + 1, sizeof *p->value);
	p->norm = calloc((size_t) g->nop + 1, sizeof *p->norm);
	if (p->copy.op == NULL || p->copy.val == NULL || p->value == NULL || p->norm == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	memcpy(p->copy.op, g->op, (size_t) g->nop * sizeof *g->op);
	memcpy(p->copy.val, g->val, (size_t) g->nval * sizeof *g->val);
	return DFX_OK;
}

/* Make plan, which has its device and batch, one for training of g in fp32 or bf16.  In a worker (plan.c). */
DfxStatus
cpu_train_build(DfxPlan *plan, const DfxGraph *g, DfxPrecision precision, DfxErr *err)
{
	int threads = plan->dev->threads;
	PlanBuild p = {0};
	TrainBuild b = {
	    .dev = plan->dev, .plan = plan, .g = &p.copy, .share = (plan->max_batch + threads - 1) / threads};
	DfxStatus st;

	p.b = &b;
	b.t = plan->train = cpu_plan_alloc(plan, sizeof *b.t, err);
	if (b.t == NULL)
		return DFX_ENOMEM;
	b.t->plan = plan;
	b.t->type = precision == DFX_PRECISION_BF16 ? CPU_BF16 : CPU_F32;
	plan->nout = g->nout;
	st = plan_check(g, err);
	if (st == DFX_OK)
		st = plan_copy_graph(&p, g, err);
	if (st == DFX_OK)
		st = plan_build(&p, err);
	free(p.copy.op);
	free(p.copy.val);
	free(p.value);
	free(p.norm);
	return st;
}

/* What is not in the plan's list of blocks. */
void
cpu_train_free(CpuTrain *t, int threads)
{
	if (t == NULL)
		return;
	for (int i = 0; i < t->nstep; i++)
		train_conv_free(t->step[i].conv);
	for (int w = 0; t->scratch && w < threads; w++)
		free(t->scratch[w]);
	free(t->arena);
}

size_t
cpu_train_bytes(const DfxPlan *plan)
{
	const CpuTrain *t = plan->train;

	return t ? t->arena_bytes + t->region[TRAIN_REGIONS] * (size_t) plan->dev->threads : 0;
}

int
cpu_train_impls(const CpuTrain *t)
{
	return t->nstep * DNNL_PASS_COUNT;
}

const char *
cpu_train_impl(const CpuTrain *t, int i)
{
	const TrainConv *c;

	if (i < 0 || i >= cpu_train_impls(t))
		return NULL;
	c = t->step[i / DNNL_PASS_COUNT].conv;
	return c && c->pass[i % DNNL_PASS_COUNT].prim ? c->pass[i % DNNL_PASS_COUNT].impl : NULL;
}
