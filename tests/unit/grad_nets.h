/*
 * grad_nets.h
 *	  Everything that a backend's training can be held to without the oracle: the
 *	  rules of training plans, PyTorch's gradients of single ops, and its
 *	  gradients, statistics and five steps of a network of each family.
 */
#ifndef DFX_TESTS_GRAD_NETS_H
#define DFX_TESTS_GRAD_NETS_H

#include "tests/unit/grad_golden.h"
#include "tests/unit/train_rules.h"

typedef struct GradNet
{
	const char *name;
	GradTolerance tolerance;
} GradNet;

/*
 * Five times what was seen on the CPU and of the GPU's kernels on the host, or a
 * little more.  Adam divides a gradient by its magnitude: in "moved", weights
 * whose gradients are mostly rounding move freely.
 */
static const GradNet grad_nets[] = {
    {"tiny_densenet", {.grad = 2e-4, .state = 2e-6, .loss = 1e-5, .moved = 2e-3}},
    {"tiny_resnet", {.grad = 2e-5, .state = 2e-6, .loss = 1e-5, .moved = 2e-3}},
    {"tiny_resnext", {.grad = 2e-5, .state = 2e-6, .loss = 1e-5, .moved = 2e-3}},
    {"tiny_efficientnet", {.grad = 1e-4, .state = 5e-6, .loss = 1e-5, .moved = 1e-1}},
    {"tiny_vit", {.grad = 1e-5, .state = 0, .loss = 1e-5, .moved = 2e-3}},
    {"head", {.grad = 1e-5, .state = 2e-6, .loss = 1e-5, .moved = 2e-3}},
    {"resnet18", {.grad = 1e-3, .state = 2e-6, .loss = 2e-5, .moved = 2e-1}},
};
enum
{
	GRAD_NETS = sizeof grad_nets / sizeof grad_nets[0],
	GRAD_SMALL_NETS = GRAD_NETS - 1 /* the first ones */
};

/* The rules, all ops within a tolerance, and some networks within theirs. */
static void
check_grad_golden(const GradBackend *b, double ops, const GradNet *net, int nnets)
{
	train_rules(b->be, b->dev);
	grad_golden_ops(b, ops);
	for (int i = 0; i < nnets; i++)
		grad_golden_net(b, net[i].name, &net[i].tolerance);
}

#endif /* DFX_TESTS_GRAD_NETS_H */
