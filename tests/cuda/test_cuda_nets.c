/*
 * test_cuda_nets.c
 *	  Do reduced networks of every family give the oracle's results on the CUDA
 *	  backend (its kernels on the host), alone and with the tri-branch head?
 */
#include "tests/backend/net_cases.h"
#include "tests/cuda/host_rt.h"

int
main(void)
{
	static const struct
	{
		DfxPrecision precision;
		double tolerance;
	} type[] = {{DFX_PRECISION_FP32, 0}, {DFX_PRECISION_FP16, 2e-2}, {DFX_PRECISION_BF16, 1e-1}};
	DfxDevOpts opts = {0};

	for (size_t t = 0; t < sizeof type / sizeof type[0]; t++)
	{
		HostRt *rt = host_rt_new();
		Subject on = {.be = &host_backend,
		              .dev = host_device(rt, &opts),
		              .precision = type[t].precision,
		              .tolerance = type[t].tolerance};

		for (int i = 0; i < TINY_NETS; i++)
		{
			check_net(&on, &tiny_nets[i], 1, true, 1 + i % 3);
			if (t == 0)
				check_net(&on, &tiny_nets[i], 1, false, 1);
			if (t == 1)
				check_net(&on, &tiny_nets[i], 3, true, 1);
		}
		gpu_close(on.dev);
		ok(rt->blocks == 0 && rt->graphs == 0, "all memory and graphs are given back");
		free(rt);
	}
	return done_testing();
}
