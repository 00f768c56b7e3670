/*
 * train_conv.h
 *	  A convolution of a training plan, as train_conv.c makes it and
 *	  train_conv_run.c runs it.
 */
#ifndef DFX_CPU_TRAIN_CONV_H
#define DFX_CPU_TRAIN_CONV_H

#include "cpu/train.h"

/* What TrainPass.arg holds, in this order; bias last because not all have one. */
enum
{
	CONV_ARG_SRC = 0,
	CONV_ARG_DST,
	CONV_ARG_SCRATCH,
	CONV_ARG_WEIGHTS,
	CONV_ARG_BIAS,
	CONV_ARGS
};

/* One direction: output, gradient by the source, gradient by the weights. */
typedef struct TrainPass
{
	dnnl_primitive_t prim; /* NULL: this direction is not needed */
	char impl[48];
	CpuView src, dst;     /* the layouts it works in, for chunk images one after the other */
	dnnl_exec_arg_t *arg; /* threads x CONV_ARGS */
	int narg;
} TrainPass;

struct TrainConv
{
	const char *name;
	int chunk; /* images that a primitive does at once */
	TrainPass pass[DNNL_PASS_COUNT];

	/* Weights in the formats that the first two passes want, made from the parameter when it has changed. */
	void *weights[2];
	dnnl_primitive_t refresh[2];
	dnnl_exec_arg_t refresh_arg[2][2];

	/*
	 * Set where we compute the gradient of the weights ourselves, in PyTorch's
	 * order: depthwise convolutions that the library has no vector code for.
	 */
	CpuDepthwise depthwise;
	bool own_weights;

	/* The gradient: each worker's sum in the library's format, then added up and put into PyTorch's order. */
	size_t grad_floats, bias_floats; /* of one sum, rounded up */
	dnnl_primitive_t collect;
	dnnl_exec_arg_t collect_arg[2];
	bool *used; /* per worker: its sum holds something */
};

/* A worker's sums and a chunk's gradients, in TRAIN_WEIGHTS: weights, bias, weights, bias. */
static inline float *
conv_sum(const TrainConv *c, char *scratch, const CpuTrain *t, bool of_chunk)
{
	return (float *) (void *) (scratch + t->region[TRAIN_WEIGHTS]) +
	       (of_chunk ? c->grad_floats + c->bias_floats : 0);
}

#endif /* DFX_CPU_TRAIN_CONV_H */
