/*
 * train_lower.c
 *	  The steps of every op: forward, in the graph's order, and backward, in
 *	  reverse.  An op's two halves stand side by side.
 */
#include <string.h>

#include "cuda/train.h"

#define LOWER_CHUNKS 2048 /* of a sum over rows, at most */
#define LOWER_CHUNK  32   /* rows of a chunk, at least */

static char *
lower_channel(const GpuTrainBuild *b, void *p, int c)
{
	return (char *) p + (size_t) c * gpu_type_size(b->type);
}

GpuTrainStep *
gpu_train_forward_step(GpuTrainBuild *b, GpuKernel kernel, int i)
{
	return gpu_train_step(b, &b->t->forward, kernel, i);
}

GpuTrainStep *
gpu_train_backward_step(GpuTrainBuild *b, GpuKernel kernel, int i)
{
	return gpu_train_step(b, &b->t->backward, kernel, i);
}

float *
gpu_train_op_param(const GpuTrainBuild *b, DfxState what, const DfxOp *op, int which)
{
	return op->param[which] >= 0 ? gpu_train_param(b->t, what, op->param[which]) : NULL;
}

/* y's channels from c0 on are act(x), of c channels. */
GpuTrainStep *
gpu_train_map(GpuTrainBuild *b, int i, DfxVal x, int c, int c0, DfxAct act)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_forward_step(b, GPU_MAP, i);

	s->args.map = (GpuMapArgs){.x = gpu_train_at(b, x),
	                           .y = lower_channel(b, gpu_train_at(b, op->out), c0),
	                           .rows = gpu_train_rows(b, op->out),
	                           .step = 1,
	                           .c = c,
	                           .ldx = gpu_train_ld(b, x),
	                           .ldy = gpu_train_ld(b, op->out),
	                           .act = (GpuAct) act};
	return s;
}

/* x's gradient gets that of y's channels from c0 on. */
GpuTrainStep *
gpu_train_pass(GpuTrainBuild *b, int i, DfxVal x, int c0, bool add)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_backward_step(b, GPU_PASS, i);

	s->args.pass = (GpuPassArgs){.dy = lower_channel(b, gpu_train_grad_at(b, op->out), c0),
	                             .dx = gpu_train_grad_at(b, x),
	                             .rows = gpu_train_rows(b, op->out),
	                             .c = b->val[x].c,
	                             .lddy = gpu_train_ld(b, op->out),
	                             .lddx = gpu_train_ld(b, x),
	                             .dy_rows = gpu_train_rows(b, op->out),
	                             .dx_rows = gpu_train_rows(b, x),
	                             .add = add};
	return s;
}

/* ---- INPUT and the outputs ---- */

static void
lower_input(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	const DfxValue *v = &b->val[op->out];
	GpuTrainStep *s = gpu_train_forward_step(b, GPU_INPUT, i);
	bool padded = v->root == op->out && !b->shared[op->out];
	GpuInputArgs *a = &s->args.input;

	*a = (GpuInputArgs){.src = b->t->io.p,
	                    .dst = gpu_train_at(b, op->out),
	                    .pixels = gpu_train_rows(b, op->out),
	                    .c = v->c,
	                    .ld = gpu_train_ld(b, op->out),
	                    .width = padded ? gpu_train_ld(b, op->out) : v->c,
	                    .rgb8 = op->u.input.rgb8};
	for (int k = 0; k < 3; k++)
	{
		a->mean[k] = op->u.input.mean[k];
		a->std[k] = op->u.input.std[k];
	}
}

static void
lower_to_floats(GpuTrainBuild *b, GpuTrainStep *s, DfxVal v, const void *from, GpuTrainIo io, int which)
{
	s->io = io;
	s->which = which;
	s->args.output = (GpuOutputArgs){
	    .x = from, .pixels = gpu_train_rows(b, v), .c = b->val[v].c, .ldx = gpu_train_ld(b, v)};
}

