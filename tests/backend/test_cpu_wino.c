/*
 * test_cpu_wino.c
 *	  Do convolutions of signals by Winograd's algorithm (src/cpu/wino1d.c) give
 *	  the oracle's result, at every width modulo its tile, with every epilogue;
 *	  and are the cases that it is not for left to the library?
 */
#include "cpu/kernels.h"
#include "tests/backend/wino_cases.h"

#define TOLERANCE 1e-5 /* up to 5e-6 was seen, 3e-7 from direct sums */

typedef struct WinoCase
{
	int ci, w, co, pad;
	bool relu, bn;
	bool wino; /* whether it is one for it */
} WinoCase;

static const WinoCase cases[] = {
    {64, 16, 32, 1, false, false, true},   {64, 17, 32, 1, true, false, true},
    {64, 18, 32, 1, false, true, true},    {64, 19, 32, 1, true, true, true},
    {256, 1018, 512, 1, true, true, true}, {512, 122, 1024, 1, true, false, true},
    {32, 64, 16, 1, true, true, true},     {64, 64, 32, 0, true, true, false}, /* no padding */
    {64, 15, 32, 1, true, true, false},    {16, 64, 64, 1, true, true, false}, /* short; few channels */
    {40, 64, 36, 1, true, true, false},                                        /* off the block */
};

static void
check_case(const Subject *on, const WinoCase *k)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_conv1d(g, dfx_input_f32(g, k->ci, 1, k->w), "conv", k->co, 3, 1, k->pad);
	char what[96];

	if (k->relu)
		x = dfx_act(g, x, DFX_ACT_RELU);
	if (k->bn)
		x = dfx_bn(g, x, "bn", 1e-5f);
	dfx_output(g, x, "out");
	snprintf(what, sizeof what, "%d to %d channels, %d wide, padded by %d%s%s", k->ci, k->co, k->w, k->pad,
	         k->relu ? ", ReLU" : "", k->bn ? ", BatchNorm" : "");
	check_wino(on, g, "wino1d", k->wino, TOLERANCE, what);
	dfx_graph_free(g);
}

/* Every variant of the loops gives the same bits. */
static void
check_variants(void)
{
	enum
	{
		C = 48,
		W = 30,
		TILES = (W + 3) / 4,
		POINTS = CPU_WINO_POINTS * TILES * C
	};
	static float src[C * W], epi[3 * C], points[2][POINTS], dst[2][C * W];
	const CpuWinoKernels *k;
	uint32_t seed = 3;

	for (int i = 0; i < C * W; i++)
		src[i] = noise(&seed);
	for (int i = 0; i < 3 * C; i++)
		epi[i] = noise(&seed);
	for (int vec = 8; vec <= C; vec *= vec < 16 ? 2 : 3)
		for (int i = 0; (k = cpu_wino_kernels_variant(i)) != NULL; i++)
		{
			const CpuWinoSide side = {C, vec, W, TILES, (size_t) W * (size_t) vec};
			const CpuWinoEpilogue e = {epi, epi + C, epi + 2 * C, true};
			int to = i > 0;

			memset(points[to], 0xff, sizeof points[to]);
			memset(dst[to], 0xff, sizeof dst[to]);
			k->split(points[to], src, &side);
			k->join(dst[to], points[to], &side, &e);
			ok(memcmp(points[to], points[0], sizeof points[0]) == 0 &&
			       memcmp(dst[to], dst[0], sizeof dst[0]) == 0,
			   "loops for %s agree with the best variant on planes of %d channels", k->name, vec);
		}
}

int
main(void)
{
	DfxDevOpts opts = {.threads = 2};
	Subject on = {.be = &dfx_cpu_backend, .precision = DFX_PRECISION_FP32};
	DfxErr err = {.msg = ""};

	if (!ok(dfx_cpu_backend.open(&opts, &on.dev, &err) == DFX_OK, "a device opens"))
		return done_testing();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_case(&on, &cases[i]);
	check_variants();
	dfx_cpu_backend.close(on.dev);
	return done_testing();
}
