/*
 * choose.c
 *	  Who computes a product: our kernels, cuBLASLt or cuDNN.
 *
 * Nobody is believed.  For every product and bucket each candidate runs once
 * on noise, and its result is compared with that of the plain kernel (of a
 * candidate already compared with it, where the batch is so large that the
 * plain kernel would take long); who differs is logged and not used, and of
 * the others the fastest is.  Equal products (the three branches have all of
 * theirs in common) are tried once.  Programs in fp32 are the reference and
 * run on the plain kernels alone.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cuda/internal.h"

#define CHOOSE_PLAIN_BUCKET 2 /* up to here the plain kernel is asked itself */
#define CHOOSE_RUNS         3 /* timed */
#define CHOOSE_TOLERANCE    2e-2
#define CHOOSE_NOISE        ((size_t) 1 << 20) /* bytes, repeated */
#define CHOOSE_KEY          512

/* Buffers for trying, as large as the largest product needs. */
typedef struct Choose
{
	DfxPlan *p;
	const GpuProgram *g;
	GpuMem in, want, got, result;
	int tried;
} Choose;

static size_t
choose_in_bytes(const GpuConvArgs *a, GpuType type, int n)
{
	size_t x = (size_t) n * (size_t) a->ih * (size_t) a->iw * (size_t) a->ldx;
	size_t add = a->epi.add ? (size_t) n * (size_t) a->oh * (size_t) a->ow * (size_t) a->epi.ldadd : 0;

	return (x > add ? x : add) * gpu_type_size(type);
}

static size_t
choose_out_bytes(const GpuConvArgs *a, GpuType type, int n)
{
	return (size_t) n * (size_t) a->oh * (size_t) a->ow * (size_t) a->ldy * gpu_type_size(type);
}

/* Fill the input with values in [-1, 1), which any type holds. */
static DfxStatus
choose_noise(Choose *c, DfxErr *err)
{
	GpuRt *rt = c->p->dev->rt;
	uint16_t *noise = malloc(CHOOSE_NOISE);
	uint32_t state = 1;
	size_t first = c->in.bytes < CHOOSE_NOISE ? c->in.bytes : CHOOSE_NOISE;
	DfxStatus st;

	if (!noise)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	for (size_t i = 0; i < CHOOSE_NOISE / sizeof *noise; i++)
	{
		/* Half precision: sign, an exponent from 2^-8 to 2^-1, a fraction; in both half types. */
		uint32_t exponent, bits;

		state = state * 1664525u + 1013904223u;
		bits = state >> 8;
		exponent = bits >> 10 & 7;
		noise[i] = c->g->type == GPU_F16
		               ? (uint16_t) ((bits >> 8 & 0x8000u) | (7 + exponent) << 10 | (bits & 0x3ffu))
		               : (uint16_t) ((bits >> 8 & 0x8000u) | (119 + exponent) << 7 | (bits & 0x7fu));
	}
	st = rt->ops->upload(rt, c->in.p, noise, first, err);
	for (size_t at = first; st == DFX_OK && at < c->in.bytes; at += first)
		st = rt->ops->copy(rt, c->in.p + at, c->in.p, c->in.bytes - at < first ? c->in.bytes - at : first,
		                   err);
	free(noise);
	return st;
}

static DfxStatus
choose_open(Choose *c, DfxErr *err)
{
	int n = 1 << (c->p->nbucket - 1);
	size_t in = 0, out = 0;
	DfxStatus st;

	for (int i = 0; i < c->g->nstep; i++)
	{
		const GpuStep *s = &c->g->step[i];
		size_t size;

		if (!s->product[0].w)
			continue;
		size = choose_in_bytes(&s->args[0].conv, c->g->type, n);
		in = size > in ? size : in;
		size = choose_out_bytes(&s->args[0].conv, c->g->type, n);
		out = size > out ? size : out;
	}
	st = gpu_alloc(c->p->dev, in, &c->in, err);
	if (st == DFX_OK)
		st = gpu_alloc(c->p->dev, out, &c->want, err);
	if (st == DFX_OK)
		st = gpu_alloc(c->p->dev, out, &c->got, err);
	if (st == DFX_OK)
		st = gpu_alloc(c->p->dev, 2 * sizeof(unsigned), &c->result, err);
	return st == DFX_OK ? choose_noise(c, err) : st;
}

static void
choose_close(Choose *c)
{
	gpu_free(c->p->dev, &c->in);
	gpu_free(c->p->dev, &c->want);
	gpu_free(c->p->dev, &c->got);
	gpu_free(c->p->dev, &c->result);
}

/*
 * Run a product of n images by one candidate, from noise into y: of the first
 * branch, or of all of them, which then write over each other.
 */
static DfxStatus
choose_run(Choose *c, const GpuStep *s, const GpuChoice *by, int n, int count, char *y, DfxErr *err)
{
	DfxDev *dev = c->p->dev;
	GpuArgs args[GPU_BRANCHES];
	DfxStatus st = DFX_OK;

	for (int i = 0; i < count; i++)
	{
		args[i] = s->args[i];
		args[i].conv.x = c->in.p;
		args[i].conv.y = y;
		if (args[i].conv.epi.add)
			args[i].conv.epi.add = c->in.p;
	}
	if (!by->lib)
		return dev->rt->ops->launch(dev->rt, by->kernel, c->g->type, args, count, n, err);
	for (int i = 0; st == DFX_OK && i < count; i++)
		st = by->lib->ops->run(by->lib, by->plan, &args[i].conv, &s->product[i], dev->work.p, dev->rt->stream,
		                       err);
	return st;
}

