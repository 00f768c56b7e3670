/*
 * intake.c
 *	  Encoded images to decoded samples, on all threads, answered in order.
 *
 * A ring of jobs: put fills the slot at head, threads take the slots up in
 * order and work on several at once, and whoever finishes the oldest one
 * retires it and those behind it that are finished too.  Retiring is where a
 * sample gets its row in the table, so that the table is in the order of put;
 * its place in the cache it gets as soon as it is decoded.
 *
 * The lock guards everything in DfxIntake and the table; only decoding and
 * writing pixels happen outside.  A failure of the cache is kept, the rest of
 * the samples pass through unread, and put and end report it.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "train/samples.h"

#define INTAKE_AHEAD  4                      /* jobs a thread */
#define INTAKE_PIXELS ((uint64_t) 200 << 20) /* being decoded at one time, unless it is one image alone */

typedef enum JobState
{
	JOB_FREE = 0,
	JOB_WAITING,
	JOB_RUNNING,
	JOB_FINISHED
} JobState;

typedef struct IntakeJob
{
	JobState state;
	DfxTrainSample given;
	uint8_t *bytes;
	size_t len;
	size_t place;
	DfxStatus status;
	DfxErr err;
} IntakeJob;

struct DfxIntake
{
	DfxSamples *samples;
	DfxIntakeOpts opts;
	pthread_mutex_t lock;
	pthread_cond_t moved; /* any of the below */
	IntakeJob *job;       /* job number i is in slot i % njob */
	size_t njob;
	uint64_t head, next, tail; /* numbers: next to be put, taken up, retired */
	uint64_t pixels;           /* being decoded */
	bool retiring;             /* a thread is calling done */
	bool ending;
	DfxStatus failed;
	DfxErr err;
	pthread_t *thread;
	int nthread;
};

void
dfx_samples_free(DfxSamples *s)
{
	dfx_store_close(&s->store);
	free(s->sample);
	free(s->order);
	*s = (DfxSamples){.store.fd = -1};
}

static DfxStatus
intake_record(DfxSamples *s, const IntakeJob *job, DfxErr *err)
{
	if (s->n == UINT32_MAX)
		return dfx_fail(err, DFX_ELIMIT, "more than %" PRIu32 " samples", UINT32_MAX);
	if (s->n == s->cap)
	{
		size_t cap = s->cap ? 2 * s->cap : 1024;
		DfxSample *p = realloc(s->sample, cap * sizeof *p);

		if (!p)
			return dfx_fail(err, DFX_ENOMEM, "out of memory for %zu samples", cap);
		s->sample = p;
		s->cap = cap;
	}
	s->sample[s->n++] = (DfxSample){.given = job->given, .place = job->place};
	return DFX_OK;
}

/* With the lock.  The first failure stays. */
static void
intake_fail(DfxIntake *in, const DfxErr *err)
{
	if (in->failed == DFX_OK)
	{
		in->failed = err->code;
		in->err = *err;
	}
}

/* With the lock, which done is called without: it may wait for a client. */
static void
intake_retire(DfxIntake *in)
{
	if (in->retiring)
		return;
	in->retiring = true;
	while (in->tail < in->next && in->job[in->tail % in->njob].state == JOB_FINISHED)
	{
		IntakeJob *job = &in->job[in->tail % in->njob];
		DfxErr err;

		if (job->status == DFX_OK && in->failed == DFX_OK && intake_record(in->samples, job, &err) != DFX_OK)
			intake_fail(in, &err);
		if (in->failed == DFX_OK)
		{
			pthread_mutex_unlock(&in->lock);
			in->opts.done(in->opts.arg, &job->given, job->status, &job->err);
			pthread_mutex_lock(&in->lock);
		}
		job->state = JOB_FREE;
		in->tail++;
		pthread_cond_broadcast(&in->moved);
	}
	in->retiring = false;
}

/* Whether what went wrong is the image's own fault. */
static bool
intake_image_fault(DfxStatus status)
{
	return status == DFX_EIMAGE || status == DFX_ELIMIT;
}

/* Decode, having waited until the image fits what may be decoded at one time. */
static DfxStatus
intake_decode(DfxIntake *in, IntakeJob *job, uint8_t *pixels)
{
	DfxImageInfo info;
	uint64_t claim;

	job->status = dfx_image_info(job->bytes, job->len, &in->opts.limits, &info, &job->err);
	if (job->status != DFX_OK)
		return job->status;
	claim = (uint64_t) info.width * info.height;
	pthread_mutex_lock(&in->lock);
	while (in->pixels > 0 && in->pixels + claim > INTAKE_PIXELS)
		pthread_cond_wait(&in->moved, &in->lock);
	in->pixels += claim;
	pthread_mutex_unlock(&in->lock);
	job->status =
	    dfx_image_prepare(job->bytes, job->len, &in->opts.limits, DFX_STORE_SIDE, pixels, &job->err);
	pthread_mutex_lock(&in->lock);
	in->pixels -= claim;
	pthread_cond_broadcast(&in->moved);
	pthread_mutex_unlock(&in->lock);
	return job->status;
}

