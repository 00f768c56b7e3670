/*
 * device.c
 *	  A GPU as a device: turns, lanes, memory, what it is and what it can run.
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

/* ---- lanes ---- */

/* One that is free becomes the caller's; -1: there is none. */
static int
lane_free(GpuLanes *lanes)
{
	for (int l = 0; l < GPU_LANES; l++)
		if (!lanes->taken[l])
		{
			lanes->taken[l] = true;
			return l;
		}
	return -1;
}

int
gpu_lane_take(DfxDev *dev)
{
	GpuLanes *lanes = &dev->lanes;
	int l;

	pthread_mutex_lock(&lanes->lock);
	lanes->waiting++;
	while ((l = lane_free(lanes)) < 0)
		pthread_cond_wait(&lanes->freed, &lanes->lock);
	lanes->waiting--;
	pthread_mutex_unlock(&lanes->lock);
	return l;
}

int
gpu_lane_try(DfxDev *dev)
{
	GpuLanes *lanes = &dev->lanes;
	int l;

	pthread_mutex_lock(&lanes->lock);
	l = lanes->waiting > 0 ? -1 : lane_free(lanes);
	pthread_mutex_unlock(&lanes->lock);
	return l;
}

bool
gpu_lane_wanted(DfxDev *dev)
{
	bool wanted;

	pthread_mutex_lock(&dev->lanes.lock);
	wanted = dev->lanes.waiting > 0;
	pthread_mutex_unlock(&dev->lanes.lock);
	return wanted;
}

void
gpu_lane_end(DfxDev *dev, int lane)
{
	pthread_mutex_lock(&dev->lanes.lock);
	dev->lanes.taken[lane] = false;
	pthread_cond_signal(&dev->lanes.freed);
	pthread_mutex_unlock(&dev->lanes.lock);
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

/* ---- memory of the caller's ---- */

DfxStatus
gpu_lock(DfxDev *dev, void *p, size_t bytes, DfxErr *err)
{
	GpuLocks *locks = &dev->locks;
	DfxStatus st = DFX_OK;

	gpu_turn_take(dev);
	pthread_mutex_lock(&locks->lock);
	if (locks->n == GPU_LOCKS)
		st = dfx_fail(err, DFX_EUNSUPPORTED, "the CUDA backend page-locks %d pieces of memory at the most",
		              GPU_LOCKS);
	if (st == DFX_OK)
		st = dev->rt->ops->lock(dev->rt, p, bytes, err);
	if (st == DFX_OK)
	{
		locks->at[locks->n].p = p;
		locks->at[locks->n++].bytes = bytes;
	}
	pthread_mutex_unlock(&locks->lock);
	gpu_turn_end(dev);
	return st;
}

void
gpu_unlock(DfxDev *dev, void *p)
{
	GpuLocks *locks = &dev->locks;

	gpu_turn_take(dev);
	pthread_mutex_lock(&locks->lock);
	for (int i = 0; i < locks->n; i++)
		if (locks->at[i].p == p)
		{
			dev->rt->ops->unlock(dev->rt, p);
			locks->at[i] = locks->at[--locks->n];
			break;
		}
	pthread_mutex_unlock(&locks->lock);
	gpu_turn_end(dev);
}

bool
gpu_is_locked(DfxDev *dev, const void *p, size_t bytes)
{
	GpuLocks *locks = &dev->locks;
	uintptr_t from = (uintptr_t) p;
	bool locked = false;

	pthread_mutex_lock(&locks->lock);
	for (int i = 0; !locked && i < locks->n; i++)
	{
		uintptr_t first = (uintptr_t) locks->at[i].p;
		size_t room = locks->at[i].bytes;

		locked = from >= first && bytes <= room && from - first <= room - bytes;
	}
	pthread_mutex_unlock(&locks->lock);
	return locked;
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
	pthread_cond_destroy(&dev->lanes.freed);
	pthread_mutex_destroy(&dev->lanes.lock);
	pthread_mutex_destroy(&dev->locks.lock);
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
	pthread_mutex_init(&dev->lanes.lock, NULL);
	pthread_cond_init(&dev->lanes.freed, NULL);
	pthread_mutex_init(&dev->locks.lock, NULL);
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
	*info = (DfxDevInfo){.lanes = GPU_LANES,
	                     .in_turn = true,
	                     .memory = dev->rt->memory,
	                     .busy_ns = atomic_load_explicit(&dev->busy_ns, memory_order_relaxed),
	                     .automatic = DFX_PRECISION_FP16};
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
