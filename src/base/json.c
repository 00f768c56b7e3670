/*
 * json.c
 *	  The pull reader and the string writer of json.h.
 */
#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- UTF-8 --------------------------------------------------------------- */

/* Length of the well-formed UTF-8 sequence at p (Unicode table 3-7), 0 if there is none. */
static size_t
json_utf8_len(const unsigned char *p, const unsigned char *end)
{
	unsigned char lo = 0x80, hi = 0xbf;
	size_t n;

	if (p >= end)
		return 0;
	if (p[0] < 0x80)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		n = 2;
	else if ((p[0] & 0xf0) == 0xe0)
	{
		n = 3;
		if (p[0] == 0xe0)
			lo = 0xa0; /* shorter forms exist */
		else if (p[0] == 0xed)
			hi = 0x9f; /* surrogates */
	}
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
	{
		n = 4;
		if (p[0] == 0xf0)
			lo = 0x90;
		else if (p[0] == 0xf4)
			hi = 0x8f; /* above U+10FFFF */
	}
	else
		return 0;
	if ((size_t) (end - p) < n || p[1] < lo || p[1] > hi)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* Encode a scalar value; returns its length. */
static size_t
json_utf8_put(uint32_t c, char out[4])
{
	if (c < 0x80)
	{
		out[0] = (char) c;
		return 1;
	}
	if (c < 0x800)
	{
		out[0] = (char) (0xc0 | c >> 6);
		out[1] = (char) (0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000)
	{
		out[0] = (char) (0xe0 | c >> 12);
		out[1] = (char) (0x80 | (c >> 6 & 0x3f));
		out[2] = (char) (0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char) (0xf0 | c >> 18);
	out[1] = (char) (0x80 | (c >> 12 & 0x3f));
	out[2] = (char) (0x80 | (c >> 6 & 0x3f));
	out[3] = (char) (0x80 | (c & 0x3f));
	return 4;
}

/* --- reader -------------------------------------------------------------- */

void
dfx_json_init(DfxJson *j, const char *text, size_t len)
{
	*j = (DfxJson){.start = text, .p = text, .end = text + len};
}

bool
dfx_json_refuse(DfxJson *j, const char *what)
{
	if (!j->what)
	{
		j->what = what;
		j->where = j->p;
	}
	return false;
}

DfxStatus
dfx_json_error(const DfxJson *j, DfxErr *err, DfxStatus code, const char *subject)
{
	return dfx_fail(err, code, "%s: %s at byte %zu", subject, j->what ? j->what : "no failure",
	                (size_t) ((j->what ? j->where : j->p) - j->start));
}

static void
json_skip_space(DfxJson *j)
{
	while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r'))
		j->p++;
}

bool
dfx_json_accept(DfxJson *j, char c)
{
	if (j->what)
		return false;
	json_skip_space(j);
	if (j->p < j->end && *j->p == c)
	{
		j->p++;
		return true;
	}
	return false;
}

bool
dfx_json_expect(DfxJson *j, char c)
{
	if (dfx_json_accept(j, c))
		return true;
	switch (c)
	{
		case '{':
			return dfx_json_refuse(j, "\"{\" expected");
		case '}':
			return dfx_json_refuse(j, "\",\" or \"}\" expected");
		case '[':
			return dfx_json_refuse(j, "\"[\" expected");
		case ']':
			return dfx_json_refuse(j, "\",\" or \"]\" expected");
		case ':':
			return dfx_json_refuse(j, "\":\" expected");
		default:
			return dfx_json_refuse(j, "unexpected character");
	}
}

bool
dfx_json_at_end(DfxJson *j)
{
	if (j->what)
		return false;
	json_skip_space(j);
	return j->p == j->end || dfx_json_refuse(j, "something follows the JSON text");
}

/* Four hexadecimal digits. */
static bool
json_hex4(DfxJson *j, uint32_t *value)
{
	uint32_t v = 0;

	if (j->end - j->p < 4)
		return dfx_json_refuse(j, "unterminated string");
	for (int i = 0; i < 4; i++, j->p++)
	{
		char c = *j->p;

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint32_t) (c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			v = v << 4 | (uint32_t) ((c | 0x20) - 'a' + 10);
		else
			return dfx_json_refuse(j, "malformed \\u escape");
	}
	*value = v;
	return true;
}

/* What follows \u: one escape, or the two of a surrogate pair. */
static bool
json_unicode(DfxJson *j, uint32_t *c)
{
	uint32_t low;

	if (!json_hex4(j, c))
		return false;
	if (*c == 0)
		return dfx_json_refuse(j, "U+0000 in a string");
	if (*c >= 0xdc00 && *c <= 0xdfff)
		return dfx_json_refuse(j, "lone surrogate");
	if (*c < 0xd800 || *c > 0xdbff)
		return true;
	if (j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u')
		return dfx_json_refuse(j, "lone surrogate");
	j->p += 2;
	if (!json_hex4(j, &low))
		return false;
	if (low < 0xdc00 || low > 0xdfff)
		return dfx_json_refuse(j, "lone surrogate");
	*c = 0x10000 + ((*c - 0xd800) << 10) + (low - 0xdc00);
	return true;
}

/* One character of a string, decoded into out; *n is its length. */
static bool
json_char(DfxJson *j, char out[4], size_t *n)
{
	static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
	unsigned char c = (unsigned char) *j->p;
	uint32_t code;

	if (c < 0x20)
		return dfx_json_refuse(j, "control character in a string");
	if (c != '\\')
	{
		*n = json_utf8_len((const unsigned char *) j->p, (const unsigned char *) j->end);
		if (*n == 0)
			return dfx_json_refuse(j, "invalid UTF-8");
		memcpy(out, j->p, *n);
		j->p += *n;
		return true;
	}
	if (++j->p == j->end)
		return dfx_json_refuse(j, "unterminated string");
	if (*j->p == 'u')
	{
		j->p++;
		if (!json_unicode(j, &code))
			return false;
		*n = json_utf8_put(code, out);
		return true;
	}
	for (const char *e = escapes; *e; e += 2)
		if (*j->p == e[0])
		{
			out[0] = e[1];
			*n = 1;
			j->p++;
			return true;
		}
	return dfx_json_refuse(j, "unknown escape");
}

bool
dfx_json_string_in(DfxJson *j, char *out, size_t cap, size_t *len)
{
	size_t used = 0;

	if (!dfx_json_accept(j, '"'))
		return dfx_json_refuse(j, "string expected");
	while (j->p < j->end && *j->p != '"')
	{
		char c[4];
		size_t n = 0;

		if (!json_char(j, c, &n))
			return false;
		if (used + n >= cap)
			return dfx_json_refuse(j, "string too long");
		memcpy(out + used, c, n);
		used += n;
	}
	if (j->p == j->end)
		return dfx_json_refuse(j, "unterminated string");
	j->p++;
	out[used] = '\0';
	*len = used;
	return true;
}

size_t
dfx_json_string_bound(DfxJson *j)
{
	const char *p;

	json_skip_space(j);
	p = j->p;
	if (p < j->end && *p == '"')
		for (p++; p < j->end && *p != '"'; p++)
			if (*p == '\\' && p + 1 < j->end)
				p++;
	return (size_t) (p - j->p);
}

bool
dfx_json_u64(DfxJson *j, uint64_t *value)
{
	uint64_t v = 0;
	const char *first;

	if (j->what)
		return false;
	json_skip_space(j);
	first = j->p;
	for (; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++)
		if (__builtin_mul_overflow(v, (uint64_t) 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t) (*j->p - '0'), &v))
			return dfx_json_refuse(j, "number above 2^64-1");
	if (j->p == first)
		return dfx_json_refuse(j, "unsigned integer expected");
	if (*first == '0' && j->p - first > 1)
		return dfx_json_refuse(j, "number with a leading zero");
	if (j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E'))
		return dfx_json_refuse(j, "integer expected, not a fraction or exponent");
	*value = v;
	return true;
}

/* Digits at p, at least one; NULL if there is none. */
static const char *
json_digits(const char *p, const char *end)
{
	const char *first = p;

	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p > first ? p : NULL;
}

/* The end of the number that begins at p (RFC 8259, section 6); NULL if none does. */
static const char *
json_number_end(const char *p, const char *end)
{
	const char *first;

	if (p < end && *p == '-')
		p++;
	first = p;
	p = json_digits(p, end);
	if (!p || (*first == '0' && p - first > 1))
		return NULL;
	if (p < end && *p == '.')
		p = json_digits(p + 1, end);
	if (p && p < end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		p = json_digits(p, end);
	}
	return p;
}

bool
dfx_json_number(DfxJson *j, double *value)
{
	char text[64];
	const char *end;

	if (j->what)
		return false;
	json_skip_space(j);
	end = json_number_end(j->p, j->end);
	if (!end)
		return dfx_json_refuse(j, "number expected");
	if ((size_t) (end - j->p) >= sizeof text)
		return dfx_json_refuse(j, "number with too many digits");
	memcpy(text, j->p, (size_t) (end - j->p));
	text[end - j->p] = '\0';
	*value = strtod(text, NULL);
	if (*value - *value != 0)
		return dfx_json_refuse(j, "number out of range");
	j->p = end;
	return true;
}

bool
dfx_json_bool(DfxJson *j, bool *value)
{
	if (j->what)
		return false;
	json_skip_space(j);
	*value = j->end - j->p >= 4 && memcmp(j->p, "true", 4) == 0;
	if (!*value && !(j->end - j->p >= 5 && memcmp(j->p, "false", 5) == 0))
		return dfx_json_refuse(j, "true or false expected");
	j->p += *value ? 4 : 5;
	return true;
}

/* --- writer -------------------------------------------------------------- */

/* The JSON spelling of the character at *s, which is moved past it; returns its length. */
static size_t
json_spell(const char **s, char out[8])
{
	static const char digit[] = "0123456789abcdef";
	const unsigned char *p = (const unsigned char *) *s;
	size_t n;

	if (*p == '"' || *p == '\\')
	{
		out[0] = '\\';
		out[1] = (char) *p;
		(*s)++;
		return 2;
	}
	if (*p < 0x20 || *p == 0x7f)
	{
		memcpy(out, "\\u00", 4);
		out[4] = digit[*p >> 4];
		out[5] = digit[*p & 15];
		(*s)++;
		return 6;
	}
	n = json_utf8_len(p, p + strnlen(*s, 4));
	if (n == 0)
	{
		memcpy(out, "\xef\xbf\xbd", 3);
		(*s)++;
		return 3;
	}
	memcpy(out, p, n);
	*s += n;
	return n;
}

void
dfx_json_string(FILE *f, const char *s)
{
	putc('"', f);
	while (*s)
	{
		char c[8];
		size_t n = json_spell(&s, c);

		fwrite(c, 1, n, f);
	}
	putc('"', f);
}

static size_t
json_put(char *out, size_t cap, size_t used, const char *c, size_t n)
{
	for (size_t i = 0; i < n; i++, used++)
		if (used < cap)
			out[used] = c[i];
	return used;
}

size_t
dfx_json_quote(const char *s, char *out, size_t cap)
{
	size_t used = json_put(out, cap, 0, "\"", 1);

	while (*s)
	{
		char c[8];
		size_t n = json_spell(&s, c);

		used = json_put(out, cap, used, c, n);
	}
	return json_put(out, cap, used, "\"", 1);
}
