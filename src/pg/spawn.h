/*
 * spawn.h
 *	  The engine as a process (spawn.c).
 */
#ifndef DFX_PG_SPAWN_H
#define DFX_PG_SPAWN_H

#include "postgres.h"

/* What the engine is told at its start: a change of it means a new engine. */
typedef struct DfxSpawnOptions
{
	char		device[128];	/* the whole list */
	int			engines;		/* how many that are */
	int			threads;
	int			max_batch;		/* already bounded by dfx.queue_slots */
	int			batch_wait;		/* ms */
	int			model_memory;	/* MB */
	int			gpu_memory;		/* MB */
} DfxSpawnOptions;

/*
 * From the settings as they are now.  All bytes are defined, so that two can
 * be compared by memcmp().
 */
extern void dfx_spawn_options(DfxSpawnOptions *options);

/*
 * Fork and exec dfx-engine with that command line (a NULL at its end); of our
 * descriptors it finds fd[0] as number 3, fd[1] as 4, and no others but 0 to 2.
 * Returns its pid, or -1 with the reason in why.
 */
extern pid_t dfx_spawn_program(char *const *argv, const int *fd, int nfd, char *why, Size why_size);

/* A pair of sockets for it, close-on-exec; pair[0] is ours, non-blocking.  False with the reason in why. */
extern bool dfx_spawn_socket(int type, int pair[2], char *why, Size why_size);

/*
 * Fork and exec the engine that serves on device number engine of the list; returns its pid and the supervisor's end of the
 * control socket (close-on-exec, non-blocking), or -1 with the reason in why.
 */
extern pid_t dfx_engine_spawn(const DfxSpawnOptions *options, int engine, int *control,
							  char *why, Size why_size);

/*
 * Wait until the engine has ended: for grace_ms of its own accord, then by
 * SIGKILL.  how says how it did.  Nobody writes to the ring after this.  True
 * when it was ended by somebody else: by SIGKILL, as the kernel does for want of
 * memory, or by a signal that asks for an end.
 */
extern bool dfx_engine_reap(pid_t pid, int grace_ms, char *how, Size how_size);

/*
 * Reap what the engines, whose pids are left alone, may have started themselves: the
 * supervisor is a subreaper, so that such processes end here and not with a
 * postmaster that is process 1.
 */
extern void dfx_engine_reap_orphans(bool (*is_engine) (pid_t pid));

/*
 * Have the engines of an earlier supervisor ended?  Each holds a lock on the
 * ring as long as it lives.
 */
extern bool dfx_engine_ring_is_free(void);

#endif							/* DFX_PG_SPAWN_H */
