/*
 * host_rt.c
 *	  The device of host_rt.h.  A graph is the list of what was put on the
 *	  stream between capture and captured; all work is done at once.
 */
#include "tests/cuda/host_rt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/host/launch.h"

enum HostWork
{
	HOST_LAUNCH,
	HOST_CLEAR,
	HOST_COPY
};

typedef struct HostNode
{
	enum HostWork work;
	GpuKernel kernel;
	GpuType type;
	GpuArgs args[GPU_BRANCHES];
	int count, n;
	void *to;
	const void *from;
	size_t bytes;
} HostNode;

typedef struct HostGraph
{
	HostNode *node;
	int n, cap;
} HostGraph;

static HostRt *
host_self(GpuRt *rt)
{
	return (HostRt *) (void *) rt;
}

/* Blocks carry their size in front. */
static DfxStatus
host_alloc(GpuRt *rt, size_t bytes, void **p, DfxErr *err)
{
	HostRt *h = host_self(rt);
	char *block;

	if (h->room && h->taken + bytes > h->room)
		return dfx_fail(err, DFX_ENOMEM, "no room for %zu bytes", bytes);
	block = aligned_alloc(GPU_ALIGN, (bytes + 2 * GPU_ALIGN - 1) / GPU_ALIGN * GPU_ALIGN);
	if (!block)
		return dfx_fail(err, DFX_ENOMEM, "out of memory");
	memcpy(block, &bytes, sizeof bytes);
	memset(block + GPU_ALIGN, 0xff, bytes); /* NaN in every type: whoever reads what nobody wrote shows */
	h->taken += bytes;
	h->blocks++;
	*p = block + GPU_ALIGN;
	return DFX_OK;
}

static void
host_release(GpuRt *rt, void *p)
{
	char *block = (char *) p - GPU_ALIGN;
	size_t bytes;

	memcpy(&bytes, block, sizeof bytes);
	host_self(rt)->taken -= bytes;
	host_self(rt)->blocks--;
	free(block);
}

static DfxStatus
host_alloc_host(GpuRt *rt, size_t bytes, void **p, DfxErr *err)
{
	*p = calloc(1, bytes);
	host_self(rt)->blocks += *p != NULL;
	return *p ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory");
}

static void
host_release_host(GpuRt *rt, void *p)
{
	host_self(rt)->blocks--;
	free(p);
}

static DfxStatus
host_move(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err)
{
	(void) rt;
	(void) err;
	memcpy(to, from, bytes);
	return DFX_OK;
}

static DfxStatus
host_do(HostRt *h, const HostNode *node, DfxErr *err)
{
	int e;

	if (node->work == HOST_CLEAR)
		memset(node->to, 0, node->bytes);
	if (node->work == HOST_COPY)
		memcpy(node->to, node->from, node->bytes);
	if (node->work != HOST_LAUNCH)
		return DFX_OK;
	if (h->lose_after >= 0 && h->launches >= h->lose_after)
		return dfx_fail(err, DFX_ELOST, "the device is gone");
	h->launches++;
	h->clock += h->cost[node->kernel];
	h->seen |= (uint64_t) 1 << node->kernel;
	e = gpu_host_launch(node->kernel, node->type, node->args, node->count, node->n);
	return e ? dfx_fail(err, DFX_EDEVICE, "kernel %s refuses with %d", gpu_kernel_name[node->kernel], e)
	         : DFX_OK;
}

/* Into the graph that is being captured, or done at once. */
static DfxStatus
host_put(HostRt *h, HostNode node, DfxErr *err)
{
	HostGraph *g = h->recording;

	if (!g)
		return host_do(h, &node, err);
	if (g->n == g->cap)
	{
		g->cap = g->cap ? 2 * g->cap : 64;
		g->node = realloc(g->node, (size_t) g->cap * sizeof *g->node);
		if (!g->node)
			abort();
	}
	g->node[g->n++] = node;
	return DFX_OK;
}

static DfxStatus
host_clear(GpuRt *rt, void *p, size_t bytes, DfxErr *err)
{
	return host_put(host_self(rt), (HostNode){.work = HOST_CLEAR, .to = p, .bytes = bytes}, err);
}

