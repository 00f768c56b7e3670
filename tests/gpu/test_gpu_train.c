/*
 * test_gpu_train.c
 *	  Training on a GPU: the gradients of every op and of reduced networks
 *	  against the oracle, rules, PyTorch's golden gradients and five steps of
 *	  Adam of each family, the same bits again; with real kernels and libraries
 *	  what test_cuda_train_*.c have on the host.  With the argument "ops" only
 *	  the first.
 */
#include "tests/backend/train_cases.h"
#include "tests/backend/train_nets.h"
#include "tests/gpu/gpu_device.h"
#include "tests/unit/grad_nets.h"

/* Sums are made in another order than on the host; nothing else should differ. */
static const GradNet golden[] = {
    {"tiny_densenet", {.grad = 1e-3, .state = 5e-6, .loss = 2e-5, .moved = 5e-3}},
    {"tiny_resnet", {.grad = 1e-4, .state = 5e-6, .loss = 2e-5, .moved = 5e-3}},
    {"tiny_resnext", {.grad = 1e-4, .state = 5e-6, .loss = 2e-5, .moved = 5e-3}},
    {"tiny_efficientnet", {.grad = 5e-4, .state = 1e-5, .loss = 2e-5, .moved = 2e-1}},
    {"tiny_vit", {.grad = 1e-4, .state = 0, .loss = 2e-5, .moved = 5e-3}},
    {"head", {.grad = 1e-4, .state = 5e-6, .loss = 2e-5, .moved = 5e-3}},
    {"resnet18", {.grad = 5e-3, .state = 5e-6, .loss = 5e-5, .moved = 5e-1}},
};

static const double bf16[HALF_CASES] = {[HALF_GIVEN] = 2e-2, [HALF_RELU] = 0.3, [HALF_MAX] = 0.3};

static void
check_golden(void)
{
	GradBackend b = {.be = subject.be, .dev = subject.dev};

	check_grad_golden(&b, 2e-5, golden, sizeof golden / sizeof golden[0]);
}

static void
check_nets(void)
{
	for (int i = 0; i < TINY_NETS; i++)
	{
		if (subject.precision == DFX_PRECISION_FP32)
			check_train_net(&subject, &tiny_nets[i], 3, 5, TOLERANCE_NET);
		else
			check_train_direction(&subject, &tiny_nets[i], 8, 0.85);
		check_repeats(&subject, &subject, &tiny_nets[i], tiny_nets[i].name);
	}
}

int
main(int argc, char **argv)
{
	bool ops = argc > 1 && strcmp(argv[1], "ops") == 0;

	if (!gpu_open(&subject.be, &subject.dev))
		return 0;
	subject.precision = DFX_PRECISION_FP32;
	subject.tolerance = 1e-4;
	check_train_ops();
	if (!ops)
	{
		check_nets();
		check_golden();
	}
	subject.precision = DFX_PRECISION_BF16;
	subject.tolerance = 0; /* each case has its own */
	half_tolerance = bf16;
	check_train_ops();
	if (!ops)
		check_nets();
	subject.be->close(subject.dev);
	return done_testing();
}
