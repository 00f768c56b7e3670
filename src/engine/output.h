/*
 * output.h
 *	  One result a line on stdout: a JSON object, or the same values separated by tabs.
 *
 * In the tabular form strings have their control characters replaced by
 * blanks, and arrays are separated by commas.
 */
#ifndef DFX_ENGINE_OUTPUT_H
#define DFX_ENGINE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct DfxOutput
{
	bool json;
	int n; /* values of this line so far */
} DfxOutput;

extern void dfx_out_begin(DfxOutput *o, bool json);
extern void dfx_out_text(DfxOutput *o, const char *key, const char *value); /* NULL: null */
extern void dfx_out_int(DfxOutput *o, const char *key, int64_t value);
extern void dfx_out_bool(DfxOutput *o, const char *key, bool value);
extern void dfx_out_float(DfxOutput *o, const char *key, double value); /* %.9g; null when not finite */
extern void dfx_out_floats(DfxOutput *o, const char *key, const float *value, size_t n);
extern void dfx_out_json(DfxOutput *o, const char *key, const char *value); /* value is JSON already */
extern void dfx_out_end(DfxOutput *o);

/* A whole line about an image that gave no result: {image, error, sqlstate}. */
extern void dfx_out_error(bool json, const char *image, const DfxErr *err);

#endif /* DFX_ENGINE_OUTPUT_H */
