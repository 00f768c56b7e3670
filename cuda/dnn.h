/*
 * dnn.h
 *	  What the files about cuDNN share: its functions, and graphs of operations.
 *
 *	dnn_graph.c	descriptors, and the graph of one product
 *	dnn.c		engines, plans, and the library as lib.h wants it
 */
#ifndef DFX_CUDA_DNN_H
#define DFX_CUDA_DNN_H

#include <cudnn.h>

#include "cuda/load.h"

#define DNN_FUNCTIONS(f)                                                                                     \
	f(cudnnCreate) f(cudnnDestroy) f(cudnnSetStream) f(cudnnGetVersion) f(cudnnGetErrorString)               \
	    f(cudnnBackendCreateDescriptor) f(cudnnBackendDestroyDescriptor) f(cudnnBackendSetAttribute)         \
	        f(cudnnBackendGetAttribute) f(cudnnBackendFinalize) f(cudnnBackendExecute)
#define DNN_POINTER(name) __typeof__(&name) name;

typedef cudnnBackendDescriptor_t Desc;

typedef struct DnnLib
{
	GpuLib lib;
	cudnnHandle_t handle; /* NULL on a described device */
	Desc device;          /* the description, NULL on a real one */
	struct
	{
		DNN_FUNCTIONS(DNN_POINTER)
	} f;
} DnnLib;

/* Unique ids of the tensors that have memory; from DNN_VIRTUAL on they have none. */
enum
{
	DNN_X = 1,
	DNN_W,
	DNN_BIAS,
	DNN_Y,
	DNN_ADD,
	DNN_PRE_SCALE,
	DNN_PRE_SHIFT,
	DNN_VIRTUAL
};

#define DNN_OPERANDS (DNN_VIRTUAL - DNN_X)
#define DNN_OPS      7 /* scale, shift, ReLU, convolution, bias, residual, ReLU */

/* A graph being built; the first failure sticks, later calls do nothing. */
typedef struct DnnGraph
{
	DnnLib *dnn;
	Desc keep[96];
	int nkeep;
	Desc op[DNN_OPS];
	int nop;
	int64_t uid; /* of the next virtual tensor */
	cudnnStatus_t status;
	const char *what; /* was being done when it failed; NULL: none has */
} DnnGraph;

/* Note what came of a call; what says what it was for. */
extern void gpu_dnn_check(DnnGraph *g, cudnnStatus_t s, const char *what);

/* A descriptor that lives as long as the graph; NULL after a failure. */
extern Desc gpu_dnn_new(DnnGraph *g, cudnnBackendDescriptorType_t type);
extern void gpu_dnn_set(DnnGraph *g, Desc d, cudnnBackendAttributeName_t name,
                        cudnnBackendAttributeType_t type, int64_t n, const void *value, const char *what);
extern void
gpu_dnn_set_desc(DnnGraph *g, Desc d, cudnnBackendAttributeName_t name, Desc value, const char *what);
extern void gpu_dnn_finalize(DnnGraph *g, Desc d, const char *what);

/* Drop all descriptors. */
extern void gpu_dnn_free(DnnGraph *g);

/* The operations of a product on n images, whose tensors are of type; finalised. */
extern Desc gpu_dnn_describe(DnnGraph *g, const GpuConvArgs *a, cudnnDataType_t type, int n);

#endif /* DFX_CUDA_DNN_H */
