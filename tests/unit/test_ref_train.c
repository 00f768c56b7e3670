/*
 * test_ref_train.c
 *	  Does the oracle's training plan keep the rules of backend.h, and does it
 *	  train as PyTorch does?
 */
#include "tests/ref/ref.h"
#include "tests/unit/grad_golden.h"
#include "tests/unit/train_rules.h"

int
main(void)
{
	static const char *const net[] = {"tiny_densenet",     "tiny_resnet", "tiny_resnext",
	                                  "tiny_efficientnet", "tiny_vit",    "head"};
	static const GradTolerance tolerance = {.grad = 3e-5, .state = 1e-6, .loss = 1e-5, .moved = 2e-3};
	GradBackend b = {.be = &dfx_ref_backend};
	DfxDevOpts opts = {.threads = 1};
	DfxErr err = {0};

	if (!ok(b.be->open(&opts, &b.dev, &err) == DFX_OK, "the oracle opens"))
		return done_testing();
	train_rules(b.be, b.dev);
	grad_golden_ops(&b, 2e-7);
	for (size_t i = 0; i < sizeof net / sizeof net[0]; i++)
		grad_golden_net(&b, net[i], &tolerance);
	b.be->close(b.dev);
	return done_testing();
}
