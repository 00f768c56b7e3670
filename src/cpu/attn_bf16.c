/*
 * attn_bf16.c
 *	  Attention over bf16 values, one head at a time as in tokens.c.
 *
 * The library's C interface has no bf16 gemm, so the two products are matmul
 * primitives over a worker's scratch memory: q k' gives floats, their softmax
 * leaves bf16 in the first half of each row, and times v that gives bf16.
 */
#include <math.h>
#include <string.h>

#include "cpu/internal.h"

enum
{
	ATTN_SCORES = 0, /* softmax's argument */
	ATTN_VALUES,
	ATTN_PRODUCTS
};

/* Where the matrices of a head are, in bytes from the start of the scratch memory. */
typedef struct AttnScratch
{
	size_t tokens, width, row; /* scores are tokens x row floats */
	size_t score, q, k, v, out, library;
} AttnScratch;

static AttnScratch
attn_scratch(const CpuView *out, int heads)
{
	AttnScratch a = {.tokens = cpu_pixels(out), .width = (size_t) (out->c / heads)};
	size_t matrix = (a.tokens * a.width * cpu_size(CPU_BF16) + CPU_ALIGN - 1) / CPU_ALIGN * CPU_ALIGN;

	a.row = (a.tokens + CPU_SOFTMAX_STEP - 1) / CPU_SOFTMAX_STEP * CPU_SOFTMAX_STEP;
	a.q = a.tokens * a.row * sizeof(float);
	a.k = a.q + matrix;
	a.v = a.k + matrix;
	a.out = a.v + matrix;
	a.library = a.out + matrix;
	return a;
}

static DfxStatus
attn_run(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const DfxDev *dev = run->plan->dev;
	const AttnScratch a = attn_scratch(&s->out, s->heads);
	char *scratch = run->arena + run->plan->scratch_off;
	dnnl_status_t st = dnnl_success;

	for (int n = 0; n < run->n; n++)
	{
		const void *src = cpu_at(run->arena, &s->in[0], n);
		void *dst = cpu_at(run->arena, &s->out, n);

		for (int c = 0; c < s->out.c && st == dnnl_success; c += (int) a.width)
		{
			cpu_head_pack(scratch + a.q, src, &s->in[0], c, a.width);
			cpu_head_pack(scratch + a.k, src, &s->in[0], c + s->out.c, a.width);
			cpu_head_pack(scratch + a.v, src, &s->in[0], c + 2 * s->out.c, a.width);
			st = cpu_prim_execute(&s->prim[ATTN_SCORES], run);
			for (size_t i = 0; i < a.tokens; i++)
				dev->bf16_token_kernels->softmax((float *) (void *) (scratch + a.score) + i * a.row,
				                                 (int) a.tokens);
			if (st == dnnl_success)
				st = cpu_prim_execute(&s->prim[ATTN_VALUES], run);
			cpu_head_unpack(dst, &s->out, c, scratch + a.out, a.width);
		}
		cpu_zero_padding(dst, &s->out);
	}
	return cpu_fail_dnnl(st, "attention", err);
}

/* One product; scale is of its result. */
static dnnl_status_t
attn_product(CpuBuild *b, CpuStep *s, int which, DnnlConstMd x, DnnlConstMd y, DnnlConstMd z, float scale)
{
	dnnl_primitive_attr_t attr;
	dnnl_post_ops_t ops;
	dnnl_status_t st = dfx_attr_begin(&attr, &ops);

	if (st == dnnl_success && scale != 1)
		st = dfx_post_eltwise(ops, dnnl_eltwise_linear, scale);
	st = dfx_attr_end(&attr, ops, st);
	return st == dnnl_success ? cpu_matmul_prim(b, s, which, x, y, z, attr) : st;
}

static dnnl_status_t
attn_products(CpuBuild *b, CpuStep *s, const AttnScratch *a)
{
	dnnl_dim_t t = (dnnl_dim_t) a->tokens, w = (dnnl_dim_t) a->width, row = (dnnl_dim_t) a->row;
	const struct
	{
		dnnl_dims_t dim, stride;
		dnnl_data_type_t type;
	} matrix[] = {
	    {{t, w}, {w, 1}, dnnl_bf16},       /* q, v, out */
	    {{w, t}, {1, w}, dnnl_bf16},       /* k' */
	    {{t, t}, {row, 1}, dnnl_f32},      /* scores */
	    {{t, t}, {2 * row, 1}, dnnl_bf16}, /* and after the softmax */
	};
	DnnlMd md[4] = {NULL};
	dnnl_status_t st = dnnl_success;

	for (int i = 0; i < 4 && st == dnnl_success; i++)
		st = dfx_md_matrix(&md[i], matrix[i].dim, matrix[i].type, matrix[i].stride);
	if (st == dnnl_success)
		st = attn_product(b, s, ATTN_SCORES, md[0], md[1], md[2], 1 / sqrtf((float) a->width));
	if (st == dnnl_success)
		st = attn_product(b, s, ATTN_VALUES, md[3], md[0], md[0], 1);
	for (int i = 0; i < 4; i++)
		dfx_md_free(md[i]);
	return st;
}

static DfxStatus
attn_bind(DfxPlan *p, CpuStep *s, DfxErr *err)
{
	const AttnScratch a = attn_scratch(&s->out, s->heads);
	const size_t base = p->scratch_off;
	const CpuPrimArg scores[] = {{DNNL_ARG_SRC, dnnl_query_src_md, base + a.q},
	                             {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, base + a.k},
	                             {DNNL_ARG_DST, dnnl_query_dst_md, base + a.score},
	                             {DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, base + a.library}};
	const CpuPrimArg values[] = {{DNNL_ARG_SRC, dnnl_query_src_md, base + a.score},
	                             {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, base + a.v},
	                             {DNNL_ARG_DST, dnnl_query_dst_md, base + a.out},
	                             {DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, base + a.library}};
	DfxStatus st = cpu_prim_bind(p, &s->prim[ATTN_SCORES], scores, 4, NULL, 0, err);

	return st == DFX_OK ? cpu_prim_bind(p, &s->prim[ATTN_VALUES], values, 4, NULL, 0, err) : st;
}

DfxStatus
cpu_attn_bf16_step(CpuBuild *b, CpuStep *s, DfxErr *err)
{
	const AttnScratch a = attn_scratch(&s->out, s->heads);
	dnnl_status_t st = attn_products(b, s, &a);

	_Static_assert(ATTN_PRODUCTS <= CPU_MAX_BUCKET, "a step has room for its primitives");
	if (st != dnnl_success)
		return cpu_fail_dnnl(st, "attention in bf16", err);
	s->run = attn_run;
	s->bind = attn_bind;
	for (int i = 0; i < ATTN_PRODUCTS; i++)
		cpu_need_scratch(b, a.library + cpu_prim_scratch(&s->prim[i]));
	return DFX_OK;
}
