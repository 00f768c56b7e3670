/*
 * loader.c
 *	  LOAD_BEGIN reserves, LOAD_DATA collects and hashes, LOAD_END verifies and builds.
 *
 * The stream is collected whole and looked at only after its hash is known to
 * be right: bytes that are not what somebody stored never reach a parser.
 * Memory: the stream, then stream and graph (fp32 parameters), then graph and
 * plan; the cache's reservation stands for the plan.
 */
#include "engine/loader.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/trigger.h"

static void
loader_free_stream(DfxLoader *l)
{
	if (l->stream)
		munmap(l->stream, l->begin.stream_bytes);
	l->stream = NULL;
}

void
dfx_loader_forget(DfxLoader *l)
{
	loader_free_stream(l);
	if (l->active)
		dfx_cache_unreserve(l->cache);
	l->active = false;
}

static void
loader_progress(DfxLoader *l)
{
	atomic_fetch_add(&l->map->own->stats.progress, 1);
}

static DfxStatus
loader_reply(const DfxRequest *req, bool resident, uint64_t bytes, uint64_t *reply_len, DfxErr *err)
{
	DfxLoadReply reply = {.resident = resident, .bytes = bytes};

	*reply_len = sizeof reply;
	if (req->reply_cap < sizeof reply)
		return dfx_fail(err, DFX_TOO_SMALL, "the reply takes %zu bytes", sizeof reply);
	memcpy(req->reply, &reply, sizeof reply);
	return DFX_OK;
}

/* --- the operations ------------------------------------------------------ */

