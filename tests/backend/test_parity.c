/*
 * test_parity.c
 *	  Do the published networks give PyTorch's features and logits on the CPU
 *	  backend?
 *
 * Every backbone of dfx_backbones, and some tri-branch nets, optimised for the
 * backend, in fp32, against tests/golden/nets (tests/golden/make_nets.py),
 * each image alone and all together in a batch of 8; and in bf16, on a CPU
 * that has it, together only (test_cpu_plan.c proves that alone is the same).
 * Inputs are patterns and encoded files; what is decoded is first compared
 * with what PyTorch saw.  Arguments choose networks by name.
 * Runs from the top of the tree.
 */
#include "cpu/cpu.h"
#include "image/image.h"
#include "tests/unit/golden_net.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

/* Of the largest magnitude.  Direct fp32 keeps well below; Winograd's error is about 1e-5. */
#define BACKBONE_TOLERANCE 1e-4
#define TRINET_TOLERANCE   1e-3
#define BF16_TOLERANCE     2e-2

static const struct
{
	const char *backbone;
	int stride;
} trinet[] = {{"densenet121", 1}, {"efficientnet_b0", 1},  {"resnet18", 1},
              {"resnet18", 2},    {"resnext101_32x4d", 2}, {"vit_b_32", 2}};

enum
{
	MAX_CASES = 16,
	BATCH = 8
};

/* A golden file: its cases, those of a seed together, and their pixels as the network takes them. */
typedef struct Golden
{
	const char *label;
	const DfxBackbone *backbone;
	int stride; /* of the head; 0: a lone backbone */
	int n;
	GoldenCase c[MAX_CASES];
	uint8_t pixels[MAX_CASES][GOLDEN_PIXELS];
} Golden;

/* A compiled network of one seed. */
typedef struct Net
{
	DfxPrecision precision;
	DfxPlan *plan;
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

/* The middle of the image, in place. */
static void
crop(uint8_t *rgb, int side)
{
	int margin = (GOLDEN_SIDE - side) / 2;

	for (int y = 0; y < side; y++)
		memmove(rgb + y * side * 3, rgb + ((y + margin) * GOLDEN_SIDE + margin) * 3, (size_t) side * 3);
}

/* Build, fill by the seed, optimise, compile. */
static DfxStatus
net_open(Net *n, DfxDev *dev, const Golden *o, const GoldenCase *c, DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = BATCH, .precision = n->precision};
	DfxGraph *g = dfx_graph_new();
	DfxStatus st = o->stride ? dfx_build_trinet(g, o->backbone, o->stride, err)
	                         : dfx_build_backbone(g, o->backbone, 1000, err);

	if (st == DFX_OK)
		st = dfx_weights_random(g, c->seed, err);
	if (st == DFX_OK)
		st = dfx_graph_optimize(g, dfx_cpu_backend.supports, dev, err);
	if (st == DFX_OK)
		st = dfx_cpu_backend.compile(dev, g, &opts, &n->plan, err);
	n->features = calloc((size_t) c->features.n * BATCH, sizeof(float));
	n->logits = calloc((size_t) c->logits.n * BATCH, sizeof(float));
	dfx_graph_free(g);
	return st;
}

/* One forward of n images, the k-th of case at[k]; the worst difference, infinite after a failure. */
static double
net_run(Net *net, const Golden *o, const int *at, int n)
{
	size_t bytes = (size_t) o->backbone->input_size * (size_t) o->backbone->input_size * 3;
	uint8_t *in = malloc(bytes * (size_t) n);
	double worst = INFINITY;
	DfxErr err = {0};

	for (int k = 0; k < n; k++)
		memcpy(in + (size_t) k * bytes, o->pixels[at[k]], bytes);
	if (dfx_cpu_backend.forward(net->plan, in, n, (float *[]){net->features, net->logits}, &err) == DFX_OK)
		worst = 0;
	else
		diag("%s", err.msg);
	for (int k = 0; k < n; k++)
	{
		const GoldenCase *c = &o->c[at[k]];

		worst = fmax(worst, golden_error(&c->features, net->features + k * c->features.n));
		worst = fmax(worst, golden_error(&c->logits, net->logits + k * c->logits.n));
	}
	free(in);
	return worst;
}

/* Which of the kept logits is the largest. */
static int
top(const GoldenVector *v)
{
	int best = 0, kept = (v->n + v->step - 1) / v->step;

	for (int i = 1; i < kept; i++)
		if (v->kept[i] > v->kept[best])
			best = i;
	return best;
}

