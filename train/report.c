/*
 * report.c
 *	  Figures as JSON.
 */
#include "train/report.h"

#include <inttypes.h>
#include <math.h>

#include "base/json.h"

#define REPORT_CONFUSION 32 /* classes; the figures must fit DFX_TRAIN_TEXT whatever the run */

void
dfx_report_estimate(FILE *f, const char *key, DfxEstimate e)
{
	dfx_json_string(f, key);
	if (isfinite(e.value) && isfinite(e.low) && isfinite(e.high))
		fprintf(f, ": {\"value\": %.6g, \"low\": %.6g, \"high\": %.6g}", e.value, e.low, e.high);
	else
		fputs(": null", f);
}

static uint64_t
report_row(const DfxConfusion *c, int truth)
{
	uint64_t n = 0;

	for (int i = 0; i < c->nclass; i++)
		n += c->n[truth][i];
	return n;
}

static void
report_class(FILE *f, const DfxConfusion *c, int i, const char *name)
{
	dfx_json_string(f, name);
	fprintf(f, ": {\"n\": %" PRIu64 ", ", report_row(c, i));
	dfx_report_estimate(f, "recall", dfx_recall(c, i));
	fputs(", ", f);
	dfx_report_estimate(f, "precision", dfx_precision(c, i));
	fputs(", ", f);
	dfx_report_estimate(f, "f1", dfx_f1(c, i));
	fputc('}', f);
}

static void
report_confusion(FILE *f, const DfxConfusion *c)
{
	fputs(", \"confusion\": [", f);
	for (int i = 0; i < c->nclass; i++)
	{
		fputs(i > 0 ? ", [" : "[", f);
		for (int k = 0; k < c->nclass; k++)
			fprintf(f, "%s%" PRIu64, k > 0 ? ", " : "", c->n[i][k]);
		fputc(']', f);
	}
	fputc(']', f);
}

void
dfx_report_figures(FILE *f, const DfxConfusion *c, DfxReportName name, const void *arg)
{
	const struct
	{
		const char *key;
		DfxEstimate e;
	} figure[] = {
	    {"accuracy", dfx_accuracy(c)},
	    {"balanced_accuracy", dfx_balanced_accuracy(c)},
	    {"macro_precision", dfx_macro_precision(c)},
	    {"macro_f1", dfx_macro_f1(c)},
	};

	fprintf(f, "{\"n\": %" PRIu64, dfx_confusion_total(c));
	for (size_t i = 0; i < sizeof figure / sizeof figure[0]; i++)
	{
		fputs(", ", f);
		dfx_report_estimate(f, figure[i].key, figure[i].e);
	}
	fputs(", \"classes\": {", f);
	for (int i = 0; i < c->nclass; i++)
	{
		fputs(i > 0 ? ", " : "", f);
		report_class(f, c, i, name(arg, i));
	}
	fputc('}', f);
	if (c->nclass <= REPORT_CONFUSION)
		report_confusion(f, c);
}
