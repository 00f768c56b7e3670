/*
 * train_list.h
 *	  Labelled image files: from a directory with one subdirectory a class, or
 *	  from a CSV file.
 */
#ifndef DFX_ENGINE_TRAIN_LIST_H
#define DFX_ENGINE_TRAIN_LIST_H

#include "base/training.h"
#include "train/config.h"

typedef struct DfxTrainFile
{
	char *path;
	int label;
	bool grouped;
	uint8_t group[32];
	char *generator; /* NULL: none */
	DfxSplit split;
} DfxTrainFile;

typedef struct DfxTrainList
{
	DfxTrainFile *file;
	size_t n, cap;
} DfxTrainList;

/*
 * From a directory: all files below its subdirectories dm, gan and real.  From
 * a file: RFC 4180 with a header; columns path (relative to the file's own
 * directory) and label, and if wanted group, generator and split
 * (train/split.h); others are ignored.  DFX_EIO, DFX_EINVAL with the line, DFX_ENOMEM.
 */
extern DfxStatus dfx_train_list(const char *from, DfxTrainList *list, DfxErr *err);
extern void dfx_train_list_free(DfxTrainList *list);

/* The names of all generators, in byte order, into the configuration.  DFX_ELIMIT. */
extern DfxStatus dfx_train_list_generators(const DfxTrainList *list, DfxTrainConfig *c, DfxErr *err);

#endif /* DFX_ENGINE_TRAIN_LIST_H */
