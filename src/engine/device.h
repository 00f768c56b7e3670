/*
 * device.h
 *	  Which backend to run on: what is linked in, what can be loaded, what was
 *	  refused and why.
 */
#ifndef DFX_ENGINE_DEVICE_H
#define DFX_ENGINE_DEVICE_H

#include "nn/backend.h"

#define DFX_DEVICE_NOTE 512

typedef struct DfxDevice
{
	const DfxBackend *backend;
	DfxDev *dev;
	DfxDevInfo info;
	char spec[32];                 /* how --device names it: "cpu", "cuda:0" */
	char refused[DFX_DEVICE_NOTE]; /* "cuda: reason" for each backend tried in vain; "" for none */
} DfxDevice;

typedef struct DfxDeviceOpts
{
	const char *spec; /* auto, cpu, cuda, cuda:N */
	int threads;      /* 0: all cores */
	uint64_t memory;  /* bytes that models may take on a GPU; 0: what there is */
	_Atomic uint64_t *progress;
} DfxDeviceOpts;

/*
 * Open what spec names; auto takes the first of the table that opens.
 * DFX_EINVAL for a spec that names nothing, DFX_EDEVICE with the reason for a
 * device that cannot be had.
 */
extern DfxStatus dfx_device_open(const DfxDeviceOpts *opts, DfxDevice *device, DfxErr *err);
extern void dfx_device_close(DfxDevice *device);

/*
 * Memory for images that forwards will read: page-locked where the device
 * copies from there and grants it, else ordinary memory, which costs a copy
 * (the log then says so).  To be freed while the device is open.  NULL: out of memory.
 */
extern void *dfx_device_alloc(const DfxDevice *device, size_t bytes);
extern void dfx_device_free(const DfxDevice *device, void *p);

/* One backend of the table, for `dfx-engine devices`: opened and closed again. */
typedef struct DfxDeviceReport
{
	const char *backend;
	bool usable;
	DfxDevInfo info; /* when usable */
	DfxErr reason;   /* when not */
} DfxDeviceReport;

/* Report on backend i; false when there is no such number. */
extern bool dfx_device_report(int i, DfxDeviceReport *report);

/* What AUTO stands for on a device. */
extern DfxPrecision dfx_device_automatic(const DfxDevInfo *info);

/* The precision that AUTO stands for on this device, or the one asked for.  DFX_EUNSUPPORTED. */
extern DfxStatus
dfx_device_precision(const DfxDevice *device, DfxPrecision asked, DfxPrecision *precision, DfxErr *err);

#endif /* DFX_ENGINE_DEVICE_H */
