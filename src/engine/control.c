/*
 * control.c
 *	  The control socket: ready, done, log and fatal messages; exit at end of file.
 *
 * A log line is never worth waiting for, so it is dropped when the socket is
 * full.  A 'D' waits a little: if the queue ahead of it held only log lines,
 * dropping it would leave its client asleep.  The supervisor that cannot take
 * a message within that time finds the answer at its next sweep.
 */
#include "engine/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONTROL_PATIENCE_MS 100

static int control_fd = -1;

/* Send one message, waiting at most patience_ms for room. */
static void
control_send(const void *message, size_t len, int patience_ms)
{
	struct pollfd p = {.fd = control_fd, .events = POLLOUT};

	if (control_fd < 0)
		return;
	while (send(control_fd, message, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
	{
		if (errno == EINTR)
			continue;
		if ((errno != EAGAIN && errno != EWOULDBLOCK) || patience_ms == 0)
			return;
		if (poll(&p, 1, patience_ms) <= 0)
			return;
		patience_ms = 0;
	}
}

void
dfx_control_ready(void)
{
	control_send("R", 1, CONTROL_PATIENCE_MS);
}

void
dfx_control_done(void)
{
	control_send("D", 1, CONTROL_PATIENCE_MS);
}

void
dfx_control_fatal(const char *text)
{
	char message[DFX_MSG_LEN + DFX_HINT_LEN];
	int n = snprintf(message, sizeof message, "F%s", text);

	if (n >= (int) sizeof message)
		n = sizeof message - 1;
	control_send(message, (size_t) n, CONTROL_PATIENCE_MS);
}

static void
control_log(char level, const char *text, void *arg)
{
	char message[600];
	int n = snprintf(message, sizeof message, "L%c%s", level, text);

	(void) arg;
	if (n >= (int) sizeof message)
		n = sizeof message - 1;
	control_send(message, (size_t) n, 0);
}

void
dfx_control_lost(const DfxErr *err)
{
	dfx_log('E', "the device is lost, the engine ends: %s", err->msg);
	_exit(1);
}

/* The supervisor sends nothing: only the end of file matters.  At that point nobody waits for an answer. */
static void *
control_watch(void *arg)
{
	char ignored[64];

	(void) arg;
	for (;;)
	{
		ssize_t n = recv(control_fd, ignored, sizeof ignored, 0);

		if (n == 0 || (n < 0 && errno != EINTR))
			_exit(0);
	}
	return NULL;
}

DfxStatus
dfx_control_start(int fd, DfxErr *err)
{
	socklen_t len = sizeof(int);
	pthread_t thread;
	int rc, type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_SEQPACKET)
		return dfx_fail(err, DFX_EINVAL,
		                "descriptor %d is not a supervisor's socket: PostgreSQL starts this command", fd);
	control_fd = fd;
	rc = pthread_create(&thread, NULL, control_watch, NULL);
	if (rc != 0)
		return dfx_fail(err, DFX_EINTERNAL, "could not start a thread: %s", strerror(rc));
	pthread_detach(thread);
	dfx_log_set_sink(control_log, NULL);
	return DFX_OK;
}
