/*
 * version.c
 *	  The canonical stream of a model (version.h) and its hash.
 *
 * Writer and parser of each part stand together, and the parser accepts
 * exactly what the writer makes: what has one meaning has one spelling, or
 * equal models would have different addresses.
 */
#include "base/version.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char version_magic[] = "dfx1\n";

/* --- metadata ------------------------------------------------------------ */

size_t
dfx_meta_text(const DfxModelMeta *meta, char buf[DFX_META_TEXT_MAX])
{
	/* The fields' own sizes bound this far below DFX_META_TEXT_MAX. */
	int n = snprintf(buf, DFX_META_TEXT_MAX,
	                 "backbone=%s\nclasses=%s\nhead_stride=%" PRIu32 "\ninput_size=%" PRIu32 "\nkind=%s\n",
	                 meta->backbone, meta->classes, meta->head_stride, meta->input_size, meta->kind);

	return (size_t) n;
}

/* Take "key=value\n" off the front; the value is printable ASCII and fits cap with its NUL. */
static bool
meta_take(const char **p, const char *end, const char *key, char *value, size_t cap)
{
	size_t klen = strlen(key), n;
	const char *s = *p, *eol;

	if ((size_t) (end - s) < klen + 2 || memcmp(s, key, klen) != 0 || s[klen] != '=')
		return false;
	s += klen + 1;
	eol = memchr(s, '\n', (size_t) (end - s));
	if (!eol || (size_t) (eol - s) >= cap)
		return false;
	n = (size_t) (eol - s);
	for (size_t i = 0; i < n; i++)
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	memcpy(value, s, n);
	value[n] = '\0';
	*p = eol + 1;
	return true;
}

static bool
meta_take_u32(const char **p, const char *end, const char *key, uint32_t *value)
{
	char text[11]; /* 4294967295 */
	uint64_t v = 0;

	if (!meta_take(p, end, key, text, sizeof text) || text[0] == '\0' || (text[0] == '0' && text[1] != '\0'))
		return false;
	for (const char *s = text; *s; s++)
	{
		if (*s < '0' || *s > '9')
			return false;
		v = v * 10 + (uint64_t) (*s - '0');
	}
	if (v > UINT32_MAX)
		return false;
	*value = (uint32_t) v;
	return true;
}

DfxStatus
dfx_meta_parse(const char *text, size_t len, DfxModelMeta *meta, DfxErr *err)
{
	const char *p = text, *end = text + len;
	const char *key;

	memset(meta, 0, sizeof *meta);
	if (!meta_take(&p, end, key = "backbone", meta->backbone, sizeof meta->backbone) ||
	    !meta_take(&p, end, key = "classes", meta->classes, sizeof meta->classes) ||
	    !meta_take_u32(&p, end, key = "head_stride", &meta->head_stride) ||
	    !meta_take_u32(&p, end, key = "input_size", &meta->input_size) ||
	    !meta_take(&p, end, key = "kind", meta->kind, sizeof meta->kind))
		return dfx_fail(err, DFX_EWEIGHTS, "model metadata: line \"%s\" is missing or malformed", key);
	if (p != end)
		return dfx_fail(err, DFX_EWEIGHTS, "model metadata: something follows the line \"kind\"");
	if (meta->backbone[0] == '\0' || meta->kind[0] == '\0')
		return dfx_fail(err, DFX_EWEIGHTS, "model metadata: backbone and kind may not be empty");
	return DFX_OK;
}

/* --- tensor heads -------------------------------------------------------- */

static uint8_t *
head_put(uint8_t *p, uint64_t value, int nbytes)
{
	for (int i = 0; i < nbytes; i++)
		*p++ = (uint8_t) (value >> (8 * i));
	return p;
}

static uint64_t
head_get(const uint8_t *p, int nbytes)
{
	uint64_t value = 0;

	for (int i = 0; i < nbytes; i++)
		value |= (uint64_t) p[i] << (8 * i);
	return value;
}

size_t
dfx_tensor_head(const DfxTensor *t, uint8_t buf[DFX_TENSOR_HEAD_MAX])
{
	const char *dtype = dfx_dtype_name(t->dtype);
	size_t name_size = strlen(t->name) + 1, dtype_size = strlen(dtype) + 1;
	uint8_t *p = buf;

	memcpy(p, t->name, name_size);
	p += name_size;
	memcpy(p, dtype, dtype_size);
	p += dtype_size;
	p = head_put(p, t->rank, 4);
	for (uint32_t i = 0; i < t->rank && i < DFX_MAX_RANK; i++)
		p = head_put(p, t->dim[i], 8);
	p = head_put(p, t->nbytes, 8);
	return (size_t) (p - buf);
}

