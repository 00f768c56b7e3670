/*
 * launch.h
 *	  gpu_launch's twin on the host: the same records, the same element
 *	  functions, tiles and fragments, in loops over host memory.  For tests; not
 *	  part of dfx_cuda.so.
 */
#ifndef DFX_CUDA_HOST_LAUNCH_H
#define DFX_CUDA_HOST_LAUNCH_H

#include "cuda/kernels.h"

#ifdef __cplusplus
extern "C"
{
#endif

	/* 0, or the error number with which the device's launch would refuse. */
	extern int gpu_host_launch(GpuKernel kernel, GpuType type, const GpuArgs *args, int n);

#ifdef __cplusplus
}
#endif

#endif /* DFX_CUDA_HOST_LAUNCH_H */
