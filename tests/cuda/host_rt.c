/*
 * host_rt.c
 *	  The device of host_rt.h.  A graph is the list of what was put on the
 *	  stream between capture and captured.
 *
 * Work is done at once, but for batches: a batch's copy up, graph and copy down
 * are done when somebody waits for its lane, or puts something on the stream
 * behind it.  So whoever uses a buffer too early gets wrong results, as he may
 * on a GPU.
 */
#include "tests/cuda/host_rt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

static void host_enter_stream(HostRt *h);

static void
host_leave_stream(HostRt *h)
{
	pthread_mutex_unlock(&h->lock);
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
	*p = host_self(rt)->refuses_host ? NULL : calloc(1, bytes);
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
host_lock(GpuRt *rt, void *p, size_t bytes, DfxErr *err)
{
	HostRt *h = host_self(rt);

	if (h->refuses_locks)
		return dfx_fail(err, DFX_EDEVICE, "the twin does not lock %zu bytes", bytes);
	h->locks++;
	h->locked = p;
	h->locked_end = h->locked + bytes;
	return DFX_OK;
}

static void
host_unlock(GpuRt *rt, void *p)
{
	HostRt *h = host_self(rt);

	h->locks--;
	if (h->locked == p)
		h->locked = h->locked_end = NULL;
}

static DfxStatus
host_move(GpuRt *rt, void *to, const void *from, size_t bytes, DfxErr *err)
{
	HostRt *h = host_self(rt);

	(void) err;
	host_enter_stream(h);
	memcpy(to, from, bytes);
	host_leave_stream(h);
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
	DfxStatus st;

	if (!g)
	{
		host_enter_stream(h);
		st = host_do(h, &node, err);
		host_leave_stream(h);
		return st;
	}
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
host_run(HostRt *h, const HostGraph *g, DfxErr *err)
{
	DfxStatus st = DFX_OK;

	for (int i = 0; st == DFX_OK && i < g->n; i++)
		st = host_do(h, &g->node[i], err);
	return st;
}

static DfxStatus
host_replay(GpuRt *rt, void *graph, DfxErr *err)
{
	HostRt *h = host_self(rt);
	DfxStatus st;

	host_enter_stream(h);
	st = host_run(h, graph, err);
	host_leave_stream(h);
	return st;
}

/* ---- batches ---- */

static void
host_do_batch(HostRt *h, HostBatch *b)
{
	const GpuSubmit *s = &b->submit;
	double before = h->clock;

	memcpy(s->in, s->in_host, s->in_bytes);
	b->st = host_run(h, s->graph, &b->err);
	memcpy(s->out_host, s->out, s->out_bytes);
	b->ms = h->clock - before;
	b->waits = false;
	h->in_flight--;
}

/* Whoever works on the stream first does what is on it, in order. */
static void
host_enter_stream(HostRt *h)
{
	pthread_mutex_lock(&h->lock);
	while (h->in_flight > 0)
	{
		HostBatch *first = NULL;

		for (int l = 0; l < GPU_LANES; l++)
			if (h->batch[l].waits && (!first || h->batch[l].number < first->number))
				first = &h->batch[l];
		host_do_batch(h, first);
	}
}

static DfxStatus
host_submit(GpuRt *rt, const GpuSubmit *s, DfxErr *err)
{
	HostRt *h = host_self(rt);
	HostBatch *b = &h->batch[s->lane];

	pthread_mutex_lock(&h->lock);
	if (b->waits)
		abort(); /* its buffers are in use */
	if (h->fail_submit > 0 && --h->fail_submit == 0)
	{
		pthread_mutex_unlock(&h->lock);
		return dfx_fail(err, DFX_EDEVICE, "the twin takes no batch");
	}
	*b = (HostBatch){.submit = *s, .number = h->batches++, .waits = true};
	h->in_flight++;
	if (h->in_flight > h->most_in_flight)
		h->most_in_flight = h->in_flight;
	h->staged +=
	    (const char *) s->in_host < h->locked || (const char *) s->in_host + s->in_bytes > h->locked_end;
	pthread_cond_broadcast(&h->submitted);
	pthread_mutex_unlock(&h->lock);
	return DFX_OK;
}

/* Until h->meet batches have been in flight at one time, or it is clear that they never will be. */
static void
host_meet(HostRt *h)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 30;
	pthread_mutex_lock(&h->lock);
	while (h->most_in_flight < h->meet && pthread_cond_timedwait(&h->submitted, &h->lock, &end) == 0)
		;
	pthread_mutex_unlock(&h->lock);
}

static DfxStatus
host_wait(GpuRt *rt, int lane, double *milliseconds, DfxErr *err)
{
	HostRt *h = host_self(rt);
	HostBatch *b = &h->batch[lane];
	DfxStatus st;

	host_meet(h);
	host_enter_stream(h);
	*milliseconds = b->ms;
	st = b->st;
	if (st != DFX_OK && err)
		*err = b->err;
	host_leave_stream(h);
	return st;
}

static DfxStatus
host_start(GpuRt *rt, DfxErr *err)
{
	HostRt *h = host_self(rt);

	(void) err;
	host_enter_stream(h);
	h->started = h->clock;
	host_leave_stream(h);
	return DFX_OK;
}

static DfxStatus
host_stop(GpuRt *rt, double *milliseconds, DfxErr *err)
{
	HostRt *h = host_self(rt);

	(void) err;
	host_enter_stream(h);
	*milliseconds = h->clock - h->started;
	host_leave_stream(h);
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
    .lock = host_lock,
    .unlock = host_unlock,
    .upload = host_move,
    .download = host_move,
    .clear = host_clear,
    .copy = host_copy,
    .launch = host_launch,
    .capture = host_capture,
    .captured = host_captured,
    .release_graph = host_release_graph,
    .replay = host_replay,
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
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->submitted, NULL);
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
    .lock = gpu_lock,
    .unlock = gpu_unlock,
};

/* What an engine finds in a library of all this (mk/cuda.mk). */
extern const DfxBackend dfx_backend __attribute__((alias("host_backend"), visibility("default")));
