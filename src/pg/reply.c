/*
 * reply.c
 *	  Reading what the engine wrote, and raising what it reported.
 *
 * The engine parses hostile images, so its answers are treated as hostile:
 * each word is read once (it may change under our eyes), lengths are held
 * against what was reserved, and text is reduced to printable ASCII, which is
 * valid in every server encoding.
 */
#include "postgres.h"

#include "pg/reply.h"
#include "pg/shmem.h"

/* Copy text of at most from_size bytes, perhaps without a NUL, into to; always ends it with one. */
void
dfx_clean_text(char *to, Size to_size, const char *from, Size from_size)
{
	Size		n;

	for (n = 0; n < from_size && n < to_size - 1; n++)
	{
		char		c = ((const volatile char *) from)[n];

		if (c == '\0')
			break;
		if (c == '\n' || c == '\t')
			c = ' ';
		to[n] = (c >= ' ' && c <= '~') ? c : '?';
	}
	to[n] = '\0';
}

static void
reply_refuse(DfxReply *reply, const char *why)
{
	reply->status = DFX_EINTERNAL;
	reply->len = 0;
	strlcpy(reply->msg, why, sizeof(reply->msg));
	reply->hint[0] = '\0';
}

/* The number of the engine that has answered; 0 if it cannot be. */
static int
reply_engine(const volatile DfxSlot *words)
{
	int			by = (int) dfx_picked_by(words->picked, words->done_gen);

	return by > 0 && by <= dfx_nengines() ? by - 1 : 0;
}

/*
 * Copy the answer in a slot that is done.  With DFX_TOO_SMALL len is what the
 * engine needs and data is NULL; with DFX_EWEIGHTS data is text, not cleaned.  An answer that cannot be right becomes
 * DFX_EINTERNAL.  data is palloc'd: this may raise out-of-memory.
 */
void
dfx_reply_read(int slot, uint64 reply_off, Size reply_cap, DfxReply *reply)
{
	const volatile DfxSlot *words = dfx_ring_words(slot);
	uint32		status = words->status;
	uint64		len = words->reply_len;

	reply->batch = words->batch;
	reply->engine = reply_engine(words);
	reply->len = 0;
	reply->data = NULL;
	dfx_clean_text(reply->msg, sizeof(reply->msg), (const char *) words->msg, DFX_MSG_LEN);
	dfx_clean_text(reply->hint, sizeof(reply->hint), (const char *) words->hint, DFX_HINT_LEN);

	if (status >= DFX_STATUS_COUNT)
		reply_refuse(reply, "the engine answered with an unknown status");
	else if (status == DFX_ECANCELED)
		reply_refuse(reply, "the engine canceled a request that nobody had canceled");
	else if (status == DFX_OK && len > reply_cap)
		reply_refuse(reply, "the engine's answer is longer than its room");
	else
	{
		reply->status = (DfxStatus) status;
		if (status == DFX_TOO_SMALL)
			reply->len = len;
		else if ((status == DFX_OK || status == DFX_EWEIGHTS) && len > 0 && len <= reply_cap)
		{
			reply->data = palloc(len);
			reply->len = len;
			memcpy(reply->data, (char *) dfx_ring + reply_off, len);
		}
	}
}

/* Raise 57P03. */
void
dfx_unavailable(const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("the deepfeaturex engine is not available"),
			 reason[0] ? errdetail("%s", reason) : 0));
}

void
dfx_reply_raise(const DfxReply *reply)
{
	const char *state = dfx_sqlstate(reply->status);

	if (reply->status == DFX_OK)
		return;
	if (reply->status == DFX_EUNAVAILABLE)
		dfx_unavailable(reply->msg);
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
			 errmsg("%s", reply->msg[0] ? reply->msg : "the deepfeaturex engine gave no reason"),
			 reply->hint[0] ? errhint("%s", reply->hint) : 0));
}
