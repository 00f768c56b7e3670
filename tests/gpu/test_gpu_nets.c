/*
 * test_gpu_nets.c
 *	  Do networks give on a GPU what they give on the CPU: reduced ones of every
 *	  family against the oracle, every backbone and the tri-branch net against
 *	  the CPU backend, fp32 within 1e-4, half precision within 2e-2 and with the
 *	  same answer; alone and in batches that use every bucket and both lanes?
 *
 * Arguments choose backbones by name.
 */
#include "cpu/cpu.h"
#include "tests/backend/net_cases.h"
#include "tests/gpu/gpu_device.h"

enum
{
	BATCH = 7, /* pieces of 4, 2 and 1, or one of 8 */
	CLASSES = 10
};

static const struct
{
	DfxPrecision precision;
	double tolerance;
} type[] = {{DFX_PRECISION_FP32, 1e-4}, {DFX_PRECISION_FP16, 2e-2}, {DFX_PRECISION_BF16, 2e-2}};

/* A backbone (branches 1) or the tri-branch net, optimised for a backend; NULL: it failed, and was said so.
 */
static DfxGraph *
network(const Subject *on, const DfxBackbone *b, int branches)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	DfxStatus st = branches == 1 ? dfx_build_backbone(g, b, CLASSES, &err) : dfx_build_trinet(g, b, 1, &err);

	if (st == DFX_OK)
		st = dfx_weights_random(g, 7, &err);
	if (st == DFX_OK)
		st = dfx_graph_optimize(g, on->be->supports, on->dev, &err);
	if (st == DFX_OK)
		return g;
	if (!ok(false, "%s builds", b->name))
		diag("%s", err.msg);
	dfx_graph_free(g);
	return NULL;
}

/* Run BATCH images; the outputs are malloc'd. */
static bool
run(const Subject *on, const DfxBackbone *b, int branches, const void *in, float *out[DFX_MAX_OUT])
{
	DfxGraph *g = network(on, b, branches);
	DfxErr err = {0};
	DfxStatus st;

	if (!g)
		return false;
	st = run_graph(on, g, BATCH, in, out, &err);
	if (st != DFX_OK && !ok(false, "%s runs in %s", b->name, dfx_precision_name[on->precision]))
		diag("%s", err.msg);
	dfx_graph_free(g);
	return st == DFX_OK;
}

static int
top(const float *logits, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
	return best;
}

/* How many images get another answer, and by more than rounding: a tie may go either way. */
static int
other_answers(const float *got, const float *want, int n, double tolerance)
{
	int others = 0;

	for (int k = 0; k < BATCH; k++)
	{
		const float *g = got + k * n, *w = want + k * n;
		int a = top(g, n), b = top(w, n);

		others += a != b && (double) (w[b] - w[a]) > 2 * tolerance * fabs((double) w[b]);
	}
	return others;
}

/* Outputs are "features", then "logits". */
static void
check_backbone(Subject *on, const Subject *cpu, const DfxBackbone *b, int branches)
{
	DfxGraph *g = network(cpu, b, branches);
	int n = branches == 1 ? CLASSES : 3;
	size_t features = (size_t) b->features * (size_t) branches;
	float *want[DFX_MAX_OUT] = {0};
	void *in;
	bool known;

	if (!g)
		return;
	in = noise_images(g, BATCH, 11);
	dfx_graph_free(g);
	known = run(cpu, b, branches, in, want);
	for (size_t i = 0; known && i < sizeof type / sizeof type[0]; i++)
	{
		float *got[DFX_MAX_OUT] = {0};

		on->precision = type[i].precision;
		if (run(on, b, branches, in, got))
		{
			double f = relative_error(got[0], want[0], BATCH * features);
			double l = relative_error(got[1], want[1], (size_t) BATCH * (size_t) n);

			ok(f <= type[i].tolerance && l <= type[i].tolerance,
			   "%s, %d branch(es), %s: features within %.2g, logits within %.2g", b->name, branches,
			   dfx_precision_name[type[i].precision], f, l);
			ok(other_answers(got[1], want[1], n, type[i].tolerance) == 0, "and the same answers");
		}
		free_outputs(got);
	}
	free_outputs(want);
	free(in);
}

static bool
chosen(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return argc < 2;
}

int
main(int argc, char **argv)
{
	Subject on = {0}, cpu = {.be = &dfx_cpu_backend, .precision = DFX_PRECISION_FP32};
	DfxDevOpts opts = {0};
	DfxErr err;

	if (!gpu_open(&on.be, &on.dev))
		return 0;
	if (dfx_cpu_backend.open(&opts, &cpu.dev, &err) != DFX_OK)
		return 1;
	for (int i = 0; i < TINY_NETS && argc < 2; i++)
	{
		on.precision = DFX_PRECISION_FP32;
		check_net(&on, &tiny_nets[i], 1, true, 3);
		check_net(&on, &tiny_nets[i], 1, false, 1);
		check_net(&on, &tiny_nets[i], 3, true, 2);
	}
	for (int i = 0; i < dfx_nbackbones; i++)
		if (chosen(dfx_backbones[i].name, argc, argv))
		{
			check_backbone(&on, &cpu, &dfx_backbones[i], 1);
			check_backbone(&on, &cpu, &dfx_backbones[i], 3);
		}
	dfx_cpu_backend.close(cpu.dev);
	on.be->close(on.dev);
	return done_testing();
}
