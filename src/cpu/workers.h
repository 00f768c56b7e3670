/*
 * workers.h
 *	  A fixed set of threads, and jobs that run on some of them.
 *
 * A worker runs one job at a time, so what is kept for each worker (arenas,
 * streams) needs no lock.  Jobs of several callers run side by side, each on
 * workers of its own; who comes first is served first.
 *
 * Each worker is single-threaded for OpenMP as well: oneDNN decides at
 * primitive creation, in the creating thread, how many threads a primitive
 * will use, so primitives are created in a worker too.
 */
#ifndef DFX_CPU_WORKERS_H
#define DFX_CPU_WORKERS_H

#include <pthread.h>

#include "base/err.h"

typedef struct CpuWorkers CpuWorkers;

/* worker counts from 0; a failure goes into the job's own data. */
typedef void (*CpuJob)(void *arg, int worker);

extern DfxStatus cpu_workers_start(int n, CpuWorkers **out, DfxErr *err);
extern void cpu_workers_stop(CpuWorkers *w);

/* Keep a failure of a job, under the job's lock, in *first and *first_err, if it is the first one. */
extern void cpu_workers_failed(pthread_mutex_t *lock, DfxStatus *first, DfxErr *first_err, DfxStatus st,
                               const DfxErr *err);

/* Run job on workers 0 .. n - 1 and wait for all of them, first until they are free. */
extern void cpu_workers_run(CpuWorkers *w, int n, CpuJob job, void *arg);

/*
 * Run job on whichever workers are free, at least one and at most `most`, and
 * wait for them.  *team: how many they are, set before the first one begins.
 */
extern void cpu_workers_share(CpuWorkers *w, int most, CpuJob job, void *arg, int *team);

#endif /* DFX_CPU_WORKERS_H */
