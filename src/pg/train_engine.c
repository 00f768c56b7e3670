/*
 * train_engine.c
 *	  A session's own training engine: its process, and frames to and from it.
 *
 * The engine is a child of this backend, started by the rules of spawn.c, and
 * never outlives the statement: an error ends it in the procedure's PG_CATCH,
 * FATAL in before_shmem_exit, kill -9 of the backend by the engine's
 * PDEATHSIG and the end of the socket.
 *
 * The socket is non-blocking on our side.  While we send, what the engine says
 * is taken into the buffer, so that neither waits for the other; a buffer that
 * is full then means an engine that does not keep to the protocol.  Nothing it
 * sends is believed: lengths are bounded by their type before a byte of the
 * frame is waited for, and texts reduced to printable ASCII.
 */
#include "postgres.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "commands/tablespace.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "pg/clock.h"
#include "pg/compat.h"
#include "pg/queue.h"
#include "pg/reply.h"
#include "pg/settings.h"
#include "pg/spawn.h"
#include "pg/train.h"
#include "pg/wait_event.h"

#define ENGINE_NARGS 16
#define ENGINE_TICK_MS 1000
#define ENGINE_EXIT_MS 500		/* between SIGTERM and SIGKILL */
#define ENGINE_LOST_MS 5000		/* between the end of the socket and SIGKILL */
#define ENGINE_BUFFER (DFX_BLOB_DATA_MAX + (256 << 10))

static struct
{
	pid_t		pid;			/* 0: none */
	int			sock;
	char	   *buf;			/* ENGINE_BUFFER bytes, in TopMemoryContext while pid != 0 */
	Size		from,
				to;				/* what was received and not yet looked at */
	bool		closed;			/* its end of the socket */
	int64		looked;			/* for the client, last; by dfx_clock_ms() */
}			engine;

/* ---- the process ---- */

void
dfx_train_engine_end(void)
{
	char		how[DFX_REASON_LEN];

	if (engine.pid == 0)
		return;
	kill(engine.pid, SIGTERM);
	dfx_engine_reap(engine.pid, ENGINE_EXIT_MS, how, sizeof(how));
	engine.pid = 0;
	close(engine.sock);
	pfree(engine.buf);
	engine.buf = NULL;
}

static void
engine_at_exit(int code, Datum arg)
{
	dfx_train_engine_end();
}

/* dfx.train_cache_dir, or where PostgreSQL has its temporary files, which it makes at their first use. */
static void
engine_cache_dir(char *path)
{
	char		temp[MAXPGPATH];
	Oid			space;

	if (dfx_train_cache_dir[0] != '\0')
	{
		strlcpy(path, dfx_train_cache_dir, MAXPGPATH);
		return;
	}
	PrepareTempTablespaces();
	space = GetNextTempTableSpace();
	TempTablespacePath(temp, OidIsValid(space) ? space : MyDatabaseTableSpace);
	snprintf(path, MAXPGPATH, "%s/%s", DataDir, temp);
	if (MakePGDirectory(path) != 0 && errno != EEXIST)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create directory \"%s\": %m", path)));
}

/* The command line of proto_train.h.  A run is on one device: of a list the first. */
static pid_t
engine_spawn(int fd, const char *cache_dir, char *why, Size why_size)
{
	char		device[128],
				parent[24],
				threads[24],
				memory[24],
				limit[24];
	char	   *argv[] = {
		"dfx-engine", "train", "--stream", "--parent", parent, "--device", device, "--threads", threads,
		"--gpu-memory", memory, "--cache-dir", unconstify(char *, cache_dir), "--cache-limit", limit, NULL
	};

	StaticAssertStmt(lengthof(argv) == ENGINE_NARGS, "every argument and a NULL");
	dfx_device_item(dfx_device, 0, device, sizeof(device));
	snprintf(parent, sizeof(parent), "%d", MyProcPid);
	snprintf(threads, sizeof(threads), "%d", dfx_threads);
	snprintf(memory, sizeof(memory), INT64_FORMAT, (int64) dfx_gpu_memory << 20);
	snprintf(limit, sizeof(limit), INT64_FORMAT, (int64) dfx_train_cache << 20);
	return dfx_spawn_program(argv, &fd, 1, why, why_size);
}

