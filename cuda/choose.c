/*
 * choose.c
 *	  Who computes a product: our kernels, cuBLASLt or cuDNN.
 *
 * Nobody is believed.  For every product and bucket each candidate runs once
 * on noise, and its result is compared with that of the plain kernel; who
 * differs is logged and not used, and of the others the fastest is.  Equal
 * products (the three branches have all of theirs in common) are tried once.
 *
 * With a prologue there are two: our kernel, and cuDNN's of one fused graph.
 * But that graph's plan takes nearly a second to make, and a DenseNet-121 has
 * 58 of them in every bucket.  So cuDNN competes in the plan's largest bucket
 * only, where speed matters most, and there not for a few images; elsewhere it
 * is the fallback, asked where ours is not to be used because it failed,
 * differed, or is barred (cache.c).
 *
 * Programs in fp32 are the reference and run on the plain kernels alone.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda/internal.h"

#define CHOOSE_RUNS    3 /* timed */
#define CHOOSE_KEY     512
#define CHOOSE_CONTEST 16 /* images, for which a library may compete with our kernel's prologue */

/* A program's products being tried, in buffers as large as the largest needs. */
typedef struct Choose
{
	DfxPlan *p;
	const GpuProgram *g;
	GpuTrial trial;
	GpuMem in, want, got, result;
	int tried;
} Choose;

static DfxStatus
choose_open(Choose *c, DfxErr *err)
{
	DfxDev *dev = c->p->dev;
	size_t in = 0, out = 0;
	DfxStatus st;

	for (int i = 0; i < c->g->nstep; i++)
		if (c->g->step[i].product[0].w)
			gpu_trial_room(&c->g->step[i].args[0].conv, c->g->type, 1 << (c->p->nbucket - 1), &in, &out);
	st = gpu_alloc(dev, in, &c->in, err);
	if (st == DFX_OK)
		st = gpu_alloc(dev, out, &c->want, err);
	if (st == DFX_OK)
		st = gpu_alloc(dev, out, &c->got, err);
	if (st == DFX_OK)
		st = gpu_alloc(dev, 2 * sizeof(unsigned), &c->result, err);
	c->trial = (GpuTrial){.dev = dev,
	                      .type = c->g->type,
	                      .in = c->in.p,
	                      .want = c->want.p,
	                      .got = c->got.p,
	                      .result = (unsigned *) (void *) c->result.p};
	return st == DFX_OK ? gpu_trial_noise(&c->trial, in, err) : st;
}

static void
choose_close(Choose *c)
{
	gpu_free(c->p->dev, &c->in);
	gpu_free(c->p->dev, &c->want);
	gpu_free(c->p->dev, &c->got);
	gpu_free(c->p->dev, &c->result);
}

/* Try one candidate: *ms is its time, infinite when it is not to be used. */
static DfxStatus
choose_try(Choose *c, const GpuStep *s, const GpuChoice *by, int n, const char *key, double *ms, DfxErr *err)
{
	GpuRt *rt = c->p->dev->rt;
	bool agrees = false;
	DfxStatus st = gpu_trial_agrees(&c->trial, s, by, n, key, &agrees, err);

	*ms = INFINITY;
	if (st != DFX_OK || !agrees)
		return st;
	st = rt->ops->start(rt, err);
	for (int i = 0; st == DFX_OK && i < CHOOSE_RUNS; i++)
		st = gpu_trial_run(&c->trial, s, by, n, s->count, c->trial.got, err);
	return st == DFX_OK ? rt->ops->stop(rt, ms, err) : st;
}

/* A failure of one candidate is its own affair, unless the device is gone. */
static bool
choose_fatal(DfxStatus st)
{
	return st == DFX_ELOST;
}

typedef struct ChooseBest
{
	GpuChoice choice;
	double ms;
} ChooseBest;

