/*
 * trigger.h
 *	  Faults on demand, for the tests of crash handling.
 *
 * Only build/test/dfx-engine, compiled with DFX_TEST_TRIGGERS, has them: an
 * "image" that begins with one of
 *		DFXTEST:SEGV  DFXTEST:ABORT  DFXTEST:HANG  DFXTEST:EXIT3  DFXTEST:KILL
 *		DFXTEST:SLEEP <ms> <the rest is decoded as usual>
 *		DFXTEST:LOST <the rest is decoded as usual>
 * does what it says in the decode stage, and a model whose backbone has such a
 * name as it is loaded; after LOST the next batch finds the device gone.  The
 * installed program contains
 * nothing of this.
 */
#ifndef DFX_ENGINE_TRIGGER_H
#define DFX_ENGINE_TRIGGER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#ifdef DFX_TEST_TRIGGERS
/* Obey a trigger; moves *bytes and *len past one that lets the image go on. */
extern void dfx_trigger(const uint8_t **bytes, uint64_t *len);

/* The same for the first bytes of a model's stream. */
extern void dfx_trigger_stream(const uint8_t *bytes, uint64_t len);

/* What a batch that ended with st shall have ended with. */
extern DfxStatus dfx_trigger_batch(DfxStatus st, DfxErr *err);
#else
#define dfx_trigger(bytes, len)        ((void) (bytes), (void) (len))
#define dfx_trigger_stream(bytes, len) ((void) (bytes), (void) (len))
#define dfx_trigger_batch(st, err)     (st)
#endif

#endif /* DFX_ENGINE_TRIGGER_H */
