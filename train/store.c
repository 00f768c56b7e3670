/*
 * store.c
 *	  The file of decoded samples.
 *
 * It has no name from the start (O_TMPFILE; where the file system has none of
 * that, unlinked at once), so that no end of the process leaves it behind.
 * Its blocks are allocated before anything is written to them: a full disk is
 * an error of a system call here, never a SIGBUS in the mapping.
 */
#include "train/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define STORE_STEP 64 /* samples by which the file grows */

static const char *
store_dir(const char *dir)
{
	const char *tmp = getenv("TMPDIR");

	return dir[0] ? dir : tmp && tmp[0] ? tmp : "/tmp";
}

DfxStatus
dfx_store_open(DfxStore *c, const char *dir, uint64_t limit, DfxErr *err)
{
	char path[4096];

	*c = (DfxStore){.fd = -1, .limit = limit};
	dir = store_dir(dir);
	c->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (c->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
	{
		if (snprintf(path, sizeof path, "%s/dfx_train_XXXXXX", dir) >= (int) sizeof path)
			errno = ENAMETOOLONG;
		else
			c->fd = mkostemp(path, O_CLOEXEC);
		if (c->fd >= 0)
			unlink(path);
	}
	if (c->fd < 0)
		return dfx_fail(err, DFX_EIO, "could not create a cache file in \"%s\": %s", dir, strerror(errno));
	return DFX_OK;
}

void
dfx_store_close(DfxStore *c)
{
	if (c->map)
		munmap((void *) (uintptr_t) c->map, c->n * DFX_STORE_BYTES);
	if (c->fd >= 0)
		close(c->fd);
	*c = (DfxStore){.fd = -1};
}

/* Blocks behind those that there are; 0 or an errno. */
static int
store_allocate(const DfxStore *c, size_t bytes)
{
	int rc;

	do
		rc = posix_fallocate(c->fd, (off_t) (c->room * DFX_STORE_BYTES), (off_t) bytes);
	while (rc == EINTR);
	return rc;
}

/* Room for some more samples, or for one where some are too many. */
static DfxStatus
store_grow(DfxStore *c, DfxErr *err)
{
	size_t step = STORE_STEP;
	int rc;

	if (c->limit && c->limit / DFX_STORE_BYTES - c->room < step)
		step = c->limit / DFX_STORE_BYTES - c->room;
	if (step == 0)
	{
		dfx_fail(err, DFX_ELIMIT, "%zu samples of %zu bytes do not fit the cache of %" PRIu64 " bytes",
		         c->n + 1, DFX_STORE_BYTES, c->limit);
		dfx_hint(err, "The limit is dfx.train_cache.");
		return DFX_ELIMIT;
	}
	rc = store_allocate(c, step * DFX_STORE_BYTES);
	if (rc != 0 && step > 1)
		rc = store_allocate(c, (step = 1) * DFX_STORE_BYTES);
	if (rc != 0)
	{
		dfx_fail(err, DFX_EIO, "the cache of decoded samples cannot grow beyond %zu samples: %s", c->n,
		         strerror(rc));
		dfx_hint(err, "It takes %zu bytes a sample, in the directory dfx.train_cache_dir.", DFX_STORE_BYTES);
		return DFX_EIO;
	}
	c->room += step;
	return DFX_OK;
}

DfxStatus
dfx_store_add(DfxStore *c, size_t *place, DfxErr *err)
{
	DfxStatus st = c->n == c->room ? store_grow(c, err) : DFX_OK;

	if (st == DFX_OK)
		*place = c->n++;
	return st;
}

DfxStatus
dfx_store_write(const DfxStore *c, size_t place, const uint8_t *pixels, DfxErr *err)
{
	for (size_t done = 0; done < DFX_STORE_BYTES;)
	{
		ssize_t k =
		    pwrite(c->fd, pixels + done, DFX_STORE_BYTES - done, (off_t) (place * DFX_STORE_BYTES + done));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return dfx_fail(err, DFX_EIO, "could not write the cache of decoded samples: %s",
			                k < 0 ? strerror(errno) : "nothing was written");
		done += (size_t) k;
	}
	return DFX_OK;
}

DfxStatus
dfx_store_map(DfxStore *c, DfxErr *err)
{
	void *map;

	if (c->n == 0)
		return DFX_OK;
	map = mmap(NULL, c->n * DFX_STORE_BYTES, PROT_READ, MAP_SHARED, c->fd, 0);
	if (map == MAP_FAILED)
		return dfx_fail(err, DFX_EIO, "could not map the cache of %zu decoded samples: %s", c->n,
		                strerror(errno));
	c->map = map;
	return DFX_OK;
}

DfxStatus
dfx_store_extra(const DfxStore *c, size_t bytes, void **map, DfxErr *err)
{
	int rc = store_allocate(c, bytes);

	*map = rc == 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd,
	                      (off_t) (c->room * DFX_STORE_BYTES))
	               : MAP_FAILED;
	if (*map != MAP_FAILED)
		return DFX_OK;
	*map = NULL;
	return dfx_fail(err, DFX_EIO, "no room for %zu bytes of features in the cache: %s", bytes,
	                strerror(rc ? rc : errno));
}

void
dfx_store_drop(void *map, size_t bytes)
{
	if (map)
		munmap(map, bytes);
}
