/*
 * run.c
 *	  forward: a batch over the workers.
 *
 * A batch gets the workers that are free when it comes.  They take the next
 * images from a shared counter, as many as a bucket holds and no more than a
 * fair share: of all images when one round does for them, else of what is
 * left, so that a slow worker (a busy neighbour on its core) delays nobody.
 * When there are more workers than images, they take strands of images
 * (strands.c).  The calling thread waits.
 */
#include <pthread.h>
#include <stdlib.h>
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
	int team;     /* workers at it */
	char *parcel; /* of each image, for its strands; NULL: images are not divided */

	pthread_mutex_t lock; /* for all below */
	int next;             /* image, or strand of all images' */
	int *left;            /* with parcels: strands of each image that are not through */
	DfxStatus st;         /* the first failure */
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

static CpuRun
run_of(const RunJob *job, int worker, int bucket, int first)
{
	const DfxPlan *p = job->plan;

	return (CpuRun){.plan = p,
	                .worker = worker,
	                .bucket = bucket,
	                .n = p->bucket[bucket],
	                .arena = p->arena[worker],
	                .in = job->in + (size_t) first * p->image_bytes};
}

/* Steps of a part, or with strands NULL all of them. */
static DfxStatus
run_steps(const RunJob *job, const CpuRun *run, int first, const CpuStrands *strands, int part, DfxErr *err)
{
	const DfxPlan *p = job->plan;
	DfxStatus st = DFX_OK;

	for (int i = 0; i < p->nstep && st == DFX_OK; i++)
	{
		if (strands && !cpu_strands_has(strands, part, i))
			continue;
		if (job->nop > 0 && p->step[i].kind == DFX_OP_CONV)
			run_note_largest(job, run, &p->step[i], first);
		st = p->step[i].run(&p->step[i], run, err);
		if (i % RUN_PROGRESS == 0)
			cpu_progress(p->dev);
	}
	return st;
}

static void
run_images(RunJob *job, int worker)
{
	int bucket = 0, first;

	while ((first = run_take(job, &bucket)) >= 0)
	{
		CpuRun run = run_of(job, worker, bucket, first);
		DfxErr err = {0};
		DfxStatus st = run_steps(job, &run, first, NULL, 0, &err);

		if (st == DFX_OK)
			run_outputs(job, &run, first);
		else
			cpu_workers_failed(&job->lock, &job->st, &job->err, st, &err);
		cpu_progress(job->plan->dev);
	}
}

/* The next strand of an image: its number, counting through all images; -1 when there is nothing left. */
static int
run_take_strand(RunJob *job)
{
	int strands = cpu_strands_count(job->plan->strands), at = -1;

	pthread_mutex_lock(&job->lock);
	if (job->st == DFX_OK && job->next < job->n * strands)
		at = job->next++;
	pthread_mutex_unlock(&job->lock);
	return at;
}

/* A strand of an image is through: whether it was the last one, so that the rest can be run. */
static bool
run_strand_done(RunJob *job, int image)
{
	bool last;

	pthread_mutex_lock(&job->lock);
	last = --job->left[image] == 0;
	pthread_mutex_unlock(&job->lock);
	return last;
}

static void
run_strands(RunJob *job, int worker)
{
	const DfxPlan *p = job->plan;
	const CpuStrands *s = p->strands;
	int at;

	while ((at = run_take_strand(job)) >= 0)
	{
		int image = at / cpu_strands_count(s), strand = at % cpu_strands_count(s);
		CpuRun run = run_of(job, worker, p->nbucket - 1, image);
		char *parcel = job->parcel + (size_t) image * cpu_strands_parcel_bytes(s);
		DfxErr err = {0};
		DfxStatus st = run_steps(job, &run, image, s, strand, &err);

		if (st == DFX_OK)
		{
			cpu_strands_pack(s, strand, parcel, run.arena);
			if (run_strand_done(job, image))
			{
				cpu_strands_unpack(s, parcel, run.arena);
				st = run_steps(job, &run, image, s, CPU_PART_REST, &err);
				if (st == DFX_OK)
					run_outputs(job, &run, image);
			}
		}
		if (st != DFX_OK)
			cpu_workers_failed(&job->lock, &job->st, &job->err, st, &err);
		cpu_progress(p->dev);
	}
}

static void
run_worker(void *arg, int worker)
{
	RunJob *job = arg;

	if (job->parcel && job->team > job->n)
		run_strands(job, worker);
	else
		run_images(job, worker);
}

/* Make room for parcels where images may be divided: there is more than a worker for each. */
static DfxStatus
run_parcels(RunJob *job, DfxErr *err)
{
	const DfxPlan *p = job->plan;

	if (p->strands == NULL || job->nop > 0 || job->n >= p->dev->threads)
		return DFX_OK;
	job->parcel = malloc((size_t) job->n * cpu_strands_parcel_bytes(p->strands));
	job->left = malloc((size_t) job->n * sizeof *job->left);
	if (job->parcel == NULL || job->left == NULL)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a batch of %d images", job->n);
	for (int i = 0; i < job->n; i++)
		job->left[i] = cpu_strands_count(p->strands);
	return DFX_OK;
}

static DfxStatus
run_batch(RunJob *job, DfxErr *err)
{
	DfxPlan *p = job->plan;
	DfxStatus st;

	if (job->n < 1 || job->n > p->max_batch)
		return dfx_fail(err, DFX_EINVAL, "a batch of %d images for a plan of at most %d", job->n,
		                p->max_batch);
	st = run_parcels(job, err);
	if (st == DFX_OK)
	{
		int most = job->parcel ? job->n * cpu_strands_count(p->strands) : job->n;

		cpu_workers_share(p->dev->workers, most, run_worker, job, &job->team);
		st = job->st;
		if (st != DFX_OK && err)
			*err = job->err;
	}
	free(job->parcel);
	free(job->left);
	return st;
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
