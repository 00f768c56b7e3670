/*
 * train_list.c
 *	  Directories and CSV files to a list of labelled images.
 */
#include "engine/train_list.h"

#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/sha256.h"
#include "engine/command.h"
#include "train/split.h"

#define LIST_CSV_MAX ((uint64_t) 1 << 30)

void
dfx_train_list_free(DfxTrainList *list)
{
	for (size_t i = 0; i < list->n; i++)
	{
		free(list->file[i].path);
		free(list->file[i].generator);
	}
	free(list->file);
	*list = (DfxTrainList){0};
}

/* A new entry, all zeroes; NULL when memory is out. */
static DfxTrainFile *
list_add(DfxTrainList *list, DfxErr *err)
{
	if (list->n == list->cap)
	{
		size_t cap = list->cap ? 2 * list->cap : 256;
		DfxTrainFile *p = realloc(list->file, cap * sizeof *p);

		if (!p)
		{
			dfx_fail(err, DFX_ENOMEM, "out of memory for a list of %zu files", cap);
			return NULL;
		}
		list->file = p;
		list->cap = cap;
	}
	list->file[list->n] = (DfxTrainFile){.label = -1};
	return &list->file[list->n++];
}

/* --- directories --------------------------------------------------------- */

static DfxStatus
list_file(DfxTrainList *list, const FTSENT *e, int label, DfxErr *err)
{
	DfxTrainFile *f;

	if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
		return dfx_fail(err, DFX_EIO, "could not read \"%s\": %s", e->fts_path, strerror(e->fts_errno));
	if (e->fts_info != FTS_F)
		return DFX_OK;
	f = list_add(list, err);
	if (!f)
		return DFX_ENOMEM;
	f->label = label;
	f->path = strdup(e->fts_path);
	return f->path ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory for a file's name");
}

static DfxStatus
list_class(DfxTrainList *list, const char *from, int label, DfxErr *err)
{
	char path[4096], *paths[] = {path, NULL};
	DfxStatus st = DFX_OK;
	FTSENT *e;
	FTS *walk;

	if (snprintf(path, sizeof path, "%s/%s", from, dfx_train_class[label]) >= (int) sizeof path)
		return dfx_fail(err, DFX_EIO, "too long a name: \"%.100s\"", from);
	walk = fts_open(paths, FTS_LOGICAL | FTS_NOCHDIR, NULL);
	if (!walk)
		return dfx_fail(err, DFX_EIO, "could not read \"%s\": %s", path, strerror(errno));
	while (st == DFX_OK && (e = fts_read(walk)) != NULL)
		st = list_file(list, e, label, err);
	fts_close(walk);
	return st;
}

/* --- CSV ----------------------------------------------------------------- */

typedef enum ListColumn
{
	COLUMN_PATH,
	COLUMN_LABEL,
	COLUMN_GROUP,
	COLUMN_GENERATOR,
	COLUMN_SPLIT,
	COLUMN_COUNT
} ListColumn;
static const char *const list_column[COLUMN_COUNT] = {"path", "label", "group", "generator", "split"};

#define LIST_FIELDS 256

typedef struct Csv
{
	char *p; /* the rest of the text, which is NUL-terminated and taken apart in place */
	size_t line;
	char *field[LIST_FIELDS];
	int nfield;
} Csv;

/* One quoted field, unquoted in place; the byte after its end.  NULL: no closing quote. */
static char *
csv_quoted(Csv *c)
{
	char *from = c->p + 1, *to = c->p;

	for (;; from++)
	{
		if (*from == '\0')
			return NULL;
		c->line += *from == '\n';
		if (*from == '"' && from[1] != '"')
			break;
		from += *from == '"';
		*to++ = *from;
	}
	*to = '\0';
	return from + 1;
}

/* The next record; false at the end.  Blank lines are no records. */
static bool
csv_record(Csv *c, DfxErr *err)
{
	char *end, after;

	for (; *c->p == '\n' || *c->p == '\r'; c->p++)
		c->line += *c->p == '\n';
	c->nfield = 0;
	if (*c->p == '\0')
		return false;
	do
	{
		if (c->nfield == LIST_FIELDS)
			return dfx_fail(err, DFX_EINVAL, "line %zu: more than %d fields", c->line, LIST_FIELDS), false;
		c->field[c->nfield++] = c->p;
		end = *c->p == '"' ? csv_quoted(c) : c->p + strcspn(c->p, ",\r\n");
		if (!end || (*end && !strchr(",\r\n", *end)))
			return dfx_fail(err, DFX_EINVAL, "line %zu: a quoted field has no end", c->line), false;
		after = *end;
		*end = '\0';
		c->p = end + (after != '\0');
	} while (after == ',');
	c->line += after == '\n';
	return true;
}

static char *
csv_path(const char *list, const char *path)
{
	const char *slash = strrchr(list, '/');
	size_t dir = path[0] != '/' && slash ? (size_t) (slash + 1 - list) : 0;
	char *joined = malloc(dir + strlen(path) + 1);

	if (joined)
	{
		memcpy(joined, list, dir);
		strcpy(joined + dir, path);
	}
	return joined;
}

static const char *
csv_field(const Csv *c, const int *at, ListColumn column)
{
	return at[column] >= 0 ? c->field[at[column]] : "";
}

