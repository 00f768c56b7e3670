/*
 * config.c
 *	  A run's configuration: one table of keys, from which JSON, the command
 *	  line and the digest are all served.
 */
#include "train/config.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/sha256.h"

const char *const dfx_recipe_name[DFX_RECIPE_COUNT] = {
    [DFX_RECIPE_TRINET] = "trinet",         [DFX_RECIPE_BASE] = "base",           [DFX_RECIPE_HEAD] = "head",
    [DFX_RECIPE_CLASSIFIER] = "classifier", [DFX_RECIPE_HIERARCHY] = "hierarchy",
};
const char *const dfx_train_class[DFX_TRAIN_CLASSES] = {"dm", "gan", "real"};
static const char *const config_task[] = {"three", "binary"};
static const char *const config_storage[] = {"f32", "f16", "bf16"}; /* as DfxDtype counts */

typedef enum ConfigKind
{
	CONFIG_TEXT,  /* into size bytes */
	CONFIG_NAME,  /* one of names, as its index, an int */
	CONFIG_WHOLE, /* uint64_t */
	CONFIG_REAL,  /* double */
	CONFIG_BOOL
} ConfigKind;

typedef struct ConfigKey
{
	const char *name;
	ConfigKind kind;
	size_t offset, size;
	double min, max;          /* of numbers; of names: indexes */
	const char *const *names; /* of CONFIG_NAME */
	bool limit;               /* does not change what is computed */
} ConfigKey;

#define CONFIG_AT(field)        offsetof(DfxTrainConfig, field), sizeof(((DfxTrainConfig *) 0)->field)
#define CONFIG_MAX_SIGMA        5.0 /* three of them to each side fit DFX_BLUR_MAX taps */
#define CONFIG_MAX_WHOLE        18446744073709551615.0
#define CONFIG_MAX_IMAGE_BYTES  1073741824.0
#define CONFIG_MAX_IMAGE_PIXELS 1e12

static const ConfigKey config_key[] = {
    {"kind", CONFIG_NAME, CONFIG_AT(recipe), 0, DFX_RECIPE_COUNT - 1, dfx_recipe_name},
    {"backbone", CONFIG_TEXT, CONFIG_AT(backbone)},
    {"main_class", CONFIG_NAME, CONFIG_AT(main_class), 0, DFX_TRAIN_CLASSES - 1, dfx_train_class},
    {"task", CONFIG_NAME, CONFIG_AT(binary), 0, 1, config_task},
    {"head_stride", CONFIG_WHOLE, CONFIG_AT(head_stride), 1, 2},
    {"seed", CONFIG_WHOLE, CONFIG_AT(seed), 0, CONFIG_MAX_WHOLE},
    {"epochs", CONFIG_WHOLE, CONFIG_AT(epochs), 1, DFX_TRAIN_MAX_EPOCHS},
    {"head_epochs", CONFIG_WHOLE, CONFIG_AT(head_epochs), 1, DFX_TRAIN_MAX_EPOCHS},
    {"batch", CONFIG_WHOLE, CONFIG_AT(batch), 2, DFX_TRAIN_MAX_BATCH},
    {"learning_rate", CONFIG_REAL, CONFIG_AT(learning_rate), 0, 10},
    {"weight_decay", CONFIG_REAL, CONFIG_AT(weight_decay), 0, 10},
    {"step_size", CONFIG_WHOLE, CONFIG_AT(step_size), 0, DFX_TRAIN_MAX_EPOCHS},
    {"gamma", CONFIG_REAL, CONFIG_AT(gamma), 0, 1},
    {"share", CONFIG_REAL, CONFIG_AT(share), 0.001, 0.999},
    {"weighted", CONFIG_BOOL, CONFIG_AT(weighted)},
    {"flip", CONFIG_REAL, CONFIG_AT(augment.flip), 0, 1},
    {"turn", CONFIG_REAL, CONFIG_AT(augment.turn), 0, 1},
    {"shuffle", CONFIG_REAL, CONFIG_AT(augment.shuffle), 0, 1},
    {"crop", CONFIG_REAL, CONFIG_AT(augment.crop), 0, 1},
    {"crop_min", CONFIG_REAL, CONFIG_AT(augment.crop_min), 0.1, 1},
    {"jpeg", CONFIG_REAL, CONFIG_AT(augment.jpeg), 0, 1},
    {"jpeg_min", CONFIG_WHOLE, CONFIG_AT(augment.jpeg_min), 1, 100},
    {"jpeg_max", CONFIG_WHOLE, CONFIG_AT(augment.jpeg_max), 1, 100},
    {"blur", CONFIG_REAL, CONFIG_AT(augment.blur), 0, 1},
    {"blur_min", CONFIG_REAL, CONFIG_AT(augment.blur_min), 0, CONFIG_MAX_SIGMA},
    {"blur_max", CONFIG_REAL, CONFIG_AT(augment.blur_max), 0, CONFIG_MAX_SIGMA},
    {"precision", CONFIG_NAME, CONFIG_AT(precision), DFX_PRECISION_FP32, DFX_PRECISION_COUNT - 1,
     dfx_precision_name},
    {"storage", CONFIG_NAME, CONFIG_AT(storage), 0, 2, config_storage},
    {"max_image_bytes", CONFIG_WHOLE, CONFIG_AT(limits.max_bytes), 1, CONFIG_MAX_IMAGE_BYTES, .limit = true},
    {"max_image_pixels", CONFIG_WHOLE, CONFIG_AT(limits.max_pixels), 1, CONFIG_MAX_IMAGE_PIXELS,
     .limit = true},
};
#define CONFIG_KEYS (sizeof config_key / sizeof config_key[0])
_Static_assert(sizeof(DfxRecipe) == sizeof(int) && sizeof(DfxPrecision) == sizeof(int) &&
                   sizeof(DfxDtype) == sizeof(int),
               "names are stored as int");

