/*
 * payload.h
 *	  The bytes of a request, from wherever they are into the ring.
 */
#ifndef DFX_PG_PAYLOAD_H
#define DFX_PG_PAYLOAD_H

#include "postgres.h"

#include "access/detoast.h"
#include "pg/queue.h"
#include "utils/relcache.h"

typedef struct DfxPayload
{
	Size		len;
	const char *data;			/* NULL: the bytes are in chunks of toast */
	struct varlena *detoasted;	/* what data points into, if it is to be freed */
	Relation	toast;			/* with the locks that reading it takes */
	Relation   *index;
	int			nindex;
	varatt_external pointer;
} DfxPayload;

/*
 * Find out where the bytes of call are, and take all locks that copying them
 * needs.  Raises what detoasting may raise, and XX001 for an image that has not
 * as many bytes as its header says.
 */
extern void dfx_payload_open(DfxPayload *p, const DfxCall *call);

/* Put them at to, which has room for p->len.  Raises what reading chunks may raise, and query cancel. */
extern void dfx_payload_copy(const DfxPayload *p, char *to);

/* After an error there is nothing to close: relations are the ResourceOwner's, memory its context's. */
extern void dfx_payload_close(DfxPayload *p);

#endif							/* DFX_PG_PAYLOAD_H */
