/*
 * test_metrics.c
 *	  Are the figures of merit those of their definitions?
 *
 * Against tests/golden/metrics.txt (tests/golden/make_metrics.py).  Runs from
 * the top of the tree.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

#define TOLERANCE 1e-6 /* the golden gradients are numerical ones */

static DfxEstimate
accuracy(const DfxConfusion *c, int class)
{
	(void) class;
	return dfx_accuracy(c);
}

static DfxEstimate
balanced_accuracy(const DfxConfusion *c, int class)
{
	(void) class;
	return dfx_balanced_accuracy(c);
}

static DfxEstimate
macro_precision(const DfxConfusion *c, int class)
{
	(void) class;
	return dfx_macro_precision(c);
}

static DfxEstimate
macro_f1(const DfxConfusion *c, int class)
{
	(void) class;
	return dfx_macro_f1(c);
}

static const struct
{
	const char *name;
	DfxEstimate (*of)(const DfxConfusion *c, int class);
} figures[] = {
    {"accuracy", accuracy},
    {"recall", dfx_recall},
    {"precision", dfx_precision},
    {"f1", dfx_f1},
    {"balanced_accuracy", balanced_accuracy},
    {"macro_precision", macro_precision},
    {"macro_f1", macro_f1},
};

static double
take_number(char **text)
{
	return strtod(*text, text);
}

static bool
same(double got, double expected)
{
	return isnan(expected) ? isnan(got) : fabs(got - expected) < TOLERANCE;
}

/* What text goes on with: value, low, high. */
static void
check(DfxEstimate got, char *text, const char *what)
{
	double value = take_number(&text), low = take_number(&text), high = take_number(&text);

	if (!ok(same(got.value, value) && same(got.low, low) && same(got.high, high), "%s", what))
		diag("%.9f [%.9f, %.9f] instead of %.9f [%.9f, %.9f]", got.value, got.low, got.high, value, low,
		     high);
}

static void
take_confusion(char *text, DfxConfusion *c)
{
	uint64_t total = 0;

	memset(c, 0, sizeof *c);
	c->nclass = (int) take_number(&text);
	for (int i = 0; i < c->nclass; i++)
		for (int j = 0; j < c->nclass; j++)
			total += c->n[i][j] = (uint64_t) take_number(&text);
	ok(dfx_confusion_total(c) == total, "%d classes, %u images", c->nclass, (unsigned) total);
}

static void
check_auc(char *text)
{
	size_t n = (size_t) take_number(&text);
	float *score = malloc(n * sizeof *score);
	uint8_t *positive = malloc(n);
	bool sorted = true;
	DfxEstimate got;
	char what[40];

	for (size_t i = 0; i < n; i++)
	{
		score[i] = (float) take_number(&text);
		positive[i] = (uint8_t) take_number(&text);
	}
	got = dfx_auc(score, positive, n);
	snprintf(what, sizeof what, "area of %zu scores", n);
	check(got, text, what);
	for (size_t i = 1; i < n && !isnan(got.value); i++)
		sorted &= score[i - 1] <= score[i];
	ok(sorted, "... which it sorts");
	free(score);
	free(positive);
}

static void
check_macro_auc(char *text)
{
	size_t n = (size_t) take_number(&text), nclass = (size_t) take_number(&text);
	float *score = malloc(n * nclass * sizeof *score), *one = malloc(n * sizeof *one);
	uint8_t *class = malloc(n), *positive = malloc(n);
	char what[64];

	for (size_t i = 0; i < n; i++)
	{
		class[i] = (uint8_t) take_number(&text);
		for (size_t c = 0; c < nclass; c++)
			score[i * nclass + c] = (float) take_number(&text);
	}
	snprintf(what, sizeof what, "mean area of %zu scores for each of %zu classes", n, nclass);
	check(dfx_macro_auc(score, class, n, (int) nclass, one, positive), text, what);
	free(score);
	free(one);
	free(class);
	free(positive);
}

static void
check_figure(const char *name, char *text, const DfxConfusion *c)
{
	int class = (int) take_number(&text);

	for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
		if (strcmp(name, figures[i].name) == 0)
		{
			check(figures[i].of(c, class), text, name);
			return;
		}
	ok(false, "%s is a figure", name);
}

static void
check_line(char *line, DfxConfusion *c)
{
	char *rest = strchr(line, ' ');

	if (!rest)
	{
		ok(false, "\"%s\" is well-formed", line);
		return;
	}
	*rest++ = '\0';
	if (strcmp(line, "confusion") == 0)
		take_confusion(rest, c);
	else if (strcmp(line, "auc") == 0)
		check_auc(rest);
	else if (strcmp(line, "macro_auc") == 0)
		check_macro_auc(rest);
	else
		check_figure(line, rest, c);
}

int
main(void)
{
	static DfxConfusion c;
	size_t len;
	char *golden = (char *) slurp("tests/golden/metrics.txt", &len), *next = golden;
	int facts = 0;

	if (!ok(golden != NULL, "the golden file can be read"))
		return done_testing();
	for (char *line; (line = next) != NULL && *line; facts++)
	{
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		check_line(line, &c);
	}
	ok(facts > 100, "it holds %d facts", facts);
	free(golden);
	return done_testing();
}
