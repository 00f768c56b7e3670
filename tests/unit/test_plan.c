/*
 * test_plan.c
 *	  Does a memory plan keep every value whole for as long as it is read, and
 *	  does it save memory?
 *
 * Two proofs, neither of which looks at lifetimes.  Reduced networks are run
 * on the oracle's loops inside the planned arena, placed concats left out: the
 * outputs must be those of separate buffers, bit for bit.  Published networks
 * are run by name only: every float of the arena knows the value last written
 * to it, and a read that finds another one is an overlap.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/ref/ref_priv.h"
#include "tests/unit/run_net.h"
#include "tests/unit/supports_all.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny_nets.h"

static size_t
float_bytes(void *arg, const DfxGraph *g, DfxVal v)
{
	(void) arg;
	return net_count(g, v) * sizeof(float);
}

/* Where value v lies, in floats: C x H x W, so that a channel range is contiguous. */
static size_t
place_of(const DfxGraph *g, const DfxMemPlan *m, DfxVal v)
{
	const DfxValue *x = &g->val[v];

	return m->off[x->root] / sizeof(float) + (size_t) x->c0 * (size_t) x->h * (size_t) x->w;
}

static DfxGraph *
build(const DfxBackbone *b, int stride, bool optimise)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxStatus st = stride ? dfx_build_trinet(g, b, stride, &err) : dfx_build_backbone(g, b, 7, &err);

	if (st == DFX_OK && optimise)
		st = dfx_weights_random(g, 5, &err);
	if (st == DFX_OK && optimise)
		st = dfx_graph_optimize(g, supports_all, NULL, &err);
	if (!ok(st == DFX_OK, "%s, head stride %d, %s", b->name, stride, optimise ? "optimised" : "as built"))
		diag("%s", err.msg);
	return g;
}

/* ---- run in the arena ---- */

static void
check_run(const DfxBackbone *b, int stride)
{
	DfxGraph *g = build(b, stride, true);
	DfxMemPlan m = {0};
	DfxErr err = {0};
	uint8_t *pixels = malloc(64 * 64 * 3);
	float *want[DFX_MAX_OUT], **data = calloc((size_t) g->nval, sizeof *data), *arena;
	bool same = true;

	for (int i = 0; i < 64 * 64 * 3; i++)
		pixels[i] = (uint8_t) (i * 37 + i / 29);
	ok(run_net(&dfx_ref_backend, g, pixels, 1, want, &err) == DFX_OK &&
	       dfx_plan_memory(g, float_bytes, NULL, &m, &err) == DFX_OK,
	   "%s runs in separate buffers, and has a plan", b->name);
	arena = malloc(m.bytes);
	memset(arena, 0xFF, m.bytes); /* not a number */
	for (int i = 0; i < g->nop; i++)
		data[g->op[i].out] = arena + place_of(g, &m, g->op[i].out);
	for (int i = 0; i < g->nop; i++)
		if (!g->op[i].placed)
		{
			ref_run(g, &g->op[i], data, pixels);
			ref_epilogue(g, &g->op[i], data);
		}
	for (int i = 0; i < g->nout; i++)
		same = same && memcmp(data[g->out[i]], want[i], net_count(g, g->out[i]) * sizeof(float)) == 0;
	ok(same, "%s, head stride %d: the same bits in an arena of %zu bytes", b->name, stride, m.bytes);
	free_net(want);
	free(arena);
	free(data);
	free(pixels);
	dfx_plan_memory_free(&m);
	dfx_graph_free(g);
}

/* ---- run by name ---- */

/* What lies at a value's place is that value; a placed concat consists of its pieces. */
static bool
is_whole(const DfxGraph *g, const DfxMemPlan *m, const DfxVal *owner, DfxVal v)
{
	const DfxOp *op = &g->op[g->val[v].def];
	const DfxVal *at = owner + place_of(g, m, v);
	size_t n = net_count(g, v);

	if (op->placed)
	{
		for (int j = 0; j < op->nin; j++)
			if (!is_whole(g, m, owner, op->in[j]))
				return false;
		return true;
	}
	for (size_t i = 0; i < n; i++)
		if (at[i] != v)
			return false;
	return true;
}

