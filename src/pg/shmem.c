/*
 * shmem.c
 *	  Makes the ring, and PostgreSQL's own shared memory beside it.
 *
 * The ring is a memfd that the postmaster creates in shmem_startup_hook, so
 * that every child inherits mapping and descriptor.  Its pages are allocated
 * at once and its size is sealed: a full machine or a stray ftruncate() in the
 * engine would otherwise be SIGBUS in a backend, and that a crash restart.
 * The hook runs again after a crash restart; the ring is then made anew,
 * because an engine of the old times may still write to the old one.
 *
 * A server whose ring cannot be made starts all the same.  The reason is
 * logged and given to whoever calls.
 */
#include "postgres.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "pg/clock.h"
#include "pg/settings.h"
#include "pg/shmem.h"

#ifndef MFD_NOEXEC_SEAL			/* Linux 6.3; older headers lack it */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SHMEM_TRANCHE "deepfeaturex"

DfxShared  *dfx_shared = NULL;
DfxRing    *dfx_ring = NULL;
int			dfx_ring_fd = -1;
DfxLayout	dfx_layout;
char		dfx_ring_reason[DFX_REASON_LEN];

static shmem_request_hook_type shmem_prev_request = NULL;
static shmem_startup_hook_type shmem_prev_startup = NULL;

static uint32
shmem_arena_pages(void)
{
	return (uint32) ((Size) dfx_queue_memory * 1024 * 1024 / DFX_PAGE);
}

/* Where the arrays behind DfxShared start; the last offset is the whole size. */
typedef struct ShmemPlan
{
	Size		slot,
				waiter,
				train,
				free_slot,
				map,
				total;
} ShmemPlan;

static ShmemPlan
shmem_plan(void)
{
	ShmemPlan	plan;

	plan.slot = MAXALIGN(sizeof(DfxShared));
	plan.waiter = add_size(plan.slot, MAXALIGN(mul_size(dfx_queue_slots + 1, sizeof(DfxSlotCtl))));
	plan.train = add_size(plan.waiter, MAXALIGN(mul_size(MaxBackends, sizeof(DfxWaiter))));
	plan.free_slot = add_size(plan.train, MAXALIGN(mul_size(MaxBackends, sizeof(DfxTrainLive))));
	plan.map = add_size(plan.free_slot, MAXALIGN(mul_size(dfx_queue_slots, sizeof(int))));
	plan.total = add_size(plan.map, MAXALIGN(dfx_arena_map_bytes(shmem_arena_pages())));
	return plan;
}

static void
shmem_request(void)
{
	if (shmem_prev_request)
		shmem_prev_request();
	RequestAddinShmemSpace(shmem_plan().total);
	RequestNamedLWLockTranche(SHMEM_TRANCHE, 1);
}

static void
shmem_init_shared(DfxShared *s)
{
	ShmemPlan	plan = shmem_plan();

	memset(s, 0, plan.total);
	s->lock = &GetNamedLWLockTranche(SHMEM_TRANCHE)->lock;
	s->nslots = dfx_queue_slots;
	s->slot = (DfxSlotCtl *) ((char *) s + plan.slot);
	s->waiter = (DfxWaiter *) ((char *) s + plan.waiter);
	s->train = (DfxTrainLive *) ((char *) s + plan.train);
	s->ntrain = MaxBackends;
	for (int i = 0; i < s->ntrain; i++)
		pg_atomic_init_u32(&s->train[i].changes, 0);
	s->free_slot = (int *) ((char *) s + plan.free_slot);
	dfx_arena_init(&s->arena, (uint64 *) ((char *) s + plan.map), shmem_arena_pages());

	/* Popped from the end: low slots first, which the engine's scan meets first. */
	s->nfree = s->nslots;
	for (int i = 0; i < s->nslots; i++)
		s->free_slot[i] = s->nslots - 1 - i;
	for (int i = 0; i <= s->nslots; i++)
		pg_atomic_init_u64(&s->slot[i].taken, 0);

	/*
	 * Generations are never used again, not even by the next life of the server.
	 * (The clock begins anew with the machine, when nobody remembers any.)
	 */
	s->next_gen = (uint64) dfx_clock_ms() * 1000;
	dlist_init(&s->line);
	ConditionVariableInit(&s->loader_cv);
	pg_atomic_init_u32(&s->state, DFX_ENGINE_DOWN);
	pg_atomic_init_u32(&s->nengines, 1);
	for (int i = 0; i < DFX_MAX_ENGINES; i++)
	{
		pg_atomic_init_u32(&s->engine[i].state, DFX_ENGINE_DOWN);
		pg_atomic_init_u64(&s->engine[i].epoch, 0);
	}
	strlcpy(s->engine[0].last_error, "the supervisor has not started; see max_worker_processes", DFX_REASON_LEN);
}

