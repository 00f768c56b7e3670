/*
 * test_cpu_group.c
 *	  Do grouped convolutions in blocks of 16 channels (src/cpu/group.c) give the
 *	  oracle's results, for groups, strides and sizes of all sorts, in every batch
 *	  alike; do their loops keep to the image and to its groups; are they taken
 *	  where they should be, all of ResNeXt's above all; and is all else left to the
 *	  library, and everything where the CPU has no AVX-512?
 */
#include <sys/wait.h>
#include <unistd.h>

#include "cpu/kernels_group.h"
#include "nn/families.h"
#include "tests/backend/cpu_precisions.h"
#include "tests/backend/cpu_steps.h"

#define TOLERANCE 2e-5

/* What differs from ResNeXt's. */
typedef enum Oddity
{
	NONE = 0,
	BETWEEN,  /* 1x1 convolutions before and after */
	ADD,      /* a residual is added */
	UNPADDED, /* no padding */
	POINT,    /* a kernel of 1x1 */
	DOUBLED   /* as many channels again come out */
} Oddity;

static const char *const oddity[] = {
    [NONE] = "",       [BETWEEN] = ", between two of 1x1", [ADD] = ", a sum", [UNPADDED] = ", unpadded",
    [POINT] = ", 1x1", [DOUBLED] = ", channels doubled",
};

static const struct GroupCase
{
	int c, h, w, width, stride; /* channels, pixels, channels of a group */
	bool relu;
	Oddity odd;
	bool ours, ours_bf16; /* whether it is one for group.c */
} cases[] = {
    {128, 16, 16, 4, 1, true, NONE, true, true},
    {64, 13, 17, 4, 1, false, NONE, true, true},
    {128, 15, 16, 4, 2, true, NONE, true, true},
    {64, 7, 31, 8, 1, true, NONE, true, true},
    {64, 14, 33, 8, 2, false, NONE, true, true},
    {64, 16, 16, 16, 1, true, NONE, true, true},
    {48, 9, 25, 16, 1, false, NONE, true, true},
    {64, 9, 18, 16, 2, true, NONE, true, true},
    {64, 8, 8, 32, 1, true, NONE, true, true},
    {96, 5, 24, 32, 2, true, NONE, true, true},
    {128, 6, 9, 64, 1, true, NONE, true, true},
    {128, 7, 7, 64, 2, false, NONE, true, true},
    {96, 6, 7, 48, 1, true, NONE, true, true},
    {32, 4, 5, 2, 1, true, NONE, true, true},
    {32, 2, 2, 8, 1, true, NONE, true, true},
    {32, 1, 5, 4, 1, false, NONE, true, true},
    {32, 6, 1, 16, 2, true, NONE, true, true},
    {32, 1, 1, 4, 1, true, NONE, true, true},
    {32, 2, 3, 16, 2, true, NONE, true, true},
    {20, 9, 9, 4, 1, true, NONE, true, true}, /* off the block */
    {40, 6, 11, 8, 2, false, NONE, true, true},
    {64, 10, 12, 4, 1, true, BETWEEN, true, true},
    {64, 11, 9, 32, 2, true, BETWEEN, true, true},
    {32, 2, 2, 16, 2, true, NONE, true, false},  /* to one pixel */
    {48, 9, 9, 12, 1, true, NONE, false, false}, /* groups across blocks */
    {72, 8, 8, 24, 1, false, NONE, false, false},
    {64, 9, 9, 16, 3, true, NONE, false, false},
    {64, 9, 9, 16, 1, true, ADD, false, false},
    {64, 9, 9, 16, 1, true, UNPADDED, false, false},
    {64, 9, 9, 16, 1, true, POINT, false, false},
    {64, 9, 9, 16, 1, true, DOUBLED, false, false},
};

static Subject on;
static bool ours, ours_fp32; /* whether the CPU has the loops; those for floats */

static void
build(DfxGraph *g, const struct GroupCase *k)
{
	DfxConv conv = DFX_CONV2D(3, k->stride, k->odd == UNPADDED ? 0 : 1);
	DfxVal in = dfx_input_f32(g, k->c, k->h, k->w), x = in;

	if (k->odd == BETWEEN)
		x = dfx_act(g, dfx_conv(g, x, "before", k->c, DFX_CONV2D(1, 1, 0), true), DFX_ACT_RELU);
	if (k->odd == POINT)
		conv = DFX_CONV2D(1, 1, 0);
	conv.groups = k->c / k->width;
	x = dfx_conv(g, x, "conv", k->odd == DOUBLED ? 2 * k->c : k->c, conv, !k->relu);
	if (k->relu)
		x = dfx_bn(g, x, "bn", 1e-5f);
	if (k->odd == ADD)
		x = dfx_add(g, x, in);
	if (k->relu)
		x = dfx_act(g, x, DFX_ACT_RELU);
	if (k->odd == BETWEEN)
		x = dfx_conv(g, x, "after", 24, DFX_CONV2D(1, 1, 0), true);
	dfx_output(g, x, "out");
}

