/*
 * stub_path.h
 *	  Loads a library of stub/ that lies beside the test program, under the name
 *	  by which the backend, or cuDNN, looks for the real one.
 */
#ifndef DFX_TESTS_CUDA_STUB_PATH_H
#define DFX_TESTS_CUDA_STUB_PATH_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool
load_stub(const char *program, const char *name)
{
	char path[4096];
	const char *slash = strrchr(program, '/');

	snprintf(path, sizeof path, "%.*s/%s", slash ? (int) (slash - program) : 1, slash ? program : ".", name);
	return dlopen(path, RTLD_NOW | RTLD_GLOBAL) != NULL;
}

#endif /* DFX_TESTS_CUDA_STUB_PATH_H */
