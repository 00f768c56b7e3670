/*
 * names.h
 *	  From the tensor names in the world's weight files to those of our networks.
 *
 * A file's names follow a scheme: torchvision's, or another library's, which is
 * recognised by a tensor that only its files have.
 */
#ifndef DFX_BASE_NAMES_H
#define DFX_BASE_NAMES_H

#include "base/tensor.h"

typedef struct DfxScheme DfxScheme;

/* The scheme of a file that has a tensor of that name, NULL when the name tells nothing. */
extern const DfxScheme *dfx_scheme_told_by(const char *name);

/* torchvision's, which is that of every file that nothing else is told of. */
extern const DfxScheme *dfx_scheme_default(void);

/* Why networks of this scheme are not ours, whatever their tensors are called; NULL when they are. */
extern const char *dfx_scheme_refusal(const DfxScheme *scheme);

/* num_batches_tracked, which PyTorch saves with each BatchNorm and no inference needs. */
extern bool dfx_tensor_is_counter(const char *name);

/*
 * A calibrated convolution's tensor, an F32 scalar beside its weight
 * ("layer1.0.conv1.input_scale"): what a step of its input is worth, of which
 * there are DFX_SCALE_STEPS from 0 on.
 */
#define DFX_SCALE_SUFFIX ".input_scale"
#define DFX_SCALE_STEPS  255
extern bool dfx_tensor_is_scale(const char *name);

/* In which block of a DenseNet a tensor is, from 1 on ("dm.features.denseblock2.denselayer1.conv1.weight":
 * 2); 0: in none. */
extern int dfx_tensor_dense_block(const char *name);

/*
 * What a tensor of a backbone's checkpoint is called here, into ours; false for
 * one that the features do not depend on: the classifier, of whatever size, and
 * counters.
 */
extern bool dfx_backbone_tensor_name(const DfxScheme *scheme, const char *theirs, char ours[DFX_NAME_LEN]);

/* Side of the square input of a backbone of that name. */
extern uint32_t dfx_backbone_input_side(const char *backbone);

#endif /* DFX_BASE_NAMES_H */
