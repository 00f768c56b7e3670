/*
 * slot.h
 *	  Slots and their states: claimed and given back by backends, delivered by
 *	  the supervisor (slot.c), which also answers for dead engines (slot_sweep.c).
 */
#ifndef DFX_PG_SLOT_H
#define DFX_PG_SLOT_H

#include "pg/shmem.h"

/* Backends (slot.c). */
extern int	dfx_slot_claim(uint32 npages, bool wait, uint64 *offset);
extern void dfx_slot_leave_line(void);
extern bool dfx_slot_claim_loader_locked(void);
extern uint64 dfx_slot_submit(int slot, int engine, int ahead, uint64 *order, int blame);
extern int	dfx_slot_blame(int slot);
extern bool dfx_slot_done(int slot, uint64 gen);
extern bool dfx_slot_taken(int slot, uint64 gen);
extern bool dfx_slot_let_go(int slot, uint64 gen);
extern void dfx_slot_count(uint64 *counter);

/* The supervisor (slot.c and slot_sweep.c). */
typedef struct DfxSweep
{
	const char *crash;			/* how the engine died; NULL: it was told to stop */
	bool		killed;			/* it was ended from outside: by an administrator, or for want of memory */
	const char *unavailable;	/* why no engine will come soon; NULL: one will */
} DfxSweep;

extern void dfx_slot_deliver(void);
extern int	dfx_slot_sweep(int engine, const DfxSweep *how);
extern int	dfx_slot_in_flight(int engine);

/* For slot_sweep.c (slot.c). */
extern bool dfx_slot_engine_lives_locked(int engine);
extern void dfx_slot_wake_engines(void);

/* Statistics (slot.c): what the slots are doing at one moment. */
typedef struct DfxSlotCensus
{
	int			free,
				claimed,
				queued,
				running,
				done,
				abandoned;
} DfxSlotCensus;

extern void dfx_slot_census_locked(DfxSlotCensus *census);

#endif							/* DFX_PG_SLOT_H */
