/*
 * test_graph.c
 *	  Are tables complete, and are networks that cannot be built refused, saying
 *	  where and why?
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn/backend.h"
#include "tests/unit/tap.h"
#include "tests/unit/tiny_nets.h"

/* ---- the tri-branch net ---- */

static void
check_outputs(void)
{
	for (int i = 0; i < TINY_NETS; i++)
		for (int stride = 1; stride <= 2; stride++)
		{
			DfxGraph *g = dfx_graph_new();
			DfxErr err = {0};
			int d = tiny_nets[i].features;

			ok(dfx_build_trinet(g, &tiny_nets[i], stride, &err) == DFX_OK && g->nout == 2 &&
			       strcmp(g->out_name[0], "features") == 0 && strcmp(g->out_name[1], "logits") == 0 &&
			       g->val[g->out[0]].c == 3 && g->val[g->out[0]].h == 1 && g->val[g->out[0]].w == d &&
			       g->val[g->out[1]].c == 3,
			   "%s with three branches, stride %d: 3 x %d features, 3 logits", tiny_nets[i].name, stride, d);
			dfx_graph_free(g);
		}
}

/* ---- what must be refused ---- */

static DfxVal
wrong_kernel(DfxGraph *g, DfxVal x)
{
	dfx_push(g, "layer%d", 2);
	return dfx_conv(g, x, "conv1", 4, DFX_CONV2D(9, 1, 0), false);
}

static DfxVal
wrong_groups(DfxGraph *g, DfxVal x)
{
	return dfx_conv(g, x, "c", 4, (DfxConv){.kh = 1, .kw = 1, .groups = 3}, false);
}

static DfxVal
wrong_stride(DfxGraph *g, DfxVal x)
{
	return dfx_conv(g, x, "c", 4, DFX_CONV2D(1, -1, 0), false);
}

static DfxVal
wrong_padding(DfxGraph *g, DfxVal x)
{
	return dfx_conv(g, x, "c", 4, DFX_CONV2D(1, 1, 1 << 30), false);
}

static DfxVal
wrong_outputs(DfxGraph *g, DfxVal x)
{
	return dfx_conv(g, x, "c", 0, DFX_CONV2D(1, 1, 0), false);
}

static DfxVal
wrong_size(DfxGraph *g, DfxVal x)
{
	return dfx_conv(g, x, "c", 1 << 20, DFX_CONV2D(1, 1, 8192), false);
}

static DfxVal
wrong_conv1d(DfxGraph *g, DfxVal x)
{
	return dfx_conv1d(g, x, "c", 4, 3, 1, 1);
}

static DfxVal
wrong_eps(DfxGraph *g, DfxVal x)
{
	return dfx_bn(g, x, "n", NAN);
}

static DfxVal
wrong_add(DfxGraph *g, DfxVal x)
{
	return dfx_add(g, x, dfx_pool(g, x, (DfxPool){.k = 2}));
}

static DfxVal
wrong_mul(DfxGraph *g, DfxVal x)
{
	return dfx_mul(g, dfx_pool(g, x, (DfxPool){0}), x);
}

static DfxVal
wrong_concat(DfxGraph *g, DfxVal x)
{
	return dfx_concat(g, (DfxVal[]){x, dfx_pool(g, x, (DfxPool){.k = 2})}, 2);
}

static DfxVal
wrong_concat_none(DfxGraph *g, DfxVal x)
{
	return dfx_concat(g, &x, 0);
}

static DfxVal
wrong_stack(DfxGraph *g, DfxVal x)
{
	return dfx_stack(g, &x, 1);
}

static DfxVal
wrong_pool(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){.k = 9});
}

static DfxVal
wrong_pool_padding(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){.k = 3, .s = 1, .p = 2});
}

static DfxVal
wrong_pool_average(DfxGraph *g, DfxVal x)
{
	return dfx_pool(g, x, (DfxPool){.k = 3, .s = 1, .p = 1, .avg = true});
}

static DfxVal
wrong_heads(DfxGraph *g, DfxVal x)
{
	return dfx_attn(g, dfx_tokens(g, x, "t", "p"), "a", 3);
}

static DfxVal
wrong_tokens(DfxGraph *g, DfxVal x)
{
	return dfx_attn(g, x, "a", 2);
}

