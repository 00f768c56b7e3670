/*
 * main.c
 *	  dfx-engine: the network without PostgreSQL.
 *
 * `serve` is what PostgreSQL's supervisor starts; the other subcommands reach
 * the same code from a shell, for tests, benchmarks and curiosity.  Results
 * go to stdout, one a line; diagnostics to stderr; the exit status is 0 only
 * when everything succeeded, 2 when the command line was wrong.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/command.h"
#include "engine/serve.h"
#include "image/image.h"

static int
main_serve(const DfxOptions *o)
{
	DfxServeOpts s = {.parent = (long) o->parent,
	                  .device = o->device,
	                  .engine = (int) o->engine,
	                  .engines = (int) o->engines,
	                  .threads = (int) o->threads,
	                  .max_batch = (int) o->max_batch,
	                  .batch_wait_ms = (int) o->batch_wait,
	                  .model_memory = o->model_memory,
	                  .gpu_memory = o->gpu_memory};

	return dfx_serve(&s);
}

/* What must be given is checked here: a text option by its place in DfxOptions, and at least one image. */
enum
{
	NEED_MODEL = 1,
	NEED_BACKBONE = 2,
	NEED_OUT = 4,
	NEED_FILES = 8,
	NO_FILES = 16
};

static const struct Command
{
	const char *name;
	int (*run)(const DfxOptions *o);
	unsigned need;
	const char *options;
	const char *usage, *summary;
} command_table[] = {
    {"classify", dfx_cmd_classify, NEED_MODEL | NEED_FILES, "model device precision threads fast-decode json",
     "--model FILE.safetensors [--device D] [--precision P] [--threads T] [--fast-decode] [--json] IMAGE...",
     "says of each image whether it is real, GAN- or diffusion-generated"},
    {"logits", dfx_cmd_logits, NEED_BACKBONE | NEED_FILES,
     "backbone weights random-weights device precision threads fast-decode json",
     "--backbone B (--weights FILE | --random-weights SEED) [--device D] [--fast-decode] [--json] IMAGE...",
     "features and logits of a lone backbone"},
    {"trinet", dfx_cmd_trinet, NEED_BACKBONE | NEED_FILES,
     "backbone random-weights head-stride device precision threads fast-decode json",
     "--backbone B --random-weights SEED [--head-stride 1|2] [--device D] [--fast-decode] [--json] IMAGE...",
     "features and logits of the complete network"},
    {"heatmap", dfx_cmd_heatmap, NEED_MODEL | NEED_OUT | NEED_FILES,
     "model class out device precision threads fast-decode json",
     "--model FILE.safetensors [--class dm|gan|real|synthetic] [--device D] [--fast-decode] [--json] "
     "IMAGE --out FILE.png",
     "paints over an image what its verdict, or the class, rests on"},
    {"decode", dfx_cmd_decode, NEED_OUT | NEED_FILES, "out fast-decode json",
     "[--fast-decode] IMAGE --out FILE", "writes the 256x256 RGB bytes that the network sees"},
    {"bench", dfx_cmd_bench, NEED_BACKBONE | NO_FILES,
     "backbone branches batch head-stride random-weights device precision threads json",
     "--backbone B [--branches 1|3] [--batch N] [--device D] [--precision P] [--threads T] [--json]",
     "images per second of the network alone"},
    {"init", dfx_cmd_init, NEED_BACKBONE | NEED_OUT | NO_FILES,
     "backbone kind classes random-weights head-stride out json",
     "--backbone B --random-weights SEED [--kind K --classes C] [--head-stride 1|2] --out FILE.safetensors",
     "writes an untrained model, of three branches unless told otherwise"},
    {"devices", dfx_cmd_devices, NO_FILES, "json", "[--json]",
     "what there is to run on, and what was refused"},
    {"backbones", dfx_cmd_backbones, NO_FILES, "json", "[--json]",
     "the networks there are: features, input size, parameters, GFLOP an image"},
    {"train", dfx_cmd_train, NO_FILES,
     "samples out checkpoint resume init init-dm init-gan init-real stream parent device threads gpu-memory "
     "cache-dir cache-limit json training",
     "--samples DIR|FILE.csv --backbone B --out FILE.safetensors [--kind K] [--checkpoint FILE] [--resume "
     "FILE] "
     "[--init FILE] [--device D] [--threads N] [--cache-dir DIR] [--cache-limit BYTES] [--OPTION VALUE]... "
     "[--json]",
     "makes a model of labelled images; K is trinet, base, head, classifier or hierarchy; docs/TRAINING.md "
     "has the "
     "options"},
    {"serve", main_serve, NO_FILES,
     "parent device engine engines threads max-batch batch-wait model-memory gpu-memory",
     "--parent PID [--device D] [--engine N --engines COUNT] [--threads T] [--max-batch N] [--batch-wait MS] "
     "[--model-memory BYTES] [--gpu-memory BYTES]",
     "serves PostgreSQL: the ring at descriptor 3, the supervisor at 4"},
};
#define COMMAND_COUNT (sizeof command_table / sizeof command_table[0])

