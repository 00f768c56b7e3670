/*
 * wait_event.c
 *	  Names of wait events, made at their first use: PostgreSQL gives them out
 *	  from shared memory, which does not exist yet in _PG_init().
 */
#include "postgres.h"

#include "pg/compat.h"
#include "pg/wait_event.h"

static const char *const wait_names[] = {
	[DFX_WAIT_QUEUE] = "DfxQueue",
	[DFX_WAIT_ANSWER] = "DfxAnswer",
	[DFX_WAIT_LOADER] = "DfxLoader",
	[DFX_WAIT_TRAINING] = "DfxTraining",
	[DFX_WAIT_SUPERVISOR] = "DfxSupervisorMain",
};

StaticAssertDecl(lengthof(wait_names) == DFX_WAIT_COUNT, "every wait has a name");

uint32
dfx_wait_event(DfxWait wait)
{
	static uint32 ids[DFX_WAIT_COUNT];

	if (ids[wait] == 0)
		ids[wait] = DfxWaitEventNew(wait_names[wait]);
	return ids[wait];
}
