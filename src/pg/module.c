/*
 * module.c
 *	  The library's entry point.
 *
 * Loaded by shared_preload_libraries it takes part in the server's start:
 * shared memory, the ring, the supervisor.  Loaded later, by a function call
 * or LOAD, it only defines its settings, and its functions say what is
 * missing.  It never raises: a server must start with deepfeaturex in
 * whatever state.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "pg/compat.h"
#include "pg/queue_priv.h"
#include "pg/readahead.h"
#include "pg/settings.h"
#include "pg/shmem.h"
#include "pg/supervisor.h"

DFX_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	dfx_settings_init();
	if (!process_shared_preload_libraries_in_progress)
		return;
	dfx_shmem_init();
	dfx_queue_init();
	dfx_ra_init();
	dfx_supervisor_register();
}
