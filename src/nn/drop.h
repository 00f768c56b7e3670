/*
 * drop.h
 *	  The masks of dropout and stochastic depth (Srivastava et al., JMLR 2014;
 *	  Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016), as a
 *	  function of the place, so that backends agree on them bit for bit; for C,
 *	  C++ and kernels.
 */
#ifndef DFX_NN_DROP_H
#define DFX_NN_DROP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/random.h"

/* Whether an element stays, that goes with probability p; whole: an image's all together.  seed: the step's.
 */
DFX_ANYWHERE bool
dfx_drop_draw(float p, bool whole, uint64_t seed, int op, uint64_t image, uint64_t element)
{
	uint64_t key = dfx_mix64(seed + (uint64_t) (op + 1) * DFX_GOLDEN64);

	key = dfx_mix64(key + (image + 1) * DFX_GOLDEN64);
	if (whole)
		element = 0;
	return dfx_unit64(dfx_mix64(key + (element + 1) * DFX_GOLDEN64)) >= (double) p;
}

#endif /* DFX_NN_DROP_H */
