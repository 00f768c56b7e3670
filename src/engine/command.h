/*
 * command.h
 *	  The subcommands of dfx-engine.  Each returns the exit status: 0 on
 *	  success, 1 on failure, 2 for a wrong command line.
 */
#ifndef DFX_ENGINE_COMMAND_H
#define DFX_ENGINE_COMMAND_H

#include "base/safetensors.h"
#include "engine/model.h"
#include "engine/options.h"

extern int dfx_cmd_classify(const DfxOptions *o); /* cmd_infer.c */
extern int dfx_cmd_logits(const DfxOptions *o);
extern int dfx_cmd_trinet(const DfxOptions *o);
extern int dfx_cmd_decode(const DfxOptions *o); /* cmd_tools.c */
extern int dfx_cmd_devices(const DfxOptions *o);
extern int dfx_cmd_backbones(const DfxOptions *o);
extern int dfx_cmd_bench(const DfxOptions *o);   /* cmd_bench.c */
extern int dfx_cmd_init(const DfxOptions *o);    /* cmd_init.c */
extern int dfx_cmd_heatmap(const DfxOptions *o); /* cmd_heatmap.c */
extern int dfx_cmd_train(const DfxOptions *o);   /* cmd_train.c */

/* ---- what they share: command.c ---- */

/* Say err on stderr; returns 1. */
extern int dfx_complain(const DfxErr *err);

/* Read a file of at most max bytes; *bytes is malloc'd.  DFX_EIO, DFX_ELIMIT, DFX_ENOMEM. */
extern DfxStatus dfx_read_file(const char *path, uint64_t max, uint8_t **bytes, size_t *len, DfxErr *err);

/*
 * What a network of that input size sees of an image file, decoded as the
 * options say; pixels: input_size^2 x 3 bytes.  Errors of reading and decoding.
 */
extern DfxStatus
dfx_read_image(const DfxOptions *o, const char *path, uint32_t input_size, uint8_t *pixels, DfxErr *err);

/* Write a file whole; a short write is an error too.  DFX_EIO. */
extern DfxStatus dfx_write_file(const char *path, const uint8_t *bytes, size_t len, DfxErr *err);

/*
 * A model from one of our own files: what it is, its network with its weights,
 * its version.  DFX_EIO, and those of reading and building; *g is NULL then.
 */
extern DfxStatus dfx_model_file(const char *path, DfxModelMeta *meta, DfxGraph **g,
                                uint8_t version[DFX_VERSION_LEN], DfxErr *err);

/* --backbone by name.  DFX_EINVAL. */
extern DfxStatus dfx_option_backbone(const DfxOptions *o, const DfxBackbone **b, DfxErr *err);

/* The network of meta, filled by the formula of DESIGN 8. */
extern DfxStatus
dfx_random_graph(const DfxModelMeta *meta, int nclass, uint64_t seed, DfxGraph **g, DfxErr *err);

/* dfx_model_graph() of a file; what does not fit the network is listed whole on stderr, before the error is
 * told. */
extern DfxStatus
dfx_file_graph(const DfxModelMeta *meta, const DfxSafetensors *file, DfxGraph **g, DfxErr *err);

#endif /* DFX_ENGINE_COMMAND_H */