static void
lower_seed(GpuTrainBuild *b, int which)
{
	DfxVal v = b->g.out[which];
	bool add = gpu_train_adds(b, v, b->g.nop);
	GpuTrainStep *s = gpu_train_backward_step(b, GPU_SEED, b->g.nop);

	s->io = TRAIN_SEED;
	s->which = which;
	s->args.seed = (GpuSeedArgs){.dx = gpu_train_grad_at(b, v),
	                             .pixels = gpu_train_rows(b, v),
	                             .c = b->val[v].c,
	                             .lddx = gpu_train_ld(b, v),
	                             .add = add};
}

/* ---- norms ---- */

void
gpu_train_sum_steps(GpuTrainBuild *b, GpuNormArgs a, GpuKernel part, GpuKernel end, GpuTrainList *list,
                    int op, unsigned when)
{
	size_t rows = (size_t) b->max_batch * (size_t) a.rows;
	size_t chunk = (rows + LOWER_CHUNKS - 1) / LOWER_CHUNKS, chunks;
	GpuTrainStep *s;

	chunk = chunk < LOWER_CHUNK ? LOWER_CHUNK : chunk;
	chunks = (rows + chunk - 1) / chunk;
	a.chunk = (int) chunk;
	a.part = gpu_train_scratch(b, chunks * (size_t) a.c * 2 * sizeof(float));
	s = gpu_train_step(b, list, part, op);
	s->args.norm = a;
	s->when = when;
	s = gpu_train_step(b, list, end, op);
	s->args.norm = a;
	s->when = when;
}

GpuNormArgs
gpu_train_norm(const GpuTrainBuild *b, const DfxOp *op, float *stats)
{
	DfxVal x = op->in[0];
	int c = b->val[x].c;

	return (GpuNormArgs){.x = gpu_train_at(b, x),
	                     .rows = gpu_train_rows(b, x),
	                     .c = c,
	                     .ldx = gpu_train_ld(b, x),
	                     .act = (GpuAct) op->epi_act,
	                     .eps = op->u.eps,
	                     .weight = gpu_train_op_param(b, DFX_STATE_VALUE, op, DFX_W),
	                     .bias = gpu_train_op_param(b, DFX_STATE_VALUE, op, DFX_B),
	                     .mean = stats,
	                     .inv = stats + c,
	                     .run_mean = gpu_train_op_param(b, DFX_STATE_VALUE, op, DFX_MEAN),
	                     .run_var = gpu_train_op_param(b, DFX_STATE_VALUE, op, DFX_VAR),
	                     .dweight = gpu_train_op_param(b, DFX_STATE_GRAD, op, DFX_W),
	                     .dbias = gpu_train_op_param(b, DFX_STATE_GRAD, op, DFX_B)};
}

/* Forward and backward read the same statistics: backward finds them in the record of forward's last step. */
static void
lower_bn(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuNormArgs a = gpu_train_norm(b, op, gpu_train_stats(b, 2 * (size_t) b->val[op->in[0]].c));
	GpuTrainStep *s;

	gpu_train_sum_steps(b, a, GPU_BN_PART, GPU_BN_STATS, &b->t->forward, i, TRAIN_LEARN);
	s = gpu_train_forward_step(b, GPU_BN_STATS, i);
	s->args.norm = a;
	s->args.norm.eval = true;
	s->when = TRAIN_INFER;
	a.y = gpu_train_at(b, op->out);
	a.ldy = gpu_train_ld(b, op->out);
	s = gpu_train_forward_step(b, GPU_BN_MAP, i);
	s->args.norm = a;
	if (b->t->norm_rows == 0 || a.rows < b->t->norm_rows)
	{
		b->t->norm_rows = a.rows;
		memcpy(b->t->norm_name, b->g.param[op->param[DFX_W]].name, sizeof b->t->norm_name);
	}
}

static const GpuNormArgs *
lower_find_norm(const GpuTrainBuild *b, int i)
{
	const GpuTrainStep *s = b->t->forward.step;

	while (s->op != i || s->kernel != GPU_BN_MAP)
		s++;
	return &s->args.norm;
}

