/*
 * fake_clock.c
 *	  A wall clock that a test may set, for a server that is started with this
 *	  library in LD_PRELOAD: the true time and as many seconds as the file says
 *	  that DFX_TEST_CLOCK names.  Other clocks stay what they are, and so does the
 *	  machine's.
 *
 *	  PostgreSQL asks for the time in signal handlers too, so only what is safe
 *	  there is called here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Read at each call: the test writes to the file while the server runs. */
static long
clock_shift(void)
{
	const char *name = getenv("DFX_TEST_CLOCK");
	int before = errno, fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	char text[32] = "";

	if (fd >= 0)
	{
		if (read(fd, text, sizeof text - 1) < 0)
			text[0] = '\0';
		close(fd);
	}
	errno = before;
	return strtol(text, NULL, 10);
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int rc = (int) syscall(SYS_clock_gettime, id, ts);

	if (rc == 0 && id == CLOCK_REALTIME)
		ts->tv_sec += clock_shift();
	return rc;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec now;

	(void) zone;
	clock_gettime(CLOCK_REALTIME, &now);
	tv->tv_sec = now.tv_sec;
	tv->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *t)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (t)
		*t = now.tv_sec;
	return now.tv_sec;
}
