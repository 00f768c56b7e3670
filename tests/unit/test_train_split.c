/*
 * test_train_split.c
 *	  Does every sample get its place by what it is, never by where it stood?
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "tests/unit/tap.h"
#include "train/split.h"

#define N 3000 /* a third of each class, unless a test changes that */

enum
{
	DM,
	GAN,
	REAL
};

static void
hash_of(const char *kind, size_t i, uint8_t out[32])
{
	char text[64];
	DfxSha256 s;

	snprintf(text, sizeof text, "%s %zu", kind, i);
	dfx_sha256_init(&s);
	dfx_sha256_update(&s, text, strlen(text));
	dfx_sha256_final(&s, out);
}

/* n samples that differ, of classes in turn. */
static void
make_samples(DfxSamples *s, size_t n)
{
	*s = (DfxSamples){.n = n, .cap = n, .sample = calloc(n, sizeof *s->sample), .store.fd = -1};
	for (size_t i = 0; i < n; i++)
	{
		DfxTrainSample *g = &s->sample[i].given;

		g->number = i;
		g->label = i % 3;
		g->generator = -1;
		hash_of("image", i, g->sha256);
	}
}

static DfxTrainConfig
make_config(DfxRecipe recipe, uint64_t seed)
{
	DfxTrainConfig c;

	dfx_train_config_init(&c);
	c.recipe = recipe;
	c.seed = seed;
	c.main_class = recipe == DFX_RECIPE_BASE ? GAN : -1;
	return c;
}

static size_t
count(const DfxSamples *s, DfxSplit split, int label)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++)
		n += s->sample[i].split == split && (label < 0 || s->sample[i].given.label == (uint32_t) label);
	return n;
}

static bool
near(size_t got, double want, double margin)
{
	return fabs((double) got - want) <= margin;
}

static void
check_shares(void)
{
	DfxTrainConfig c = make_config(DFX_RECIPE_TRINET, 1);
	DfxSamples s;
	DfxErr err;
	size_t subset[3][3] = {{0}};

	make_samples(&s, N);
	ok(dfx_split(&s, &c, &err) == DFX_OK && s.norder == N, "%d samples are split", N);
	/* four standard deviations of a binomial count */
	ok(near(count(&s, DFX_SPLIT_BASE_TRAIN, -1) + count(&s, DFX_SPLIT_BASE_VAL, -1), 0.4 * N, 108) &&
	       near(count(&s, DFX_SPLIT_HEAD_TRAIN, -1) + count(&s, DFX_SPLIT_HEAD_VAL, -1), 0.4 * N, 108) &&
	       near(count(&s, DFX_SPLIT_TEST, -1), 0.2 * N, 88),
	   "40 %%, 40 %%, 20 %%");
	ok(near(count(&s, DFX_SPLIT_BASE_VAL, -1), 0.08 * N, 60),
	   "of the Base Models' part a fifth is validation");
	ok(count(&s, DFX_SPLIT_HEAD_VAL, DM) == count(&s, DFX_SPLIT_HEAD_VAL, GAN) &&
	       count(&s, DFX_SPLIT_HEAD_VAL, DM) == count(&s, DFX_SPLIT_HEAD_VAL, REAL) &&
	       near(count(&s, DFX_SPLIT_HEAD_VAL, DM), 0.08 * N / 3, 15),
	   "the head's validation has the same number of each class");
	ok(count(&s, DFX_SPLIT_UNUSED, -1) == 0, "nothing is left out");

	for (size_t i = 0; i < s.n; i++)
		for (int m = 0; m < 3; m++)
			subset[m][s.sample[i].given.label] += s.sample[i].base >> m & 1;
	for (int m = 0; m < 3; m++)
	{
		size_t own = count(&s, DFX_SPLIT_BASE_TRAIN, m) + count(&s, DFX_SPLIT_BASE_VAL, m);
		size_t half = (size_t) llround((double) own / 18);

		ok(subset[m][m] == own && subset[m][(m + 1) % 3] == half && subset[m][(m + 2) % 3] == half,
		   "Base Model %s: all %zu of its class, %zu of each other one", dfx_train_class[m], own, half);
	}
	dfx_samples_free(&s);
}

