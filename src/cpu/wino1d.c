/*
 * wino1d.c
 *	  Signals (one pixel high) convolved with kernels of 3, as in the head of
 *	  the tri-branch net, in half the multiplications.
 *
 * Winograd's F(4, 3) (kernels_wino.c): four outputs of a channel need six
 * products instead of twelve.  The signal is split into tiles of four outputs,
 * each tile into six points; for each point the channels of all tiles are one
 * product of matrices (tiles x channels by channels x channels), which the
 * library does as a batch of six; and the points are joined to outputs, with the
 * op's epilogue.  The weights are split into points once.  oneDNN has
 * Winograd for 3x3 kernels only.
 *
 * The error is up to 5e-6 of the output's magnitude, where direct sums have 3e-7.
 * Images go one by one: the products are large enough, and an image's bits do not
 * depend on its batch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

#define WINO_TAPS        3
#define WINO_MIN_WIDTH   16 /* below, the direct algorithm is as fast */
#define WINO_MIN_CHANNEL 32 /* into the op: below, splitting and joining cost what is won */

static CpuWinoSide
wino_side(const CpuView *v, int tiles)
{
	return (CpuWinoSide){
	    .c = v->c, .vec = v->vec, .w = v->w, .tiles = tiles, .plane = cpu_pixels(v) * (size_t) v->vec};
}

static int
wino_tiles(const CpuStep *s)
{
	return (s->out.w + CPU_WINO_TILE - 1) / CPU_WINO_TILE;
}

/* Bytes of the points of one image: of the step's input, of its output. */
static size_t
wino_points_bytes(const CpuView *v, int tiles)
{
	return (size_t) CPU_WINO_POINTS * (size_t) tiles * (size_t) v->c * sizeof(float);
}

/* Scratch memory: points in, points out, the library's. */
typedef struct WinoScratch
{
	size_t in, out, library;
} WinoScratch;

static WinoScratch
wino_scratch(const CpuStep *s)
{
	int tiles = wino_tiles(s);
	WinoScratch a = {.out = wino_points_bytes(&s->in[0], tiles)};

	a.library = a.out + wino_points_bytes(&s->out, tiles);
	return a;
}

bool
cpu_wino1d_wants(const CpuBuild *b, const DfxOp *op, const CpuConvShape *c)
{
	const CpuView *in = &b->view[op->in[0]], *out = &b->view[op->out];

	return op->kind == DFX_OP_CONV && in->type == CPU_F32 && out->type == CPU_F32 && in->h == 1 &&
	       c->kh == 1 && c->kw == WINO_TAPS && c->stride[1] == 1 && c->pad[0] == 0 && c->pad[1] == 1 &&
	       c->groups == 1 && c->ci >= WINO_MIN_CHANNEL && c->ci % in->vec == 0 && c->co % out->vec == 0 &&
	       in->vec % 8 == 0 && out->vec % 8 == 0 && out->w >= WINO_MIN_WIDTH && op->epi_add < 0 &&
	       (op->epi_act == DFX_ACT_NONE || op->epi_act == DFX_ACT_RELU);
}

static DfxStatus
wino_run(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuWinoKernels *kernels = run->plan->dev->wino_kernels;
	const WinoScratch a = wino_scratch(s);
	const CpuWinoSide in = wino_side(&s->in[0], wino_tiles(s)), out = wino_side(&s->out, wino_tiles(s));
	const float *param = s->param;
	const CpuWinoEpilogue epi = {param, param + out.c, param + 2 * (size_t) out.c, s->relu};
	char *scratch = run->arena + run->plan->scratch_off;

	for (int n = 0; n < run->n; n++)
	{
		dnnl_status_t st;

		kernels->split((float *) (void *) (scratch + a.in), cpu_at(run->arena, &s->in[0], n), &in);
		st = cpu_prim_execute(&s->prim[0], run);
		if (st != dnnl_success)
			return cpu_fail_dnnl(st, "the products of a convolution", err);
		kernels->join(cpu_at(run->arena, &s->out, n), (float *) (void *) (scratch + a.out), &out, &epi);
	}
	return DFX_OK;
}

static DfxStatus
wino_bind(DfxPlan *p, CpuStep *s, DfxErr *err)
{
	const WinoScratch a = wino_scratch(s);
	const size_t base = p->scratch_off;
	const CpuPrimArg own[] = {{DNNL_ARG_SRC, dnnl_query_src_md, base + a.in},
	                          {DNNL_ARG_DST, dnnl_query_dst_md, base + a.out},
	                          {DNNL_ARG_SCRATCHPAD, dnnl_query_scratchpad_md, base + a.library}};

	return cpu_prim_bind(p, &s->prim[0], own, 3, s->shared, s->nshared, err);
}