static DfxStatus
csv_entry(const Csv *c, const int *at, size_t line, const char *from, DfxTrainList *list, DfxErr *err)
{
	const char *group = csv_field(c, at, COLUMN_GROUP), *generator = csv_field(c, at, COLUMN_GENERATOR);
	const char *label = csv_field(c, at, COLUMN_LABEL), *split = csv_field(c, at, COLUMN_SPLIT);
	DfxTrainFile *f = list_add(list, err);

	if (!f)
		return DFX_ENOMEM;
	f->path = csv_path(from, csv_field(c, at, COLUMN_PATH));
	f->generator = generator[0] ? strdup(generator) : NULL;
	if (!f->path || (generator[0] && !f->generator))
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a file's name");
	f->label = dfx_train_class_find(label);
	if (f->label < 0)
		return dfx_fail(err, DFX_EINVAL, "line %zu: label \"%.32s\" is none of dm, gan, real", line, label);
	if (split[0] && !dfx_split_parse(split, &f->split))
		return dfx_fail(err, DFX_EINVAL, "line %zu: \"%.32s\" is no split", line, split);
	f->grouped = group[0] != '\0';
	if (f->grouped)
	{
		DfxSha256 s;

		dfx_sha256_init(&s);
		dfx_sha256_update(&s, group, strlen(group));
		dfx_sha256_final(&s, f->group);
	}
	return DFX_OK;
}

static DfxStatus
csv_header(const Csv *c, int at[COLUMN_COUNT], DfxErr *err)
{
	for (int k = 0; k < COLUMN_COUNT; k++)
	{
		at[k] = -1;
		for (int i = 0; i < c->nfield; i++)
			if (strcmp(c->field[i], list_column[k]) == 0)
				at[k] = i;
	}
	if (at[COLUMN_PATH] < 0 || at[COLUMN_LABEL] < 0)
		return dfx_fail(err, DFX_EINVAL, "line 1: there is no column \"%s\"",
		                list_column[at[COLUMN_PATH] < 0 ? COLUMN_PATH : COLUMN_LABEL]);
	return DFX_OK;
}

static DfxStatus
csv_all(char *text, const char *from, DfxTrainList *list, DfxErr *err)
{
	Csv c = {.p = text, .line = 1};
	int at[COLUMN_COUNT], columns;
	DfxStatus st;

	err->code = DFX_OK;
	if (!csv_record(&c, err))
		return err->code != DFX_OK ? err->code : dfx_fail(err, DFX_EINVAL, "there is no header");
	st = csv_header(&c, at, err);
	columns = c.nfield;
	while (st == DFX_OK)
	{
		size_t line;

		if (!csv_record(&c, err))
			return err->code;
		line = c.line - 1;
		if (c.nfield != columns)
			st = dfx_fail(err, DFX_EINVAL, "line %zu: %d fields instead of %d", line, c.nfield, columns);
		else
			st = csv_entry(&c, at, line, from, list, err);
	}
	return st;
}

static DfxStatus
list_csv(const char *from, DfxTrainList *list, DfxErr *err)
{
	uint8_t *bytes;
	size_t len;
	char *text;
	DfxErr what;
	DfxStatus st = dfx_read_file(from, LIST_CSV_MAX, &bytes, &len, err);

	if (st != DFX_OK)
		return st;
	text = realloc(bytes, len + 1);
	if (!text)
	{
		free(bytes);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for \"%s\"", from);
	}
	text[len] = '\0';
	st = csv_all(text, from, list, &what);
	free(text);
	if (st != DFX_OK)
		dfx_fail(err, st, "\"%.128s\": %.100s", from, what.msg);
	return st;
}

/* --- public -------------------------------------------------------------- */

DfxStatus
dfx_train_list(const char *from, DfxTrainList *list, DfxErr *err)
{
	DfxStatus st = DFX_OK;
	struct stat sb;

	*list = (DfxTrainList){0};
	if (stat(from, &sb) != 0)
		return dfx_fail(err, DFX_EIO, "could not open \"%s\": %s", from, strerror(errno));
	if (!S_ISDIR(sb.st_mode))
		st = list_csv(from, list, err);
	else
		for (int c = 0; c < DFX_TRAIN_CLASSES && st == DFX_OK; c++)
			st = list_class(list, from, c, err);
	if (st != DFX_OK)
		dfx_train_list_free(list);
	return st;
}

static int
list_by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

DfxStatus
dfx_train_list_generators(const DfxTrainList *list, DfxTrainConfig *c, DfxErr *err)
{
	for (size_t i = 0; i < list->n; i++)
	{
		const char *name = list->file[i].generator;
		int k = 0;

		while (name && k < c->ngenerator && strcmp(c->generator[k], name) != 0)
			k++;
		if (!name || k < c->ngenerator)
			continue;
		if (k == DFX_GENERATORS)
			return dfx_fail(err, DFX_ELIMIT, "more than %d generators", DFX_GENERATORS);
		if (strlen(name) >= DFX_GENERATOR_LEN)
			return dfx_fail(err, DFX_ELIMIT, "generator \"%.32s...\": a name has at most %d bytes", name,
			                DFX_GENERATOR_LEN - 1);
		strcpy(c->generator[c->ngenerator++], name);
	}
	qsort(c->generator, (size_t) c->ngenerator, DFX_GENERATOR_LEN, list_by_name);
	return DFX_OK;
}
