/*
 * test_cpu_point8.c
 *	  Do 1x1 convolutions on integers by our own loops (src/cpu/point8.c) give the
 *	  oracle's sums, with every stride, epilogue and destination, at every number of
 *	  pixels modulo theirs; and are those that are not for them left to the library?
 *
 * The library is told that the CPU has no bf16, so that all else is in fp32.
 */
#include "cpu/kernels_point8.h"
#include "tests/backend/conv8_cases.h"

static const Conv8Case cases[] = {
    {64, 6, 6, 64, STEPS, true, false, 1},
    {64, 13, 7, 256, STEPS, true, false, 1},
    {64, 9, 11, 64, ADD_STEPS, true, false, 1},
    {128, 5, 7, 128, ADD_STEPS, true, false, 1},
    {256, 8, 8, 128, STEPS, true, false, 1},
    {36, 10, 10, 64, STEPS, true, false, 1},       /* the last vector of bytes is not full */
    {64, 16, 16, 128, STEPS, true, true, 1},       /* steps end at 255 */
    {256, 30, 17, 64, STEPS, true, false, 1},      /* many blocks */
    {64, 13, 15, 64, STEPS, true, false, 1, 2},    /* odd sizes, of which every other pixel is read */
    {64, 12, 12, 128, ADD_FLOATS, true, false, 1}, /* a residual in floats */
    {320, 13, 15, 64, ADD_FLOATS, true, false, 1, 2},
    {320, 9, 9, 320, ADD_PLAIN, true, false, 1}, /* a residual in steps, a result in floats */
    {64, 8, 8, 64, PLAIN, false, false, 1},      /* floats: the library's */
    {64, 8, 8, 64, RELU, false, false, 1},
    {320, 8, 8, 64, STEPS, false, false, 1}, /* many channels */
    {64, 8, 8, 48, STEPS, false, false, 1},  /* off the panel */
    {30, 8, 8, 64, STEPS, false, false, 1},
};

int
main(void)
{
	setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI", 1);
	if (!int8_open() || cpu_point8_kernels() == NULL)
		diag("this CPU leaves all to the library");
	else
		for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
			check_conv8(&cases[i], "point8:");
	int8_close();
	return done_testing();
}
