/*
 * spawn.h
 *	  Starting the engine process (spawn.c).
 */
#ifndef DFX_PG_SPAWN_H
#define DFX_PG_SPAWN_H

#include "postgres.h"

/* What the engine is told at its start: a change of it means a new engine. */
typedef struct DfxSpawnOptions
{
	char		device[128];
	int			threads;
	int			max_batch;		/* already bounded by dfx.queue_slots */
	int			batch_wait;		/* ms */
	int			model_memory;	/* MB */
	int			gpu_memory;		/* MB */
} DfxSpawnOptions;

/* From the settings as they are now.  All bytes are defined, so that two can be compared by memcmp(). */
extern void dfx_spawn_options(DfxSpawnOptions *options);

/*
 * Fork and exec the engine; returns its pid and the supervisor's end of the
 * control socket (close-on-exec, non-blocking), or -1 with the reason in why.
 */
extern pid_t dfx_spawn_engine(const DfxSpawnOptions *options, int *control, char *why, Size why_size);

#endif							/* DFX_PG_SPAWN_H */
