/*
 * drop.c
 *	  drop.h's masks, for the graph's ops.
 */
#include "nn/drop.h"

#include "nn/nn.h"

bool
dfx_drop_keep(const DfxDrop *drop, uint64_t seed, int op, int image, uint64_t element)
{
	return dfx_drop_draw(drop->p, drop->whole, seed, op, (uint64_t) image, element);
}
