/*
 * graph_priv.h
 *	  What the files of src/nn share about a graph and nobody else sees:
 *	  storage, the sticky error, and what the passes need.
 */
#ifndef DFX_NN_GRAPH_PRIV_H
#define DFX_NN_GRAPH_PRIV_H

#include "nn/nn.h"

/* A block of the arena that holds the ops' input lists; lists never move and are freed with the graph. */
typedef struct GraphBlock
{
	struct GraphBlock *next;
	int used, cap;
	DfxVal list[];
} GraphBlock;

struct DfxGraphPriv
{
	int cap_op, cap_val, cap_param;
	GraphBlock *block;
	char scope[DFX_NAME_LEN];
	bool optimized; /* dfx_graph_optimize has run; it runs once */
};

/* Keep the first failure.  The message starts with scope and name, so that it says where in the network. */
extern void dfx_graph_fail(DfxGraph *g, DfxStatus code, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* True when x is a value of g and nothing has failed; a wrong x becomes the sticky error. */
extern bool dfx_graph_has(DfxGraph *g, DfxVal x, const char *name);

/*
 * Append an op with a new value of c x h x w.  NULL after a failure.  The
 * pointer is good until the next op is appended.
 */
extern DfxOp *
dfx_graph_op(DfxGraph *g, DfxOpKind kind, const char *name, int c, int h, int w, const DfxVal *in, int nin);

/* Append a described parameter named scope.name.leaf (empty parts are left out); -1 after a failure. */
extern int
dfx_graph_param(DfxGraph *g, const char *name, const char *leaf, DfxRole role, int rank, const int *dim);

/* Room for n values in the graph's arena; NULL (and the sticky error) when memory is out. */
extern DfxVal *dfx_graph_list(DfxGraph *g, int n);

/* Recompute def and last_use of every value from the ops. */
extern void dfx_graph_relive(DfxGraph *g);

/* An op that carries no epilogue. */
static inline bool
dfx_op_plain(const DfxOp *op)
{
	return op->epi_add < 0 && op->epi_act == DFX_ACT_NONE && op->epi_scale < 0;
}

#endif /* DFX_NN_GRAPH_PRIV_H */
