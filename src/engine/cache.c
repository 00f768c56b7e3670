/*
 * cache.c
 *	  The models that are ready to run (rules in cache.h).
 *
 * One mutex guards everything; models are freed outside of it, because
 * giving back hundreds of megabytes takes milliseconds in which requests for
 * other models should be admitted.
 */
#include "engine/cache.h"
#include "engine/roster.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_MAX_MODELS 64
_Static_assert(CACHE_MAX_MODELS <= DFX_RING_MODELS, "every model has a place in the roster");
#define CACHE_MAX_SIZES 256
#define CACHE_FRESH_NS  3000000000u /* a model that has not served is kept this long after its load */
#define CACHE_CLOSED_NS 1000000000u /* a closed model opens again if nobody came for its room */

struct DfxResident
{
	DfxModel *model;
	int refs;
	int place;            /* in the roster */
	uint64_t fresh_until; /* kept until then; 0 once it has served */
	uint64_t used_ns;
	uint64_t closed_order; /* closed to requests younger than this ... */
	uint64_t closed_until; /* ... until then; 0: open */
};

/*
 * What models of one stream length took when they were compiled here: the
 * length alone says less (Winograd weights are four times as large), and
 * models of one architecture share both.
 */
typedef struct CacheSize
{
	uint64_t stream_bytes;
	DfxPrecision precision;
	uint64_t bytes;
} CacheSize;

struct DfxCache
{
	pthread_mutex_t lock;
	DfxResident *resident[CACHE_MAX_MODELS];
	int n;
	uint64_t limit, bytes, reserved;
	uint64_t loading_bytes;          /* of the load in progress: stream length, */
	DfxPrecision loading_precision;  /* and the precision asked for */
	CacheSize size[CACHE_MAX_SIZES]; /* overwritten in turn */
	unsigned nsize;
	DfxNeeds needs;
	void *needs_arg;
	DfxRingStats *stats;
	DfxRingStats no_stats; /* where stats points when the caller wants none */
	DfxRingModel *roster;  /* NULL: the caller wants none */
};

DfxCache *
dfx_cache_new(uint64_t limit, DfxNeeds needs, void *arg, DfxRingStats *stats, DfxRingModel *roster)
{
	DfxCache *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	c->limit = limit;
	c->needs = needs;
	c->needs_arg = arg;
	c->stats = stats ? stats : &c->no_stats;
	c->roster = roster;
	atomic_store(&c->stats->model_limit, limit);
	return c;
}

static void
cache_publish(DfxCache *c)
{
	atomic_store(&c->stats->models, (uint64_t) c->n);
	atomic_store(&c->stats->model_bytes, c->bytes);
}

static bool
cache_is(const DfxResident *r, const uint8_t *version, DfxPrecision precision)
{
	bool same = precision == DFX_PRECISION_AUTO ? r->model->automatic : r->model->precision == precision;

	return same && memcmp(r->model->version, version, DFX_VERSION_LEN) == 0;
}

static DfxResident *
cache_find(DfxCache *c, const uint8_t *version, DfxPrecision precision)
{
	for (int i = 0; i < c->n; i++)
		if (cache_is(c->resident[i], version, precision))
			return c->resident[i];
	return NULL;
}

/* Unlink number i; the caller frees it after unlocking. */
static DfxResident *
cache_unlink(DfxCache *c, int i)
{
	DfxResident *r = c->resident[i];

	c->resident[i] = c->resident[--c->n];
	c->bytes -= r->model->bytes;
	dfx_roster_left(c->roster, r->place);
	atomic_fetch_add(&c->stats->model_evictions, 1);
	cache_publish(c);
	return r;
}

static void
cache_free(DfxResident *r)
{
	dfx_model_free(r->model);
	free(r);
}

/* --- use ----------------------------------------------------------------- */

DfxStatus
dfx_cache_acquire(DfxCache *c, const uint8_t *version, DfxPrecision precision, uint64_t order,
                  DfxResident **resident)
{
	uint64_t now = dfx_now_ns();
	DfxStatus st = DFX_OK;
	DfxResident *r;

	*resident = NULL;
	pthread_mutex_lock(&c->lock);
	r = cache_find(c, version, precision);
	if (!r)
		st = DFX_NEED_MODEL;
	else if (now < r->closed_until && order > r->closed_order)
		st = DFX_BUSY;
	else
	{
		r->refs++;
		*resident = r;
	}
	pthread_mutex_unlock(&c->lock);
	return st;
}

