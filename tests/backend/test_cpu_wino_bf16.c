/*
 * test_cpu_wino_bf16.c
 *	  Do convolutions in bf16 by Winograd's algorithm (src/cpu/wino_bf16.c) give
 *	  the oracle's result, at every size modulo their tiles, with every epilogue
 *	  and off the block; the same bits in every batch; do their loops keep to the
 *	  image; and are the cases that they are not for left to the library?
 */
#include "cpu/kernels_wino_bf16.h"
#include "tests/backend/cpu_precisions.h"
#include "tests/backend/wino_cases.h"

#define TOLERANCE 1.5e-2 /* up to 7e-3 was seen */

typedef enum Residual
{
	NO_ADD,
	ADD,      /* the sum takes over the residual's place */
	ADD_KEPT, /* the residual is read again */
} Residual;

typedef struct WinoCase
{
	int ci, h, w, co;
	int kh, pad;
	Residual add;
	bool relu, bn;
	bool wino; /* whether it is one for it */
} WinoCase;

static const WinoCase cases[] = {
    {64, 16, 16, 32, 3, 1, NO_ADD, false, false, true},
    {64, 17, 23, 64, 3, 1, ADD, true, false, true}, /* odd sizes; blocks that end within rows and images */
    {64, 18, 21, 64, 3, 1, ADD_KEPT, true, false, true},
    {32, 5, 6, 16, 3, 1, NO_ADD, true, true, true},      /* nine tiles; a group of one plane */
    {192, 32, 32, 48, 3, 1, NO_ADD, false, false, true}, /* DenseNet-161's: a group of three */
    {96, 9, 8, 80, 3, 1, ADD, true, true, true},         /* groups of two, two and one */
    {256, 8, 8, 128, 3, 1, ADD, true, false, true},      /* small blocks */
    {36, 9, 9, 20, 3, 1, NO_ADD, true, true, true},      /* channels off the block */
    {64, 12, 13, 32, 3, 0, NO_ADD, true, false, true},   /* no padding */
    {64, 11, 8, 32, 3, 2, NO_ADD, false, true, true},    /* more than there need be */
    {64, 1, 16, 32, 1, 1, NO_ADD, false, false, true},   /* signals */
    {256, 1, 122, 512, 1, 1, NO_ADD, true, true, true},
    {512, 1, 57, 256, 1, 1, NO_ADD, true, false, true},
    {36, 1, 63, 20, 1, 0, NO_ADD, true, true, true},
    {16, 16, 16, 32, 3, 1, NO_ADD, true, false, false}, /* few channels */
    {64, 4, 4, 32, 3, 1, NO_ADD, true, false, false},   /* few tiles */
    {64, 1, 14, 32, 1, 1, NO_ADD, true, false, false},
};

static Subject on;
static bool chosen; /* on this CPU */

static void
check_case(const WinoCase *k)
{
	static const char *const add_name[] = {"", ", a sum", ", a sum with what is kept"};
	const DfxConv conv = {k->kh, 3, 1, 1, k->kh == 1 ? 0 : k->pad, k->pad};
	DfxGraph *g = dfx_graph_new();
	DfxVal in = dfx_input_f32(g, k->ci, k->h, k->w), x, residual = in;
	char what[128];

	if (k->add != NO_ADD)
		residual = dfx_conv(g, in, "residual", k->co, DFX_CONV2D(1, 1, 0), true);
	x = dfx_conv(g, in, "conv", k->co, conv, true);
	if (k->add != NO_ADD)
		x = dfx_add(g, x, residual);
	if (k->relu)
		x = dfx_act(g, x, DFX_ACT_RELU);
	if (k->bn)
		x = dfx_bn(g, x, "bn", 1e-5f);
	dfx_output(g, x, "out");
	if (k->add == ADD_KEPT)
		dfx_output(g, residual, "residual");
	snprintf(what, sizeof what, "%d to %d channels, %d x %d, %dx3, padded by %d%s%s%s", k->ci, k->co, k->h,
	         k->w, k->kh, k->pad, add_name[k->add], k->relu ? ", ReLU" : "", k->bn ? ", BatchNorm" : "");
	if (check_wino(&on, g, "wino_bf16", k->wino && chosen, TOLERANCE, what))
		check_wino_alone(&on, g, what);
	dfx_graph_free(g);
}

/* ---- the loops by themselves ---- */

enum
{
	PLANES = 2,
	CHANNELS = PLANES * CPU_WINO_BF16_LANES,
	MOST = 19, /* pixels of a side */
	GUARD = 64,
	NUMBERS = CHANNELS * MOST * MOST,
	TILES = 104, /* of an image of MOST x MOST, rounded up to CPU_WINO_BF16_ROWS */
	POINTS = CPU_WINO_BF16_SIDE * CPU_WINO_BF16_SIDE,
	PARTS = POINTS + 1 /* of weights */
};

/*
 * Weights of the kernel that leaves images as they are: 1 in its middle, from each channel to itself.  Parts
 * have equal shares of them.
 */
