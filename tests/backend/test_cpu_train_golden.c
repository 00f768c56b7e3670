/*
 * test_cpu_train_golden.c
 *	  Does the CPU backend keep the rules of training plans, and does it train
 *	  as PyTorch does: gradients of single ops, gradients, statistics and five
 *	  steps of a network of each family?  With one worker and with more.
 */
#include "cpu/cpu.h"
#include "tests/unit/grad_golden.h"
#include "tests/unit/train_rules.h"

/*
 * Allowed is what rounding does to gradients where Winograd's algorithm is
 * used (resnet18), and what one ReLU does whose input is within 3e-7 of 0
 * (tiny_resnet: layer1.1, of 16384 values): its gradient is there or not.
 */
static const struct
{
	const char *name;
	GradTolerance tolerance;
} nets[] = {
    {"tiny_densenet", {.grad = 1e-4, .state = 2e-6, .loss = 1e-5, .moved = 1e-2}},
    {"tiny_resnet", {.grad = 5e-3, .state = 2e-6, .loss = 1e-4, .moved = 1e-1}},
    {"tiny_resnext", {.grad = 1e-4, .state = 2e-6, .loss = 1e-5, .moved = 1e-2}},
    {"tiny_efficientnet", {.grad = 1e-4, .state = 2e-6, .loss = 1e-5, .moved = 1e-1}},
    {"tiny_vit", {.grad = 1e-5, .state = 0, .loss = 1e-5, .moved = 1e-2}},
    {"head", {.grad = 1e-5, .state = 2e-6, .loss = 1e-5, .moved = 1e-2}},
    {"resnet18", {.grad = 5e-3, .state = 1e-5, .loss = 1e-4, .moved = 2e-1}},
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

int
main(void)
{
	check_threads(1);
	check_threads(3);
	return done_testing();
}