/* An idle model that is closed for the sake of a load goes at once while the limit is overrun. */
void
dfx_cache_release(DfxCache *c, DfxResident *resident, bool used)
{
	uint64_t now = dfx_now_ns();
	DfxResident *gone = NULL;

	pthread_mutex_lock(&c->lock);
	resident->refs--;
	if (used)
	{
		resident->fresh_until = 0;
		resident->used_ns = now;
		dfx_roster_used(c->roster, resident->place);
	}
	if (resident->refs == 0 && c->bytes > c->limit && now < resident->closed_until)
		for (int i = 0; i < c->n && !gone; i++)
			if (c->resident[i] == resident)
				gone = cache_unlink(c, i);
	pthread_mutex_unlock(&c->lock);
	if (gone)
		cache_free(gone);
}

const DfxModel *
dfx_cache_model(const DfxResident *resident)
{
	return resident->model;
}

bool
dfx_cache_has(DfxCache *c, const uint8_t *version, DfxPrecision precision)
{
	bool has;

	pthread_mutex_lock(&c->lock);
	has = cache_find(c, version, precision) != NULL;
	pthread_mutex_unlock(&c->lock);
	return has;
}

/* --- room ---------------------------------------------------------------- */

/* Whether r may go for the sake of a load of this order, as soon as nothing runs on it. */
static bool
cache_may_go(DfxCache *c, const DfxResident *r, uint64_t order, uint64_t now)
{
	return now >= r->fresh_until && !c->needs(c->needs_arg, r->model->version, order);
}

/* The least recently used idle model that may go; -1: none. */
static int
cache_victim(DfxCache *c, const bool may_go[])
{
	int victim = -1;

	for (int i = 0; i < c->n; i++)
		if (may_go[i] && c->resident[i]->refs == 0 &&
		    (victim < 0 || c->resident[i]->used_ns < c->resident[victim]->used_ns))
			victim = i;
	return victim;
}

static bool
cache_fits(const DfxCache *c, uint64_t bytes)
{
	return c->n < CACHE_MAX_MODELS && c->bytes <= c->limit && bytes <= c->limit - c->bytes;
}

/*
 * Evict until bytes fit.  If that cannot be done now nothing is evicted, and
 * what only its use keeps is closed, so that a later attempt finds it idle.
 * Victims go to gone[]; called with the lock held.
 */
static bool
cache_make_room(DfxCache *c, uint64_t bytes, uint64_t order, DfxResident *gone[], int *ngone)
{
	uint64_t now = dfx_now_ns(), idle = 0;
	bool may_go[CACHE_MAX_MODELS];
	int nidle = 0;

	*ngone = 0;
	if (cache_fits(c, bytes))
		return true;
	for (int i = 0; i < c->n; i++)
	{
		may_go[i] = cache_may_go(c, c->resident[i], order, now);
		if (may_go[i] && c->resident[i]->refs == 0)
		{
			idle += c->resident[i]->model->bytes;
			nidle++;
		}
	}
	if (c->bytes - idle > c->limit || bytes > c->limit - (c->bytes - idle) ||
	    (c->n == CACHE_MAX_MODELS && nidle == 0))
	{
		for (int i = 0; i < c->n; i++)
			if (may_go[i] && c->resident[i]->refs > 0)
			{
				c->resident[i]->closed_order = order;
				c->resident[i]->closed_until = now + CACHE_CLOSED_NS;
			}
		return false;
	}
	while (!cache_fits(c, bytes))
	{
		int victim = cache_victim(c, may_go);

		gone[(*ngone)++] = cache_unlink(c, victim);
		may_go[victim] = may_go[c->n];
	}
	return true;
}

static uint64_t *
cache_size(DfxCache *c, uint64_t stream_bytes, DfxPrecision precision)
{
	for (unsigned i = 0; i < c->nsize && i < CACHE_MAX_SIZES; i++)
		if (c->size[i].precision == precision && c->size[i].stream_bytes == stream_bytes)
			return &c->size[i].bytes;
	return NULL;
}

/* The model just compiled is the one that room was reserved for. */
static void
cache_learn_size(DfxCache *c, const DfxModel *m)
{
	uint64_t *known = cache_size(c, c->loading_bytes, c->loading_precision);

	if (known)
		*known = m->bytes;
	else
		c->size[c->nsize++ % CACHE_MAX_SIZES] = (CacheSize){
		    .stream_bytes = c->loading_bytes, .precision = c->loading_precision, .bytes = m->bytes};
}

