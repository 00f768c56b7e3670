/*
 * test.c
 *	  The test at the end of a run: every network over the test split, the
 *	  model's verdicts made of them, and the figures (report.h).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "train/loss.h"
#include "train/report.h"
#include "train/run_priv.h"
#include "train/split.h"

#define TEST_JSON_MAX (64u << 10)

typedef struct Test
{
	DfxRun *run;
	DfxData data;            /* the test split; labels are the classes */
	float *logits[RUN_NETS]; /* of each network; NULL: it has none */

	/* verdicts */
	int *three;   /* dm, gan, real; -1: not told */
	float *score; /* probability of synthetic; NaN: not told */
} Test;

static int
test_class(const DfxSample *s, const void *arg)
{
	(void) arg;
	return s->split == DFX_SPLIT_TEST ? (int) s->given.label : -1;
}

/* --- logits -------------------------------------------------------------- */

static float *
test_room(const Test *t, const RunNet *net, DfxErr *err)
{
	float *p = malloc((t->data.n * (size_t) net->nclass + 1) * sizeof *p);

	if (!p)
		dfx_fail(err, DFX_ENOMEM, "out of memory for the logits of %zu images", t->data.n);
	return p;
}

/* By running the network. */
static DfxStatus
test_infer(Test *t, int i, const DfxData *data, DfxErr *err)
{
	const RunNet *net = &t->run->net[i];
	float *out[DFX_MAX_OUT] = {NULL};
	DfxGraph *g;
	DfxStatus st;

	t->logits[i] = test_room(t, net, err);
	if (!t->logits[i])
		return err->code;
	st = run_infer_graph(t->run, net, &g, err);
	if (st != DFX_OK)
		return st;
	out[g->nout - 1] = t->logits[i];
	t->run->work_unit = dfx_graph_flops(net->graph) * (double) data->n;
	st = run_infer(t->run, "test", g, data, out, err);
	t->run->work_done += t->run->work_unit;
	dfx_graph_free(g);
	return st;
}

/* A Base Model's were computed with its features. */
static DfxStatus
test_base(Test *t, int i, const DfxData *rows, DfxErr *err)
{
	const float *from = t->run->base_logits[i];

	if (!from)
		return DFX_OK;
	t->logits[i] = test_room(t, &t->run->net[i], err);
	if (!t->logits[i])
		return err->code;
	for (size_t k = 0; k < rows->n; k++)
		memcpy(t->logits[i] + 2 * k, from + 2 * (size_t) rows->sample[k], 2 * sizeof *from);
	return DFX_OK;
}

/* The head's rows of the test split are in the order of t->data: both are in that of sha256. */
static DfxStatus
test_logits(Test *t, DfxErr *err)
{
	DfxRun *run = t->run;
	DfxData rows = {0};
	bool head = run->net[run->nnet - 1].task == RUN_HEAD;
	DfxStatus st = head ? run_head_data(run, DFX_SPLIT_TEST, &rows, err) : DFX_OK;

	for (int i = 0; i < run->nnet && st == DFX_OK; i++)
	{
		if (head && run->net[i].task == RUN_BASE)
			st = test_base(t, i, &rows, err);
		else
			st = test_infer(t, i, head ? &rows : &t->data, err);
	}
	dfx_data_free(&rows);
	return st;
}

/* --- verdicts ------------------------------------------------------------ */

/* Softmax of class c. */
static double
test_probability(const float *x, int n, int c)
{
	double sum = 0;

	for (int i = 0; i < n; i++)
		sum += exp((double) x[i] - x[c]);
	return 1 / sum;
}

/* A network's logits of test image i; NULL: there is none of the task. */
static const float *
test_of(const Test *t, RunTask task, size_t i)
{
	for (int k = 0; k < t->run->nnet; k++)
		if (t->run->net[k].task == task && t->logits[k])
			return t->logits[k] + i * (size_t) t->run->net[k].nclass;
	return NULL;
}

/* As engine/verdict.h does it: a hierarchy says dm or gan only of what it holds for synthetic. */
static void
test_verdict(Test *t, size_t i)
{
	const float *three = test_of(t, RUN_HEAD, i), *ai = test_of(t, RUN_BINARY, i),
	            *type = test_of(t, RUN_TYPE, i);

	three = three ? three : test_of(t, RUN_THREE, i);
	t->three[i] = -1;
	t->score[i] = NAN;
	if (three)
	{
		t->three[i] = dfx_argmax(three, DFX_TRAIN_CLASSES);
		t->score[i] = (float) (1 - test_probability(three, DFX_TRAIN_CLASSES, 2));
	}
	else if (ai)
	{
		t->score[i] = (float) test_probability(ai, 2, 0);
		if (type)
			t->three[i] = ai[1] >= ai[0] ? 2 : dfx_argmax(type, 2);
	}
}

