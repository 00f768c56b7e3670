/*
 * train_wire.c
 *	  Frames over the stream socket, every length checked.
 */
#include "engine/train_wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

DfxStatus
dfx_wire_open(DfxWire *w, int fd, DfxErr *err)
{
	socklen_t len = sizeof(int);
	int type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM)
		return dfx_fail(err, DFX_EINVAL, "descriptor %d is not a session's socket: PostgreSQL gives --stream",
		                fd);
	w->fd = fd;
	pthread_mutex_init(&w->lock, NULL);
	return DFX_OK;
}

/* --- out ----------------------------------------------------------------- */

static void
wire_gone(void)
{
	_exit(0);
}

/* All of the parts, which are used up; flags are those of the first attempt.  false: it would have had to
 * wait. */
static bool
wire_write(int fd, struct iovec *part, size_t n, int flags)
{
	while (n > 0)
	{
		struct msghdr m = {.msg_iov = part, .msg_iovlen = n};
		ssize_t k = sendmsg(fd, &m, MSG_NOSIGNAL | flags);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && flags)
			return false;
		if (k < 0)
			wire_gone();
		flags = 0;
		for (; n > 0 && (size_t) k >= part->iov_len; n--, part++)
			k -= (ssize_t) part->iov_len;
		if (n > 0)
		{
			part->iov_base = (char *) part->iov_base + k;
			part->iov_len -= (size_t) k;
		}
	}
	return true;
}

/* With the lock. */
static void
wire_frame(DfxWire *w, DfxFrameType type, const void *a, size_t alen, const void *b, size_t blen, int flags)
{
	DfxFrame f = {.type = (uint32_t) type, .len = (uint64_t) alen + blen};
	struct iovec part[3] = {{&f, sizeof f}, {(void *) (uintptr_t) a, alen}, {(void *) (uintptr_t) b, blen}};

	wire_write(w->fd, part, 3, flags);
}

void
dfx_wire_send(DfxWire *w, DfxFrameType type, const void *a, size_t alen, const void *b, size_t blen)
{
	pthread_mutex_lock(&w->lock);
	wire_frame(w, type, a, alen, b, blen, 0);
	pthread_mutex_unlock(&w->lock);
}

void
dfx_wire_offer(DfxWire *w, DfxFrameType type, const void *a, size_t alen)
{
	if (pthread_mutex_trylock(&w->lock) != 0)
		return;
	wire_frame(w, type, a, alen, NULL, 0, MSG_DONTWAIT);
	pthread_mutex_unlock(&w->lock);
}

void
dfx_wire_send_blob(DfxWire *w, DfxBlobKind kind, const char *name, const uint8_t *bytes, uint64_t len)
{
	DfxTrainBlob blob = {.kind = (uint32_t) kind, .bytes = len};

	snprintf(blob.name, sizeof blob.name, "%s", name);
	pthread_mutex_lock(&w->lock);
	wire_frame(w, DFX_FRAME_BLOB, &blob, sizeof blob, NULL, 0, 0);
	for (uint64_t done = 0; done < len;)
	{
		size_t n = len - done < DFX_BLOB_DATA_MAX ? (size_t) (len - done) : DFX_BLOB_DATA_MAX;

		wire_frame(w, DFX_FRAME_BLOB_DATA, bytes + done, n, NULL, 0, 0);
		done += n;
	}
	pthread_mutex_unlock(&w->lock);
}

void
dfx_wire_fail(DfxWire *w, const DfxErr *err)
{
	DfxErr copy;

	/* No byte beyond the texts' ends: they were never written. */
	memset(&copy, 0, sizeof copy);
	copy.code = err->code;
	snprintf(copy.msg, sizeof copy.msg, "%s", err->msg);
	snprintf(copy.hint, sizeof copy.hint, "%s", err->hint);
	dfx_wire_send(w, DFX_FRAME_FAIL, &copy, sizeof copy, NULL, 0);
}

/* --- in ------------------------------------------------------------------ */

void
dfx_wire_read(DfxWire *w, void *to, size_t len)
{
	for (size_t done = 0; done < len;)
	{
		ssize_t k = recv(w->fd, (char *) to + done, len - done, 0);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			wire_gone();
		done += (size_t) k;
	}
}

void
dfx_wire_skip(DfxWire *w, uint64_t len)
{
	char ignored[65536];

	while (len > 0)
	{
		size_t n = len < sizeof ignored ? (size_t) len : sizeof ignored;

		dfx_wire_read(w, ignored, n);
		len -= n;
	}
}

DfxStatus
dfx_wire_next(DfxWire *w, DfxFrame *f, DfxErr *err)
{
	dfx_wire_read(w, f, sizeof *f);
	if (f->zero != 0 || f->len > DFX_FRAME_MAX + sizeof(DfxTrainSample))
		return dfx_fail(err, DFX_EINVAL, "a frame of type %" PRIu32 " with %" PRIu64 " bytes", f->type,
		                f->len);
	return DFX_OK;
}

DfxStatus
dfx_wire_read_blob(DfxWire *w, const DfxFrame *f, DfxWireBlob *blob, DfxErr *err)
{
	uint64_t done = 0;
	DfxStatus st = DFX_OK;

	blob->bytes = NULL;
	if (f->len != sizeof blob->head)
		return dfx_fail(err, DFX_EINVAL, "a blob's head of %" PRIu64 " bytes", f->len);
	dfx_wire_read(w, &blob->head, sizeof blob->head);
	if (memchr(blob->head.name, '\0', sizeof blob->head.name) == NULL)
		return dfx_fail(err, DFX_EINVAL, "a blob's name without an end");
	if (blob->head.bytes == 0 || blob->head.bytes > DFX_WIRE_BLOB_MAX)
		return dfx_fail(err, DFX_ELIMIT, "a blob of %" PRIu64 " bytes", blob->head.bytes);
	blob->bytes =
	    mmap(NULL, (size_t) blob->head.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (blob->bytes == MAP_FAILED)
	{
		blob->bytes = NULL;
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a blob of %" PRIu64 " bytes", blob->head.bytes);
	}
	while (st == DFX_OK && done < blob->head.bytes)
	{
		DfxFrame data;

		st = dfx_wire_next(w, &data, err);
		if (st != DFX_OK)
			break;
		if (data.type != DFX_FRAME_BLOB_DATA || data.len == 0 || data.len > DFX_BLOB_DATA_MAX ||
		    data.len > blob->head.bytes - done)
			st = dfx_fail(err, DFX_EINVAL, "a frame of type %" PRIu32 " with %" PRIu64 " bytes inside a blob",
			              data.type, data.len);
		else
			dfx_wire_read(w, blob->bytes + done, (size_t) data.len);
		done += data.len;
	}
	if (st != DFX_OK)
		dfx_wire_free_blob(blob);
	return st;
}

void
dfx_wire_free_blob(DfxWireBlob *blob)
{
	if (blob->bytes)
		munmap(blob->bytes, (size_t) blob->head.bytes);
	blob->bytes = NULL;
}
