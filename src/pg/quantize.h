/*
 * quantize.h
 *	  CALL dfx_quantize(): from a model to one that runs on 8-bit integers.
 *
 *	quantize.c			the procedure: rows, what it reports
 *	quantize_ask.c		questions about many images, many in flight
 *	quantize_store.c	the version that has the weights of the one and the scales besides
 */
#ifndef DFX_PG_QUANTIZE_H
#define DFX_PG_QUANTIZE_H

#include "postgres.h"

#include "pg/eval.h"

/* A convolution's input, calibrated. */
typedef struct DfxScale
{
	char		name[DFX_NAME_LEN];
	float		largest;		/* of all images */
	float		step;
} DfxScale;

/* ---- quantize_ask.c ---- */

/* The answer about row i; called in the order of the rows. */
typedef void (*DfxAnswer) (void *arg, int i, const DfxReply *reply);

/* Ask op of each of the rows, in that precision; raises what is wrong with an answer. */
extern void dfx_quantize_ask(DfxEvalRow *row, int nrow, DfxRingOp op, const char *precision, const DfxModelRef *model,
							 DfxAnswer answer, void *arg);

/* ---- quantize_store.c ---- */

/*
 * Store the weights of model with these scales, in byte order of their names,
 * in place of any that it has; name stands for that version from then on.  A
 * new name gets that owner.  False when the version was there before.
 */
extern bool dfx_quantize_store(const DfxModelRef *model, const DfxScale *scale, int nscale, const char *name,
							   const char *owner, uint8 *version);

#endif							/* DFX_PG_QUANTIZE_H */