/* Let one more candidate compete; what loses is dropped. */
static DfxStatus
choose_compete(Choose *c, const GpuStep *s, const GpuChoice *by, int n, const char *key, ChooseBest *best,
               DfxErr *err)
{
	GpuChoice loser = *by;
	double ms;
	DfxStatus st = choose_try(c, s, by, n, key, &ms, err);

	if (st != DFX_OK)
		dfx_log('D', "%s fails at %s: %s", gpu_choice_name(by), key, err->msg);
	else if (ms < best->ms)
	{
		loser = best->choice;
		*best = (ChooseBest){.choice = *by, .ms = ms};
	}
	if (loser.lib)
		loser.lib->ops->drop(loser.lib, loser.plan);
	return choose_fatal(st) ? st : DFX_OK;
}

/*
 * Make and try one candidate: our own kernel first (lib NULL), then a library's.
 * Should a library's plan fail later on, the best of our kernels takes over,
 * which is the plain one if the other is not to be used.
 */
static DfxStatus
choose_candidate(Choose *c, const GpuStep *s, GpuLib *lib, int n, const char *key, ChooseBest *best,
                 DfxErr *err)
{
	GpuChoice by = {.lib = lib, .kernel = lib ? best->choice.kernel : s->kernel};
	bool may;
	DfxStatus st = gpu_trial_begin(&c->trial, key, &by, &may, err);

	if (st != DFX_OK || !may)
		return st;
	if (lib)
		st = lib->ops->build(lib, &s->args[0].conv, &s->product[0], c->g->type, n, "", &by.plan, err);
	if (st == DFX_OK)
		st = choose_compete(c, s, &by, n, key, best, err);
	else
		dfx_log('D', "%s refuses %s: %s", lib->ops->name, key, err->msg);
	gpu_trial_end(&c->trial, st);
	gpu_give_way(c->p->dev);
	return choose_fatal(st) ? st : DFX_OK;
}

/* Whether libraries compete for a product with a prologue; elsewhere they only stand in. */
static bool
choose_is_contest(const Choose *c, const GpuStep *s, int bucket)
{
	return s->args[0].conv.pre_scale && bucket == c->p->nbucket - 1 && 1 << bucket >= CHOOSE_CONTEST;
}

/* Whether a library is to be asked, after the best so far. */
static bool
choose_asks(const Choose *c, const GpuStep *s, const GpuLib *lib, int bucket, const ChooseBest *best)
{
	const GpuConvArgs *a = &s->args[0].conv;

	return lib->ops->fits(a, c->g->type) &&
	       (!a->pre_scale || best->ms == INFINITY || choose_is_contest(c, s, bucket));
}

/* All candidates for one product and bucket, against the plain kernel. */
static DfxStatus
choose_trial(Choose *c, const GpuStep *s, int bucket, const char *key, GpuChoice *choice, DfxErr *err)
{
	GpuChoice plain = {.kernel = s->kernel == GPU_CONV_DIRECT ? GPU_CONV_DIRECT : GPU_CONV_TILED};
	ChooseBest best = {.choice = plain, .ms = INFINITY};
	int n = 1 << bucket;
	DfxStatus st;

	c->tried++;
	st = gpu_trial_run(&c->trial, s, &plain, n, 1, c->trial.want, err);
	if (st == DFX_OK)
		st = choose_candidate(c, s, NULL, n, key, &best, err);
	for (int i = 0; st == DFX_OK && i < GPU_LIBS; i++)
	{
		GpuLib *lib = c->p->dev->lib[i];

		if (lib && choose_asks(c, s, lib, bucket, &best))
			st = choose_candidate(c, s, lib, n, key, &best, err);
	}
	*choice = best.choice;
	return st;
}

bool
gpu_choose_recall(DfxDev *dev, GpuType type, const GpuStep *s, int n, const char *key, GpuChoice *choice,
                  char **keep)
{
	const char *who = NULL, *kept = gpu_cache_kept(dev->cache, key, &who);
	DfxErr err;

	if (!kept)
		return false;
	*choice = (GpuChoice){.kernel = s->kernel};
	if (strcmp(who, gpu_kernel_name[s->kernel]) == 0)
		return true;
	choice->kernel = GPU_CONV_TILED;
	if (s->kernel == GPU_CONV_MMA && strcmp(who, gpu_kernel_name[GPU_CONV_TILED]) == 0)
		return true;
	for (int i = 0; i < GPU_LIBS; i++)
	{
		GpuLib *lib = dev->lib[i];

		if (!lib || strcmp(who, lib->ops->name) != 0)
			continue;
		if (lib->ops->build(lib, &s->args[0].conv, &s->product[0], type, n, kept, &choice->plan, &err) !=
		    DFX_OK)
			return false;
		*choice = (GpuChoice){.lib = lib, .plan = choice->plan, .kernel = s->kernel};
		*keep = strdup(kept);
		return true;
	}
	return false;
}

