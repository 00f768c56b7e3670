/*
 * device.c
 *	  The table of backends, and the choice among them.
 *
 * The CPU backend is linked in; the CUDA backend is dfx_cuda.so beside the
 * program, loaded with dlopen() so that one package serves machines with and
 * without a driver.  A library that is absent, of another interface version
 * or without a device is a reason that is kept and shown, never a silent
 * fallback: only "auto" goes on to the next entry of the table.
 */
#include "engine/device.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu/cpu.h"

#define DEVICE_MAX_ORDINAL 63

static DfxStatus
device_load_cpu(const DfxBackend **backend, DfxErr *err)
{
	(void) err;
	*backend = &dfx_cpu_backend;
	return DFX_OK;
}

/* The library stays loaded until the program ends: drivers do not like to be unloaded. */
static DfxStatus
device_load_cuda(const DfxBackend **backend, DfxErr *err)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof "dfx_cuda.so");
	const DfxBackend *b;
	void *library;
	char *slash;

	if (n <= 0)
		return dfx_fail(err, DFX_EDEVICE, "could not find this program's own file: %s", strerror(errno));
	path[n] = '\0';
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, "dfx_cuda.so");
	if (access(path, R_OK) != 0)
		return dfx_fail(err, DFX_EDEVICE, "dfx_cuda.so is not installed beside dfx-engine");
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		return dfx_fail(err, DFX_EDEVICE, "could not load dfx_cuda.so: %s", dlerror());
	b = dlsym(library, "dfx_backend");
	if (!b || b->api != DFX_BACKEND_API)
	{
		dlclose(library);
		return dfx_fail(err, DFX_EDEVICE, "dfx_cuda.so was built for another version of dfx-engine");
	}
	*backend = b;
	return DFX_OK;
}

/* In the order in which auto tries them. */
static const struct
{
	const char *name;
	bool numbered; /* takes ":N" */
	DfxStatus (*load)(const DfxBackend **backend, DfxErr *err);
} device_table[] = {
    {"cuda", true, device_load_cuda},
    {"cpu", false, device_load_cpu},
};
#define DEVICE_COUNT ((int) (sizeof device_table / sizeof device_table[0]))

static DfxStatus
device_open_entry(int i, const DfxDeviceOpts *opts, int ordinal, DfxDevice *device, DfxErr *err)
{
	DfxDevOpts o = {
	    .ordinal = ordinal, .threads = opts->threads, .memory = opts->memory, .progress = opts->progress};
	const DfxBackend *backend;
	DfxStatus st = device_table[i].load(&backend, err);

	if (st != DFX_OK)
		return st;
	st = backend->open(&o, &device->dev, err);
	if (st != DFX_OK)
		return st;
	device->backend = backend;
	backend->info(device->dev, &device->info);
	if (device_table[i].numbered)
		snprintf(device->spec, sizeof device->spec, "%s:%d", device_table[i].name, ordinal);
	else
		snprintf(device->spec, sizeof device->spec, "%s", device_table[i].name);
	return DFX_OK;
}

/* "cuda:1" -> entry and ordinal; -1 when it names no entry. */
static int
device_parse(const char *spec, int *ordinal)
{
	*ordinal = 0;
	for (int i = 0; i < DEVICE_COUNT; i++)
	{
		size_t n = strlen(device_table[i].name);
		char *end;
		long v;

		if (strncmp(spec, device_table[i].name, n) != 0)
			continue;
		if (spec[n] == '\0')
			return i;
		if (spec[n] != ':' || !device_table[i].numbered || spec[n + 1] < '0' || spec[n + 1] > '9')
			continue;
		v = strtol(spec + n + 1, &end, 10);
		if (*end != '\0' || v > DEVICE_MAX_ORDINAL)
			continue;
		*ordinal = (int) v;
		return i;
	}
	return -1;
}