void
dfx_train_config_init(DfxTrainConfig *c)
{
	memset(c, 0, sizeof *c);
	c->main_class = -1;
	c->head_stride = 1;
	c->seed = 1;
	c->epochs = c->head_epochs = 50;
	c->batch = 32;
	c->learning_rate = 1e-4;
	c->weight_decay = 1e-3;
	c->gamma = 0.1;
	c->share = 0.1;
	c->weighted = true;
	c->augment = (DfxAugment){.crop_min = 0.5, .jpeg_min = 30, .jpeg_max = 100, .blur_max = 3};
	c->precision = DFX_PRECISION_FP32;
	c->storage = DFX_F32;
	c->limits = DFX_DEFAULT_LIMITS;
}

static int
config_index(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return i;
	return -1;
}

int
dfx_train_class_find(const char *name)
{
	return config_index(dfx_train_class, DFX_TRAIN_CLASSES, name);
}

static const ConfigKey *
config_find(const char *name)
{
	for (size_t i = 0; i < CONFIG_KEYS; i++)
		if (strcmp(config_key[i].name, name) == 0)
			return &config_key[i];
	return NULL;
}

/* --- values -------------------------------------------------------------- */

static bool
config_store_text(DfxTrainConfig *c, const ConfigKey *k, const char *text)
{
	char *at = (char *) c + k->offset;

	if (k->kind == CONFIG_TEXT)
	{
		if (strlen(text) >= k->size)
			return false;
		strcpy(at, text);
		return true;
	}
	if (k->kind == CONFIG_NAME)
	{
		int i = config_index(k->names, (int) k->max + 1, text);

		*(int *) at = i;
		return i >= (int) k->min;
	}
	return false;
}

static bool
config_store_whole(DfxTrainConfig *c, const ConfigKey *k, uint64_t v)
{
	*(uint64_t *) ((char *) c + k->offset) = v;
	return (double) v >= k->min && (double) v <= k->max;
}

/* NaN is in no range. */
static bool
config_store_real(DfxTrainConfig *c, const ConfigKey *k, double v)
{
	*(double *) ((char *) c + k->offset) = v;
	return v >= k->min && v <= k->max;
}

