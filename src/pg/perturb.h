/*
 * perturb.h
 *	  Perturbations as SQL names them.
 */
#ifndef DFX_PG_PERTURB_H
#define DFX_PG_PERTURB_H

#include "postgres.h"

#include "base/perturbation.h"

/* 22023 for what is no perturbation, with what is allowed as the hint. */
extern void dfx_perturb_arg(const text *how, DfxPerturbation *p);

#endif							/* DFX_PG_PERTURB_H */
