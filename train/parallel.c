/*
 * parallel.c
 *	  Threads made for one loop: tens of microseconds, next to items that take milliseconds.
 */
#include "train/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define PARALLEL_THREADS 64

typedef struct Parallel
{
	size_t n;
	DfxItem item;
	void *arg;
	_Atomic size_t next;
	pthread_mutex_t lock; /* guards the failure */
	size_t failed;        /* which item, SIZE_MAX: none */
	DfxErr err;
} Parallel;

static void *
parallel_work(void *arg)
{
	Parallel *p = arg;

	for (;;)
	{
		size_t i = atomic_fetch_add(&p->next, 1);
		DfxErr err;

		if (i >= p->n)
			return NULL;
		if (p->item(p->arg, i, &err) == DFX_OK)
			continue;
		atomic_store(&p->next, p->n);
		pthread_mutex_lock(&p->lock);
		if (i < p->failed)
		{
			p->failed = i;
			p->err = err;
		}
		pthread_mutex_unlock(&p->lock);
	}
}

DfxStatus
dfx_parallel(size_t n, int threads, DfxItem item, void *arg, DfxErr *err)
{
	Parallel p = {.n = n, .item = item, .arg = arg, .failed = SIZE_MAX};
	pthread_t thread[PARALLEL_THREADS];
	int made = 0;

	pthread_mutex_init(&p.lock, NULL);
	if (threads > PARALLEL_THREADS)
		threads = PARALLEL_THREADS;
	while (made + 1 < threads && (size_t) made + 1 < n &&
	       pthread_create(&thread[made], NULL, parallel_work, &p) == 0)
		made++;
	parallel_work(&p);
	while (made > 0)
		pthread_join(thread[--made], NULL);
	pthread_mutex_destroy(&p.lock);
	if (p.failed == SIZE_MAX)
		return DFX_OK;
	*err = p.err;
	return err->code;
}
