/*
 * test_gpu_ops.c
 *	  Does every op give the oracle's result on a GPU, in all three types: the
 *	  cases of test_cuda_ops.c, with real kernels and libraries?
 */
#include "tests/backend/token_cases.h"
#include "tests/gpu/gpu_device.h"

int
main(void)
{
	static const struct
	{
		DfxPrecision precision;
		double tolerance;
	} type[] = {{DFX_PRECISION_FP32, 0}, {DFX_PRECISION_FP16, 6e-3}, {DFX_PRECISION_BF16, 4e-2}};

	if (!gpu_open(&subject.be, &subject.dev))
		return 0;
	for (size_t i = 0; i < sizeof type / sizeof type[0]; i++)
	{
		subject.precision = type[i].precision;
		subject.tolerance = type[i].tolerance;
		check_image_ops();
		check_token_ops();
	}
	subject.be->close(subject.dev);
	return done_testing();
}