static DfxVal
wrong_take(DfxGraph *g, DfxVal x)
{
	return dfx_take(g, dfx_tokens(g, x, "t", "p"), 37);
}

static DfxVal
wrong_drop(DfxGraph *g, DfxVal x)
{
	return dfx_drop(g, x, 1);
}

static DfxVal
wrong_value(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x + 1, DFX_ACT_RELU);
}

static DfxVal
wrong_act(DfxGraph *g, DfxVal x)
{
	return dfx_act(g, x, DFX_ACT_COUNT);
}

static DfxVal
wrong_name(DfxGraph *g, DfxVal x)
{
	return dfx_bn(g, dfx_bn(g, x, "n", 0), "n", 0);
}

static DfxVal
wrong_long_name(DfxGraph *g, DfxVal x)
{
	char name[140];

	memset(name, 'a', sizeof name);
	name[sizeof name - 1] = '\0';
	return dfx_linear(g, x, name, 2);
}

static DfxVal
wrong_scope(DfxGraph *g, DfxVal x)
{
	for (int i = 0; i < 40; i++)
		dfx_push(g, "deeper");
	dfx_pop(g, 0);
	return x;
}

static DfxVal
wrong_unpopped(DfxGraph *g, DfxVal x)
{
	dfx_push(g, "forgotten");
	return x;
}

static DfxVal
wrong_pop(DfxGraph *g, DfxVal x)
{
	dfx_pop(g, 3);
	return x;
}

static DfxVal
wrong_inputs(DfxGraph *g, DfxVal x)
{
	dfx_input_f32(g, 1, 1, 1);
	return x;
}

static DfxVal
wrong_output_twice(DfxGraph *g, DfxVal x)
{
	dfx_output(g, x, "y");
	return x;
}

static DfxVal
wrong_outputs_many(DfxGraph *g, DfxVal x)
{
	for (int i = 0; i < DFX_MAX_OUT; i++)
		dfx_output(g, x, (char[]){(char) ('a' + i), 0});
	return x;
}

static DfxVal
wrong_output_name(DfxGraph *g, DfxVal x)
{
	dfx_output(g, x, "much too long a name");
	return x;
}

static const struct
{
	DfxVal (*build)(DfxGraph *g, DfxVal x);
	DfxStatus status;
	const char *words;
} wrong[] = {
    {wrong_kernel, DFX_EINVAL,
     "layer2.conv1: an input of 6x6 with padding 0x0 is smaller than the 9x9 kernel"},
    {wrong_groups, DFX_EINVAL, "c: 3 groups do not divide 4 inputs and 4 outputs"},
    {wrong_stride, DFX_EINVAL, "stride -1x-1"},
    {wrong_padding, DFX_EINVAL, "padding 1073741824x1073741824"},
    {wrong_outputs, DFX_EINVAL, "0 outputs"},
    {wrong_size, DFX_ELIMIT, "too large"},
    {wrong_conv1d, DFX_EINVAL, "needs C x 1 x L, not 4 x 6 x 6"},
    {wrong_eps, DFX_EINVAL, "n: epsilon nan"},
    {wrong_add, DFX_EINVAL, "add: shapes 4 x 6 x 6 and 4 x 3 x 3"},
    {wrong_mul, DFX_EINVAL, "mul: shapes 4 x 1 x 1 and 4 x 6 x 6"},
    {wrong_concat, DFX_EINVAL, "part 1 is 3x3, the first is 6x6"},
    {wrong_concat_none, DFX_EINVAL, "nothing to concatenate"},
    {wrong_stack, DFX_EINVAL, "part 0 is 4 x 6 x 6, not 4 x 1 x 1"},
    {wrong_pool, DFX_EINVAL, "would be empty"},
    {wrong_pool_padding, DFX_EINVAL, "padding 2 are no max pool"},
    {wrong_pool_average, DFX_EINVAL, "padding 1 are no average pool"},
    {wrong_heads, DFX_EINVAL, "3 heads do not divide 4 channels"},
    {wrong_tokens, DFX_EINVAL, "needs tokens"},
    {wrong_take, DFX_EINVAL, "no token 37"},
    {wrong_drop, DFX_EINVAL, "probability 1"},
    {wrong_value, DFX_EINVAL, "no value 1"},
    {wrong_act, DFX_EINVAL, "no activation"},
    {wrong_name, DFX_EINVAL, "n.bias: two parameters have this name"},
    {wrong_long_name, DFX_ELIMIT, "1 to 127 bytes"},
    {wrong_scope, DFX_ELIMIT, "a scope below this one would be"},
    {wrong_unpopped, DFX_EINTERNAL, "forgotten: this scope was never popped"},
    {wrong_pop, DFX_EINTERNAL, "scope mark 3"},
    {wrong_inputs, DFX_EINVAL, "has an input already"},
    {wrong_output_twice, DFX_EINVAL, "y: there is an output of this name already"},
    {wrong_outputs_many, DFX_ELIMIT, "at most 5 outputs"},
    {wrong_output_name, DFX_ELIMIT, "1 to 15 bytes"},
};