static void
lower_bn_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuNormArgs a = *lower_find_norm(b, i);
	GpuTrainStep *s;

	a.dy = gpu_train_grad_at(b, op->out);
	a.lddy = gpu_train_ld(b, op->out);
	gpu_train_sum_steps(b, a, GPU_SUM_PART, GPU_SUM, &b->t->backward, i, TRAIN_LEARN);
	a.y = gpu_train_grad_at(b, op->in[0]);
	a.ldy = gpu_train_ld(b, op->in[0]);
	a.add = gpu_train_adds(b, op->in[0], i);
	s = gpu_train_backward_step(b, GPU_BN_GRAD, i);
	s->args.norm = a;
}

/* ---- ACT, DROP ---- */

static void
lower_act(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];

	gpu_train_map(b, i, op->in[0], b->val[op->out].c, 0, op->u.act);
}

static void
lower_act_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	DfxVal from = op->u.act == DFX_ACT_RELU ? op->out : op->in[0];
	GpuTrainStep *s = gpu_train_pass(b, i, op->in[0], 0, gpu_train_adds(b, op->in[0], i));

	s->args.pass.act = (GpuAct) op->u.act;
	s->args.pass.x = gpu_train_at(b, from);
	s->args.pass.ldx = gpu_train_ld(b, from);
}

/* From one to the other through the mask. */
static void
lower_mask(const GpuTrainBuild *b, GpuTrainStep *s, const void *x, DfxVal from, void *y, DfxVal to, bool add)
{
	const DfxOp *op = &b->op[s->op];

	s->when = TRAIN_LEARN;
	s->args.drop = (GpuDropArgs){.x = x,
	                             .y = y,
	                             .rows = gpu_train_rows(b, from),
	                             .c = b->val[from].c,
	                             .ldx = gpu_train_ld(b, from),
	                             .ldy = gpu_train_ld(b, to),
	                             .op = s->op,
	                             .p = op->u.drop.p,
	                             .whole = op->u.drop.whole,
	                             .add = add};
}

static void
lower_drop(GpuTrainBuild *b, int i)
{
	DfxVal x = b->op[i].in[0], y = b->op[i].out;

	lower_mask(b, gpu_train_forward_step(b, GPU_DROP, i), gpu_train_at(b, x), x, gpu_train_at(b, y), y,
	           false);
	gpu_train_map(b, i, x, b->val[y].c, 0, DFX_ACT_NONE)->when = TRAIN_INFER;
}

static void
lower_drop_back(GpuTrainBuild *b, int i)
{
	DfxVal x = b->op[i].in[0], y = b->op[i].out;
	bool add = gpu_train_adds(b, x, i);

	lower_mask(b, gpu_train_backward_step(b, GPU_DROP, i), gpu_train_grad_at(b, y), y,
	           gpu_train_grad_at(b, x), x, add);
}

/* ---- ADD, MUL, CONCAT, STACK ---- */

static bool
lower_is_gate(const GpuTrainBuild *b, const DfxOp *op)
{
	return gpu_train_rows(b, op->in[1]) != gpu_train_rows(b, op->out);
}

static void
lower_binary(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_forward_step(b, GPU_BINARY, i);

	s->args.binary = (GpuBinaryArgs){.a = gpu_train_at(b, op->in[0]),
	                                 .b = gpu_train_at(b, op->in[1]),
	                                 .y = gpu_train_at(b, op->out),
	                                 .rows = gpu_train_rows(b, op->out),
	                                 .c = b->val[op->out].c,
	                                 .lda = gpu_train_ld(b, op->in[0]),
	                                 .ldb = gpu_train_ld(b, op->in[1]),
	                                 .ldy = gpu_train_ld(b, op->out),
	                                 .mul = op->kind == DFX_OP_MUL,
	                                 .gate = lower_is_gate(b, op)};
}

static void
lower_add_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];

	for (int j = 0; j < op->nin; j++)
		gpu_train_pass(b, i, op->in[j], 0, gpu_train_adds(b, op->in[j], i));
}