/* A value that is not one of those that its key takes. */
static DfxStatus
config_refuse(const ConfigKey *k, const char *spelled, DfxErr *err)
{
	dfx_fail(err, DFX_EINVAL, "training option %s: %s is not a value it can take", k->name, spelled);
	if (k->kind == CONFIG_WHOLE || k->kind == CONFIG_REAL)
		dfx_hint(err, "It takes numbers from %g to %g.", k->min, k->max);
	else if (k->kind == CONFIG_NAME && k->names != dfx_precision_name)
	{
		char text[96] = "";

		for (int i = (int) k->min; i <= (int) k->max; i++)
			snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", text[0] ? ", " : "",
			         k->names[i]);
		dfx_hint(err, "It is one of %s.", text);
	}
	return DFX_EINVAL;
}

static DfxStatus
config_unknown(const char *key, DfxErr *err)
{
	return dfx_fail(err, DFX_EINVAL, "unknown training option \"%s\"", key);
}

DfxStatus
dfx_train_config_set(DfxTrainConfig *c, const char *key, const char *value, DfxErr *err)
{
	const ConfigKey *k = config_find(key);
	char *end = NULL;
	bool good = false;

	if (!k)
		return config_unknown(key, err);
	errno = 0;
	switch (k->kind)
	{
		case CONFIG_TEXT:
		case CONFIG_NAME:
			good = config_store_text(c, k, value);
			break;
		case CONFIG_WHOLE:
			if (value[0] >= '0' && value[0] <= '9')
				good = config_store_whole(c, k, strtoull(value, &end, 10)) && errno == 0 && *end == '\0';
			break;
		case CONFIG_REAL:
			if ((value[0] >= '0' && value[0] <= '9') || value[0] == '.')
				good = config_store_real(c, k, strtod(value, &end)) && *end == '\0';
			break;
		case CONFIG_BOOL:
			good = strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
			*(bool *) ((char *) c + k->offset) = strcmp(value, "true") == 0;
			break;
	}
	return good ? DFX_OK : config_refuse(k, value, err);
}

/* --- JSON ---------------------------------------------------------------- */

static bool
config_generators(DfxJson *j, DfxTrainConfig *c)
{
	size_t len;

	if (!dfx_json_expect(j, '['))
		return false;
	if (dfx_json_accept(j, ']'))
		return true;
	do
	{
		if (c->ngenerator == DFX_GENERATORS)
			return dfx_json_refuse(j, "more than 64 generators");
		if (!dfx_json_string_in(j, c->generator[c->ngenerator], DFX_GENERATOR_LEN, &len))
			return false;
		c->ngenerator++;
	} while (dfx_json_accept(j, ','));
	return dfx_json_expect(j, ']');
}

/* The value of key k; a syntax error stays in j, a wrong value fills err. */
static DfxStatus
config_member(DfxJson *j, DfxTrainConfig *c, const ConfigKey *k, DfxErr *err)
{
	char text[64] = "?";
	uint64_t whole;
	double real;
	size_t len;
	bool good = true;

	switch (k->kind)
	{
		case CONFIG_TEXT:
		case CONFIG_NAME:
			if (dfx_json_string_in(j, text, sizeof text, &len))
				good = config_store_text(c, k, text);
			break;
		case CONFIG_WHOLE:
			if (dfx_json_u64(j, &whole))
			{
				snprintf(text, sizeof text, "%" PRIu64, whole);
				good = config_store_whole(c, k, whole);
			}
			break;
		case CONFIG_REAL:
			if (dfx_json_number(j, &real))
			{
				snprintf(text, sizeof text, "%g", real);
				good = config_store_real(c, k, real);
			}
			break;
		case CONFIG_BOOL:
			dfx_json_bool(j, (bool *) ((char *) c + k->offset));
			break;
	}
	return good ? DFX_OK : config_refuse(k, text, err);
}

