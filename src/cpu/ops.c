/*
 * ops.c
 *	  Steps that we run ourselves: input, BN and AFFINE, pooling, element-wise
 *	  sums and products, and the copies (CONCAT, STACK, TAKE, DROP).
 *
 * All of them walk channels in runs: as many neighbouring channels as lie
 * together in every value involved.  In the usual case a run is one block of
 * 16 channels over all pixels, and the kernel does the rest.
 */
#include <math.h>
#include <string.h>

#include "cpu/internal.h"

void
cpu_zero_padding(float *dst, const CpuView *v)
{
	int used = v->c % v->vec;
	float *last;

	if (used == 0)
		return;
	last = dst + cpu_channel(v, v->c - used);
	for (size_t i = 0; i < cpu_pixels(v); i++)
		memset(last + i * (size_t) v->vec + used, 0, (size_t) (v->vec - used) * sizeof *dst);
}

void
cpu_copy_channels(float *dst, const CpuView *dv, int c0, const float *src, const CpuView *sv)
{
	size_t npix = cpu_pixels(sv), dps = (size_t) dv->vec, sps = (size_t) sv->vec;

	for (int c = 0, nl; c < sv->c; c += nl)
	{
		float *to = dst + cpu_channel(dv, c0 + c);
		const float *from = src + cpu_channel(sv, c);

		nl = cpu_min(cpu_min(cpu_lanes(sv, c), cpu_lanes(dv, c0 + c)), sv->c - c);
		if ((size_t) nl == dps && (size_t) nl == sps)
			memcpy(to, from, npix * (size_t) nl * sizeof *to);
		else if (nl == 1)
			for (size_t i = 0; i < npix; i++)
				to[i * dps] = from[i * sps];
		else
			for (size_t i = 0; i < npix; i++)
				memcpy(to + i * dps, from + i * sps, (size_t) nl * sizeof *to);
	}
}

static DfxStatus
own_run_input(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *v = &s->out;
	CpuView plain = {.c = v->c, .h = v->h, .w = v->w, .vec = 1};
	size_t npix = cpu_pixels(v), vec = (size_t) v->vec;

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, v, n);

		if (s->param == NULL)
			cpu_copy_channels(dst, v, 0, (const float *) run->in + (size_t) n * npix * (size_t) v->c, &plain);
		else
			for (int c = 0; c < 3; c++)
			{
				const uint8_t *px = (const uint8_t *) run->in + (size_t) n * npix * 3 + c;
				const float *value = s->param + c * 256;
				float *to = dst + cpu_channel(v, c);

				for (size_t i = 0; i < npix; i++)
					to[i * vec] = value[px[i * 3]];
			}
		cpu_zero_padding(dst, v);
	}
	return DFX_OK;
}

static DfxStatus
own_run_affine(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const float *scale = s->param, *shift = s->param + s->out.c;

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, &s->out, n);
		int c0 = 0;

		for (int j = 0; j < s->nin; j++)
		{
			const CpuView *in = &s->in[j];
			const float *src = cpu_at(run->arena, in, n);

			for (int c = 0, nl; c < in->c; c += nl)
			{
				nl = cpu_min(cpu_min(cpu_lanes(in, c), cpu_lanes(&s->out, c0 + c)), in->c - c);
				run->plan->dev->kernels->affine(dst + cpu_channel(&s->out, c0 + c), (size_t) s->out.vec,
				                                src + cpu_channel(in, c), (size_t) in->vec, cpu_pixels(in),
				                                nl, scale + c0 + c, shift + c0 + c, s->relu);
			}
			c0 += in->c;
		}
		cpu_zero_padding(dst, &s->out);
	}
	return DFX_OK;
}

static DfxStatus
own_run_pool(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *in = &s->in[0], *out = &s->out;
	CpuPoolGeom g = {.ih = in->h, .iw = in->w, .oh = out->h, .ow = out->w};

	(void) err;
	g.kh = s->pool.k > 0 ? s->pool.k : in->h;
	g.kw = s->pool.k > 0 ? s->pool.k : in->w;
	g.s = s->pool.s > 0 ? s->pool.s : 1;
	g.p = s->pool.k > 0 ? s->pool.p : 0;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, out, n);
		const float *src = cpu_at(run->arena, in, n);

		for (int c = 0, nl; c < in->c; c += nl)
		{
			nl = cpu_min(cpu_min(cpu_lanes(in, c), cpu_lanes(out, c)), in->c - c);
			run->plan->dev->kernels->pool(dst + cpu_channel(out, c), (size_t) out->vec,
			                              src + cpu_channel(in, c), (size_t) in->vec, nl, &g, s->pool.avg);
		}
		cpu_zero_padding(dst, out);
	}
	return DFX_OK;
}

/* ADD and MUL; a second input of C x 1 x 1 is repeated over the first one's pixels. */
static DfxStatus
own_run_binary(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *a = &s->in[0], *b = &s->in[1], *out = &s->out;
	size_t bps = cpu_pixels(b) == cpu_pixels(a) ? (size_t) b->vec : 0;

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, out, n);
		const float *x = cpu_at(run->arena, a, n), *y = cpu_at(run->arena, b, n);

		for (int c = 0, nl; c < a->c; c += nl)
		{
			nl = cpu_min(cpu_min(cpu_lanes(a, c), cpu_lanes(b, c)), cpu_min(cpu_lanes(out, c), a->c - c));
			run->plan->dev->kernels->binary(dst + cpu_channel(out, c), (size_t) out->vec,
			                                x + cpu_channel(a, c), (size_t) a->vec, y + cpu_channel(b, c),
			                                bps, cpu_pixels(a), nl, s->kind == DFX_OP_MUL, s->relu);
		}
		cpu_zero_padding(dst, out);
	}
	return DFX_OK;
}