/* The gradient by factor x, which is dy times the other one. */
static void
lower_factor_back(GpuTrainBuild *b, int i, DfxVal x, DfxVal other)
{
	const DfxOp *op = &b->op[i];
	bool add = gpu_train_adds(b, x, i);
	GpuTrainStep *s = gpu_train_backward_step(b, GPU_MUL_GRAD, i);

	s->args.mul_grad = (GpuMulGradArgs){.dy = gpu_train_grad_at(b, op->out),
	                                    .b = gpu_train_at(b, other),
	                                    .da = gpu_train_grad_at(b, x),
	                                    .rows = gpu_train_rows(b, op->out),
	                                    .c = b->val[x].c,
	                                    .lddy = gpu_train_ld(b, op->out),
	                                    .ldb = gpu_train_ld(b, other),
	                                    .ldda = gpu_train_ld(b, x),
	                                    .gate = gpu_train_rows(b, other) != gpu_train_rows(b, x),
	                                    .add = add};
}

static void
lower_mul_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	DfxVal x = op->in[0], gate = op->in[1];
	GpuTrainStep *s;
	bool add;

	lower_factor_back(b, i, x, gate);
	if (!lower_is_gate(b, op))
	{
		lower_factor_back(b, i, gate, x);
		return;
	}
	add = gpu_train_adds(b, gate, i);
	s = gpu_train_backward_step(b, GPU_GATE_GRAD, i);
	s->args.gate_grad = (GpuGateGradArgs){.dy = gpu_train_grad_at(b, op->out),
	                                      .a = gpu_train_at(b, x),
	                                      .db = gpu_train_grad_at(b, gate),
	                                      .rows = gpu_train_rows(b, op->out),
	                                      .c = b->val[x].c,
	                                      .lddy = gpu_train_ld(b, op->out),
	                                      .lda = gpu_train_ld(b, x),
	                                      .lddb = gpu_train_ld(b, gate),
	                                      .add = add};
}

/* Where the pieces lie in the whole there is nothing to do, neither forward nor backward. */
static void
lower_concat(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	int c0 = 0;

	for (int j = 0; j < op->nin && !op->placed; j++)
	{
		gpu_train_map(b, i, op->in[j], b->val[op->in[j]].c, c0, DFX_ACT_NONE);
		c0 += b->val[op->in[j]].c;
	}
}

static void
lower_concat_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	int c0 = 0;

	for (int j = 0; j < op->nin && !op->placed; j++)
	{
		gpu_train_pass(b, i, op->in[j], c0, gpu_train_adds(b, op->in[j], i));
		c0 += b->val[op->in[j]].c;
	}
}

static GpuStackArgs
lower_stack_args(const GpuTrainBuild *b, DfxVal x, DfxVal y, int channel)
{
	return (GpuStackArgs){
	    .c = b->val[x].c, .ldx = gpu_train_ld(b, x), .ldy = gpu_train_ld(b, y), .channel = channel};
}

static void
lower_stack(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];

	for (int j = 0; j < op->nin; j++)
	{
		GpuTrainStep *s = gpu_train_forward_step(b, GPU_STACK, i);

		s->args.stack = lower_stack_args(b, op->in[j], op->out, j);
		s->args.stack.x = gpu_train_at(b, op->in[j]);
		s->args.stack.y = gpu_train_at(b, op->out);
	}
}

static void
lower_stack_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];

	for (int j = 0; j < op->nin; j++)
	{
		bool add = gpu_train_adds(b, op->in[j], i);
		GpuTrainStep *s = gpu_train_backward_step(b, GPU_UNSTACK, i);
		GpuStackArgs a = lower_stack_args(b, op->in[j], op->out, j);

		a.x = gpu_train_grad_at(b, op->out);
		a.y = gpu_train_grad_at(b, op->in[j]);
		a.ldx = gpu_train_ld(b, op->out);
		a.ldy = gpu_train_ld(b, op->in[j]);
		s->args.unstack = (GpuUnstackArgs){.s = a, .add = add};
	}
}

/* ---- POOL ---- */

