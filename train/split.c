/*
 * split.c
 *	  Drawing who serves for what.
 *
 * Samples are taken in the order of their SHA-256.  What goes together is a
 * unit: a group, or a sample without one; units that share an image are
 * joined, and go by the smallest of their keys.
 */
#include "train/split.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/random.h"

const char *const dfx_split_name[DFX_SPLIT_COUNT] = {
    [DFX_SPLIT_DRAW] = "draw",         [DFX_SPLIT_BASE_TRAIN] = "base_train",
    [DFX_SPLIT_BASE_VAL] = "base_val", [DFX_SPLIT_HEAD_TRAIN] = "head_train",
    [DFX_SPLIT_HEAD_VAL] = "head_val", [DFX_SPLIT_TEST] = "test",
    [DFX_SPLIT_BASE] = "base",         [DFX_SPLIT_HEAD] = "head",
    [DFX_SPLIT_UNUSED] = "unused",
};

bool
dfx_split_parse(const char *name, DfxSplit *split)
{
	for (int i = 0; i < DFX_SPLIT_UNUSED; i++)
		if (strcmp(dfx_split_name[i], name) == 0)
		{
			*split = (DfxSplit) i;
			return true;
		}
	return false;
}

typedef struct Splitter
{
	DfxSamples *s;
	const DfxTrainConfig *c;
	uint32_t *unit;   /* of each sample */
	uint32_t *parent; /* of each unit: itself, or a smaller one that it was joined to */
	uint32_t *first;  /* of each unit: a sample that bears its key */
	uint32_t *list;   /* scratch: sample indexes */
	uint64_t *hash;   /* scratch: what they are sorted by, a sample's in its place */
} Splitter;

static const uint8_t *
split_key(const DfxSample *s)
{
	static const uint8_t none[32];

	return memcmp(s->given.group, none, 32) == 0 ? s->given.sha256 : s->given.group;
}

/* --- orders -------------------------------------------------------------- */

static int
split_by_sha(const void *a, const void *b, void *arg)
{
	const DfxSample *s = arg, *x = &s[*(const uint32_t *) a], *y = &s[*(const uint32_t *) b];
	int c = memcmp(x->given.sha256, y->given.sha256, 32);

	return c ? c : (x->given.number > y->given.number) - (x->given.number < y->given.number);
}

static int
split_by_key(const void *a, const void *b, void *arg)
{
	const DfxSample *s = arg;

	return memcmp(split_key(&s[*(const uint32_t *) a]), split_key(&s[*(const uint32_t *) b]), 32);
}

/* By hash; equal hashes (of one unit) by sha256. */
static int
split_by_hash(const void *a, const void *b, void *arg)
{
	const Splitter *w = arg;
	uint64_t x = w->hash[*(const uint32_t *) a], y = w->hash[*(const uint32_t *) b];

	return x != y ? (x > y) - (x < y) : split_by_sha(a, b, w->s->sample);
}

/* --- units and copies ---------------------------------------------------- */

static uint32_t
split_root(const Splitter *w, uint32_t sample)
{
	uint32_t u = w->unit[sample];

	while (w->parent[u] != u)
		u = w->parent[u] = w->parent[w->parent[u]];
	return u;
}

/* Number the units in the order of their keys. */
static void
split_units(Splitter *w)
{
	DfxSamples *s = w->s;
	uint32_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		w->list[i] = (uint32_t) i;
	qsort_r(w->list, s->n, sizeof *w->list, split_by_key, s->sample);
	for (size_t i = 0; i < s->n; i++)
	{
		if (i == 0 || split_by_key(&w->list[i - 1], &w->list[i], s->sample) != 0)
		{
			w->first[n] = w->list[i];
			w->parent[n] = n;
			n++;
		}
		w->unit[w->list[i]] = n - 1;
	}
}