/*
 * The number that follows key (or starts the file, when key is "") in a file
 * of /proc or /sys; false if there is none.
 */
static bool
shmem_read_number(const char *path, const char *key, uint64 *value)
{
	FILE	   *f = fopen(path, "r");
	char		line[128];
	bool		found = false;

	if (f == NULL)
		return false;
	while (!found && fgets(line, sizeof(line), f) != NULL)
		found = strncmp(line, key, strlen(key)) == 0 &&
			sscanf(line + strlen(key), UINT64_FORMAT, value) == 1;
	fclose(f);
	return found;
}

/* The same, as a number of bytes to be added up: 0 if there is none. */
static uint64
shmem_bytes(const char *path, const char *key, uint64 unit)
{
	uint64		value;

	return shmem_read_number(path, key, &value) ? value * unit : 0;
}

/*
 * Bytes that can be allocated without waking the kernel's OOM killer, which
 * fallocate() on a memfd would do rather than fail: of the machine, and of the
 * container, where cached files do not count as used.  UINT64_MAX if unknown.
 */
static uint64
shmem_available(void)
{
	static const char meminfo[] = "/proc/meminfo";
	static const char stat[] = "/sys/fs/cgroup/memory.stat";
	uint64		left = shmem_bytes(meminfo, "MemAvailable:", 1024);
	uint64		limit,
				used,
				cached;

	if (left == 0)
		left = PG_UINT64_MAX;
	else
		left += shmem_bytes(meminfo, "SwapFree:", 1024);
	if (shmem_read_number("/sys/fs/cgroup/memory.max", "", &limit) &&
		shmem_read_number("/sys/fs/cgroup/memory.current", "", &used))
	{
		cached = shmem_bytes(stat, "inactive_file ", 1) + shmem_bytes(stat, "active_file ", 1);
		used -= Min(used, cached);
		left = Min(left, limit - Min(limit, used));
	}
	return left;
}

static DfxLayout
shmem_layout(void)
{
	DfxLayout	l;

	l.slots_off = DFX_RING_HEADER;
	l.arena_off = TYPEALIGN(DFX_PAGE, l.slots_off + (Size) (dfx_queue_slots + 1) * DFX_SLOT_STRIDE);
	l.arena_bytes = (Size) shmem_arena_pages() * DFX_PAGE;
	l.loader_off = l.arena_off + l.arena_bytes;
	l.total = l.loader_off + DFX_LOADER_BYTES;
	return l;
}

