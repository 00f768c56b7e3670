/*
 * preload.h
 *	  dfx.preload_models: which models the engine has before anybody asks.
 */
#ifndef DFX_PG_PRELOAD_H
#define DFX_PG_PRELOAD_H

#include "postgres.h"

#include "utils/guc.h"

/* The setting's check hook: its syntax, nothing else. */
extern bool dfx_preload_check(char **newval, void **extra, GucSource source);

/*
 * For the supervisor: an engine is ready; one ended unasked, and had been
 * healthy for long or not; the configuration was read again; one turn of its
 * loop, which starts workers when it is time.  None of them raises or waits.
 */
extern void dfx_preload_engine_ready(void);
extern void dfx_preload_engine_died(bool healthy);
extern void dfx_preload_reload(void);
extern void dfx_preload_turn(void);

/* Where the workers begin. */
extern PGDLLEXPORT void dfx_preload_main(Datum arg);

#endif							/* DFX_PG_PRELOAD_H */
