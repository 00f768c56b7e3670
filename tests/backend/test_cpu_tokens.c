/*
 * test_cpu_tokens.c
 *	  Do the operations of transformers give the oracle's results on the CPU
 *	  backend, in every precision that it offers, and do their loops agree to the bit between instruction
 *sets?
 */
#include "cpu/kernels.h"
#include "tests/backend/cpu_precisions.h"
#include "tests/backend/token_cases.h"

static void
check_kernels(void)
{
	enum
	{
		C = 77,
		N = 45,
		ROOM = 48
	};
	float in[C], scale[C], shift[C], norm[2][C], row[2][ROOM], sum = 0;
	uint32_t seed = 3;
	const CpuTokenKernels *k;

	for (int i = 0; i < C; i++)
	{
		in[i] = noise(&seed) * 3;
		scale[i] = noise(&seed);
		shift[i] = noise(&seed);
	}
	for (int i = 0; (k = cpu_token_kernels_variant(i)) != NULL; i++)
	{
		int at = i > 0;

		for (int j = 0; j < N; j++)
			row[at][j] = 40 * in[j];
		k->softmax(row[at], N);
		k->layernorm(norm[at], C, in, C, C, C, scale, shift, 1e-6f);
		ok(memcmp(norm[at], norm[0], sizeof norm[0]) == 0 &&
		       memcmp(row[at], row[0], N * sizeof row[0][0]) == 0,
		   "loops for %s agree with the best variant", k->name);
	}
	for (int j = 0; j < N; j++)
		sum += row[0][j];
	ok(fabsf(sum - 1) < 1e-6f, "a softmax sums to 1");

	for (int j = 0; j < N; j++)
		row[0][j] = j == 7 ? NAN : 1;
	cpu_token_kernels()->softmax(row[0], N);
	ok(isnan(row[0][0]) && isnan(row[0][7]), "what is not a number stays none");
}

int
main(void)
{
	for_cpu_precisions(&subject, 2, check_token_ops);
	check_kernels();
	return done_testing();
}
