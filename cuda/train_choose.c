/*
 * train_choose.c
 *	  Who computes the products of a training plan in bf16.
 *
 * As in choose.c nobody is believed: a candidate runs once on noise and is
 * compared with the plain kernel.  But the clock has no say, because a run that
 * is resumed must find the same ones: the first that is right is taken, of
 * cuBLASLt, cuDNN and our own kernels, in this order; libraries' plans are
 * the first that their heuristics list and can be made.  They are for
 * batches of max_batch only, which all but the last of an epoch are.  There is
 * room for trying in the arena, which holds nothing yet.  fp32 runs on plain
 * kernels alone, and so do gradients by weights on our own.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cuda/train.h"

#define TRAIN_KEY (GPU_DESCRIBE + 64)

typedef struct TrainChoose
{
	DfxPlan *plan;
	GpuTrial trial;
	char *end; /* of the room for trying */
	int own, lib;
} TrainChoose;

/* A step as choose.c knows them. */
static GpuStep
choose_as_step(const GpuTrainStep *s)
{
	GpuStep step = {.kernel = s->kernel, .count = 1, .op = s->op};

	step.args[0] = s->args;
	step.product[0] = s->product;
	return step;
}

/* Lay out a product's operands in the arena, the input filled with noise; false: it has no room. */
static DfxStatus
choose_room(TrainChoose *c, const GpuConvArgs *a, bool *room, DfxErr *err)
{
	GpuTrial *t = &c->trial;
	size_t in = 0, out = 0;

	gpu_trial_room(a, t->type, c->plan->max_batch, &in, &out);
	in = (in + GPU_ALIGN - 1) / GPU_ALIGN * GPU_ALIGN;
	out = (out + GPU_ALIGN - 1) / GPU_ALIGN * GPU_ALIGN;
	t->want = t->in + in;
	t->got = t->want + out;
	*room = in + 2 * out <= (size_t) (c->end - t->in);
	return *room ? gpu_trial_noise(t, in, err) : DFX_OK;
}

/*
 * Make by, if it is a library's, and see whether it is right about a step; what
 * it fails at is its own affair, unless the device is gone.
 */
static DfxStatus
choose_judge(TrainChoose *c, const GpuStep *s, GpuChoice *by, const char *key, bool *right, DfxErr *err)
{
	int n = c->plan->max_batch;
	DfxStatus st = gpu_trial_begin(&c->trial, key, by, right, err);

	if (st != DFX_OK || !*right)
		return st;
	*right = false;
	if (by->lib)
		st = by->lib->ops->build(by->lib, &s->args[0].conv, &s->product[0], c->trial.type, n, "", &by->plan,
		                         err);
	if (st != DFX_OK)
		dfx_log('D', "%s refuses %s: %s", gpu_choice_name(by), key, err->msg);
	else
	{
		st = gpu_trial_agrees(&c->trial, s, by, n, key, right, err);
		if (st != DFX_OK)
			dfx_log('D', "%s fails at %s: %s", gpu_choice_name(by), key, err->msg);
		*right = *right && st == DFX_OK;
		if (by->lib && !*right)
			by->lib->ops->drop(by->lib, by->plan);
	}
	gpu_trial_end(&c->trial, st);
	return st == DFX_ELOST ? st : DFX_OK;
}

/* The first that is right; a library is not asked to add to its own output unless it says that it can. */
static DfxStatus
choose_first(TrainChoose *c, const GpuStep *s, const char *key, GpuChoice *choice, DfxErr *err)
{
	DfxDev *dev = c->plan->dev;
	const GpuConvArgs *a = &s->args[0].conv;
	GpuChoice plain = {.kernel = GPU_CONV_TILED};
	bool right = false;
	DfxStatus st = gpu_trial_run(&c->trial, s, &plain, c->plan->max_batch, 1, c->trial.want, err);

	for (int i = 0; st == DFX_OK && i < GPU_LIBS && !right; i++)
	{
		GpuLib *lib = dev->lib[i];

		*choice = (GpuChoice){.lib = lib, .kernel = s->kernel};
		if (lib && lib->ops->fits(a, c->trial.type) && (!a->epi.add || lib->ops->adds_in_place))
			st = choose_judge(c, s, choice, key, &right, err);
	}
	if (st == DFX_OK && !right)
	{
		*choice = (GpuChoice){.kernel = s->kernel};
		st = choose_judge(c, s, choice, key, &right, err);
	}
	if (!right)
		*choice = plain;
	return st;
}

static DfxStatus
choose_product(TrainChoose *c, GpuTrainStep *step, DfxErr *err)
{
	DfxDev *dev = c->plan->dev;
	GpuStep s = choose_as_step(step);
	char key[TRAIN_KEY], what[GPU_DESCRIBE], *keep = NULL;
	const GpuChoice *made;
	GpuChoice choice;
	bool room = true;
	DfxStatus st = DFX_OK;

	gpu_step_describe(&s, what, sizeof what);
	snprintf(key, sizeof key, "train %d bf16 %s", c->plan->max_batch, what);
	made = gpu_cache_find(dev->cache, key);
	if (!made && !gpu_choose_recall(dev, c->trial.type, &s, c->plan->max_batch, key, &choice, &keep))
	{
		st = choose_room(c, &s.args[0].conv, &room, err);
		if (st == DFX_OK && room)
			st = choose_first(c, &s, key, &choice, err);
		if (st == DFX_OK && room && choice.lib && choice.lib->ops->save)
			keep = choice.lib->ops->save(choice.lib, choice.plan);
		gpu_give_way(dev);
	}
	if (st != DFX_OK || !room)
		return st;
	if (!made)
	{
		st = gpu_cache_put(dev->cache, key, &choice, keep, err);
		made = gpu_cache_find(dev->cache, key);
	}
	if (st == DFX_OK && made)
		step->choice = *made;
	c->own += !step->choice.lib;
	c->lib += step->choice.lib != NULL;
	return st;
}

DfxStatus
gpu_train_choose(DfxPlan *plan, DfxErr *err)
{
	GpuTrain *t = plan->train;
	DfxDev *dev = plan->dev;
	TrainChoose c = {.plan = plan, .end = t->arena.p + t->arena.bytes};
	GpuTrainList *list[] = {&t->forward, &t->backward};
	bool any = false;
	DfxStatus st = DFX_OK;

	for (int i = 0; i < GPU_LIBS; i++)
		any = any || dev->lib[i];
	if (t->type != GPU_BF16 || !any)
		return DFX_OK;
	c.trial = (GpuTrial){
	    .dev = dev, .type = t->type, .in = t->arena.p, .result = (unsigned *) (void *) t->scratch.p};
	st = gpu_train_run_list(plan, &t->weights, TRAIN_BOTH, 1, 0, err);
	for (int k = 0; k < 2; k++)
		for (int i = 0; st == DFX_OK && i < list[k]->n; i++)
			if (list[k]->step[i].product.w)
				st = choose_product(&c, &list[k]->step[i], err);
	if (st != DFX_OK)
		return st;
	gpu_cache_write(dev->cache);
	dfx_log(
	    'I',
	    "products of a training step: %d by libraries, %d by own kernels, and gradients by weights by these",
	    c.lib, c.own);
	return DFX_OK;
}
