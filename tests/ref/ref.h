/*
 * ref.h
 *	  The oracle: a backend in plain loops, against which every other one is
 *	  tested.
 *
 * One image at a time, one buffer a value, every op by its definition, sums in
 * double, stored as float.  Slow on purpose: nothing here may be clever enough
 * to be wrong.  It executes every op with any epilogue, so raw and optimised
 * graphs both run; placement is ignored, a placed CONCAT copies.  Itself it is
 * proven against PyTorch by tests/unit/test_ref_ops.c.
 */
#ifndef DFX_TESTS_REF_H
#define DFX_TESTS_REF_H

#include "nn/backend.h"

extern const DfxBackend dfx_ref_backend;

/*
 * ref_ops.c: run op i of g without its epilogue.  data[v] is the buffer of
 * value v; input the caller's image.
 */
extern void ref_run(const DfxGraph *g, const DfxOp *op, float *const *data, const void *input);

/* The epilogue: out = scale * act(out + add) + shift. */
extern void ref_epilogue(const DfxGraph *g, const DfxOp *op, float *const *data);

#endif /* DFX_TESTS_REF_H */