/* What a copy says must agree with its original, which takes over what it lacks. */
static DfxStatus
split_merge(Splitter *w, uint32_t original, uint32_t copy, DfxErr *err)
{
	DfxSample *a = &w->s->sample[original], *b = &w->s->sample[copy];
	uint32_t ra = split_root(w, original), rb = split_root(w, copy);

	if (a->given.label != b->given.label)
		return dfx_fail(err, DFX_EINVAL,
		                "samples %" PRIu64 " and %" PRIu64 " are the same image, but %s and %s",
		                a->given.number, b->given.number, dfx_train_class[a->given.label],
		                dfx_train_class[b->given.label]);
	if (a->given.split == DFX_SPLIT_DRAW)
		a->given.split = b->given.split;
	else if (b->given.split != DFX_SPLIT_DRAW && a->given.split != b->given.split)
		return dfx_fail(err, DFX_EINVAL,
		                "samples %" PRIu64 " and %" PRIu64 " are the same image, but in the splits %s and %s",
		                a->given.number, b->given.number, dfx_split_name[a->given.split],
		                dfx_split_name[b->given.split]);
	if (a->given.generator < 0 || (b->given.generator >= 0 && b->given.generator < a->given.generator))
		a->given.generator = b->given.generator;
	if (ra < rb)
		w->parent[rb] = ra;
	else
		w->parent[ra] = rb;
	b->copy = true;
	b->split = DFX_SPLIT_UNUSED;
	return DFX_OK;
}

/* s->order: those that are no copies. */
static DfxStatus
split_copies(Splitter *w, DfxErr *err)
{
	DfxSamples *s = w->s;
	DfxStatus st = DFX_OK;

	for (size_t i = 0; i < s->n; i++)
		s->order[i] = (uint32_t) i;
	qsort_r(s->order, s->n, sizeof *s->order, split_by_sha, s->sample);
	s->norder = 0;
	for (size_t i = 0; i < s->n && st == DFX_OK; i++)
	{
		uint32_t k = s->order[i], last = s->norder ? s->order[s->norder - 1] : 0;

		if (s->norder && memcmp(s->sample[last].given.sha256, s->sample[k].given.sha256, 32) == 0)
			st = split_merge(w, last, k, err);
		else
			s->order[s->norder++] = k;
	}
	return st;
}

/* --- parts --------------------------------------------------------------- */

/* Whether there is one network, so that both training parts are its own. */
static bool
split_single(const DfxTrainConfig *c)
{
	return c->recipe == DFX_RECIPE_CLASSIFIER || c->recipe == DFX_RECIPE_HIERARCHY;
}

static DfxSplit
split_base_split(DfxSplit split)
{
	return split == DFX_SPLIT_HEAD         ? DFX_SPLIT_BASE
	       : split == DFX_SPLIT_HEAD_TRAIN ? DFX_SPLIT_BASE_TRAIN
	       : split == DFX_SPLIT_HEAD_VAL   ? DFX_SPLIT_BASE_VAL
	                                       : split;
}

/* DFX_SPLIT_HEAD is left open; all else is decided. */
static void
split_parts(Splitter *w)
{
	uint64_t part = dfx_draw_key(w->c->seed, DFX_DRAW_PART, 0, 0);
	uint64_t val = dfx_draw_key(w->c->seed, DFX_DRAW_VAL, 0, 0);

	for (size_t i = 0; i < w->s->norder; i++)
	{
		uint32_t k = w->s->order[i];
		DfxSample *sample = &w->s->sample[k];
		const uint8_t *key = split_key(&w->s->sample[w->first[split_root(w, k)]]);
		DfxSplit split = (DfxSplit) sample->given.split;

		if (split == DFX_SPLIT_DRAW)
		{
			double u = dfx_unit64(dfx_draw_hash(part, key));

			split = u < DFX_SPLIT_SHARE_BASE                          ? DFX_SPLIT_BASE
			        : u < DFX_SPLIT_SHARE_BASE + DFX_SPLIT_SHARE_HEAD ? DFX_SPLIT_HEAD
			                                                          : DFX_SPLIT_TEST;
		}
		if (split_single(w->c))
			split = split_base_split(split);
		if (split == DFX_SPLIT_BASE)
			split = dfx_unit64(dfx_draw_hash(val, key)) < DFX_SPLIT_SHARE_VAL ? DFX_SPLIT_BASE_VAL
			                                                                  : DFX_SPLIT_BASE_TRAIN;
		sample->split = split;
	}
}

/* How many validation images of each class the head still needs; 0.2 x the smallest class less those given.
 */
static void
split_head_need(const Splitter *w, size_t need[DFX_TRAIN_CLASSES])
{
	size_t all[DFX_TRAIN_CLASSES] = {0}, val[DFX_TRAIN_CLASSES] = {0}, smallest = SIZE_MAX, want;

	for (size_t i = 0; i < w->s->norder; i++)
	{
		const DfxSample *s = &w->s->sample[w->s->order[i]];

		all[s->given.label] +=
		    s->split == DFX_SPLIT_HEAD || s->split == DFX_SPLIT_HEAD_TRAIN || s->split == DFX_SPLIT_HEAD_VAL;
		val[s->given.label] += s->split == DFX_SPLIT_HEAD_VAL;
	}
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
		if (all[c] < smallest)
			smallest = all[c];
	want = (size_t) ((double) smallest * DFX_SPLIT_SHARE_VAL);
	if (want == 0 && smallest > 1)
		want = 1;
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
		need[c] = want > val[c] ? want - val[c] : 0;
}

