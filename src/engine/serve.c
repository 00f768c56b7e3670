/*
 * serve.c
 *	  The life of the engine as a child of the supervisor: begin, and end with it.
 *
 * PostgreSQL resets the whole cluster when a child that it does not know dies
 * by a signal or with a status other than 0 and 1; as PID 1 of a container the
 * postmaster inherits orphans.  Hence the engine asks the kernel for SIGTERM
 * when its parent dies, answers it with _exit(0), and exits with 0 when the
 * control socket closes.  Threads other than the main one block every signal,
 * or SIGTERM could interrupt a library that is not made for it.
 *
 * One engine of each number on a ring: a lock on its byte, on a private open file
 * description of the memfd.  A successor waits here until its predecessor has
 * really gone, since what that one had picked is given to others.
 */
#include "engine/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "engine/control.h"
#include "engine/sched.h"

#define SERVE_OOM_SCORE "500" /* rather this process than a backend */

static void
serve_terminate(int signo)
{
	(void) signo;
	_exit(0);
}

void
dfx_serve_bind(long parent)
{
	struct sigaction sa = {.sa_handler = serve_terminate};
	FILE *f;

	sigaction(SIGTERM, &sa, NULL);
	sa.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &sa, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (parent != 0 && getppid() != (pid_t) parent)
		_exit(0); /* it died before we asked */
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	f = fopen("/proc/self/oom_score_adj", "w");
	if (f)
	{
		fputs(SERVE_OOM_SCORE, f);
		fclose(f);
	}
}

/* Become the ring's only engine of this number.  The lock is never given back: the kernel does that when the
 * process ends.
 */
static DfxStatus
serve_lease(int engine, DfxErr *err)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = engine, .l_len = 1};
	char path[32];
	int fd;

	snprintf(path, sizeof path, "/proc/self/fd/%d", DFX_ENGINE_RING_FD);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return dfx_fail(err, DFX_EIO, "could not open the ring anew: %s", strerror(errno));
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return DFX_OK;
	dfx_log('I', "waiting for the previous engine to end");
	while (fcntl(fd, F_OFD_SETLKW, &lock) != 0)
		if (errno != EINTR)
			return dfx_fail(err, DFX_EIO, "could not lock the ring: %s", strerror(errno));
	return DFX_OK;
}

/* Statistics count from this engine's start. */
static void
serve_reset_stats(DfxRingStats *stats)
{
	struct timespec now;

	memset(stats, 0, sizeof *stats);
	clock_gettime(CLOCK_REALTIME, &now);
	atomic_store(&stats->started, (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec);
}

/* The cores this process may use: a container's share, not the machine's. */
static int
serve_cores(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof set, &set) != 0)
		return 1;
	return CPU_COUNT(&set);
}

/* This engine's share of the threads; 0: as many as there are cores, and no other engine wants some. */
static int
serve_threads(const DfxServeOpts *opts)
{
	int all = opts->threads > 0 ? opts->threads : serve_cores();

	if (opts->engines == 1)
		return opts->threads;
	return all < opts->engines ? 1 : all / opts->engines + (opts->engine < all % opts->engines);
}

/* The bytes that models may take on this device. */
static uint64_t
serve_model_limit(const DfxServeOpts *opts, const DfxDevice *device)
{
	if (device->info.memory == 0)
		return opts->model_memory;
	return opts->gpu_memory > 0 ? opts->gpu_memory : device->info.memory / 2;
}

/* How many batches run at a time and of how many images: what the device has use for, within what the user
 * allows in all. */
static void
serve_batches(const DfxServeOpts *opts, const DfxDevice *device, DfxSchedOpts *so)
{
	const DfxDevInfo *info = &device->info;
	int images = opts->max_batch;

	so->in_turn = info->in_turn;
	if (info->in_turn)
	{
		so->lanes = info->lanes;
		so->batch = images;
		return;
	}
	if (info->batch > 0 && info->batch * info->lanes < images)
		images = info->batch * info->lanes;
	so->lanes = info->lanes < images ? info->lanes : images;
	so->batch = images / so->lanes;
}

/* Ring, lease, device, scheduler; signals are blocked wherever threads may be made. */
static DfxStatus
serve_begin(const DfxServeOpts *opts, DfxRingMap *map, DfxDevice *device, DfxSched *sched, DfxErr *err)
{
	int threads = serve_threads(opts);
	DfxDeviceOpts dev = {.spec = opts->device, .threads = threads, .memory = opts->gpu_memory};
	DfxSchedOpts so = {.map = map, .device = device};
	sigset_t all, before;
	DfxStatus st;

	if (opts->engine >= opts->engines)
		return dfx_fail(err, DFX_EINVAL, "there is no engine %d of %d", opts->engine, opts->engines);
	st = dfx_ring_map(DFX_ENGINE_RING_FD, (uint32_t) opts->engine, map, err);
	if (st == DFX_OK)
		st = serve_lease(opts->engine, err);
	if (st != DFX_OK)
		return st;
	serve_reset_stats(&map->own->stats);
	dev.progress = &map->own->stats.progress;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	st = dfx_device_open(&dev, device, err);
	snprintf(map->own->refused, sizeof map->own->refused, "%s", device->refused);
	if (st == DFX_OK)
	{
		snprintf(map->own->device, sizeof map->own->device, "%s", device->info.name);
		serve_batches(opts, device, &so);
		so.threads = threads > 0 ? threads : serve_cores();
		so.batch_wait_ns = (uint64_t) opts->batch_wait_ms * 1000000u;
		so.cache = dfx_cache_new(serve_model_limit(opts, device), dfx_ring_needs, map, &map->own->stats,
		                         map->own->model);
		st = so.cache ? dfx_sched_start(sched, &so, err)
		              : dfx_fail(err, DFX_ENOMEM, "out of memory for the model cache");
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return st;
}

int
dfx_serve(const DfxServeOpts *opts)
{
	static DfxRingMap map;
	static DfxDevice device;
	static DfxSched sched;
	sigset_t all, before;
	DfxErr err;
	DfxStatus st;

	dfx_serve_bind(opts->parent);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	st = dfx_control_start(DFX_ENGINE_CONTROL_FD, &err);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (st == DFX_OK)
		st = serve_begin(opts, &map, &device, &sched, &err);
	if (st != DFX_OK)
	{
		dfx_control_fatal(err.msg);
		fprintf(stderr, "dfx-engine: %s\n", err.msg);
		return 1;
	}
	dfx_control_ready();
	dfx_sched_run(&sched);
}
