/*
 * test_cpu_train_ops.c
 *	  Does every op have the oracle's gradients on the CPU backend, also where
 *	  the workers do not share a batch evenly?
 */
#include "cpu/cpu.h"
#include "tests/backend/train_cases.h"

int
main(void)
{
	DfxDevOpts opts = {.threads = 2};
	DfxErr err = {0};

	subject = (Subject){.be = &dfx_cpu_backend, .precision = DFX_PRECISION_FP32};
	if (!ok(dfx_cpu_backend.open(&opts, &subject.dev, &err) == DFX_OK, "the device opens"))
	{
		diag("%s", err.msg);
		return done_testing();
	}
	check_train_ops();
	dfx_cpu_backend.close(subject.dev);
	return done_testing();
}
