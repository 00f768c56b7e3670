/*
 * test_cpu_int8.c
 *	  Does the CPU backend compute on 8-bit integers what the oracle computes, and
 *	  find the largest inputs that it finds?
 *
 * On a CPU of which the library is told that it has no bf16, so that the rest
 * is in fp32, as the oracle's is: then what differs is a step here and there,
 * less than what the steps round off.
 */
#include "cpu/kernels_int8.h"
#include "tests/backend/int8_cases.h"

#define KERNEL_PIXELS 7
#define KERNEL_LANES  37

/* By the definition in kernels_int8.h. */
static uint8_t
step_of(float x)
{
	return (uint8_t) (x > 0 ? fmin(rint((double) x), 255) : 0);
}

/* Every variant rounds as the definition says; special values included. */
static void
check_kernels(void)
{
	enum
	{
		N = KERNEL_PIXELS * KERNEL_LANES
	};
	static const float special[] = {NAN, INFINITY, -INFINITY, 0.5f, 1.5f, 254.5f, 255.5f, -0.5f, 1e30f};
	float src[N], scale[KERNEL_LANES + 16], shift[KERNEL_LANES + 16], back[N];
	uint16_t half[N], back_half[N];
	uint32_t seed = 3;

	for (int i = 0; i < N; i++)
	{
		uint32_t bits;

		src[i] = i < 9 ? special[i] : 200 * noise(&seed) + 100;
		memcpy(&bits, &src[i], sizeof bits);
		half[i] = (uint16_t) (bits >> 16);
	}
	for (int l = 0; l < KERNEL_LANES + 16; l++)
	{
		scale[l] = l < 9 ? 1 : 1 + 0.5f * noise(&seed);
		shift[l] = l < 9 ? 0 : 10 * noise(&seed);
	}
	for (int v = 0; cpu_int8_kernels_variant(v); v++)
	{
		const CpuInt8Kernels *k = cpu_int8_kernels_variant(v);
		uint8_t got[N], got_half[N];
		int wrong = 0;

		k->steps(got, KERNEL_LANES, src, KERNEL_LANES, KERNEL_PIXELS, KERNEL_LANES, scale, shift);
		k->steps_bf16(got_half, KERNEL_LANES, half, KERNEL_LANES, KERNEL_PIXELS, KERNEL_LANES, scale, shift);
		k->floats(back, got, N, 0.3f);
		k->halves(back_half, got, N, 0.3f);
		for (int i = 0; i < N; i++)
		{
			uint32_t bits = (uint32_t) half[i] << 16;
			float x, third = (float) got[i] * 0.3f;
			uint16_t rounded;

			memcpy(&x, &bits, sizeof x);
			dfx_tensor_of_f32(DFX_BF16, &third, 1, &rounded);
			wrong += got[i] != step_of(src[i] * scale[i % KERNEL_LANES] + shift[i % KERNEL_LANES]);
			wrong += got_half[i] != step_of(x * scale[i % KERNEL_LANES] + shift[i % KERNEL_LANES]);
			wrong += back[i] != third;
			wrong += back_half[i] != rounded;
		}
		if (!ok(wrong == 0, "the kernels for %s round as they should", k->name))
			diag("%d numbers are wrong", wrong);
	}
}

/* A published network: every convolution that can be calibrated runs on the CPU's own instructions for it. */
static void
check_published(const char *name)
{
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = 4, .precision = DFX_PRECISION_INT8};
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	int *op, nop = 0, fast = 0;
	bool built = dfx_build_trinet(g, dfx_backbone_find(name), 1, &err) == DFX_OK &&
	             dfx_weights_random(g, 1, &err) == DFX_OK &&
	             dfx_graph_optimize(g, cpu.be->supports, cpu.dev, &err) == DFX_OK;

	op = calloc((size_t) g->nop, sizeof *op);
	if (built)
		nop = dfx_graph_quantizable(g, op);
	for (int j = 0; j < nop; j++)
		g->op[op[j]].in_step = 0.02f;
	built = built && cpu.be->compile(cpu.dev, g, &opts, &plan, &err) == DFX_OK;
	for (int i = 0; built && i < dfx_cpu_plan_steps(plan); i++)
		fast += dfx_cpu_plan_impl(plan, i) != NULL && strstr(dfx_cpu_plan_impl(plan, i), "vnni") != NULL;
	if (!ok(built && nop > 0 && fast == nop, "%s: %d convolutions on 8-bit integers", name, nop))
		diag("%s; %d of them", built ? "some are not" : err.msg, fast);
	cpu.be->release(plan);
	free(op);
	dfx_graph_free(g);
}

int
main(void)
{
	setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI", 1);
	check_kernels();
	if (int8_open())
	{
		check_quantized_nets(true);
		check_published("densenet121");
		check_published("resnet18");
	}
	int8_close();
	return done_testing();
}
