/*
 * metrics.c
 *	  Figures of merit from counts and scores (metrics.h).
 *
 * Everything reduces to shares k / n and to means of such shares, so each
 * class gives an estimate with a variance, and the public functions put
 * intervals around one of them or around their mean.  Intervals are clipped
 * to [0, 1].  The delta method and DeLong's give an interval without width
 * where a sample shows no error at all; Wilson's does not.
 */
#include "base/metrics.h"

#include <math.h>
#include <stdbool.h>

#define METRICS_Z 1.959963984540054 /* 97.5 % quantile of the standard normal distribution */

/* A share or the like, and its variance as estimated from the same sample. */
typedef struct MetricsTerm
{
	double value, variance;
} MetricsTerm;

/* One class against all others. */
typedef struct MetricsClass
{
	uint64_t hits;  /* of the class, and said to be */
	uint64_t truth; /* of the class */
	uint64_t said;  /* said to be of the class */
} MetricsClass;

static const DfxEstimate metrics_undefined = {NAN, NAN, NAN};

static double
metrics_clip(double share)
{
	return share < 0 ? 0 : share > 1 ? 1 : share;
}

static DfxEstimate
metrics_normal(MetricsTerm t)
{
	double half = METRICS_Z * sqrt(t.variance);

	return (DfxEstimate){t.value, metrics_clip(t.value - half), metrics_clip(t.value + half)};
}

/* Wilson's score interval of k out of n. */
static DfxEstimate
metrics_wilson(uint64_t k, uint64_t n)
{
	const double zz = METRICS_Z * METRICS_Z;
	double size = (double) n, share, centre, half;

	if (n == 0)
		return metrics_undefined;
	share = (double) k / size;
	centre = (share + zz / (2 * size)) / (1 + zz / size);
	half = METRICS_Z / (1 + zz / size) * sqrt(share * (1 - share) / size + zz / (4 * size * size));
	/* The bounds at the ends are exact; rounding must not lose that. */
	return (DfxEstimate){share, k == 0 ? 0 : metrics_clip(centre - half),
	                     k == n ? 1 : metrics_clip(centre + half)};
}

/* k out of n; nothing out of nothing counts as none. */
static MetricsTerm
metrics_share(uint64_t k, uint64_t n)
{
	double share = n > 0 ? (double) k / (double) n : 0;

	return (MetricsTerm){share, n > 0 ? share * (1 - share) / (double) n : 0};
}

/*
 * F1 = 2 hits / (2 hits + errors), errors being those of both kinds.  With p
 * and q their shares of all n images, multinomial, the delta method gives
 * 4 p q (p + q) / (n (2 p + q)^4), where n cancels.
 */
static MetricsTerm
metrics_f1(MetricsClass m)
{
	double hits = (double) m.hits, errors = (double) (m.truth - m.hits) + (double) (m.said - m.hits);
	double both = 2 * hits + errors; /* not 0 in a class that has images */

	return (MetricsTerm){2 * hits / both, 4 * hits * errors * (hits + errors) / (both * both * both * both)};
}

static MetricsTerm
metrics_recall(MetricsClass m)
{
	return metrics_share(m.hits, m.truth);
}

static MetricsTerm
metrics_precision(MetricsClass m)
{
	return metrics_share(m.hits, m.said);
}

static MetricsClass
metrics_class(const DfxConfusion *c, int class)
{
	MetricsClass m = {.hits = c->n[class][class]};

	for (int i = 0; i < c->nclass; i++)
	{
		m.truth += c->n[class][i];
		m.said += c->n[i][class];
	}
	return m;
}

/* Of n independent terms, from their sum; NaN when there are none. */
static DfxEstimate
metrics_average(MetricsTerm sum, int n)
{
	if (n == 0)
		return metrics_undefined;
	return metrics_normal((MetricsTerm){sum.value / n, sum.variance / n / n});
}

/* The mean of a figure over the classes that have images. */
static DfxEstimate
metrics_mean(const DfxConfusion *c, MetricsTerm (*figure)(MetricsClass m))
{
	MetricsTerm sum = {0, 0};
	int n = 0;

	for (int class = 0; class < c->nclass; class ++)
	{
		MetricsClass m = metrics_class(c, class);
		MetricsTerm t;

		if (m.truth == 0)
			continue;
		t = figure(m);
		sum.value += t.value;
		sum.variance += t.variance;
		n++;
	}
	return metrics_average(sum, n);
}

uint64_t
dfx_confusion_total(const DfxConfusion *c)
{
	uint64_t total = 0;

	for (int class = 0; class < c->nclass; class ++)
		total += metrics_class(c, class).truth;
	return total;
}

DfxEstimate
dfx_accuracy(const DfxConfusion *c)
{
	uint64_t hits = 0;

	for (int class = 0; class < c->nclass; class ++)
		hits += c->n[class][class];
	return metrics_wilson(hits, dfx_confusion_total(c));
}

