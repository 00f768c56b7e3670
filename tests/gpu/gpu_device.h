/*
 * gpu_device.h
 *	  dfx_cuda.so and a GPU for the tests of tests/gpu.
 *
 * These tests skip themselves, with the reason, where there is no GPU.
 * DFX_CUDA_SO names another library than build/dfx_cuda.so; DFX_GPU another
 * device than the first.
 */
#ifndef DFX_TESTS_GPU_DEVICE_H
#define DFX_TESTS_GPU_DEVICE_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "nn/backend.h"
#include "tests/unit/tap.h"

static void
gpu_show_log(char level, const char *message, void *arg)
{
	(void) arg;
	if (level != 'D' || getenv("DFX_GPU_VERBOSE"))
		diag("%c %s", level, message);
}

/* The backend and its device; false, with the plan that skips everything printed, when there is none. */
static bool
gpu_open(const DfxBackend **be, DfxDev **dev)
{
	const char *path = getenv("DFX_CUDA_SO"), *ordinal = getenv("DFX_GPU");
	void *library = dlopen(path ? path : "build/dfx_cuda.so", RTLD_NOW | RTLD_LOCAL);
	DfxDevOpts opts = {.ordinal = ordinal ? atoi(ordinal) : 0};
	DfxErr err = {0};

	*be = library ? dlsym(library, "dfx_backend") : NULL;
	dfx_log_set_sink(gpu_show_log, NULL);
	if (!*be || (*be)->api != DFX_BACKEND_API)
		printf("1..0 # SKIP %s\n", library ? "the library is of another version" : dlerror());
	else if ((*be)->open(&opts, dev, &err) != DFX_OK)
		printf("1..0 # SKIP %s\n", err.msg);
	else
	{
		DfxDevInfo info;

		(*be)->info(*dev, &info);
		diag("%s", info.name);
		return true;
	}
	return false;
}

#endif /* DFX_TESTS_GPU_DEVICE_H */
