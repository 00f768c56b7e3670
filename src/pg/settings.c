/*
 * settings.c
 *	  The dfx.* settings: names, defaults, limits, and the syntax of the few
 *	  that have one.
 *
 * The postmaster settings size shared memory, so they mean something only
 * when the library is preloaded.  Without preloading PostgreSQL refuses to
 * create postmaster settings at all; they are then defined as sighup ones,
 * without effect, so that lines in postgresql.conf stay valid.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "engine/proto.h"
#include "pg/preload.h"
#include "pg/settings.h"

int			dfx_queue_slots;
int			dfx_queue_memory;
char	   *dfx_engine_path;
char	   *dfx_device;
char	   *dfx_preload_models;
int			dfx_threads;
int			dfx_max_batch;
int			dfx_batch_wait;
int			dfx_model_memory;
int			dfx_gpu_memory;
int			dfx_engine_timeout;
int			dfx_max_image_pixels;
int			dfx_max_image_bytes;
int			dfx_train_cache;
char	   *dfx_train_cache_dir;
char	   *dfx_default_model;
int			dfx_wanted_precision;
int			dfx_queue_timeout;
int			dfx_request_timeout;
int			dfx_read_ahead;
int			dfx_priority;
bool		dfx_fast_decode;

#define SETTINGS_DEVICE_MAX 127 /* bytes; it becomes a word of the engine's command line */

typedef struct SettingsInt
{
	const char *name;
	const char *what;
	const char *more;			/* NULL when what says it all */
	int		   *value;
	int			def,
				min,
				max;
	GucContext	context;
	int			flags;
} SettingsInt;

static const SettingsInt settings_int[] = {
	{"dfx.queue_slots", "Requests that can be in flight at the same time.",
		"At least twice dfx.max_batch, or batches stay smaller than they could be.",
	&dfx_queue_slots, 256, 2, DFX_MAX_SLOTS, PGC_POSTMASTER, 0},
	{"dfx.queue_memory", "Memory for the images of requests in flight.",
		"An image that does not fit into it is refused.",
	&dfx_queue_memory, 128, 1, 262144, PGC_POSTMASTER, GUC_UNIT_MB},
	{"dfx.threads", "CPU threads of the engine.", "0 means all cores.",
	&dfx_threads, 0, 0, 1024, PGC_SIGHUP, 0},
	{"dfx.max_batch", "Images that the device works on at a time, at the most.", NULL,
	&dfx_max_batch, 32, 1, DFX_MAX_BATCH, PGC_SIGHUP, 0},
	{"dfx.batch_wait", "How long the engine waits for a batch to fill.",
		"0 takes what is there when the device is free.",
	&dfx_batch_wait, 0, 0, 10000, PGC_SIGHUP, GUC_UNIT_MS},
	{"dfx.model_memory", "Weights that the engine keeps in memory.", NULL,
	&dfx_model_memory, 2048, 16, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB},
	{"dfx.gpu_memory", "Memory that the engine may use on a GPU.", "0 means automatic.",
	&dfx_gpu_memory, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB},
	{"dfx.engine_timeout", "An engine that makes no progress for so long is replaced.",
		"0 means never.",
	&dfx_engine_timeout, 20000, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS},
	{"dfx.max_image_pixels", "Images with more pixels are refused.", NULL,
	&dfx_max_image_pixels, 100000000, 1, INT_MAX, PGC_SUSET, 0},
	{"dfx.max_image_bytes", "Larger images are refused.", NULL,
	&dfx_max_image_bytes, 65536, 1, 1048576, PGC_SUSET, GUC_UNIT_KB},
	{"dfx.train_cache", "Disk space that the decoded images of a training run may take.",
		"An image takes 192 kB.",
	&dfx_train_cache, 20480, 1, INT_MAX, PGC_SUSET, GUC_UNIT_MB},
	{"dfx.queue_timeout", "How long a request waits for room in the queue.",
		"0 means not at all.",
	&dfx_queue_timeout, 10000, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS},
	{"dfx.request_timeout", "How long to wait for the answer to a request.",
		"Loading a model does not count. 0 means without limit.",
	&dfx_request_timeout, 30000, 0, INT_MAX, PGC_USERSET, GUC_UNIT_MS},
	{"dfx.read_ahead", "Images that one query keeps in flight.",
		"At most half of dfx.queue_slots is used. 0 turns reading ahead off.",
	&dfx_read_ahead, 64, 0, DFX_MAX_SLOTS, PGC_USERSET, 0},
};

/* The numbers are DfxPrecision's (src/nn/backend.h), which cross the ring. */
static const struct config_enum_entry settings_precision[] = {
	{"auto", 0, false},
	{"fp32", 1, false},
	{"bf16", 2, false},
	{"fp16", 3, false},
	{"int8", 4, false},
	{NULL, 0, false}
};

static const struct config_enum_entry settings_priority[] = {
	{"interactive", DFX_PRIORITY_INTERACTIVE, false},
	{"normal", DFX_PRIORITY_NORMAL, false},
	{"bulk", DFX_PRIORITY_BULK, false},
	{NULL, 0, false}
};

int
dfx_device_count(const char *list)
{
	int			n = 1;

	while ((list = strchr(list, ',')) != NULL)
	{
		list++;
		n++;
	}
	return n;
}

