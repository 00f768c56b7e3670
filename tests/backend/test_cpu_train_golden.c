/*
 * test_cpu_train_golden.c
 *	  Does the CPU backend keep the rules of training plans, and does it train
 *	  as PyTorch does: gradients of single ops, gradients, statistics and five
 *	  steps of a network of each family?  With one worker and with more; and in
 *	  bf16 the losses of those steps.
 */
#include "cpu/cpu.h"
#include "tests/backend/train_against_ref.h"
#include "tests/unit/grad_golden.h"
#include "tests/unit/train_rules.h"

/*
 * Five times what was seen, or a little more.  Adam divides a gradient by its
 * magnitude: in "moved", weights whose gradients are mostly rounding move freely.
 */
static const struct
{
	const char *name;
	GradTolerance tolerance;
} nets[] = {
    {"tiny_densenet", {.grad = 2e-4, .state = 2e-6, .loss = 1e-5, .moved = 2e-3}},
    {"tiny_resnet", {.grad = 2e-5, .state = 2e-6, .loss = 1e-5, .moved = 2e-3}},
    {"tiny_resnext", {.grad = 2e-5, .state = 2e-6, .loss = 1e-5, .moved = 2e-3}},
    {"tiny_efficientnet", {.grad = 1e-4, .state = 5e-6, .loss = 1e-5, .moved = 1e-1}},
    {"tiny_vit", {.grad = 1e-5, .state = 0, .loss = 1e-5, .moved = 2e-3}},
    {"head", {.grad = 1e-5, .state = 2e-6, .loss = 1e-5, .moved = 2e-3}},
    {"resnet18", {.grad = 1e-3, .state = 2e-6, .loss = 2e-5, .moved = 2e-1}},
};

static void
check_threads(int threads)
{
	GradBackend b = {.be = &dfx_cpu_backend};
	DfxDevOpts opts = {.threads = threads};
	DfxErr err = {0};

	if (!ok(b.be->open(&opts, &b.dev, &err) == DFX_OK, "the device opens with %d threads", threads))
		return;
	train_rules(b.be, b.dev);
	grad_golden_ops(&b, 2e-6);
	for (size_t i = 0; i < sizeof nets / sizeof nets[0]; i++)
		grad_golden_net(&b, nets[i].name, &nets[i].tolerance);
	b.be->close(b.dev);
}

/*
 * Three times what was seen.  PyTorch's autocast on the same networks has losses
 * up to 2e-2 off.  What single gradients are worth then: test_cpu_train_ops.c,
 * test_cpu_train_nets.c.
 */
static void
check_bf16(void)
{
	const GradTolerance tolerance = {.grad = INFINITY, .state = 3e-2, .loss = 4e-2, .moved = INFINITY};
	GradBackend b = {.be = &dfx_cpu_backend, .precision = DFX_PRECISION_BF16};
	DfxDevOpts opts = {.threads = 2};
	DfxErr err = {0};

	if (!ok(b.be->open(&opts, &b.dev, &err) == DFX_OK, "the device opens"))
		return;
	for (size_t i = 0; trains_in(b.dev, b.precision) && i < sizeof nets / sizeof nets[0]; i++)
		grad_golden_net(&b, nets[i].name, &tolerance);
	b.be->close(b.dev);
}

int
main(void)
{
	check_threads(1);
	check_threads(3);
	check_bf16();
	return done_testing();
}
