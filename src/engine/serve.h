/*
 * serve.h
 *	  `dfx-engine serve`: the engine as a child of PostgreSQL's supervisor.
 */
#ifndef DFX_ENGINE_SERVE_H
#define DFX_ENGINE_SERVE_H

#include <stdint.h>

typedef struct DfxServeOpts
{
	long parent;        /* pid of the supervisor, 0: not checked */
	const char *device; /* auto, cpu, cuda, cuda:N */
	int engine;         /* which of ... */
	int engines;        /* ... so many on this ring */
	int threads;        /* of all of them; 0: all cores */
	int max_batch;
	int batch_wait_ms;
	uint64_t model_memory; /* bytes, on a device that uses the host's memory */
	uint64_t gpu_memory;   /* bytes, on one with its own; 0: half of it */
} DfxServeOpts;

/*
 * Tie this process's life to that of its parent, whose pid is given (0: not
 * checked): SIGTERM, which the kernel sends when the parent dies, ends it with
 * status 0 at once.
 */
extern void dfx_serve_bind(long parent);

/* Serve the ring at descriptor 3; returns an exit status only when it cannot begin. */
extern int dfx_serve(const DfxServeOpts *opts);

#endif /* DFX_ENGINE_SERVE_H */