static void
check_case(const struct GroupCase *k)
{
	enum
	{
		IMAGES = 7 /* of one worker: four, two, one */
	};
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = IMAGES, .precision = on.precision};
	DfxPlan *plan = NULL;
	DfxErr err = {.msg = ""};
	const bool fp32 = on.precision == DFX_PRECISION_FP32;
	/* A value of one pixel is floats in every precision. */
	const bool want = (k->h * k->w == 1 ? ours_fp32 : ours) && (fp32 ? k->ours : k->ours_bf16);
	char what[128];

	snprintf(what, sizeof what, "%d channels of %dx%d by %d, stride %d%s%s", k->c, k->h, k->w, k->width,
	         k->stride, k->relu ? ", ReLU" : "", oddity[k->odd]);
	build(g, k);
	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 4, &err) != DFX_OK ||
	    dfx_graph_optimize(g, dfx_cpu_backend.supports, on.dev, &err) != DFX_OK ||
	    dfx_cpu_backend.compile(on.dev, g, &opts, &plan, &err) != DFX_OK)
		ok(false, "%s: %s", what, err.msg);
	else
	{
		ok(count_steps(plan, "group") == want, "%s: %s", what, want ? "ours" : "the library's");
		ok(same_alone(plan, g, IMAGES, &err), "%s: the same bits alone", what);
		for (int n = 1; n <= IMAGES; n += 3)
			same_as_ref(&on, g, n, TOLERANCE, what);
	}
	dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
}

/* All 33 of them in a ResNeXt-101. */
static void
check_resnext(const char *name)
{
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = 4, .precision = on.precision};
	DfxPlan *plan = NULL;
	DfxErr err = {.msg = ""};

	if (dfx_build_backbone(g, dfx_backbone_find(name), 10, &err) == DFX_OK &&
	    dfx_weights_random(g, 4, &err) == DFX_OK &&
	    dfx_graph_optimize(g, dfx_cpu_backend.supports, on.dev, &err) == DFX_OK)
		dfx_cpu_backend.compile(on.dev, g, &opts, &plan, &err);
	if (!ok(plan && count_steps(plan, "group") == (ours ? 33 : 0), "%s, %s: all grouped convolutions", name,
	        dfx_precision_name[on.precision]))
		diag("%s", err.msg);
	dfx_cpu_backend.release(plan);
	dfx_graph_free(g);
}

/* ---- the loops by themselves ---- */

enum
{
	PLANES = 2,
	CHANNELS = PLANES * CPU_GROUP_LANES,
	MOST = 19, /* pixels of a side */
	GUARD = 64,
	NUMBERS = CHANNELS * MOST * MOST
};

/* A bf16 is the upper half of a float. */
static void
put(void *to, size_t i, float x, CpuType type)
{
	uint32_t bits;

	memcpy(&bits, &x, sizeof bits);
	if (type == CPU_BF16)
		memcpy((char *) to + i * sizeof(uint16_t), (const char *) &bits + sizeof(uint16_t), sizeof(uint16_t));
	else
		memcpy((char *) to + i * sizeof x, &x, sizeof x);
}

/* Weights of the kernel that leaves images as they are: 1 in its middle, from each channel to itself. */
static void
identity_weights(void *to, const CpuGroupConv *g, CpuType type)
{
	const size_t each = type == CPU_BF16 ? 2 : 1, units = (size_t) cpu_group_units(g, type);

	memset(to, 0, cpu_group_weights(g, type) * sizeof(float));
	for (size_t p = 0; p < (size_t) g->planes; p++)
		for (size_t o = 0; o < CPU_GROUP_LANES; o++)
		{
			const size_t i = o % (size_t) g->width, row = (p * (size_t) g->planes + p) * CPU_GROUP_TAPS + 1;
			const size_t word = ((row * units + i / each) * CPU_GROUP_TAPS + 1) * CPU_GROUP_LANES + o;

			put(to, word * each + i % each, 1, type);
		}
}

static bool
untouched(const char *from, size_t n)
{
	bool same = true;

	for (size_t i = 0; i < n; i++)
		same = same && from[i] == (char) -1;
	return same;
}

/*
 * A set convolved with the identity is itself, or every second pixel of itself, to
 * the bit.  All around it lies what is not a number, which would show in the result
 * if it were read; nothing around the result and the scratch memory is written.
 */
