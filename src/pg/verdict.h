/*
 * verdict.h
 *	  One image, one request: what the SQL functions and triggers share.
 */
#ifndef DFX_PG_VERDICT_H
#define DFX_PG_VERDICT_H

#include "postgres.h"

#include "pg/model.h"
#include "pg/queue.h"

/*
 * Run op on an image datum (perhaps toasted; not NULL) with a model, or NULL
 * for an op that needs none.  Failures of the image itself, its size against
 * dfx.max_image_bytes included, come back in reply->status; all others raise
 * as in dfx_queue_call().
 */
extern void dfx_image_request(Datum image, DfxRingOp op, const DfxModelRef *model, DfxReply *reply);

/* The same, about the image after how (NULL: as it is) was done to it. */
extern void dfx_image_request_as(Datum image, DfxRingOp op, const DfxPerturbation *how, const DfxModelRef *model,
								 DfxReply *reply);

/* The same by a call that dfx_image_call() has made, and the caller has perhaps added to. */
extern void dfx_image_ask(const DfxCall *call, DfxReply *reply);

/* A reply that is a file, as a value of type bytea; raises what its status says. */
extern Datum dfx_image_datum(const DfxReply *reply);

/*
 * The call that dfx_image_request_as() makes; it refers to image.  False when
 * that, of call->len bytes once it is detoasted, is over dfx.max_image_bytes.
 */
extern bool dfx_image_call(Datum image, DfxRingOp op, const DfxPerturbation *how, const DfxModelRef *model,
						   DfxCall *call);

/* Is this status the image's own fault?  Then dfx_try_classify() gives NULL. */
extern bool dfx_image_at_fault(DfxStatus status);

/* A reply as a verdict; raises what its status says, and XX000 for numbers that cannot be. */
extern void dfx_verdict_parse(const DfxReply *reply, DfxVerdictReply *verdict);

/* A class (DFX_CLASS_*) by its name, -1 when there is none; and as a value of type dfx_class. */
extern int	dfx_class_find(const char *name);
extern Datum dfx_class_datum(uint32 label);

/* A verdict as a value of type dfx_verdict. */
extern Datum dfx_verdict_datum(const DfxVerdictReply *verdict, const DfxModelRef *model);

#endif							/* DFX_PG_VERDICT_H */
