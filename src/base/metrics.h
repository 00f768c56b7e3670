/*
 * metrics.h
 *	  Figures of merit of a classifier, from counts and scores: what training
 *	  and dfx_evaluate() report.
 *
 * Each is an estimate from a sample, so each comes with a 95 % interval.  A
 * figure that is not defined (no image of the class) is NaN throughout.
 */
#ifndef DFX_BASE_METRICS_H
#define DFX_BASE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#define DFX_METRICS_CLASSES 64

/* n[truth][predicted] */
typedef struct DfxConfusion
{
	int nclass;
	uint64_t n[DFX_METRICS_CLASSES][DFX_METRICS_CLASSES];
} DfxConfusion;

typedef struct DfxEstimate
{
	double value, low, high;
} DfxEstimate;

extern uint64_t dfx_confusion_total(const DfxConfusion *c);

/* Shares of counts: Wilson's score interval (Wilson, JASA 1927). */
extern DfxEstimate dfx_accuracy(const DfxConfusion *c);
extern DfxEstimate dfx_recall(const DfxConfusion *c, int class);
extern DfxEstimate dfx_precision(const DfxConfusion *c, int class);

/* Harmonic mean of the two; interval by the delta method. */
extern DfxEstimate dfx_f1(const DfxConfusion *c, int class);

/* Means over the classes that occur; intervals from the sum of the classes' variances. */
extern DfxEstimate dfx_balanced_accuracy(const DfxConfusion *c);
extern DfxEstimate dfx_macro_precision(const DfxConfusion *c);
extern DfxEstimate dfx_macro_f1(const DfxConfusion *c);

/*
 * Area under the ROC curve of score against positive (0 or 1): the
 * probability that a positive scores higher than a negative, ties counted as
 * half (Mann and Whitney); interval by DeLong et al., Biometrics 1988.
 * Sorts both arrays by score.
 */
extern DfxEstimate dfx_auc(float *score, uint8_t *positive, size_t n);

/*
 * The mean of these areas over the classes that have images, each against the
 * rest: score[i * nclass + c] against class[i] == c.  NaN when all images are of
 * one class.  one and positive: room for n numbers each.
 */
extern DfxEstimate
dfx_macro_auc(const float *score, const uint8_t *class, size_t n, int nclass, float *one, uint8_t *positive);

#endif /* DFX_BASE_METRICS_H */
