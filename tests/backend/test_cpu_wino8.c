/*
 * test_cpu_wino8.c
 *	  Do 3x3 convolutions on integers by Winograd's algorithm (src/cpu/wino8.c)
 *	  give the oracle's sums, at every size modulo its tile, with every epilogue
 *	  and destination, however large the numbers; and are those that could leave
 *	  32 bits, or are not for it, left to the library?
 *
 * The library is told that the CPU has no bf16, so that all else is in fp32.
 */
#include "cpu/kernels_wino8.h"
#include "tests/backend/conv8_cases.h"

static const Conv8Case cases[] = {
    {32, 12, 12, 16, PLAIN, true},       {32, 13, 15, 32, RELU, true},
    {64, 14, 17, 48, STEPS, true},       {64, 15, 13, 64, ADD_FLOATS, true},
    {64, 17, 18, 64, ADD_STEPS, true},   {256, 16, 16, 32, STEPS, true},
    {64, 14, 15, 64, ADD_PLAIN, true},   {32, 40, 40, 32, ADD_STEPS, true},     /* many blocks */
    {64, 16, 16, 32, PLAIN, true, true}, {128, 16, 16, 32, PLAIN, false, true}, /* sums that might not fit */
    {288, 12, 12, 16, PLAIN, false},                                            /* too many channels */
    {48, 16, 16, 32, PLAIN, false},                                             /* off the block */
    {32, 16, 16, 24, PLAIN, false},      {32, 11, 16, 32, PLAIN, false},        /* small */
};

/* What is stored as bf16 or in steps is what is stored as floats, rounded; pixels beyond the image are let
 * be. */
static void
check_join(const CpuWino8Kernels *k)
{
	enum
	{
		CO = 32,
		H = 6,
		W = 7,
		N = H * W * CO
	};
	static int32_t sums[CPU_WINO8_POINTS * CO + CPU_WINO8_LANES];
	static float bias[CO], scale[CO], floats[N];
	static uint16_t halves[N], rounded[N];
	static uint8_t steps[N];
	const CpuWino8Tile tile = {4, 4, H, W};
	CpuInt8Epilogue epi = {.scale = scale, .bias = bias, .type = CPU_F32, .relu = true};
	uint32_t seed = 5;
	int wrong = 0;

	for (int i = 0; i < CPU_WINO8_POINTS * CO; i++)
		sums[i] = (int32_t) (1e6f * noise(&seed));
	for (int i = 0; i < CO; i++)
	{
		bias[i] = noise(&seed);
		scale[i] = 1e-6f;
	}
	for (int i = 0; i < N; i++)
	{
		floats[i] = -1;
		halves[i] = 0xbf80; /* the same */
		steps[i] = 77;
	}
	k->join(floats, sums, CO, CO, &tile, &epi);
	epi.type = CPU_BF16;
	k->join(halves, sums, CO, CO, &tile, &epi);
	epi.type = CPU_U8;
	for (int i = 0; i < CO; i++)
	{
		bias[i] *= 8; /* in steps of an eighth */
		scale[i] *= 8;
	}
	k->join(steps, sums, CO, CO, &tile, &epi);
	dfx_tensor_of_f32(DFX_BF16, floats, N, rounded);
	for (int i = 0; i < N; i++)
	{
		int y = i / CO / W, x = i / CO % W;
		bool inside = y >= 4 && x >= 4;

		wrong += inside ? floats[i] < 0 || steps[i] != (uint8_t) fminf(rintf(floats[i] * 8), 255)
		                : floats[i] >= 0 || steps[i] != 77;
	}
	ok(wrong == 0 && memcmp(halves, rounded, sizeof halves) == 0, "a tile at an edge, in all three types");
}

int
main(void)
{
	setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI", 1);
	if (!int8_open() || cpu_wino8_kernels() == NULL)
	{
		diag("this CPU leaves all to the library");
		int8_close();
		return done_testing();
	}
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		check_conv8(&cases[i], "wino_4x3:");
	check_join(cpu_wino8_kernels());
	int8_close();
	return done_testing();
}
