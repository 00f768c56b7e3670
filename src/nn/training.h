/*
 * training.h
 *	  What the backends' training halves have in common.
 */
#ifndef DFX_NN_TRAINING_H
#define DFX_NN_TRAINING_H

#include "nn/backend.h"

/* Whether the ops are as the builders leave them: none was optimised away, none has an epilogue. */
extern bool dfx_graph_is_raw(const DfxGraph *g);

/*
 * Places of all parameters in one array of floats: the trained ones first,
 * then the running statistics, each padded to a multiple of pad floats.
 * *trained: where the second part begins; *floats: where it ends.
 */
extern void dfx_params_place(const DfxGraph *g, size_t pad, size_t *off, size_t *len, bool *is_trained,
                             size_t *trained, size_t *floats);

/* DFX_EINVAL unless all of n parameters that data asks for have that state: those not trained have a value
 * only. */
extern DfxStatus
dfx_params_check_state(DfxState what, const bool *is_trained, int n, const float *const *data, DfxErr *err);

/*
 * One step's scalars as torch.optim.Adam rounds them, once to float where they
 * meet a tensor.  With d = grad + decay * value:
 *	m = beta1 * m + rest1 * d, v = beta2 * v + rest2 * d * d
 *	value += step * m / (sqrt(v) / root + eps)
 */
typedef struct DfxAdamScalars
{
	float decay, beta1, beta2, rest1, rest2;
	float step; /* -lr / (1 - beta1 ^ t) */
	float root; /* sqrt(1 - beta2 ^ t) */
	float eps;
} DfxAdamScalars;

/* DFX_EINVAL names what is out of its domain. */
extern DfxStatus dfx_adam_scalars(const DfxAdam *a, DfxAdamScalars *s, DfxErr *err);

#endif /* DFX_NN_TRAINING_H */
