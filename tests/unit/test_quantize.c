/*
 * test_quantize.c
 *	  Are the right convolutions calibrated, is a value in steps only where
 *	  nobody misses the rest, and are scales that do not fit refused?
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/names.h"
#include "nn/nn.h"
#include "tests/unit/supports_all.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny_nets.h"

static DfxGraph *
optimised(const DfxBackbone *b, int branches)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};

	if ((branches == 3 ? dfx_build_trinet(g, b, 1, &err) : dfx_build_backbone(g, b, 4, &err)) != DFX_OK ||
	    dfx_weights_random(g, 1, &err) != DFX_OK || dfx_graph_optimize(g, supports_all, NULL, &err) != DFX_OK)
	{
		diag("%s", err.msg);
		abort();
	}
	return g;
}

static const DfxBackbone *
tiny(const char *name)
{
	for (int i = 0; i < TINY_NETS; i++)
		if (strcmp(tiny_nets[i].name, name) == 0)
			return &tiny_nets[i];
	abort();
}

static bool
is_conv(const DfxGraph *g, int i)
{
	return g->op[i].kind == DFX_OP_CONV;
}

static const char *
weight_name(const DfxGraph *g, int i)
{
	return g->param[g->op[i].param[DFX_W]].name;
}

/* Every convolution but the stem, transitions and the head's; none of networks that are not covered. */
static void
check_choice(const char *name, int branches, bool covered)
{
	DfxGraph *g = optimised(tiny(name), branches);
	int *op = calloc((size_t) g->nop, sizeof *op), n = dfx_graph_quantizable(g, op), convs = 0, wrong = 0;
	char scale[DFX_NAME_LEN];

	for (int i = 0; i < g->nop; i++)
		convs += is_conv(g, i) && strncmp(weight_name(g, i), "head.", 5) != 0 &&
		         strstr(weight_name(g, i), "transition") == NULL;
	for (int i = 0; i < n; i++)
		wrong += !is_conv(g, op[i]) || !dfx_scale_name(g, op[i], scale) || !dfx_tensor_is_scale(scale) ||
		         dfx_scale_owner(g, scale) != &g->op[op[i]] || strncmp(scale, "head.", 5) == 0 ||
		         strstr(scale, "transition") != NULL;
	ok(wrong == 0 && n == (covered ? convs - branches : 0), "%s, %d branch(es): %d of %d convolutions", name,
	   branches, n, convs);
	free(op);
	dfx_graph_free(g);
}

/* Who writes and reads values in steps, when all convolutions are calibrated but number left. */
static void
check_steps(const char *name, int left)
{
	DfxGraph *g = optimised(tiny(name), 1);
	int *op = calloc((size_t) g->nop, sizeof *op), n = dfx_graph_quantizable(g, op), ints = 0, wrong = 0;
	float *step = calloc((size_t) g->nval, sizeof *step);

	for (int i = 0; i < n; i++)
		g->op[op[i]].in_step = i == left ? 0 : 0.5f;
	dfx_graph_steps(g, step);
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *o = &g->op[i];

		for (int j = 0; j < o->nin; j++)
			wrong += step[o->in[j]] > 0 && (o->kind != DFX_OP_CONV || o->in_step == 0);
		wrong += o->epi_add >= 0 && step[o->epi_add] > 0 && (o->kind != DFX_OP_CONV || o->in_step == 0);
		wrong += step[o->out] > 0 && o->kind == DFX_OP_CONV && step[o->in[0]] == 0;
		ints += is_conv(g, i) && step[o->in[0]] > 0;
	}
	for (int i = 0; i < g->nout; i++)
		wrong += step[g->out[i]] > 0;
	ok(wrong == 0 && (left < 0 ? ints == n : ints > 0 && ints < n),
	   "%s, %s: %d of %d convolutions on integers", name, left < 0 ? "calibrated" : "all calibrated but one",
	   ints, n);
	free(op);
	free(step);
	dfx_graph_free(g);
}

