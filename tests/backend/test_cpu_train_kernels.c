/*
 * test_cpu_train_kernels.c
 *	  Do the loops of training agree to the bit for every instruction set this
 *	  CPU has, for any number of lanes, on floats and on bfloat16s; is a float
 *	  rounded to a bfloat16 as src/base rounds it; are activations and their
 *	  derivatives right over the whole range, and finite far out?
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"
#include "cpu/kernels_train.h"
#include "tests/backend/against_ref.h"
#include "tests/unit/tap.h"

enum
{
	LANES = 45, /* two vectors of 16, one of 8, and 5 */
	PIXELS = 35,
	COUNT = LANES * PIXELS,
	KERNELS = 7,
	WINDOWS = 3,
	TYPES = 3 /* floats; bfloat16s; bfloat16s where values are stored, floats elsewhere */
};

/* What the kernels read, in either type, and what each wrote: numbers, then sums. */
static float a[COUNT], b[COUNT];
static uint16_t half_a[COUNT], half_b[COUNT];
typedef struct Written
{
	float f[2][COUNT];
	double d[2][COUNT];
} Written;

/* A run over all of an array: of floats, or its twin in bfloat16. */
static CpuStrip
strip(CpuType type, float *x, uint16_t *half)
{
	return (CpuStrip){type == CPU_BF16 ? (void *) half : (void *) x, LANES, type};
}

/* What is written lies where floats would. */
static CpuStrip
written(CpuType type, float *x)
{
	return strip(type, x, (uint16_t *) (void *) x);
}

