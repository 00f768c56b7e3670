/*
 * test_ref_train.c
 *	  Does the oracle's training plan keep the rules of backend.h, and does it
 *	  train as PyTorch does?
 */
#include "tests/ref/ref.h"
#include "tests/unit/grad_golden.h"
#include "tests/unit/train_rules.h"

/* Stricter than backend.h asks: gradients of values that belong to other parameters would be nonsense. */
static void
check_stale(const GradBackend *b)
{
	Rules r;
	DfxErr err = {0};

	if (rules_open(&r, b->be, b->dev, RULES_BATCH))
	{
		const float *dout[DFX_MAX_OUT] = {NULL, r.dlogits};

		ok(rules_steps(&r, 1, 1) == DFX_OK &&
		       b->be->backward(r.plan, RULES_BATCH, dout, NULL, &err) == DFX_EINVAL,
		   "backward after a step: %s", err.msg);
		ok(rules_pass(&r, RULES_BATCH, 1) == DFX_OK &&
		       train_read_all(b->be, r.plan, r.g, DFX_STATE_VALUE, r.param, &err) == DFX_OK &&
		       train_write_all(b->be, r.plan, r.g, DFX_STATE_VALUE, r.param, &err) == DFX_OK &&
		       b->be->backward(r.plan, RULES_BATCH, dout, NULL, &err) == DFX_EINVAL,
		   "backward after new parameters: %s", err.msg);
	}
	rules_close(&r);
}

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
	check_stale(&b);
	grad_golden_ops(&b, 2e-7);
	for (size_t i = 0; i < sizeof net / sizeof net[0]; i++)
		grad_golden_net(&b, net[i], &tolerance);
	b.be->close(b.dev);
	return done_testing();
}
