/*
 * wait_event.h
 *	  What our processes can be seen waiting for in pg_stat_activity.
 */
#ifndef DFX_PG_WAIT_EVENT_H
#define DFX_PG_WAIT_EVENT_H

#include "postgres.h"

typedef enum DfxWait
{
	DFX_WAIT_QUEUE,				/* a backend, for room in the queue */
	DFX_WAIT_ANSWER,			/* a backend, for the engine's answer */
	DFX_WAIT_LOADER,			/* a backend, for another one that loads weights */
	DFX_WAIT_TRAINING,			/* a session, for the engine that trains for it */
	DFX_WAIT_SUPERVISOR,		/* the supervisor, for something to do */
	DFX_WAIT_COUNT
} DfxWait;

extern uint32 dfx_wait_event(DfxWait wait);

#endif							/* DFX_PG_WAIT_EVENT_H */
