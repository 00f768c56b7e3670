/*
 * clock.h
 *	  Milliseconds that no administrator and no NTP can move, and deadlines by them.
 *
 * A wall clock set forward must not look like an engine that hangs or a
 * deadline that has passed, nor one set back put off the next start or make
 * somebody wait for a day.  All processes of a machine have this clock in
 * common, so its times may stand in shared memory; it rests while the machine
 * is suspended.  What users are shown (dfx_stat_engine and the like) is
 * the wall clock's.
 */
#ifndef DFX_PG_CLOCK_H
#define DFX_PG_CLOCK_H

#include "postgres.h"

#include <time.h>

/* Since some moment in the past; never 0. */
static inline int64
dfx_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000 + 1;
}

#define DFX_CLOCK_NEVER PG_INT64_MAX

/* The end of a wait of so many ms that begins now; 0 ms: a wait without an end. */
static inline int64
dfx_clock_deadline(int64 ms)
{
	return ms == 0 ? DFX_CLOCK_NEVER : dfx_clock_ms() + ms;
}

/* The ms that are left until a deadline; none when it has passed. */
static inline int64
dfx_clock_left(int64 deadline)
{
	int64		left = deadline - dfx_clock_ms();	/* once: Max() would look twice */

	return Max(0, left);
}

#endif							/* DFX_PG_CLOCK_H */
