/*
 * options.h
 *	  The command line: one table of options, of which each subcommand names those it takes.
 */
#ifndef DFX_ENGINE_OPTIONS_H
#define DFX_ENGINE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nn/backend.h"

/* Options that the table does not know, for train: each is one of the configuration's. */
#define DFX_OPTIONS_SET 64
typedef struct DfxOptionSet
{
	const char *key; /* len bytes */
	size_t len;
	const char *value;
} DfxOptionSet;

typedef struct DfxOptions
{
	const char *model, *weights, *backbone, *kind, *classes, *class, *device, *out;
	const char *samples, *checkpoint, *resume, *init, *init_dm, *init_gan, *init_real, *cache_dir;
	DfxPrecision precision;
	bool has_seed, json, stream, fast_decode;
	uint64_t seed, model_memory, gpu_memory, cache_limit;
	uint64_t head_stride, branches, batch, threads, max_batch, batch_wait, parent, engine, engines;
	DfxOptionSet set[DFX_OPTIONS_SET];
	int nset;
	char **file; /* the arguments that are not options */
	int nfile;
} DfxOptions;

/*
 * Parse argv (after the subcommand) into o; names is the space-separated list
 * of options the subcommand takes; with "training" among them it takes any
 * other one that has a value.  On failure says what is wrong on stderr and returns false.
 */
extern bool dfx_options_parse(DfxOptions *o, const char *command, const char *names, int argc, char **argv);

#endif /* DFX_ENGINE_OPTIONS_H */
