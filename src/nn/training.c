/*
 * training.c
 *	  What the backends' training halves have in common (training.h).
 */
#include "nn/training.h"

#include <math.h>

#include "nn/graph_priv.h"

bool
dfx_graph_is_raw(const DfxGraph *g)
{
	for (int i = 0; i < g->nop; i++)
	{
		const DfxOp *op = &g->op[i];

		if (!dfx_op_plain(op) || op->placed || op->kind == DFX_OP_AFFINE ||
		    (op->kind == DFX_OP_BN && op->nin != 1))
			return false;
	}
	for (int v = 0; v < g->nval; v++)
		if (g->val[v].def < 0)
			return false;
	return true;
}

static void
training_place(const DfxGraph *g, bool trained, size_t pad, size_t *off, size_t *len, bool *is_trained,
               size_t *at)
{
	for (int i = 0; i < g->nparam; i++)
	{
		is_trained[i] = dfx_param_trained(&g->param[i]);
		if (is_trained[i] != trained)
			continue;
		off[i] = *at;
		len[i] = dfx_param_count(&g->param[i]);
		*at += (len[i] + pad - 1) / pad * pad;
	}
}

void
dfx_params_place(const DfxGraph *g, size_t pad, size_t *off, size_t *len, bool *is_trained, size_t *trained,
                 size_t *floats)
{
	*trained = 0;
	training_place(g, true, pad, off, len, is_trained, trained);
	*floats = *trained;
	training_place(g, false, pad, off, len, is_trained, floats);
}

DfxStatus
dfx_params_check_state(DfxState what, const bool *is_trained, int n, const float *const *data, DfxErr *err)
{
	if ((int) what < 0 || what >= DFX_STATE_COUNT)
		return dfx_fail(err, DFX_EINVAL, "parameters have no state %d", (int) what);
	for (int i = 0; i < n; i++)
		if (data[i] && what != DFX_STATE_VALUE && !is_trained[i])
			return dfx_fail(err, DFX_EINVAL,
			                "parameter %d is not trained: it has neither gradient nor moments", i);
	return DFX_OK;
}

DfxStatus
dfx_adam_scalars(const DfxAdam *a, DfxAdamScalars *s, DfxErr *err)
{
	if (a->step < 1 || !(a->lr >= 0) || !(a->eps >= 0) || !(a->beta1 >= 0 && a->beta1 < 1) ||
	    !(a->beta2 >= 0 && a->beta2 < 1) || !(a->weight_decay >= 0))
		return dfx_fail(err, DFX_EINVAL,
		                "Adam cannot take step %llu with lr %g, betas %g and %g, eps %g, weight decay %g",
		                (unsigned long long) a->step, a->lr, a->beta1, a->beta2, a->eps, a->weight_decay);
	*s = (DfxAdamScalars){.decay = (float) a->weight_decay,
	                      .beta1 = (float) a->beta1,
	                      .beta2 = (float) a->beta2,
	                      .rest1 = (float) (1 - a->beta1),
	                      .rest2 = (float) (1 - a->beta2),
	                      .step = (float) -(a->lr / (1 - pow(a->beta1, (double) a->step))),
	                      .root = (float) sqrt(1 - pow(a->beta2, (double) a->step)),
	                      .eps = (float) a->eps};
	return DFX_OK;
}
