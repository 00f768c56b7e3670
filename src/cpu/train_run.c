/*
 * train_run.c
 *	  Steps over the workers: forward, forward_train, backward.
 *
 * Every worker walks all steps with its own images and waits for the others
 * after each.  Whoever arrives last does, alone, what must be done once (sums
 * over workers), then lets all go on; what it computes does not depend on who
 * it is.  Steps that only have such a part (BatchNorm) are done on the way.
 */
#include <pthread.h>
#include <string.h>

#include "cpu/train.h"

typedef struct RunJob
{
	DfxPlan *plan;
	TrainRun run; /* but for the worker's own */
	bool backward;
	float *const *out;
	const float *const *dout;
	float *din;

	pthread_mutex_t lock; /* for all below */
	pthread_cond_t go;
	int waiting;
	unsigned turn;
	DfxStatus st; /* the first failure */
	DfxErr err;
	bool stop; /* set between turns only, so that all see the same */
} RunJob;

typedef DfxStatus (*RunOnce)(RunJob *job, const TrainRun *r, int step, DfxErr *err);

/* Wait for all workers; the last does once(step) first.  False: something failed, all stop. */
static bool
run_barrier(RunJob *job, const TrainRun *r, RunOnce once, int step)
{
	bool stop;

	pthread_mutex_lock(&job->lock);
	if (++job->waiting < job->plan->dev->threads)
	{
		unsigned turn = job->turn;

		while (job->turn == turn)
			pthread_cond_wait(&job->go, &job->lock);
	}
	else
	{
		if (job->st == DFX_OK && once)
			job->st = once(job, r, step, &job->err);
		cpu_progress(job->plan->dev);
		job->stop = job->st != DFX_OK;
		job->waiting = 0;
		job->turn++;
		pthread_cond_broadcast(&job->go);
	}
	stop = job->stop;
	pthread_mutex_unlock(&job->lock);
	return !stop;
}

/* Call fn on the worker's images, a chunk at a time. */
static DfxStatus
run_chunks(const TrainStep *s, const TrainRun *r, TrainFn fn, bool backward, DfxErr *err)
{
	const TrainValue *out = &r->t->value[s->out];
	DfxStatus st = DFX_OK;

	for (int i = r->from, n; i < r->to && st == DFX_OK; i += n)
	{
		n = cpu_min(s->chunk, r->to - i);
		if (backward)
			train_finish(r, s->out, i, n);
		st = fn(s, r, i, n, err);
		if (backward || st != DFX_OK)
			continue;
		if (out->relu && s->kind != DFX_OP_ADD)
			train_relu(r, s->out, i, n);
		if (r->train && out->normed)
			train_moments(r, s->out, i, n);
	}
	return st;
}

/* ---- forward ---- */

/* After step: statistics, then the steps that follow and have no other part. */
static DfxStatus
run_forward_once(RunJob *job, const TrainRun *r, int step, DfxErr *err)
{
	CpuTrain *t = r->t;
	DfxStatus st = DFX_OK;

	(void) job;
	if (r->train && t->value[t->step[step].out].normed)
		train_moments_merge(r, t->step[step].out);
	for (int i = step + 1; i < t->nstep && t->step[i].forward == NULL && st == DFX_OK; i++)
		st = t->step[i].forward_done(&t->step[i], r, err);
	return st;
}

static void
run_outputs(const RunJob *job, const TrainRun *r)
{
	for (int i = 0; i < job->plan->nout; i++)
	{
		const TrainSource *s = &r->t->out[i];
		CpuView plain = train_plain(&s->view);

		if (job->out[i] == NULL)
			continue;
		train_copy(r, s, r->from, r->to - r->from, &plain, job->out[i] + (size_t) r->from * plain.stride);
	}
}

/* Each worker brings some of the library's copies of the weights up to date. */
static bool
run_refresh(RunJob *job, const TrainRun *r)
{
	CpuTrain *t = r->t;
	DfxErr err = {0};
	DfxStatus st = DFX_OK;
	int turn = 0;

	if (!t->stale)
		return true;
	for (int i = 0; i < t->nstep && st == DFX_OK; i++)
		if (t->step[i].conv && turn++ % job->plan->dev->threads == r->worker)
			st = train_conv_refresh(t->step[i].conv, r, &err);
	if (st != DFX_OK)
		cpu_workers_failed(&job->lock, &job->st, &job->err, st, &err);
	return run_barrier(job, r, NULL, 0);
}

static void
run_forward(RunJob *job, const TrainRun *r)
{
	CpuTrain *t = r->t;

	if (!run_refresh(job, r))
		return;
	for (int i = 0; i < t->nstep; i++)
	{
		const TrainStep *s = &t->step[i];
		DfxErr err = {0};
		DfxStatus st;

		if (s->forward == NULL)
			continue;
		if (r->train && t->value[s->out].normed)
			train_moments_clear(r, s->out);
		st = run_chunks(s, r, s->forward, false, &err);
		if (st != DFX_OK)
			cpu_workers_failed(&job->lock, &job->st, &job->err, st, &err);
		if (!run_barrier(job, r, run_forward_once, i))
			return;
	}
	run_outputs(job, r);
}

/* ---- backward ---- */

static DfxStatus
run_backward_once(RunJob *job, const TrainRun *r, int step, DfxErr *err)
{
	CpuTrain *t = r->t;
	DfxStatus st = DFX_OK;

	(void) job;
	if (step < t->nstep && t->step[step].backward_done)
		st = t->step[step].backward_done(&t->step[step], r, err);
	for (int i = step - 1; i >= 0 && t->step[i].forward == NULL && st == DFX_OK; i--)
		st = t->step[i].backward_done(&t->step[i], r, err);
	return st;
}