static void
check_weights(void)
{
	static const float w[] = {-2, 1, 0.5f, 0, 0, 0, 127, 63.5f, -126.5f};
	static const int8_t want[] = {-127, 64, 32, 0, 0, 0, 127, 64, -126};
	int8_t q[9];
	float step[3];

	dfx_quantize_weights(w, 3, 3, q, step);
	ok(memcmp(q, want, sizeof want) == 0 && fabsf(step[0] - 2.0f / 127) < 1e-9f && step[1] > 0 &&
	       step[2] == 1,
	   "weights: rows by their own steps, halves to even, zeroes too");
}

/* A reduced ResNet given its own parameters and one more tensor. */
static void
check_tensor(const char *name, DfxTensor extra, float value, const char *complaint)
{
	const DfxBackbone *b = tiny("tiny_resnet");
	DfxGraph *source = dfx_graph_new(), *g = dfx_graph_new();
	DfxErr err = {0};
	DfxTensor *t;
	size_t n;
	DfxStatus st;
	const DfxOp *owner;

	if (dfx_build_backbone(source, b, 4, &err) != DFX_OK || dfx_build_backbone(g, b, 4, &err) != DFX_OK ||
	    dfx_weights_random(source, 1, &err) != DFX_OK || dfx_graph_tensors(source, &t, &err) != DFX_OK)
		abort();
	n = (size_t) source->nparam;
	snprintf(extra.name, sizeof extra.name, "%s", name);
	extra.data = &value;
	t[n++] = extra; /* calloc'd with room for one more */
	qsort(t, n, sizeof *t, dfx_tensor_compare);
	st = dfx_weights_set(g, t, n, &err);
	owner = dfx_scale_owner(g, name);
	if (complaint == NULL)
		ok(st == DFX_OK && owner != NULL && owner->in_step == value && dfx_graph_calibrated(g), "%s is taken",
		   name);
	else if (!ok(st == DFX_EWEIGHTS && strstr(err.msg, complaint) && strstr(err.msg, name) &&
	                 !dfx_graph_calibrated(g),
	             "%s, rank %d, %s, %g: %s", name, (int) extra.rank, dfx_dtype_name(extra.dtype),
	             (double) value, complaint))
		diag("%s", err.msg);
	free(t);
	dfx_graph_free(source);
	dfx_graph_free(g);
}

int
main(void)
{
	static const char own[] = "layer1.0.conv1.input_scale";
	const DfxTensor scalar = {.dtype = DFX_F32, .nbytes = 4},
	                list = {.dtype = DFX_F32, .rank = 1, .dim = {1}, .nbytes = 4},
	                half = {.dtype = DFX_F16, .nbytes = 2};

	check_choice("tiny_densenet", 1, true);
	check_choice("tiny_densenet_odd", 3, true);
	check_choice("tiny_resnet", 3, true);
	check_choice("tiny_resnet_deep", 1, true);
	check_choice("tiny_resnext", 1, false);
	check_choice("tiny_efficientnet", 1, false);
	check_choice("tiny_vit", 1, false);
	check_steps("tiny_densenet", -1);
	check_steps("tiny_densenet", 3);
	check_steps("tiny_resnet", -1);
	check_steps("tiny_resnet_deep", -1);
	check_steps("tiny_resnet_deep", 4);
	check_weights();
	check_tensor(own, scalar, 0.25f, NULL);
	check_tensor(own, scalar, 0, "misshapen");
	check_tensor(own, scalar, -1, "misshapen");
	check_tensor(own, scalar, NAN, "misshapen");
	check_tensor(own, scalar, INFINITY, "misshapen");
	check_tensor(own, list, 0.25f, "misshapen");
	check_tensor(own, half, 0.25f, "misshapen");
	check_tensor("layer9.input_scale", scalar, 0.25f, "unexpected");
	check_tensor("fc.input_scale", scalar, 0.25f, "unexpected");
	return done_testing();
}