/* The same rows in another order, with another order of numbers. */
static void
check_order(void)
{
	DfxTrainConfig c = make_config(DFX_RECIPE_TRINET, 9), other = make_config(DFX_RECIPE_TRINET, 10);
	DfxSamples a, b, d;
	DfxErr err;
	size_t same = 0, moved = 0;
	uint8_t da[32], db[32];

	make_samples(&a, N);
	make_samples(&b, N);
	make_samples(&d, N);
	for (size_t i = 0; i < N; i++)
		if (i % 7 == 0)
		{
			hash_of("group", i / 70, a.sample[i].given.group);
			memcpy(b.sample[i].given.group, a.sample[i].given.group, 32);
		}
	for (size_t i = 0; i < N / 2; i++)
	{
		DfxSample t = b.sample[i];

		b.sample[i] = b.sample[N - 1 - i];
		b.sample[N - 1 - i] = t;
	}
	ok(dfx_split(&a, &c, &err) == DFX_OK && dfx_split(&b, &c, &err) == DFX_OK &&
	       dfx_split(&d, &other, &err) == DFX_OK,
	   "rows in two orders");
	for (size_t i = 0; i < N; i++)
	{
		same +=
		    a.sample[i].split == b.sample[N - 1 - i].split && a.sample[i].base == b.sample[N - 1 - i].base;
		moved += a.sample[i].split != d.sample[i].split;
	}
	ok(same == N, "have one plan");
	ok(moved > N / 2, "another seed has another one");
	dfx_samples_digest(&a, da);
	dfx_samples_digest(&b, db);
	ok(memcmp(da, db, 32) == 0, "and one digest");
	b.sample[5].given.label ^= 1;
	dfx_samples_digest(&b, db);
	ok(memcmp(da, db, 32) != 0, "which a changed label changes");
	dfx_samples_free(&a);
	dfx_samples_free(&b);
	dfx_samples_free(&d);
}

/* Which of the four places that must not share a group a split is. */
static int
place(DfxSplit split)
{
	return split == DFX_SPLIT_UNUSED ? -1 : (int) split;
}

static void
check_groups(void)
{
	DfxTrainConfig c = make_config(DFX_RECIPE_TRINET, 4);
	DfxSamples s;
	DfxErr err;
	int of[N / 10];
	bool together = true;

	make_samples(&s, N);
	for (size_t i = 0; i < N; i++)
		hash_of("group", i / 10, s.sample[i].given.group);
	ok(dfx_split(&s, &c, &err) == DFX_OK, "300 groups of ten");
	for (size_t i = 0; i < N / 10; i++)
		of[i] = -1;
	for (size_t i = 0; i < N; i++)
	{
		int p = place(s.sample[i].split);

		if (p >= 0 && of[i / 10] < 0)
			of[i / 10] = p;
		together = together && (p < 0 || of[i / 10] == p);
	}
	ok(together, "each goes one way");
	ok(count(&s, DFX_SPLIT_HEAD_VAL, DM) == count(&s, DFX_SPLIT_HEAD_VAL, REAL) &&
	       count(&s, DFX_SPLIT_HEAD_VAL, DM) > 0,
	   "the head's validation is even all the same");
	ok(count(&s, DFX_SPLIT_UNUSED, -1) < 15, "which leaves few out");
	dfx_samples_free(&s);
}