/* One job, without the lock. */
static void
intake_job(DfxIntake *in, IntakeJob *job, uint8_t *pixels)
{
	DfxStatus st = DFX_OK;
	DfxErr err;

	if (intake_decode(in, job, pixels) == DFX_OK)
	{
		pthread_mutex_lock(&in->lock);
		st = dfx_store_add(&in->samples->store, &job->place, &err);
		pthread_mutex_unlock(&in->lock);
		if (st == DFX_OK)
			st = dfx_store_write(&in->samples->store, job->place, pixels, &err);
	}
	else if (!intake_image_fault(job->status))
	{
		st = job->status;
		err = job->err;
	}
	free(job->bytes);
	job->bytes = NULL;
	if (st == DFX_OK)
		return;
	pthread_mutex_lock(&in->lock);
	intake_fail(in, &err);
	pthread_mutex_unlock(&in->lock);
}

static void *
intake_thread(void *arg)
{
	DfxIntake *in = arg;
	uint8_t *pixels = malloc(DFX_STORE_BYTES);
	DfxErr err;

	pthread_mutex_lock(&in->lock);
	if (!pixels)
	{
		dfx_fail(&err, DFX_ENOMEM, "out of memory for a decoded image");
		intake_fail(in, &err);
	}
	for (;;)
	{
		IntakeJob *job;

		while (in->next == in->head && !in->ending)
			pthread_cond_wait(&in->moved, &in->lock);
		if (in->next == in->head)
			break;
		job = &in->job[in->next++ % in->njob];
		job->state = JOB_RUNNING;
		if (in->failed == DFX_OK)
		{
			pthread_mutex_unlock(&in->lock);
			intake_job(in, job, pixels);
			pthread_mutex_lock(&in->lock);
		}
		free(job->bytes);
		job->bytes = NULL;
		job->state = JOB_FINISHED;
		intake_retire(in);
	}
	pthread_mutex_unlock(&in->lock);
	free(pixels);
	return NULL;
}

/* End the threads once they have nothing left to do, and free everything. */
static void
intake_free(DfxIntake *in)
{
	pthread_mutex_lock(&in->lock);
	in->ending = true;
	pthread_cond_broadcast(&in->moved);
	pthread_mutex_unlock(&in->lock);
	for (int i = 0; i < in->nthread; i++)
		pthread_join(in->thread[i], NULL);
	pthread_mutex_destroy(&in->lock);
	pthread_cond_destroy(&in->moved);
	free(in->thread);
	free(in->job);
	free(in);
}

DfxStatus
dfx_intake_start(DfxSamples *s, const DfxIntakeOpts *opts, DfxIntake **out, DfxErr *err)
{
	DfxIntake *in = calloc(1, sizeof *in);
	int threads = opts->threads > 0 ? opts->threads : 1;

	*out = NULL;
	if (!in)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for taking samples");
	in->samples = s;
	in->opts = *opts;
	in->njob = (size_t) threads * INTAKE_AHEAD;
	in->job = calloc(in->njob, sizeof *in->job);
	in->thread = calloc((size_t) threads, sizeof *in->thread);
	pthread_mutex_init(&in->lock, NULL);
	pthread_cond_init(&in->moved, NULL);
	if (!in->job || !in->thread)
	{
		intake_free(in);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for taking samples");
	}
	for (; in->nthread < threads; in->nthread++)
	{
		int rc = pthread_create(&in->thread[in->nthread], NULL, intake_thread, in);

		if (rc != 0)
		{
			intake_free(in);
			return dfx_fail(err, DFX_EINTERNAL, "could not start a thread: %s", strerror(rc));
		}
	}
	*out = in;
	return DFX_OK;
}

static DfxStatus
intake_check(const DfxIntake *in, const DfxTrainSample *given, DfxErr *err)
{
	if (given->label >= DFX_TRAIN_CLASSES)
		return dfx_fail(err, DFX_EINVAL, "sample %" PRIu64 ": %" PRIu32 " is no class", given->number,
		                given->label);
	if (given->generator < -1 || given->generator >= in->opts.ngenerator)
		return dfx_fail(err, DFX_EINVAL, "sample %" PRIu64 ": there is no generator %" PRId32, given->number,
		                given->generator);
	if (given->split >= DFX_SPLIT_UNUSED)
		return dfx_fail(err, DFX_EINVAL, "sample %" PRIu64 ": %" PRIu32 " is no split", given->number,
		                given->split);
	return DFX_OK;
}

DfxStatus
dfx_intake_put(DfxIntake *in, const DfxTrainSample *given, uint8_t *bytes, size_t len, DfxErr *err)
{
	DfxStatus st = intake_check(in, given, err);

	if (st == DFX_OK)
	{
		pthread_mutex_lock(&in->lock);
		while (in->head - in->tail == in->njob)
			pthread_cond_wait(&in->moved, &in->lock);
		st = in->failed;
		if (st == DFX_OK)
		{
			IntakeJob *job = &in->job[in->head++ % in->njob];

			*job = (IntakeJob){.state = JOB_WAITING, .given = *given, .bytes = bytes, .len = len};
			bytes = NULL;
			pthread_cond_broadcast(&in->moved);
		}
		else
			*err = in->err;
		pthread_mutex_unlock(&in->lock);
	}
	free(bytes);
	return st;
}

DfxStatus
dfx_intake_end(DfxIntake *in, DfxErr *err)
{
	DfxSamples *s = in->samples;
	DfxStatus st;

	pthread_mutex_lock(&in->lock);
	while (in->tail < in->head)
		pthread_cond_wait(&in->moved, &in->lock);
	st = in->failed;
	*err = in->err;
	pthread_mutex_unlock(&in->lock);
	intake_free(in);
	return st == DFX_OK ? dfx_store_map(&s->store, err) : st;
}
