/*
 * trial.c
 *	  A product by one implementation, on noise, and how far its result is from
 *	  another one's: what choose.c and train_choose.c decide by.
 */
#include <math.h>
#include <stdlib.h>

#include "cuda/internal.h"

#define TRIAL_TOLERANCE 2e-2
#define TRIAL_NOISE     ((size_t) 1 << 20) /* bytes, repeated */
#define TRIAL_F16_NAN   0x7e00
#define TRIAL_F16_TOP   0x7c00 /* the exponent of what is not finite */

static size_t
trial_out_bytes(const GpuConvArgs *a, GpuType type, int n)
{
	return (size_t) n * (size_t) a->oh * (size_t) a->ow * (size_t) a->ldy * gpu_type_size(type);
}

DfxStatus
gpu_trial_begin(const GpuTrial *t, const char *key, const GpuChoice *by, bool *may, DfxErr *err)
{
	const char *who = gpu_choice_name(by);
	unsigned ignored;
	DfxStatus st;

	*may = !gpu_cache_barred(t->dev->cache, key, who);
	if (!*may)
	{
		dfx_log('W', "%s is left out at %s: engines have ended while they tried it", who, key);
		return DFX_OK;
	}
	st = t->dev->rt->ops->download(t->dev->rt, &ignored, t->result, sizeof ignored, err);
	if (st == DFX_OK)
		gpu_cache_try(t->dev->cache, key, who);
	return st;
}

void
gpu_trial_end(const GpuTrial *t, DfxStatus st)
{
	if (st != DFX_ELOST)
		gpu_cache_tried(t->dev->cache);
}

void
gpu_trial_room(const GpuConvArgs *a, GpuType type, int n, size_t *in, size_t *out)
{
	size_t x = (size_t) n * (size_t) a->ih * (size_t) a->iw * (size_t) a->ldx * gpu_type_size(type);
	size_t add = a->epi.add ? (size_t) n * (size_t) a->oh * (size_t) a->ow * (size_t) a->epi.ldadd *
	                              gpu_type_size(type)
	                        : 0;
	size_t y = trial_out_bytes(a, type, n);

	x = x > add ? x : add;
	*in = x > *in ? x : *in;
	*out = y > *out ? y : *out;
}

DfxStatus
gpu_trial_noise(const GpuTrial *t, size_t bytes, DfxErr *err)
{
	GpuRt *rt = t->dev->rt;
	uint16_t *noise = malloc(TRIAL_NOISE);
	uint32_t state = 1;
	size_t first = bytes < TRIAL_NOISE ? bytes : TRIAL_NOISE;
	DfxStatus st;

	if (!noise)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	for (size_t i = 0; i < TRIAL_NOISE / sizeof *noise; i++)
	{
		/* Half precision: sign, an exponent from 2^-8 to 2^-1, a fraction; in both half types. */
		uint32_t exponent, bits;

		state = state * 1664525u + 1013904223u;
		bits = state >> 8;
		exponent = bits >> 10 & 7;
		noise[i] = t->type == GPU_F16
		               ? (uint16_t) ((bits >> 8 & 0x8000u) | (7 + exponent) << 10 | (bits & 0x3ffu))
		               : (uint16_t) ((bits >> 8 & 0x8000u) | (119 + exponent) << 7 | (bits & 0x7fu));
	}
	st = rt->ops->upload(rt, t->in, noise, first, err);
	for (size_t at = first; st == DFX_OK && at < bytes; at += first)
		st = rt->ops->copy(rt, t->in + at, t->in, bytes - at < first ? bytes - at : first, err);
	free(noise);
	return st;
}

DfxStatus
gpu_trial_run(const GpuTrial *t, const GpuStep *s, const GpuChoice *by, int n, int count, char *y,
              DfxErr *err)
{
	DfxDev *dev = t->dev;
	GpuArgs args[GPU_BRANCHES];
	DfxStatus st = DFX_OK;

	for (int i = 0; i < count; i++)
	{
		args[i] = s->args[i];
		args[i].conv.x = t->in;
		args[i].conv.y = y;
		if (args[i].conv.epi.add)
			args[i].conv.epi.add = t->in;
	}
	if (!by->lib)
		return dev->rt->ops->launch(dev->rt, by->kernel, t->type, args, count, n, err);
	for (int i = 0; st == DFX_OK && i < count; i++)
		st = by->lib->ops->run(by->lib, by->plan, &args[i].conv, &s->product[i], dev->work.p, dev->rt->stream,
		                       err);
	return st;
}

