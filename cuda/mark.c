/*
 * mark.c
 *	  Which candidate is being tried, written where it outlives this process.
 *
 * A candidate may end the process that tries it: by a fault on the device, by
 * one of its own on the host, by hanging until the watchdog acts.  So its name
 * stands in a small file meanwhile, and whoever finds a name in a file that
 * nobody holds knows what happened.  Several engines may share a cache: each
 * holds a file of its own, by a lock that the kernel gives back when it ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "cuda/internal.h"

#define MARK_FILES 16   /* engines of eight devices, and as many trainings */
#define MARK_ROOM  2048 /* of a file's name, of what is in it */

/* Hold the i-th file; -1: it is not there (unless flags make it), or somebody else's. */
static int
mark_hold(const char *path, int i, int flags)
{
	char name[MARK_ROOM];
	int n = snprintf(name, sizeof name, "%s.trying.%d", path, i);
	int fd = n < (int) sizeof name ? open(name, O_RDWR | O_CLOEXEC | flags, 0600) : -1;

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0)
	{
		close(fd);
		return -1;
	}
	return fd;
}

/* The mark in a file as key and who; false: there is none, or not all of it. */
static bool
mark_read(int fd, char *text, size_t size, char **who)
{
	ssize_t n = pread(fd, text, size - 1, 0);

	if (n < 1 || text[n - 1] != '\n')
		return false;
	text[n - 1] = '\0';
	*who = strchr(text, '\t');
	if (!*who)
		return false;
	*(*who)++ = '\0';
	return true;
}

void
gpu_mark_find(const char *path, bool (*found)(void *arg, const char *key, const char *who), void *arg)
{
	for (int i = 0; i < MARK_FILES; i++)
	{
		char text[MARK_ROOM], *who;
		int fd = mark_hold(path, i, 0);

		if (fd < 0)
			continue;
		if (mark_read(fd, text, sizeof text, &who) && found(arg, text, who))
			gpu_mark_clear(fd);
		close(fd);
	}
}

int
gpu_mark_open(const char *path)
{
	for (int i = 0; i < MARK_FILES; i++)
	{
		char text[MARK_ROOM], *who;
		int fd = mark_hold(path, i, O_CREAT);

		/* One that has been left since is the next process's to find. */
		if (fd >= 0 && !mark_read(fd, text, sizeof text, &who))
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -1;
}

bool
gpu_mark_set(int fd, const char *key, const char *who)
{
	char text[MARK_ROOM];
	int n = snprintf(text, sizeof text, "%s\t%s\n", key, who);

	return n < (int) sizeof text && ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t) n, 0) == n;
}

void
gpu_mark_clear(int fd)
{
	if (ftruncate(fd, 0) != 0)
		dfx_log('I', "could not clear the mark of a trial: %s", strerror(errno));
}
