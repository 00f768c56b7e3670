/*
 * config.h
 *	  What a training run is asked to do: the JSON object of the CONFIG frame,
 *	  which the command line makes of its options too.
 *
 * One flat object; a key may be left out, an unknown one is refused.
 *
 *	kind			"trinet": three Base Models, features, head (the default)
 *					"base": one Base Model, main_class against the others
 *					"head": the head over three Base Models that are given
 *					"classifier": one backbone, by task
 *					"hierarchy": real or AI, then DM or GAN, then the generator
 *	backbone		a name of dfx_backbones; no default
 *	main_class		"dm", "gan" or "real"; of kind "base" only, where it must be given
 *	task			"three" (dm, gan, real; the default) or "binary" (synthetic, real); of kind "classifier"
 *	head_stride		1 (the paper; the default) or 2 (the reference code)
 *	seed			0 .. 2^64-1; default 1
 *	epochs			of each network but the head; default 50
 *	head_epochs		default 50
 *	batch			2 .. 256; default 32
 *	learning_rate	default 1e-4
 *	weight_decay	L2, added to the gradient; default 1e-3
 *	step_size		epochs after which the learning rate is multiplied by gamma; 0 (the default): never
 *	gamma			default 0.1
 *	share			of a Base Model's images, how much the other classes make up; default 0.1
 *	weighted		true (the default): cross entropy weighted by 1 / images of the class (paper,
 *					equation 1); Base Models never are
 *	flip			probability of a mirror image; default 0
 *	turn			probability of a turn by 90, 180 or 270 degrees; default 0
 *	crop			probability of a random square part, of crop_min to 1 of the side; default 0, 0.5
 *	shuffle			probability of 4 x 4 tiles in another order; default 0
 *	jpeg			probability of a JPEG round trip at a quality from jpeg_min to jpeg_max; default 0,
 *					30, 100
 *	blur			probability of a Gaussian blur with a sigma from blur_min to blur_max; default 0, 0, 3
 *	precision		"fp32" (the default), or another that the device trains in
 *	storage			"f32" (the default), "f16" or "bf16": of the weights in the result
 *	max_image_bytes, max_image_pixels	limits of a sample; defaults as in image/image.h
 *	generators		array of at most 64 names; a sample's generator is an index into it; default []
 *
 * Ranges are checked here, names of the backbone and abilities of the device
 * by the run.
 */
#ifndef DFX_TRAIN_CONFIG_H
#define DFX_TRAIN_CONFIG_H

#include "base/tensor.h"
#include "base/training.h"
#include "image/image.h"
#include "nn/backend.h"

typedef enum DfxRecipe
{
	DFX_RECIPE_TRINET = 0,
	DFX_RECIPE_BASE,
	DFX_RECIPE_HEAD,
	DFX_RECIPE_CLASSIFIER,
	DFX_RECIPE_HIERARCHY,
	DFX_RECIPE_COUNT
} DfxRecipe;
extern const char *const dfx_recipe_name[DFX_RECIPE_COUNT];

/* The classes by their numbers (DFX_CLASS_* of engine/proto.h): "dm", "gan", "real". */
#define DFX_TRAIN_CLASSES 3
extern const char *const dfx_train_class[DFX_TRAIN_CLASSES];
/* -1: no such class. */
extern int dfx_train_class_find(const char *name);

#define DFX_TRAIN_MAX_BATCH   256
#define DFX_TRAIN_MAX_EPOCHS  10000
#define DFX_TRAIN_CONFIG_TEXT (64u << 10)

/* Changes made to training images, each with a probability: augment.h. */
typedef struct DfxAugment
{
	double flip, turn, shuffle;
	double crop, crop_min;
	double jpeg;
	uint64_t jpeg_min, jpeg_max;
	double blur, blur_min, blur_max;
} DfxAugment;

typedef struct DfxTrainConfig
{
	DfxRecipe recipe;
	char backbone[32];
	int main_class; /* -1: none given */
	int binary;     /* of a classifier: 1: synthetic, real; 0: dm, gan, real */
	uint64_t head_stride, seed, epochs, head_epochs, batch, step_size;
	double learning_rate, weight_decay, gamma, share;
	bool weighted;
	DfxAugment augment;
	DfxPrecision precision;
	DfxDtype storage;
	DfxImageLimits limits;
	int ngenerator;
	char generator[DFX_GENERATORS][DFX_GENERATOR_LEN];
} DfxTrainConfig;

/* The defaults; the backbone is empty. */
extern void dfx_train_config_init(DfxTrainConfig *c);

/* Defaults, changed by the object's members; then checked.  DFX_EINVAL with the key and where. */
extern DfxStatus dfx_train_config_parse(DfxTrainConfig *c, const char *json, size_t len, DfxErr *err);

/* Whether all values are in their ranges and fit together.  DFX_EINVAL. */
extern DfxStatus dfx_train_config_check(const DfxTrainConfig *c, DfxErr *err);

/*
 * One member by its key, its value as the command line spells it (no quotes);
 * generators are not among them.  DFX_EINVAL.
 */
extern DfxStatus dfx_train_config_set(DfxTrainConfig *c, const char *key, const char *value, DfxErr *err);

/*
 * What the numbers of a run depend on, as SHA-256: all but limits.  A
 * checkpoint goes on only where it is the same.
 */
extern void dfx_train_config_digest(const DfxTrainConfig *c, uint8_t digest[32]);

#endif /* DFX_TRAIN_CONFIG_H */
