/*
 * workers.c
 *	  The thread pool (workers.h): one mutex, one job, a turn counter that tells
 *	  a sleeping worker that the job is new.
 *
 *	field				guarded by
 *	job, arg, n, turn	lock
 *	left				lock; 0 means that the job is done
 *	busy				lock; a caller waits until no other caller's job runs
 */
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/workers.h"

typedef struct Worker
{
	CpuWorkers *all;
	pthread_t thread;
	int number;
} Worker;

struct CpuWorkers
{
	pthread_mutex_t lock;
	pthread_cond_t wake, done;
	CpuJob job;
	void *arg;
	int n, left;
	unsigned turn;
	bool busy, quit;
	int nworker;
	Worker worker[];
};

static void *
workers_main(void *arg)
{
	Worker *me = arg;
	CpuWorkers *w = me->all;
	unsigned seen = 0;

	omp_set_num_threads(1); /* before the first primitive: oneDNN must not open a team of its own */
	pthread_mutex_lock(&w->lock);
	for (;;)
	{
		CpuJob job;
		void *job_arg;

		while (!w->quit && w->turn == seen)
			pthread_cond_wait(&w->wake, &w->lock);
		if (w->quit)
			break;
		seen = w->turn;
		if (me->number >= w->n)
			continue;
		job = w->job;
		job_arg = w->arg;
		pthread_mutex_unlock(&w->lock);
		job(job_arg, me->number);
		pthread_mutex_lock(&w->lock);
		if (--w->left == 0)
			pthread_cond_broadcast(&w->done);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

DfxStatus
cpu_workers_start(int n, CpuWorkers **out, DfxErr *err)
{
	CpuWorkers *w = calloc(1, sizeof *w + (size_t) n * sizeof w->worker[0]);
	sigset_t all, old;

	if (w == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %d CPU workers", n);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	pthread_cond_init(&w->done, NULL);

	/* Signals belong to the program's main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (int i = 0; i < n; i++)
	{
		int rc;

		w->worker[i] = (Worker){.all = w, .number = i};
		rc = pthread_create(&w->worker[i].thread, NULL, workers_main, &w->worker[i]);
		if (rc != 0)
		{
			pthread_sigmask(SIG_SETMASK, &old, NULL);
			cpu_workers_stop(w);
			return dfx_fail(err, DFX_EDEVICE, "could not start CPU worker %d of %d: %s", i + 1, n,
			                strerror(rc));
		}
		w->nworker++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	*out = w;
	return DFX_OK;
}

void
cpu_workers_stop(CpuWorkers *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->lock);
	w->quit = true;
	pthread_cond_broadcast(&w->wake);
	pthread_mutex_unlock(&w->lock);
	for (int i = 0; i < w->nworker; i++)
		pthread_join(w->worker[i].thread, NULL);
	pthread_cond_destroy(&w->done);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

void
cpu_workers_run(CpuWorkers *w, int n, CpuJob job, void *arg)
{
	pthread_mutex_lock(&w->lock);
	while (w->busy)
		pthread_cond_wait(&w->done, &w->lock);
	w->busy = true;
	w->job = job;
	w->arg = arg;
	w->n = w->left = n < w->nworker ? n : w->nworker;
	w->turn++;
	pthread_cond_broadcast(&w->wake);
	while (w->left > 0)
		pthread_cond_wait(&w->done, &w->lock);
	w->busy = false;
	pthread_cond_broadcast(&w->done);
	pthread_mutex_unlock(&w->lock);
}
