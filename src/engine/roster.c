/*
 * roster.c
 *	  What dfx_stat_models shows (roster.h).
 *
 * The ring can be scribbled on by a stray write, so nothing is computed from
 * what is read back but the figures themselves; places are the cache's own.
 */
#include "engine/roster.h"

#include <string.h>
#include <time.h>

static void
roster_write(DfxRingModel *r, const DfxModelStat *stat)
{
	uint64_t seq = atomic_load_explicit(&r->seq, memory_order_relaxed);

	atomic_store_explicit(&r->seq, seq | 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	r->stat = *stat;
	atomic_store_explicit(&r->seq, (seq | 1) + 1, memory_order_release);
}

/*
 * Where the model is, or was; else an unused place, else that of the evicted
 * model used longest ago.  There is one: fewer are resident than there are places.
 */
static int
roster_place(const DfxRingModel *roster, const uint8_t *version, DfxPrecision precision)
{
	int best = -1;

	for (int i = 0; i < DFX_RING_MODELS; i++)
	{
		const DfxModelStat *s = &roster[i].stat;

		if (s->precision == (uint32_t) precision && memcmp(s->version, version, DFX_VERSION_LEN) == 0)
			return i;
		if (!s->resident && (best < 0 || s->last_use < roster[best].stat.last_use ||
		                     (s->precision == 0 && roster[best].stat.precision != 0)))
			best = i;
	}
	return best < 0 ? 0 : best;
}

int
dfx_roster_loaded(DfxRingModel *roster, const uint8_t *version, DfxPrecision precision, uint64_t bytes)
{
	DfxModelStat s;
	int place;

	if (!roster)
		return 0;
	place = roster_place(roster, version, precision);
	s = roster[place].stat;
	if (s.precision != (uint32_t) precision || memcmp(s.version, version, DFX_VERSION_LEN) != 0)
		s = (DfxModelStat){.precision = (uint32_t) precision};
	memcpy(s.version, version, DFX_VERSION_LEN);
	s.resident = 1;
	s.bytes = bytes;
	s.loads++;
	roster_write(&roster[place], &s);
	return place;
}

void
dfx_roster_used(DfxRingModel *roster, int place)
{
	struct timespec now;
	DfxModelStat s;

	if (!roster)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	s = roster[place].stat;
	s.hits++;
	s.last_use = (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
	roster_write(&roster[place], &s);
}

void
dfx_roster_left(DfxRingModel *roster, int place)
{
	DfxModelStat s;

	if (!roster)
		return;
	s = roster[place].stat;
	s.resident = 0;
	roster_write(&roster[place], &s);
}
