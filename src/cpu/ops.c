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
cpu_zero_padding(void *dst, const CpuView *v)
{
	int used = v->c % v->vec;
	size_t size = cpu_size(v->type);
	char *last;

	if (used == 0)
		return;
	last = cpu_to(dst, v, cpu_channel(v, v->c - used) + (size_t) used);
	for (size_t i = 0; i < cpu_pixels(v); i++)
		memset(last + i * (size_t) v->vec * size, 0, (size_t) (v->vec - used) * size);
}

void
cpu_convert(void *to, CpuType to_type, const void *from, CpuType from_type, size_t n)
{
	DfxTensor halves = {.dtype = DFX_BF16, .data = from};

	if (to_type == from_type)
		memcpy(to, from, n * cpu_size(to_type));
	else if (to_type == CPU_BF16)
		dfx_tensor_of_f32(DFX_BF16, from, n, to);
	else
		dfx_tensor_to_f32(&halves, 0, n, to);
}

/* nl neighbouring channels of all pixels, of values of one type. */
static void
own_copy_lanes(char *to, size_t dps, const char *from, size_t sps, size_t npix, size_t bytes)
{
	if (bytes == dps && bytes == sps)
		memcpy(to, from, npix * bytes);
	else if (bytes == sizeof(float))
		for (size_t i = 0; i < npix; i++)
			memcpy(to + i * dps, from + i * sps, sizeof(float));
	else if (bytes == sizeof(uint16_t))
		for (size_t i = 0; i < npix; i++)
			memcpy(to + i * dps, from + i * sps, sizeof(uint16_t));
	else
		for (size_t i = 0; i < npix; i++)
			memcpy(to + i * dps, from + i * sps, bytes);
}

void
cpu_copy_channels(void *dst, const CpuView *dv, int c0, const void *src, const CpuView *sv)
{
	size_t npix = cpu_pixels(sv), dps = (size_t) dv->vec * cpu_size(dv->type),
	       sps = (size_t) sv->vec * cpu_size(sv->type);

	for (int c = 0, nl; c < sv->c; c += nl)
	{
		char *to = cpu_to(dst, dv, cpu_channel(dv, c0 + c));
		const char *from = cpu_from(src, sv, cpu_channel(sv, c));

		nl = cpu_min(cpu_min(cpu_lanes(sv, c), cpu_lanes(dv, c0 + c)), sv->c - c);
		if (dv->type == sv->type)
			own_copy_lanes(to, dps, from, sps, npix, (size_t) nl * cpu_size(dv->type));
		else
			for (size_t i = 0; i < npix; i++)
				cpu_convert(to + i * dps, dv->type, from + i * sps, sv->type, (size_t) nl);
	}
}

/* Pixels by their table, whose numbers are of the value's type. */
#define INPUT_PIXELS(Type)                                                                                   \
	for (int c = 0; c < 3; c++)                                                                              \
	{                                                                                                        \
		const uint8_t *px = (const uint8_t *) in + c;                                                        \
		const Type *value = (const Type *) table + c * 256;                                                  \
		Type *to = (Type *) dst + cpu_channel(v, c);                                                         \
                                                                                                             \
		for (size_t i = 0; i < npix; i++)                                                                    \
			to[i * vec] = value[px[i * 3]];                                                                  \
	}

void
cpu_input_image(void *dst, const CpuView *v, const void *in, const void *table)
{
	CpuView plain = {.c = v->c, .h = v->h, .w = v->w, .vec = 1};
	size_t npix = cpu_pixels(v), vec = (size_t) v->vec;

	if (table == NULL)
		cpu_copy_channels(dst, v, 0, in, &plain);
	else if (v->type == CPU_F32)
		INPUT_PIXELS(float)
	else
		INPUT_PIXELS(uint16_t)
	cpu_zero_padding(dst, v);
}