static void
check_identity(const CpuGroupKernels *k, CpuType type, const CpuGroupConv *g)
{
	static char src[NUMBERS * 4 + 2 * GUARD], dst[NUMBERS * 4 + 2 * GUARD],
	    weights[PLANES * PLANES * 9 * 1024];
	static char rows[PLANES * 3 * 72 * CPU_GROUP_LANES * 4];
	static const float bias[CHANNELS];
	const size_t size = cpu_size(type), pixel = CPU_GROUP_LANES * size, scratch = cpu_group_scratch(g, type);
	const size_t lanes = (size_t) (g->planes * CPU_GROUP_LANES),
	             bytes = lanes * (size_t) (g->oh * g->ow) * size;
	uint32_t seed = 9;
	bool same = true;

	memset(src, -1, sizeof src);
	memset(dst, -1, sizeof dst);
	memset(rows, -1, sizeof rows);
	for (size_t i = 0; i < lanes * (size_t) (g->h * g->w); i++)
		put(src + GUARD, i, (float) (int) (100 * noise(&seed)), type);
	identity_weights(weights, g, type);
	k->convolve(dst + GUARD, rows, src + GUARD, g, weights, bias);
	for (int p = 0; p < g->planes; p++)
		for (int y = 0; y < g->oh; y++)
			for (int x = 0; x < g->ow; x++)
				same =
				    same &&
				    memcmp(dst + GUARD + (size_t) ((p * g->oh + y) * g->ow + x) * pixel,
				           src + GUARD + (size_t) ((p * g->h + y * g->stride) * g->w + x * g->stride) * pixel,
				           pixel) == 0;
	ok(same, "%s, %dx%d pixels, groups of %d, %d plane(s), stride %d: the identity leaves each bit", k->name,
	   g->h, g->w, g->width, g->planes, g->stride);
	ok(scratch + GUARD <= sizeof rows && untouched(dst, GUARD) && untouched(dst + GUARD + bytes, GUARD) &&
	       untouched(rows + scratch, GUARD),
	   "and nothing around is written");
}

/* What is not a number stays in its group, whose first channel has one in every pixel. */
static void
check_apart(const CpuGroupKernels *k, CpuType type, int width)
{
	enum
	{
		SIDE = 5
	};
	static float src[SIDE * SIDE * CPU_GROUP_LANES], dst[SIDE * SIDE * CPU_GROUP_LANES], weights[9 * 16 * 16];
	static float rows[3 * 72 * CPU_GROUP_LANES], bias[CPU_GROUP_LANES];
	const CpuGroupConv g = {SIDE, SIDE, SIDE, SIDE, 1, 1, width, false};
	bool apart = true;

	for (size_t i = 0; i < sizeof src / sizeof *src; i++)
		put(src, i, i % CPU_GROUP_LANES == 0 ? NAN : 1, type);
	for (size_t i = 0; i < cpu_group_weights(&g, type) * (type == CPU_BF16 ? 2 : 1); i++)
		put(weights, i, 1, type);
	k->convolve(dst, rows, src, &g, weights, bias);
	for (size_t i = 0; i < sizeof src / sizeof *src; i++)
	{
		const uint32_t bits = type == CPU_BF16 ? (uint32_t) ((const uint16_t *) (const void *) dst)[i] << 16
		                                       : ((const uint32_t *) (const void *) dst)[i];
		float x;

		memcpy(&x, &bits, sizeof x);
		apart = apart && isnan(x) == (i % CPU_GROUP_LANES < (size_t) width);
	}
	ok(apart, "%s, groups of %d: one does not see another", k->name, width);
}

static void
check_loops(const CpuGroupKernels *k, CpuType type)
{
	for (int width = 2; width <= CPU_GROUP_LANES; width *= 2)
	{
		check_apart(k, type, width);
		for (int i = 0; i < 2 * MOST; i++)
		{
			const int stride = i % 2 + 1, w = i / 2 + 1, h = (i * 7 + width) % MOST + 1;
			const CpuGroupConv g = {.h = h,
			                        .w = w,
			                        .oh = (h - 1) / stride + 1,
			                        .ow = (w - 1) / stride + 1,
			                        .stride = stride,
			                        .planes = width == CPU_GROUP_LANES ? i / 2 % PLANES + 1 : 1,
			                        .width = width};

			check_identity(k, type, &g);
		}
	}
}

static void
check_all(void)
{
	const bool half = on.precision == DFX_PRECISION_BF16;
	DfxDevInfo info;

	dfx_cpu_backend.info(on.dev, &info);
	ours_fp32 = strstr(info.name, "(avx512") != NULL;
	ours = half ? strstr(info.name, "(avx512_core_bf16)") != NULL : ours_fp32; /* no bf16 where AMX is */
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_case(&cases[i]);
	check_resnext("resnext101_32x4d");
	if (!ours)
		return;
	check_resnext("resnext101_32x8d");
	check_loops(half ? cpu_group_bf16_kernels() : cpu_group_kernels(), half ? CPU_BF16 : CPU_F32);
}

/* The same in a process of its own, on a CPU that has no AVX-512, as far as the library is concerned. */
static void
check_without(void)
{
	pid_t child = fork();
	int status = -1;

	if (child == 0)
	{
		if (freopen("/dev/null", "w", stdout) == NULL)
			_exit(1);
		setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
		for_cpu_precisions(&on, 1, check_all);
		exit(ours ? 1 : done_testing());
	}
	ok(child > 0 && waitpid(child, &status, 0) == child && status == 0,
	   "all is the library's without AVX-512");
}

int
main(void)
{
	check_without();
	for_cpu_precisions(&on, 1, check_all);
	return done_testing();
}