DfxEstimate
dfx_recall(const DfxConfusion *c, int class)
{
	MetricsClass m = metrics_class(c, class);

	return metrics_wilson(m.hits, m.truth);
}

DfxEstimate
dfx_precision(const DfxConfusion *c, int class)
{
	MetricsClass m = metrics_class(c, class);

	return metrics_wilson(m.hits, m.said);
}

DfxEstimate
dfx_f1(const DfxConfusion *c, int class)
{
	MetricsClass m = metrics_class(c, class);

	return m.truth > 0 ? metrics_normal(metrics_f1(m)) : metrics_undefined;
}

DfxEstimate
dfx_balanced_accuracy(const DfxConfusion *c)
{
	return metrics_mean(c, metrics_recall);
}

DfxEstimate
dfx_macro_precision(const DfxConfusion *c)
{
	return metrics_mean(c, metrics_precision);
}

DfxEstimate
dfx_macro_f1(const DfxConfusion *c)
{
	return metrics_mean(c, metrics_f1);
}

/* ---- area under the curve ---- */

static void
auc_swap(float *score, uint8_t *positive, size_t a, size_t b)
{
	float s = score[a];
	uint8_t p = positive[a];

	score[a] = score[b];
	positive[a] = positive[b];
	score[b] = s;
	positive[b] = p;
}

static void
auc_sift(float *score, uint8_t *positive, size_t top, size_t n)
{
	for (size_t child; (child = 2 * top + 1) < n; top = child)
	{
		if (child + 1 < n && score[child + 1] > score[child])
			child++;
		if (score[top] >= score[child])
			return;
		auc_swap(score, positive, top, child);
	}
}

/* Heapsort: two parallel arrays, no memory, no worst case. */
static void
auc_sort(float *score, uint8_t *positive, size_t n)
{
	for (size_t top = n / 2; top-- > 0;)
		auc_sift(score, positive, top, n);
	for (size_t last = n; last-- > 1;)
	{
		auc_swap(score, positive, 0, last);
		auc_sift(score, positive, 0, last);
	}
}

/* Sum and sum of squares of the placements of one kind (DeLong's V10 or V01). */
typedef struct AucSide
{
	double n, sum, squares;
} AucSide;

static void
auc_add(AucSide *side, double times, double placement)
{
	side->sum += times * placement;
	side->squares += times * placement * placement;
}

/* The variance of the mean of a kind's placements. */
static double
auc_variance(const AucSide *side)
{
	double about_mean = side->squares - side->sum * side->sum / side->n;

	return about_mean > 0 ? about_mean / (side->n - 1) / side->n : 0;
}

/*
 * A positive's placement is the share of negatives below it, a negative's the
 * share of positives above it, equal ones counting half.  Both means are the
 * area; their variances add up to its variance.  With one image of a kind
 * nothing is known about others of it.  False when there is no area.
 */
static bool
auc_term(float *score, uint8_t *positive, size_t n, MetricsTerm *t)
{
	AucSide pos = {0}, neg = {0};
	double pos_below = 0, neg_below = 0;

	for (size_t i = 0; i < n; i++)
		*(positive[i] ? &pos.n : &neg.n) += 1;
	if (pos.n == 0 || neg.n == 0)
		return false;
	auc_sort(score, positive, n);
	for (size_t i = 0, end; i < n; i = end)
	{
		double pos_here = 0, neg_here = 0;

		for (end = i; end < n && !(score[end] > score[i]); end++)
			*(positive[end] ? &pos_here : &neg_here) += 1;
		auc_add(&pos, pos_here, (neg_below + neg_here / 2) / neg.n);
		auc_add(&neg, neg_here, (pos.n - pos_below - pos_here / 2) / pos.n);
		pos_below += pos_here;
		neg_below += neg_here;
	}
	t->value = pos.sum / pos.n;
	t->variance = pos.n < 2 || neg.n < 2 ? INFINITY : auc_variance(&pos) + auc_variance(&neg);
	return true;
}

DfxEstimate
dfx_auc(float *score, uint8_t *positive, size_t n)
{
	MetricsTerm t;

	return auc_term(score, positive, n, &t) ? metrics_normal(t) : metrics_undefined;
}

DfxEstimate
dfx_macro_auc(const float *score, const uint8_t *class, size_t n, int nclass, float *one, uint8_t *positive)
{
	MetricsTerm sum = {0, 0}, t;
	int areas = 0;

	for (int c = 0; c < nclass; c++)
	{
		for (size_t i = 0; i < n; i++)
		{
			one[i] = score[i * (size_t) nclass + (size_t) c];
			positive[i] = class[i] == c;
		}
		if (!auc_term(one, positive, n, &t))
			continue;
		sum.value += t.value;
		sum.variance += t.variance;
		areas++;
	}
	return metrics_average(sum, areas);
}
