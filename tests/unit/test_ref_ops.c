/*
 * test_ref_ops.c
 *	  Does the oracle compute what PyTorch computes, op by op?
 *
 * The cases are those of op_cases.h; their outputs
 * under PyTorch are in tests/golden/ops/ops.txt.  One more test runs a whole
 * published network on the oracle.  Runs from the top of the tree.
 */
#include "tests/ref/ref.h"
#include "tests/unit/golden_net.h"
#include "tests/unit/op_cases.h"
#include "tests/unit/run_net.h"
#include "tests/unit/tap.h"

#define TOLERANCE 3e-7 /* of the largest magnitude: a float's rounding or two */

/* Read the next case of the file and compare. */
static void
check_case(FILE *f, const struct OpCase *k)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	char name[32] = "";
	int c = 0, h = 0, w = 0;
	float in[512], *out[DFX_MAX_OUT] = {NULL};
	const DfxValue *v;
	double worst = 0, max = 0;
	DfxStatus st;

	dfx_output(g, k->build(g, dfx_input_f32(g, k->c, k->h, k->w)), "y");
	for (size_t i = 0; i < sizeof in / sizeof in[0]; i++)
		in[i] = op_input(i);
	st = dfx_graph_finish(g, &err);
	if (st == DFX_OK)
		st = dfx_weights_random(g, OP_WEIGHT_SEED, &err);
	if (st == DFX_OK)
		st = run_net(&dfx_ref_backend, g, in, 1, out, &err);
	if (!ok(st == DFX_OK, "%s runs", k->name))
		diag("%s", err.msg);
	v = &g->val[g->out[0]];
	ok(fscanf(f, "%31s %d %d %d", name, &c, &h, &w) == 4 && strcmp(name, k->name) == 0 && c == v->c &&
	       h == v->h && w == v->w,
	   "%s has the shape of PyTorch's output", k->name);
	for (int i = 0; i < c * h * w && st == DFX_OK; i++)
	{
		double want;

		if (fscanf(f, "%lf", &want) != 1)
			worst = INFINITY;
		worst = fmax(worst, fabs((double) out[0][i] - want));
		max = fmax(max, fabs(want));
	}
	if (!ok(max > 0 && worst <= TOLERANCE * max, "%s gives PyTorch's numbers", k->name))
		diag("largest difference %g of %g", worst, max);
	free_net(out);
	dfx_graph_free(g);
}

/* The graph's input op, on pixels where the answer can be written down. */
static void
check_rgb8(void)
{
	static const uint8_t pixel[2 * 3] = {0, 128, 255, 255, 0, 1};
	static const double want[6] = {-0.485 / 0.229, (1 - 0.485) / 0.229, (128 / 255.0 - 0.456) / 0.224,
	                               -0.456 / 0.224, (1 - 0.406) / 0.225, (1 / 255.0 - 0.406) / 0.225};
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	float *out[DFX_MAX_OUT] = {NULL};
	bool same = true;

	dfx_output(g, dfx_input_rgb8(g, 1, 2), "y");
	if (!ok(dfx_graph_finish(g, &err) == DFX_OK &&
	            run_net(&dfx_ref_backend, g, pixel, 1, out, &err) == DFX_OK,
	        "pixels run"))
		diag("%s", err.msg);
	for (int i = 0; i < 6; i++)
		same = same && out[0] && fabs((double) out[0][i] - want[i]) < 1e-6;
	ok(same, "pixels are normalised by ImageNet's mean and deviation, channel by channel");
	free_net(out);
	dfx_graph_free(g);
}

/* The first case of resnet18, as built: every layer of a published network in its place. */
static void
check_network(void)
{
	static uint8_t pixels[GOLDEN_PIXELS];
	static GoldenCase c;
	FILE *f = fopen("tests/golden/nets/resnet18.txt", "r");
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	float *out[DFX_MAX_OUT] = {NULL};
	DfxStatus st = dfx_build_backbone(g, dfx_backbone_find("resnet18"), 1000, &err);

	golden_pattern(0, pixels);
	ok(f && golden_next(f, &c) == 1 && strcmp(c.image, "pattern:0") == 0 &&
	       c.hash == golden_fnv1a(pixels, sizeof pixels),
	   "resnet18 has a golden case on pattern:0, and the pixels are the same");
	if (st == DFX_OK)
		st = dfx_weights_random(g, c.seed, &err);
	if (st == DFX_OK)
		st = run_net(&dfx_ref_backend, g, pixels, 1, out, &err);
	if (!ok(st == DFX_OK && golden_error(&c.features, out[0]) < 2e-6 &&
	            golden_error(&c.logits, out[1]) < 2e-6,
	        "resnet18 gives PyTorch's features and logits"))
		diag("%s features %g logits %g", err.msg, out[0] ? golden_error(&c.features, out[0]) : -1,
		     out[1] ? golden_error(&c.logits, out[1]) : -1);
	free_net(out);
	dfx_graph_free(g);
	if (f)
		fclose(f);
}

int
main(void)
{
	FILE *f = fopen("tests/golden/ops/ops.txt", "r");
	char rest[2];

	if (!ok(f && fscanf(f, "#%*[^\n]\n") == 0, "tests/golden/ops/ops.txt can be read"))
		return done_testing();
	for (int i = 0; i < OP_CASES; i++)
		check_case(f, &op_case[i]);
	ok(fscanf(f, "%1s", rest) == EOF, "the file has no case more");
	fclose(f);
	check_rgb8();
	check_network();
	return done_testing();
}