/* Weights as matrices of ci x co, one for each point: G w of F(4, 3). */
static void
wino_split_weights(float *points, const float *w, size_t ci, size_t co)
{
	for (size_t o = 0; o < co; o++)
		for (size_t i = 0; i < ci; i++)
		{
			const float *tap = w + (o * ci + i) * WINO_TAPS;
			double a = tap[0], b = tap[1], c = tap[2];
			const double point[CPU_WINO_POINTS] = {
			    a / 4, -(a + b + c) / 6, -(a - b + c) / 6, (a + 2 * b + 4 * c) / 24, (a - 2 * b + 4 * c) / 24,
			    c};

			for (size_t k = 0; k < CPU_WINO_POINTS; k++)
				points[(k * ci + i) * co + o] = (float) point[k];
		}
}

/* The batch of products, s->prim[0]; dnnl_unimplemented when the library has only its reference. */
static dnnl_status_t
wino_products(CpuBuild *b, CpuStep *s)
{
	const dnnl_dim_t tiles = wino_tiles(s), ci = s->in[0].c, co = s->out.c;
	const dnnl_dims_t dim[3] = {
	    {CPU_WINO_POINTS, tiles, ci}, {CPU_WINO_POINTS, ci, co}, {CPU_WINO_POINTS, tiles, co}};
	dnnl_primitive_attr_t attr;
	dnnl_post_ops_t ops;
	DnnlMd md[3] = {NULL};
	dnnl_status_t st = dfx_attr_begin(&attr, &ops);

	st = dfx_attr_end(&attr, ops, st);
	for (int i = 0; i < 3 && st == dnnl_success; i++)
		st = dfx_md_new(&md[i], 3, dim[i], i == 1 ? dnnl_format_tag_any : dnnl_abc);
	if (st == dnnl_success)
		st = cpu_matmul_prim(b, s, 0, md[0], md[1], md[2], attr);
	else if (attr)
		dnnl_primitive_attr_destroy(attr);
	if (st == dnnl_success)
	{
		char products[sizeof s->impl];

		memcpy(products, s->impl, sizeof products);
		snprintf(s->impl, sizeof s->impl, "wino1d_4x3 %.*s", (int) sizeof s->impl - 16, products);
	}
	for (int i = 0; i < 3; i++)
		dfx_md_free(md[i]);
	return st;
}

static DfxStatus
wino_share_weights(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const size_t ci = (size_t) s->in[0].c, co = (size_t) s->out.c;
	const dnnl_dims_t dim = {CPU_WINO_POINTS, (dnnl_dim_t) ci, (dnnl_dim_t) co};
	float *points = malloc(CPU_WINO_POINTS * ci * co * sizeof *points);
	DnnlMd plain = NULL;
	DfxStatus st;

	if (points == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the weights of a convolution");
	wino_split_weights(points, b->g.param[op->param[DFX_W]].data, ci, co);
	st = cpu_fail_dnnl(dfx_md_new(&plain, 3, dim, dnnl_abc), "a weights descriptor", err);
	if (st == DFX_OK)
		st = cpu_conv_share(b, s, DNNL_ARG_WEIGHTS, points, plain,
		                    dnnl_primitive_desc_query_md(cpu_prim_pd(&s->prim[0]), dnnl_query_weights_md, 0),
		                    err);
	dfx_md_free(plain);
	free(points);
	return st;
}

/* Bias, the epilogue's scale and shift: s->param. */
static DfxStatus
wino_share_epilogue(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const int which[] = {op->param[DFX_B], op->epi_scale, op->epi_shift};
	const float absent[] = {0, 1, 0};
	size_t co = (size_t) s->out.c;
	float *param = cpu_plan_alloc(b->plan, 3 * co * sizeof *param, err);

	if (param == NULL)
		return DFX_ENOMEM;
	for (int k = 0; k < 3; k++)
		for (size_t i = 0; i < co; i++)
			param[(size_t) k * co + i] = which[k] >= 0 ? b->g.param[which[k]].data[i] : absent[k];
	s->param = param;
	s->relu = op->epi_act == DFX_ACT_RELU;
	return DFX_OK;
}

DfxStatus
cpu_wino1d_step(CpuBuild *b, const DfxOp *op, CpuStep *s, bool *made, DfxErr *err)
{
	dnnl_status_t dst = wino_products(b, s);
	DfxStatus st;

	*made = dst == dnnl_success;
	if (dst == dnnl_unimplemented)
		return DFX_OK;
	st = cpu_fail_dnnl(dst, "the products of a convolution", err);
	if (st == DFX_OK)
		st = wino_share_weights(b, op, s, err);
	if (st == DFX_OK)
		st = wino_share_epilogue(b, op, s, err);
	if (st != DFX_OK)
		return st;
	s->run = wino_run;
	s->bind = wino_bind;
	s->nprim = 1;
	cpu_need_scratch(b, wino_scratch(s).library + cpu_prim_scratch(&s->prim[0]));
	return DFX_OK;
}
