/*
 * train_memory.c
 *	  How long everything in a training plan lives, and where.
 *
 * Moments, for the memory plan: step i's forward is moment i, its backward
 * 2 * nstep - i, and the outputs are read and their gradients set at nstep.
 * So gradients lie where values have been that backward is done with.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/train.h"

/* ---- gradients' first contributions ---- */

static void
memory_contribute(bool *seen, TrainSource *s)
{
	for (int j = 0; j < s->npiece; j++)
	{
		s->first[j] = !seen[s->piece[j]];
		seen[s->piece[j]] = true;
	}
}

/* Who writes a gradient and who adds to it: outputs first, then the steps in reverse. */
static DfxStatus
memory_first(TrainBuild *b, DfxErr *err)
{
	CpuTrain *t = b->t;
	bool *seen = cpu_plan_alloc(b->plan, ((size_t) t->nvalue + 1) * sizeof *seen, err);

	t->dead = cpu_plan_alloc(b->plan, ((size_t) t->nvalue + 1) * sizeof *t->dead, err);
	if (seen == NULL || t->dead == NULL)
		return DFX_ENOMEM;
	for (int i = 0; i < b->plan->nout; i++)
		memory_contribute(seen, &t->out[i]);
	for (int i = t->nstep - 1; i >= 0; i--)
		for (int j = 0; t->step[i].out >= 0 && j < t->step[i].nin; j++)
			memory_contribute(seen, &t->step[i].in[j]);
	for (int v = 0; v < t->nvalue; v++)
		if (t->value[v].stored && t->value[v].wants_grad && !seen[v])
			t->dead[t->ndead++] = v;
	return DFX_OK;
}

/* ---- memory ---- */

/* Whether a step's backward reads its inputs' values for itself, not only to pass a gradient through a
 * source. */
static bool
memory_reads_inputs(const TrainStep *s)
{
	switch (s->kind)
	{
		case DFX_OP_CONV:
		case DFX_OP_LINEAR:
		case DFX_OP_MUL:
		case DFX_OP_LAYERNORM:
		case DFX_OP_ATTN:
			return true;
		case DFX_OP_POOL:
			return !s->pool.avg;
		default:
			return false;
	}
}

static void
memory_touch(DfxMemBlock *block, int when)
{
	block->first = when < block->first ? when : block->first;
	block->last = when > block->last ? when : block->last;
}

/* A source is read at one moment, and passed a gradient at another (then > moment). */
static void
memory_touch_source(DfxMemBlock *value, DfxMemBlock *grad, const TrainSource *s, int read, int push,
                    bool reads)
{
	for (int j = 0; j < s->npiece; j++)
	{
		memory_touch(&value[s->piece[j]], read);
		memory_touch(&grad[s->piece[j]], push);
		if (reads || s->norm != NULL || s->act != DFX_ACT_NONE)
			memory_touch(&value[s->piece[j]], push);
	}
}

static void
memory_lifetimes(const CpuTrain *t, int nout, DfxMemBlock *value, DfxMemBlock *grad)
{
	int end = t->nstep;

	for (int v = 0; v < t->nvalue; v++)
	{
		value[v] = (DfxMemBlock){.id = v, .first = 2 * end + 1, .last = -1};
		grad[v] = (DfxMemBlock){.id = v + t->nvalue, .first = 2 * end + 1, .last = -1};
	}
	for (int i = 0; i < t->nstep; i++)
	{
		const TrainStep *s = &t->step[i];

		if (s->out < 0)
			continue;
		memory_touch(&value[s->out], i);
		memory_touch(&grad[s->out], 2 * end - i);
		if (t->value[s->out].relu || t->value[s->out].normed)
			memory_touch(&value[s->out], 2 * end - i);
		for (int j = 0; j < s->nin; j++)
			memory_touch_source(value, grad, &s->in[j], i, 2 * end - i, memory_reads_inputs(s));
	}
	for (int i = 0; i < nout; i++)
		memory_touch_source(value, grad, &t->out[i], end, end, false);
	for (int i = 0; i < t->ndead; i++)
		memory_touch(&grad[t->dead[i]], end);
	memory_touch(&grad[t->input], 2 * end + 1); /* the caller may want it */
	if (t->value[t->input].normed)
		memory_touch(&value[t->input], 2 * end + 1);
}

static DfxStatus
memory_place(TrainBuild *b, DfxErr *err)
{
	CpuTrain *t = b->t;
	size_t nval = (size_t) t->nvalue;
	DfxMemBlock *block = malloc(2 * (nval + 1) * sizeof *block);
	int n = 0;
	DfxStatus st;

	if (block == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	memory_lifetimes(t, b->plan->nout, block, block + nval);
	for (size_t i = 0; i < 2 * nval; i++)
	{
		const TrainValue *val = &t->value[i % nval];

		if (!val->stored || (i >= nval && !val->wants_grad))
			continue;
		block[n] = block[i];
		block[n++].size = cpu_image_bytes(&val->view) * (size_t) b->plan->max_batch;
	}
	st = dfx_plan_blocks(block, n, &t->arena_bytes, err);
	for (int i = 0; st == DFX_OK && i < n; i++)
	{
		TrainValue *val = &t->value[(size_t) block[i].id % nval];

		*((size_t) block[i].id < nval ? &val->view.off : &val->grad_off) = block[i].off;
	}
	free(block);
	return st;
}

static size_t
memory_round(size_t bytes, size_t to)
{
	return (bytes + to - 1) / to * to;
}

/* The arena, and the workers' scratch memory with its regions. */
static DfxStatus
memory_allocate(TrainBuild *b, DfxErr *err)
{
	CpuTrain *t = b->t;
	size_t at = 0;

	for (int i = 0; i < TRAIN_REGIONS; i++)
	{
		t->region[i] = at;
		at += memory_round(b->need[i] + CPU_ALIGN, 4096);
	}
	t->region[TRAIN_REGIONS] = memory_round(at, CPU_HUGE);
	t->arena_bytes = memory_round(t->arena_bytes + CPU_ALIGN, CPU_HUGE);
	t->arena = cpu_arena_new(t->arena_bytes, err);
	t->scratch = cpu_plan_alloc(b->plan, (size_t) b->dev->threads * sizeof *t->scratch, err);
	if (t->arena == NULL || t->scratch == NULL)
		return DFX_ENOMEM;
	for (int w = 0; w < b->dev->threads; w++)
	{
		t->scratch[w] = cpu_arena_new(t->region[TRAIN_REGIONS], err);
		if (t->scratch[w] == NULL)
			return DFX_ENOMEM;
	}
	return DFX_OK;
}

/* Once all steps are known: who writes which gradient, and where all lies. */
DfxStatus
train_memory(TrainBuild *b, DfxErr *err)
{
	DfxStatus st = memory_first(b, err);

	if (st == DFX_OK)
		st = memory_place(b, err);
	if (st == DFX_OK)
		st = memory_allocate(b, err);
	return st;
}
