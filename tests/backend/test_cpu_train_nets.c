/*
 * test_cpu_train_nets.c
 *	  Do whole reduced networks train on the CPU backend as on the oracle?
 */
#include "cpu/cpu.h"
#include "tests/backend/train_nets.h"

int
main(int argc, char **argv)
{
	Subject on = {.be = &dfx_cpu_backend, .precision = DFX_PRECISION_FP32};
	DfxDevOpts opts = {.threads = 2};
	DfxErr err = {0};

	if (!ok(dfx_cpu_backend.open(&opts, &on.dev, &err) == DFX_OK, "the device opens"))
		return done_testing();
	for (int i = 0; i < TINY_NETS; i++)
		if (argc < 2 || strcmp(argv[1], tiny_nets[i].name) == 0)
		{
			check_train_net(&on, &tiny_nets[i], 4, 4);
			check_train_net(&on, &tiny_nets[i], 3, 5);
		}
	dfx_cpu_backend.close(on.dev);
	return done_testing();
}
