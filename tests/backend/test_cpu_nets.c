/*
 * test_cpu_nets.c
 *	  Do reduced networks of every family give the oracle's results on the CPU
 *	  backend, as built and as optimised, alone, with the tri-branch head and as
 *	  a hierarchy, for any batch and number of workers, in every precision that
 *	  it offers?
 */
#include "tests/backend/cpu_precisions.h"
#include "tests/backend/net_cases.h"

static Subject on;
static int threads;

static void
check_nets(void)
{
	static const int batch[] = {0, 1, 9, 4}; /* of each number of workers: test_cpu_plan.c proves the rest */

	/* Of so few channels some outputs are small sums of large terms; test_parity.c has the networks in full.
	 */
	if (on.precision == DFX_PRECISION_BF16)
		on.tolerance = 1e-1;

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
}

int
main(void)
{
	for (threads = 1; threads <= 3; threads++)
		for_cpu_precisions(&on, threads, check_nets);
	return done_testing();
}
