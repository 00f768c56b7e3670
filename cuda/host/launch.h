/*
 * launch.h
 *	  gpu_launch's twin on the host: the same records, the same element
 *	  functions, tiles and fragments, in loops over host memory.  For tests; not
 *	  part of dfx_cuda.so.
 */
#ifndef DFX_CUDA_HOST_LAUNCH_H
#define DFX_CUDA_HOST_LAUNCH_H

#include "cuda/kernels.h"

/*
 * 0, or the error number with which the device's launch would refuse.  The
 * records of a group run one after another, forwards and backwards in turns:
 * on the device their order is nobody's.
 */
GPU_FROM_C int gpu_host_launch(GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n);

/* Its part for kernels of training; launch_train.cc. */
GPU_FROM_C int gpu_host_launch_train(GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n);

#endif /* DFX_CUDA_HOST_LAUNCH_H */
