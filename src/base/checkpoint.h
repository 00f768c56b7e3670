/*
 * checkpoint.h
 *	  The world's weight files as ours: the tensors of a safetensors header, all
 *	  renamed at once and sorted again.  No data is touched.
 */
#ifndef DFX_BASE_CHECKPOINT_H
#define DFX_BASE_CHECKPOINT_H

#include "base/safetensors.h"
#include "base/version.h"

/*
 * A lone backbone: torchvision's names or timm's, with or without its
 * classifier.  DFX_EWEIGHTS: no tensor of a backbone, two for one place, or a
 * network that is not ours; DFX_ENOMEM.
 */
extern DfxStatus dfx_checkpoint_backbone(DfxSafetensors *st, DfxErr *err);

/* Does a file hold a complete model as the authors of the paper save theirs (METHOD "Complete model")? */
extern bool dfx_checkpoint_is_complete(const DfxSafetensors *st);

/*
 * Such a file: its three branches and its head get our names, and meta all that
 * names and shapes tell (everything but the stride of the head, which they do
 * not).  Errors as above, and DFX_EWEIGHTS when no backbone is recognised.
 */
extern DfxStatus dfx_checkpoint_complete(DfxSafetensors *st, DfxModelMeta *meta, DfxErr *err);

#endif /* DFX_BASE_CHECKPOINT_H */
