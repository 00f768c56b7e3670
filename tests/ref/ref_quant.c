/*
 * ref_quant.c
 *	  The oracle on 8-bit integers: values that are kept in steps are rounded to
 *	  them, and a convolution of such a value counts in exact integers.
 *
 * Values stay floats here, multiples of their step, so that every other op
 * and every epilogue is the one of ref_ops.c.
 */
#include "base/names.h"
#include "tests/ref/ref_priv.h"

#include <math.h>
#include <stdlib.h>

bool
ref_quant_alloc(DfxPlan *p)
{
	p->step = ref_copy(p, NULL, (size_t) p->g.nval, sizeof *p->step);
	if (p->step == NULL)
		return false;
	dfx_graph_steps(&p->g, p->step);
	return true;
}

/* One output: the sum of products of steps. */
static int64_t
quant_sum(const RefOp *r, const int8_t *w, double step, int oy, int ox)
{
	const DfxConv *a = &r->op->u.conv;
	int64_t sum = 0;

	for (int ci = 0; ci < r->x->c; ci++)
		for (int ky = 0; ky < a->kh; ky++)
			for (int kx = 0; kx < a->kw; kx++)
			{
				int iy = oy * a->sh - a->ph + ky, ix = ox * a->sw - a->pw + kx;

				if (iy < 0 || iy >= r->x->h || ix < 0 || ix >= r->x->w)
					continue;
				sum +=
				    lrint((double) r->in[((size_t) ci * (size_t) r->x->h + (size_t) iy) * (size_t) r->x->w +
				                         (size_t) ix] /
				          step) *
				    w[(ci * a->kh + ky) * a->kw + kx];
			}
	return sum;
}

void
ref_quant_conv(const RefOp *r, float step)
{
	const DfxParam *p = &r->g->param[r->op->param[DFX_W]];
	size_t co = (size_t) r->y->c, row = dfx_param_count(p) / co;
	const float *bias = ref_param(r, DFX_B);
	int8_t *w = malloc(co * row);
	float *w_step = malloc(co * sizeof *w_step), *out = r->out;

	if (w == NULL || w_step == NULL)
		abort();
	dfx_quantize_weights(p->data, co, row, w, w_step);
	for (size_t c = 0; c < co; c++)
		for (int y = 0; y < r->y->h; y++)
			for (int x = 0; x < r->y->w; x++)
				*out++ = (float) ((double) quant_sum(r, w + c * row, (double) step, y, x) * (double) step *
				                      (double) w_step[c] +
				                  (bias ? (double) bias[c] : 0));
	free(w);
	free(w_step);
}

void
ref_quant_round(const DfxValue *v, float *data, float step)
{
	for (size_t i = 0; i < ref_count(v); i++)
	{
		double steps = rint((double) data[i] / (double) step);

		data[i] = (float) (fmin(fmax(steps, 0), DFX_SCALE_STEPS) * (double) step);
	}
}
