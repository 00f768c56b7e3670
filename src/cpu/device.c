/*
 * device.c
 *	  The CPU as a device, and the backend table.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/train.h"

#define DEVICE_MAX_THREADS 1024
#define DEVICE_BATCH       4   /* images a worker: the largest of the micro-batches, see plan.c */
#define DEVICE_CACHE       256 /* primitives kept by the library: a large network has about 120 shapes */

static const struct
{
	dnnl_cpu_isa_t isa;
	const char *name;
} device_isa[] = {
    {dnnl_cpu_isa_sse41, "sse41"},
    {dnnl_cpu_isa_avx, "avx"},
    {dnnl_cpu_isa_avx2, "avx2"},
    {dnnl_cpu_isa_avx2_vnni, "avx2_vnni"},
    {dnnl_cpu_isa_avx512_core, "avx512_core"},
    {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni"},
    {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
    {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"},
};

static const char *
device_isa_name(void)
{
	dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();

	for (size_t i = 0; i < sizeof device_isa / sizeof device_isa[0]; i++)
		if (device_isa[i].isa == isa)
			return device_isa[i].name;
	return isa == 0 ? "generic" : "newer";
}

/* The values are sets of bits, not an order: avx2_vnni is the larger number. */
static bool
device_has(dnnl_cpu_isa_t isa)
{
	return (dnnl_get_effective_cpu_isa() & isa) == isa;
}

/* "model name" of /proc/cpuinfo, "unknown CPU" where there is none. */
static void
device_model(char *buf, size_t size)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[256];

	snprintf(buf, size, "unknown CPU");
	while (f && fgets(line, sizeof line, f))
	{
		char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) != 0 || colon == NULL)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(buf, size, "%s", colon + 1 + strspn(colon + 1, " "));
		break;
	}
	if (f)
		fclose(f);
}

static void
device_name(DfxDev *dev)
{
	const dnnl_version_t *v = dnnl_version();
	char model[48];

	device_model(model, sizeof model);
	snprintf(dev->name, sizeof dev->name, "cpu: %s, %d thread%s, oneDNN %d.%d.%d (%s)", model, dev->threads,
	         dev->threads == 1 ? "" : "s", v->major, v->minor, v->patch, device_isa_name());
}

static int
device_count_cpus(void)
{
	cpu_set_t set;

	/* A machine with more CPUs than the set holds makes this fail; it will do with as many as it holds. */
	if (sched_getaffinity(0, sizeof set, &set) != 0)
		return CPU_SETSIZE;
	return CPU_COUNT(&set);
}

static void
device_close(DfxDev *dev)
{
	if (dev == NULL)
		return;
	cpu_workers_stop(dev->workers);
	for (int i = 0; dev->stream && i < dev->threads; i++)
		if (dev->stream[i])
			dnnl_stream_destroy(dev->stream[i]);
	free(dev->stream);
	if (dev->engine)
		dnnl_engine_destroy(dev->engine);
	free(dev);
}

