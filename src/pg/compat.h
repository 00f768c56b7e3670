/*
 * compat.h
 *	  What differs between the PostgreSQL versions that deepfeaturex is
 *	  written for (15 to 18); the only file that may test PG_VERSION_NUM.
 *
 * docs/ARCHITECTURE.md, Versions, says which of them the tests have run on.  Each
 * shim says what changed upstream.
 */
#ifndef DFX_PG_COMPAT_H
#define DFX_PG_COMPAT_H

#include "postgres.h"

#include "fmgr.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "deepfeaturex needs PostgreSQL 15 or later"
#endif

/* 16 moved the varlena macros out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16 has SET ROLE as a right of its own; giving something away takes it. 42501. */
#if PG_VERSION_NUM >= 160000
#define DfxCheckCanBecome(member, role) check_can_set_role((member), (role))
#else
#define DfxCheckCanBecome(member, role) check_is_member_of_role((member), (role))
#endif

/* 17 ties wait event sets to a ResourceOwner; NULL means: until freed. */
#if PG_VERSION_NUM >= 170000
#define DfxCreateWaitEventSet(n) CreateWaitEventSet(NULL, (n))
#else
#define DfxCreateWaitEventSet(n) CreateWaitEventSet(TopMemoryContext, (n))
#endif

/* 18 moved wait event sets out of latch.h. */
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif

/* 17 lets extensions name their wait events; before, all are "Extension". */
#if PG_VERSION_NUM >= 170000
#define DfxWaitEventNew(name) WaitEventExtensionNew(name)
#else
#define DfxWaitEventNew(name) ((void) (name), (uint32) PG_WAIT_EXTENSION)
#endif

/*
 * 0 .. MaxBackends - 1 for every process that can run SQL.  17 replaced
 * pgprocno by MyProcNumber.
 */
#if PG_VERSION_NUM >= 170000
#define DfxMyProcIndex() ((int) MyProcNumber)
#else
#define DfxMyProcIndex() (MyProc->pgprocno)
#endif

/* 18 writes it before the declaration, and dropped pg_attribute_noreturn(). */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* 18 lets a module give its name and version. */
#if PG_VERSION_NUM >= 180000
#define DFX_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "deepfeaturex", .version = "0.1.0")
#else
#define DFX_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* 18 moved the parts of EXPLAIN out of explain.h. */
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/*
 * Is the client still there?  By hand, because libpq/libpq.h needs the headers
 * of every library that the server was built with, GSSAPI's among them.
 */
extern bool pq_check_connection(void);

/* 18 dropped execute_once from ExecutorRun_hook. */
#if PG_VERSION_NUM >= 180000
#define DFX_EXECUTOR_RUN_ARGS QueryDesc *desc, ScanDirection direction, uint64 count
#define DFX_EXECUTOR_RUN_PASS desc, direction, count
#else
#define DFX_EXECUTOR_RUN_ARGS QueryDesc *desc, ScanDirection direction, uint64 count, bool once
#define DFX_EXECUTOR_RUN_PASS desc, direction, count, once
#endif

#endif							/* DFX_PG_COMPAT_H */