/* How far got is from want, relative to want's largest magnitude. */
static DfxStatus
choose_compare(Choose *c, const GpuStep *s, int n, double *apart, DfxErr *err)
{
	GpuRt *rt = c->p->dev->rt;
	const GpuConvArgs *a = &s->args[0].conv;
	GpuArgs args = {.compare = {.a = c->got.p,
	                            .b = c->want.p,
	                            .rows = a->oh * a->ow,
	                            .c = a->co,
	                            .lda = a->ldy,
	                            .ldb = a->ldy,
	                            .result = (unsigned *) (void *) c->result.p}};
	float result[2] = {0, 0};
	DfxStatus st = rt->ops->clear(rt, c->result.p, sizeof result, err);

	if (st == DFX_OK)
		st = rt->ops->launch(rt, GPU_COMPARE, c->g->type, &args, 1, n, err);
	if (st == DFX_OK)
		st = rt->ops->download(rt, result, c->result.p, sizeof result, err);
	*apart = result[1] > 0 ? (double) result[0] / (double) result[1] : (result[0] > 0 ? INFINITY : 0);
	return st;
}

/* Try one candidate: *ms is its time, infinite when it is not to be used. */
static DfxStatus
choose_try(Choose *c, const GpuStep *s, const GpuChoice *by, int n, const char *key, double *ms, DfxErr *err)
{
	GpuRt *rt = c->p->dev->rt;
	double apart = 0;
	DfxStatus st = rt->ops->clear(rt, c->got.p, choose_out_bytes(&s->args[0].conv, c->g->type, n), err);

	*ms = INFINITY;
	if (st == DFX_OK)
		st = choose_run(c, s, by, n, 1, c->got.p, err);
	if (st == DFX_OK)
		st = choose_compare(c, s, n, &apart, err);
	if (st != DFX_OK)
		return st;
	if (!(apart <= CHOOSE_TOLERANCE))
	{
		dfx_log('W', "%s computes %s differently from the plain kernel (by %g): not used",
		        gpu_choice_name(by), key, apart);
		return DFX_OK;
	}
	st = rt->ops->start(rt, err);
	for (int i = 0; st == DFX_OK && i < CHOOSE_RUNS; i++)
		st = choose_run(c, s, by, n, s->count, c->got.p, err);
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
	gpu_give_way(c->p->dev);
	return choose_fatal(st) ? st : DFX_OK;
}

static DfxStatus
choose_libs(Choose *c, const GpuStep *s, int n, const char *key, ChooseBest *best, DfxErr *err)
{
	DfxStatus st = DFX_OK;

	for (int i = 0; i < GPU_LIBS && !choose_fatal(st); i++)
	{
		GpuLib *lib = c->p->dev->lib[i];
		GpuChoice by = {.lib = lib, .kernel = s->kernel};

		if (!lib || !lib->ops->fits(&s->args[0].conv, c->g->type))
			continue;
		st = lib->ops->build(lib, &s->args[0].conv, &s->product[0], c->g->type, n, "", &by.plan, err);
		if (st == DFX_OK)
			st = choose_compete(c, s, &by, n, key, best, err);
		else
			dfx_log('D', "%s refuses %s: %s", lib->ops->name, key, err->msg);
	}
	return choose_fatal(st) ? st : DFX_OK;
}

/* All candidates for one product and bucket, against the plain kernel. */
static DfxStatus
choose_trial(Choose *c, const GpuStep *s, int bucket, const char *key, GpuChoice *choice, DfxErr *err)
{
	GpuChoice plain = {.kernel = s->kernel == GPU_CONV_DIRECT ? GPU_CONV_DIRECT : GPU_CONV_TILED};
	GpuChoice own = {.kernel = s->kernel}, judge = plain;
	ChooseBest best = {.choice = plain, .ms = INFINITY};
	int n = 1 << bucket;
	DfxStatus st;

	if (bucket > CHOOSE_PLAIN_BUCKET)
		judge.kernel = s->choice[CHOOSE_PLAIN_BUCKET].lib ? s->kernel : s->choice[CHOOSE_PLAIN_BUCKET].kernel;
	c->tried++;
	st = choose_run(c, s, &judge, n, 1, c->want.p, err);
	if (st == DFX_OK)
		st = choose_compete(c, s, &own, n, key, &best, err);
	if (st == DFX_OK)
		st = choose_libs(c, s, n, key, &best, err);
	*choice = best.choice;
	return st;
}

/* A choice that an earlier process kept, made again; false: it cannot be. */
static bool
choose_recall(Choose *c, const GpuStep *s, int n, const char *key, GpuChoice *choice, char **keep)
{
	const char *who = NULL, *kept = gpu_cache_kept(c->p->dev->cache, key, &who);
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
		GpuLib *lib = c->p->dev->lib[i];

		if (!lib || strcmp(who, lib->ops->name) != 0)
			continue;
		if (lib->ops->build(lib, &s->args[0].conv, &s->product[0], c->g->type, n, kept, &choice->plan,
		                    &err) != DFX_OK)
			return false;
		*choice = (GpuChoice){.lib = lib, .plan = choice->plan, .kernel = s->kernel};
		*keep = strdup(kept);
		return true;
	}
	return false;
}

/* What tells one product from another, apart from its numbers. */
static void
choose_key(const Choose *c, const GpuStep *s, int n, char *key, size_t size)
{
	static const char *const type[GPU_TYPE_COUNT] = {"fp32", "fp16", "bf16"};
	size_t used = (size_t) snprintf(key, size, "%d %s ", n, type[c->g->type]);

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

	choose_key(c, s, 1 << bucket, key, sizeof key);
	made = gpu_cache_find(cache, key);
	if (!made)
	{
		if (!choose_recall(c, s, 1 << bucket, key, &choice, &keep))
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
