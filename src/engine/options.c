/*
 * options.c
 *	  The command line's options, by table.
 */
#include "engine/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/proto.h"

typedef enum OptionKind
{
	OPTION_TEXT,
	OPTION_NUMBER, /* min .. max */
	OPTION_FLAG,
	OPTION_PRECISION,
	OPTION_SET /* stands for all that the table does not have */
} OptionKind;

static const struct Option
{
	const char *name;
	OptionKind kind;
	size_t offset;
	uint64_t min, max;
} option_table[] = {
    {"model", OPTION_TEXT, offsetof(DfxOptions, model)},
    {"weights", OPTION_TEXT, offsetof(DfxOptions, weights)},
    {"backbone", OPTION_TEXT, offsetof(DfxOptions, backbone)},
    {"kind", OPTION_TEXT, offsetof(DfxOptions, kind)},
    {"classes", OPTION_TEXT, offsetof(DfxOptions, classes)},
    {"class", OPTION_TEXT, offsetof(DfxOptions, class)},
    {"device", OPTION_TEXT, offsetof(DfxOptions, device)},
    {"out", OPTION_TEXT, offsetof(DfxOptions, out)},
    {"samples", OPTION_TEXT, offsetof(DfxOptions, samples)},
    {"checkpoint", OPTION_TEXT, offsetof(DfxOptions, checkpoint)},
    {"resume", OPTION_TEXT, offsetof(DfxOptions, resume)},
    {"init", OPTION_TEXT, offsetof(DfxOptions, init)},
    {"init-dm", OPTION_TEXT, offsetof(DfxOptions, init_dm)},
    {"init-gan", OPTION_TEXT, offsetof(DfxOptions, init_gan)},
    {"init-real", OPTION_TEXT, offsetof(DfxOptions, init_real)},
    {"training", OPTION_SET},
    {"cache-dir", OPTION_TEXT, offsetof(DfxOptions, cache_dir)},
    {"cache-limit", OPTION_NUMBER, offsetof(DfxOptions, cache_limit), 0, INT64_MAX},
    {"stream", OPTION_FLAG, offsetof(DfxOptions, stream)},
    {"json", OPTION_FLAG, offsetof(DfxOptions, json)},
    {"fast-decode", OPTION_FLAG, offsetof(DfxOptions, fast_decode)},
    {"precision", OPTION_PRECISION, offsetof(DfxOptions, precision)},
    {"random-weights", OPTION_NUMBER, offsetof(DfxOptions, seed), 0, UINT64_MAX},
    {"head-stride", OPTION_NUMBER, offsetof(DfxOptions, head_stride), 1, 2},
    {"branches", OPTION_NUMBER, offsetof(DfxOptions, branches), 1, 3},
    {"batch", OPTION_NUMBER, offsetof(DfxOptions, batch), 1, DFX_MAX_BATCH},
    {"threads", OPTION_NUMBER, offsetof(DfxOptions, threads), 0, 1024},
    {"max-batch", OPTION_NUMBER, offsetof(DfxOptions, max_batch), 1, DFX_MAX_BATCH},
    {"batch-wait", OPTION_NUMBER, offsetof(DfxOptions, batch_wait), 0, 60000},
    {"model-memory", OPTION_NUMBER, offsetof(DfxOptions, model_memory), 0, INT64_MAX},
    {"gpu-memory", OPTION_NUMBER, offsetof(DfxOptions, gpu_memory), 0, INT64_MAX},
    {"engine", OPTION_NUMBER, offsetof(DfxOptions, engine), 0, DFX_MAX_ENGINES - 1},
    {"engines", OPTION_NUMBER, offsetof(DfxOptions, engines), 1, DFX_MAX_ENGINES},
    {"parent", OPTION_NUMBER, offsetof(DfxOptions, parent), 0, INT32_MAX},
};

/* The entry called name, if names allows it; else NULL. */
static const struct Option *
option_find(const char *name, size_t len, const char *names)
{
	const struct Option *o = NULL;

	for (size_t i = 0; i < sizeof option_table / sizeof option_table[0]; i++)
		if (strlen(option_table[i].name) == len && memcmp(option_table[i].name, name, len) == 0)
			o = &option_table[i];
	for (const char *p = names; o && *p;)
	{
		size_t n = strcspn(p, " ");

		if (n == len && memcmp(p, name, len) == 0)
			return o;
		p += n + (p[n] == ' ');
	}
	return NULL;
}

/* Decimal digits only: strtoull would take signs and white space. */
static bool
option_number(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	char *end;

	if (text[0] < '0' || text[0] > '9')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0' && *value >= min && *value <= max;
}

static bool
option_precision(const char *text, DfxPrecision *precision)
{
	for (int i = 0; i < DFX_PRECISION_COUNT; i++)
		if (strcmp(text, dfx_precision_name[i]) == 0)
		{
			*precision = (DfxPrecision) i;
			return true;
		}
	return false;
}

/* Store text where the entry says; false when it is not a value of its kind. */
static bool
option_store(DfxOptions *o, const struct Option *e, const char *text)
{
	void *at = (char *) o + e->offset;

	switch (e->kind)
	{
		case OPTION_TEXT:
			*(const char **) at = text;
			return true;
		case OPTION_NUMBER:
			if (at == &o->seed)
				o->has_seed = true;
			return option_number(text, e->min, e->max, at);
		case OPTION_PRECISION:
			return option_precision(text, at);
		case OPTION_FLAG:
			*(bool *) at = true;
			return true;
		case OPTION_SET:
			o->set[o->nset++].value = text;
			return true;
	}
	return false;
}

bool
dfx_options_parse(DfxOptions *o, const char *command, const char *names, int argc, char **argv)
{
	bool files_only = false;

	*o = (DfxOptions){.device = "auto",
	                  .head_stride = 1,
	                  .branches = 3,
	                  .batch = 1,
	                  .max_batch = 32,
	                  .engines = 1,
	                  .model_memory = (uint64_t) 2 << 30,
	                  .file = argv};
	for (int i = 0; i < argc; i++)
	{
		const char *arg = argv[i], *value;
		const struct Option *e;
		size_t len;

		if (files_only || arg[0] != '-' || arg[1] == '\0')
		{
			o->file[o->nfile++] = argv[i]; /* moves arguments to the front of argv, never past i */
			continue;
		}
		if (strcmp(arg, "--") == 0)
		{
			files_only = true;
			continue;
		}
		len = strcspn(arg, "=");
		e = strncmp(arg, "--", 2) == 0 ? option_find(arg + 2, len - 2, names) : NULL;
		if (!e && strncmp(arg, "--", 2) == 0 && o->nset < DFX_OPTIONS_SET)
		{
			e = option_find("training", strlen("training"), names);
			o->set[o->nset] = (DfxOptionSet){.key = arg + 2, .len = len - 2};
		}
		if (!e)
		{
			fprintf(stderr, "dfx-engine %s: unknown option %s\n", command, arg);
			return false;
		}
		value = arg[len] == '='          ? arg + len + 1
		        : e->kind == OPTION_FLAG ? ""
		        : i + 1 < argc           ? argv[++i]
		                                 : NULL;
		if (!value || (e->kind == OPTION_FLAG && arg[len] == '=') || !option_store(o, e, value))
		{
			fprintf(stderr, "dfx-engine %s: option %.*s: %s\n", command, (int) len, arg,
			        value ? "the value is not one it can take" : "a value is missing");
			return false;
		}
	}
	return true;
}
