/*
 * safetensors.c
 *	  Reader and writer of safetensors headers.
 *
 * Reading goes in three steps, each of which may rely on the one before:
 * the JSON text becomes entries (grammar, dtypes, shapes), entries sorted by
 * name show duplicates, extents sorted by offset must tile the data exactly.
 * All working memory is proportional to the header, which is bounded.
 */
#include "base/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"

#define ST_SUBJECT  "safetensors header"
#define ST_MAX_META 4096

typedef struct StExtent
{
	uint64_t begin, end; /* from the start of the data */
} StExtent;

typedef struct StEntry
{
	DfxTensor tensor;
	StExtent extent;
} StEntry;

typedef struct StReader
{
	DfxJson json;
	StEntry *entry;
	size_t nentry, entry_cap;
	DfxStMeta *meta;
	size_t nmeta, meta_cap;
	bool have_meta; /* even an empty __metadata__ may come only once */
	DfxErr *err;
} StReader;

/* --- step 1: the grammar ------------------------------------------------- */

static DfxStatus
st_syntax(StReader *r, const char *what)
{
	dfx_json_refuse(&r->json, what);
	return dfx_json_error(&r->json, r->err, DFX_EWEIGHTS, ST_SUBJECT);
}

static DfxStatus
st_no_memory(DfxErr *err)
{
	return dfx_fail(err, DFX_ENOMEM, "out of memory reading a " ST_SUBJECT);
}

/* Room for one more element of an array that doubles. */
static void *
st_grow(void *array, size_t *cap, size_t used, size_t size)
{
	size_t more = *cap ? *cap * 2 : 64;
	void *p;

	if (used < *cap)
		return array;
	p = realloc(array, more * size);
	if (p)
		*cap = more;
	return p;
}

/* "__metadata__": {"key": "value", ...} */
static DfxStatus
st_read_meta(StReader *r)
{
	if (r->have_meta)
		return st_syntax(r, "second __metadata__");
	r->have_meta = true;
	if (!dfx_json_expect(&r->json, '{'))
		return st_syntax(r, "");
	if (dfx_json_accept(&r->json, '}'))
		return DFX_OK;
	do
	{
		DfxStMeta *grown = st_grow(r->meta, &r->meta_cap, r->nmeta, sizeof *r->meta);
		DfxStMeta *m;
		size_t cap, len;

		if (!grown)
			return st_no_memory(r->err);
		r->meta = grown;
		if (r->nmeta == ST_MAX_META)
			return st_syntax(r, "too many metadata entries");
		m = &r->meta[r->nmeta];
		if (!dfx_json_string_in(&r->json, m->key, sizeof m->key, &len) || !dfx_json_expect(&r->json, ':'))
			return st_syntax(r, "");
		cap = dfx_json_string_bound(&r->json) + 1;
		m->value = malloc(cap);
		if (!m->value)
			return st_no_memory(r->err);
		r->nmeta++;
		if (!dfx_json_string_in(&r->json, m->value, cap, &len))
			return st_syntax(r, "");
	} while (dfx_json_accept(&r->json, ','));
	return dfx_json_expect(&r->json, '}') ? DFX_OK : st_syntax(r, "");
}

/* A list of at most max numbers; more are refused by name. */
static bool
st_read_numbers(DfxJson *j, uint64_t *value, uint32_t max, uint32_t *n, const char *too_many)
{
	*n = 0;
	if (!dfx_json_expect(j, '['))
		return false;
	if (dfx_json_accept(j, ']'))
		return true;
	do
	{
		if (*n == max)
			return dfx_json_refuse(j, too_many);
		if (!dfx_json_u64(j, &value[(*n)++]))
			return false;
	} while (dfx_json_accept(j, ','));
	return dfx_json_expect(j, ']');
}