static DfxStatus
own_run_input(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	(void) err;
	for (int n = 0; n < run->n; n++)
		cpu_input_image(cpu_at(run->arena, &s->out, n), &s->out,
		                (const char *) run->in + (size_t) n * run->plan->image_bytes, s->param);
	return DFX_OK;
}

static DfxStatus
own_run_affine(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuKernels *kernels = cpu_kernels_for(run->plan->dev, s->out.type);
	const float *scale = s->param, *shift = scale + s->out.c;

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		void *dst = cpu_at(run->arena, &s->out, n);
		int c0 = 0;

		for (int j = 0; j < s->nin; j++)
		{
			const CpuView *in = &s->in[j];
			const void *src = cpu_at(run->arena, in, n);

			for (int c = 0, nl; c < in->c; c += nl)
			{
				nl = cpu_min(cpu_min(cpu_lanes(in, c), cpu_lanes(&s->out, c0 + c)), in->c - c);
				kernels->affine(cpu_to(dst, &s->out, cpu_channel(&s->out, c0 + c)), (size_t) s->out.vec,
				                cpu_from(src, in, cpu_channel(in, c)), (size_t) in->vec, cpu_pixels(in), nl,
				                scale + c0 + c, shift + c0 + c, s->relu);
			}
			c0 += in->c;
		}
		cpu_zero_padding(dst, &s->out);
	}
	return DFX_OK;
}

CpuPoolGeom
cpu_pool_geometry(const DfxPool *pool, const CpuView *in, const CpuView *out)
{
	CpuPoolGeom g = {.ih = in->h, .iw = in->w, .oh = out->h, .ow = out->w};

	g.kh = pool->k > 0 ? pool->k : in->h;
	g.kw = pool->k > 0 ? pool->k : in->w;
	g.s = pool->s > 0 ? pool->s : 1;
	g.p = pool->k > 0 ? pool->p : 0;
	return g;
}

void
cpu_pool_image(const DfxDev *dev, const DfxPool *pool, void *dst, const CpuView *out, const void *src,
               const CpuView *in)
{
	const CpuKernels *kernels = cpu_kernels_for(dev, in->type);
	CpuPoolGeom g = cpu_pool_geometry(pool, in, out);

	for (int c = 0, nl; c < in->c; c += nl)
	{
		nl = cpu_min(cpu_min(cpu_lanes(in, c), cpu_lanes(out, c)), in->c - c);
		kernels->pool(cpu_to(dst, out, cpu_channel(out, c)), (size_t) out->vec,
		              cpu_from(src, in, cpu_channel(in, c)), (size_t) in->vec, nl, &g, pool->avg);
	}
	cpu_zero_padding(dst, out);
}

static DfxStatus
own_run_pool(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	(void) err;
	for (int n = 0; n < run->n; n++)
		cpu_pool_image(run->plan->dev, &s->pool, cpu_at(run->arena, &s->out, n), &s->out,
		               cpu_at(run->arena, &s->in[0], n), &s->in[0]);
	return DFX_OK;
}

void
cpu_binary_image(const DfxDev *dev, void *dst, const CpuView *out, const void *x, const CpuView *a,
                 const void *y, const CpuView *b, bool mul, bool relu)
{
	const CpuKernels *kernels = cpu_kernels_for(dev, a->type);
	size_t bps = cpu_pixels(b) == cpu_pixels(a) ? (size_t) b->vec : 0;

	for (int c = 0, nl; c < a->c; c += nl)
	{
		nl = cpu_min(cpu_min(cpu_lanes(a, c), cpu_lanes(b, c)), cpu_min(cpu_lanes(out, c), a->c - c));
		kernels->binary(cpu_to(dst, out, cpu_channel(out, c)), (size_t) out->vec,
		                cpu_from(x, a, cpu_channel(a, c)), (size_t) a->vec, cpu_from(y, b, cpu_channel(b, c)),
		                bps, cpu_pixels(a), nl, mul, relu);
	}
	cpu_zero_padding(dst, out);
}

