/*
 * workers.h
 *	  A fixed set of threads that run one job at a time, together.
 *
 * Each worker is single-threaded for OpenMP as well: oneDNN decides at
 * primitive creation, in the creating thread, how many threads a primitive
 * will use, so primitives are created in a worker too.
 */
#ifndef DFX_CPU_WORKERS_H
#define DFX_CPU_WORKERS_H

#include "base/err.h"

typedef struct CpuWorkers CpuWorkers;

/* worker counts from 0; a failure goes into the job's own data. */
typedef void (*CpuJob)(void *arg, int worker);

extern DfxStatus cpu_workers_start(int n, CpuWorkers **out, DfxErr *err);
extern void cpu_workers_stop(CpuWorkers *w);

/* Run job on workers 0 .. n - 1 and wait for all of them.  Callers take turns. */
extern void cpu_workers_run(CpuWorkers *w, int n, CpuJob job, void *arg);

#endif /* DFX_CPU_WORKERS_H */
