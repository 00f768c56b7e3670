/*
 * model_io.c
 *	  Server files and large objects as sources and sinks of weight files.
 *
 * All descriptors are those of the server (transient files, the large object
 * interface), which closes them when an error ends the transaction.  The one
 * thing that nobody else would clean up is the temporary file of an export:
 * who writes to a sink does so under PG_ENSURE_ERROR_CLEANUP.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "libpq/be-fsstubs.h"
#include "libpq/libpq-fs.h"
#include "miscadmin.h"
#include "pg/model_io.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/fmgrprotos.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a file as a source ---- */

/* pread: the passes of an import jump to wherever the file has the next tensor by name. */
static void
file_read(DfxSource *src, uint64 offset, void *buf, Size len)
{
	char	   *p = buf;

	while (len > 0)
	{
		ssize_t		n = pg_pread(src->fd, p, len, (off_t) offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read %s: %m", src->what)));
		if (n == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("%s became shorter while it was read", src->what)));
		p += n;
		offset += n;
		len -= n;
	}
}

static void
file_close(DfxSource *src)
{
	CloseTransientFile(src->fd);
}

/* absent_hint: what to do where there is no such file. */
static DfxSource *
file_open(const char *path, const char *absent_hint)
{
	DfxSource  *src = palloc0(sizeof(DfxSource));
	struct stat st;

	src->what = psprintf("file \"%s\"", path);
	src->read = file_read;
	src->close = file_close;
	/* Do not hang on a FIFO before fstat() has seen it. */
	src->fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (src->fd < 0)
	{
		bool		absent = errno == ENOENT;

		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\" for reading: %m", path),
				 absent ? errhint("%s", absent_hint) : 0));
	}
	if (fstat(src->fd, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", path)));
	if (!S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a regular file", path)));
	src->size = st.st_size;
	return src;
}

DfxSource *
dfx_source_file(const char *path)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser or have privileges of the pg_read_server_files role to import from a file"),
				 errhint("Anyone can import from a large object; psql's \\lo_import makes one.")));
	return file_open(path, "The server reads the file, not the client. psql's \\lo_import brings a client's"
					 " file into a large object.");
}

DfxSource *
dfx_source_starter(void)
{
	char		share[MAXPGPATH];

	get_share_path(my_exec_path, share);
	return file_open(psprintf("%s/deepfeaturex/starter.safetensors", share),
					 "It comes with the extension: install all of its files.");
}

/* ---- a large object as a source ---- */

/*
 * Through the server's own lo_* functions, which check privileges, hold their
 * snapshot and close what an error leaves open; inv_* would need all of that here.
 */
static int64
lo_seek(int fd, int64 offset, int whence)
{
	return DatumGetInt64(DirectFunctionCall3(be_lo_lseek64, Int32GetDatum(fd), Int64GetDatum(offset),
											 Int32GetDatum(whence)));
}

static void
lo_source_read(DfxSource *src, uint64 offset, void *buf, Size len)
{
	lo_seek(src->fd, (int64) offset, SEEK_SET);
	if (lo_read(src->fd, buf, (int) len) != (int) len)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s became shorter while it was read", src->what)));
}

static void
lo_source_close(DfxSource *src)
{
	DirectFunctionCall1(be_lo_close, Int32GetDatum(src->fd));
}

DfxSource *
dfx_source_lo(Oid loid)
{
	DfxSource  *src = palloc0(sizeof(DfxSource));

	src->what = psprintf("large object %u", loid);
	src->read = lo_source_read;
	src->close = lo_source_close;
	src->fd = DatumGetInt32(DirectFunctionCall2(be_lo_open, ObjectIdGetDatum(loid), Int32GetDatum(INV_READ)));
	src->size = (uint64) lo_seek(src->fd, 0, SEEK_END);
	return src;
}

/* ---- a file as a sink ---- */

/* A short write without an errno is a full disk. */
static void
file_write(DfxSink *sink, const void *buf, Size len)
{
	const char *p = buf;

	while (len > 0)
	{
		ssize_t		n;

		errno = 0;
		n = write(sink->fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (errno == 0)
				errno = ENOSPC;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write file \"%s\": %m", sink->temp_path)));
		}
		p += n;
		len -= n;
		sink->written += n;
	}
}

/* Durable before it is visible: the rename is what makes the file appear. */
static void
file_finish(DfxSink *sink)
{
	if (pg_fsync(sink->fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not fsync file \"%s\": %m", sink->temp_path)));
	if (CloseTransientFile(sink->fd) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not close file \"%s\": %m", sink->temp_path)));
	durable_rename(sink->temp_path, sink->path, ERROR);
}

static void
file_discard(DfxSink *sink)
{
	unlink(sink->temp_path);
}

DfxSink *
dfx_sink_file(const char *path)
{
	DfxSink    *sink = palloc0(sizeof(DfxSink));
	struct stat st;

	if (!has_privs_of_role(GetUserId(), ROLE_PG_WRITE_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser or have privileges of the pg_write_server_files role to export to a file"),
				 errhint("Anyone can export to a large object; psql's \\lo_export fetches one.")));
	if (!is_absolute_path(path))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("relative path not allowed for export to file")));
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a regular file", path)));
	sink->path = pstrdup(path);
	sink->temp_path = psprintf("%s.%d.tmp", path, MyProcPid);
	sink->write = file_write;
	sink->finish = file_finish;
	sink->discard = file_discard;
	/* A session that was killed may have left one; a link that somebody else put there is not followed. */
	unlink(sink->temp_path);
	sink->fd = OpenTransientFile(sink->temp_path, O_WRONLY | O_CREAT | O_EXCL | PG_BINARY);
	/* The server's files are its own, but an exported one is for others to read, as COPY's are. */
	if (sink->fd < 0 || fchmod(sink->fd, S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\" for writing: %m", sink->temp_path)));
	return sink;
}

void
dfx_sink_discard(int code, Datum sink)
{
	DfxSink    *s = (DfxSink *) DatumGetPointer(sink);

	s->discard(s);
}

/* ---- a large object as a sink ---- */

static void
lo_sink_write(DfxSink *sink, const void *buf, Size len)
{
	if (lo_write(sink->fd, buf, (int) len) != (int) len)
		elog(ERROR, "could not write large object %u", sink->loid);
	sink->written += len;
}

static void
lo_sink_finish(DfxSink *sink)
{
	DirectFunctionCall1(be_lo_close, Int32GetDatum(sink->fd));
}

static void
lo_sink_discard(DfxSink *sink)
{
	/* The transaction's rollback removes it. */
}

DfxSink *
dfx_sink_lo(void)
{
	DfxSink    *sink = palloc0(sizeof(DfxSink));

	sink->write = lo_sink_write;
	sink->finish = lo_sink_finish;
	sink->discard = lo_sink_discard;
	sink->loid = DatumGetObjectId(DirectFunctionCall1(be_lo_create, ObjectIdGetDatum(InvalidOid)));
	sink->fd = DatumGetInt32(DirectFunctionCall2(be_lo_open, ObjectIdGetDatum(sink->loid),
												 Int32GetDatum(INV_WRITE)));
	return sink;
}