/* Row 1 copies row 0's image, row 2 row 1's group: all three belong together, whatever their hashes say. */
static void
check_copies(void)
{
	DfxTrainConfig c = make_config(DFX_RECIPE_TRINET, 4);
	bool joined = true;
	DfxSamples s;
	DfxErr err;

	make_samples(&s, N);
	for (size_t i = 0; i + 6 < 300; i += 6)
	{
		memcpy(s.sample[i + 3].given.sha256, s.sample[i].given.sha256, 32);
		hash_of("group", i, s.sample[i + 3].given.group);
		hash_of("group", i, s.sample[i + 5].given.group);
	}
	s.sample[3].given.generator = -1;
	ok(dfx_split(&s, &c, &err) == DFX_OK && s.norder == N - 49, "copies count once");
	for (size_t i = 0; i + 6 < 300; i += 6)
	{
		int a = place(s.sample[i].split), b = place(s.sample[i + 5].split);

		joined = joined && s.sample[i + 3].copy && s.sample[i + 3].split == DFX_SPLIT_UNUSED;
		joined = joined && (a < 0 || b < 0 || a == b);
	}
	ok(joined, "and join the groups that they are in");
	dfx_samples_free(&s);

	make_samples(&s, N);
	memcpy(s.sample[4].given.sha256, s.sample[0].given.sha256, 32);
	ok(dfx_split(&s, &c, &err) == DFX_EINVAL && strstr(err.msg, "samples 0 and 4") &&
	       strstr(err.msg, "dm and gan"),
	   "copies with two labels are refused, and named");
	dfx_samples_free(&s);

	make_samples(&s, N);
	memcpy(s.sample[3].given.sha256, s.sample[0].given.sha256, 32);
	s.sample[0].given.split = DFX_SPLIT_TEST;
	s.sample[3].given.split = DFX_SPLIT_BASE;
	ok(dfx_split(&s, &c, &err) == DFX_EINVAL && strstr(err.msg, "test and base"), "and copies in two splits");
	s.sample[0].given.split = DFX_SPLIT_DRAW;
	free(s.order);
	ok(dfx_split(&s, &c, &err) == DFX_OK &&
	       (s.sample[0].split == DFX_SPLIT_BASE_TRAIN || s.sample[0].split == DFX_SPLIT_BASE_VAL),
	   "a split that only the copy has is the image's");
	dfx_samples_free(&s);
}

static void
check_given(void)
{
	static const DfxSplit given[] = {DFX_SPLIT_BASE_TRAIN, DFX_SPLIT_BASE_VAL, DFX_SPLIT_HEAD_TRAIN,
	                                 DFX_SPLIT_HEAD_VAL, DFX_SPLIT_TEST};
	DfxTrainConfig c = make_config(DFX_RECIPE_TRINET, 1);
	bool kept = true, inside = true;
	DfxSamples s;
	DfxErr err;
	DfxSplit split;

	make_samples(&s, N);
	for (size_t i = 0; i < N; i++)
		s.sample[i].given.split = given[i / 3 % 5];
	ok(dfx_split(&s, &c, &err) == DFX_OK, "all splits given");
	for (size_t i = 0; i < N; i++)
		kept = kept && s.sample[i].split == given[i / 3 % 5];
	ok(kept, "are kept");
	free(s.order);
	for (size_t i = 0; i < N; i++)
		s.sample[i].given.split = i % 2 ? DFX_SPLIT_BASE : DFX_SPLIT_DRAW;
	ok(dfx_split(&s, &c, &err) == DFX_OK, "every second one in the Base Models' part");
	for (size_t i = 1; i < N; i += 2)
		inside =
		    inside && (s.sample[i].split == DFX_SPLIT_BASE_TRAIN || s.sample[i].split == DFX_SPLIT_BASE_VAL);
	ok(inside && count(&s, DFX_SPLIT_TEST, -1) > 200, "stays there, the rest is drawn");
	dfx_samples_free(&s);
	ok(dfx_split_parse("head_val", &split) && split == DFX_SPLIT_HEAD_VAL &&
	       !dfx_split_parse("unused", &split) && !dfx_split_parse("", &split),
	   "names of splits");
}