static DfxStatus
config_members(DfxJson *j, DfxTrainConfig *c, DfxErr *err)
{
	bool seen[CONFIG_KEYS + 1] = {false};
	DfxStatus st = DFX_OK;
	char key[32];
	size_t len;

	if (!dfx_json_expect(j, '{') || dfx_json_accept(j, '}'))
		return DFX_OK;
	do
	{
		const ConfigKey *k = NULL;
		bool *once;

		if (!dfx_json_string_in(j, key, sizeof key, &len) || !dfx_json_expect(j, ':'))
			break;
		if (strcmp(key, "generators") != 0 && !(k = config_find(key)))
			return config_unknown(key, err);
		once = &seen[k ? (size_t) (k - config_key) : CONFIG_KEYS];
		if (*once)
			return dfx_fail(err, DFX_EINVAL, "training option \"%s\" is given twice", key);
		*once = true;
		if (k)
			st = config_member(j, c, k, err);
		else
			config_generators(j, c);
	} while (st == DFX_OK && dfx_json_accept(j, ','));
	if (st == DFX_OK)
		dfx_json_expect(j, '}');
	return st;
}

DfxStatus
dfx_train_config_parse(DfxTrainConfig *c, const char *json, size_t len, DfxErr *err)
{
	DfxStatus st;
	DfxJson j;

	dfx_train_config_init(c);
	dfx_json_init(&j, json, len);
	st = config_members(&j, c, err);
	if (st != DFX_OK)
		return st;
	if (!dfx_json_at_end(&j))
		return dfx_json_error(&j, err, DFX_EINVAL, "training options");
	return dfx_train_config_check(c, err);
}

/* --- as a whole ---------------------------------------------------------- */

DfxStatus
dfx_train_config_check(const DfxTrainConfig *c, DfxErr *err)
{
	const DfxAugment *a = &c->augment;

	if (c->backbone[0] == '\0')
		return dfx_fail(err, DFX_EINVAL, "training option backbone is missing");
	if ((c->recipe == DFX_RECIPE_BASE) != (c->main_class >= 0))
		return dfx_fail(err, DFX_EINVAL,
		                c->main_class >= 0 ? "training option main_class is for models of kind \"base\" only"
		                                   : "training option main_class is missing");
	if (c->binary && c->recipe != DFX_RECIPE_CLASSIFIER)
		return dfx_fail(err, DFX_EINVAL, "training option task is for models of kind \"classifier\" only");
	if (a->jpeg_min > a->jpeg_max || a->blur_min > a->blur_max)
		return dfx_fail(err, DFX_EINVAL, "training options %s: the range is empty",
		                a->jpeg_min > a->jpeg_max ? "jpeg_min, jpeg_max" : "blur_min, blur_max");
	if (c->learning_rate <= 0)
		return dfx_fail(err, DFX_EINVAL, "training option learning_rate: 0 teaches nothing");
	for (int i = 0; i < c->ngenerator; i++)
		for (int k = 0; k < i; k++)
			if (strcmp(c->generator[i], c->generator[k]) == 0)
				return dfx_fail(err, DFX_EINVAL, "generator \"%s\" is given twice", c->generator[i]);
	return DFX_OK;
}

static int
config_spell(const DfxTrainConfig *c, const ConfigKey *k, char *text, size_t size)
{
	const char *at = (const char *) c + k->offset;

	switch (k->kind)
	{
		case CONFIG_TEXT:
			return snprintf(text, size, "%s=%s\n", k->name, at);
		case CONFIG_NAME:
			return snprintf(text, size, "%s=%d\n", k->name, *(const int *) at);
		case CONFIG_WHOLE:
			return snprintf(text, size, "%s=%" PRIu64 "\n", k->name, *(const uint64_t *) at);
		case CONFIG_REAL:
			return snprintf(text, size, "%s=%a\n", k->name, *(const double *) at);
		case CONFIG_BOOL:
			return snprintf(text, size, "%s=%d\n", k->name, *(const bool *) at);
	}
	return 0;
}

void
dfx_train_config_digest(const DfxTrainConfig *c, uint8_t digest[32])
{
	char text[128];
	DfxSha256 s;

	dfx_sha256_init(&s);
	for (size_t i = 0; i < CONFIG_KEYS; i++)
		if (!config_key[i].limit)
			dfx_sha256_update(&s, text, (size_t) config_spell(c, &config_key[i], text, sizeof text));
	for (int i = 0; i < c->ngenerator; i++)
		dfx_sha256_update(&s, c->generator[i], strlen(c->generator[i]) + 1);
	dfx_sha256_final(&s, digest);
}
