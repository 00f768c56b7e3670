/*
 * strands.c
 *	  Parts of a network that can run side by side: the branches of the tri-branch net.
 *
 * A lone image would keep one worker busy and leave the others idle.  Where a
 * graph stacks what independent branches make of its input, each branch is a
 * strand: a worker runs it in its own arena, from the input on, and packs what
 * the rest of the network reads of it (its feature vector) into a parcel.  Who
 * finishes the last strand of an image unpacks the parcel into its arena and
 * runs the rest (run.c).
 *
 * Values lie at the same offsets in all arenas, and the memory plan is made
 * for the whole graph, where all that the rest reads is alive when the last
 * strand ends: unpacking disturbs nothing.  The steps are those that run
 * without strands, so the result is the same, bit for bit.
 */
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

#define STRANDS_MAX    8
#define STRANDS_SHARED (-3) /* the part of an op that several strands need */

/* A value that leaves its strand. */
typedef struct StrandsCross
{
	int part; /* the strand that makes it */
	CpuView view;
	size_t off; /* in a parcel, bytes */
} StrandsCross;

struct CpuStrands
{
	int n;
	int *part; /* of each step of the plan: a strand's number, CPU_PART_ALL or CPU_PART_REST */
	int ncross;
	StrandsCross *cross;
	size_t parcel_bytes;
};

/* The only STACK of a graph; -1: there is none, or more than one. */
static int
strands_join(const DfxGraph *g)
{
	int join = -1, found = 0;

	for (int i = 0; i < g->nop; i++)
		if (g->op[i].kind == DFX_OP_STACK)
		{
			join = i;
			found++;
		}
	return found == 1 && g->op[join].nin > 1 && g->op[join].nin <= STRANDS_MAX ? join : -1;
}

/* Of each value: bit j is set when input j of op join depends on it. */
static void
strands_lead(const DfxGraph *g, int join, unsigned *lead)
{
	for (int j = 0; j < g->op[join].nin; j++)
		lead[g->op[join].in[j]] |= 1u << j;
	for (int i = join - 1; i >= 0; i--)
	{
		const DfxOp *op = &g->op[i];

		for (int j = 0; j < op->nin; j++)
			lead[op->in[j]] |= lead[op->out];
		if (op->epi_add >= 0)
			lead[op->epi_add] |= lead[op->out];
	}
}

static int
strands_part(const DfxOp *op, unsigned leads_to)
{
	if (op->kind == DFX_OP_INPUT)
		return CPU_PART_ALL;
	if (leads_to == 0)
		return CPU_PART_REST;
	for (int j = 0; j < STRANDS_MAX; j++)
		if (leads_to == 1u << j)
			return j;
	return STRANDS_SHARED;
}

/* Note value v as one that the rest reads, if a strand makes it. */
static void
strands_note_cross(CpuStrands *s, const CpuBuild *b, const int *part, DfxVal v)
{
	int def = b->g.val[v].def;
	const CpuView *view = &b->view[v];

	if (def < 0 || part[def] < 0)
		return;
	for (int i = 0; i < s->ncross; i++)
		if (s->cross[i].view.off == view->off)
			return;
	s->cross[s->ncross++] = (StrandsCross){.part = part[def], .view = *view, .off = s->parcel_bytes};
	s->parcel_bytes += (cpu_floats(view) * cpu_size(view->type) + CPU_ALIGN - 1) / CPU_ALIGN * CPU_ALIGN;
}

static void
strands_note_crossings(CpuStrands *s, const CpuBuild *b, const int *part)
{
	const DfxGraph *g = &b->g;

	for (int i = 0; i < g->nop; i++)
	{
		if (part[i] != CPU_PART_REST)
			continue;
		for (int j = 0; j < g->op[i].nin; j++)
			strands_note_cross(s, b, part, g->op[i].in[j]);
		if (g->op[i].epi_add >= 0)
			strands_note_cross(s, b, part, g->op[i].epi_add);
	}
	for (int i = 0; i < g->nout; i++)
		strands_note_cross(s, b, part, g->out[i]);
}

/* The parts of the graph's ops into part; false: the graph is not made of strands. */
static bool
strands_parts(const CpuBuild *b, int join, unsigned *lead, int *part)
{
	strands_lead(&b->g, join, lead);
	for (int i = 0; i < b->g.nop; i++)
	{
		part[i] = strands_part(&b->g.op[i], lead[b->g.op[i].out]);
		if (part[i] == STRANDS_SHARED)
			return false;
	}
	return true;
}

DfxStatus
cpu_strands_find(const CpuBuild *b, CpuStrands **out, DfxErr *err)
{
	int join = strands_join(&b->g);
	unsigned *lead = calloc((size_t) b->g.nval + 1, sizeof *lead);
	int *part = calloc((size_t) b->g.nop + 1, sizeof *part);
	CpuStrands *s = calloc(1, sizeof *s);
	bool room = lead && part && s;

	*out = NULL;
	if (room && join >= 0 && strands_parts(b, join, lead, part))
	{
		s->n = b->g.op[join].nin;
		s->part = calloc((size_t) b->plan->nstep + 1, sizeof *s->part);
		s->cross = calloc((size_t) b->g.nval + 1, sizeof *s->cross);
		room = s->part && s->cross;
		for (int i = 0; room && i < b->plan->nstep; i++)
			s->part[i] = part[b->plan->step[i].op];
		if (room)
		{
			strands_note_crossings(s, b, part);
			*out = s;
		}
	}
	if (*out == NULL)
		cpu_strands_free(s);
	free(lead);
	free(part);
	return room ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
}

void
cpu_strands_free(CpuStrands *s)
{
	if (s == NULL)
		return;
	free(s->part);
	free(s->cross);
	free(s);
}

int
cpu_strands_count(const CpuStrands *s)
{
	return s ? s->n : 1;
}

bool
cpu_strands_has(const CpuStrands *s, int part, int step)
{
	return s->part[step] == part || (part >= 0 && s->part[step] == CPU_PART_ALL);
}

size_t
cpu_strands_parcel_bytes(const CpuStrands *s)
{
	return s->parcel_bytes;
}

void
cpu_strands_pack(const CpuStrands *s, int part, char *parcel, char *arena)
{
	for (int i = 0; i < s->ncross; i++)
	{
		const CpuView *v = &s->cross[i].view;

		if (s->cross[i].part == part)
			memcpy(parcel + s->cross[i].off, cpu_at(arena, v, 0), cpu_floats(v) * cpu_size(v->type));
	}
}

void
cpu_strands_unpack(const CpuStrands *s, const char *parcel, char *arena)
{
	for (int i = 0; i < s->ncross; i++)
	{
		const CpuView *v = &s->cross[i].view;

		memcpy(cpu_at(arena, v, 0), parcel + s->cross[i].off, cpu_floats(v) * cpu_size(v->type));
	}
}

int
dfx_cpu_plan_strands(const DfxPlan *plan)
{
	return cpu_strands_count(plan->strands);
}
