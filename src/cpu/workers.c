/*
 * workers.c
 *	  The thread pool (workers.h).
 *
 * A call lies on its caller's stack.  The caller gives it to free workers and
 * sleeps until the last of them is through; callers who find too few of them
 * free wait in a line, so that a long job (a model is compiled) comes about
 * among many short ones.
 *
 *	field					guarded by
 *	ticket, turn, quit		lock
 *	Worker.call				lock; NULL: the worker is free
 *	WorkersCall.left		lock
 */
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/workers.h"

typedef struct WorkersCall
{
	CpuJob job;
	void *arg;
	int left; /* workers that are not through */
	pthread_cond_t done;
} WorkersCall;

typedef struct Worker
{
	CpuWorkers *all;
	pthread_t thread;
	int number;
	WorkersCall *call;
	pthread_cond_t wake; /* call was set */
} Worker;

struct CpuWorkers
{
	pthread_mutex_t lock;
	pthread_cond_t freed; /* a worker has become free, or turn moved */
	unsigned ticket;      /* of the next caller */
	unsigned turn;        /* whose ticket it is to take workers */
	bool quit;
	int nworker;
	Worker worker[];
};

static void *
workers_main(void *arg)
{
	Worker *me = arg;
	CpuWorkers *w = me->all;

	omp_set_num_threads(1); /* before the first primitive: oneDNN must not open a team of its own */
	pthread_mutex_lock(&w->lock);
	for (;;)
	{
		WorkersCall *call;

		while (!w->quit && me->call == NULL)
			pthread_cond_wait(&me->wake, &w->lock);
		call = me->call;
		if (call == NULL)
			break;
		pthread_mutex_unlock(&w->lock);
		call->job(call->arg, me->number);
		pthread_mutex_lock(&w->lock);
		me->call = NULL;
		if (--call->left == 0)
			pthread_cond_signal(&call->done);
		pthread_cond_broadcast(&w->freed);
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
	pthread_cond_init(&w->freed, NULL);

	/* Signals belong to the program's main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (int i = 0; i < n; i++)
	{
		int rc;

		w->worker[i] = (Worker){.all = w, .number = i};
		pthread_cond_init(&w->worker[i].wake, NULL);
		rc = pthread_create(&w->worker[i].thread, NULL, workers_main, &w->worker[i]);
		if (rc != 0)
		{
			pthread_sigmask(SIG_SETMASK, &old, NULL);
			pthread_cond_destroy(&w->worker[i].wake);
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
	for (int i = 0; i < w->nworker; i++)
		pthread_cond_signal(&w->worker[i].wake);
	pthread_mutex_unlock(&w->lock);
	for (int i = 0; i < w->nworker; i++)
	{
		pthread_join(w->worker[i].thread, NULL);
		pthread_cond_destroy(&w->worker[i].wake);
	}
	pthread_cond_destroy(&w->freed);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* How many of the first n workers are free. */
static int
workers_free(const CpuWorkers *w, int n)
{
	int found = 0;

	for (int i = 0; i < n; i++)
		found += w->worker[i].call == NULL;
	return found;
}

/* Run job on `most` of the first n workers, or on as many as are free, but at least on `least`. */
static void
workers_call(CpuWorkers *w, int n, int least, int most, CpuJob job, void *arg, int *team)
{
	WorkersCall call = {.job = job, .arg = arg, .done = PTHREAD_COND_INITIALIZER};
	unsigned ticket;

	pthread_mutex_lock(&w->lock);
	ticket = w->ticket++;
	while (w->turn != ticket || workers_free(w, n) < least)
		pthread_cond_wait(&w->freed, &w->lock);
	for (int i = 0; i < n && call.left < most; i++)
		if (w->worker[i].call == NULL)
		{
			w->worker[i].call = &call;
			pthread_cond_signal(&w->worker[i].wake);
			call.left++;
		}
	*team = call.left;
	w->turn++;
	pthread_cond_broadcast(&w->freed);
	while (call.left > 0)
		pthread_cond_wait(&call.done, &w->lock);
	pthread_mutex_unlock(&w->lock);
	pthread_cond_destroy(&call.done);
}

void
cpu_workers_run(CpuWorkers *w, int n, CpuJob job, void *arg)
{
	int team;

	n = n < w->nworker ? n : w->nworker;
	workers_call(w, n, n, n, job, arg, &team);
}

void
cpu_workers_share(CpuWorkers *w, int most, CpuJob job, void *arg, int *team)
{
	workers_call(w, w->nworker, 1, most, job, arg, team);
}

void
cpu_workers_failed(pthread_mutex_t *lock, DfxStatus *first, DfxErr *first_err, DfxStatus st,
                   const DfxErr *err)
{
	pthread_mutex_lock(lock);
	if (*first == DFX_OK)
	{
		*first = st;
		*first_err = *err;
	}
	pthread_mutex_unlock(lock);
}
