/*
 * test_cpu_nets.c
 *	  Do reduced networks of every family give the oracle's results on the CPU
 *	  backend, as built and as optimised, alone, with the tri-branch head and as
 *	  a hierarchy, for any batch and number of workers?
 */
#include "cpu/cpu.h"
#include "tests/backend/net_cases.h"

int
main(void)
{
	for (int threads = 1; threads <= 3; threads++)
	{
		static const int batch[] = {0, 1, 9,
		                            4}; /* of each number of workers: test_cpu_plan.c proves the rest */
		DfxDevOpts opts = {.threads = threads};
		DfxErr err = {0};
		Subject on = {.be = &dfx_cpu_backend, .precision = DFX_PRECISION_FP32};

		if (!ok(dfx_cpu_backend.open(&opts, &on.dev, &err) == DFX_OK, "%d worker(s) start", threads))
		{
			diag("%s", err.msg);
			return done_testing();
		}
		for (int i = 0; i < TINY_NETS; i++)
		{
			check_net(&on, &tiny_nets[i], 1, true, batch[threads]);
			if (threads == 1)
				check_net(&on, &tiny_nets[i], 1, false, 1);
			if (threads == 2)
				check_net(&on, &tiny_nets[i], 3, true, 1);
			if (threads == 3)
				check_net(&on, &tiny_nets[i], 4, true, 2);
		}
		dfx_cpu_backend.close(on.dev);
	}
	return done_testing();
}
