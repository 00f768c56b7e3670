/*
 * clock.h
 *	  Milliseconds that no administrator and no NTP can move.
 *
 * A wall clock set forward must not look like an engine that hangs, nor one
 * set back put off the next start.
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

#endif							/* DFX_PG_CLOCK_H */