static DfxStatus
loader_begin(DfxLoader *l, const DfxRequest *req, uint64_t *reply_len, DfxErr *err)
{
	DfxPrecision possible; /* the device can; what AUTO stands for is the model's to say */
	DfxLoadBegin begin;
	DfxStatus st;
	void *p;

	dfx_loader_forget(l); /* what a client that died left behind */
	if (req->in_len < sizeof begin)
		return dfx_fail(err, DFX_EINVAL, "LOAD_BEGIN takes %zu bytes, not %" PRIu64, sizeof begin,
		                req->in_len);
	memcpy(&begin, req->in, sizeof begin);
	st = dfx_device_precision(l->device, req->precision, &possible, err);
	if (st != DFX_OK)
		return st;
	if (dfx_cache_has(l->cache, req->version, req->precision))
		return loader_reply(req, true, 0, reply_len, err);
	if (begin.stream_bytes == 0)
		return dfx_fail(err, DFX_EINVAL, "LOAD_BEGIN announces an empty stream");
	st = dfx_cache_reserve(l->cache, req->precision, begin.stream_bytes, begin.order, err);
	if (st != DFX_OK)
		return st;

	p = mmap(NULL, begin.stream_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
	{
		dfx_cache_unreserve(l->cache);
		return dfx_fail(err, DFX_ENOMEM, "out of memory for %" PRIu64 " bytes of weights",
		                begin.stream_bytes);
	}
	l->active = true;
	l->begin = begin;
	l->stream = p;
	l->got = 0;
	l->precision = req->precision;
	memcpy(l->version, req->version, sizeof l->version);
	dfx_sha256_init(&l->sha);
	return loader_reply(req, false, 0, reply_len, err);
}

/* DATA and END continue the load that BEGIN opened, and no other. */
static DfxStatus
loader_check(const DfxLoader *l, const DfxRequest *req, DfxErr *err)
{
	if (!l->active || memcmp(l->version, req->version, sizeof l->version) != 0)
		return dfx_fail(err, DFX_EINVAL, "no load of this model is in progress");
	return DFX_OK;
}

static DfxStatus
loader_data(DfxLoader *l, const DfxRequest *req, uint64_t *reply_len, DfxErr *err)
{
	uint8_t *p;

	(void) reply_len;
	if (loader_check(l, req, err) != DFX_OK)
		return err->code;
	if (req->in_len > l->begin.stream_bytes - l->got)
		return dfx_fail(err, DFX_ECORRUPT,
		                "the model's stream is longer than the %" PRIu64 " bytes announced",
		                l->begin.stream_bytes);
	if (req->in_len == 0)
		return DFX_OK;

	/* Hash the private copy: what is verified must be what is parsed. */
	p = l->stream + l->got;
	memcpy(p, req->in, req->in_len);
	if (l->got == 0)
		dfx_trigger_stream(p, req->in_len);
	dfx_sha256_update(&l->sha, p, req->in_len);
	l->got += req->in_len;
	return DFX_OK;
}

/* The stream is complete and is what its version says. */
static DfxStatus
loader_verify(DfxLoader *l, DfxErr *err)
{
	uint8_t digest[DFX_VERSION_LEN];
	char hex[DFX_VERSION_HEX_LEN];

	if (l->got != l->begin.stream_bytes)
		return dfx_fail(err, DFX_ECORRUPT, "the model's stream ended after %" PRIu64 " of %" PRIu64 " bytes",
		                l->got, l->begin.stream_bytes);
	dfx_sha256_final(&l->sha, digest);
	if (memcmp(digest, l->version, sizeof digest) != 0)
	{
		dfx_version_hex(l->version, hex);
		return dfx_fail(err, DFX_ECORRUPT, "the stored weights do not match the model version %.16s...", hex);
	}
	return DFX_OK;
}

/* A list too long for an error's message goes where a reply would; "..." where it does not fit there either.
 */
static void
loader_misfits(const DfxLoader *l, const DfxModelMeta *meta, const DfxTensor *tensor, const DfxRequest *req,
               uint64_t *reply_len)
{
	static const char cut[] = " ...";
	char *list = dfx_model_misfits(meta, tensor, l->begin.ntensor);
	size_t n = list ? strlen(list) : 0;

	if (n > req->reply_cap && req->reply_cap >= sizeof cut)
	{
		n = req->reply_cap;
		memcpy(list + n - (sizeof cut - 1), cut, sizeof cut - 1);
	}
	if (n > 0 && n <= req->reply_cap)
	{
		memcpy(req->reply, list, n);
		*reply_len = n;
	}
	free(list);
}

static DfxStatus
loader_build(DfxLoader *l, const DfxRequest *req, uint64_t *reply_len, DfxModel **model, DfxErr *err)
{
	DfxModelMeta meta;
	DfxTensor *tensor;
	DfxGraph *g;
	DfxStatus st = dfx_stream_parse(l->stream, l->begin.stream_bytes, l->begin.meta_len, l->begin.ntensor,
	                                &meta, &tensor, err);

	if (st != DFX_OK)
		return st;
	st = dfx_model_graph(&meta, tensor, l->begin.ntensor, &g, err);
	if (st == DFX_EWEIGHTS)
		loader_misfits(l, &meta, tensor, req, reply_len);
	free(tensor);
	loader_free_stream(l);
	loader_progress(l);
	if (st != DFX_OK)
		return st;
	st = dfx_model_compile(l->device, &meta, g, l->precision, l->max_batch, model, err);
	if (st == DFX_OK)
		memcpy((*model)->version, l->version, sizeof l->version);
	loader_progress(l);
	return st;
}

static DfxStatus
loader_end(DfxLoader *l, const DfxRequest *req, uint64_t *reply_len, DfxErr *err)
{
	char hex[DFX_VERSION_HEX_LEN];
	uint64_t bytes, t0 = dfx_now_ns();
	DfxModel *model;
	DfxStatus st = loader_check(l, req, err);

	if (st == DFX_OK)
		st = loader_verify(l, err);
	if (st == DFX_OK)
		st = loader_build(l, req, reply_len, &model, err);
	if (st != DFX_OK)
		return st;
	bytes = model->bytes;
	dfx_version_hex(model->version, hex);
	st = dfx_cache_insert(l->cache, model, l->begin.order, err);
	l->active = false; /* insert has ended the reservation */
	malloc_trim(0);    /* the graph's parameters, as large as the model */
	if (st != DFX_OK)
		return st;
	dfx_log('I', "model %.16s loaded: %" PRIu64 " MB, built in %" PRIu64 " ms", hex, bytes >> 20,
	        (dfx_now_ns() - t0) / 1000000);
	return loader_reply(req, true, bytes, reply_len, err);
}

static DfxStatus
loader_abort(DfxLoader *l, const DfxRequest *req, uint64_t *reply_len, DfxErr *err)
{
	(void) req;
	(void) reply_len;
	(void) err;
	dfx_loader_forget(l);
	return DFX_OK;
}

static DfxStatus
loader_evict(DfxLoader *l, const DfxRequest *req, uint64_t *reply_len, DfxErr *err)
{
	(void) reply_len;
	return dfx_cache_evict(l->cache, req->version, err);
}

static DfxStatus
loader_ping(DfxLoader *l, const DfxRequest *req, uint64_t *reply_len, DfxErr *err)
{
	(void) l;
	(void) req;
	(void) reply_len;
	(void) err;
	return DFX_OK;
}

/* Whether a failure of the operation leaves the load in progress unusable. */
static const struct
{
	DfxStatus (*run)(DfxLoader *l, const DfxRequest *req, uint64_t *reply_len, DfxErr *err);
	bool fatal;
} loader_op[DFX_RING_OP_COUNT] = {
    [DFX_RING_PING] = {loader_ping, false},       [DFX_RING_LOAD_BEGIN] = {loader_begin, true},
    [DFX_RING_LOAD_DATA] = {loader_data, true},   [DFX_RING_LOAD_END] = {loader_end, true},
    [DFX_RING_LOAD_ABORT] = {loader_abort, true}, [DFX_RING_EVICT] = {loader_evict, false},
};

DfxStatus
dfx_loader_run(DfxLoader *loader, const DfxRequest *req, uint64_t *reply_len, DfxErr *err)
{
	DfxStatus st;

	*reply_len = 0;
	loader_progress(loader);
	if (!loader_op[req->op].run)
		return dfx_fail(err, DFX_EINVAL, "operation %d does not belong in the loader's slot", (int) req->op);
	st = loader_op[req->op].run(loader, req, reply_len, err);
	if (st != DFX_OK && loader_op[req->op].fatal)
		dfx_loader_forget(loader);
	return st;
}
