/*
 * train_tokens.c
 *	  The steps of what only transformers have: LAYERNORM, TOKENS, TAKE, ATTN.
 */
#include "cuda/train.h"

void
gpu_train_layernorm(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_forward_step(b, GPU_LAYERNORM, i);

	s->args.layernorm = (GpuLayernormArgs){.x = gpu_train_at(b, op->in[0]),
	                                       .y = gpu_train_at(b, op->out),
	                                       .rows = gpu_train_rows(b, op->out),
	                                       .c = b->val[op->out].c,
	                                       .ldx = gpu_train_ld(b, op->in[0]),
	                                       .ldy = gpu_train_ld(b, op->out),
	                                       .weight = gpu_train_op_param(b, DFX_STATE_VALUE, op, DFX_W),
	                                       .bias = gpu_train_op_param(b, DFX_STATE_VALUE, op, DFX_B),
	                                       .eps = op->u.eps};
}

/* Each row's statistics stay, for the sums over rows, where nobody else writes. */
void
gpu_train_layernorm_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	size_t rows = (size_t) b->max_batch * (size_t) gpu_train_rows(b, op->out);
	float *stats = gpu_train_stats(b, 2 * rows);
	bool add = gpu_train_adds(b, op->in[0], i);
	GpuTrainStep *s = gpu_train_backward_step(b, GPU_LAYERNORM_GRAD, i);
	GpuNormArgs a = gpu_train_norm(b, op, stats);

	a.inv = stats + rows;
	a.by_row = true;
	a.dy = gpu_train_grad_at(b, op->out);
	a.lddy = gpu_train_ld(b, op->out);
	s->args.layernorm_grad = (GpuLayernormGradArgs){.x = a.x,
	                                                .dy = a.dy,
	                                                .dx = gpu_train_grad_at(b, op->in[0]),
	                                                .rows = a.rows,
	                                                .c = a.c,
	                                                .ldx = a.ldx,
	                                                .lddy = a.lddy,
	                                                .lddx = gpu_train_ld(b, op->in[0]),
	                                                .weight = a.weight,
	                                                .eps = a.eps,
	                                                .mean = a.mean,
	                                                .inv = a.inv,
	                                                .add = add};
	gpu_train_sum_steps(b, a, GPU_SUM_PART, GPU_SUM, &b->t->backward, i, TRAIN_LEARN);
}

void
gpu_train_tokens(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_forward_step(b, GPU_TOKENS, i);

	s->args.tokens = (GpuTokensArgs){.x = gpu_train_at(b, op->in[0]),
	                                 .y = gpu_train_at(b, op->out),
	                                 .tokens = gpu_train_rows(b, op->out),
	                                 .c = b->val[op->out].c,
	                                 .ldx = gpu_train_ld(b, op->in[0]),
	                                 .ldy = gpu_train_ld(b, op->out),
	                                 .cls = gpu_train_op_param(b, DFX_STATE_VALUE, op, DFX_W),
	                                 .pos = gpu_train_op_param(b, DFX_STATE_VALUE, op, DFX_B)};
}

void
gpu_train_tokens_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_backward_step(b, GPU_POS_GRAD, i);

	s->args.pos_grad = (GpuPosGradArgs){.dy = gpu_train_grad_at(b, op->out),
	                                    .dpos = gpu_train_op_param(b, DFX_STATE_GRAD, op, DFX_B),
	                                    .dcls = gpu_train_op_param(b, DFX_STATE_GRAD, op, DFX_W),
	                                    .tokens = gpu_train_rows(b, op->out),
	                                    .c = b->val[op->out].c,
	                                    .lddy = gpu_train_ld(b, op->out)};
	s = gpu_train_pass(b, i, op->in[0], 0, gpu_train_adds(b, op->in[0], i));
	s->args.pass.rows = gpu_train_rows(b, op->in[0]);
	s->args.pass.dy_first = 1;
}

void
gpu_train_take(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_map(b, i, op->in[0], b->val[op->out].c, 0, DFX_ACT_NONE);

	s->args.map.step = gpu_train_rows(b, op->in[0]);
	s->args.map.first = op->u.index;
}

void
gpu_train_take_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_pass(b, i, op->in[0], 0, gpu_train_adds_partly(b, op->in[0], i));

	s->args.pass.dx_first = op->u.index;
}

void
gpu_train_attn(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	GpuTrainStep *s = gpu_train_forward_step(b, GPU_ATTN, i);

	s->args.attn = (GpuAttnArgs){.x = gpu_train_at(b, op->in[0]),
	                             .y = gpu_train_at(b, op->out),
	                             .tokens = gpu_train_rows(b, op->out),
	                             .c = b->val[op->out].c,
	                             .heads = op->u.heads,
	                             .ldx = gpu_train_ld(b, op->in[0]),
	                             .ldy = gpu_train_ld(b, op->out)};
}

void
gpu_train_attn_back(GpuTrainBuild *b, int i)
{
	const DfxOp *op = &b->op[i];
	size_t queries = (size_t) b->max_batch * (size_t) op->u.heads * (size_t) gpu_train_rows(b, op->out);
	GpuAttnGradArgs a = {.x = gpu_train_at(b, op->in[0]),
	                     .dy = gpu_train_grad_at(b, op->out),
	                     .dx = gpu_train_grad_at(b, op->in[0]),
	                     .tokens = gpu_train_rows(b, op->out),
	                     .c = b->val[op->out].c,
	                     .heads = op->u.heads,
	                     .ldx = gpu_train_ld(b, op->in[0]),
	                     .lddy = gpu_train_ld(b, op->out),
	                     .lddx = gpu_train_ld(b, op->in[0]),
	                     .stat = gpu_train_scratch(b, queries * 2 * sizeof(float)),
	                     .add = gpu_train_adds(b, op->in[0], i)};

	gpu_train_backward_step(b, GPU_ATTN_GRAD_Q, i)->args.attn_grad = a;
	gpu_train_backward_step(b, GPU_ATTN_GRAD_KV, i)->args.attn_grad = a;
}
