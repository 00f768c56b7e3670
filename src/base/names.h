/*
 * names.h
 *	  From the tensor names in the world's weight files to those of our networks.
 */
#ifndef DFX_BASE_NAMES_H
#define DFX_BASE_NAMES_H

#include "base/tensor.h"

/*
 * What a tensor of a torchvision or timm checkpoint of one backbone is called
 * here, into ours; false for one that the features do not depend on: the
 * classifier, of whatever size, and num_batches_tracked.
 */
extern bool dfx_backbone_tensor_name(const char *theirs, char ours[DFX_NAME_LEN]);

/* Side of the square input of a backbone of that name. */
extern uint32_t dfx_backbone_input_side(const char *backbone);

#endif /* DFX_BASE_NAMES_H */