void
dfx_device_item(const char *list, int i, char *item, Size size)
{
	for (; i > 0; i--)
		list = strchr(list, ',') + 1;
	strlcpy(item, list, Min(size, strcspn(list, ",") + 1));
}

/* "cpu" is -1, "cuda" is 0, "cuda:N" with N of one to three digits is N; anything else is -2. */
static int
settings_device_number(const char *item)
{
	const char *digits = item + strlen("cuda:");

	if (strcmp(item, "cpu") == 0)
		return -1;
	if (strcmp(item, "cuda") == 0)
		return 0;
	if (strncmp(item, "cuda:", strlen("cuda:")) != 0 || *digits == '\0' || strlen(digits) > 3 ||
		strspn(digits, "0123456789") != strlen(digits))
		return -2;
	return atoi(digits);
}

/* What is wrong with a list of devices; NULL when nothing is.  Whether they exist is for the engines to say. */
static const char *
settings_device_fault(const char *list)
{
	int			n = dfx_device_count(list);
	int			number[DFX_MAX_ENGINES];

	if (n > DFX_MAX_ENGINES)
		return psprintf("There are %d devices in the list, at most %d can be used.", n, DFX_MAX_ENGINES);
	for (int i = 0; i < n; i++)
	{
		char		item[SETTINGS_DEVICE_MAX + 1];

		dfx_device_item(list, i, item, sizeof(item));
		if (n > 1 && strcmp(item, "auto") == 0)
			return "\"auto\" chooses a device by itself and cannot be in a list.";
		number[i] = settings_device_number(item);
		if (number[i] < -1)
			return psprintf("\"%s\" is not a device.", item);
		for (int k = 0; k < i; k++)
			if (number[i] >= 0 && number[k] == number[i])
				return psprintf("\"%s\" is in the list twice.", item);
	}
	return NULL;
}

/* auto, or a list of cpu | cuda | cuda:N.  cpu may be there more than once: the threads are shared. */
static bool
settings_check_device(char **newval, void **extra, GucSource source)
{
	const char *fault;

	if (strcmp(*newval, "auto") == 0)
		return true;
	fault = strlen(*newval) > SETTINGS_DEVICE_MAX ? "The list is too long." : settings_device_fault(*newval);
	if (fault == NULL)
		return true;
	GUC_check_errdetail("%s", fault);
	GUC_check_errhint("A device is \"auto\", \"cpu\", \"cuda\", or a list such as \"cuda:0,cuda:1\".");
	return false;
}

/* It becomes a word of the engine's command line, whose working directory is the root. */
static bool
settings_check_directory(char **newval, void **extra, GucSource source)
{
	if ((*newval)[0] == '\0' || is_absolute_path(*newval))
		return true;
	GUC_check_errdetail("It must be an absolute path, or empty.");
	return false;
}

const char *
dfx_precision_name(int precision)
{
	for (const struct config_enum_entry *e = settings_precision; e->name; e++)
		if (e->val == precision)
			return e->name;
	return NULL;
}

/* Define all settings; called once, from _PG_init(). */
void
dfx_settings_init(void)
{
	GucContext	postmaster = process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP;

	for (int i = 0; i < lengthof(settings_int); i++)
	{
		const SettingsInt *s = &settings_int[i];

		DefineCustomIntVariable(s->name, s->what, s->more, s->value, s->def, s->min, s->max,
								s->context == PGC_POSTMASTER ? postmaster : s->context,
								s->flags, NULL, NULL, NULL);
	}
	DefineCustomStringVariable("dfx.engine_path", "The engine program.",
							   "For packagers and tests; empty means dfx-engine in the server's library directory.",
							   &dfx_engine_path, "", postmaster, GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
	DefineCustomStringVariable("dfx.device", "What the network runs on.",
							   "auto, cpu, cuda, or a list such as cuda:0,cuda:1.",
							   &dfx_device, "auto", PGC_SIGHUP, 0, settings_check_device, NULL, NULL);
	DefineCustomStringVariable("dfx.preload_models", "Models that each new engine loads at once.",
							   "A list such as 'db.model, db.other, db2.model'.",
							   &dfx_preload_models, "", PGC_SIGHUP, 0, dfx_preload_check, NULL, NULL);
	DefineCustomStringVariable("dfx.train_cache_dir", "Directory for the decoded images of training runs.",
							   "Empty means the server's own for temporary files.",
							   &dfx_train_cache_dir, "", PGC_SUSET, 0, settings_check_directory, NULL, NULL);
	DefineCustomStringVariable("dfx.default_model", "The model used when a call names none.", NULL,
							   &dfx_default_model, "", PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("dfx.precision", "Arithmetic of the network.", NULL,
							 &dfx_wanted_precision, 0, settings_precision, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("dfx.priority", "Which requests the engine takes first.", NULL,
							 &dfx_priority, DFX_PRIORITY_NORMAL, settings_priority, PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("dfx.fast_decode", "Decodes large JPEG images at a reduced size.",
							 "Faster, but the network sees slightly other pixels than those of an exact resize.",
							 &dfx_fast_decode, false, PGC_USERSET, 0, NULL, NULL, NULL);

	/* Last: it throws away what is in the namespace and not defined. */
	MarkGUCPrefixReserved("dfx");
}