static DfxStatus
host_copy(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err)
{
	return host_put(host_self(rt), (HostNode){.work = HOST_COPY, .to = to, .from = from, .bytes = bytes},
	                err);
}

static DfxStatus
host_launch(GpuRt *rt, GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n, DfxErr *err)
{
	HostNode node = {.work = HOST_LAUNCH, .kernel = kernel, .type = type, .count = count, .n = n};

	memcpy(node.args, args, (size_t) count * sizeof *args);
	return host_put(host_self(rt), node, err);
}

static DfxStatus
host_capture(GpuRt *rt, DfxErr *err)
{
	HostRt *h = host_self(rt);

	h->recording = calloc(1, sizeof(HostGraph));
	return h->recording ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory");
}

static DfxStatus
host_captured(GpuRt *rt, void **graph, DfxErr *err)
{
	HostRt *h = host_self(rt);

	(void) err;
	*graph = h->recording;
	h->recording = NULL;
	h->graphs++;
	return DFX_OK;
}

static void
host_release_graph(GpuRt *rt, void *graph)
{
	HostGraph *g = graph;

	host_self(rt)->graphs--;
	free(g->node);
	free(g);
}

static DfxStatus
host_submit(GpuRt *rt, const GpuSubmit *s, DfxErr *err)
{
	const HostGraph *g = s->graph;
	DfxStatus st = DFX_OK;

	memcpy(s->in, s->in_host, s->in_bytes);
	for (int i = 0; st == DFX_OK && i < g->n; i++)
		st = host_do(host_self(rt), &g->node[i], err);
	memcpy(s->out_host, s->out, s->out_bytes);
	return st;
}

static DfxStatus
host_wait(GpuRt *rt, int lane, DfxErr *err)
{
	(void) rt;
	(void) lane;
	(void) err;
	return DFX_OK;
}

static DfxStatus
host_start(GpuRt *rt, DfxErr *err)
{
	(void) err;
	host_self(rt)->clock = 0;
	return DFX_OK;
}

static DfxStatus
host_stop(GpuRt *rt, double *milliseconds, DfxErr *err)
{
	(void) err;
	*milliseconds = host_self(rt)->clock;
	return DFX_OK;
}

static void
host_enter(GpuRt *rt)
{
	(void) rt;
}

/* A test looks at the counters of its own device afterwards, and frees it. */
static void
host_close(GpuRt *rt)
{
	if (host_self(rt)->opened)
		free(rt);
}

static const GpuRtOps host_ops = {
    .close = host_close,
    .enter = host_enter,
    .alloc = host_alloc,
    .release = host_release,
    .alloc_host = host_alloc_host,
    .release_host = host_release_host,
    .upload = host_move,
    .download = host_move,
    .clear = host_clear,
    .copy = host_copy,
    .launch = host_launch,
    .capture = host_capture,
    .captured = host_captured,
    .release_graph = host_release_graph,
    .submit = host_submit,
    .wait = host_wait,
    .start = host_start,
    .stop = host_stop,
};

HostRt *
host_rt_new(void)
{
	HostRt *h = calloc(1, sizeof *h);

	if (!h)
		abort();
	h->rt = (GpuRt){.ops = &host_ops, .memory = (uint64_t) 1 << 40, .name = "host twin", .major = 9};
	snprintf(h->rt.versions, sizeof h->rt.versions, "no driver");
	h->lose_after = -1;
	for (int k = 0; k < GPU_KERNEL_COUNT; k++)
		h->cost[k] = 1;
	return h;
}

DfxDev *
host_device(HostRt *rt, const DfxDevOpts *opts)
{
	GpuLib *const none[GPU_LIBS] = {NULL};
	DfxDev *dev;
	DfxErr err;

	if (gpu_device_new(&rt->rt, none, opts, NULL, &dev, &err) != DFX_OK)
		abort();
	return dev;
}

static DfxStatus
host_open(const DfxDevOpts *opts, DfxDev **dev, DfxErr *err)
{
	HostRt *rt = host_rt_new();

	(void) err;
	rt->opened = true;
	*dev = host_device(rt, opts);
	return DFX_OK;
}

const DfxBackend host_backend = {
    .api = DFX_BACKEND_API,
    .name = "cuda on the host",
    .open = host_open,
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
};