static GpuPoolArgs
lower_pool_args(const GpuTrainBuild *b, const DfxOp *op)
{
	GpuPoolArgs a = gpu_pool_shape(op, &b->val[op->in[0]], &b->val[op->out]);

	a.x = gpu_train_at(b, op->in[0]);
	a.y = gpu_train_at(b, op->out);
	a.ldx = gpu_train_ld(b, op->in[0]);
	a.ldy = gpu_train_ld(b, op->out);
	return a;
}

static void
lower_pool(GpuTrainBuild *b, int i)
{
	GpuTrainStep *s = gpu_train_forward_step(b, GPU_POOL, i);

	s->args.pool = lower_pool_args(b, &b->op[i]);
}

static void
lower_pool_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	bool add = gpu_train_adds(b, op->in[0], i);
	GpuTrainStep *s = gpu_train_backward_step(b, GPU_POOL_GRAD, i);

	s->args.pool_grad = (GpuPoolGradArgs){.p = lower_pool_args(b, op),
	                                      .dy = gpu_train_grad_at(b, op->out),
	                                      .dx = gpu_train_grad_at(b, op->in[0]),
	                                      .lddy = gpu_train_ld(b, op->out),
	                                      .lddx = gpu_train_ld(b, op->in[0]),
	                                      .add = add};
}

/* ---- the whole ---- */

typedef struct LowerOp
{
	void (*forward)(GpuTrainBuild *b, int i);
	void (*backward)(GpuTrainBuild *b, int i);
} LowerOp;

static const LowerOp lower_op[DFX_OP_COUNT] = {
    [DFX_OP_INPUT] = {lower_input, NULL},
    [DFX_OP_CONV] = {gpu_train_product_forward, gpu_train_product_backward},
    [DFX_OP_BN] = {lower_bn, lower_bn_back},
    [DFX_OP_LINEAR] = {gpu_train_product_forward, gpu_train_product_backward},
    [DFX_OP_LAYERNORM] = {gpu_train_layernorm, gpu_train_layernorm_back},
    [DFX_OP_ATTN] = {gpu_train_attn, gpu_train_attn_back},
    [DFX_OP_ACT] = {lower_act, lower_act_back},
    [DFX_OP_ADD] = {lower_binary, lower_add_back},
    [DFX_OP_MUL] = {lower_binary, lower_mul_back},
    [DFX_OP_CONCAT] = {lower_concat, lower_concat_back},
    [DFX_OP_STACK] = {lower_stack, lower_stack_back},
    [DFX_OP_POOL] = {lower_pool, lower_pool_back},
    [DFX_OP_TOKENS] = {gpu_train_tokens, gpu_train_tokens_back},
    [DFX_OP_TAKE] = {gpu_train_take, gpu_train_take_back},
    [DFX_OP_DROP] = {lower_drop, lower_drop_back},
};

void
gpu_train_lower(GpuTrainBuild *b)
{
	GpuTrainStep *s;

	for (int i = 0; i < b->g.nop; i++)
		if (!b->dead[i])
			lower_op[b->op[i].kind].forward(b, i);
	for (int i = 0; i < b->g.nout; i++)
		lower_to_floats(b, gpu_train_forward_step(b, GPU_OUTPUT, b->g.nop), b->g.out[i],
		                gpu_train_at(b, b->g.out[i]), TRAIN_OUT, i);

	for (int i = 0; i < b->g.nout; i++)
		lower_seed(b, i);
	for (int i = b->g.nop - 1; i >= 0; i--)
	{
		if (b->dead[i] || !lower_op[b->op[i].kind].backward)
			continue;
		gpu_train_settle(b, b->op[i].out, i);
		lower_op[b->op[i].kind].backward(b, i);
	}
	if (!b->t->input_f32)
		return;
	gpu_train_settle(b, b->g.input, b->g.nop);
	s = gpu_train_backward_step(b, GPU_OUTPUT, b->g.nop);
	lower_to_floats(b, s, b->g.input, gpu_train_grad_at(b, b->g.input), TRAIN_DIN, 0);
}
