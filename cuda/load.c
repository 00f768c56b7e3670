/*
 * load.c
 *	  libcuda, cuBLASLt and cuDNN by dlopen (load.h).
 *
 * The driver comes first and is asked for its version before anything of CUDA
 * runs: the CUDA runtime inside dfx_cuda.so would only say "insufficient".
 * cuDNN brings its parts in by itself; of cuBLAS only cuBLASLt is used.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <cuda.h>

#include "cuda/load.h"

typedef struct LoadLibrary
{
	const char *file; /* with the major version that the headers are of */
	const char *what;
	const char *hint;
	const char *probe; /* a function that must be there */
	void *handle;
} LoadLibrary;

enum
{
	LOAD_DRIVER,
	LOAD_LT,
	LOAD_DNN,
	LOAD_COUNT
};

static LoadLibrary load_library[LOAD_COUNT] = {
    [LOAD_DRIVER] = {"libcuda.so.1", "the NVIDIA driver", "Install the NVIDIA driver of this machine's GPU.",
                     "cuDriverGetVersion", NULL},
    [LOAD_LT] = {"libcublasLt.so.13", "cuBLAS 13",
                 "Install NVIDIA's package libcublas-13-0, or name its folder in ldconfig.", "cublasLtMatmul",
                 NULL},
    [LOAD_DNN] = {"libcudnn.so.9", "cuDNN 9 for CUDA 13",
                  "Install NVIDIA's package libcudnn9-cuda-13, or name its folder in ldconfig.",
                  "cudnnBackendExecute", NULL},
};

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;

/* A library once opened stays so: drivers do not like to be unloaded. */
static DfxStatus
load_open(LoadLibrary *l, DfxErr *err)
{
	if (l->handle)
		return DFX_OK;
	l->handle = dlopen(l->file, RTLD_NOW | RTLD_LOCAL);
	if (!l->handle)
	{
		dfx_fail(err, DFX_EDEVICE, "%s is missing: %s", l->what, dlerror());
		dfx_hint(err, "%s", l->hint);
		return DFX_EDEVICE;
	}
	if (!dlsym(l->handle, l->probe))
		return dfx_fail(err, DFX_EDEVICE, "%s is too old: it has no %s", l->file, l->probe);
	return DFX_OK;
}

/* cuInit and the version: what a driver that is there says about itself. */
static DfxStatus
load_check_driver(DfxErr *err)
{
	CUresult (*init)(unsigned) = (CUresult(*)(unsigned)) gpu_load_driver("cuInit");
	CUresult (*version)(int *) = (CUresult(*)(int *)) gpu_load_driver("cuDriverGetVersion");
	CUresult (*text)(CUresult, const char **) =
	    (CUresult(*)(CUresult, const char **)) gpu_load_driver("cuGetErrorString");
	const char *reason = "unknown reason";
	CUresult e;
	int v = 0;

	if (!init || !version || !text)
		return dfx_fail(err, DFX_EDEVICE, "libcuda.so.1 is not a CUDA driver");
	if (version(&v) == CUDA_SUCCESS && v / 1000 < CUDA_VERSION / 1000)
	{
		dfx_fail(err, DFX_EDEVICE, "the NVIDIA driver is too old: it is for CUDA %d.%d, %d.0 is needed",
		         v / 1000, v % 1000 / 10, CUDA_VERSION / 1000);
		dfx_hint(err, "Install a driver of version 580 or later.");
		return DFX_EDEVICE;
	}
	e = init(0);
	if (e == CUDA_ERROR_NO_DEVICE)
		return dfx_fail(err, DFX_EDEVICE, "the NVIDIA driver finds no GPU");
	if (e == CUDA_ERROR_STUB_LIBRARY)
		return dfx_fail(err, DFX_EDEVICE, "the NVIDIA driver is missing: libcuda.so.1 is a stub for linking");
	if (e != CUDA_SUCCESS)
	{
		text(e, &reason);
		return dfx_fail(err, DFX_EDEVICE, "the NVIDIA driver does not start: %s", reason);
	}
	return DFX_OK;
}

DfxStatus
gpu_load_libraries(DfxErr *err)
{
	DfxStatus st = DFX_OK;

	pthread_mutex_lock(&load_lock);
	for (int i = LOAD_DRIVER + 1; st == DFX_OK && i < LOAD_COUNT; i++)
		st = load_open(&load_library[i], err);
	pthread_mutex_unlock(&load_lock);
	return st;
}

DfxStatus
gpu_load(DfxErr *err)
{
	DfxStatus st;

	pthread_mutex_lock(&load_lock);
	st = load_open(&load_library[LOAD_DRIVER], err);
	if (st == DFX_OK)
		st = load_check_driver(err);
	pthread_mutex_unlock(&load_lock);
	return st == DFX_OK ? gpu_load_libraries(err) : st;
}

static void *
load_function(int library, const char *name)
{
	void *handle = load_library[library].handle;

	return handle ? dlsym(handle, name) : NULL;
}

void *
gpu_load_driver(const char *name)
{
	return load_function(LOAD_DRIVER, name);
}

void *
gpu_load_lt(const char *name)
{
	return load_function(LOAD_LT, name);
}

void *
gpu_load_dnn(const char *name)
{
	return load_function(LOAD_DNN, name);
}

DfxStatus
gpu_libs_open(GpuRt *rt, GpuLib *lib[GPU_LIBS], DfxErr *err)
{
	DfxStatus st = gpu_lt_open(rt, &lib[GPU_LIB_LT], err);

	if (st != DFX_OK)
		return st;
	st = gpu_dnn_open(rt, &lib[GPU_LIB_DNN], err);
	if (st != DFX_OK)
		lib[GPU_LIB_LT]->ops->close(lib[GPU_LIB_LT]);
	return st;
}