static void
identity_weights(uint16_t *weights, int npoints)
{
	static const float middle[CPU_WINO_BF16_SIDE] = {0, 0.5f, -0.5f, 0};

	memset(weights, 0, (size_t) PARTS * CHANNELS * CHANNELS * sizeof *weights);
	for (int k = 0; k < npoints; k++)
	{
		const int parts = cpu_wino_bf16_parts(npoints, k);
		float x = middle[k % CPU_WINO_BF16_SIDE];
		uint32_t bits;

		if (npoints == POINTS)
			x *= middle[k / CPU_WINO_BF16_SIDE];
		x /= (float) parts;
		memcpy(&bits, &x, sizeof bits);
		for (int i = 0; i < parts; i++, weights += CHANNELS * CHANNELS)
			for (int c = 0; c < CHANNELS; c++)
				weights[(c / 2 * CHANNELS + c) * 2 + c % 2] = (uint16_t) (bits >> 16);
	}
}

/* Small whole numbers, which bf16 holds exactly and so the sums of a tile. */
static void
whole_numbers(uint16_t *to, int n)
{
	uint32_t seed = 9;

	for (int i = 0; i < n; i++)
	{
		float x = (float) (int) (8 * noise(&seed));
		uint32_t bits;

		memcpy(&bits, &x, sizeof bits);
		to[i] = (uint16_t) (bits >> 16);
	}
}

static bool
untouched(const uint16_t *from, int n)
{
	bool same = true;

	for (int i = 0; i < n; i++)
		same = same && from[i] == 0xffff;
	return same;
}

/*
 * An image convolved with the identity is itself, to the bit.  All around it and
 * in the scratch memory lies what is not a number, which would show in the result
 * if it were read, and must still lie there around the result.
 */
static void
check_loops(int h, int w, int npoints)
{
	static uint16_t src[GUARD + NUMBERS + GUARD], dst[GUARD + NUMBERS + GUARD];
	static uint16_t weights[PARTS * CHANNELS * CHANNELS], points[POINTS * (TILES * CHANNELS + 96) + GUARD];
	static float sums[POINTS * (TILES * CHANNELS + 48) + GUARD], bias[CHANNELS];
	const CpuWinoBf16Kernels *k = cpu_wino_bf16_kernels();
	const CpuWinoImage image = {PLANES, h, w};
	const CpuWinoSplit split = {npoints, {npoints == POINTS ? 1 : 0, 1}};
	const CpuWinoBf16Epilogue epi = {.bias = bias};
	const int n = CHANNELS * h * w, high = npoints == POINTS ? (h + 1) / 2 : h, wide = (w + 1) / 2;
	const int tiles = (high * wide + CPU_WINO_BF16_ROWS - 1) / CPU_WINO_BF16_ROWS * CPU_WINO_BF16_ROWS;
	const size_t used = (size_t) npoints * cpu_wino_bf16_points_far(tiles, PLANES);
	const size_t sums_used = (size_t) npoints * cpu_wino_bf16_sums_far(tiles, PLANES);

	memset(src, 0xff, sizeof src);
	memset(dst, 0xff, sizeof dst);
	memset(points, 0xff, sizeof points);
	memset(sums, 0xff, sizeof sums);
	whole_numbers(src + GUARD, n);
	identity_weights(weights, npoints);
	for (int y = 0; y < high; y++)
		k->split(points, tiles, src + GUARD, &image, &(CpuWinoRun){y, 0, wide, y * wide}, &split);
	k->multiply(sums, points, weights, npoints, tiles, PLANES, PLANES);
	for (int y = 0; y < high; y++)
		for (int x = 0, half = (wide + 1) / 2; x < wide; x += half) /* in two runs */
			k->join(dst + GUARD, sums, npoints, tiles, 0, PLANES, &image,
			        &(CpuWinoRun){y, x, wide - x < half ? wide - x : half, y * wide + x}, &epi);
	ok(memcmp(dst + GUARD, src + GUARD, (size_t) n * sizeof *dst) == 0,
	   "%d x %d pixels, %d points: the identity leaves each bit", h, w, npoints);
	ok(untouched(dst, GUARD) && untouched(dst + GUARD + n, GUARD) && untouched(points + used, GUARD) &&
	       untouched((uint16_t *) (void *) (sums + sums_used), GUARD),
	   "and nothing around is written");
}

int
main(void)
{
	DfxDevOpts opts = {.threads = 2};
	DfxDevInfo info;
	DfxErr err = {.msg = ""};

	on = (Subject){.be = &dfx_cpu_backend, .precision = DFX_PRECISION_BF16};
	if (!ok(dfx_cpu_backend.open(&opts, &on.dev, &err) == DFX_OK, "a device opens"))
		return done_testing();
	dfx_cpu_backend.info(on.dev, &info);
	if (!info.precision[DFX_PRECISION_BF16])
		check_cpu_lacks(on.dev, DFX_PRECISION_BF16);
	else
	{
		chosen = strstr(info.name, "(avx512_core_bf16)") != NULL; /* not where AMX is */
		for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
			check_case(&cases[i]);
		for (int side = 1; side <= MOST; side++)
		{
			check_loops(side, MOST - side / 2, POINTS);
			check_loops(MOST - side / 2, side, POINTS);
			check_loops(side % 3 + 1, side, CPU_WINO_BF16_SIDE);
		}
	}
	dfx_cpu_backend.close(on.dev);
	return done_testing();
}
