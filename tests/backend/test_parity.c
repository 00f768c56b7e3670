/*
 * test_parity.c
 *	  Do the published networks give PyTorch's features and logits on the CPU
 *	  backend?
 *
 * Every backbone of dfx_backbones, and some tri-branch nets, optimised for the
 * backend, in fp32, against tests/golden/nets (tests/golden/make_nets.py).
 * Inputs are patterns and encoded files; what is decoded is first compared
 * with what PyTorch saw.  Arguments choose networks by name.  Runs from the
 * top of the tree.
 */
#include "cpu/cpu.h"
#include "image/image.h"
#include "tests/unit/golden_net.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

/* Of the largest magnitude.  Direct fp32 keeps well below; Winograd's error is about 1e-5. */
#define BACKBONE_TOLERANCE 1e-4
#define TRINET_TOLERANCE   1e-3

static const struct
{
	const char *backbone;
	int stride;
} trinet[] = {{"densenet121", 1}, {"resnet18", 1}, {"resnet18", 2}, {"resnext101_32x4d", 2}};

/* A compiled network of one seed. */
typedef struct Net
{
	DfxPlan *plan;
	uint64_t seed;
	float *features, *logits;
} Net;

static bool
load_pixels(const GoldenCase *c, uint8_t *rgb)
{
	if (strncmp(c->image, "pattern:", 8) == 0)
		golden_pattern(atoi(c->image + 8), rgb);
	else
	{
		DfxImageLimits limits = DFX_DEFAULT_LIMITS;
		char path[128];
		size_t len = 0;
		uint8_t *bytes;
		DfxErr err = {0};
		DfxStatus st = DFX_EIO;

		snprintf(path, sizeof path, "tests/golden/images/%s", c->image);
		bytes = slurp(path, &len);
		if (bytes)
			st = dfx_image_prepare(bytes, len, &limits, GOLDEN_SIDE, rgb, &err);
		if (st != DFX_OK)
			diag("%s: %s", path, bytes ? err.msg : "cannot be read");
		free(bytes);
		if (st != DFX_OK)
			return false;
	}
	return c->hash == golden_fnv1a(rgb, GOLDEN_PIXELS);
}

static void
net_close(Net *n)
{
	if (n->plan)
		dfx_cpu_backend.release(n->plan);
	free(n->features);
	free(n->logits);
	*n = (Net){0};
}

/* Build, fill by the seed, optimise, compile. */
static DfxStatus
net_open(Net *n, DfxDev *dev, const DfxBackbone *b, int stride, const GoldenCase *c, DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = 1, .precision = DFX_PRECISION_FP32};
	DfxGraph *g = dfx_graph_new();
	DfxStatus st = stride ? dfx_build_trinet(g, b, stride, err) : dfx_build_backbone(g, b, 1000, err);

	net_close(n);
	n->seed = c->seed;
	if (st == DFX_OK)
		st = dfx_weights_random(g, c->seed, err);
	if (st == DFX_OK)
		st = dfx_graph_optimize(g, dfx_cpu_backend.supports, dev, err);
	if (st == DFX_OK)
		st = dfx_cpu_backend.compile(dev, g, &opts, &n->plan, err);
	n->features = calloc((size_t) c->features.n, sizeof(float));
	n->logits = calloc((size_t) c->logits.n, sizeof(float));
	dfx_graph_free(g);
	return st;
}

static void
check_network(DfxDev *dev, const char *label, const DfxBackbone *b, int stride)
{
	static uint8_t pixels[GOLDEN_PIXELS];
	static GoldenCase c;
	double tolerance = stride ? TRINET_TOLERANCE : BACKBONE_TOLERANCE;
	double worst = 0;
	int want_features = b ? b->features * (stride ? 3 : 1) : 0;
	int got, cases = 0;
	char path[128];
	Net net = {0};
	FILE *f;

	snprintf(path, sizeof path, "tests/golden/nets/%s.txt", label);
	f = fopen(path, "r");
	if (!ok(f && b, "%s exists, and so does its golden file", label))
		return;
	while ((got = golden_next(f, &c)) == 1)
	{
		DfxErr err = {0};
		DfxStatus st = DFX_OK;
		double features = INFINITY, logits = INFINITY;

		cases++;
		if (!ok(load_pixels(&c, pixels) && c.features.n == want_features && c.logits.n == (stride ? 3 : 1000),
		        "%s: pixels of %s and lengths are PyTorch's", label, c.image))
			continue;
		if (!net.plan || net.seed != c.seed)
			st = net_open(&net, dev, b, stride, &c, &err);
		if (st == DFX_OK)
			st = dfx_cpu_backend.forward(net.plan, pixels, 1, (float *[]){net.features, net.logits}, &err);
		if (st == DFX_OK)
		{
			features = golden_error(&c.features, net.features);
			logits = golden_error(&c.logits, net.logits);
		}
		if (!ok(features <= tolerance && logits <= tolerance, "%s: seed %" PRIu64 ", %s", label, c.seed,
		        c.image))
			diag("features %g, logits %g, allowed %g %s", features, logits, tolerance, err.msg);
		worst = fmax(worst, fmax(features, logits));
	}
	ok(got == 0 && cases >= 6, "%s: the golden file is whole", label);
	diag("%s: largest relative difference %.2g in %d cases", label, worst, cases);
	net_close(&net);
	fclose(f);
}

static bool
chosen(const char *label, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], label) == 0)
			return true;
	return argc == 1;
}

int
main(int argc, char **argv)
{
	DfxDevOpts opts = {.threads = 0};
	DfxErr err = {0};
	DfxDev *dev = NULL;

	if (!ok(dfx_cpu_backend.open(&opts, &dev, &err) == DFX_OK, "the CPU backend opens"))
	{
		diag("%s", err.msg);
		return done_testing();
	}
	for (int i = 0; i < dfx_nbackbones; i++)
		if (chosen(dfx_backbones[i].name, argc, argv))
			check_network(dev, dfx_backbones[i].name, &dfx_backbones[i], 0);
	for (size_t i = 0; i < sizeof trinet / sizeof trinet[0]; i++)
	{
		char label[64];

		snprintf(label, sizeof label, "trinet_%s_s%d", trinet[i].backbone, trinet[i].stride);
		if (chosen(label, argc, argv))
			check_network(dev, label, dfx_backbone_find(trinet[i].backbone), trinet[i].stride);
	}
	dfx_cpu_backend.close(dev);
	return done_testing();
}
