/*
 * device.c
 *	  A GPU as a device: turns, memory, what it is and what it can run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

/* ---- turns ---- */

void
gpu_turn_take(DfxDev *dev)
{
	GpuTurn *t = &dev->turn;
	uint64_t mine;

	pthread_mutex_lock(&t->lock);
	mine = t->next++;
	while (t->serving != mine)
		pthread_cond_wait(&t->moved, &t->lock);
	pthread_mutex_unlock(&t->lock);
	dev->rt->ops->enter(dev->rt);
}

void
gpu_turn_end(DfxDev *dev)
{
	GpuTurn *t = &dev->turn;

	pthread_mutex_lock(&t->lock);
	t->serving++;
	pthread_cond_broadcast(&t->moved);
	pthread_mutex_unlock(&t->lock);
}

void
gpu_progress(const DfxDev *dev)
{
	if (dev->progress)
		atomic_fetch_add_explicit(dev->progress, 1, memory_order_relaxed);
}

void
gpu_give_way(DfxDev *dev)
{
	gpu_progress(dev);
	gpu_turn_end(dev);
	gpu_turn_take(dev);
}

/* ---- memory ---- */

DfxStatus
gpu_alloc(DfxDev *dev, size_t bytes, GpuMem *mem, DfxErr *err)
{
	void *p = NULL;
	DfxStatus st;

	*mem = (GpuMem){0};
	if (bytes > dev->limit - dev->used)
		return dfx_fail(
		    err, DFX_ENOMEM, "%zu MB of device memory are too much: %llu of the %llu MB allowed are in use",
		    bytes >> 20, (unsigned long long) (dev->used >> 20), (unsigned long long) (dev->limit >> 20));
	st = dev->rt->ops->alloc(dev->rt, bytes, &p, err);
	if (st != DFX_OK)
		return st;
	*mem = (GpuMem){.p = p, .bytes = bytes};
	dev->used += bytes;
	return DFX_OK;
}

void
gpu_free(DfxDev *dev, GpuMem *mem)
{
	if (mem->p)
		dev->rt->ops->release(dev->rt, mem->p);
	dev->used -= mem->bytes;
	*mem = (GpuMem){0};
}

/* ---- the device ---- */

void
gpu_close(DfxDev *dev)
{
	if (!dev)
		return;
	gpu_cache_close(dev->cache);
	gpu_free(dev, &dev->work);
	for (int i = 0; i < GPU_LIBS; i++)
		if (dev->lib[i])
			dev->lib[i]->ops->close(dev->lib[i]);
	dev->rt->ops->close(dev->rt);
	pthread_cond_destroy(&dev->turn.moved);
	pthread_mutex_destroy(&dev->turn.lock);
	free(dev);
}

DfxStatus
gpu_device_new(GpuRt *rt, GpuLib *const lib[GPU_LIBS], const DfxDevOpts *opts, const char *cache_dir,
               DfxDev **out, DfxErr *err)
{
	DfxDev *dev = calloc(1, sizeof *dev);
	DfxStatus st = DFX_OK;

	*out = NULL;
	if (!dev)
	{
		for (int i = 0; i < GPU_LIBS; i++)
			if (lib[i])
				lib[i]->ops->close(lib[i]);
		rt->ops->close(rt);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the CUDA device");
	}
	dev->rt = rt;
	dev->limit = opts->memory > 0 && opts->memory < rt->memory ? opts->memory : rt->memory;
	dev->progress = opts->progress;
	pthread_mutex_init(&dev->turn.lock, NULL);
	pthread_cond_init(&dev->turn.moved, NULL);
	snprintf(dev->name, sizeof dev->name, "cuda: %.36s (%u.%u), %.40s", rt->name, (unsigned char) rt->major,
	         (unsigned char) rt->minor, rt->versions);
	for (int i = 0; i < GPU_LIBS; i++)
	{
		dev->lib[i] = lib[i];
		if (lib[i] && !dev->work.p && st == DFX_OK)
			st = gpu_alloc(dev, GPU_WORK_BYTES, &dev->work, err);
	}
	dev->cache = gpu_cache_open(cache_dir, rt->name, rt->versions);
	if (st == DFX_OK && !dev->cache)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for the CUDA device");
	if (st != DFX_OK)
	{
		gpu_close(dev);
		return st;
	}
	*out = dev;
	return DFX_OK;
}

void
gpu_info(const DfxDev *dev, DfxDevInfo *info)
{
	*info = (DfxDevInfo){.lanes = 1, .memory = dev->rt->memory, .automatic = DFX_PRECISION_FP16};
	memcpy(info->name, dev->name, sizeof info->name);
	info->precision[DFX_PRECISION_AUTO] = true;
	info->precision[DFX_PRECISION_FP32] = true;
	info->precision[DFX_PRECISION_FP16] = true;
	info->precision[DFX_PRECISION_BF16] = true;
}

/* Products take any epilogue, BN's remains and sums an activation. */
bool
gpu_supports(void *dev, const DfxGraph *g, const DfxOp *op)
{
	bool plain = op->epi_add < 0 && op->epi_scale < 0 && op->epi_shift < 0;

	(void) dev;
	switch (op->kind)
	{
		case DFX_OP_CONV:
		case DFX_OP_LINEAR:
			return true;
		case DFX_OP_AFFINE:
		case DFX_OP_ADD:
			return plain;
		case DFX_OP_ATTN:
			return plain && op->epi_act == DFX_ACT_NONE && g->val[op->out].h <= GPU_MAX_TOKENS;
		default:
			return plain && op->epi_act == DFX_ACT_NONE;
	}
}