static void
check_one_network(void)
{
	DfxTrainConfig c = make_config(DFX_RECIPE_CLASSIFIER, 1), base = make_config(DFX_RECIPE_BASE, 1);
	DfxTrainConfig whole = make_config(DFX_RECIPE_TRINET, 1);
	DfxSamples a, b, d;
	DfxErr err;
	bool same = true;

	make_samples(&a, N);
	make_samples(&b, N);
	make_samples(&d, N);
	ok(dfx_split(&a, &c, &err) == DFX_OK && dfx_split(&b, &base, &err) == DFX_OK &&
	       dfx_split(&d, &whole, &err) == DFX_OK,
	   "a classifier, a Base Model, a complete model");
	ok(near(count(&a, DFX_SPLIT_BASE_TRAIN, -1), 0.64 * N, 106) &&
	       near(count(&a, DFX_SPLIT_BASE_VAL, -1), 0.16 * N, 81) && count(&a, DFX_SPLIT_HEAD_TRAIN, -1) == 0,
	   "the classifier trains on both parts");
	for (size_t i = 0; i < N; i++)
		same = same && b.sample[i].split == d.sample[i].split &&
		       b.sample[i].base == (d.sample[i].base & 1u << GAN) &&
		       (a.sample[i].split == DFX_SPLIT_TEST) == (d.sample[i].split == DFX_SPLIT_TEST);
	ok(same, "tests are the same images, and a Base Model alone learns what it would in the complete model");
	dfx_samples_free(&a);
	dfx_samples_free(&b);
	dfx_samples_free(&d);
}

static void
check_few(void)
{
	static const struct
	{
		DfxRecipe recipe;
		size_t n;
		bool one_class;
		const char *words;
	} few[] = {
	    {DFX_RECIPE_TRINET, 0, false, "too few images"},
	    {DFX_RECIPE_TRINET, 12, false, "too few images"},
	    {DFX_RECIPE_TRINET, 900, true, "the other classes"},
	    {DFX_RECIPE_BASE, 900, true, "the main class"},
	    {DFX_RECIPE_CLASSIFIER, 900, true, "split base_train"},
	    {DFX_RECIPE_HEAD, 900, true, "split head_train"},
	};

	for (size_t k = 0; k < sizeof few / sizeof few[0]; k++)
	{
		DfxTrainConfig c = make_config(few[k].recipe, 1);
		DfxSamples s;
		DfxErr err = {0};

		make_samples(&s, few[k].n + 1);
		s.n = few[k].n;
		for (size_t i = 0; i < s.n && few[k].one_class; i++)
			s.sample[i].given.label = DM;
		if (!ok(dfx_split(&s, &c, &err) == DFX_EINVAL && strstr(err.msg, few[k].words) && err.hint[0],
		        "%s of %zu%s: %s", dfx_recipe_name[few[k].recipe], few[k].n,
		        few[k].one_class ? ", all dm" : "", few[k].words))
			diag("%s", err.msg);
		dfx_samples_free(&s);
	}
}

static bool
want_test(const DfxSample *s, const void *arg)
{
	(void) arg;
	return s->split == DFX_SPLIT_TEST;
}

static void
check_balance(void)
{
	DfxTrainConfig c = make_config(DFX_RECIPE_TRINET, 1);
	size_t n, before[3], after[3] = {0};
	uint32_t *list;
	DfxSamples s;
	DfxErr err;
	bool ordered = true;

	make_samples(&s, N);
	for (size_t i = 0; i < N; i++)
		if (i % 3 == GAN && i % 2)
			s.sample[i].given.label = REAL;
	ok(dfx_split(&s, &c, &err) == DFX_OK && dfx_samples_list(&s, want_test, NULL, &list, &n, &err) == DFX_OK,
	   "the test split as a list");
	for (int k = 0; k < 3; k++)
		before[k] = count(&s, DFX_SPLIT_TEST, k);
	ok(n == before[0] + before[1] + before[2] && before[GAN] < before[DM] && before[DM] < before[REAL],
	   "is uneven");
	ok(dfx_samples_balance(&s, 1, list, &n, &err) == DFX_OK && n == 3 * before[GAN],
	   "balanced to the smallest class");
	for (size_t i = 0; i < n; i++)
	{
		after[s.sample[list[i]].given.label]++;
		ordered = ordered && (i == 0 || memcmp(s.sample[list[i - 1]].given.sha256,
		                                       s.sample[list[i]].given.sha256, 32) < 0);
	}
	ok(after[DM] == before[GAN] && after[GAN] == before[GAN] && after[REAL] == before[GAN] && ordered,
	   "the same number of each, still in order");
	free(list);
	dfx_samples_free(&s);
}

int
main(void)
{
	check_shares();
	check_order();
	check_groups();
	check_copies();
	check_given();
	check_one_network();
	check_few();
	check_balance();
	return done_testing();
}
