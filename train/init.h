/*
 * init.h
 *	  Where a network starts: torchvision's first weights, or given ones under a
 *	  fresh classifier.
 */
#ifndef DFX_TRAIN_INIT_H
#define DFX_TRAIN_INIT_H

#include "nn/nn.h"

/*
 * The distributions that torchvision 0.14 gives a new network of the family
 * ("densenet", "resnet", "resnext", "efficientnet", "vit"; "head": PyTorch's
 * defaults), drawn by our own formula from seed and the parameters' names.
 * The last linear layer gets torch.nn.Linear's default in every family, since
 * METHOD replaces it by a new one.  ViT's truncation at two units is left out:
 * it lies fifty standard deviations away.  DFX_ENOMEM.
 */
extern DfxStatus
dfx_init_weights(DfxGraph *g, const char *family, const char *scope, uint64_t seed, DfxErr *err);

/*
 * After that: everything but the last linear layer from the tensors of a
 * weight file, in torchvision's or timm's names; prefix: what our names have
 * before them there ("dm."), other tensors than those are ignored then.
 * DFX_EWEIGHTS when they do not fit, DFX_ENOMEM.
 */
extern DfxStatus
dfx_init_from(DfxGraph *g, const DfxTensor *tensor, size_t n, const char *prefix, DfxErr *err);

#endif /* DFX_TRAIN_INIT_H */
