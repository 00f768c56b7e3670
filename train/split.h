/*
 * split.h
 *	  Which sample serves for what (METHOD "Data split"; paper, section 3).
 *
 * Every draw is a function of the seed and of what the sample is (its group,
 * or the SHA-256 of its bytes), so that it depends neither on the order of
 * rows nor, for one sample, on which others there are:
 *
 *	- 40 % Base Models, 40 % head, 20 % test; where there is one network only
 *	  (classifier, hierarchy) its part is both 40 %
 *	- 80:20 training and validation inside the Base Models' part; the head's
 *	  validation has the same number of each class, 0.2 x the smallest
 *	- a group goes one way as a whole; images of equal bytes are one image, whose
 *	  copies are DFX_SPLIT_UNUSED, and the groups that they are in are one group
 *	- a sample that comes with a split of its own keeps it; DFX_SPLIT_BASE and
 *	  _HEAD leave training or validation to the draw
 *
 * The names of a split column (dfx_split_name) are "draw", "base_train",
 * "base_val", "head_train", "head_val", "test", "base", "head", "unused".
 */
#ifndef DFX_TRAIN_SPLIT_H
#define DFX_TRAIN_SPLIT_H

#include "train/samples.h"

#define DFX_SPLIT_SHARE_BASE 0.4
#define DFX_SPLIT_SHARE_HEAD 0.4
#define DFX_SPLIT_SHARE_VAL  0.2

extern const char *const dfx_split_name[DFX_SPLIT_COUNT];

/* Only names that a sample may come with.  false: none of them. */
extern bool dfx_split_parse(const char *name, DfxSplit *split);

/*
 * Give every sample its split and subsets, and s->order.  DFX_EINVAL when
 * copies of one image contradict each other, or when a network would have too few of a
 * class; DFX_ENOMEM.
 */
extern DfxStatus dfx_split(DfxSamples *s, const DfxTrainConfig *c, DfxErr *err);

#endif /* DFX_TRAIN_SPLIT_H */