static DfxStatus
cache_too_large(const DfxCache *c, uint64_t bytes, DfxErr *err)
{
	dfx_fail(err, DFX_ELIMIT, "the model takes %" PRIu64 " MB, more than the limit of %" PRIu64 " MB",
	         (bytes >> 20) + 1, c->limit >> 20);
	dfx_hint(err, "Raise dfx.model_memory.");
	return DFX_ELIMIT;
}

DfxStatus
dfx_cache_reserve(DfxCache *c, DfxPrecision precision, uint64_t stream_bytes, uint64_t order, DfxErr *err)
{
	DfxResident *gone[CACHE_MAX_MODELS];
	uint64_t bytes = stream_bytes, *known;
	int ngone = 0;
	bool ok = false;

	pthread_mutex_lock(&c->lock);
	c->loading_bytes = stream_bytes;
	c->loading_precision = precision;
	known = cache_size(c, stream_bytes, precision);
	if (known && *known > bytes)
		bytes = *known;
	if (bytes <= c->limit)
		ok = cache_make_room(c, bytes, order, gone, &ngone);
	if (ok)
	{
		c->reserved = bytes;
		c->bytes += bytes;
	}
	pthread_mutex_unlock(&c->lock);
	for (int i = 0; i < ngone; i++)
		cache_free(gone[i]);
	if (bytes > c->limit)
		return cache_too_large(c, bytes, err);
	if (!ok)
		return dfx_fail(err, DFX_BUSY, "the models that are loaded are in use");
	return DFX_OK;
}

void
dfx_cache_unreserve(DfxCache *c)
{
	pthread_mutex_lock(&c->lock);
	c->bytes -= c->reserved;
	c->reserved = 0;
	cache_publish(c);
	pthread_mutex_unlock(&c->lock);
}

/*
 * A plan may be larger than its stream.  If the difference cannot be freed at
 * once, the limit is overrun by it until the models in the way fall idle:
 * refusing here would throw away a load that others wait for.  It happens
 * once for an architecture, since its size is known from then on.
 */
DfxStatus
dfx_cache_insert(DfxCache *c, DfxModel *model, uint64_t order, DfxErr *err)
{
	DfxResident *r = calloc(1, sizeof *r), *gone[CACHE_MAX_MODELS];
	DfxStatus st = DFX_OK;
	int ngone = 0;

	dfx_cache_unreserve(c);
	pthread_mutex_lock(&c->lock);
	cache_learn_size(c, model);
	if (!r)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for a model");
	else if (model->bytes > c->limit)
		st = cache_too_large(c, model->bytes, err);
	else if (!cache_make_room(c, model->bytes, order, gone, &ngone) && c->n == CACHE_MAX_MODELS)
		st = dfx_fail(err, DFX_BUSY, "%d models are loaded and in use", CACHE_MAX_MODELS);
	else
	{
		r->model = model;
		r->used_ns = dfx_now_ns();
		r->fresh_until = order == UINT64_MAX ? 0 : r->used_ns + CACHE_FRESH_NS;
		r->place = dfx_roster_loaded(c->roster, model->version, model->precision, model->bytes);
		c->resident[c->n++] = r;
		c->bytes += model->bytes;
		atomic_fetch_add(&c->stats->model_loads, 1);
		cache_publish(c);
	}
	pthread_mutex_unlock(&c->lock);
	for (int i = 0; i < ngone; i++)
		cache_free(gone[i]);
	if (st != DFX_OK)
	{
		free(r);
		dfx_model_free(model);
	}
	return st;
}

DfxStatus
dfx_cache_evict(DfxCache *c, const uint8_t *version, DfxErr *err)
{
	DfxResident *gone[CACHE_MAX_MODELS];
	bool busy = false;
	int ngone = 0;

	pthread_mutex_lock(&c->lock);
	for (int i = c->n - 1; i >= 0; i--)
		if (memcmp(c->resident[i]->model->version, version, DFX_VERSION_LEN) == 0)
		{
			if (c->resident[i]->refs > 0)
				busy = true;
			else
				gone[ngone++] = cache_unlink(c, i);
		}
	pthread_mutex_unlock(&c->lock);
	for (int i = 0; i < ngone; i++)
		cache_free(gone[i]);
	if (busy)
		return dfx_fail(err, DFX_BUSY, "the model is in use");
	return DFX_OK;
}
