/*
 * json.h
 *	  As much JSON (RFC 8259) as the project needs: a pull reader over hostile
 *	  text, and strings for what it writes.
 *
 * The reader has no tree and no recursion: its caller asks for what the
 * grammar of its own file allows next, so nesting is bounded by the caller's
 * code and nothing is stored that was not asked for.  The first failure
 * sticks in the reader; dfx_json_error() turns it into words.
 */
#ifndef DFX_BASE_JSON_H
#define DFX_BASE_JSON_H

#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

typedef struct DfxJson
{
	const char *start, *p, *end;
	const char *what;  /* the first failure, NULL while there is none */
	const char *where; /* and the byte it is about */
} DfxJson;

extern void dfx_json_init(DfxJson *j, const char *text, size_t len);

/* Take c if it is the next byte after white space; else fail. */
extern bool dfx_json_expect(DfxJson *j, char c);

/* Take c if it is the next byte after white space; no failure if it is not. */
extern bool dfx_json_accept(DfxJson *j, char c);

/*
 * A string, unescaped into out with a NUL (cap counts it); *len is its length.
 * Fails on broken UTF-8, lone surrogates, control characters, U+0000 and on
 * strings that do not fit.
 */
extern bool dfx_json_string_in(DfxJson *j, char *out, size_t cap, size_t *len);

/* A string's raw length in the text, quotes excluded: an upper bound of what dfx_json_string_in() writes. */
extern size_t dfx_json_string_bound(DfxJson *j);

/* An integer 0 .. 2^64-1 in its only spelling; sign, fraction and exponent fail. */
extern bool dfx_json_u64(DfxJson *j, uint64_t *value);

/* Any finite number of RFC 8259's grammar. */
extern bool dfx_json_number(DfxJson *j, double *value);

/* true or false. */
extern bool dfx_json_bool(DfxJson *j, bool *value);

/* Only white space may be left. */
extern bool dfx_json_at_end(DfxJson *j);

/* Record a failure at the present place (kept only if it is the first); always false. */
extern bool dfx_json_refuse(DfxJson *j, const char *what);

/* The failure as "<subject>: <what> at byte <n>"; returns code. */
extern DfxStatus dfx_json_error(const DfxJson *j, DfxErr *err, DfxStatus code, const char *subject);

/*
 * Write s as a JSON string with its quotes.  Bytes that are not UTF-8 (file
 * names may hold any) become U+FFFD.
 */
extern void dfx_json_string(FILE *f, const char *s);

/* The same into memory, snprintf-like: writes at most cap bytes, no NUL; returns the length of the whole. */
extern size_t dfx_json_quote(const char *s, char *out, size_t cap);

#endif /* DFX_BASE_JSON_H */
