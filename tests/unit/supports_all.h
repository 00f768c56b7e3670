/*
 * supports_all.h
 *	  A backend, for dfx_graph_optimize(), that takes every epilogue.
 */
#ifndef DFX_TEST_SUPPORTS_ALL_H
#define DFX_TEST_SUPPORTS_ALL_H

#include "nn/nn.h"

static bool
supports_all(void *arg, const DfxGraph *g, const DfxOp *op)
{
	(void) arg;
	(void) g;
	(void) op;
	return true;
}

#endif /* DFX_TEST_SUPPORTS_ALL_H */