/* Synthetic is 0, real 1; a three-class verdict of dm or gan counts as synthetic. */
static int
test_binary(const Test *t, size_t i)
{
	return t->three[i] >= 0 ? t->three[i] == 2 : !(t->score[i] > 0.5f);
}

/* --- figures ------------------------------------------------------------- */

typedef struct TestNames
{
	const DfxRun *run;
	const RunNet *net;
} TestNames;

static const char *
test_net_name(const void *arg, int i)
{
	const TestNames *n = arg;

	return run_class_name(n->run, n->net, i);
}

static const char *
test_binary_name(const void *arg, int i)
{
	(void) arg;
	return i == 0 ? "synthetic" : "real";
}

static const char *
test_three_name(const void *arg, int i)
{
	(void) arg;
	return dfx_train_class[i];
}

static void
test_network(const Test *t, FILE *f, int i)
{
	const RunNet *net = &t->run->net[i];
	RunWanted w = {net, DFX_SPLIT_TEST};
	TestNames names = {t->run, net};
	DfxConfusion c = {.nclass = net->nclass};

	for (size_t k = 0; k < t->data.n; k++)
	{
		int truth = run_label(&t->run->samples->sample[t->data.sample[k]], &w);

		if (truth >= 0)
			c.n[truth][dfx_argmax(t->logits[i] + k * (size_t) net->nclass, net->nclass)]++;
	}
	dfx_json_string(f, net->scope);
	fputs(": ", f);
	dfx_report_figures(f, &c, test_net_name, &names);
	fputc('}', f);
}

static DfxStatus
test_auc(const Test *t, FILE *f, const bool *kept, DfxErr *err)
{
	float *score = malloc((t->data.n + 1) * sizeof *score);
	uint8_t *positive = malloc(t->data.n + 1);
	size_t n = 0;

	if (!score || !positive)
	{
		free(score);
		free(positive);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %zu scores", t->data.n);
	}
	for (size_t i = 0; i < t->data.n; i++)
		if (kept[i])
		{
			score[n] = t->score[i];
			positive[n++] = t->data.label[i] != 2;
		}
	fputs(", ", f);
	dfx_report_estimate(f, "auc", dfx_auc(score, positive, n));
	free(score);
	free(positive);
	return DFX_OK;
}

/* Which test images remain when the classes are made equal. */
static DfxStatus
test_balance(const Test *t, bool *kept, DfxErr *err)
{
	size_t n = t->data.n, k = 0;
	uint32_t *list = malloc((n + 1) * sizeof *list);
	DfxStatus st;

	if (!list)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a list of %zu samples", n);
	memcpy(list, t->data.sample, n * sizeof *list);
	st = dfx_samples_balance(t->run->samples, t->run->config->seed, list, &n, err);
	for (size_t i = 0; i < t->data.n && st == DFX_OK; i++)
	{
		kept[i] = k < n && list[k] == t->data.sample[i];
		k += kept[i];
	}
	free(list);
	return st;
}

/* Tables 2 and 3, on balanced classes. */
static DfxStatus
test_tables(const Test *t, FILE *f, DfxErr *err)
{
	bool *kept = calloc(t->data.n + 1, sizeof *kept), three = true;
	DfxConfusion c3 = {.nclass = DFX_TRAIN_CLASSES}, c2 = {.nclass = 2};
	DfxStatus st = kept ? test_balance(t, kept, err)
	                    : dfx_fail(err, DFX_ENOMEM, "out of memory for %zu images", t->data.n);

	for (size_t i = 0; i < t->data.n && st == DFX_OK; i++)
	{
		three = three && t->three[i] >= 0;
		if (!kept[i])
			continue;
		if (t->three[i] >= 0)
			c3.n[t->data.label[i]][t->three[i]]++;
		c2.n[t->data.label[i] == 2][test_binary(t, i)]++;
	}
	if (st == DFX_OK && three)
	{
		fputs(", \"three\": ", f);
		dfx_report_figures(f, &c3, test_three_name, NULL);
		fputc('}', f);
	}
	if (st == DFX_OK)
	{
		fputs(", \"binary\": ", f);
		dfx_report_figures(f, &c2, test_binary_name, NULL);
		st = test_auc(t, f, kept, err);
		fputc('}', f);
	}
	free(kept);
	return st;
}