void
dfx_train_engine_start(void)
{
	static bool registered = false;
	char		cache_dir[MAXPGPATH];
	char		why[DFX_REASON_LEN + MAXPGPATH];
	int			pair[2];

	if (!registered)
	{
		before_shmem_exit(engine_at_exit, 0);
		registered = true;
	}
	engine_cache_dir(cache_dir);
	engine.buf = MemoryContextAlloc(TopMemoryContext, ENGINE_BUFFER);
	engine.from = engine.to = 0;
	engine.closed = false;
	if (dfx_spawn_socket(SOCK_STREAM, pair, why, sizeof(why)))
	{
		pid_t		pid = engine_spawn(pair[1], cache_dir, why, sizeof(why));

		close(pair[1]);
		if (pid > 0)
		{
			engine.pid = pid;
			engine.sock = pair[0];
			return;
		}
		close(pair[0]);
	}
	pfree(engine.buf);
	dfx_unavailable(why);
}

/* The socket has ended, and so has the engine, or will. */
pg_noreturn static void
engine_lost(void)
{
	char		how[DFX_REASON_LEN];
	int			pid = engine.pid;

	dfx_engine_reap(pid, ENGINE_LOST_MS, how, sizeof(how));
	engine.pid = 0;
	close(engine.sock);
	pfree(engine.buf);
	ereport(ERROR,
			(errcode(ERRCODE_SYSTEM_ERROR),
			 errmsg("the training engine ended before the run did"),
			 errdetail("Process %d %s.", pid, how),
			 errhint("The server's log may say more.")));
}

void
dfx_train_broken(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("the training engine does not keep to the protocol: %s", what)));
}

/* ---- waiting ---- */

/* What must not wait for the engine: cancel, and, once a second, a look whether the client is still there. */
static void
engine_breathe(void)
{
	int64		now = dfx_clock_ms();

	CHECK_FOR_INTERRUPTS();
	if (now - engine.looked < ENGINE_TICK_MS)
		return;
	engine.looked = now;
	if (whereToSendOutput == DestRemote && !pq_check_connection())
	{
		/* As client_connection_check_interval does, which is off by default. */
		ClientConnectionLost = true;
		InterruptPending = true;
		CHECK_FOR_INTERRUPTS();
	}
}

static void
engine_wait(int events)
{
	int			rc = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
									   engine.sock, ENGINE_TICK_MS, dfx_wait_event(DFX_WAIT_TRAINING));

	if (rc & WL_LATCH_SET)
		ResetLatch(MyLatch);
	engine_breathe();
}

/* Take in what there is room for; false when there is nothing now, or (engine.closed) never will be. */
static bool
engine_read(void)
{
	ssize_t		n;

	if (engine.from > 0)
	{
		memmove(engine.buf, engine.buf + engine.from, engine.to - engine.from);
		engine.to -= engine.from;
		engine.from = 0;
	}
	if (engine.to == ENGINE_BUFFER)
		dfx_train_broken("it talks and does not listen");
	n = recv(engine.sock, engine.buf + engine.to, ENGINE_BUFFER - engine.to, 0);
	if (n > 0)
		engine.to += n;
	else
		engine.closed = n == 0 || (errno != EAGAIN && errno != EINTR);
	return n > 0;
}

/* ---- sending ---- */

/* False when the engine's end is closed: what it said before may say why. */
static bool
engine_write(const void *p, Size len)
{
	const char *from = p;

	while (len > 0)
	{
		ssize_t		n = send(engine.sock, from, len, MSG_NOSIGNAL);

		if (n >= 0)
		{
			from += n;
			len -= n;
			engine_breathe();
			continue;
		}
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return false;
		engine_wait(WL_SOCKET_WRITEABLE | WL_SOCKET_READABLE);
		if (!engine_read() && engine.closed)
			return false;
	}
	return true;
}

void
dfx_train_send(DfxFrameType type, const void *head, Size head_len, const void *data, Size len)
{
	DfxFrame	frame = {.type = type,.len = head_len + len};
	DfxTrainMessage m;

	if (engine_write(&frame, sizeof(frame)) && engine_write(head, head_len) && engine_write(data, len))
		return;
	while (dfx_train_receive(&m, true))
		;						/* until it raises what FAIL says, or that the engine has ended */
}