/* The string at *pos, at most max bytes with its NUL: DFX_OK, DFX_TOO_SMALL (not all there), DFX_EWEIGHTS. */
static DfxStatus
head_string(const uint8_t *p, size_t len, size_t *pos, size_t max, const char **s, size_t *slen)
{
	size_t have = len - *pos;
	const uint8_t *start = p + *pos;
	const uint8_t *nul = memchr(start, 0, have < max ? have : max);

	if (!nul)
		return have < max ? DFX_TOO_SMALL : DFX_EWEIGHTS;
	*s = (const char *) start;
	*slen = (size_t) (nul - start);
	*pos += *slen + 1;
	return DFX_OK;
}

DfxStatus
dfx_tensor_head_parse(const uint8_t *p, size_t len, DfxTensor *t, size_t *used, DfxErr *err)
{
	const char *name, *dtype;
	size_t name_len, dtype_len, pos = 0;
	uint64_t elements, nbytes;
	DfxStatus st;

	if (len == 0)
		return DFX_TOO_SMALL;
	memset(t, 0, sizeof *t);
	st = head_string(p, len, &pos, DFX_NAME_LEN, &name, &name_len);
	if (st == DFX_TOO_SMALL)
		return st;
	if (st != DFX_OK || name_len == 0)
		return dfx_fail(err, DFX_EWEIGHTS, "model stream: a tensor's name is empty or longer than %d bytes",
		                DFX_NAME_LEN - 1);
	memcpy(t->name, name, name_len);

	st = head_string(p, len, &pos, 8, &dtype, &dtype_len);
	if (st == DFX_TOO_SMALL)
		return st;
	if (st != DFX_OK || !dfx_dtype_parse(dtype, dtype_len, &t->dtype))
		return dfx_fail(err, DFX_EWEIGHTS, "model stream: tensor \"%s\" has an unknown dtype", t->name);

	if (len - pos < 4)
		return DFX_TOO_SMALL;
	t->rank = (uint32_t) head_get(p + pos, 4);
	pos += 4;
	if (t->rank > DFX_MAX_RANK)
		return dfx_fail(err, DFX_EWEIGHTS, "model stream: tensor \"%s\" has rank %" PRIu32 ", at most %d",
		                t->name, t->rank, DFX_MAX_RANK);
	if (len - pos < 8 * (size_t) t->rank + 8)
		return DFX_TOO_SMALL;
	for (uint32_t i = 0; i < t->rank; i++, pos += 8)
		t->dim[i] = head_get(p + pos, 8);
	t->nbytes = head_get(p + pos, 8);
	pos += 8;
	if (!dfx_tensor_count(t, &elements, &nbytes) || nbytes != t->nbytes)
		return dfx_fail(err, DFX_EWEIGHTS,
		                "model stream: tensor \"%s\" announces %" PRIu64 " bytes, which its shape denies",
		                t->name, t->nbytes);
	*used = pos;
	return DFX_OK;
}

/* --- hashing ------------------------------------------------------------- */

void
dfx_version_begin(DfxVersioner *v, const DfxModelMeta *meta)
{
	char text[DFX_META_TEXT_MAX];
	size_t len = dfx_meta_text(meta, text);

	dfx_sha256_init(&v->sha);
	dfx_sha256_update(&v->sha, version_magic, sizeof version_magic - 1);
	dfx_sha256_update(&v->sha, text, len);
}

void
dfx_version_tensor(DfxVersioner *v, const DfxTensor *t)
{
	uint8_t head[DFX_TENSOR_HEAD_MAX];

	dfx_sha256_update(&v->sha, head, dfx_tensor_head(t, head));
}

void
dfx_version_bytes(DfxVersioner *v, const void *p, size_t n)
{
	dfx_sha256_update(&v->sha, p, n);
}

void
dfx_version_end(DfxVersioner *v, uint8_t version[DFX_VERSION_LEN])
{
	dfx_sha256_final(&v->sha, version);
}

void
dfx_version_hex(const uint8_t version[DFX_VERSION_LEN], char hex[DFX_VERSION_HEX_LEN])
{
	static const char digit[] = "0123456789abcdef";

	for (int i = 0; i < DFX_VERSION_LEN; i++)
	{
		hex[2 * i] = digit[version[i] >> 4];
		hex[2 * i + 1] = digit[version[i] & 15];
	}
	hex[2 * DFX_VERSION_LEN] = '\0';
}