static void
check_names(const DfxGraph *g, const DfxMemPlan *m, const char *name)
{
	DfxVal *owner = malloc(m->bytes / sizeof(float) * sizeof *owner);
	int lost = 0, outside = 0;

	memset(owner, 0xFF, m->bytes / sizeof(float) * sizeof *owner);
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];
		size_t at = place_of(g, m, op->out), n = net_count(g, op->out);

		if ((at + n) * sizeof(float) > m->bytes || m->off[g->val[op->out].root] % 64 != 0)
		{
			outside++;
			continue;
		}
		/* Inputs are looked at after the output is written: an op must not write over what it reads. */
		for (size_t k = 0; k < n && !op->placed; k++)
			owner[at + k] = op->out;
		for (int j = 0; j < op->nin; j++)
			lost += !is_whole(g, m, owner, op->in[j]);
		if (op->epi_add >= 0)
			lost += !is_whole(g, m, owner, op->epi_add);
	}
	for (int i = 0; i < g->nout; i++)
		lost += !is_whole(g, m, owner, g->out[i]);
	ok(outside == 0, "%s: every value lies in the arena, on a boundary of 64", name);
	ok(lost == 0, "%s: every value is whole whenever it is read (%d are not)", name, lost);
	free(owner);
}

/* share: how much of the sum of all values the arena may take. */
static void
check_plan(const char *name, int stride, bool optimise, double share)
{
	DfxGraph *g = build(dfx_backbone_find(name), stride, optimise);
	DfxMemPlan m = {0};
	DfxErr err = {0};
	double sum = 0;

	for (int i = 0; i < g->nop; i++)
		sum += (double) net_count(g, g->op[i].out) * sizeof(float);
	if (!ok(dfx_plan_memory(g, float_bytes, NULL, &m, &err) == DFX_OK, "%s has a plan", name))
		return;
	check_names(g, &m, name);
	ok((double) m.bytes < share * sum, "%s%s: arena %.1f MB of %.1f MB", name, stride ? " x 3" : "",
	   (double) m.bytes / 1e6, sum / 1e6);
	dfx_plan_memory_free(&m);
	ok(m.off == NULL && m.bytes == 0, "a freed plan is empty");
	dfx_graph_free(g);
}

/* ---- sizes by hand ---- */

/* Bytes by value number: 0 keeps the input out of the arena. */
static size_t
hand_bytes(void *arg, const DfxGraph *g, DfxVal v)
{
	(void) g;
	return ((const size_t *) arg)[v];
}

static void
check_hand(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_input_f32(g, 1, 1, 1);
	size_t size[5] = {0, 1, 65, 640, 64};
	DfxMemPlan m;
	DfxErr err;

	for (int i = 0; i < 4; i++)
		x = dfx_act(g, x, DFX_ACT_RELU);
	dfx_output(g, x, "y");
	if (dfx_graph_finish(g, &err) != DFX_OK)
		abort();

	/* 640 first at 0; 65, alive with it, after it; 64 after 640 too; 1 is alive with 65 only: at 0. */
	ok(dfx_plan_memory(g, hand_bytes, size, &m, &err) == DFX_OK && m.bytes == 640 + 128 && m.off[3] == 0 &&
	       m.off[2] == 640 && m.off[4] == 640 && m.off[1] == 0,
	   "a chain uses two places alternately, rounded up to 64");
	dfx_plan_memory_free(&m);

	size[2] = SIZE_MAX / 2;
	ok(dfx_plan_memory(g, hand_bytes, size, &m, &err) == DFX_ELIMIT && m.off == NULL,
	   "sizes that overflow are refused");
	memset(size, 0, sizeof size);
	ok(dfx_plan_memory(g, hand_bytes, size, &m, &err) == DFX_OK && m.bytes == 0, "nothing needs no arena");
	dfx_plan_memory_free(&m);
	dfx_graph_free(g);
}

int
main(void)
{
	for (int i = 0; i < TINY_NETS; i++)
		for (int stride = 0; stride <= 2; stride++)
			if (stride == 0 || tiny_nets[i].features < 70)
				check_run(&tiny_nets[i], stride);
	check_plan("densenet121", 0, true, 0.12);
	check_plan("densenet121", 0, false, 0.12);
	check_plan("resnet50", 0, true, 0.17);
	check_plan("densenet121", 1, true, 0.045);
	check_plan("resnet18", 2, false, 0.08);
	check_hand();
	return done_testing();
}
