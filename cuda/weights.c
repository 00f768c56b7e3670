/*
 * weights.c
 *	  A program's parameters: one block, laid out and rounded as its steps want.
 *
 * Lowering runs twice: first to measure (host is NULL, nothing is written),
 * then with the block's place on the device known.  Each piece begins at a
 * multiple of 256 bytes.
 */
#include <math.h>
#include <string.h>

#include "cuda/internal.h"

/* Room for bytes more; NULL while measuring, and *device where they will be. */
static char *
weights_room(GpuBuild *b, size_t bytes, char **device)
{
	size_t at = b->used;

	b->used = at + (bytes + GPU_ALIGN - 1) / GPU_ALIGN * GPU_ALIGN;
	*device = b->weights + at;
	return b->host ? b->host + at : NULL;
}

static void
weights_put(GpuBuild *b, char *to, size_t i, float v)
{
	static const DfxDtype dtype[] = {[GPU_F32] = DFX_F32, [GPU_F16] = DFX_F16, [GPU_BF16] = DFX_BF16};
	bool finite = dfx_tensor_of_f32(dtype[b->type], &v, 1, to + i * gpu_type_size(b->type));

	b->overflow = b->overflow || (b->type == GPU_F16 && !finite);
}

const float *
gpu_weight_floats(GpuBuild *b, const float *v, size_t n)
{
	char *device, *to = weights_room(b, n * sizeof *v, &device);

	if (to)
		memcpy(to, v, n * sizeof *v);
	return (const float *) (const void *) device;
}

const void *
gpu_weight_typed(GpuBuild *b, const float *v, size_t n)
{
	char *device, *to = weights_room(b, n * gpu_type_size(b->type), &device);

	for (size_t i = 0; to && i < n; i++)
		weights_put(b, to, i, v ? v[i] : 0.0f);
	return device;
}

const void *
gpu_weight_filters(GpuBuild *b, const float *v, int co, int ci, int kh, int kw, int ci_to)
{
	size_t taps = (size_t) kh * (size_t) kw, each = taps * (size_t) ci_to;
	char *device, *to = weights_room(b, (size_t) co * each * gpu_type_size(b->type), &device);

	for (size_t o = 0; to && o < (size_t) co; o++)
		for (size_t t = 0; t < taps; t++)
			for (size_t i = 0; i < (size_t) ci_to; i++)
				weights_put(b, to, o * each + t * (size_t) ci_to + i,
				            i < (size_t) ci ? v[(o * (size_t) ci + i) * taps + t] : 0.0f);
	return device;
}

const void *
gpu_weight_taps(GpuBuild *b, const float *v, int co, int ci, int kh, int kw)
{
	size_t taps = (size_t) kh * (size_t) kw;
	char *device, *to = weights_room(b, (size_t) co * (size_t) ci * taps * gpu_type_size(b->type), &device);

	for (size_t t = 0; to && t < taps; t++)
		for (size_t i = 0; i < (size_t) ci; i++)
			for (size_t o = 0; o < (size_t) co; o++)
				weights_put(b, to, (t * (size_t) ci + i) * (size_t) co + o,
				            v[(o * (size_t) ci + i) * taps + t]);
	return device;
}

const float *
gpu_weight_affine(GpuBuild *b, const DfxOp *op, int c)
{
	const DfxParam *p = b->g.param;
	const float *w = p[op->param[DFX_W]].data, *shift = p[op->param[DFX_B]].data;
	char *device, *to = weights_room(b, 2 * (size_t) c * sizeof(float), &device);
	float *out = (float *) (void *) to;

	for (int i = 0; to && i < c; i++)
	{
		double scale = w[i], mean = 0;

		if (op->kind == DFX_OP_BN)
		{
			scale /= sqrt((double) p[op->param[DFX_VAR]].data[i] + (double) op->u.eps);
			mean = p[op->param[DFX_MEAN]].data[i];
		}
		out[i] = (float) scale;
		out[c + i] = (float) (shift[i] - mean * scale);
	}
	return (const float *) (const void *) device;
}