/* {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, in any order, each once, nothing else. */
static DfxStatus
st_read_tensor(StReader *r, StEntry *e)
{
	enum
	{
		DTYPE = 1,
		SHAPE = 2,
		OFFSETS = 4
	};
	DfxJson *j = &r->json;
	char word[16];
	uint64_t offset[2];
	uint32_t noffset = 0;
	int seen = 0;
	size_t len;

	if (!dfx_json_expect(j, '{'))
		return st_syntax(r, "");
	do
	{
		int field = 0;

		if (!dfx_json_string_in(j, word, sizeof word, &len) || !dfx_json_expect(j, ':'))
			return st_syntax(r, "");
		if (strcmp(word, "dtype") == 0)
		{
			field = DTYPE;
			if (!dfx_json_string_in(j, word, sizeof word, &len))
				return st_syntax(r, "");
			if (!dfx_dtype_parse(word, len, &e->tensor.dtype))
				return dfx_fail(r->err, DFX_EWEIGHTS,
				                "tensor \"%s\" has dtype \"%s\"; F32, F16, BF16 and I64 are supported",
				                e->tensor.name, word);
		}
		else if (strcmp(word, "shape") == 0)
		{
			field = SHAPE;
			if (!st_read_numbers(j, e->tensor.dim, DFX_MAX_RANK, &e->tensor.rank, "more than 8 dimensions"))
				return st_syntax(r, "");
		}
		else if (strcmp(word, "data_offsets") == 0)
		{
			field = OFFSETS;
			if (!st_read_numbers(j, offset, 2, &noffset, "more than two offsets"))
				return st_syntax(r, "");
		}
		else
			return st_syntax(r, "unknown key of a tensor");
		if (seen & field)
			return st_syntax(r, "duplicate key of a tensor");
		seen |= field;
	} while (dfx_json_accept(j, ','));
	if (!dfx_json_expect(j, '}'))
		return st_syntax(r, "");
	if (seen != (DTYPE | SHAPE | OFFSETS) || noffset != 2)
		return dfx_fail(r->err, DFX_EWEIGHTS, "tensor \"%s\" lacks dtype, shape or two data_offsets",
		                e->tensor.name);
	e->extent = (StExtent){offset[0], offset[1]};
	return DFX_OK;
}

/* One tensor's own consistency: its shape against its extent against the file. */
static DfxStatus
st_check_extent(StReader *r, StEntry *e, uint64_t data_size)
{
	DfxTensor *t = &e->tensor;
	uint64_t elements;

	if (!dfx_tensor_count(t, &elements, &t->nbytes))
		return dfx_fail(r->err, DFX_EWEIGHTS, "tensor \"%s\": its shape overflows 64 bits", t->name);
	if (e->extent.begin > e->extent.end || e->extent.end > data_size)
		return dfx_fail(r->err, DFX_EWEIGHTS,
		                "tensor \"%s\" lies at %" PRIu64 " .. %" PRIu64 ", outside the data of %" PRIu64
		                " bytes",
		                t->name, e->extent.begin, e->extent.end, data_size);
	if (e->extent.end - e->extent.begin != t->nbytes)
		return dfx_fail(r->err, DFX_EWEIGHTS,
		                "tensor \"%s\" needs %" PRIu64 " bytes by its shape, but has %" PRIu64, t->name,
		                t->nbytes, e->extent.end - e->extent.begin);
	return DFX_OK;
}

static DfxStatus
st_read_member(StReader *r, uint64_t data_size)
{
	StEntry *grown = st_grow(r->entry, &r->entry_cap, r->nentry, sizeof *r->entry);
	StEntry *e;
	size_t len;
	DfxStatus status;

	if (!grown)
		return st_no_memory(r->err);
	r->entry = grown;
	e = &r->entry[r->nentry];
	memset(e, 0, sizeof *e);
	if (!dfx_json_string_in(&r->json, e->tensor.name, sizeof e->tensor.name, &len) ||
	    !dfx_json_expect(&r->json, ':'))
		return st_syntax(r, "");
	if (strcmp(e->tensor.name, "__metadata__") == 0)
		return st_read_meta(r);
	if (len == 0)
		return st_syntax(r, "empty tensor name");
	if (r->nentry == DFX_ST_MAX_TENSORS)
		return st_syntax(r, "too many tensors");
	r->nentry++;
	status = st_read_tensor(r, e);
	return status == DFX_OK ? st_check_extent(r, e, data_size) : status;
}

static DfxStatus
st_read_header(StReader *r, uint64_t data_size)
{
	if (r->json.p == r->json.end || *r->json.p != '{')
		return st_syntax(r, "does not begin with \"{\"");
	dfx_json_expect(&r->json, '{');
	if (!dfx_json_accept(&r->json, '}'))
	{
		do
		{
			DfxStatus status = st_read_member(r, data_size);

			if (status != DFX_OK)
				return status;
		} while (dfx_json_accept(&r->json, ','));
		if (!dfx_json_expect(&r->json, '}'))
			return st_syntax(r, "");
	}
	return dfx_json_at_end(&r->json) ? DFX_OK : st_syntax(r, "");
}

/* --- steps 2 and 3: names are unique, extents tile the data ---------------- */

