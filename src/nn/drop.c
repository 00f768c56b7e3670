/*
 * drop.c
 *	  The masks of dropout and stochastic depth (Srivastava et al., JMLR 2014;
 *	  Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016), as a
 *	  function of the place, so that backends agree on them bit for bit.
 */
#include "base/random.h"
#include "nn/nn.h"

bool
dfx_drop_keep(const DfxDrop *drop, uint64_t seed, int op, int image, uint64_t element)
{
	uint64_t key = dfx_mix64(seed + (uint64_t) (op + 1) * DFX_GOLDEN64);

	key = dfx_mix64(key + (uint64_t) (image + 1) * DFX_GOLDEN64);
	if (drop->whole)
		element = 0;
	return dfx_unit64(dfx_mix64(key + (element + 1) * DFX_GOLDEN64)) >= (double) drop->p;
}
