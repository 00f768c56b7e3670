/*
 * deviceprop.c
 *	  Prints cuDNN's own description of a GPU, as JSON: what tests/cuda feeds
 *	  to cuDNN on machines without one.
 *
 * CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR of cuDNN's backend API; the library is
 * the one that the engine would load.
 */
#include <cudnn.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* What is needed of the library, by name: nothing links it. */
static struct
{
	cudnnStatus_t (*create)(cudnnBackendDescriptorType_t, cudnnBackendDescriptor_t *);
	cudnnStatus_t (*set)(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t, cudnnBackendAttributeType_t,
	                     int64_t, const void *);
	cudnnStatus_t (*get)(cudnnBackendDescriptor_t, cudnnBackendAttributeName_t, cudnnBackendAttributeType_t,
	                     int64_t, int64_t *, void *);
	cudnnStatus_t (*finalize)(cudnnBackendDescriptor_t);
} dnn;

static void *
symbol(void *lib, const char *name)
{
	void *p = dlsym(lib, name);

	if (p == NULL)
	{
		fprintf(stderr, "deviceprop: cuDNN has no %s\n", name);
		exit(1);
	}
	return p;
}

static void
must(cudnnStatus_t st, const char *what)
{
	if (st == CUDNN_STATUS_SUCCESS)
		return;
	fprintf(stderr, "deviceprop: %s: cuDNN status %d\n", what, (int) st);
	exit(1);
}

int
main(int argc, char **argv)
{
	void *lib = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL);
	int32_t device = argc > 1 ? atoi(argv[1]) : 0;
	cudnnBackendDescriptor_t prop;
	int64_t length = 0;
	char *json;

	if (lib == NULL)
	{
		fprintf(stderr, "deviceprop: %s\n", dlerror());
		return 1;
	}
	*(void **) &dnn.create = symbol(lib, "cudnnBackendCreateDescriptor");
	*(void **) &dnn.set = symbol(lib, "cudnnBackendSetAttribute");
	*(void **) &dnn.get = symbol(lib, "cudnnBackendGetAttribute");
	*(void **) &dnn.finalize = symbol(lib, "cudnnBackendFinalize");
	must(dnn.create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &prop), "creating the descriptor");
	must(dnn.set(prop, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &device), "naming the device");
	must(dnn.finalize(prop), "asking the device");
	must(dnn.get(prop, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 0, &length, NULL),
	     "the description's length");
	json = calloc((size_t) length + 1, 1);
	if (json == NULL)
		return 1;
	must(dnn.get(prop, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, length, &length, json),
	     "the description");
	puts(json);
	free(json);
	return 0;
}