/* Keep why entry i was refused. */
static void
device_note(DfxDevice *device, int i, const DfxErr *err)
{
	size_t used = strlen(device->refused);

	snprintf(device->refused + used, sizeof device->refused - used, "%s%s: %s", used ? "; " : "",
	         device_table[i].name, err->msg);
	dfx_log('I', "device %s refused: %s", device_table[i].name, err->msg);
}

DfxStatus
dfx_device_open(const DfxDeviceOpts *opts, DfxDevice *device, DfxErr *err)
{
	DfxErr reason;
	int ordinal, i;

	memset(device, 0, sizeof *device);
	if (strcmp(opts->spec, "auto") == 0)
	{
		for (i = 0; i < DEVICE_COUNT; i++)
		{
			if (device_open_entry(i, opts, 0, device, &reason) == DFX_OK)
				return DFX_OK;
			device_note(device, i, &reason);
		}
		return dfx_fail(err, DFX_EDEVICE, "no device can be used: %s", device->refused);
	}

	if (strchr(opts->spec, ','))
		return dfx_fail(err, DFX_EUNSUPPORTED, "device \"%s\": one process runs on one device", opts->spec);
	i = device_parse(opts->spec, &ordinal);
	if (i < 0)
		return dfx_fail(err, DFX_EINVAL, "device \"%s\" is none of auto, cpu, cuda, cuda:N", opts->spec);
	if (device_open_entry(i, opts, ordinal, device, &reason) != DFX_OK)
	{
		device_note(device, i, &reason);
		dfx_fail(err, DFX_EDEVICE, "device \"%s\" cannot be used: %s", opts->spec, reason.msg);
		dfx_hint(err, "%s", reason.hint);
		return DFX_EDEVICE;
	}
	return DFX_OK;
}

void
dfx_device_close(DfxDevice *device)
{
	if (device->dev)
		device->backend->close(device->dev);
	device->dev = NULL;
}

void *
dfx_device_alloc(const DfxDevice *device, size_t bytes)
{
	size_t page = (size_t) sysconf(_SC_PAGESIZE), room = (bytes / page + 1) * page;
	void *p = aligned_alloc(page, room);
	DfxErr err;

	if (p && device->backend->lock && device->backend->lock(device->dev, p, room, &err) != DFX_OK)
		dfx_log('W', "%zu MB for images are not page-locked, which costs a copy of each: %s", room >> 20,
		        err.msg);
	return p;
}

void
dfx_device_free(const DfxDevice *device, void *p)
{
	if (p && device->backend->unlock)
		device->backend->unlock(device->dev, p);
	free(p);
}

bool
dfx_device_report(int i, DfxDeviceReport *report)
{
	DfxDeviceOpts opts = {.spec = ""};
	DfxDevice device = {0};

	if (i < 0 || i >= DEVICE_COUNT)
		return false;
	memset(report, 0, sizeof *report);
	report->backend = device_table[i].name;
	report->usable = device_open_entry(i, &opts, 0, &device, &report->reason) == DFX_OK;
	report->info = device.info;
	dfx_device_close(&device);
	return true;
}

DfxPrecision
dfx_device_automatic(const DfxDevInfo *info)
{
	return info->automatic == DFX_PRECISION_AUTO ? DFX_PRECISION_FP32 : info->automatic;
}

DfxStatus
dfx_device_precision(const DfxDevice *device, DfxPrecision asked, DfxPrecision *precision, DfxErr *err)
{
	DfxPrecision p = asked == DFX_PRECISION_AUTO ? dfx_device_automatic(&device->info) : asked;
	const char *why;

	if ((unsigned) p >= DFX_PRECISION_COUNT)
		return dfx_fail(err, DFX_EUNSUPPORTED, "there is no precision %d", (int) p);
	why = device->info.why_not[p];
	if (!device->info.precision[p])
		return dfx_fail(err, DFX_EUNSUPPORTED, "device %s does not run in precision %s%s%s", device->spec,
		                dfx_precision_name[p], why ? ": " : "", why ? why : "");
	*precision = p;
	return DFX_OK;
}