static void
check_wrong(void)
{
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
	{
		DfxGraph *g = dfx_graph_new();
		DfxErr err = {0};
		DfxVal x = wrong[i].build(g, dfx_input_f32(g, 4, 6, 6));
		DfxStatus st;

		/* What comes after a failure must neither crash nor replace the message. */
		if (g->err.code != DFX_OK)
			x = dfx_attn(g, dfx_conv(g, x, "later", -1, DFX_CONV2D(0, 0, 0), true), "later", 0);
		dfx_output(g, x, "y");
		st = dfx_graph_finish(g, &err);
		if (!ok(st == wrong[i].status && strstr(err.msg, wrong[i].words), "refused: %s", wrong[i].words))
			diag("%d: %s", st, err.msg);
		dfx_graph_free(g);
	}
}

static void
check_empty(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};

	ok(dfx_graph_finish(g, &err) == DFX_EINVAL && strstr(err.msg, "no input"), "a graph needs an input");
	dfx_graph_free(g);
	g = dfx_graph_new();
	dfx_input_f32(g, 1, 1, 1);
	ok(dfx_graph_finish(g, NULL) == DFX_EINVAL && strstr(g->err.msg, "no output"), "a graph needs an output");
	dfx_graph_free(g);
	g = dfx_graph_new();
	ok(dfx_build_trinet(g, &tiny_nets[0], 4, &err) == DFX_EINVAL && strstr(err.msg, "stride 4"),
	   "a head stride of 4 is refused");
	dfx_graph_free(g);
	ok(dfx_backbone_find("densenet") == NULL, "a family is no backbone");
}

/* Growth: nothing of a graph has a fixed capacity. */
static void
check_long(void)
{
	enum
	{
		N = 20000
	};
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_input_f32(g, 2, 3, 3);
	DfxVal *piece = malloc(N * sizeof *piece);
	DfxErr err = {0};

	for (int i = 0; i < N; i++)
	{
		int mark = dfx_push(g, "%d", i);

		piece[i] = x = dfx_bn(g, x, "n", 1e-5f);
		dfx_pop(g, mark);
	}
	dfx_output(g, dfx_concat(g, piece, N), "y");
	ok(dfx_graph_finish(g, &err) == DFX_OK && g->nop == N + 2 && g->nparam == 4 * N &&
	       g->val[g->out[0]].c == 2 * N && g->val[piece[0]].last_use == N + 1 &&
	       strcmp(g->param[4 * N - 1].name, "19999.n.running_var") == 0,
	   "a chain of %d layers and a concat of all of them", N);
	free(piece);
	dfx_graph_free(g);
}

static void
check_tables(void)
{
	bool named = true;

	for (int i = 0; i < DFX_OP_COUNT; i++)
		named = named && dfx_op_info[i].name && *dfx_op_info[i].name;
	ok(named && strcmp(dfx_op_info[DFX_OP_DROP].name, "drop") == 0, "every op kind has a name");
	named = true;
	for (int i = 0; i < DFX_PRECISION_COUNT; i++)
		named = named && dfx_precision_name[i];
	ok(named && strcmp(dfx_precision_name[DFX_PRECISION_BF16], "bf16") == 0, "every precision has a name");
}

int
main(void)
{
	check_tables();
	check_outputs();
	check_wrong();
	check_empty();
	check_long();
	return done_testing();
}