/* What tells one product from another, apart from its numbers; and who was asked, where that differs. */
static void
choose_key(const Choose *c, const GpuStep *s, int bucket, char *key, size_t size)
{
	static const char *const type[GPU_TYPE_COUNT] = {"fp32", "fp16", "bf16"};
	size_t used = (size_t) snprintf(key, size, "%d %s %s", 1 << bucket, type[c->g->type],
	                                choose_is_contest(c, s, bucket) ? "largest " : "");

	gpu_step_describe(s, key + used, size - used);
}

static DfxStatus
choose_step(Choose *c, GpuStep *s, int bucket, DfxErr *err)
{
	GpuCache *cache = c->p->dev->cache;
	char key[CHOOSE_KEY], *keep = NULL;
	const GpuChoice *made;
	GpuChoice choice;
	DfxStatus st = DFX_OK;

	choose_key(c, s, bucket, key, sizeof key);
	made = gpu_cache_find(cache, key);
	if (!made)
	{
		if (!gpu_choose_recall(c->p->dev, c->g->type, s, 1 << bucket, key, &choice, &keep))
		{
			st = choose_trial(c, s, bucket, key, &choice, err);
			if (st == DFX_OK && choice.lib && choice.lib->ops->save)
				keep = choice.lib->ops->save(choice.lib, choice.plan);
		}
		if (st == DFX_OK)
			st = gpu_cache_put(cache, key, &choice, keep, err);
		made = gpu_cache_find(cache, key);
	}
	if (st == DFX_OK)
		s->choice[bucket] = *made;
	return st;
}

static double
choose_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* One line for the log: how many products each has got. */
static void
choose_report(const DfxPlan *p, const GpuProgram *g, double began)
{
	int largest = p->nbucket - 1, own = 0, lib[GPU_LIBS] = {0};
	char line[160] = "";

	for (int i = 0; i < g->nstep; i++)
	{
		const GpuChoice *choice = &g->step[i].choice[largest];

		own += g->step[i].product[0].w && !choice->lib;
		for (int k = 0; k < GPU_LIBS; k++)
			lib[k] += choice->lib && choice->lib == p->dev->lib[k];
	}
	for (int k = 0; k < GPU_LIBS; k++)
		if (p->dev->lib[k])
		{
			size_t used = strlen(line);

			snprintf(line + used, sizeof line - used, ", %d by %s", lib[k], p->dev->lib[k]->ops->name);
		}
	dfx_log('I', "products at batch %d: %d by own kernels%s; chosen in %.1f s", 1 << largest, own, line,
	        choose_now() - began);
}

DfxStatus
gpu_choose(DfxPlan *p, GpuProgram *g, DfxErr *err)
{
	Choose c = {.p = p, .g = g};
	double began = choose_now();
	DfxStatus st;

	if (g->type == GPU_F32)
		return DFX_OK;
	st = choose_open(&c, err);
	if (st == DFX_ENOMEM)
	{
		dfx_log('I', "no room to try implementations: products run on their own kernels");
		choose_close(&c);
		return DFX_OK;
	}
	for (int b = 0; st == DFX_OK && b < p->nbucket; b++)
		for (int i = 0; st == DFX_OK && i < g->nstep; i++)
			if (g->step[i].product[0].w)
				st = choose_step(&c, &g->step[i], b, err);
	choose_close(&c);
	if (c.tried > 0)
		gpu_cache_write(p->dev->cache);
	if (st == DFX_OK && c.tried > 0)
		choose_report(p, g, began);
	return st;
}
