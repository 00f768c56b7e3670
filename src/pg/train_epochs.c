/*
 * train_epochs.c
 *	  While the engine trains: from GO to DONE.
 *
 * The session waits without a snapshot.  What the engine says of its progress
 * goes to shared memory; epochs wait for the checkpoint that covers them, and
 * both are committed together, so a run that is resumed goes on exactly behind
 * the last epoch in the table.  The engine trains on meanwhile.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "base/sha256.h"
#include "pg/reply.h"
#include "pg/train.h"

#define EPOCHS_PENDING 100		/* epochs without a checkpoint; the engine makes one for each */

/* ---- epochs ---- */

static void
epochs_pend(DfxTrainRun *run, const DfxTrainMessage *m)
{
	if (run->npending == EPOCHS_PENDING)
		dfx_train_broken("epoch after epoch without a checkpoint");
	if (!run->pending)
		run->pending = MemoryContextAlloc(run->context, EPOCHS_PENDING * sizeof(DfxTrainEpoch));
	memcpy(&run->pending[run->npending++], m->data, sizeof(DfxTrainEpoch));
}

static void
epochs_tell(const DfxTrainRun *run)
{
	for (int i = 0; i < run->npending; i++)
	{
		const DfxTrainEpoch *e = &run->pending[i];
		char		phase[DFX_TRAIN_PHASE];

		dfx_clean_text(phase, sizeof(phase), e->phase, sizeof(e->phase));
		ereport(NOTICE,
				(errmsg("run " INT64_FORMAT ", %s, epoch %u of %u: loss %.4f, validation %.4f%s, accuracy %.4f,"
						" %.1f images/s",
						run->id, phase, e->epoch, e->epochs, e->train_loss, e->val_loss, e->best ? " (best)" : "",
						e->val_accuracy, e->images_per_second)));
	}
}

/* ---- checkpoints ---- */

/* Its chunks, as they come, then the rows that they belong to; one transaction. */
static void
epochs_receive_checkpoint(DfxTrainRun *run, uint64 bytes)
{
	uint64		done = 0;
	uint8		hash[32];
	DfxSha256	sha;

	dfx_sha256_init(&sha);
	EnsurePortalSnapshotExists();
	dfx_train_run_checkpoint_begin(run);
	for (int32 i = 0; done < bytes; i++)
	{
		DfxTrainMessage m;

		dfx_train_expect(DFX_FRAME_BLOB_DATA, &m);
		if (m.len > bytes - done)
			dfx_train_broken("a checkpoint with more bytes than it has");
		dfx_sha256_update(&sha, m.data, m.len);
		dfx_train_run_checkpoint_chunk(run->id, i, m.data, m.len);
		done += m.len;
	}
	dfx_sha256_final(&sha, hash);
	dfx_train_run_epochs(run);
	dfx_train_run_checkpoint_end(run, bytes, hash);
	SPI_commit();
	dfx_train_send(DFX_FRAME_SAVED, NULL, 0, NULL, 0);
	epochs_tell(run);
	run->npending = 0;
	run->has_checkpoint = true;
}

static void
epochs_send_chunk(const char *data, Size len, void *arg)
{
	dfx_train_send(DFX_FRAME_BLOB_DATA, data, len, NULL, 0);
}

static void
epochs_send_checkpoint(const DfxTrainRun *run)
{
	DfxTrainBlob blob = {.kind = DFX_BLOB_CHECKPOINT};

	EnsurePortalSnapshotExists();
	blob.bytes = dfx_train_run_checkpoint_size(run->id);
	dfx_train_send(DFX_FRAME_BLOB, &blob, sizeof(blob), NULL, 0);
	dfx_train_run_checkpoint_read(run->id, epochs_send_chunk, NULL);
	SPI_commit();
}

/* ---- the end ---- */

/* JSON in UTF-8, which is checked like any text from outside. */
static void
epochs_metrics(DfxTrainRun *run, const DfxTrainMessage *m)
{
	MemoryContext old = MemoryContextSwitchTo(run->context);
	char	   *utf8 = pnstrdup(m->data, m->len);

	run->metrics = cstring_to_text(pg_any_to_server(utf8, strlen(utf8), PG_UTF8));
	MemoryContextSwitchTo(old);
}

/* Models come after all epochs, in the transaction that stores them. */
static void
epochs_blob(DfxTrainRun *run, const DfxTrainMessage *m)
{
	DfxTrainBlob blob;

	memcpy(&blob, m->data, sizeof(blob));
	if (blob.bytes == 0 || blob.bytes > PG_INT64_MAX)
		dfx_train_broken("a blob of no bytes");
	if (blob.kind == DFX_BLOB_CHECKPOINT && run->models == NIL)
		epochs_receive_checkpoint(run, blob.bytes);
	else if (blob.kind == DFX_BLOB_MODEL)
		dfx_train_result_receive(run, &blob);
	else
		dfx_train_broken("a blob at the wrong time");
}

static void
epochs_done(DfxTrainRun *run)
{
	EnsurePortalSnapshotExists();
	dfx_train_run_epochs(run);
	dfx_train_result_store(run);
	SPI_commit();
	epochs_tell(run);
}

/* What comes next; false after DONE. */
static bool
epochs_next(DfxTrainRun *run)
{
	DfxTrainMessage m;

	(void) dfx_train_receive(&m, true);
	switch (m.type)
	{
		case DFX_FRAME_PROGRESS:
			memcpy(&run->show.progress, m.data, sizeof(run->show.progress));
			dfx_train_live_show(&run->show);
			return true;
		case DFX_FRAME_EPOCH:
			epochs_pend(run, &m);
			return true;
		case DFX_FRAME_BLOB:
			epochs_blob(run, &m);
			return true;
		case DFX_FRAME_METRICS:
			epochs_metrics(run, &m);
			return true;
		case DFX_FRAME_DONE:
			return false;
		default:
			dfx_train_broken(psprintf("a frame of type %u at the wrong time", m.type));
	}
}

void
dfx_train_epochs(DfxTrainRun *run)
{
	MemoryContext each = AllocSetContextCreate(run->context, "dfx training frame", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	bool		more;

	if (run->has_checkpoint)
		epochs_send_checkpoint(run);
	dfx_train_send(DFX_FRAME_GO, NULL, 0, NULL, 0);
	do
	{
		MemoryContextSwitchTo(each);
		more = epochs_next(run);
		MemoryContextSwitchTo(old);
		MemoryContextReset(each);
	} while (more);
	epochs_done(run);
	MemoryContextDelete(each);
}
