/*
 * bench_train.c
 *	  How long a training step takes on a GPU, for part 7 of run.sh.
 *
 *		bench_train BACKBONE BATCH fp32|bf16 SECONDS
 *
 * One line of JSON: the median over rounds of ten steps each, pixels and
 * gradients of the loss going up and logits coming down as in training.  A
 * round ends when a parameter that the last step moved has come down.
 */
#include <string.h>

#include "tests/backend/against_ref.h"
#include "tests/bench/bench.h"
#include "tests/gpu/gpu_device.h"
#include "tests/unit/train_net.h"

enum
{
	BENCH_STEPS = 10,
	BENCH_ROUNDS = 200,
	BENCH_CLASSES = 2
};

/* Ten steps, the first of them numbered from; milliseconds of one, negative on failure. */
static double
bench_round(const DfxBackend *be, DfxPlan *plan, const DfxGraph *g, int n, const void *in, uint64_t from,
            DfxErr *err)
{
	DfxAdam adam = {.lr = 1e-4, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 1e-3};
	static float logits[1024 * BENCH_CLASSES], dlogits[1024 * BENCH_CLASSES];
	float *out[DFX_MAX_OUT] = {NULL, logits}, *one = malloc(dfx_param_count(&g->param[0]) * sizeof *one);
	const float *dout[DFX_MAX_OUT] = {NULL, dlogits};
	double began = now(CLOCK_MONOTONIC);
	DfxStatus st = DFX_OK;

	for (int i = 0; i < n * BENCH_CLASSES; i++)
		dlogits[i] = (i % BENCH_CLASSES ? 0.5f : -0.5f) / (float) n;
	for (int i = 0; st == DFX_OK && i < BENCH_STEPS; i++)
	{
		adam.step = from + (uint64_t) i;
		st = be->forward_train(plan, in, n, adam.step, out, err);
		if (st == DFX_OK)
			st = be->backward(plan, n, dout, NULL, err);
		if (st == DFX_OK)
			st = be->step(plan, &adam, err);
	}
	if (st == DFX_OK)
		st = train_read(be, plan, g, DFX_STATE_VALUE, 0, one, err);
	free(one);
	return st == DFX_OK ? (now(CLOCK_MONOTONIC) - began) * 1e3 / BENCH_STEPS : -1;
}

int
main(int argc, char **argv)
{
	const DfxBackbone *bb = argc == 5 ? dfx_backbone_find(argv[1]) : NULL;
	int n = argc == 5 ? atoi(argv[2]) : 0, rounds = 0;
	DfxPrecision precision =
	    argc == 5 && strcmp(argv[3], "bf16") == 0 ? DFX_PRECISION_BF16 : DFX_PRECISION_FP32;
	double took[BENCH_ROUNDS], end, ms = 0;
	const DfxBackend *be;
	DfxGraph *g = dfx_graph_new();
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	DfxDev *dev;
	void *in;

	if (!bb || n < 1 || n > 1024)
	{
		fprintf(stderr, "usage: bench_train BACKBONE BATCH fp32|bf16 SECONDS\n");
		return 2;
	}
	if (!gpu_open(&be, &dev))
		return 1;
	if (dfx_build_backbone(g, bb, BENCH_CLASSES, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK)
		plan = train_compile_in(precision, be, dev, g, n, &err);
	in = noise_images(g, n, 1);
	if (plan)
		ms = bench_round(be, plan, g, n, in, 1, &err); /* kernels are loaded at their first launch */
	end = now(CLOCK_MONOTONIC) + atof(argv[4]);
	while (plan && ms >= 0 && rounds < BENCH_ROUNDS && (rounds < 3 || now(CLOCK_MONOTONIC) < end))
	{
		rounds++;
		ms = took[rounds - 1] = bench_round(be, plan, g, n, in, (uint64_t) rounds * BENCH_STEPS + 1, &err);
	}
	if (!plan || ms < 0)
	{
		fprintf(stderr, "bench_train: %s %s\n", err.msg, err.hint);
		return 1;
	}
	printf("{\"backbone\": \"%s\", \"batch\": %d, \"precision\": \"%s\", \"ms\": %.4f, \"plan_mb\": %zu}\n",
	       bb->name, n, dfx_precision_name[precision], median(took, rounds), be->bytes(plan) >> 20);
	be->release(plan);
	be->close(dev);
	free(in);
	dfx_graph_free(g);
	return 0;
}
