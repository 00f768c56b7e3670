/*
 * backend.c
 *	  Opening a GPU, and the backend table: the one name that dfx_cuda.so exports.
 */
#include "cuda/internal.h"
#include "cuda/load.h"

static DfxStatus
backend_open(const DfxDevOpts *opts, DfxDev **dev, DfxErr *err)
{
	GpuLib *lib[GPU_LIBS];
	GpuRt *rt;
	char dir[512];
	DfxStatus st = gpu_load(err);

	*dev = NULL;
	if (st == DFX_OK)
		st = gpu_rt_open(opts->ordinal, &rt, err);
	if (st != DFX_OK)
		return st;
	st = gpu_libs_open(rt, lib, err);
	if (st != DFX_OK)
	{
		rt->ops->close(rt);
		return st;
	}
	return gpu_device_new(rt, lib, opts, gpu_cache_dir(dir, sizeof dir) ? dir : NULL, dev, err);
}

__attribute__((visibility("default"))) const DfxBackend dfx_backend = {
    .api = DFX_BACKEND_API,
    .name = "cuda",
    .open = backend_open,
    .close = gpu_close,
    .info = gpu_info,
    .supports = gpu_supports,
    .compile = gpu_compile,
    .release = gpu_release,
    .bytes = gpu_bytes,
    .forward = gpu_forward,
    .forward_train = gpu_forward_train,
    .backward = gpu_backward,
    .step = gpu_step,
    .read_params = gpu_read_params,
    .write_params = gpu_write_params,
    .lock = gpu_lock,
    .unlock = gpu_unlock,
};
