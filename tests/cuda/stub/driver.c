/*
 * driver.c
 *	  A libcuda.so.1 for test_cuda_dnn.c: enough of a driver for cuDNN to make
 *	  plans for a device that is only described.  It takes whatever code it is
 *	  given to load, and refuses everything else as NVIDIA's own stub does.
 */
#include <dlfcn.h>
#include <string.h>

#include <cuda.h>
#undef cuGetProcAddress

__attribute__((used)) static CUresult
stub_refuse(void)
{
	return CUDA_ERROR_STUB_LIBRARY;
}

/* cuDNN's parts look these up by name before they do anything; none is called for a plan. */
#define STUB(name) __asm__(".globl " #name "\n.set " #name ", stub_refuse\n");
STUB(cuCtxGetCurrent)
STUB(cuCtxGetLimit)
STUB(cuCtxPopCurrent)
STUB(cuCtxPushCurrent)
STUB(cuDeviceGet)
STUB(cuKernelGetAttribute)
STUB(cuKernelSetAttribute)
STUB(cuLaunchCooperativeKernel)
STUB(cuLaunchKernel)
STUB(cuLaunchKernelEx)
STUB(cuLibraryLoadFromFile)
STUB(cuLibraryUnload)
STUB(cuLinkAddData)
STUB(cuLinkComplete)
STUB(cuLinkCreate)
STUB(cuLinkDestroy)
STUB(cuOccupancyMaxPotentialClusterSize)
STUB(cuStreamGetCtx)

CUresult
cuDriverGetVersion(int *version)
{
	*version = CUDA_VERSION;
	return CUDA_SUCCESS;
}

CUresult
cuInit(unsigned flags)
{
	(void) flags;
	return CUDA_ERROR_STUB_LIBRARY;
}

CUresult
cuDeviceGetCount(int *count)
{
	*count = 0;
	return CUDA_SUCCESS;
}

CUresult
cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jit, void **jit_values, unsigned njit,
                  CUlibraryOption *options, void **values, unsigned n)
{
	(void) code;
	(void) jit;
	(void) jit_values;
	(void) njit;
	(void) options;
	(void) values;
	(void) n;
	*library = (CUlibrary) 0x1000;
	return CUDA_SUCCESS;
}

CUresult
cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
	(void) library;
	(void) name;
	*kernel = (CUkernel) 0x2000;
	return CUDA_SUCCESS;
}

CUresult
cuLibraryGetModule(CUmodule *module, CUlibrary library)
{
	(void) library;
	*module = (CUmodule) 0x3000;
	return CUDA_SUCCESS;
}

CUresult
cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
	(void) kernel;
	*function = (CUfunction) 0x3000;
	return CUDA_SUCCESS;
}

CUresult
cuGetErrorString(CUresult error, const char **text)
{
	(void) error;
	*text = "stub";
	return CUDA_SUCCESS;
}

CUresult
cuGetErrorName(CUresult error, const char **text)
{
	return cuGetErrorString(error, text);
}

/* Ours by their names, a refusal for all others. */
CUresult
cuGetProcAddress_v2(const char *name, void **function, int version, cuuint64_t flags,
                    CUdriverProcAddressQueryResult *result)
{
	(void) version;
	(void) flags;
	*function =
	    strcmp(name, "cuGetProcAddress") == 0 ? (void *) cuGetProcAddress_v2 : dlsym(RTLD_DEFAULT, name);
	if (!*function)
		*function = (void *) stub_refuse;
	if (result)
		*result = CU_GET_PROC_ADDRESS_SUCCESS;
	return CUDA_SUCCESS;
}

CUresult
cuGetProcAddress(const char *name, void **function, int version, cuuint64_t flags)
{
	return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
