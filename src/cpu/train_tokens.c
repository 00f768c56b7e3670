/*
 * train_tokens.c
 *	  Training steps of transformers: refused by name.
 */
#include "cpu/train.h"

DfxStatus
train_tokens_step(TrainBuild *b, const DfxOp *op, TrainStep *s, DfxErr *err)
{
	(void) b;
	(void) s;
	return dfx_fail(err, DFX_EUNSUPPORTED, "the CPU backend cannot train the operation %s",
	                dfx_op_info[op->kind].name);
}