static void
main_help(FILE *f)
{
	fprintf(f, "usage: dfx-engine COMMAND [OPTION]... [IMAGE]...\n\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		fprintf(f, "  dfx-engine %s %s\n      %s\n", command_table[i].name, command_table[i].usage,
		        command_table[i].summary);
	fprintf(f, "\nD is auto, cpu, cuda or cuda:N; P is auto, fp32, bf16, fp16 or int8.\n");
	fprintf(f, "B is one of");
	for (int i = 0; i < dfx_nbackbones; i++)
		fprintf(f, " %s", dfx_backbones[i].name);
	fprintf(f, ".\nK is trinet (dm,gan,real), base (others,dm others,gan others,real), classifier "
	           "(dm,gan,real synthetic,real)"
	           "\nor hierarchy (synthetic,real;dm,gan;GENERATORS;GENERATORS); C is its classes.\n");
	fprintf(f, "Common PNGs are inflated by %s.\n", dfx_image_inflater());
}

/* What is missing of what the command needs; NULL when nothing is. */
static const char *
main_missing(const struct Command *c, const DfxOptions *o)
{
	if ((c->need & NEED_MODEL) && !o->model)
		return "--model is missing";
	if ((c->need & NEED_BACKBONE) && !o->backbone)
		return "--backbone is missing";
	if ((c->need & NEED_OUT) && !o->out)
		return "--out is missing";
	if ((c->need & NEED_FILES) && o->nfile == 0)
		return "no image is given";
	if ((c->need & NO_FILES) && o->nfile > 0)
		return "it takes no files";
	return NULL;
}

static void
main_log(char level, const char *message, void *arg)
{
	(void) arg;
	if (level == 'W' || level == 'E')
		fprintf(stderr, "dfx-engine: %s\n", message);
}

/* Success is that the results have arrived: stdio keeps a write's failure until it is asked. */
static int
main_end(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "dfx-engine: could not write to the standard output: %s\n", strerror(errno));
	return status != 0 ? status : 1;
}

int
main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "", *missing;
	const struct Command *c = NULL;
	DfxOptions o;

	if (strcmp(name, "--help") == 0 || strcmp(name, "help") == 0)
	{
		main_help(stdout);
		return main_end(0);
	}
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (strcmp(command_table[i].name, name) == 0)
			c = &command_table[i];
	if (!c)
	{
		if (name[0])
			fprintf(stderr, "dfx-engine: unknown command \"%s\"\n", name);
		main_help(stderr);
		return 2;
	}
	if (argc > 2 && strcmp(argv[2], "--help") == 0)
	{
		printf("usage: dfx-engine %s %s\n%s\n", c->name, c->usage, c->summary);
		return main_end(0);
	}
	dfx_log_set_sink(main_log, NULL);
	if (!dfx_options_parse(&o, name, c->options, argc - 2, argv + 2))
		return 2;
	missing = main_missing(c, &o);
	if (missing)
	{
		fprintf(stderr, "dfx-engine %s: %s\nusage: dfx-engine %s %s\n", name, missing, name, c->usage);
		return 2;
	}
	return main_end(c->run(&o));
}
