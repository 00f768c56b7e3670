/*
 * cache.c
 *	  The models that are ready to run (rules in cache.h).
 *
 * One mutex guards everything; models are freed outside of it, because
 * giving back hundreds of megabytes takes milliseconds in which requests for
 * other models should be admitted.
 */
#include "engine/cache.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_MAX_MODELS 64
#define CACHE_FRESH_NS   10000000000u /* an unused model is kept this long after its load */
#define CACHE_CLOSED_NS  1000000000u  /* a closed model opens again if nobody came for its room */

struct DfxResident
{
	DfxModel *model;
	int refs;
	bool used;
	uint64_t loaded_ns, used_ns;
	uint64_t closed_order; /* closed to requests younger than this ... */
	uint64_t closed_until; /* ... until then; 0: open */
};

struct DfxCache
{
	pthread_mutex_t lock;
	DfxResident *resident[CACHE_MAX_MODELS];
	int n;
	uint64_t limit, bytes, reserved;
	DfxNeeds needs;
	void *needs_arg;
	DfxRingStats *stats;
	DfxRingStats no_stats; /* where stats points when the caller wants none */
};

DfxCache *
dfx_cache_new(uint64_t limit, DfxNeeds needs, void *arg, DfxRingStats *stats)
{
	DfxCache *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	c->limit = limit;
	c->needs = needs;
	c->needs_arg = arg;
	c->stats = stats ? stats : &c->no_stats;
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
	return r->model->precision == precision && memcmp(r->model->version, version, DFX_VERSION_LEN) == 0;
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
		r->used = true;
		r->used_ns = now;
		*resident = r;
	}
	pthread_mutex_unlock(&c->lock);
	return st;
}

void
dfx_cache_release(DfxCache *c, DfxResident *resident)
{
	pthread_mutex_lock(&c->lock);
	resident->refs--;
	pthread_mutex_unlock(&c->lock);
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
	bool fresh = !r->used && now < r->loaded_ns + CACHE_FRESH_NS;

	return !fresh && !c->needs(c->needs_arg, r->model->version, order);
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

DfxStatus
dfx_cache_reserve(DfxCache *c, uint64_t bytes, uint64_t order, DfxErr *err)
{
	DfxResident *gone[CACHE_MAX_MODELS];
	int ngone;
	bool ok;

	if (bytes > c->limit)
	{
		dfx_fail(err, DFX_ELIMIT, "the model takes %" PRIu64 " MB, more than the limit of %" PRIu64 " MB",
		         bytes >> 20, c->limit >> 20);
		dfx_hint(err, "Raise dfx.model_memory.");
		return DFX_ELIMIT;
	}
	pthread_mutex_lock(&c->lock);
	ok = cache_make_room(c, bytes, order, gone, &ngone);
	if (ok)
	{
		c->reserved = bytes;
		c->bytes += bytes;
	}
	pthread_mutex_unlock(&c->lock);
	for (int i = 0; i < ngone; i++)
		cache_free(gone[i]);
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

DfxStatus
dfx_cache_insert(DfxCache *c, DfxModel *model, uint64_t order, DfxErr *err)
{
	DfxResident *r = calloc(1, sizeof *r), *gone[CACHE_MAX_MODELS];
	DfxStatus st = DFX_OK;
	int ngone = 0;

	dfx_cache_unreserve(c);
	if (!r)
		st = dfx_fail(err, DFX_ENOMEM, "out of memory for a model");
	else if (model->bytes > c->limit)
	{
		st = dfx_fail(err, DFX_ELIMIT, "the model takes %zu MB, more than the limit of %" PRIu64 " MB",
		              model->bytes >> 20, c->limit >> 20);
		dfx_hint(err, "Raise dfx.model_memory.");
	}
	if (st != DFX_OK)
	{
		free(r);
		dfx_model_free(model);
		return st;
	}

	r->model = model;
	r->loaded_ns = r->used_ns = dfx_now_ns();
	pthread_mutex_lock(&c->lock);

	/*
	 * A plan may be a little larger than its stream.  If the difference
	 * cannot be freed at once the limit is overrun by it until the next load:
	 * refusing here would throw the load away that others wait for.
	 */
	cache_make_room(c, model->bytes, order, gone, &ngone);
	if (c->n < CACHE_MAX_MODELS)
	{
		c->resident[c->n++] = r;
		c->bytes += model->bytes;
		r = NULL;
	}
	atomic_fetch_add(&c->stats->model_loads, 1);
	cache_publish(c);
	pthread_mutex_unlock(&c->lock);
	for (int i = 0; i < ngone; i++)
		cache_free(gone[i]);
	if (!r)
		return DFX_OK;
	cache_free(r);
	return dfx_fail(err, DFX_BUSY, "%d models are loaded and in use", CACHE_MAX_MODELS);
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