/* Returns what failed, with errno set, or NULL. */
static const char *
shmem_make_ring(Size size)
{
	int			rc;

	/* Kernels before 6.3 do not know the flag; later ones may insist on it. */
	dfx_ring_fd = memfd_create("deepfeaturex", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (dfx_ring_fd < 0 && errno == EINVAL)
		dfx_ring_fd = memfd_create("deepfeaturex", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (dfx_ring_fd < 0)
		return "memfd_create";
	do
		rc = fallocate(dfx_ring_fd, 0, 0, size);
	while (rc != 0 && errno == EINTR);
	if (rc != 0)
		return "fallocate";
	if (fcntl(dfx_ring_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return "sealing";
	dfx_ring = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, dfx_ring_fd, 0);
	if (dfx_ring == MAP_FAILED)
	{
		dfx_ring = NULL;
		return "mmap";
	}
	/* Users' images do not belong in core files. */
	(void) madvise(dfx_ring, size, MADV_DONTDUMP);
	return NULL;
}

static void
shmem_drop_ring(void)
{
	if (dfx_ring != NULL)
		munmap(dfx_ring, dfx_layout.total);
	if (dfx_ring_fd >= 0)
		close(dfx_ring_fd);
	dfx_ring = NULL;
	dfx_ring_fd = -1;
}

/*
 * Write the ring's header, and clear one engine's part of it.  Done at the
 * start, and again by the supervisor between two engines of that number, since
 * the late one may have written over it.
 */
void
dfx_ring_format(int engine)
{
	memset(&dfx_ring->engine[engine], 0, sizeof(dfx_ring->engine[engine]));
	dfx_ring->nslots = dfx_shared->nslots;
	dfx_ring->slots_off = dfx_layout.slots_off;
	dfx_ring->arena_off = dfx_layout.arena_off;
	dfx_ring->arena_bytes = dfx_layout.arena_bytes;
	dfx_ring->loader_off = dfx_layout.loader_off;
	dfx_ring->loader_bytes = DFX_LOADER_BYTES;
	dfx_ring->total_bytes = dfx_layout.total;
	dfx_ring->version = DFX_RING_VERSION;
	dfx_ring->magic = DFX_RING_MAGIC;
}

/*
 * Why there is no engine: what the last one died of or, with several devices,
 * that of each by its number.  Where size is too little for them, each
 * has an equal share; DFX_REASONS_LEN is enough.
 */
void
dfx_engines_reason(char *reason, Size size)
{
	int			n = dfx_nengines();
	Size		share = size / n;

	LWLockAcquire(dfx_shared->lock, LW_SHARED);
	if (n == 1)
		strlcpy(reason, dfx_shared->engine[0].last_error, size);
	for (int i = 0; i < n && n > 1; i++)
	{
		snprintf(reason, share, "%sengine %d: %s", i > 0 ? "; " : "", i, dfx_shared->engine[i].last_error);
		reason += strlen(reason);
	}
	LWLockRelease(dfx_shared->lock);
}

/* Runs in the postmaster: at its start, and after every crash restart. */
static void
shmem_startup(void)
{
	bool		found;
	uint64		available;
	const char *failed = NULL;

	if (shmem_prev_startup)
		shmem_prev_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	dfx_shared = ShmemInitStruct("deepfeaturex", shmem_plan().total, &found);
	if (!found)
		shmem_init_shared(dfx_shared);
	LWLockRelease(AddinShmemInitLock);

	shmem_drop_ring();
	dfx_layout = shmem_layout();
	available = shmem_available();
	if (dfx_layout.total > available)
		snprintf(dfx_ring_reason, sizeof(dfx_ring_reason),
				 "the queue needs %zu MB (dfx.queue_memory), " UINT64_FORMAT " MB are available",
				 dfx_layout.total >> 20, available >> 20);
	else if ((failed = shmem_make_ring(dfx_layout.total)) != NULL)
		snprintf(dfx_ring_reason, sizeof(dfx_ring_reason),
				 "%s of %zu MB for the queue failed: %s",
				 failed, dfx_layout.total >> 20, strerror(errno));
	else
	{
		dfx_ring_reason[0] = '\0';
		dfx_ring_format(0);
		return;
	}

	shmem_drop_ring();
	ereport(WARNING,
			(errmsg("deepfeaturex has no queue, its functions will fail"),
			 errdetail("%s", dfx_ring_reason),
			 errhint("Lower dfx.queue_memory.")));
}

/* Install the hooks; called from _PG_init() when preloading. */
void
dfx_shmem_init(void)
{
	shmem_prev_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	shmem_prev_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}
