/*
 * train_cmd.h
 *	  What the two ways into `dfx-engine train` share: a session's stream
 *	  (train_stream.c) and image files (train_files.c).
 */
#ifndef DFX_ENGINE_TRAIN_CMD_H
#define DFX_ENGINE_TRAIN_CMD_H

#include "engine/device.h"
#include "engine/options.h"
#include "train/run.h"

typedef struct DfxTrainCmd
{
	const DfxOptions *options;
	DfxTrainConfig config;
	DfxDevice device;
	DfxSamples samples;
	DfxIntake *intake;
	DfxRun *run;
	int threads; /* for decoding and for changes to images */
} DfxTrainCmd;

/* Open the device, with signals kept from its threads.  Errors of dfx_device_open(). */
extern DfxStatus dfx_train_cmd_device(DfxTrainCmd *t, DfxErr *err);

/* Open the file of decoded samples and begin to take samples; done hears of each. */
extern DfxStatus dfx_train_cmd_begin(DfxTrainCmd *t, DfxIntakeDone done, void *arg, DfxErr *err);

/* All samples are in: draw the splits and build the networks. */
extern DfxStatus dfx_train_cmd_plan(DfxTrainCmd *t, DfxErr *err);

/* Free what the above made. */
extern void dfx_train_cmd_end(DfxTrainCmd *t);

/* The engine's end of a session; from image files; both return the exit status. */
extern int dfx_train_stream(DfxTrainCmd *t);
extern int dfx_train_files(DfxTrainCmd *t);

#endif /* DFX_ENGINE_TRAIN_CMD_H */
