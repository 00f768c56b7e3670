/*
 * test_cuda_train_ops.c
 *	  Does every op have the oracle's gradients on the CUDA backend, in fp32 and
 *	  in bf16, as far as that can be said without a GPU: lowering, placement,
 *	  lifetimes, layouts, and the kernels' arithmetic on the host?
 */
#include "tests/backend/train_cases.h"
#include "tests/cuda/host_rt.h"

static const double bf16[HALF_CASES] = {[HALF_GIVEN] = 2e-2, [HALF_RELU] = 0.3, [HALF_MAX] = 0.3};

int
main(void)
{
	static const struct
	{
		DfxPrecision precision;
		double tolerance; /* 0: each case has its own */
	} type[] = {{DFX_PRECISION_FP32, 2e-5}, {DFX_PRECISION_BF16, 0}};
	DfxDevOpts opts = {0};

	first_batch = 2;
	half_tolerance = bf16;
	for (size_t i = 0; i < sizeof type / sizeof type[0]; i++)
	{
		HostRt *rt = host_rt_new();
		uint64_t all = ((uint64_t) 1 << GPU_ADAM) - ((uint64_t) 1 << GPU_TRAIN_FIRST);

		subject = (Subject){.be = &host_backend,
		                    .dev = host_device(rt, &opts),
		                    .precision = type[i].precision,
		                    .tolerance = type[i].tolerance};
		check_train_ops();
		if (type[i].precision == DFX_PRECISION_FP32)
			all &= ~((uint64_t) 1 << GPU_WGRAD_MMA);

		/* So that no kernel passes because nothing ran it; Adam is the networks' business. */
		ok((rt->seen & all) == all, "every kernel of training ran in %s",
		   dfx_precision_name[type[i].precision]);
		gpu_close(subject.dev);
		ok(rt->blocks == 0 && rt->graphs == 0, "all memory is given back");
		free(rt);
	}
	return done_testing();
}