/* CONCAT, and DROP, which is a concatenation of one. */
static DfxStatus
own_run_concat(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, &s->out, n);
		int c0 = 0;

		for (int j = 0; j < s->nin; j++)
		{
			cpu_copy_channels(dst, &s->out, c0, cpu_at(run->arena, &s->in[j], n), &s->in[j]);
			c0 += s->in[j].c;
		}
		cpu_zero_padding(dst, &s->out);
	}
	return DFX_OK;
}

/* n vectors become the n channels of a signal: a vector of C x 1 x 1 is C neighbouring floats in any layout.
 */
static DfxStatus
own_run_stack(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *out = &s->out;

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, out, n);

		for (int j = 0; j < s->nin; j++)
		{
			const float *src = cpu_at(run->arena, &s->in[j], n);
			float *to = dst + cpu_channel(out, j);

			for (int c = 0; c < s->in[j].c; c++)
				to[(size_t) c * (size_t) out->vec] = src[c];
		}
		cpu_zero_padding(dst, out);
	}
	return DFX_OK;
}

static DfxStatus
own_run_take(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *in = &s->in[0];

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		float *dst = cpu_at(run->arena, &s->out, n);
		const float *src = cpu_at(run->arena, in, n) + (size_t) s->index * (size_t) in->vec;

		for (int c = 0; c < in->c; c++)
			dst[c] = src[cpu_channel(in, c)];
		cpu_zero_padding(dst, &s->out);
	}
	return DFX_OK;
}

/* The 256 values that each channel's bytes stand for, in PyTorch's order of operations. */
static DfxStatus
own_input_table(CpuBuild *b, const DfxInput *in, CpuStep *s, DfxErr *err)
{
	if (!in->rgb8)
		return DFX_OK;
	s->param = cpu_plan_alloc(b->plan, 3 * 256 * sizeof(float), err);
	if (s->param == NULL)
		return DFX_ENOMEM;
	for (int c = 0; c < 3; c++)
		for (int i = 0; i < 256; i++)
			s->param[c * 256 + i] = ((float) i / 255.0f - in->mean[c]) / in->std[c];
	return DFX_OK;
}

/* Scale and shift of an AFFINE, or of a BN from its running statistics. */
static DfxStatus
own_affine_params(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const DfxParam *p = b->g.param;
	const float *w = p[op->param[DFX_W]].data, *shift = p[op->param[DFX_B]].data;
	int c = s->out.c;

	/* A kernel may load a whole vector at the last channels. */
	s->param = cpu_plan_alloc(b->plan, (size_t) (2 * c + 16) * sizeof(float), err);
	if (s->param == NULL)
		return DFX_ENOMEM;
	for (int i = 0; i < c; i++)
	{
		double scale = w[i], mean = 0;

		if (op->kind == DFX_OP_BN)
		{
			scale /= sqrt((double) p[op->param[DFX_VAR]].data[i] + (double) op->u.eps);
			mean = p[op->param[DFX_MEAN]].data[i];
		}
		s->param[i] = (float) scale;
		s->param[c + i] = (float) (shift[i] - mean * scale);
	}
	return DFX_OK;
}

bool
cpu_own_supports(const DfxGraph *g, const DfxOp *op)
{
	bool plain = op->epi_add < 0 && op->epi_scale < 0 && op->epi_shift < 0;

	(void) g;
	switch (op->kind)
	{
		case DFX_OP_BN:
		case DFX_OP_AFFINE:
		case DFX_OP_ADD:
		case DFX_OP_MUL:
			return plain && (op->epi_act == DFX_ACT_NONE || op->epi_act == DFX_ACT_RELU);
		case DFX_OP_INPUT:
		case DFX_OP_CONCAT:
		case DFX_OP_STACK:
		case DFX_OP_POOL:
		case DFX_OP_TAKE:
		case DFX_OP_DROP:
			return plain && op->epi_act == DFX_ACT_NONE;
		default:
			return false;
	}
}

DfxStatus
cpu_own_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	s->relu = op->epi_act == DFX_ACT_RELU;
	switch (op->kind)
	{
		case DFX_OP_INPUT:
			s->run = own_run_input;
			return own_input_table(b, &op->u.input, s, err);
		case DFX_OP_BN:
		case DFX_OP_AFFINE:
			s->run = own_run_affine;
			return own_affine_params(b, op, s, err);
		case DFX_OP_ADD:
		case DFX_OP_MUL:
			s->run = own_run_binary;
			return DFX_OK;
		case DFX_OP_CONCAT:
		case DFX_OP_DROP:
			s->run = own_run_concat;
			return DFX_OK;
		case DFX_OP_STACK:
			s->run = own_run_stack;
			return DFX_OK;
		case DFX_OP_POOL:
			s->run = own_run_pool;
			s->pool = op->u.pool;
			return DFX_OK;
		case DFX_OP_TAKE:
			s->run = own_run_take;
			s->index = op->u.index;
			return DFX_OK;
		default:
			return dfx_fail(err, DFX_EUNSUPPORTED, "the CPU backend has no %s operation",
			                dfx_op_info[op->kind].name);
	}
}