static void
run_kernel(const CpuTrainKernels *k, int which, int types, Written *w)
{
	const DfxAdamScalars adam = {1e-3f, 0.9f, 0.999f, 0.1f, 1e-3f, -1e-4f, 0.03f, 1e-8f};
	const CpuNorm norm = {a, b, a + LANES};
	CpuType stored = types > 0 ? CPU_BF16 : CPU_F32, passing = types == 1 ? CPU_BF16 : CPU_F32;
	CpuStrip sa = strip(stored, a, half_a), sb = strip(stored, b, half_b);
	static float moment[COUNT];
	CpuPush push = {.g = written(stored, w->f[0]),
	                .dz = strip(passing, a, half_a),
	                .x = sb,
	                .npix = PIXELS,
	                .nl = LANES,
	                .norm = norm,
	                .act = DFX_ACT_GELU,
	                .add = true,
	                .sum = w->d[0],
	                .sum_x = w->d[1]};

	memset(w, 0, sizeof *w);
	memset(moment, 0, sizeof moment);
	memcpy(w->f[1], sb.at, sizeof half_b);
	switch (which)
	{
		case 0:
			k->act(written(passing, w->f[0]), sa, PIXELS, LANES, &norm, DFX_ACT_SILU);
			break;
		case 1:
			k->push(&push);
			break;
		case 2:
			k->moments(sa, PIXELS, LANES, w->f[0], w->f[1]);
			break;
		case 3:
			k->finish(written(stored, w->f[1]), sa, PIXELS, LANES, true, a, b, b + LANES);
			break;
		case 4:
			k->sum(w->d[0], sa, &sb, PIXELS, LANES);
			k->sum(w->d[1], sa, NULL, PIXELS, LANES);
			break;
		case 5:
			k->copy(written(stored, w->f[0]), strip(passing, a, half_a), PIXELS, LANES, false);
			k->copy(written(stored, w->f[0]), sb, PIXELS, LANES, true);
			k->copy(written(passing, w->f[1]), sa, PIXELS, LANES, true);
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
	static Written want[KERNELS][TYPES], got;
	const CpuTrainKernels *k;

	for (int i = 0; (k = cpu_train_kernels_variant(i)) != NULL; i++)
	{
		int differ = 0;

		for (int which = 0; which < KERNELS * TYPES; which++)
		{
			Written *all = &want[0][0] + which;

			run_kernel(k, which / TYPES, which % TYPES, i == 0 ? all : &got);
			differ += i > 0 && memcmp(all, &got, sizeof got) != 0;
		}
		ok(differ == 0, "kernels for %s agree with the best variant", k->name);
	}
}

static void
check_window_variants(void)
{
	const CpuPoolGeom pool = {.ih = 5, .iw = 7, .oh = 3, .ow = 4, .kh = 3, .kw = 3, .s = 2, .p = 1};
	const CpuDepthwise depthwise = {5, 7, 3, 4, 5, 5, 2, 2, 2, 2};
	static float want[WINDOWS][COUNT], got[WINDOWS][COUNT];
	const CpuTrainWindowKernels *k;

	for (int i = 0; (k = cpu_train_window_kernels_variant(i)) != NULL; i++)
	{
		float(*to)[COUNT] = i == 0 ? want : got;

		memset(to, 0, sizeof want);
		k->unpool(to[0], a, LANES, b, LANES, LANES, &pool, false);
		for (CpuType type = CPU_F32; type <= CPU_BF16; type++)
			k->depthwise(to[1 + type], strip(type, a, half_a), strip(type, b, half_b), LANES, &depthwise);
		ok(memcmp(want, to, sizeof want) == 0, "window kernels for %s agree with the best variant", k->name);
	}
}

/* Every bfloat16 there is, and floats between them: ties, what overflows, what is no number. */
static void
check_rounding(void)
{
	enum
	{
		ALL = 65536
	};
	static const uint32_t low[] = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
	static float from[ALL], back[ALL];
	static uint16_t got[ALL], want[ALL];
	const CpuTrainKernels *k = cpu_train_kernels();
	CpuStrip sf = {from, 16, CPU_F32}, sg = {got, 16, CPU_BF16}, sb = {back, 16, CPU_F32};
	int wrong = 0;

	for (size_t l = 0; l < sizeof low / sizeof low[0]; l++)
	{
		for (uint32_t i = 0; i < ALL; i++)
			memcpy(&from[i], &(uint32_t){i << 16 | low[l]}, sizeof from[i]);
		k->copy(sg, sf, ALL / 16, 16, false);
		dfx_tensor_of_f32(DFX_BF16, from, ALL, want);
		k->copy(sb, sg, ALL / 16, 16, false);
		for (int i = 0; i < ALL; i++)
			if (isnan(from[i]))
				wrong += !isnan(back[i]);
			else
				wrong += got[i] != want[i] || (low[l] == 0 && back[i] != from[i]);
	}
	ok(wrong == 0, "floats become bfloat16s as in src/base, and go back as they are");
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
		CpuPush p = {.g = {g, 1, CPU_F32},
		             .dz = {dz, 1, CPU_F32},
		             .x = {x, 1, CPU_F32},
		             .npix = POINTS,
		             .nl = 1,
		             .norm = {zero, one, zero},
		             .act = act,
		             .sum = &sum[0],
		             .sum_x = &sum[1]};
		float far[2] = {1e30f, -1e30f}, at[2];
		double worst = 0;

		k->act((CpuStrip){y, 1, CPU_F32}, p.x, POINTS, 1, &p.norm, act);
		k->push(&p);
		for (int i = 0; i < POINTS; i++)
		{
			worst = fmax(worst, fabs((double) y[i] - exact(act, (double) x[i], false)) /
			                        fmax(1, fabs((double) x[i])));
			worst = fmax(worst, fabs((double) g[i] - exact(act, (double) x[i], true)));
		}
		if (!ok(worst < 1e-6, "%s and its derivative are within 1e-6", name[act]))
			diag("%g", worst);
		k->act((CpuStrip){at, 1, CPU_F32}, (CpuStrip){far, 1, CPU_F32}, 2, 1, &p.norm, act);
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
	dfx_tensor_of_f32(DFX_BF16, a, COUNT, half_a);
	dfx_tensor_of_f32(DFX_BF16, b, COUNT, half_b);
	check_variants();
	check_window_variants();
	check_rounding();
	check_token_variants();
	check_acts();
	return done_testing();
}
