/*
 * options.h
 *	  The command line: one table of options, of which each subcommand names those it takes.
 */
#ifndef DFX_ENGINE_OPTIONS_H
#define DFX_ENGINE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "nn/backend.h"

typedef struct DfxOptions
{
	const char *model, *weights, *backbone, *kind, *classes, *device, *out;
	const char *samples, *checkpoint, *resume, *init, *cache_dir;
	DfxPrecision precision;
	bool has_seed, json, stream;
	uint64_t seed, model_memory, gpu_memory, cache_limit;
	uint64_t head_stride, branches, batch, threads, max_batch, batch_wait, parent;
	char **file; /* the arguments that are not options */
	int nfile;
} DfxOptions;

/*
 * Parse argv (after the subcommand) into o; names is the space-separated list
 * of options the subcommand takes.  On failure says what is wrong on stderr and returns false.
 */
extern bool dfx_options_parse(DfxOptions *o, const char *command, const char *names, int argc, char **argv);

#endif /* DFX_ENGINE_OPTIONS_H */
