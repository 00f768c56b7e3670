/*
 * training.h
 *	  What training calls its samples, its splits and its progress: shared by
 *	  the loops (train/), the engine and the session that watches it.
 */
#ifndef DFX_BASE_TRAINING_H
#define DFX_BASE_TRAINING_H

#include <stdint.h>

/* Where a sample goes.  Which names of a split column mean which is train/split.h's business. */
typedef enum DfxSplit
{
	DFX_SPLIT_DRAW = 0, /* in SAMPLE only: let the draw decide */
	DFX_SPLIT_BASE_TRAIN,
	DFX_SPLIT_BASE_VAL,
	DFX_SPLIT_HEAD_TRAIN,
	DFX_SPLIT_HEAD_VAL,
	DFX_SPLIT_TEST,
	DFX_SPLIT_BASE, /* in SAMPLE only: train or validation is drawn */
	DFX_SPLIT_HEAD,
	DFX_SPLIT_UNUSED, /* in PLAN only: of a copy of another sample, or left out by balancing */
	DFX_SPLIT_COUNT
} DfxSplit;

typedef struct DfxTrainSample
{
	uint64_t number;    /* the session's; TAKEN and PLAN repeat it */
	uint8_t sha256[32]; /* of the encoded image */
	uint8_t group[32];  /* of the group column's text; all zero: the sample is its own group */
	uint32_t label;     /* DFX_CLASS_* of proto.h: dm, gan, real */
	int32_t generator;  /* index into CONFIG's generators; -1: none */
	uint32_t split;     /* DfxSplit */
	uint32_t zero;
} DfxTrainSample;

typedef struct DfxTrainPlan
{
	uint64_t number;
	uint32_t split; /* DfxSplit */
	uint32_t base;  /* bit DFX_CLASS_*: it is in that Base Model's unbalanced subset */
} DfxTrainPlan;

/* Generators that a run may name, and bytes of a name with its NUL. */
#define DFX_GENERATORS    64
#define DFX_GENERATOR_LEN 64

/* Names of phases: "dm", "gan", "real" (Base Models), "features", "head", "test"; others by their network's
 * scope. */
#define DFX_TRAIN_PHASE 16

typedef struct DfxTrainProgress
{
	char phase[DFX_TRAIN_PHASE];
	uint32_t epoch, epochs; /* from 1; 0 where there are none */
	uint64_t step, steps;   /* batches, from 1 */
	double images_per_second;
	double loss;         /* of the training batches of this epoch so far; NaN: none yet */
	double seconds_left; /* of the whole run, an estimate; negative: unknown */
} DfxTrainProgress;

typedef struct DfxTrainEpoch
{
	char phase[DFX_TRAIN_PHASE];
	uint32_t epoch, epochs;
	uint32_t best; /* non-zero: the lowest validation loss of this phase so far */
	uint32_t zero;
	double learning_rate;
	double train_loss, train_accuracy;
	double val_loss, val_accuracy;
	double seconds, images_per_second;
} DfxTrainEpoch;

#endif /* DFX_BASE_TRAINING_H */
