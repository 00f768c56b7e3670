/*
 * test_cpu_int8_faint.c
 *	  Do 8-bit integers keep what is small beside the picture?
 *
 * A network that measures how an image was made looks for small differences
 * between large numbers: its transitions take differences of channels that are
 * all about as large, as those of the starter model do (models/make_start.py).
 * What rounding does to them is to be small beside what the images differ by.
 */
#include "tests/backend/int8_cases.h"

#define FAINT_LEVEL 2.0f  /* what all channels have in common */
#define FAINT_PART  0.05f /* by how much they vary, beside that */
#define FAINT_MOST  0.1   /* of the deviation of an image's features from the mean image's */

/* The data of a parameter; a name that there is not fails the test. */
static float *
faint_param(DfxGraph *g, const char *name, size_t *n)
{
	const DfxParam *p = find_param(g, name);

	if (p == NULL)
		abort();
	*n = dfx_param_count(p);
	return p->data;
}

/* Transition number t: inputs that a ReLU hardly bends, and filters that sum up to nothing. */
static void
faint_transition(DfxGraph *g, int t)
{
	char name[DFX_NAME_LEN];
	size_t channels, n;
	float *p;

	snprintf(name, sizeof name, "features.transition%d.norm.weight", t);
	p = faint_param(g, name, &channels);
	for (size_t i = 0; i < channels; i++)
		p[i] *= FAINT_PART * FAINT_LEVEL;
	snprintf(name, sizeof name, "features.transition%d.norm.bias", t);
	p = faint_param(g, name, &channels);
	for (size_t i = 0; i < channels; i++)
		p[i] = FAINT_LEVEL;
	snprintf(name, sizeof name, "features.transition%d.conv.weight", t);
	p = faint_param(g, name, &n);
	for (size_t row = 0; row < n; row += channels)
	{
		float mean = 0;

		for (size_t i = 0; i < channels; i++)
			mean += p[row + i] / (float) channels;
		for (size_t i = 0; i < channels; i++)
			p[row + i] = (p[row + i] - mean) / (FAINT_PART * FAINT_LEVEL);
	}
}

/* Images of noise, each of another strength. */
static uint8_t *
faint_images(const DfxGraph *g)
{
	bool rgb8;
	size_t bytes = graph_input_bytes(g, &rgb8);
	uint8_t *in = noise_images(g, INT8_IMAGES, 9);

	for (size_t i = 0; i < INT8_IMAGES * bytes; i++)
		in[i] = (uint8_t) (128 + ((int) in[i] - 128) * (int) (1 + i / bytes) / INT8_IMAGES);
	return in;
}

/* Root mean square of what got is off, over that of what the images differ by. */
static double
faint_error(const float *got, const float *want, size_t count)
{
	double off = 0, differ = 1e-30;

	for (size_t k = 0; k < count; k++)
	{
		double mean = 0;

		for (size_t i = 0; i < INT8_IMAGES; i++)
			mean += (double) want[i * count + k] / INT8_IMAGES;
		for (size_t i = 0; i < INT8_IMAGES; i++)
		{
			double d = (double) want[i * count + k] - mean,
			       e = (double) got[i * count + k] - (double) want[i * count + k];

			differ += d * d;
			off += e * e;
		}
	}
	return sqrt(off / differ);
}

static void
check_faint(const Subject *on, const DfxGraph *g, const void *in, const char *what)
{
	Subject floats = {.be = &dfx_cpu_backend, .dev = cpu.dev, .precision = DFX_PRECISION_FP32};
	float *got[DFX_MAX_OUT] = {0}, *want[DFX_MAX_OUT] = {0};
	DfxErr err = {0};
	bool ran = run_graph(on, g, INT8_IMAGES, in, got, &err) == DFX_OK &&
	           run_graph(&floats, g, INT8_IMAGES, in, want, &err) == DFX_OK;
	double error = ran ? faint_error(got[0], want[0], graph_output_floats(g, 0)) : INFINITY;

	if (!ok(error < FAINT_MOST, "%s: features are off by %.3f of what images differ by", what, error))
		diag("%s", ran ? "too much is lost" : err.msg);
	free_outputs(got);
	free_outputs(want);
}

int
main(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	uint8_t *in;

	setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI", 1);
	if (int8_open())
	{
		ok(build_net(g, &tiny_nets[0], 1, &err) == DFX_OK && dfx_weights_random(g, 5, &err) == DFX_OK,
		   "%s builds", tiny_nets[0].name);
		for (int t = 1; t <= 3; t++)
			faint_transition(g, t);
		ok(dfx_graph_optimize(g, cpu.be->supports, cpu.dev, &err) == DFX_OK, "... and is optimised");
		in = faint_images(g);
		ok(calibrate(g, in, tiny_nets[0].name) > 0 && dfx_graph_calibrated(g), "... and calibrated");
		check_faint(&cpu, g, in, "the CPU backend");
		check_faint(&oracle, g, in, "the oracle");
		free(in);
	}
	dfx_graph_free(g);
	int8_close();
	return done_testing();
}
