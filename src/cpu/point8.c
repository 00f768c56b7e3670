/*
 * point8.c
 *	  1x1 convolutions of u8 by s8 where the library is slow: with few input
 *	  channels, as much is to be rounded and stored there for few products; and with
 *	  a residual of another type than the result, for which it has only its
 *	  oldest implementation, or wants a copy first.
 *
 * A block of pixels at a time stays in the first cache while all weights go past it;
 * where these are fewer, it is they that stay.
 */
#include <stdio.h>

#include "cpu/internal.h"

#define POINT8_FEW   256                 /* input channels */
#define POINT8_BYTES ((size_t) 24 << 10) /* of a block of pixels */

/* s->param of such a step. */
typedef struct Point8
{
	const int8_t *weights;
	const float *channel; /* cpu_int8_channels() */
	int stride, block;    /* pixels at a time */
} Point8;

bool
cpu_point8_wants(const CpuBuild *b, const DfxOp *op, const CpuStep *s, const CpuConvShape *c)
{
	bool unlike = op->epi_add >= 0 && b->view[op->epi_add].type != s->out.type;
	bool few = c->ci <= POINT8_FEW && s->out.type == CPU_U8;

	return b->dev->point8_kernels && c->kh == 1 && c->kw == 1 && c->pad[0] == 0 && c->pad[1] == 0 &&
	       c->stride[0] == c->stride[1] && c->groups == 1 && c->ci % 4 == 0 &&
	       c->co % CPU_POINT8_PANEL == 0 && s->in[0].type == CPU_U8 && (few || unlike);
}

static DfxStatus
point8_run(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const Point8 *p = s->param;
	int pixels = (int) cpu_pixels(&s->out);

	(void) err;
	for (int image = 0; image < run->n; image++)
	{
		const CpuInt8Epilogue epi = cpu_int8_epilogue(s, run, image, p->channel);
		const CpuPoint8Image at = {.from = cpu_at(run->arena, &s->in[0], image),
		                           .ci = s->in[0].c,
		                           .from_w = s->in[0].w,
		                           .stride = p->stride,
		                           .to = cpu_at(run->arena, &s->out, image),
		                           .co = s->out.c,
		                           .w = s->out.w};

		for (int i = 0; i < pixels; i += p->block)
			run->plan->dev->point8_kernels->multiply(&at, i, cpu_min(p->block, pixels - i), p->weights, &epi);
	}
	return DFX_OK;
}

/* Where output channel o goes: see kernels_point8.h. */
static size_t
point8_place(const CpuStep *s, size_t o)
{
	bool steps = s->out.type == CPU_U8 && (!s->add_apart || s->add_from.type == CPU_U8);
	size_t in = o % CPU_POINT8_PANEL;

	return o - in + (steps ? CPU_POINT8_PLACE(in) : in);
}

/* Four input channels of an output channel lie together, then those of 64 output channels. */
static void
point8_place_all(const CpuStep *s, int8_t *to, const int8_t *w, float *channel, const float *from)
{
	size_t ci = (size_t) s->in[0].c, co = (size_t) s->out.c;

	for (size_t o = 0; o < co; o++)
	{
		size_t place = point8_place(s, o), in = place % CPU_POINT8_PANEL;

		channel[place] = from[o];
		channel[co + place] = from[co + o];
		for (size_t c = 0; c < ci; c++)
			to[(place - in) * ci + (c / 4 * CPU_POINT8_PANEL + in) * 4 + c % 4] = w[o * ci + c];
	}
}

DfxStatus
cpu_point8_step(CpuBuild *b, const DfxOp *op, CpuStep *s, const CpuInt8Weights *w, DfxErr *err)
{
	size_t ci = (size_t) s->in[0].c, co = (size_t) s->out.c;
	Point8 *p = cpu_plan_alloc(b->plan, sizeof *p, err);
	int8_t *weights = p ? cpu_plan_alloc(b->plan, ci * co, err) : NULL;
	float *channel = weights ? cpu_plan_alloc(b->plan, 2 * co * sizeof *channel, err) : NULL;
	const float *natural = channel ? cpu_int8_channels(b, s, w, 1, err) : NULL;

	if (natural == NULL)
		return DFX_ENOMEM;
	cpu_int8_own(b, op, s);
	point8_place_all(s, weights, w->q, channel, natural);
	*p = (Point8){weights, channel, (int) cpu_conv_shape(&b->g, op).stride[0],
	              ci * co <= POINT8_BYTES
	                  ? CPU_POINT8_PIXELS
	                  : (int) (POINT8_BYTES / ci / CPU_POINT8_PIXELS + 1) * CPU_POINT8_PIXELS};
	s->param = p;
	s->run = point8_run;
	snprintf(s->impl, sizeof s->impl, "point8:%s", b->dev->point8_kernels->name);
	return DFX_OK;
}
