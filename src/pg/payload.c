/*
 * payload.c
 *	  The bytes of a request, from wherever they are into the ring.
 *
 * Large images lie outside of their rows as some thousand chunks, which
 * detoasting would put together in memory, to be copied from there.  Photographs
 * do not get smaller by compression, so nearly always the chunks are the image:
 * they are copied straight to where the engine will read them.  Everything
 * else is detoasted first: compressed values, indirect and expanded ones.
 *
 * Chunks are read while the backend owns a slot, for which others may be in
 * line.  So that it cannot wait for them in turn, no lock is waited for in
 * between: dfx_payload_open() takes those of the toast table and its indexes
 * before the slot is claimed.  An error half-way, or a cancel, leaves a slot
 * that was never submitted; its ResourceOwner gives it back.
 *
 * heap_fetch_toast_slice() reads under the snapshot that detoasting would use,
 * and says the same about chunks that are missing or wrong.  It has no check
 * for interrupts, so a value is read in slices.
 */
#include "postgres.h"

#include "access/heaptoast.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/toast_internals.h"
#include "catalog/pg_am.h"
#include "miscadmin.h"
#include "utils/rel.h"

#include "pg/compat.h"
#include "pg/payload.h"

/* About 1 MB between two checks for interrupts; whole chunks, so that none is read twice. */
#define PAYLOAD_SLICE ((Size) 512 * TOAST_MAX_CHUNK_SIZE)

/*
 * Are the chunks of this value its bytes, and in a table that we know how to
 * read?  Then open it.
 */
static bool
payload_open_chunks(DfxPayload *p, struct varlena *value)
{
	if (!VARATT_IS_EXTERNAL_ONDISK(value))
		return false;
	VARATT_EXTERNAL_GET_POINTER(p->pointer, value);
	if (VARATT_EXTERNAL_IS_COMPRESSED(p->pointer) || VARATT_EXTERNAL_GET_EXTSIZE(p->pointer) != p->len)
		return false;
	p->toast = table_open(p->pointer.va_toastrelid, AccessShareLock);
	if (p->toast->rd_rel->relam != HEAP_TABLE_AM_OID)
	{
		table_close(p->toast, AccessShareLock);
		return false;
	}
	(void) toast_open_indexes(p->toast, AccessShareLock, &p->index, &p->nindex);
	return true;
}

void
dfx_payload_open(DfxPayload *p, const DfxCall *call)
{
	struct varlena *value = (struct varlena *) DatumGetPointer(call->image);

	memset(p, 0, sizeof(*p));
	p->len = call->len;
	p->data = call->data;
	if (value == NULL || payload_open_chunks(p, value))
		return;
	p->detoasted = PG_DETOAST_DATUM_PACKED(call->image);
	if (VARSIZE_ANY_EXHDR(p->detoasted) != p->len)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("an image has %zu bytes instead of the %zu that its header says",
						(Size) VARSIZE_ANY_EXHDR(p->detoasted), p->len)));
	p->data = VARDATA_ANY(p->detoasted);
	if (p->detoasted == value)
		p->detoasted = NULL;	/* the caller's */
}

void
dfx_payload_copy(const DfxPayload *p, char *to)
{
	Size		n;

	if (p->data != NULL)
	{
		memcpy(to, p->data, p->len);
		return;
	}
	for (Size done = 0; done < p->len; done += n)
	{
		n = Min(p->len - done, PAYLOAD_SLICE);
		CHECK_FOR_INTERRUPTS();
		/* Bytes go behind a varlena's header, which the caller would write: nobody touches what is before to. */
		table_relation_fetch_toast_slice(p->toast, p->pointer.va_valueid, p->len, done, n,
										 (struct varlena *) (to + done - VARHDRSZ));
	}
}

void
dfx_payload_close(DfxPayload *p)
{
	if (p->detoasted != NULL)
		pfree(p->detoasted);
	if (p->toast == NULL)
		return;
	toast_close_indexes(p->index, p->nindex, AccessShareLock);
	table_close(p->toast, AccessShareLock);
}