static int
st_compare_names(const void *a, const void *b)
{
	/* strcmp compares bytes as unsigned char, which is what "byte order" means everywhere. */
	return strcmp(((const StEntry *) a)->tensor.name, ((const StEntry *) b)->tensor.name);
}

static int
st_compare_keys(const void *a, const void *b)
{
	return strcmp(((const DfxStMeta *) a)->key, ((const DfxStMeta *) b)->key);
}

static int
st_compare_extents(const void *a, const void *b)
{
	const StExtent *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end; /* empty tensors before what they touch */
}

static DfxStatus
st_check_names(StReader *r)
{
	if (r->nentry > 1)
		qsort(r->entry, r->nentry, sizeof *r->entry, st_compare_names);
	for (size_t i = 1; i < r->nentry; i++)
		if (strcmp(r->entry[i - 1].tensor.name, r->entry[i].tensor.name) == 0)
			return dfx_fail(r->err, DFX_EWEIGHTS, "duplicate tensor \"%s\"", r->entry[i].tensor.name);
	if (r->nmeta > 1)
		qsort(r->meta, r->nmeta, sizeof *r->meta, st_compare_keys);
	for (size_t i = 1; i < r->nmeta; i++)
		if (strcmp(r->meta[i - 1].key, r->meta[i].key) == 0)
			return dfx_fail(r->err, DFX_EWEIGHTS, "duplicate metadata key \"%s\"", r->meta[i].key);
	return DFX_OK;
}

static DfxStatus
st_check_tiling(StReader *r, uint64_t data_size)
{
	StExtent *sorted;
	uint64_t reached = 0;
	DfxStatus status = DFX_OK;

	sorted = malloc((r->nentry ? r->nentry : 1) * sizeof *sorted);
	if (!sorted)
		return st_no_memory(r->err);
	for (size_t i = 0; i < r->nentry; i++)
		sorted[i] = r->entry[i].extent;
	if (r->nentry > 1)
		qsort(sorted, r->nentry, sizeof *sorted, st_compare_extents);
	for (size_t i = 0; i < r->nentry && status == DFX_OK; i++)
	{
		if (sorted[i].begin != reached)
			status =
			    dfx_fail(r->err, DFX_EWEIGHTS, "safetensors data: %s between bytes %" PRIu64 " and %" PRIu64,
			             sorted[i].begin < reached ? "overlap" : "hole",
			             sorted[i].begin < reached ? sorted[i].begin : reached,
			             sorted[i].begin < reached ? reached : sorted[i].begin);
		reached = sorted[i].end;
	}
	if (status == DFX_OK && reached != data_size)
		status = dfx_fail(r->err, DFX_EWEIGHTS, "safetensors data: %" PRIu64 " bytes belong to no tensor",
		                  data_size - reached);
	free(sorted);
	return status;
}

/* --- the reader's public face --------------------------------------------- */

DfxStatus
dfx_st_header_length(const uint8_t first8[8], uint64_t file_size, uint64_t *json_len, DfxErr *err)
{
	uint64_t n = 0;

	for (int i = 0; i < 8; i++)
		n |= (uint64_t) first8[i] << (8 * i);
	if (file_size < 8 || n > file_size - 8)
		return dfx_fail(err, DFX_EWEIGHTS,
		                "not a safetensors file: it announces a header of %" PRIu64 " bytes, but has %" PRIu64
		                " in all",
		                n, file_size);
	if (n < 2)
		return dfx_fail(err, DFX_EWEIGHTS, "not a safetensors file: its header is empty");
	if (n > DFX_ST_MAX_HEADER)
		return dfx_fail(err, DFX_EWEIGHTS, ST_SUBJECT " of %" PRIu64 " bytes, at most %u are accepted", n,
		                DFX_ST_MAX_HEADER);
	*json_len = n;
	return DFX_OK;
}

/* Move what was read into *st; the reader keeps nothing it would have to free. */
static DfxStatus
st_hand_over(StReader *r, DfxSafetensors *st)
{
	size_t n = r->nentry ? r->nentry : 1; /* malloc(0) may be NULL */

	st->tensor = malloc(n * sizeof *st->tensor);
	st->offset = malloc(n * sizeof *st->offset);
	if (!st->tensor || !st->offset)
		return st_no_memory(r->err);
	for (size_t i = 0; i < r->nentry; i++)
	{
		st->tensor[i] = r->entry[i].tensor;
		st->offset[i] = st->data_start + r->entry[i].extent.begin;
	}
	st->ntensor = r->nentry;
	return DFX_OK;
}

