/*
 * test_gpu_prologue.c
 *	  Does a DenseNet by cuDNN's fused prologues give the oracle's results?
 *
 * cuDNN is but the fallback, and a competitor in the largest batch (choose.c).
 * So the network runs once as it comes, and our kernel is then barred from all
 * its products with prologues, in the file of kept choices, as if it had ended
 * an engine: the next device must have cuDNN compute them, or say why not.
 */
#include <glob.h>
#include <string.h>
#include <unistd.h>

#include "tests/backend/net_cases.h"
#include "tests/gpu/gpu_device.h"

enum
{
	KEYS = 256,
	LINE = 1024, /* of a key, with room; plans are longer */
	IMAGES = 2
};

/* All channels are multiples of 8, without which no library is asked. */
static const DfxBackbone dense = {"dense", "densenet",   64,
                                  64,      dfx_densenet, &(const DfxDensenet){32, 32, {1, 1, 1, 1}}};

/* The products that our kernel is barred from, and what became of them. */
static struct
{
	char key[LINE];
	bool by_dnn, hides; /* computed by cuDNN; it is refused as its ReLU hides what is no number */
} barred[KEYS];
static int nbarred;

static void
note_refusals(char level, const char *message, void *arg)
{
	const char *key = strstr(message, "cudnn makes 0 of what is no number in ");

	gpu_show_log(level, message, arg);
	for (int i = 0; key && i < nbarred; i++)
		barred[i].hides = barred[i].hides || strstr(key, barred[i].key);
}

/* The one file of kept choices below dir. */
static FILE *
open_kept(const char *dir, const char *mode)
{
	char pattern[128];
	glob_t found = {0};
	FILE *f = NULL;

	snprintf(pattern, sizeof pattern, "%s/deepfeaturex/cuda-????????", dir);
	if (glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc == 1)
		f = fopen(found.gl_pathv[0], mode);
	globfree(&found);
	return f;
}

/* Bar our kernel from all products with a prologue, and forget who computed them. */
static bool
bar_ours(const char *dir)
{
	FILE *f = open_kept(dir, "r");
	char *line = NULL, head[LINE] = "";
	size_t size = 0;

	if (!f || !fgets(head, sizeof head, f))
		return false;
	while (nbarred < KEYS && getline(&line, &size, f) > 0)
	{
		char *tab = strchr(line, '\t');

		if (!tab)
			continue;
		*tab = '\0';
		if (strstr(line, " pre") && strlen(line) < LINE)
			snprintf(barred[nbarred++].key, LINE, "%s", line);
	}
	free(line);
	fclose(f);
	f = open_kept(dir, "w");
	if (!f)
		return false;
	fputs(head, f);
	for (int i = 0; i < nbarred; i++)
		fprintf(f, "%s\t!!mma\t\n", barred[i].key);
	return fclose(f) == 0;
}

/* Who was chosen for those that our kernel is barred from. */
static void
read_choices(const char *dir)
{
	FILE *f = open_kept(dir, "r");
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0)
		for (int i = 0; i < nbarred; i++)
		{
			size_t n = strlen(barred[i].key);

			if (strncmp(line, barred[i].key, n) == 0 && strncmp(line + n, "\tcudnn\t", 7) == 0)
				barred[i].by_dnn = true;
		}
	free(line);
	if (f)
		fclose(f);
}

/* Open a device, run the network by itself and three times in one, close it; false: there is no GPU. */
static bool
run_dense(void)
{
	static const struct
	{
		DfxPrecision precision;
		double tolerance;
	} type[] = {{DFX_PRECISION_FP16, 2e-2}, {DFX_PRECISION_BF16, 4e-2}};
	Subject on = {0};

	if (!gpu_open(&on.be, &on.dev))
		return false;
	dfx_log_set_sink(note_refusals, NULL);
	for (size_t i = 0; i < sizeof type / sizeof type[0]; i++)
	{
		on.precision = type[i].precision;
		on.tolerance = type[i].tolerance;
		check_net(&on, &dense, 1, true, IMAGES);
		check_net(&on, &dense, 3, true, IMAGES);
	}
	on.be->close(on.dev);
	return true;
}

static void
check_choices(void)
{
	int by_dnn = 0, hides = 0;

	for (int i = 0; i < nbarred; i++)
	{
		by_dnn += barred[i].by_dnn;
		hides += barred[i].hides && strstr(barred[i].key, " fp16 ");
		if (!barred[i].by_dnn && !barred[i].hides)
			diag("not by cuDNN: %s", barred[i].key);
	}
	ok(by_dnn > 0 && by_dnn + hides == nbarred,
	   "of %d products with a prologue cuDNN computes %d; in fp16 its ReLU hides what is no number in %d",
	   nbarred, by_dnn, hides);
}

int
main(void)
{
	char dir[] = "/tmp/dfx-gpu-XXXXXX", command[64];
	int status = 0;

	if (!mkdtemp(dir) || setenv("XDG_CACHE_HOME", dir, 1) != 0)
		return 1;
	if (run_dense())
	{
		bool done = bar_ours(dir) && nbarred > 0;

		if (ok(done, "our kernel is barred from %d products", nbarred) && run_dense())
		{
			read_choices(dir);
			check_choices();
		}
		status = done_testing();
	}
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command) == 0 ? status : 1;
}
