/*
 * int8_cases.h
 *	  Networks on 8-bit integers, on the CPU backend and on the oracle.
 *
 * Both count in exact integers, but round floats to steps that were computed in
 * different orders: now and then one differs by a step, and the networks carry
 * that on.
 */
#ifndef DFX_TESTS_INT8_CASES_H
#define DFX_TESTS_INT8_CASES_H

#include "base/names.h"
#include "cpu/cpu.h"
#include "tests/backend/net_cases.h"

#define INT8_IMAGES 5 /* a bucket of four and one of one */

static Subject cpu = {.be = &dfx_cpu_backend, .precision = DFX_PRECISION_INT8};
static Subject oracle = {.be = &dfx_ref_backend, .precision = DFX_PRECISION_INT8};

/* ---- calibration ---- */

static DfxStatus
largest_inputs(const Subject *on, const DfxGraph *g, const void *in, const int *op, int nop, float *largest,
               DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = INT8_IMAGES, .precision = DFX_PRECISION_FP32};
	DfxPlan *plan;
	DfxStatus st = on->be->compile(on->dev, g, &opts, &plan, err);

	if (st != DFX_OK)
		return st;
	st = on->be->largest(plan, in, INT8_IMAGES, op, nop, largest, err);
	on->be->release(plan);
	return st;
}

/* Steps from the largest input of all images, which both backends must find; how many convolutions there are.
 */
static int
calibrate(DfxGraph *g, const void *in, const char *what)
{
	int *op = calloc((size_t) g->nop, sizeof *op), nop = dfx_graph_quantizable(g, op);
	size_t n = (size_t) nop * INT8_IMAGES;
	float *got = calloc(n + 1, sizeof *got), *want = calloc(n + 1, sizeof *want);
	DfxErr err = {0};
	bool ran = largest_inputs(&cpu, g, in, op, nop, got, &err) == DFX_OK &&
	           largest_inputs(&oracle, g, in, op, nop, want, &err) == DFX_OK;

	if (!ok(ran && relative_error(got, want, n) < 2e-5, "%s: the largest inputs of %d convolutions", what,
	        nop))
		diag("%s", ran ? "they differ" : err.msg);
	for (int j = 0; j < nop; j++)
	{
		float largest = 0;

		for (int i = 0; i < INT8_IMAGES; i++)
			largest = fmaxf(largest, want[i * nop + j]);
		g->op[op[j]].in_step = largest / DFX_SCALE_STEPS;
	}
	free(op);
	free(got);
	free(want);
	return nop;
}

/* ---- against the oracle ---- */

static double
mean_error(const float *got, const float *want, size_t n)
{
	double diff = 0, size = 1e-30;

	for (size_t i = 0; i < n; i++)
	{
		diff += fabs((double) got[i] - (double) want[i]);
		size += fabs((double) want[i]);
	}
	return diff / size;
}

/* The outputs on integers are the oracle's, and nearer to it (when sharp) than the oracle is to those in
 * floats. */
static void
check_outputs(const DfxGraph *g, const void *in, double tolerance, bool sharp, const char *what)
{
	Subject floats = {.be = &dfx_cpu_backend, .dev = cpu.dev, .precision = DFX_PRECISION_FP32};
	float *got[DFX_MAX_OUT] = {0}, *want[DFX_MAX_OUT] = {0}, *exact[DFX_MAX_OUT] = {0};
	DfxErr err = {0};
	bool ran = run_graph(&cpu, g, INT8_IMAGES, in, got, &err) == DFX_OK &&
	           run_graph(&oracle, g, INT8_IMAGES, in, want, &err) == DFX_OK &&
	           run_graph(&floats, g, INT8_IMAGES, in, exact, &err) == DFX_OK;

	if (!ok(ran, "%s runs", what))
		diag("%s", err.msg);
	for (int i = 0; ran && i < g->nout; i++)
	{
		size_t n = INT8_IMAGES * graph_output_floats(g, i);
		double error = mean_error(got[i], want[i], n), rounding = mean_error(want[i], exact[i], n);

		if (!ok(error <= tolerance && rounding > 0 && (!sharp || error < rounding), "%s: %s", what,
		        g->out_name[i]))
			diag("error %g, allowed %g; of rounding %g", error, tolerance, rounding);
	}
	free_outputs(got);
	free_outputs(want);
	free_outputs(exact);
}

/* An image alone gives the bits that it gives among others. */
static void
check_alone(const DfxGraph *g, const void *in, const char *what)
{
	float *all[DFX_MAX_OUT] = {0}, *one[DFX_MAX_OUT] = {0};
	DfxErr err = {0};
	bool rgb8;
	size_t image = graph_input_bytes(g, &rgb8), bytes = graph_output_floats(g, 0) * sizeof(float);
	bool ran = run_graph(&cpu, g, INT8_IMAGES, in, all, &err) == DFX_OK &&
	           run_graph(&cpu, g, 1, (const char *) in + image, one, &err) == DFX_OK;

	ok(ran && memcmp((const char *) all[0] + bytes, one[0], bytes) == 0, "%s: the same bits alone", what);
	free_outputs(all);
	free_outputs(one);
}

static void
check_quantized_net(const DfxBackbone *bb, int branches, bool sharp)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	char what[96];
	void *in;

	snprintf(what, sizeof what, "%s, %d branch(es)", bb->name, branches);
	if (!ok(build_net(g, bb, branches, &err) == DFX_OK && dfx_weights_random(g, 5, &err) == DFX_OK &&
	            dfx_graph_optimize(g, cpu.be->supports, cpu.dev, &err) == DFX_OK,
	        "%s builds", what))
		diag("%s", err.msg);
	in = noise_images(g, INT8_IMAGES, 3);
	calibrate(g, in, what);
	check_outputs(g, in, 2e-2, sharp, what);
	check_alone(g, in, what);
	free(in);
	dfx_graph_free(g);
}

/* Whether there is something to test on this CPU; the devices are open then. */
static bool
int8_open(void)
{
	DfxDevOpts opts = {.threads = 2};
	DfxErr err = {0};
	DfxDevInfo info = {.threads = 0};

	if (ok(cpu.be->open(&opts, &cpu.dev, &err) == DFX_OK &&
	           oracle.be->open(&opts, &oracle.dev, &err) == DFX_OK,
	       "devices"))
		cpu.be->info(cpu.dev, &info);
	if (!info.precision[DFX_PRECISION_INT8])
		diag("no int8 here: %s", info.why_not[DFX_PRECISION_INT8] ? info.why_not[DFX_PRECISION_INT8] : "");
	return info.precision[DFX_PRECISION_INT8];
}

static void
int8_close(void)
{
	cpu.be->close(cpu.dev);
	oracle.be->close(oracle.dev);
}

/* Every reduced network of the families that are covered; the head, on floats, behind one of them. */
__attribute__((unused)) static void
check_quantized_nets(bool sharp)
{
	for (int i = 0; i < TINY_NETS; i++)
		if (strcmp(tiny_nets[i].family, "densenet") == 0 || strcmp(tiny_nets[i].family, "resnet") == 0)
		{
			check_quantized_net(&tiny_nets[i], 1, sharp);
			if (i == 0)
				check_quantized_net(&tiny_nets[i], 3, sharp);
		}
}

#endif /* DFX_TESTS_INT8_CASES_H */