/* How far got is from want, relative to want's largest magnitude. */
static DfxStatus
trial_compare(const GpuTrial *t, const GpuConvArgs *a, int n, double *apart, DfxErr *err)
{
	GpuRt *rt = t->dev->rt;
	GpuArgs args = {.compare = {.a = t->got,
	                            .b = t->want,
	                            .rows = a->oh * a->ow,
	                            .c = a->co,
	                            .lda = a->ldy,
	                            .ldb = a->ldy,
	                            .result = t->result}};
	float result[2] = {0, 0};
	DfxStatus st = rt->ops->clear(rt, t->result, sizeof result, err);

	if (st == DFX_OK)
		st = rt->ops->launch(rt, GPU_COMPARE, t->type, &args, 1, n, err);
	if (st == DFX_OK)
		st = rt->ops->download(rt, result, t->result, sizeof result, err);
	*apart = result[1] > 0 ? (double) result[0] / (double) result[1] : (result[0] > 0 ? INFINITY : 0);
	return st;
}

static bool
trial_has_relu(const GpuConvArgs *a)
{
	return a->epi.act == GPU_ACT_RELU || (a->pre_scale && a->pre_act == GPU_ACT_RELU);
}

/*
 * Whether ReLUs, also a prologue's, pass on what is no number.  One that makes
 * 0 of it would hide from run.c that sums went beyond fp16: infinities of either
 * sign meet in the next product and are gone.  The first result depends on the
 * first input.
 */
static DfxStatus
trial_keeps_nan(const GpuTrial *t, const GpuStep *s, const GpuChoice *by, int n, bool *keeps, DfxErr *err)
{
	const uint16_t nan = TRIAL_F16_NAN;
	GpuRt *rt = t->dev->rt;
	uint16_t was = 0, got = 0;
	DfxErr ignored;
	DfxStatus st = rt->ops->download(rt, &was, t->in, sizeof was, err), back;

	*keeps = false;
	if (st != DFX_OK)
		return st;
	st = rt->ops->upload(rt, t->in, &nan, sizeof nan, err);
	if (st == DFX_OK)
		st = gpu_trial_run(t, s, by, n, 1, t->got, err);
	if (st == DFX_OK)
		st = rt->ops->download(rt, &got, t->got, sizeof got, err);
	/* Whatever came of it: the noise must be numbers again, or the next comparison would compare none. */
	back = rt->ops->upload(rt, t->in, &was, sizeof was, st == DFX_OK ? err : &ignored);
	st = st == DFX_OK ? back : st;
	*keeps = (got & TRIAL_F16_TOP) == TRIAL_F16_TOP;
	return st;
}

DfxStatus
gpu_trial_agrees(const GpuTrial *t, const GpuStep *s, const GpuChoice *by, int n, const char *key,
                 bool *agrees, DfxErr *err)
{
	const GpuConvArgs *a = &s->args[0].conv;
	GpuRt *rt = t->dev->rt;
	double apart = 0;
	DfxStatus st = rt->ops->clear(rt, t->got, trial_out_bytes(a, t->type, n), err);

	*agrees = false;
	if (st == DFX_OK)
		st = gpu_trial_run(t, s, by, n, 1, t->got, err);
	if (st == DFX_OK)
		st = trial_compare(t, a, n, &apart, err);
	if (st != DFX_OK)
		return st;
	*agrees = apart <= TRIAL_TOLERANCE;
	if (!*agrees)
		dfx_log('W', "%s computes %s differently from the plain kernel (by %g): not used",
		        gpu_choice_name(by), key, apart);
	if (!*agrees || !by->lib || t->type != GPU_F16 || !trial_has_relu(a))
		return DFX_OK;
	st = trial_keeps_nan(t, s, by, n, agrees, err);
	if (st == DFX_OK && !*agrees)
		dfx_log('W', "%s makes 0 of what is no number in %s: not used, as it would hide sums beyond fp16",
		        gpu_choice_name(by), key);
	return st;
}