/* Whether a network answers as PyTorch does, up to a tie; logits as net_run() left them. */
static bool
same_answer(const GoldenVector *want, const float *logits, double tolerance)
{
	int best = top(want);

	for (int i = 0; i * want->step < want->n; i++)
		if (logits[i * want->step] > logits[best * want->step] &&
		    want->kept[best] - want->kept[i] > 2 * tolerance * want->max)
			return false;
	return true;
}

/* The cases from first up to end over and over, in one batch. */
static double
check_batch(Net *net, const Golden *o, int first, int end, double tolerance)
{
	int batch[BATCH];
	bool same = true;
	double e;

	for (int k = 0; k < BATCH; k++)
		batch[k] = first + k % (end - first);
	e = net_run(net, o, batch, BATCH);
	for (int k = 0; k < BATCH; k++)
	{
		const GoldenVector *want = &o->c[batch[k]].logits;

		same = same && same_answer(want, net->logits + k * want->n, tolerance);
	}
	if (!ok(e <= tolerance && same, "%s: seed %" PRIu64 ", a batch of %d in %s", o->label, o->c[first].seed,
	        BATCH, dfx_precision_name[net->precision]))
		diag("relative difference %g, allowed %g; answers %s", e, tolerance, same ? "the same" : "differ");
	return e;
}

/* The cases of one seed, from first up to end: in fp32 one by one, then together. */
static double
check_seed(DfxDev *dev, DfxPrecision precision, const Golden *o, int first, int end)
{
	double tolerance = o->stride ? TRINET_TOLERANCE : BACKBONE_TOLERANCE, worst = 0;
	Net net = {.precision = precision};
	DfxErr err = {0};

	if (precision == DFX_PRECISION_BF16)
		tolerance = BF16_TOLERANCE;
	if (!ok(net_open(&net, dev, o, &o->c[first], &err) == DFX_OK, "%s: seed %" PRIu64 " compiles in %s",
	        o->label, o->c[first].seed, dfx_precision_name[precision]))
		diag("%s", err.msg);
	for (int i = first; i < end && net.plan && precision == DFX_PRECISION_FP32; i++)
	{
		double e = net_run(&net, o, &i, 1);

		if (!ok(e <= tolerance, "%s: seed %" PRIu64 ", %s", o->label, o->c[i].seed, o->c[i].image))
			diag("relative difference %g, allowed %g", e, tolerance);
		worst = fmax(worst, e);
	}
	if (net.plan)
	{
		worst = fmax(worst, check_batch(&net, o, first, end, tolerance));
		dfx_cpu_backend.release(net.plan);
	}
	free(net.features);
	free(net.logits);
	return worst;
}

/* Read the golden file and the images it names. */
static bool
load(Golden *o)
{
	int want = o->backbone->features * (o->stride ? 3 : 1), got;
	char path[128];
	FILE *f;

	snprintf(path, sizeof path, "tests/golden/nets/%s.txt", o->label);
	f = fopen(path, "r");
	if (!ok(f != NULL, "%s can be read", path))
		return false;
	for (o->n = 0; o->n < MAX_CASES && (got = golden_next(f, &o->c[o->n])) == 1; o->n++)
	{
		const GoldenCase *c = &o->c[o->n];

		if (!ok(load_pixels(c, o->pixels[o->n]) && c->features.n == want &&
		            c->logits.n == (o->stride ? 3 : 1000),
		        "%s: pixels of %s and lengths are PyTorch's", o->label, c->image))
			break;
		crop(o->pixels[o->n], o->backbone->input_size);
	}
	fclose(f);
	return ok(got == 0 && o->n >= 6, "%s: the golden file is whole", o->label);
}

static void
check_network(DfxDev *dev, const char *label, const DfxBackbone *b, int stride)
{
	static Golden o;
	double worst[DFX_PRECISION_COUNT] = {0};
	DfxDevInfo info;

	dfx_cpu_backend.info(dev, &info);

	o.label = label;
	o.backbone = b;
	o.stride = stride;
	if (!load(&o))
		return;
	for (int first = 0, end; first < o.n; first = end)
	{
		for (end = first + 1; end < o.n && o.c[end].seed == o.c[first].seed;)
			end++;
		for (DfxPrecision p = DFX_PRECISION_FP32; p <= DFX_PRECISION_BF16; p++)
			if (info.precision[p])
				worst[p] = fmax(worst[p], check_seed(dev, p, &o, first, end));
	}
	diag("%s: largest relative difference %.2g in %d cases; in bf16 %.2g", label, worst[DFX_PRECISION_FP32],
	     o.n, worst[DFX_PRECISION_BF16]);
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
