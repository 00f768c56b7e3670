/*
 * load.h
 *	  NVIDIA's libraries, found at run time: none of them is linked, so that
 *	  dfx_cuda.so loads on any machine and says what is missing.
 */
#ifndef DFX_CUDA_LOAD_H
#define DFX_CUDA_LOAD_H

#include "cuda/lib.h"
#include "cuda/rt.h"

/*
 * Whether the driver and the libraries are there and new enough.  DFX_EDEVICE
 * says which is not and why, with a hint what to do.  Once a process: a
 * success is remembered.
 */
extern DfxStatus gpu_load(DfxErr *err);

/* A function of a loaded library, NULL if it has none of that name. */
extern void *gpu_load_driver(const char *name);
extern void *gpu_load_lt(const char *name);
extern void *gpu_load_dnn(const char *name);

/* Both libraries' handles on rt's stream; appends their versions to rt->versions. */
extern DfxStatus gpu_libs_open(GpuRt *rt, GpuLib *lib[GPU_LIBS], DfxErr *err);
extern DfxStatus gpu_lt_open(GpuRt *rt, GpuLib **lib, DfxErr *err);
extern DfxStatus gpu_dnn_open(GpuRt *rt, GpuLib **lib, DfxErr *err);

/*
 * cuDNN without a GPU: plans for the device that a JSON text describes (cuDNN,
 * CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION) can be made and saved, not run.
 * For tests; libcuda.so.1 must be loaded already, be it only a stub.
 */
extern DfxStatus gpu_load_libraries(DfxErr *err);
extern DfxStatus gpu_dnn_open_described(const char *device, GpuLib **lib, DfxErr *err);

#endif /* DFX_CUDA_LOAD_H */