/*
 * Units in the order of their hashes give to the validation what it still
 * needs of a class.  Of a unit that gives some, the rest is left out: it may
 * not be trained on.
 */
static void
split_head(Splitter *w)
{
	uint64_t key = dfx_draw_key(w->c->seed, DFX_DRAW_HEAD_VAL, 0, 0);
	size_t need[DFX_TRAIN_CLASSES], n = 0;

	split_head_need(w, need);
	for (size_t i = 0; i < w->s->norder; i++)
	{
		uint32_t k = w->s->order[i];

		if (w->s->sample[k].split != DFX_SPLIT_HEAD)
			continue;
		w->list[n++] = k;
		w->hash[k] = dfx_draw_hash(key, split_key(&w->s->sample[w->first[split_root(w, k)]]));
	}
	qsort_r(w->list, n, sizeof *w->list, split_by_hash, w);
	for (size_t i = 0, end; i < n; i = end)
	{
		bool gives = false;

		for (end = i; end < n && w->hash[w->list[end]] == w->hash[w->list[i]]; end++)
			gives = gives || need[w->s->sample[w->list[end]].given.label] > 0;
		for (size_t k = i; k < end; k++)
		{
			DfxSample *s = &w->s->sample[w->list[k]];

			s->split = DFX_SPLIT_HEAD_TRAIN;
			if (gives)
				s->split = need[s->given.label] > 0 ? DFX_SPLIT_HEAD_VAL : DFX_SPLIT_UNUSED;
			need[s->given.label] -= s->split == DFX_SPLIT_HEAD_VAL;
		}
	}
}

/* --- the unbalanced subsets ---------------------------------------------- */

static bool
split_is_base(DfxSplit split)
{
	return split == DFX_SPLIT_BASE_TRAIN || split == DFX_SPLIT_BASE_VAL;
}

/* The first want images of class other, in the order of their hashes, join the subset of main. */
static void
split_others(Splitter *w, int main, int other, size_t want)
{
	uint64_t key = dfx_draw_key(w->c->seed, DFX_DRAW_OTHERS, (uint64_t) main, 0);
	size_t n = 0;

	for (size_t i = 0; i < w->s->norder; i++)
	{
		uint32_t k = w->s->order[i];
		const DfxSample *s = &w->s->sample[k];

		if (!split_is_base(s->split) || s->given.label != (uint32_t) other)
			continue;
		w->list[n++] = k;
		w->hash[k] = dfx_draw_hash(key, s->given.sha256);
	}
	if (n < want)
		dfx_log('W', "Base Model \"%s\": %zu images of class \"%s\" instead of %zu, there are no more",
		        dfx_train_class[main], n, dfx_train_class[other], want);
	qsort_r(w->list, n, sizeof *w->list, split_by_hash, w);
	for (size_t i = 0; i < n && i < want; i++)
		w->s->sample[w->list[i]].base |= (uint8_t) (1u << main);
}

/* All of the main class, and share of the whole from the others, half each. */
static void
split_subset(Splitter *w, int main)
{
	double share = w->c->share;
	size_t n = 0, want;

	for (size_t i = 0; i < w->s->norder; i++)
	{
		DfxSample *s = &w->s->sample[w->s->order[i]];

		if (!split_is_base(s->split) || s->given.label != (uint32_t) main)
			continue;
		s->base |= (uint8_t) (1u << main);
		n++;
	}
	want = (size_t) llround((double) n * share / (1 - share) / (DFX_TRAIN_CLASSES - 1));
	if (want == 0)
		want = 1;
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
		if (c != main)
			split_others(w, main, c, want);
}

/* --- enough of each ------------------------------------------------------ */

static DfxStatus
split_few(size_t got, size_t need, const char *what, const char *where, const char *name, DfxErr *err)
{
	if (got >= need)
		return DFX_OK;
	dfx_fail(err, DFX_EINVAL, "too few images: %zu of %s among the %s%s, at least %zu needed", got, what,
	         where, name, need);
	dfx_hint(err, "Give more images, other splits, or another seed.");
	return DFX_EINVAL;
}

