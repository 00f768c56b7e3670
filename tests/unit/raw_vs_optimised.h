/*
 * raw_vs_optimised.h
 *	  Run a network on the oracle as built and as optimised, and compare; for
 *	  test_passes*.c.
 */
#ifndef DFX_TESTS_RAW_VS_OPTIMISED_H
#define DFX_TESTS_RAW_VS_OPTIMISED_H

#include <stdlib.h>
#include <string.h>

#include "tests/ref/ref.h"
#include "tests/unit/run_net.h"
#include "tests/unit/supports_all.h"
#include "tests/unit/tap.h"

#define TOLERANCE 1e-5 /* of the largest magnitude; folding rounds weights once more */

/* ---- backends of different talents ---- */

/* Convolutions only, and an addend or an activation but not both. */
static bool
supports_some(void *arg, const DfxGraph *g, const DfxOp *op)
{
	(void) arg;
	(void) g;
	return op->kind == DFX_OP_CONV && op->epi_scale < 0 && (op->epi_add < 0 || op->epi_act == DFX_ACT_NONE);
}

static const struct
{
	const char *name;
	DfxSupports supports;
} talent[] = {{"all", supports_all}, {"some", supports_some}, {"no", NULL}};

/* ---- what a graph looks like ---- */

static void
describe(const DfxGraph *g, char *text, size_t size)
{
	static const char *const act[DFX_ACT_COUNT] = {"", "+relu", "+silu", "+gelu", "+sigmoid"};
	size_t n = 0;

	for (int i = 0; i < g->nop && n < size; i++)
	{
		const DfxOp *op = &g->op[i];
		char inputs[16] = "";

		if (op->nin > 1 && op->kind == DFX_OP_AFFINE)
			snprintf(inputs, sizeof inputs, "(%d)", op->nin);
		n += (size_t) snprintf(text + n, size - n, "%s%s%s%s%s%s%s", i ? " " : "", dfx_op_info[op->kind].name,
		                       inputs, op->placed ? "*" : "", op->epi_add >= 0 ? "+add" : "",
		                       act[op->epi_act], op->epi_scale >= 0 ? "+affine" : "");
	}
}

/* Placement makes sense: ranges inside their roots, written ranges of a root disjoint, placed concats in
 * order. */
static const char *
placement_fault(const DfxGraph *g)
{
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];
		const DfxValue *v = &g->val[op->out], *root = &g->val[v->root];
		int c = v->c0;

		if (g->val[v->root].root != v->root || v->c0 < 0 || v->c0 + v->c > root->c || v->h != root->h ||
		    v->w != root->w)
			return "a range outside its root";
		for (int j = 0; j < op->nin && op->placed; j++)
		{
			const DfxValue *p = &g->val[op->in[j]];

			if (op->kind != DFX_OP_CONCAT || p->root != v->root || p->c0 != c)
				return "a piece of a placed concat elsewhere";
			c += p->c;
		}
		for (int j = 0; j < i && !op->placed; j++)
		{
			const DfxValue *u = &g->val[g->op[j].out];

			if (!g->op[j].placed && u->root == v->root && u->c0 < v->c0 + v->c && v->c0 < u->c0 + u->c)
				return "two ops write one range";
		}
	}
	return NULL;
}

/* ---- raw against optimised ---- */

typedef DfxVal (*Build)(DfxGraph *g, DfxVal x);

/* A network to build: a chain over 8 x 6 x 6, or a backbone (branches 1, or 3 with a head stride). */
typedef struct Subject
{
	const char *name;
	Build chain;
	const DfxBackbone *backbone;
	int head_stride;
} Subject;

static DfxGraph *
build(const Subject *s)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxStatus st;

	if (s->chain)
	{
		dfx_output(g, s->chain(g, dfx_input_f32(g, 8, 6, 6)), "y");
		st = dfx_graph_finish(g, &err);
	}
	else
		st = s->head_stride ? dfx_build_trinet(g, s->backbone, s->head_stride, &err)
		                    : dfx_build_backbone(g, s->backbone, 7, &err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, 17, &err);
	if (!ok(st == DFX_OK, "%s is built", s->name))
		diag("%s", err.msg);
	return g;
}

/* Noise that serves as floats or as pixels. */
static const void *
input(const DfxGraph *g)
{
	static float f[8 * 6 * 6];
	static uint8_t u[64 * 64 * 3];
	uint32_t state = 1;

	for (size_t i = 0; i < sizeof u; i++)
		u[i] = (uint8_t) ((state = state * 1664525u + 1013904223u) >> 24);
	for (size_t i = 0; i < sizeof f / sizeof f[0]; i++)
		f[i] = (float) u[i] / 64 - 2;
	return g->op[g->val[g->input].def].u.input.rgb8 ? (const void *) u : f;
}

/* expected: what describe() says with all epilogues supported, NULL: not compared. */
__attribute__((unused)) static void
check(const Subject *s, const char *expected)
{
	DfxGraph *raw = build(s);
	float *want[DFX_MAX_OUT], *got[DFX_MAX_OUT];
	DfxErr err = {0};
	char text[512];

	ok(run_net(&dfx_ref_backend, raw, input(raw), 1, want, &err) == DFX_OK, "%s runs as built", s->name);
	for (size_t t = 0; t < sizeof talent / sizeof talent[0]; t++)
	{
		DfxGraph *g = build(s);
		const char *fault;
		double worst = 0;
		DfxStatus st = dfx_graph_optimize(g, talent[t].supports, NULL, &err);

		if (st == DFX_OK)
			st = run_net(&dfx_ref_backend, g, input(g), 1, got, &err);
		if (!ok(st == DFX_OK && g->nout == raw->nout, "%s runs optimised with %s epilogues", s->name,
		        talent[t].name))
			diag("%s", err.msg);
		for (int i = 0; i < g->nout && st == DFX_OK; i++)
			worst = fmax(worst, net_error(got[i], want[i], net_count(raw, raw->out[i])));
		describe(g, text, sizeof text);
		if (!ok(st == DFX_OK && worst <= TOLERANCE, "%s: same outputs with %s epilogues", s->name,
		        talent[t].name))
			diag("%g: %s", worst, text);
		fault = placement_fault(g);
		if (!ok(fault == NULL, "%s: placement is sound", s->name))
			diag("%s: %s", fault, text);
		if (expected && t == 0 && !ok(strcmp(text, expected) == 0, "%s becomes: %s", s->name, expected))
			diag("but got: %s", text);
		free_net(got);
		dfx_graph_free(g);
	}
	free_net(want);
	dfx_graph_free(raw);
}

#endif /* DFX_TESTS_RAW_VS_OPTIMISED_H */
