/*
 * test_cpu_train_kernels.c
 *	  Do the loops of training agree to the bit for every instruction set this
 *	  CPU has, for any number of lanes; are activations and their derivatives
 *	  right over the whole range, and finite far out?
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/kernels_train.h"
#include "tests/backend/against_ref.h"
#include "tests/unit/tap.h"

enum
{
	LANES = 45, /* two vectors of 16, one of 8, and 5 */
	PIXELS = 35,
	COUNT = LANES * PIXELS,
	KERNELS = 8
};

/* What the kernels read, and what each wrote: floats, then sums. */
static float a[COUNT], b[COUNT];
typedef struct Written
{
	float f[2][COUNT];
	double d[2][COUNT];
} Written;

static void
run_kernel(const CpuTrainKernels *k, int which, Written *w)
{
	const CpuPoolGeom pool = {.ih = 5, .iw = 7, .oh = 3, .ow = 4, .kh = 3, .kw = 3, .s = 2, .p = 1};
	const CpuDepthwise depthwise = {5, 7, 3, 4, 5, 5, 2, 2, 2, 2};
	const DfxAdamScalars adam = {1e-3f, 0.9f, 0.999f, 0.1f, 1e-3f, -1e-4f, 0.03f, 1e-8f};
	const CpuNorm norm = {a, b, a + LANES};
	static float moment[COUNT];
	CpuPush push = {.g = w->f[0],
	                .gps = LANES,
	                .dz = a,
	                .zps = LANES,
	                .x = b,
	                .xps = LANES,
	                .npix = PIXELS,
	                .nl = LANES,
	                .norm = norm,
	                .act = DFX_ACT_GELU,
	                .add = true,
	                .sum = w->d[0],
	                .sum_x = w->d[1]};

	memset(w, 0, sizeof *w);
	memset(moment, 0, sizeof moment);
	memcpy(w->f[1], b, sizeof b);
	switch (which)
	{
		case 0:
			k->act(w->f[0], LANES, a, LANES, PIXELS, LANES, &norm, DFX_ACT_SILU);
			break;
		case 1:
			k->push(&push);
			break;
		case 2:
			k->moments(a, LANES, PIXELS, LANES, w->f[0], w->f[1]);
			break;
		case 3:
			k->finish(w->f[1], a, LANES, PIXELS, LANES, true, a, b, b + LANES);
			break;
		case 4:
			k->sum(w->d[0], a, LANES, b, LANES, PIXELS, LANES);
			break;
		case 5:
			k->unpool(w->f[0], a, LANES, b, LANES, LANES, &pool, false);
			break;
		case 6:
			k->depthwise(w->f[0], a, LANES, b, LANES, LANES, &depthwise);
			break;
		default:
			for (int i = 0; i < COUNT; i++)
				w->f[0][i] = fabsf(a[i]);
			k->adam(w->f[1], a, moment, w->f[0], COUNT / 16 * 16, &adam);
			k->add(w->f[1], a, COUNT);
			break;
	}
}

static void
check_variants(void)
{
	static Written want[KERNELS], got;
	const CpuTrainKernels *k;

	for (int i = 0; (k = cpu_train_kernels_variant(i)) != NULL; i++)
	{
		int differ = 0;

		for (int which = 0; which < KERNELS; which++)
		{
			run_kernel(k, which, i == 0 ? &want[which] : &got);
			differ += i > 0 && memcmp(&want[which], &got, sizeof got) != 0;
		}
		ok(differ == 0, "kernels for %s agree with the best variant", k->name);
	}
}

static void
check_token_variants(void)
{
	static float want[4][COUNT], got[4][COUNT];
	const CpuTrainTokenKernels *k;

	for (int i = 0; (k = cpu_train_token_kernels_variant(i)) != NULL; i++)
	{
		float(*to)[COUNT] = i == 0 ? want : got;

		memset(to, 0, sizeof want);
		k->layernorm(to[0], a, b, 48, 16, LANES, b, 1e-6f, to[1], to[2]);
		memcpy(to[3], a, sizeof a);
		k->softmax(to[3], b, LANES);
		ok(memcmp(want, to, sizeof want) == 0, "token kernels for %s agree with the best variant", k->name);
	}
}

static double
exact(DfxAct act, double t, bool derivative)
{
	double s = 1 / (1 + exp(-t)), phi = 0.5 * erfc(-t / sqrt(2));

	switch (act)
	{
		case DFX_ACT_RELU:
			return derivative ? t > 0 : fmax(t, 0);
		case DFX_ACT_SILU:
			return derivative ? s * (1 + t * (1 - s)) : t * s;
		case DFX_ACT_GELU:
			return derivative ? phi + t * exp(-t * t / 2) / sqrt(2 * M_PI) : t * phi;
		case DFX_ACT_SIGMOID:
			return derivative ? s * (1 - s) : s;
		default:
			return derivative ? 1 : t;
	}
}

/* Values and derivatives over -30 .. 30, and at infinity. */
static void
check_acts(void)
{
	enum
	{
		POINTS = 12001
	};
	static const char *const name[] = {"none", "relu", "silu", "gelu", "sigmoid"};
	static const float zero[16], one[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
	static float x[POINTS], y[POINTS], dz[POINTS], g[POINTS];
	const CpuTrainKernels *k = cpu_train_kernels();
	double sum[2] = {0};

	for (int i = 0; i < POINTS; i++)
	{
		x[i] = (float) (i - POINTS / 2) / 200;
		dz[i] = 1;
	}
	for (DfxAct act = DFX_ACT_RELU; act < DFX_ACT_COUNT; act++)
	{
		CpuPush p = {.g = g,
		             .gps = 1,
		             .dz = dz,
		             .zps = 1,
		             .x = x,
		             .xps = 1,
		             .npix = POINTS,
		             .nl = 1,
		             .norm = {zero, one, zero},
		             .act = act,
		             .sum = &sum[0],
		             .sum_x = &sum[1]};
		float far[2] = {1e30f, -1e30f}, at[2];
		double worst = 0;

		k->act(y, 1, x, 1, POINTS, 1, &p.norm, act);
		k->push(&p);
		for (int i = 0; i < POINTS; i++)
		{
			worst = fmax(worst, fabs((double) y[i] - exact(act, (double) x[i], false)) /
			                        fmax(1, fabs((double) x[i])));
			worst = fmax(worst, fabs((double) g[i] - exact(act, (double) x[i], true)));
		}
		if (!ok(worst < 1e-6, "%s and its derivative are within 1e-6", name[act]))
			diag("%g", worst);
		k->act(at, 1, far, 1, 2, 1, &p.norm, act);
		ok(isfinite(at[0]) && isfinite(at[1]), "%s is finite far out", name[act]);
	}
}

int
main(void)
{
	uint32_t seed = 5;

	for (int i = 0; i < COUNT; i++)
	{
		a[i] = noise(&seed);
		b[i] = noise(&seed);
	}
	check_variants();
	check_token_variants();
	check_acts();
	return done_testing();
}