/* ---- receiving ---- */

/* The most bytes that a frame of a type may have, and the least; false for a type that engines do not send. */
static bool
engine_bounds(uint32 type, Size *min, Size *max)
{
	static const struct
	{
		uint32		type;
		Size		min,
					max;
	}			bounds[] = {
		{DFX_FRAME_BLOB, sizeof(DfxTrainBlob), sizeof(DfxTrainBlob)},
		{DFX_FRAME_BLOB_DATA, 1, DFX_BLOB_DATA_MAX},
		{DFX_FRAME_READY, sizeof(DfxTrainReady), sizeof(DfxTrainReady)},
		{DFX_FRAME_TAKEN, sizeof(DfxTrainTaken), sizeof(DfxTrainTaken)},
		{DFX_FRAME_PLAN, 0, DFX_BLOB_DATA_MAX},
		{DFX_FRAME_PROGRESS, sizeof(DfxTrainProgress), sizeof(DfxTrainProgress)},
		{DFX_FRAME_EPOCH, sizeof(DfxTrainEpoch), sizeof(DfxTrainEpoch)},
		{DFX_FRAME_METRICS, 2, DFX_TRAIN_TEXT},
		{DFX_FRAME_DONE, 0, 0},
		{DFX_FRAME_LOG, 1, DFX_TRAIN_TEXT},
		{DFX_FRAME_FAIL, sizeof(DfxErr), sizeof(DfxErr)},
	};

	for (int i = 0; i < lengthof(bounds); i++)
	{
		if (bounds[i].type != type)
			continue;
		*min = bounds[i].min;
		*max = bounds[i].max;
		return true;
	}
	return false;
}

static void
engine_log(const DfxTrainMessage *m)
{
	char		text[1024];
	char		level = m->data[0];

	dfx_clean_text(text, sizeof(text), m->data + 1, m->len - 1);
	ereport(level == 'D' ? DEBUG1 : LOG,
			(errmsg("dfx training engine: %s", text)));
}

/* Raise what FAIL says. */
static void
engine_fail(const DfxTrainMessage *m)
{
	DfxReply	reply = {0};
	DfxErr		err;

	memcpy(&err, m->data, sizeof(err));
	reply.status = (uint32) err.code < DFX_STATUS_COUNT && err.code != DFX_OK ? err.code : DFX_EINTERNAL;
	dfx_clean_text(reply.msg, sizeof(reply.msg), err.msg, sizeof(err.msg));
	dfx_clean_text(reply.hint, sizeof(reply.hint), err.hint, sizeof(err.hint));
	dfx_reply_raise(&reply);
}

/* A whole frame out of the buffer; false when there is none yet. */
static bool
engine_take(DfxTrainMessage *m)
{
	DfxFrame	frame;
	Size		min,
				max;

	if (engine.to - engine.from < sizeof(frame))
		return false;
	memcpy(&frame, engine.buf + engine.from, sizeof(frame));
	if (frame.zero != 0 || !engine_bounds(frame.type, &min, &max))
		dfx_train_broken("a frame of a type that it may not send");
	if (frame.len < min || frame.len > max)
		dfx_train_broken("a frame of a length that it cannot have");
	if (engine.to - engine.from < sizeof(frame) + frame.len)
		return false;
	m->type = frame.type;
	m->data = engine.buf + engine.from + sizeof(frame);
	m->len = frame.len;
	engine.from += sizeof(frame) + frame.len;
	return true;
}

bool
dfx_train_receive(DfxTrainMessage *m, bool wait)
{
	for (;;)
	{
		engine_breathe();
		if (engine_take(m))
		{
			if (m->type == DFX_FRAME_FAIL)
				engine_fail(m);
			if (m->type != DFX_FRAME_LOG)
				return true;
			engine_log(m);
		}
		else if (!engine_read())
		{
			if (engine.closed)
				engine_lost();
			if (!wait)
				return false;
			engine_wait(WL_SOCKET_READABLE);
		}
	}
}

void
dfx_train_expect(DfxFrameType type, DfxTrainMessage *m)
{
	(void) dfx_train_receive(m, true);
	if (m->type != type)
		dfx_train_broken(psprintf("a frame of type %u at the wrong time", m->type));
}
