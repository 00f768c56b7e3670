/*
 * run.h
 *	  A whole training run: from samples with their splits to a model and its
 *	  figures, by one of the recipes (config.h), resumable after every epoch.
 *
 *	kind			networks in their order (their scopes are the phases' names)
 *	trinet			dm, gan, real; features; head; test
 *	base			the main class; test
 *	head			features of three given networks; head; test
 *	classifier		classifier; test
 *	hierarchy		ai, type, dm, gan; test.  dm and gan name the generators, and
 *					are left out when fewer than two have enough images
 *
 * Life: new, give ..., [resume], train, metrics and export, free.
 */
#ifndef DFX_TRAIN_RUN_H
#define DFX_TRAIN_RUN_H

#include "train/learn.h"

typedef struct DfxRun DfxRun;

/* The config and the device stay the caller's, and in place.  DFX_EINVAL for an unknown backbone; DFX_ENOMEM.
 */
extern DfxStatus
dfx_run_new(const DfxTrainConfig *config, const DfxTrainDevice *device, DfxRun **run, DfxErr *err);
extern void dfx_run_free(DfxRun *run);

/*
 * A weight file to start from: for every network (name ""), or for the Base
 * Model that name says.  A complete model or a hierarchy gives each network
 * its part.  The bytes stay the caller's, and in place.  DFX_EINVAL for
 * another name or the same a second time, DFX_EWEIGHTS, DFX_ENOMEM.
 */
extern DfxStatus dfx_run_give(DfxRun *run, const char *name, const uint8_t *bytes, uint64_t len, DfxErr *err);

/* The samples, with their splits: they stay the caller's.  Builds the networks.  DFX_EINVAL, DFX_EWEIGHTS,
 * DFX_ENOMEM. */
extern DfxStatus dfx_run_prepare(DfxRun *run, const DfxSamples *samples, DfxErr *err);

/*
 * After prepare: go on where a checkpoint left off.  The bytes must stay in
 * place until train returns.  DFX_EINVAL when it is of another configuration
 * or of other samples, DFX_EWEIGHTS when it is no checkpoint.
 */
extern DfxStatus dfx_run_resume(DfxRun *run, const uint8_t *bytes, uint64_t len, DfxErr *err);

/* Train and test.  Errors as of dfx_learn_run(). */
extern DfxStatus dfx_run_train(DfxRun *run, const DfxTrainWatch *watch, DfxErr *err);

/*
 * The state between two epochs, for resume: to be called from watch->epoch.
 * A safetensors file, bit for bit the same for the same state; *bytes is
 * malloc'd.  DFX_ENOMEM, the backend's errors.
 */
extern DfxStatus dfx_run_checkpoint(const DfxRun *run, uint8_t **bytes, size_t *len, DfxErr *err);

/* After train: the figures as JSON (report.h), and the model as a file; *bytes is malloc'd. */
extern const char *dfx_run_metrics(const DfxRun *run);
extern const DfxModelMeta *dfx_run_meta(const DfxRun *run);
extern DfxStatus dfx_run_export(const DfxRun *run, uint8_t **bytes, size_t *len,
                                uint8_t version[DFX_VERSION_LEN], DfxErr *err);

#endif /* DFX_TRAIN_RUN_H */
