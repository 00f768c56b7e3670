/*
 * loss.c
 *	  Cross entropy in double: it is nothing next to the network, and sums over a
 *	  whole set stay exact enough to compare epochs by.
 */
#include "train/loss.h"

#include <math.h>

/* log sum exp of the row, without overflow. */
static double
loss_log_sum(const float *x, int n)
{
	double top = x[0], sum = 0;

	for (int i = 1; i < n; i++)
		top = fmax(top, x[i]);
	for (int i = 0; i < n; i++)
		sum += exp(x[i] - top);
	return top + log(sum);
}

int
dfx_argmax(const float *x, int n)
{
	int best = 0;

	for (int i = 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

void
dfx_loss(const float *logits, const uint8_t *label, size_t n, int nclass, const double *weight,
         float *gradient, DfxLossSum *sum)
{
	double batch = 0;

	for (size_t i = 0; i < n; i++)
		batch += weight ? weight[label[i]] : 1;
	for (size_t i = 0; i < n; i++)
	{
		const float *x = logits + i * (size_t) nclass;
		double log_sum = loss_log_sum(x, nclass), w = weight ? weight[label[i]] : 1;

		sum->loss += w * (log_sum - x[label[i]]);
		sum->weight += w;
		sum->correct += dfx_argmax(x, nclass) == label[i];
		sum->n++;
		for (int c = 0; gradient && c < nclass; c++)
		{
			double p = exp(x[c] - log_sum) - (c == label[i]);

			gradient[i * (size_t) nclass + (size_t) c] = batch > 0 ? (float) (p * w / batch) : 0;
		}
	}
}

double
dfx_loss_mean(const DfxLossSum *sum)
{
	return sum->weight > 0 ? sum->loss / sum->weight : NAN;
}

double
dfx_loss_accuracy(const DfxLossSum *sum)
{
	return sum->n > 0 ? (double) sum->correct / (double) sum->n : NAN;
}

void
dfx_loss_weights(const uint8_t *label, size_t n, int nclass, double *weight)
{
	for (int c = 0; c < nclass; c++)
		weight[c] = 0;
	for (size_t i = 0; i < n; i++)
		weight[label[i]]++;
	for (int c = 0; c < nclass; c++)
		weight[c] = weight[c] > 0 ? 1 / weight[c] : 0;
}