/* ADD and MUL. */
static DfxStatus
own_run_binary(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	(void) err;
	for (int n = 0; n < run->n; n++)
		cpu_binary_image(run->plan->dev, cpu_at(run->arena, &s->out, n), &s->out,
		                 cpu_at(run->arena, &s->in[0], n), &s->in[0], cpu_at(run->arena, &s->in[1], n),
		                 &s->in[1], s->kind == DFX_OP_MUL, s->relu);
	return DFX_OK;
}

/* CONCAT, and DROP, which is a concatenation of one. */
static DfxStatus
own_run_concat(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		void *dst = cpu_at(run->arena, &s->out, n);
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

/* n vectors become the n channels of a signal: a vector of C x 1 x 1 is C neighbouring numbers in any layout.
 */
static DfxStatus
own_run_stack(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		void *dst = cpu_at(run->arena, &s->out, n);

		for (int j = 0; j < s->nin; j++)
		{
			const CpuView signal = {.c = 1, .h = 1, .w = s->in[j].c, .vec = 1, .type = s->in[j].type};

			cpu_copy_channels(dst, &s->out, j, cpu_at(run->arena, &s->in[j], n), &signal);
		}
		cpu_zero_padding(dst, &s->out);
	}
	return DFX_OK;
}

/* One token of many is a value of one pixel. */
static DfxStatus
own_run_take(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const CpuView *in = &s->in[0];

	(void) err;
	for (int n = 0; n < run->n; n++)
	{
		void *dst = cpu_at(run->arena, &s->out, n);
		const void *src = cpu_from(cpu_at(run->arena, in, n), in, (size_t) s->index * (size_t) in->vec);

		for (int c = 0, nl; c < in->c; c += nl)
		{
			nl = cpu_min(cpu_lanes(in, c), in->c - c);
			cpu_convert(cpu_to(dst, &s->out, (size_t) c), s->out.type, cpu_from(src, in, cpu_channel(in, c)),
			            in->type, (size_t) nl);
		}
		cpu_zero_padding(dst, &s->out);
	}
	return DFX_OK;
}

DfxStatus
cpu_input_table(DfxPlan *plan, const DfxInput *in, float **table, DfxErr *err)
{
	*table = NULL;
	if (!in->rgb8)
		return DFX_OK;
	*table = cpu_plan_alloc(plan, 3 * 256 * sizeof(float), err);
	if (*table == NULL)
		return DFX_ENOMEM;
	for (int c = 0; c < 3; c++)
		for (int i = 0; i < 256; i++)
			(*table)[c * 256 + i] = ((float) i / 255.0f - in->mean[c]) / in->std[c];
	return DFX_OK;
}

/* The input's table, in numbers of its type. */
static DfxStatus
own_input_param(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	float *table;
	DfxStatus st = cpu_input_table(b->plan, &op->u.input, &table, err);

	s->param = table;
	if (st != DFX_OK || table == NULL || s->out.type == CPU_F32)
		return st;
	s->param = cpu_plan_alloc(b->plan, 3 * 256 * cpu_size(s->out.type), err);
	if (s->param == NULL)
		return DFX_ENOMEM;
	cpu_convert(s->param, s->out.type, table, CPU_F32, 3 * 256);
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
	float *param = s->param = cpu_plan_alloc(b->plan, (size_t) (2 * c + 16) * sizeof(float), err);

	if (param == NULL)
		return DFX_ENOMEM;
	for (int i = 0; i < c; i++)
	{
		double scale = w[i], mean = 0;

		if (op->kind == DFX_OP_BN)
		{
			scale /= sqrt((double) p[op->param[DFX_VAR]].data[i] + (double) op->u.eps);
			mean = p[op->param[DFX_MEAN]].data[i];
		}
		param[i] = (float) scale;
		param[c + i] = (float) (shift[i] - mean * scale);
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
			return own_input_param(b, op, s, err);
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
