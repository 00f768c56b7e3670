/*
 * cache.c
 *	  Choices among implementations, kept in memory and on disk.
 *
 * Trying takes seconds to minutes for a network (a cuDNN plan may have to be
 * compiled), so what was found is written to a text file, one line a product:
 * key, who won, what its plan can be made from again, with tabs between; or key
 * and, behind a '!' for each time, who was being tried when a process ended
 * (mark.c).  Once may be chance: a server that was stopped just then.  Twice bars
 * him.  A file belongs to one kind of device and to the versions of driver and
 * libraries; its first line says which.  It is only an advice: what cannot be used
 * is tried anew, and a lost file costs time.
 */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cuda/internal.h"

#define CACHE_FORMAT "dfx-cuda-choices 1"
#define CACHE_PATH   1024
#define CACHE_ENDS   2 /* of processes, before whom they tried is tried no more */

typedef struct CacheEntry
{
	struct CacheEntry *next;
	char *key, *who, *keep; /* keep: "" for nothing */
	bool made;              /* choice is one of this process */
	int ends;               /* of processes that tried it */
	GpuChoice choice;
} CacheEntry;

struct GpuCache
{
	CacheEntry *first;
	CacheEntry *deadly;    /* whom processes tried when they ended */
	int mark;              /* mark.c's file, -1: not yet */
	bool unmarked;         /* there is none to be had */
	char path[CACHE_PATH]; /* "": in memory only */
	char head[256];        /* the file's first line */
	bool changed;
};

const char *
gpu_choice_name(const GpuChoice *choice)
{
	return choice->lib ? choice->lib->ops->name : gpu_kernel_name[choice->kernel];
}

static CacheEntry *
cache_entry(const GpuCache *cache, const char *key)
{
	for (CacheEntry *e = cache->first; e; e = e->next)
		if (strcmp(e->key, key) == 0)
			return e;
	return NULL;
}

static void
cache_free_entry(CacheEntry *e)
{
	if (e->made && e->choice.lib)
		e->choice.lib->ops->drop(e->choice.lib, e->choice.plan);
	free(e->key);
	free(e->who);
	free(e->keep);
	free(e);
}

static void
cache_free_list(CacheEntry *e)
{
	while (e)
	{
		CacheEntry *next = e->next;

		cache_free_entry(e);
		e = next;
	}
}

/* A new entry of a list, which takes over keep; NULL: out of memory (keep is freed). */
static CacheEntry *
cache_add(CacheEntry **list, const char *key, const char *who, char *keep)
{
	CacheEntry *e = calloc(1, sizeof *e);

	if (!e)
	{
		free(keep);
		return NULL;
	}
	e->key = strdup(key);
	e->who = strdup(who);
	e->keep = keep;
	if (!e->key || !e->who || !e->keep)
	{
		cache_free_entry(e);
		return NULL;
	}
	e->next = *list;
	*list = e;
	return e;
}

/* FNV-1a of the first line: one file for each device and set of versions. */
static unsigned
cache_hash(const char *s)
{
	unsigned h = 2166136261u;

	for (; *s; s++)
		h = (h ^ (unsigned char) *s) * 16777619u;
	return h;
}

static CacheEntry *
cache_deadly(const GpuCache *cache, const char *key, const char *who)
{
	for (CacheEntry *e = cache->deadly; e; e = e->next)
		if (strcmp(e->key, key) == 0 && strcmp(e->who, who) == 0)
			return e;
	return NULL;
}

/* So many more processes have ended while they tried who; false: out of memory. */
static bool
cache_add_ends(GpuCache *cache, const char *key, const char *who, int ends)
{
	CacheEntry *e = cache_deadly(cache, key, who);

	if (!e)
		e = cache_add(&cache->deadly, key, who, strdup(""));
	if (e)
		e->ends += ends;
	return e != NULL;
}

static void
cache_read_ends(GpuCache *cache, const char *key, const char *who)
{
	int ends = (int) strspn(who, "!");

	cache_add_ends(cache, key, who + ends, ends);
}

/* The lines of the file; whatever is not as it should be ends the reading. */
static void
cache_read(GpuCache *cache)
{
	FILE *f = fopen(cache->path, "re");
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	if (!f)
		return;
	n = getline(&line, &size, f);
	if (n > 0 && line[n - 1] == '\n')
	{
		line[n - 1] = '\0';
		n = strcmp(line, cache->head) == 0 ? 1 : 0;
	}
	while (n > 0 && (n = getline(&line, &size, f)) > 0)
	{
		char *who = strchr(line, '\t'), *keep = who ? strchr(who + 1, '\t') : NULL;

		if (!keep || line[n - 1] != '\n')
			break;
		line[n - 1] = *who = *keep = '\0';
		if (who[1] == '!')
			cache_read_ends(cache, line, who + 1);
		else if (!cache_entry(cache, line) && !cache_add(&cache->first, line, who + 1, strdup(keep + 1)))
			break;
	}
	free(line);
	fclose(f);
}

/* The home directory of this user by the system's word, empty if it has none. */
static const char *
cache_home(char *room, size_t size)
{
	struct passwd entry, *found = NULL;

	return getpwuid_r(geteuid(), &entry, room, size, &found) == 0 && found && found->pw_dir ? found->pw_dir
	                                                                                        : "";
}

bool
gpu_cache_dir(char *dir, size_t size)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char room[4096];
	int n = 0;

	if (base && base[0] == '/')
		n = snprintf(dir, size, "%s/deepfeaturex", base);
	else
	{
		if (!home || home[0] != '/')
			home = cache_home(room, sizeof room);
		if (home[0] == '/')
			n = snprintf(dir, size, "%s/.cache/deepfeaturex", home);
	}
	return n > 0 && (size_t) n < size;
}

