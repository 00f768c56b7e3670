/*
 * ref.h
 *	  The oracle: a backend in plain loops, against which every other one is
 *	  tested.
 *
 * One buffer a value, every op by its definition, sums in double, stored as
 * float.  Slow on purpose: nothing here may be clever enough to be wrong.  It
 * executes every op with any epilogue, so raw and optimised graphs both run;
 * placement is ignored, a placed CONCAT copies.  It trains raw graphs: forward
 * keeps every value, backward works everything else out again from them.
 * Itself it is proven against PyTorch by tests/unit/test_ref_ops.c and
 * test_ref_grad.c.
 *
 *	ref_backend.c	plans and inference, image by image
 *	ref_ops.c		every op for one image
 *	ref_quant.c		plans on 8-bit integers
 *	ref_train.c		a training step, over the whole batch
 *	ref_grad.c		every op's gradient
 */
#ifndef DFX_TESTS_REF_H
#define DFX_TESTS_REF_H

#include "nn/backend.h"

extern const DfxBackend dfx_ref_backend;

#endif /* DFX_TESTS_REF_H */