static DfxStatus
device_fill(DfxDev *dev, DfxErr *err)
{
	DfxStatus st;

	dev->stream = calloc((size_t) dev->threads, sizeof *dev->stream);
	if (dev->stream == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %d CPU workers", dev->threads);
	st = cpu_fail_dnnl(dnnl_engine_create(&dev->engine, dnnl_cpu, 0), "its CPU engine", err);
	for (int i = 0; st == DFX_OK && i < dev->threads; i++)
		st = cpu_fail_dnnl(dnnl_stream_create(&dev->stream[i], dev->engine, dnnl_stream_default_flags),
		                   "a stream", err);
	if (st == DFX_OK)
		st = cpu_workers_start(dev->threads, &dev->workers, err);
	return st;
}

static DfxStatus
device_open(const DfxDevOpts *opts, DfxDev **out, DfxErr *err)
{
	DfxDev *dev;
	DfxStatus st;
	int threads = opts->threads > 0 ? opts->threads : device_count_cpus();

	*out = NULL;
	if (opts->threads < 0 || threads > DEVICE_MAX_THREADS)
		return dfx_fail(err, DFX_EINVAL, "%d CPU threads; at most %d", opts->threads, DEVICE_MAX_THREADS);
	dev = calloc(1, sizeof *dev);
	if (dev == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the CPU device");
	dev->threads = threads;
	dev->progress = opts->progress;
	dev->kernels = cpu_kernels();
	dev->token_kernels = cpu_token_kernels();
	dev->bf16_kernels = cpu_bf16_kernels();
	dev->bf16_token_kernels = cpu_bf16_token_kernels();
	dev->int8_kernels = cpu_int8_kernels();
	dev->wino_kernels = cpu_wino_kernels();
	dev->mb_kernels = cpu_mb_kernels();
	dev->mb_bf16_kernels = cpu_mb_bf16_kernels();
	dev->wino8_kernels = device_has(dnnl_cpu_isa_avx512_core_vnni) ? cpu_wino8_kernels() : NULL;
	dev->train_kernels = cpu_train_kernels();
	dev->train_window_kernels = cpu_train_window_kernels();
	dev->train_token_kernels = cpu_train_token_kernels();
	dev->block = device_has(dnnl_cpu_isa_avx512_core) ? 16 : 8;
	dev->bf16 = device_has(dnnl_cpu_isa_avx512_core_bf16);
	dev->group_kernels = dev->block == CPU_GROUP_LANES ? cpu_group_kernels() : NULL;
	/* AMX multiplies some eight times as fast as AVX-512 does: splitting and joining would dominate, and
	 * grouped convolutions be the slower ones. */
	if (dev->bf16 && !device_has(dnnl_cpu_isa_avx512_core_amx))
	{
		dev->wino_bf16_kernels = cpu_wino_bf16_kernels();
		dev->group_bf16_kernels = cpu_group_bf16_kernels();
	}
	dev->int8 = device_has(dnnl_cpu_isa_avx512_core_vnni) || device_has(dnnl_cpu_isa_avx2_vnni);
	dnnl_set_primitive_cache_capacity(DEVICE_CACHE);
	device_name(dev);
	st = device_fill(dev, err);
	if (st != DFX_OK)
	{
		device_close(dev);
		return st;
	}
	*out = dev;
	return DFX_OK;
}

static void
device_info(const DfxDev *dev, DfxDevInfo *info)
{
	*info = (DfxDevInfo){.threads = dev->threads, .lanes = dev->threads, .batch = DEVICE_BATCH};
	memcpy(info->name, dev->name, sizeof info->name);
	info->precision[DFX_PRECISION_AUTO] = true;
	info->precision[DFX_PRECISION_FP32] = true;
	info->precision[DFX_PRECISION_BF16] = dev->bf16;
	info->precision[DFX_PRECISION_INT8] = dev->int8;
	if (!dev->int8)
		info->why_not[DFX_PRECISION_INT8] = "this CPU has no VNNI";
	if (!dev->bf16)
		info->why_not[DFX_PRECISION_BF16] = "this CPU has neither avx512_bf16 nor amx_bf16";
}

/* Convolutions and linear layers take any epilogue as post-ops; the rest is ops.c's. */
static bool
device_supports(void *dev, const DfxGraph *g, const DfxOp *op)
{
	(void) dev;
	switch (op->kind)
	{
		case DFX_OP_CONV:
		case DFX_OP_LINEAR:
			return true;
		case DFX_OP_ACT:
			return op->u.act != DFX_ACT_NONE && op->epi_add < 0 && op->epi_act == DFX_ACT_NONE &&
			       op->epi_scale < 0 && op->epi_shift < 0;
		case DFX_OP_TOKENS:
		case DFX_OP_LAYERNORM:
		case DFX_OP_ATTN:
			return cpu_tokens_supports(op);
		default:
			return cpu_own_supports(g, op);
	}
}

const DfxBackend dfx_cpu_backend = {
    .api = DFX_BACKEND_API,
    .name = "cpu",
    .open = device_open,
    .close = device_close,
    .info = device_info,
    .supports = device_supports,
    .compile = cpu_compile,
    .release = cpu_release,
    .bytes = cpu_bytes,
    .forward = cpu_forward,
    .forward_train = cpu_forward_train,
    .backward = cpu_backward,
    .step = cpu_step,
    .read_params = cpu_read_params,
    .write_params = cpu_write_params,
    .largest = cpu_largest,
};
