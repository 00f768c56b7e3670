/*
 * output.c
 *	  One result a line on stdout.
 */
#include "engine/output.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/json.h"

static void
out_key(DfxOutput *o, const char *key)
{
	if (o->json)
	{
		fputs(o->n > 0 ? ", " : "", stdout);
		dfx_json_string(stdout, key);
		fputs(": ", stdout);
	}
	else if (o->n > 0)
		putchar('\t');
	o->n++;
}

static void
out_number(const DfxOutput *o, double value)
{
	if (isfinite(value))
		printf("%.9g", value);
	else
		fputs(o->json ? "null" : "", stdout);
}

void
dfx_out_begin(DfxOutput *o, bool json)
{
	*o = (DfxOutput){.json = json};
	if (json)
		putchar('{');
}

void
dfx_out_text(DfxOutput *o, const char *key, const char *value)
{
	out_key(o, key);
	if (!value)
		fputs(o->json ? "null" : "", stdout);
	else if (o->json)
		dfx_json_string(stdout, value);
	else
		for (; *value; value++)
			putchar((unsigned char) *value < 0x20 ? ' ' : *value);
}

void
dfx_out_int(DfxOutput *o, const char *key, int64_t value)
{
	out_key(o, key);
	printf("%" PRId64, value);
}

void
dfx_out_bool(DfxOutput *o, const char *key, bool value)
{
	out_key(o, key);
	fputs(value ? "true" : "false", stdout);
}

void
dfx_out_float(DfxOutput *o, const char *key, double value)
{
	out_key(o, key);
	out_number(o, value);
}

void
dfx_out_floats(DfxOutput *o, const char *key, const float *value, size_t n)
{
	out_key(o, key);
	if (o->json)
		putchar('[');
	for (size_t i = 0; i < n; i++)
	{
		if (i > 0)
			fputs(o->json ? ", " : ",", stdout);
		out_number(o, value[i]);
	}
	if (o->json)
		putchar(']');
}

void
dfx_out_json(DfxOutput *o, const char *key, const char *value)
{
	out_key(o, key);
	fputs(value, stdout);
}

void
dfx_out_end(DfxOutput *o)
{
	fputs(o->json ? "}\n" : "\n", stdout);
	fflush(stdout);
}

void
dfx_out_error(bool json, const char *image, const DfxErr *err)
{
	DfxOutput o;

	dfx_out_begin(&o, json);
	dfx_out_text(&o, "image", image);
	dfx_out_text(&o, "error", err->msg);
	dfx_out_text(&o, "sqlstate", dfx_sqlstate(err->code));
	dfx_out_end(&o);
}