/* Both sides of a Base Model, in training and validation. */
static DfxStatus
split_enough_base(const Splitter *w, int main, DfxErr *err)
{
	size_t n[2][2] = {{0}}; /* validation, others */
	DfxStatus st = DFX_OK;

	for (size_t i = 0; i < w->s->norder; i++)
	{
		const DfxSample *s = &w->s->sample[w->s->order[i]];

		if (s->base & 1u << main)
			n[s->split == DFX_SPLIT_BASE_VAL][s->given.label != (uint32_t) main]++;
	}
	for (int i = 0; i < 4 && st == DFX_OK; i++)
		st = split_few(n[i / 2][i % 2], i < 2 ? 2 : 1, i % 2 ? "the other classes" : "the main class",
		               i < 2 ? "training images of Base Model " : "validation images of Base Model ",
		               dfx_train_class[main], err);
	return st;
}

/* Of each class in one split; binary: DM and GAN are one. */
static DfxStatus
split_enough_class(const Splitter *w, DfxSplit split, size_t need, DfxErr *err)
{
	size_t n[DFX_TRAIN_CLASSES] = {0};
	DfxStatus st = DFX_OK;

	for (size_t i = 0; i < w->s->norder; i++)
	{
		const DfxSample *s = &w->s->sample[w->s->order[i]];

		n[s->given.label] += s->split == split;
	}
	if (w->c->binary)
		n[0] = n[1] = n[0] + n[1];
	for (int c = 0; c < DFX_TRAIN_CLASSES && st == DFX_OK; c++)
		st = split_few(n[c], need, dfx_train_class[c], "images of split ", dfx_split_name[split], err);
	return st;
}

static DfxStatus
split_enough(const Splitter *w, DfxErr *err)
{
	DfxRecipe r = w->c->recipe;
	DfxStatus st = DFX_OK;

	for (int c = 0; c < DFX_TRAIN_CLASSES && st == DFX_OK; c++)
		if (r == DFX_RECIPE_TRINET || (r == DFX_RECIPE_BASE && c == w->c->main_class))
			st = split_enough_base(w, c, err);
	if (st == DFX_OK && split_single(w->c))
		st = split_enough_class(w, DFX_SPLIT_BASE_TRAIN, 2, err);
	if (st == DFX_OK && split_single(w->c))
		st = split_enough_class(w, DFX_SPLIT_BASE_VAL, 1, err);
	if (st == DFX_OK && (r == DFX_RECIPE_TRINET || r == DFX_RECIPE_HEAD))
		st = split_enough_class(w, DFX_SPLIT_HEAD_TRAIN, 2, err);
	if (st == DFX_OK && (r == DFX_RECIPE_TRINET || r == DFX_RECIPE_HEAD))
		st = split_enough_class(w, DFX_SPLIT_HEAD_VAL, 1, err);
	return st == DFX_OK ? split_enough_class(w, DFX_SPLIT_TEST, 1, err) : st;
}

/* --- public -------------------------------------------------------------- */

static DfxStatus
split_all(Splitter *w, DfxErr *err)
{
	DfxStatus st;

	split_units(w);
	st = split_copies(w, err);
	if (st != DFX_OK)
		return st;
	split_parts(w);
	split_head(w);
	for (int c = 0; c < DFX_TRAIN_CLASSES; c++)
		if (w->c->recipe == DFX_RECIPE_TRINET || (w->c->recipe == DFX_RECIPE_BASE && c == w->c->main_class))
			split_subset(w, c);
	return split_enough(w, err);
}

DfxStatus
dfx_split(DfxSamples *s, const DfxTrainConfig *c, DfxErr *err)
{
	size_t n = s->n + 1;
	Splitter w = {.s = s,
	              .c = c,
	              .unit = malloc(n * sizeof *w.unit),
	              .parent = malloc(n * sizeof *w.parent),
	              .first = malloc(n * sizeof *w.first),
	              .list = malloc(n * sizeof *w.list),
	              .hash = malloc(n * sizeof *w.hash)};
	DfxStatus st;

	s->order = malloc(n * sizeof *s->order);
	if (!w.unit || !w.parent || !w.first || !w.list || !w.hash || !s->order)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for %zu samples", s->n);
	else
		st = split_all(&w, err);
	free(w.unit);
	free(w.parent);
	free(w.first);
	free(w.list);
	free(w.hash);
	return st;
}
