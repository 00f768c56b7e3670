/*
 * group.c
 *	  Grouped convolutions of 3x3 (ResNeXt's) in blocks of 16 channels.
 *
 * The library is hundreds of times slower than it could be with them in a blocked
 * layout, and at half of the core's peak in NHWC, where it also takes longer for the 1x1
 * convolutions around them.  Our loops (kernels_group.c) run at the peak nearly, and
 * need no other layout than those.
 *
 * Channels of 16 neighbours, a plane, hold whole groups, or a group is some whole
 * planes; all else is left to the library, and with it the network to NHWC (layout.c).
 * Set by set of planes, all images of the micro-batch in turn: weights are read once
 * from memory, and a plane's rows stay in the first cache.  A set of an image is
 * computed by itself, so its bits do not depend on the batch.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/internal.h"

#define GROUP_LANES CPU_GROUP_LANES

/* What a step has in s->param. */
typedef struct GroupStep
{
	CpuGroupConv conv;
	char *weights; /* the sets one after the other */
	size_t set;    /* bytes of one */
	float *bias;
} GroupStep;

static const CpuGroupKernels *
group_kernels(const DfxDev *dev, CpuType type)
{
	return type == CPU_F32 ? dev->group_kernels : dev->group_bf16_kernels;
}

/* Whether groups of so many channels lie in planes as the loops need it. */
static bool
group_fits(dnnl_dim_t width, CpuType type)
{
	return width % GROUP_LANES == 0 || (GROUP_LANES % width == 0 && width > (type == CPU_BF16));
}

bool
cpu_group_wants(const CpuBuild *b, const DfxOp *op, const CpuConvShape *c)
{
	const CpuView *in = &b->view[op->in[0]], *out = &b->view[op->out];

	return c->groups > 1 && group_kernels(b->dev, in->type) != NULL && in->type == out->type &&
	       in->vec == GROUP_LANES && out->vec == GROUP_LANES && c->ci == c->co && c->groups < c->ci &&
	       group_fits(c->ci / c->groups, in->type) && c->kh == CPU_GROUP_TAPS && c->kw == CPU_GROUP_TAPS &&
	       c->stride[0] == c->stride[1] && c->stride[0] <= 2 && c->pad[0] == 1 && c->pad[1] == 1 &&
	       (op->epi_act == DFX_ACT_NONE || op->epi_act == DFX_ACT_RELU) && op->epi_add < 0 &&
	       op->epi_scale < 0 && op->epi_shift < 0;
}

static DfxStatus
group_run(const CpuStep *s, const CpuRun *run, DfxErr *err)
{
	const GroupStep *step = s->param;
	const CpuGroupKernels *kernels = group_kernels(run->plan->dev, s->in[0].type);
	const char *weights = step->weights;

	(void) err;
	for (int c = 0; c < s->in[0].c; c += step->conv.planes * GROUP_LANES, weights += step->set)
		for (int n = 0; n < run->n; n++)
			kernels->convolve(
			    cpu_to(cpu_at(run->arena, &s->out, n), &s->out, cpu_channel(&s->out, c)),
			    run->arena + run->plan->scratch_off,
			    cpu_from(cpu_at(run->arena, &s->in[0], n), &s->in[0], cpu_channel(&s->in[0], c)), &step->conv,
			    weights, step->bias + c);
	return DFX_OK;
}

/* Which number of a set's weights stands for input channel i of the group, row y and column x of the kernel
 * and output channel o of the set. */
static size_t
group_weight(const CpuGroupConv *g, CpuType type, int o, int i, int y, int x)
{
	const size_t units = (size_t) cpu_group_units(g, type), each = type == CPU_BF16 ? 2 : 1;
	const size_t planes = (size_t) (o / GROUP_LANES * g->planes + i / g->width);
	const size_t unit = (size_t) (i % g->width) / each;
	size_t word = (planes * CPU_GROUP_TAPS + (size_t) y) * units + unit;

	word = (word * CPU_GROUP_TAPS + (size_t) x) * GROUP_LANES + (size_t) (o % GROUP_LANES);
	return word * each + (size_t) i % each;
}

/* All weights, numbers of the type in PyTorch's order, to where the loops read them. */
static void
group_place_weights(GroupStep *step, const char *from, int channels, int width, CpuType type)
{
	const int taps = CPU_GROUP_TAPS, lanes = step->conv.planes * GROUP_LANES;

	for (int o = 0; o < channels; o++)
	{
		char *set = step->weights + (size_t) (o / lanes) * step->set;

		for (int k = 0; k < width * taps * taps; k++, from += cpu_size(type))
			memcpy(set + group_weight(&step->conv, type, o % lanes, k / (taps * taps), k / taps % taps,
			                          k % taps) *
			                 cpu_size(type),
			       from, cpu_size(type));
	}
}

static DfxStatus
group_share_params(CpuBuild *b, const DfxOp *op, const CpuConvShape *c, GroupStep *step, CpuType type,
                   DfxErr *err)
{
	const int channels = (int) c->co, width = (int) (c->ci / c->groups);
	const size_t lanes = (size_t) (step->conv.planes * GROUP_LANES);
	const size_t sets = ((size_t) channels + lanes - 1) / lanes;
	const size_t n = (size_t) (channels * width * CPU_GROUP_TAPS * CPU_GROUP_TAPS);
	char *plain = malloc(n * cpu_size(type));

	step->set = cpu_group_weights(&step->conv, type) * sizeof(float);
	step->weights = cpu_plan_alloc(b->plan, sets * step->set, err);
	step->bias = cpu_plan_alloc(b->plan, sets * lanes * sizeof *step->bias, err);
	if (plain == NULL || step->weights == NULL || step->bias == NULL)
	{
		free(plain);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the weights of a convolution");
	}
	cpu_conv_round(plain, type, b->g.param[op->param[DFX_W]].data, n, CPU_GROUP_TAPS * CPU_GROUP_TAPS);
	group_place_weights(step, plain, channels, width, type);
	if (op->param[DFX_B] >= 0)
		memcpy(step->bias, b->g.param[op->param[DFX_B]].data, (size_t) channels * sizeof *step->bias);
	free(plain);
	return DFX_OK;
}

DfxStatus
cpu_group_step(CpuBuild *b, const DfxOp *op, CpuStep *s, DfxErr *err)
{
	const CpuConvShape c = cpu_conv_shape(&b->g, op);
	const int width = (int) (c.ci / c.groups);
	const CpuType type = s->in[0].type;
	GroupStep *step = s->param = cpu_plan_alloc(b->plan, sizeof *step, err);

	if (step == NULL)
		return DFX_ENOMEM;
	step->conv = (CpuGroupConv){.h = s->in[0].h,
	                            .w = s->in[0].w,
	                            .oh = s->out.h,
	                            .ow = s->out.w,
	                            .stride = (int) c.stride[0],
	                            .planes = width > GROUP_LANES ? width / GROUP_LANES : 1,
	                            .width = cpu_min(width, GROUP_LANES),
	                            .relu = op->epi_act == DFX_ACT_RELU};
	s->run = group_run;
	snprintf(s->impl, sizeof s->impl, "group %s", group_kernels(b->dev, type)->name);
	cpu_need_scratch(b, cpu_group_scratch(&step->conv, type));
	return group_share_params(b, op, &c, step, type, err);
}
