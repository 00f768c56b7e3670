/*
 * report.h
 *	  The figures of a finished run on its test split, as JSON: what the raw
 *	  columns of the paper's tables 1 to 3 say.
 *
 *	{
 *	  "test": {"dm": n, "gan": n, "real": n},		images of the test split
 *	  "training": {<network>: {"train": n, "validation": n, "best_epoch": n, "validation_loss": x}},
 *	  "networks": {<network>: FIGURES},				each alone, on the whole test split (table 1)
 *	  "three": FIGURES,								dm, gan, real, classes balanced (table 2)
 *	  "binary": FIGURES with "auc",					synthetic, real, the same images (table 3)
 *	  "generators": {<name>: {"n": n, "three": ESTIMATE, "binary": ESTIMATE}}
 *	}
 *	FIGURES		{"n", "accuracy", "balanced_accuracy", "macro_precision", "macro_f1",
 *				 "classes": {<name>: {"n", "recall", "precision", "f1"}},
 *				 "confusion": [[n, ...], ...]}	rows are the truth; not of over 32 classes
 *	ESTIMATE	{"value": x, "low": x, "high": x}	with its 95 % interval; null: not defined
 *
 * All figures but the counts are ESTIMATEs.  "three" is left out for models
 * that do not tell the three classes apart, "binary" for a Base Model.
 * Generators are counted on the whole test split; "real" is a generator like
 * others where the samples name one.
 */
#ifndef DFX_TRAIN_REPORT_H
#define DFX_TRAIN_REPORT_H

#include <stdio.h>

#include "base/metrics.h"

/* A name of class i. */
typedef const char *(*DfxReportName)(const void *arg, int i);

/* The FIGURES object, up to but without its closing brace. */
extern void dfx_report_figures(FILE *f, const DfxConfusion *c, DfxReportName name, const void *arg);

/* "key": ESTIMATE */
extern void dfx_report_estimate(FILE *f, const char *key, DfxEstimate e);

#endif /* DFX_TRAIN_REPORT_H */
