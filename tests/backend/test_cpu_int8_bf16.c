/*
 * test_cpu_int8_bf16.c
 *	  Does it do so too where the CPU has bf16, in which the rest is then?
 *
 * bf16 rounds about as coarsely as the steps do, so this is no sharper than that.
 */
#include "tests/backend/int8_cases.h"

int
main(void)
{
	if (int8_open())
		check_quantized_nets(false);
	int8_close();
	return done_testing();
}
