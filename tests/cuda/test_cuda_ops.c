/*
 * test_cuda_ops.c
 *	  Does every op give the oracle's result on the CUDA backend, in all three
 *	  types, as far as that can be said without a GPU: lowering, strides,
 *	  weights' layouts, and the kernels' arithmetic on the host?
 */
#include "tests/backend/token_cases.h"
#include "tests/cuda/host_rt.h"

int
main(void)
{
	static const struct
	{
		DfxPrecision precision;
		double tolerance;
	} type[] = {{DFX_PRECISION_FP32, 0}, {DFX_PRECISION_FP16, 6e-3}, {DFX_PRECISION_BF16, 4e-2}};
	DfxDevOpts opts = {0};

	for (size_t i = 0; i < sizeof type / sizeof type[0]; i++)
	{
		HostRt *rt = host_rt_new();
		uint64_t all;

		subject = (Subject){.be = &host_backend,
		                    .dev = host_device(rt, &opts),
		                    .precision = type[i].precision,
		                    .tolerance = type[i].tolerance};
		check_image_ops();
		check_token_ops();

		/* So that no kernel passes because nothing ran it. */
		all = ((uint64_t) 1 << GPU_TRAIN_FIRST) - 1;
		if (type[i].precision == DFX_PRECISION_FP32)
			all &= ~((uint64_t) 1 << GPU_CONV_MMA | (uint64_t) 1 << GPU_COMPARE);
		ok(rt->seen == all, "every kernel ran in %s", dfx_precision_name[type[i].precision]);
		gpu_close(subject.dev);
		ok(rt->blocks == 0 && rt->graphs == 0, "all memory and graphs are given back");
		free(rt);
	}
	return done_testing();
}
