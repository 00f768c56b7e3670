/*
 * supervisor.h
 *	  The background worker that keeps the engine alive (supervisor.c).
 */
#ifndef DFX_PG_SUPERVISOR_H
#define DFX_PG_SUPERVISOR_H

#include "postgres.h"

extern void dfx_supervisor_register(void);
extern PGDLLEXPORT void dfx_supervisor_main(Datum arg);

#endif							/* DFX_PG_SUPERVISOR_H */