DfxStatus
dfx_st_parse(const char *json, size_t json_len, uint64_t file_size, DfxSafetensors *st, DfxErr *err)
{
	StReader r = {.err = err};
	uint64_t data_size;
	DfxStatus status;

	memset(st, 0, sizeof *st);
	if (json_len > DFX_ST_MAX_HEADER || file_size < 8 || json_len > file_size - 8)
		return dfx_fail(err, DFX_EWEIGHTS, ST_SUBJECT " of %zu bytes does not fit its file", json_len);
	st->data_start = 8 + (uint64_t) json_len;
	st->file_size = file_size;
	data_size = file_size - st->data_start;

	dfx_json_init(&r.json, json, json_len);
	status = st_read_header(&r, data_size);
	if (status == DFX_OK)
		status = st_check_names(&r);
	if (status == DFX_OK)
		status = st_check_tiling(&r, data_size);
	if (status == DFX_OK)
		status = st_hand_over(&r, st);
	st->meta = r.meta; /* also on failure, so that one function frees all */
	st->nmeta = r.nmeta;
	free(r.entry);
	if (status != DFX_OK)
		dfx_st_free(st);
	return status;
}

DfxStatus
dfx_st_view(const uint8_t *bytes, uint64_t len, DfxSafetensors *st, DfxErr *err)
{
	uint64_t json_len = 0;
	DfxStatus status;

	memset(st, 0, sizeof *st);
	if (len < 8)
		return dfx_fail(err, DFX_EWEIGHTS, "%" PRIu64 " bytes are too short for a safetensors file", len);
	status = dfx_st_header_length(bytes, len, &json_len, err);
	if (status == DFX_OK)
		status = dfx_st_parse((const char *) bytes + 8, (size_t) json_len, len, st, err);
	for (size_t i = 0; status == DFX_OK && i < st->ntensor; i++)
		st->tensor[i].data = bytes + st->offset[i];
	return status;
}

static DfxStatus
st_map(int fd, const char *path, DfxSafetensors *st, DfxErr *err)
{
	struct stat sb;
	uint8_t *map;
	DfxStatus status;

	if (fstat(fd, &sb) != 0)
		return dfx_fail(err, DFX_EIO, "could not stat \"%s\": %s", path, strerror(errno));
	if (!S_ISREG(sb.st_mode))
		return dfx_fail(err, DFX_EIO, "\"%s\" is not a regular file", path);
	if (sb.st_size < 8)
		return dfx_fail(err, DFX_EWEIGHTS, "\"%s\" is too short for a safetensors file", path);
	map = mmap(NULL, (size_t) sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return dfx_fail(err, DFX_EIO, "could not map \"%s\": %s", path, strerror(errno));
	status = dfx_st_view(map, (uint64_t) sb.st_size, st, err);
	if (status != DFX_OK)
	{
		munmap(map, (size_t) sb.st_size);
		return status;
	}
	st->map = map;
	return DFX_OK;
}

DfxStatus
dfx_st_open(const char *path, DfxSafetensors *st, DfxErr *err)
{
	int fd;
	DfxStatus status;

	memset(st, 0, sizeof *st);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us before fstat() sees it */
	if (fd < 0)
		return dfx_fail(err, DFX_EIO, "could not open \"%s\": %s", path, strerror(errno));
	status = st_map(fd, path, st, err);
	close(fd);
	return status;
}

void
dfx_st_free(DfxSafetensors *st)
{
	for (size_t i = 0; i < st->nmeta; i++)
		free(st->meta[i].value);
	free(st->meta);
	free(st->tensor);
	free(st->offset);
	if (st->map)
		munmap(st->map, (size_t) st->file_size);
	memset(st, 0, sizeof *st);
}

/* Both arrays are sorted by their first member, a string, which the key stands for. */
static int
st_compare_key_name(const void *key, const void *tensor)
{
	return strcmp(key, ((const DfxTensor *) tensor)->name);
}

static int
st_compare_key_meta(const void *key, const void *meta)
{
	return strcmp(key, ((const DfxStMeta *) meta)->key);
}

const DfxTensor *
dfx_st_find(const DfxSafetensors *st, const char *name)
{
	if (st->ntensor == 0)
		return NULL;
	return bsearch(name, st->tensor, st->ntensor, sizeof *st->tensor, st_compare_key_name);
}

const char *
dfx_st_meta(const DfxSafetensors *st, const char *key)
{
	const DfxStMeta *m = NULL;

	if (st->nmeta > 0)
		m = bsearch(key, st->meta, st->nmeta, sizeof *st->meta, st_compare_key_meta);
	return m ? m->value : NULL;
}