/* The loss's gradients by the outputs, and zero where nothing else will write. */
static void
run_seed(const RunJob *job, const TrainRun *r)
{
	CpuTrain *t = r->t;
	void *zero = train_scratch(r, TRAIN_DSRC);

	for (int i = 0; i < t->ndead; i++)
		memset(train_grad(t, t->dead[i], r->from), 0,
		       (size_t) (r->to - r->from) * cpu_image_bytes(&t->value[t->dead[i]].view));
	for (int i = 0; i < job->plan->nout; i++)
	{
		CpuView plain = train_plain(&t->out[i].view);
		const float *dout = job->dout[i];

		if (dout)
			train_push(r, &t->out[i], r->from, r->to - r->from, dout + (size_t) r->from * plain.stride,
			           &plain);
		memset(zero, 0, cpu_image_bytes(&plain));
		for (int k = r->from; dout == NULL && k < r->to; k++)
			train_push(r, &t->out[i], k, 1, zero, &plain);
	}
}

static void
run_backward(RunJob *job, const TrainRun *r)
{
	CpuTrain *t = r->t;

	run_seed(job, r);
	if (!run_barrier(job, r, run_backward_once, t->nstep)) /* a BN may be an output */
		return;
	for (int i = t->nstep - 1; i >= 0; i--)
	{
		const TrainStep *s = &t->step[i];
		DfxErr err = {0};
		DfxStatus st;

		if (s->backward == NULL)
			continue;
		st = run_chunks(s, r, s->backward, true, &err);
		if (st != DFX_OK)
			cpu_workers_failed(&job->lock, &job->st, &job->err, st, &err);
		if (!run_barrier(job, r, run_backward_once, i))
			return;
	}
	if (job->din)
		train_finish(r, t->input, r->from, r->to - r->from);
	for (int k = r->from; job->din && k < r->to; k++)
	{
		const CpuView *v = &t->value[t->input].view;
		CpuView plain = train_plain(v);

		train_relay(r, train_image(job->din, &plain, k), &plain, train_grad(t, t->input, k), v);
	}
}

/* ---- the entries ---- */

static void
run_worker(void *arg, int worker)
{
	RunJob *job = arg;
	TrainRun r = job->run;
	int threads = job->plan->dev->threads;

	r.worker = worker;
	r.from = r.n * worker / threads;
	r.to = r.n * (worker + 1) / threads;
	r.scratch = r.t->scratch[worker];
	if (job->backward)
		run_backward(job, &r);
	else
		run_forward(job, &r);
}

static DfxStatus
run_all(RunJob *job, DfxErr *err)
{
	DfxPlan *plan = job->plan;

	pthread_mutex_init(&job->lock, NULL);
	pthread_cond_init(&job->go, NULL);
	job->run.plan = plan;
	job->run.t = plan->train;
	cpu_workers_run(plan->dev->workers, plan->dev->threads, run_worker, job);
	pthread_cond_destroy(&job->go);
	pthread_mutex_destroy(&job->lock);
	if (job->st != DFX_OK && err)
		*err = job->err;
	return job->st;
}

static DfxStatus
run_check(const DfxPlan *plan, int n, DfxErr *err)
{
	if (plan->train == NULL)
		return dfx_fail(err, DFX_EINVAL, "the plan was not compiled for training");
	if (n < 1 || n > plan->max_batch)
		return dfx_fail(err, DFX_EINVAL, "a batch of %d images for a plan of at most %d", n, plan->max_batch);
	return DFX_OK;
}

DfxStatus
cpu_train_forward(DfxPlan *plan, const void *in, int n, float *const *out, DfxErr *err)
{
	RunJob job = {.plan = plan, .run = {.n = n, .in = in}, .out = out};
	DfxStatus st = run_check(plan, n, err);

	if (st != DFX_OK)
		return st;
	plan->train->ready = 0;
	st = run_all(&job, err);
	plan->train->stale = plan->train->stale && st != DFX_OK;
	return st;
}

DfxStatus
cpu_forward_train(DfxPlan *plan, const void *in, int n, uint64_t seed, float *const *out, DfxErr *err)
{
	RunJob job = {.plan = plan, .run = {.n = n, .in = in, .seed = seed, .train = true}, .out = out};
	DfxStatus st = run_check(plan, n, err);

	if (st == DFX_OK)
		st = train_norm_check(plan->train, n, err);
	if (st != DFX_OK)
		return st;
	plan->train->ready = 0;
	plan->train->seed = seed;
	st = run_all(&job, err);
	plan->train->stale = plan->train->stale && st != DFX_OK;
	plan->train->ready = st == DFX_OK ? n : 0;
	return st;
}

DfxStatus
cpu_backward(DfxPlan *plan, int n, const float *const *dout, float *din, DfxErr *err)
{
	RunJob job = {.plan = plan,
	              .run = {.n = n, .train = true, .want_din = din != NULL},
	              .backward = true,
	              .dout = dout,
	              .din = din};
	DfxStatus st = run_check(plan, n, err);

	if (st != DFX_OK)
		return st;
	if (plan->train->ready != n)
		return dfx_fail(err, DFX_EINVAL, "backward for %d images, but forward_train has kept %d", n,
		                plan->train->ready);
	if (din && !plan->train->input_f32)
		return dfx_fail(err, DFX_EINVAL, "there is no gradient by pixels");
	plan->train->ready = 0; /* gradients lie where values were */
	job.run.seed = plan->train->seed;
	train_norm_clear(plan->train, plan->dev->threads);
	return run_all(&job, err);
}
