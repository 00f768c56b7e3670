/*
 * run.c
 *	  forward: a batch over the workers.
 *
 * A batch gets the workers that are free when it comes.  They take the next
 * images from a shared counter, as many as a bucket holds and no more than a
 * fair share: of all images when one round does for them, else of what is
 * left, so that a slow worker (a busy neighbour on its core) delays nobody.
 * The calling thread waits.
 */
#include <pthread.h>
#include <string.h>

#include "cpu/train.h"

#define RUN_PROGRESS 16 /* steps between two signs of life */

typedef struct RunJob
{
	DfxPlan *plan;
	const char *in;
	float *const *out;
	const int *op; /* of which the largest inputs are wanted: nop of them, ascending; else NULL */
	int nop;
	float *largest;
	int n;
	int team; /* workers at it */

	pthread_mutex_t lock; /* for all below */
	int next;
	DfxStatus st; /* the first failure */
	DfxErr err;
} RunJob;

/* The next images for a worker: the first one's number, and in *bucket which size; -1 when there is nothing
 * left.
 */
static int
run_take(RunJob *job, int *bucket)
{
	const DfxPlan *p = job->plan;
	int first = -1;

	pthread_mutex_lock(&job->lock);
	if (job->st == DFX_OK && job->next < job->n)
	{
		int left = job->n - job->next;
		int of = job->n <= job->team * p->bucket[0] ? job->n : left;
		int share = (of + job->team - 1) / job->team;
		int k = 0;

		while (p->bucket[k] > share || p->bucket[k] > left)
			k++;
		*bucket = k;
		first = job->next;
		job->next += p->bucket[k];
	}
	pthread_mutex_unlock(&job->lock);
	return first;
}

static void
run_outputs(const RunJob *job, const CpuRun *run, int first)
{
	for (int i = 0; i < job->plan->nout; i++)
	{
		const CpuView *v = &job->plan->out[i];
		CpuView plain = {.c = v->c, .h = v->h, .w = v->w, .vec = 1};
		size_t floats = (size_t) v->c * cpu_pixels(v);

		if (job->out == NULL || job->out[i] == NULL)
			continue;
		for (int n = 0; n < run->n; n++)
			cpu_copy_channels(job->out[i] + (size_t) (first + n) * floats, &plain, 0,
			                  cpu_at(run->arena, v, n), v);
	}
}

/* The largest number of each image in a step's first input; padding is zero and changes nothing. */
static void
run_note_largest(const RunJob *job, const CpuRun *run, const CpuStep *s, int first)
{
	int at = 0;

	while (at < job->nop && job->op[at] != s->op)
		at++;
	for (int n = 0; at < job->nop && n < run->n; n++)
	{
		const float *x = cpu_at(run->arena, &s->in[0], n);
		float largest = 0;

		for (size_t i = 0; i < cpu_floats(&s->in[0]); i++)
			largest = x[i] > largest ? x[i] : largest;
		job->largest[(size_t) (first + n) * (size_t) job->nop + (size_t) at] = largest;
	}
}

static void
run_worker(void *arg, int worker)
{
	RunJob *job = arg;
	DfxPlan *p = job->plan;
	int bucket = 0, first;

	while ((first = run_take(job, &bucket)) >= 0)
	{
		CpuRun run = {.plan = p,
		              .worker = worker,
		              .bucket = bucket,
		              .n = p->bucket[bucket],
		              .arena = p->arena[worker],
		              .in = job->in + (size_t) first * p->image_bytes};
		DfxErr err = {0};
		DfxStatus st = DFX_OK;

		for (int i = 0; i < p->nstep && st == DFX_OK; i++)
		{
			if (job->nop > 0 && p->step[i].kind == DFX_OP_CONV)
				run_note_largest(job, &run, &p->step[i], first);
			st = p->step[i].run(&p->step[i], &run, &err);
			if (i % RUN_PROGRESS == 0)
				cpu_progress(p->dev);
		}
		if (st == DFX_OK)
			run_outputs(job, &run, first);
		else
		{
			pthread_mutex_lock(&job->lock);
			if (job->st == DFX_OK)
			{
				job->st = st;
				job->err = err;
			}
			pthread_mutex_unlock(&job->lock);
		}
		cpu_progress(p->dev);
	}
}

static DfxStatus
run_batch(RunJob *job, DfxErr *err)
{
	if (job->n < 1 || job->n > job->plan->max_batch)
		return dfx_fail(err, DFX_EINVAL, "a batch of %d images for a plan of at most %d", job->n,
		                job->plan->max_batch);
	cpu_workers_share(job->plan->dev->workers, job->n, run_worker, job, &job->team);
	if (job->st != DFX_OK && err)
		*err = job->err;
	return job->st;
}

DfxStatus
cpu_forward(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err)
{
	RunJob job = {.plan = plan, .in = in, .out = out, .n = n, .lock = PTHREAD_MUTEX_INITIALIZER};

	if (plan->train && n >= 1 && n <= plan->max_batch)
		return cpu_train_forward(plan, in, n, out, err);
	return run_batch(&job, err);
}

DfxStatus
cpu_largest(DfxPlan *plan, const void *in, int n, const int *op, int nop, float *largest, DfxErr *err)
{
	RunJob job = {.plan = plan,
	              .in = in,
	              .op = op,
	              .nop = nop,
	              .largest = largest,
	              .n = n,
	              .lock = PTHREAD_MUTEX_INITIALIZER};

	if (plan->train || plan->int8)
		return dfx_fail(err, DFX_EINVAL, "the largest inputs are found on a plan for inference in fp32");
	return run_batch(&job, err);
}
