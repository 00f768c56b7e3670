/*
 * train_stored.c
 *	  A training run's checkpoint in the tables.
 *
 * Only one is kept.  It holds the best weights besides the last ones, and
 * takes the place of the one before in one transaction, so that there is
 * always a whole one.  Its bytes lie in rows as they came, checked against
 * their hash when they are read.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"

#include "base/sha256.h"
#include "pg/train.h"

void
dfx_train_run_checkpoint_begin(const DfxTrainRun *run)
{
	Oid			types[] = {INT8OID};
	Datum		id = Int64GetDatum(run->id);

	/* Whoever exports it holds this lock. */
	dfx_train_run_sql("SELECT FROM @extschema@.dfx_training_run WHERE id = $1 FOR UPDATE", 1, types, &id);
	dfx_train_run_sql("DELETE FROM @extschema@.dfx_checkpoint WHERE run = $1", 1, types, &id);
	dfx_train_run_sql("DELETE FROM @extschema@.dfx_checkpoint_chunk WHERE run = $1", 1, types, &id);
}

void
dfx_train_run_checkpoint_chunk(int64 run, int32 number, const char *data, Size len)
{
	Oid			types[] = {INT8OID, INT4OID, BYTEAOID};
	Datum		values[] = {Int64GetDatum(run), Int32GetDatum(number), dfx_store_bytea(data, len)};

	dfx_train_run_sql("INSERT INTO @extschema@.dfx_checkpoint_chunk (run, number, data) VALUES ($1, $2, $3)",
			lengthof(types), types, values);
	pfree(DatumGetPointer(values[2]));
}

void
dfx_train_run_checkpoint_end(const DfxTrainRun *run, uint64 bytes, const uint8 *sha256)
{
	Oid			types[] = {INT8OID, INT8OID, BYTEAOID, INT4OID};
	Datum		values[] = {
		Int64GetDatum(run->id), Int64GetDatum((int64) bytes), dfx_store_bytea(sha256, 32), Int32GetDatum(run->nepoch)
	};

	dfx_train_run_sql("INSERT INTO @extschema@.dfx_checkpoint (run, bytes, sha256, epochs) VALUES ($1, $2, $3, $4)",
			lengthof(types), types, values);
}

/* The checkpoint's length, and its hash if wanted. */
static uint64
stored_row(int64 run, uint8 *sha256)
{
	Oid			types[] = {INT8OID};
	Datum		id = Int64GetDatum(run);
	DfxStore	store;
	bytea	   *hash;
	int64		bytes;
	bool		isnull;

	dfx_store_begin(&store);
	if (dfx_store_sql("SELECT bytes, sha256 FROM @extschema@.dfx_checkpoint WHERE run = $1", 1, types, &id) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("training run " INT64_FORMAT " has no checkpoint", run)));
	bytes = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	hash = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	if (sha256)
		memcpy(sha256, VARDATA_ANY(hash), Min(VARSIZE_ANY_EXHDR(hash), 32));
	dfx_store_end(&store);
	return bytes;
}

uint64
dfx_train_run_checkpoint_size(int64 run)
{
	return stored_row(run, NULL);
}

/* Pass a chunk on; false when there is none of that number. */
static bool
stored_chunk_read(int64 run, int32 number, DfxSha256 *sha, uint64 *done, DfxTrainChunk each, void *arg)
{
	Oid			types[] = {INT8OID, INT4OID};
	Datum		values[] = {Int64GetDatum(run), Int32GetDatum(number)};
	DfxStore	store;
	bool		isnull,
				found;

	dfx_store_begin(&store);
	found = dfx_store_sql("SELECT data FROM @extschema@.dfx_checkpoint_chunk WHERE run = $1 AND number = $2",
						  lengthof(types), types, values) == 1;
	if (found)
	{
		bytea	   *data = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));

		dfx_sha256_update(sha, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
		*done += VARSIZE_ANY_EXHDR(data);
		each(VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), arg);
	}
	dfx_store_end(&store);
	return found;
}

void
dfx_train_run_checkpoint_read(int64 run, DfxTrainChunk each, void *arg)
{
	uint8		stored[32],
				hash[32];
	uint64		bytes = stored_row(run, stored);
	uint64		done = 0;
	DfxSha256	sha;

	dfx_sha256_init(&sha);
	for (int32 i = 0; done < bytes && stored_chunk_read(run, i, &sha, &done, each, arg); i++)
		CHECK_FOR_INTERRUPTS();
	dfx_sha256_final(&sha, hash);
	if (done != bytes || memcmp(hash, stored, sizeof(hash)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the checkpoint of training run " INT64_FORMAT " is damaged", run)));
}
