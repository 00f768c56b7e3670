/*
 * loss.h
 *	  Weighted cross entropy, reduced as PyTorch's CrossEntropyLoss(weight) does.
 *
 *	loss = sum_i w[y_i] (log sum_c exp(x_ic) - x_iy_i) / sum_i w[y_i]
 *
 * over a batch for the gradient, over a whole set for validation (METHOD
 * "Complete model"; equation 1 of the paper gives the weights).
 */
#ifndef DFX_TRAIN_LOSS_H
#define DFX_TRAIN_LOSS_H

#include <stddef.h>
#include <stdint.h>

/* Sums over images, of which the figures are quotients. */
typedef struct DfxLossSum
{
	double loss, weight; /* weighted cross entropy; weights */
	uint64_t correct, n; /* the largest logit is the label's */
} DfxLossSum;

/*
 * Add n images (logits: n x nclass) to sum.  weight: of each class, NULL: all
 * 1.  gradient: n x nclass, of this batch's mean by the logits; NULL: not
 * wanted.  A batch whose weights are all 0 has gradient 0.
 */
extern void dfx_loss(const float *logits, const uint8_t *label, size_t n, int nclass, const double *weight,
                     float *gradient, DfxLossSum *sum);

/* The largest of n numbers: the first of equal ones. */
extern int dfx_argmax(const float *x, int n);

/* NaN without images. */
extern double dfx_loss_mean(const DfxLossSum *sum);
extern double dfx_loss_accuracy(const DfxLossSum *sum);

/*
 * 1 / images of each class (paper, equation 1), 0 for a class without any;
 * their scale is of no consequence.
 */
extern void dfx_loss_weights(const uint8_t *label, size_t n, int nclass, double *weight);

#endif /* DFX_TRAIN_LOSS_H */