/* Make the directories of path, which ends in a file's name; failures show when the file is opened. */
static void
cache_directories(const char *path)
{
	char dir[CACHE_PATH];

	snprintf(dir, sizeof dir, "%s", path);
	for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/'))
	{
		*slash = '\0';
		mkdir(dir, 0700);
		*slash = '/';
	}
}

/* Beside it, then in its place: a reader sees the old file or the new one. */
static bool
cache_write(const GpuCache *cache)
{
	char temporary[CACHE_PATH + 32];
	FILE *f;
	bool ok;

	cache_directories(cache->path);
	snprintf(temporary, sizeof temporary, "%s.%ld", cache->path, (long) getpid());
	f = fopen(temporary, "we");
	ok = f != NULL && fprintf(f, "%s\n", cache->head) > 0;
	for (const CacheEntry *e = cache->first; ok && e; e = e->next)
		ok = fprintf(f, "%s\t%s\t%s\n", e->key, e->who, e->keep) > 0;
	for (const CacheEntry *e = cache->deadly; ok && e; e = e->next)
		ok = fprintf(f, "%s\t%s%s\t\n", e->key, e->ends < CACHE_ENDS ? "!" : "!!", e->who) > 0;
	if (f)
		ok = fclose(f) == 0 && ok;
	ok = ok && rename(temporary, cache->path) == 0;
	if (ok)
		return true;
	dfx_log('I', "could not keep the choices of kernels in %s: %s", cache->path, strerror(errno));
	if (f)
		unlink(temporary);
	return false;
}

bool
gpu_cache_barred(const GpuCache *cache, const char *key, const char *who)
{
	const CacheEntry *e = cache_deadly(cache, key, who);

	return e && e->ends >= CACHE_ENDS;
}

/* A mark that a process has left. */
static bool
cache_count_end(void *arg, const char *key, const char *who)
{
	GpuCache *cache = arg;

	if (!cache_add_ends(cache, key, who, 1))
		return false;
	dfx_log('W', "an engine ended while it tried %s at %s: %s", who, key,
	        gpu_cache_barred(cache, key, who) ? "it is not tried there again"
	                                          : "once more, and it is not tried again");
	return cache_write(cache);
}

GpuCache *
gpu_cache_open(const char *dir, const char *device, const char *versions)
{
	GpuCache *cache = calloc(1, sizeof *cache);
	int n;

	if (!cache)
		return NULL;
	cache->mark = -1;
	snprintf(cache->head, sizeof cache->head, CACHE_FORMAT ", %s, %s", device, versions);
	if (!dir)
		return cache;
	n = snprintf(cache->path, sizeof cache->path, "%s/cuda-%08x", dir, cache_hash(cache->head));
	if (n >= (int) sizeof cache->path)
		cache->path[0] = '\0';
	else
	{
		cache_read(cache);
		gpu_mark_find(cache->path, cache_count_end, cache);
	}
	return cache;
}

void
gpu_cache_close(GpuCache *cache)
{
	if (!cache)
		return;
	cache_free_list(cache->first);
	cache_free_list(cache->deadly);
	if (cache->mark >= 0)
		close(cache->mark);
	free(cache);
}

void
gpu_cache_try(GpuCache *cache, const char *key, const char *who)
{
	if (cache->path[0] == '\0' || cache->unmarked)
		return;
	if (cache->mark < 0)
	{
		cache_directories(cache->path);
		cache->mark = gpu_mark_open(cache->path);
	}
	cache->unmarked = cache->mark < 0 || !gpu_mark_set(cache->mark, key, who);
	if (cache->unmarked)
		dfx_log('I', "could not mark in %s.trying what is being tried: %s", cache->path, strerror(errno));
}

void
gpu_cache_tried(GpuCache *cache)
{
	if (cache->mark >= 0)
		gpu_mark_clear(cache->mark);
}

const GpuChoice *
gpu_cache_find(const GpuCache *cache, const char *key)
{
	const CacheEntry *e = cache_entry(cache, key);

	return e && e->made ? &e->choice : NULL;
}

const char *
gpu_cache_kept(const GpuCache *cache, const char *key, const char **who)
{
	const CacheEntry *e = cache_entry(cache, key);

	if (!e)
		return NULL;
	*who = e->who;
	return e->keep;
}

DfxStatus
gpu_cache_put(GpuCache *cache, const char *key, const GpuChoice *choice, char *keep, DfxErr *err)
{
	CacheEntry *e = cache_entry(cache, key), **p = &cache->first;

	/* Another compilation may have been quicker; its plan may be in use. */
	if (e && e->made)
	{
		if (choice->lib)
			choice->lib->ops->drop(choice->lib, choice->plan);
		free(keep);
		return DFX_OK;
	}
	while (e && *p != e)
		p = &(*p)->next;
	if (e)
	{
		*p = e->next;
		cache_free_entry(e);
	}
	for (char *c = keep; c && *c; c++)
		if (*c == '\n' || *c == '\t')
			*c = ' ';
	e = cache_add(&cache->first, key, gpu_choice_name(choice), keep ? keep : strdup(""));
	if (!e)
	{
		if (choice->lib)
			choice->lib->ops->drop(choice->lib, choice->plan);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a plan");
	}
	e->choice = *choice;
	e->made = true;
	cache->changed = true;
	return DFX_OK;
}

void
gpu_cache_write(GpuCache *cache)
{
	if (cache->changed && cache->path[0])
		cache_write(cache);
	cache->changed = false;
}
