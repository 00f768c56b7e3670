/*
 * test_cpu_train_ops.c
 *	  Does every op have the oracle's gradients on the CPU backend, for the
 *	  shapes that matter, also where the workers do not share a batch evenly, in
 *	  fp32, and in bf16 where the CPU has it?
 */
#include "tests/backend/cpu_precisions.h"
#include "tests/backend/train_cases.h"

/* A BN whose values are not stored is not rounded. */
static const double bf16[HALF_CASES] =
    {[HALF_GIVEN] = 1e-2, [HALF_RELU] = 1e-1, [HALF_MAX] = 1e-2, [HALF_LARGEST] = 1e-2};

static void
check_all(void)
{
	subject.tolerance = 0; /* each case has its own */
	half_tolerance = bf16;
	check_train_ops();
}

int
main(void)
{
	for_cpu_precisions(&subject, 2, check_all);
	return done_testing();
}
