/*
 * roster.h
 *	  Figures about each model, in the ring, for dfx_stat_models.
 *
 * The cache keeps it up to date under its own lock, so there is one writer at
 * a time.  All functions do nothing when the roster is NULL.
 */
#ifndef DFX_ENGINE_ROSTER_H
#define DFX_ENGINE_ROSTER_H

#include "engine/proto.h"
#include "nn/backend.h"

/* A model has become resident; returns its place for the other two. */
extern int
dfx_roster_loaded(DfxRingModel *roster, const uint8_t *version, DfxPrecision precision, uint64_t bytes);
extern void dfx_roster_used(DfxRingModel *roster, int place);
extern void dfx_roster_left(DfxRingModel *roster, int place);

#endif /* DFX_ENGINE_ROSTER_H */