/* Share of one generator's test images that were told right. */
static void
test_generator(const Test *t, FILE *f, int generator, bool *first)
{
	DfxConfusion three = {.nclass = 2}, binary = {.nclass = 2};
	bool told = true;

	for (size_t i = 0; i < t->data.n; i++)
	{
		if (t->run->samples->sample[t->data.sample[i]].given.generator != generator)
			continue;
		told = told && t->three[i] >= 0;
		three.n[0][t->three[i] != t->data.label[i]]++;
		binary.n[0][test_binary(t, i) != (t->data.label[i] == 2)]++;
	}
	if (dfx_confusion_total(&binary) == 0)
		return;
	fputs(*first ? "" : ", ", f);
	*first = false;
	dfx_json_string(f, t->run->config->generator[generator]);
	fprintf(f, ": {\"n\": %" PRIu64 ", ", dfx_confusion_total(&binary));
	if (told)
	{
		dfx_report_estimate(f, "three", dfx_accuracy(&three));
		fputs(", ", f);
	}
	dfx_report_estimate(f, "binary", dfx_accuracy(&binary));
	fputc('}', f);
}

static void
test_training(const DfxRun *run, FILE *f)
{
	bool first = true;

	fputs(", \"training\": {", f);
	for (int i = 0; i < run->nnet; i++)
	{
		const RunNet *net = &run->net[i];

		if (net->best_epoch == 0)
			continue;
		fputs(first ? "" : ", ", f);
		first = false;
		dfx_json_string(f, net->scope);
		fprintf(f,
		        ": {\"train\": %zu, \"validation\": %zu, \"best_epoch\": %" PRIu64
		        ", \"validation_loss\": %.9g}",
		        run_count(run, net, run_train_split(net)), run_count(run, net, run_val_split(net)),
		        net->best_epoch, net->best_loss);
	}
	fputc('}', f);
}

static DfxStatus
test_write(const Test *t, FILE *f, DfxErr *err)
{
	size_t n[DFX_TRAIN_CLASSES] = {0};
	bool first = true;
	DfxStatus st = DFX_OK;

	for (size_t i = 0; i < t->data.n; i++)
		n[t->data.label[i]]++;
	fprintf(f, "{\"test\": {\"dm\": %zu, \"gan\": %zu, \"real\": %zu}", n[0], n[1], n[2]);
	test_training(t->run, f);
	fputs(", \"networks\": {", f);
	for (int i = 0; i < t->run->nnet; i++)
		if (t->logits[i])
		{
			fputs(first ? "" : ", ", f);
			first = false;
			test_network(t, f, i);
		}
	fputc('}', f);
	if (t->run->config->recipe != DFX_RECIPE_BASE)
	{
		st = test_tables(t, f, err);
		fputs(", \"generators\": {", f);
		first = true;
		for (int i = 0; i < t->run->config->ngenerator; i++)
			test_generator(t, f, i, &first);
		fputc('}', f);
	}
	fputc('}', f);
	return st;
}

static DfxStatus
test_report(Test *t, DfxErr *err)
{
	DfxRun *run = t->run;
	size_t len = 0;
	FILE *f = open_memstream(&run->metrics, &len);
	DfxStatus st;

	if (!f)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for the figures");
	st = test_write(t, f, err);
	if (fclose(f) != 0 && st == DFX_OK)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for the figures");
	if (st == DFX_OK && len > TEST_JSON_MAX)
		st = dfx_fail(err, DFX_ELIMIT, "the figures take %zu bytes, at most %u", len, TEST_JSON_MAX);
	return st;
}

DfxStatus
run_test(DfxRun *run, DfxErr *err)
{
	Test t = {.run = run};
	DfxStatus st =
	    dfx_data_images(&t.data, run->samples, (uint32_t) run->backbone->input_size, test_class, NULL, err);

	t.three = malloc((t.data.n + 1) * sizeof *t.three);
	t.score = malloc((t.data.n + 1) * sizeof *t.score);
	if (st == DFX_OK && (!t.three || !t.score))
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for %zu verdicts", t.data.n);
	if (st == DFX_OK)
		st = test_logits(&t, err);
	for (size_t i = 0; st == DFX_OK && i < t.data.n; i++)
		test_verdict(&t, i);
	if (st == DFX_OK)
		st = test_report(&t, err);
	for (int i = 0; i < run->nnet; i++)
		free(t.logits[i]);
	free(t.three);
	free(t.score);
	dfx_data_free(&t.data);
	return st;
}
