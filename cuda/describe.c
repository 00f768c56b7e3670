/*
 * describe.c
 *	  A step as one line of text.
 *
 *	mma 64x64x128(/256) > 64x64x32(/256) k3x3 s1 p1 bias relu
 * is a convolution from 64 x 64 rows of 128 channels, 256 apart, to as many
 * rows of 32; "3x" before it, that three branches do so at once.  Tests compare these lines, and choices are
 *kept under them.
 */
#include <stdarg.h>
#include <stdio.h>

#include "cuda/internal.h"

const char *const gpu_kernel_name[GPU_KERNEL_COUNT] = {
    [GPU_INPUT] = "input",
    [GPU_MAP] = "map",
    [GPU_BINARY] = "binary",
    [GPU_POOL] = "pool",
    [GPU_STACK] = "stack",
    [GPU_TOKENS] = "tokens",
    [GPU_LAYERNORM] = "layernorm",
    [GPU_ATTN] = "attn",
    [GPU_CONV_DIRECT] = "direct",
    [GPU_CONV_TILED] = "tiled",
    [GPU_CONV_MMA] = "mma",
    [GPU_OUTPUT] = "output",
    [GPU_COMPARE] = "compare",

    [GPU_SEED] = "seed",
    [GPU_PASS] = "pass",
    [GPU_BN_PART] = "bn part",
    [GPU_BN_STATS] = "bn stats",
    [GPU_BN_MAP] = "bn map",
    [GPU_SUM_PART] = "sum part",
    [GPU_SUM] = "sum",
    [GPU_BN_GRAD] = "bn grad",
    [GPU_POOL_GRAD] = "pool grad",
    [GPU_MUL_GRAD] = "mul grad",
    [GPU_GATE_GRAD] = "gate grad",
    [GPU_DROP] = "drop",
    [GPU_UNSTACK] = "unstack",
    [GPU_POS_GRAD] = "pos grad",
    [GPU_LAYERNORM_GRAD] = "layernorm grad",
    [GPU_ATTN_GRAD_Q] = "attn grad q",
    [GPU_ATTN_GRAD_KV] = "attn grad kv",
    [GPU_WGRAD_TILED] = "wgrad tiled",
    [GPU_WGRAD_MMA] = "wgrad mma",
    [GPU_WGRAD_DIRECT] = "wgrad direct",
    [GPU_WGRAD_SUM] = "wgrad sum",
    [GPU_LAYOUT] = "layout",
    [GPU_ADAM] = "adam",
};

static const char *const describe_act[] = {"", " relu", " silu", " gelu", " sigmoid"};

typedef struct Describe
{
	char *buf;
	size_t size, used;
} Describe;

__attribute__((format(printf, 2, 3))) static void
describe_add(Describe *d, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = d->used < d->size ? vsnprintf(d->buf + d->used, d->size - d->used, fmt, ap) : 0;
	va_end(ap);
	d->used += n > 0 ? (size_t) n : 0;
}

static bool
describe_aligned(const void *p)
{
	return (uintptr_t) p % 16 == 0;
}

static void
describe_conv(Describe *d, const GpuConvArgs *a)
{
	describe_add(d, " %dx%dx%d(/%d) > %dx%dx%d(/%d) k%dx%d s%d,%d p%d,%d", a->ih, a->iw, a->ci, a->ldx, a->oh,
	             a->ow, a->co, a->ldy, a->kh, a->kw, a->sh, a->sw, a->ph, a->pw);
	if (a->groups != 1)
		describe_add(d, " groups %d", a->groups);
	if (a->uh > 1 || a->uw > 1)
		describe_add(d, " spread %d,%d", a->uh, a->uw);
	if (a->pre_scale)
		describe_add(d, " pre%s", describe_act[a->pre_act]);
	if (a->epi.bias)
		describe_add(d, " bias");
	if (a->epi.add)
		describe_add(d, " add(/%d)", a->epi.ldadd);
	describe_add(d, "%s", describe_act[a->epi.act]);
	if (a->epi.scale)
		describe_add(d, " scale");
	if (!describe_aligned(a->x) || !describe_aligned(a->y) || !describe_aligned(a->epi.add))
		describe_add(d, " unaligned");
}

void
gpu_step_describe(const GpuStep *s, char *buf, size_t size)
{
	Describe d = {.buf = buf, .size = size};
	const GpuArgs *a = &s->args[0];

	if (s->count > 1)
		describe_add(&d, "%dx ", s->count);
	describe_add(&d, "%s", gpu_kernel_name[s->kernel]);
	switch (s->kernel)
	{
		case GPU_INPUT:
			describe_add(&d, " %d of %d to %d(/%d)%s", a->input.pixels, a->input.c, a->input.width,
			             a->input.ld, a->input.rgb8 ? " rgb8" : "");
			break;
		case GPU_MAP:
			describe_add(&d, " %d of %d(/%d) > (/%d)%s%s", a->map.rows, a->map.c, a->map.ldx, a->map.ldy,
			             a->map.scale ? " scale" : "", describe_act[a->map.act]);
			if (a->map.step != 1)
				describe_add(&d, " row %d of %d", a->map.first, a->map.step);
			break;
		case GPU_BINARY:
			describe_add(&d, " %d of %d(/%d) %s (/%d)%s > (/%d)%s", a->binary.rows, a->binary.c,
			             a->binary.lda, a->binary.mul ? "*" : "+", a->binary.ldb,
			             a->binary.gate ? " gate" : "", a->binary.ldy, describe_act[a->binary.act]);
			break;
		case GPU_POOL:
			describe_add(&d, " %dx%dx%d(/%d) > %dx%d(/%d) k%dx%d s%d p%d %s", a->pool.ih, a->pool.iw,
			             a->pool.c, a->pool.ldx, a->pool.oh, a->pool.ow, a->pool.ldy, a->pool.kh, a->pool.kw,
			             a->pool.s, a->pool.p, a->pool.avg ? "average" : "max");
			break;
		case GPU_STACK:
			describe_add(&d, " %d to %d(/%d)", a->stack.c, a->stack.channel, a->stack.ldy);
			break;
		case GPU_TOKENS:
			describe_add(&d, " %d of %d(/%d) > (/%d)", a->tokens.tokens, a->tokens.c, a->tokens.ldx,
			             a->tokens.ldy);
			break;
		case GPU_LAYERNORM:
			describe_add(&d, " %d of %d(/%d) > (/%d) eps %g", a->layernorm.rows, a->layernorm.c,
			             a->layernorm.ldx, a->layernorm.ldy, (double) a->layernorm.eps);
			break;
		case GPU_ATTN:
			describe_add(&d, " %d of %d(/%d) > (/%d) heads %d", a->attn.tokens, a->attn.c, a->attn.ldx,
			             a->attn.ldy, a->attn.heads);
			break;
		case GPU_CONV_DIRECT:
		case GPU_CONV_TILED:
		case GPU_CONV_MMA:
			describe_conv(&d, &a->conv);
			break;
		case GPU_OUTPUT:
			describe_add(&d, " %d of %d(/%d)", a->output.pixels, a->output.c, a->output.ldx);
			break;
		default: /* nobody asks for those of training, and of GPU_COMPARE there is nothing to say */
			break;
	}
}
