/*
 * model_load.c
 *	  Streaming a version's weights from the tables to the engine.
 *
 * What goes through the ring is the canonical stream of base/version.h, byte
 * for byte, so the engine knows by hashing it that it has the version that was
 * asked for.  Everything that can be wrong with the rows' places and lengths
 * is found in a first pass that does not touch the bytes, before the engine
 * is bothered; the second pass fills the loader's buffer directly.
 *
 * Each engine has models of its own: a request's goes into the one that asked
 * for it, others into all.
 *
 * A load that meets pinned models gives the loader back while it waits, so
 * that an older request's load can go first.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pg/clock.h"
#include "pg/model.h"
#include "pg/queue.h"
#include "pg/reply.h"
#include "pg/settings.h"
#include "pg/shmem.h"
#include "pg/wait_event.h"
#include "storage/latch.h"
#include "utils/builtins.h"

#define LOAD_BUSY_MS		20
#define LOAD_MAX_RESTARTS	3

PG_FUNCTION_INFO_V1(dfx_preload);
PG_FUNCTION_INFO_V1(dfx_evict);

static const char load_magic[] = "dfx1\n";

/* One load: what is announced, and the piece being filled. */
typedef struct LoadStream
{
	const DfxModelRef *model;
	DfxLoadBegin begin;
	char		meta[DFX_META_TEXT_MAX];
	char	   *buf;
	Size		cap,
				used;
	DfxReply   *reply;
} LoadStream;

/* Measure the stream, and find what is wrong with the rows while nobody waits. */
static void
load_measure(LoadStream *s, const DfxModelRef *model, uint64 order)
{
	DfxModelMeta meta;
	DfxWeights	w;
	uint8		head[DFX_TENSOR_HEAD_MAX];

	memset(s, 0, sizeof(*s));
	s->model = model;
	dfx_model_meta(model, &meta);
	s->begin.meta_len = dfx_meta_text(&meta, s->meta);
	s->begin.stream_bytes = strlen(load_magic) + s->begin.meta_len;
	s->begin.order = order;
	dfx_weights_open(&w, model);
	while (dfx_weights_next(&w))
	{
		CHECK_FOR_INTERRUPTS();
		s->begin.ntensor++;
		s->begin.stream_bytes += dfx_tensor_head(&w.tensor, head) + w.tensor.nbytes;
		while (dfx_weights_read(&w, NULL, SIZE_MAX) > 0)
			;
	}
	dfx_weights_close(&w);
}

/* Send the piece; false when the engine will not go on, and why is in the reply. */
static bool
load_flush(LoadStream *s)
{
	if (s->used > 0)
	{
		dfx_loader_send(DFX_RING_LOAD_DATA, s->model->version, s->used, s->reply);
		s->used = 0;
		s->buf = dfx_loader_buffer(&s->cap);
	}
	else
		s->reply->status = DFX_OK;
	return s->reply->status == DFX_OK;
}

/* Small parts, copied; tensors are read straight into the buffer. */
static bool
load_put(LoadStream *s, const void *p, Size n)
{
	const char *from = p;

	while (n > 0)
	{
		Size		piece = Min(n, s->cap - s->used);

		memcpy(s->buf + s->used, from, piece);
		s->used += piece;
		from += piece;
		n -= piece;
		if (s->used == s->cap && !load_flush(s))
			return false;
	}
	return true;
}

static bool
load_put_tensors(LoadStream *s)
{
	DfxWeights	w;
	bool		ok = true;

	dfx_weights_open(&w, s->model);
	while (ok && dfx_weights_next(&w))
	{
		uint8		head[DFX_TENSOR_HEAD_MAX];
		Size		n;

		ok = load_put(s, head, dfx_tensor_head(&w.tensor, head));
		while (ok && (n = dfx_weights_read(&w, s->buf + s->used, s->cap - s->used)) > 0)
		{
			s->used += n;
			if (s->used == s->cap)
				ok = load_flush(s);
		}
	}
	dfx_weights_close(&w);
	return ok;
}

/* The dialogue with the engine, as its loader; how it ended is in *reply. */
static void
load_stream(LoadStream *s, DfxReply *reply)
{
	const uint8 *version = s->model->version;
	DfxLoadReply answer;

	s->reply = reply;
	s->used = 0;
	s->buf = dfx_loader_buffer(&s->cap);
	memcpy(s->buf, &s->begin, sizeof(s->begin));
	dfx_loader_send(DFX_RING_LOAD_BEGIN, version, sizeof(s->begin), reply);
	if (reply->status != DFX_OK)
		return;
	if (reply->len != sizeof(answer))
		elog(ERROR, "the engine answered a load with %zu bytes", reply->len);
	memcpy(&answer, reply->data, sizeof(answer));
	if (answer.resident)
		return;

	s->buf = dfx_loader_buffer(&s->cap);
	if (load_put(s, load_magic, strlen(load_magic)) &&
		load_put(s, s->meta, s->begin.meta_len) &&
		load_put_tensors(s) &&
		load_flush(s))
		dfx_loader_send(DFX_RING_LOAD_END, version, 0, reply);
}

/* The engine tells nobody when a model is no longer in use, so ask again soon. */
static void
load_wait(int ms)
{
	int			events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								   ms, dfx_wait_event(DFX_WAIT_LOADER));

	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* Weights that are not those of the network; the engine lists every tensor that does not fit. */
static void
load_raise_misfit(const DfxModelRef *model, const DfxReply *reply)
{
	const char *state = dfx_sqlstate(reply->status);
	char	   *list = palloc(reply->len + 1);

	dfx_clean_text(list, reply->len + 1, reply->data, reply->len);
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
			 errmsg("could not load model \"%s\": %s", model->name, reply->msg),
			 errdetail("All that does not fit: %s.", list),
			 errhint("Names are those of torchvision, as dfx_export_model() writes them.")));
}

/* What to raise for a load that failed for good. */
static void
load_raise(const DfxModelRef *model, const DfxReply *reply)
{
	DfxErr		err = {.code = reply->status};

	if (reply->status == DFX_EWEIGHTS && reply->len > 0)
		load_raise_misfit(model, reply);
	if (reply->status == DFX_ECORRUPT)
		dfx_weights_blame(model);
	if (reply->status == DFX_BUSY)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no room for model \"%s\" within dfx.queue_timeout", model->name),
				 errdetail("All models in the engine's memory are in use."),
				 errhint("Increase dfx.model_memory, or use fewer models at a time.")));
	snprintf(err.msg, sizeof(err.msg), "could not load model \"%s\": %s", model->name, reply->msg);
	strlcpy(err.hint, reply->hint, sizeof(err.hint));
	dfx_err_raise(&err);
}

/*
 * Try until the version is resident in that engine, or cannot be: then *reply
 * says why.  join: be content when another backend was loading the same version
 * into it and has ended; the caller asks the engine again.
 */
static bool
load_model(const DfxModelRef *model, uint64 order, int engine, bool join, DfxReply *reply)
{
	int64		give_up = dfx_clock_ms() + dfx_queue_timeout;
	int			restarts = 0;
	LoadStream	stream;

	load_measure(&stream, model, order);
	for (;;)
	{
		memset(reply, 0, sizeof(*reply));
		if (!dfx_loader_begin(model->version, engine))
		{
			if (join)
				return true;
			continue;
		}
		load_stream(&stream, reply);
		dfx_loader_end();
		if (reply->status == DFX_OK)
		{
			if (reply->data)
				pfree(reply->data);
			return true;
		}
		if (reply->status == DFX_BUSY && dfx_clock_left(give_up) > 0)
			load_wait(LOAD_BUSY_MS);
		else if (reply->status == DFX_EUNAVAILABLE && restarts++ < LOAD_MAX_RESTARTS)
			CHECK_FOR_INTERRUPTS();
		else
			return false;
	}
}

void
dfx_model_need(const uint8 *version, uint64 order, int engine, void *arg)
{
	const DfxModelRef *model = arg;
	DfxReply	reply;

	Assert(memcmp(version, model->version, DFX_VERSION_LEN) == 0);
	if (!load_model(model, order, engine, true, &reply) &&
		(reply.status != DFX_EUNAVAILABLE || dfx_engine_state(engine) != DFX_ENGINE_FAILED))
		load_raise(model, &reply);
	/* An engine that has failed meanwhile, while others have not: one of those will be asked. */
}

/* The engine that shall have a model first: one that is ready, or will be. */
static int
load_first_engine(void)
{
	int			first = -1;

	for (int i = dfx_nengines() - 1; i >= 0; i--)
	{
		DfxEngineState state = dfx_engine_state(i);

		if (state == DFX_ENGINE_READY || (state != DFX_ENGINE_FAILED && first < 0))
			first = i;
	}
	return Max(first, 0);
}

/*
 * False when the engine's device cannot run the model (in this precision), or
 * the engine has gone.  No request waits for the model, so it is younger than
 * all that do.
 */
static bool
load_if_able(const DfxModelRef *model, int engine, DfxReply *reply)
{
	if (load_model(model, PG_UINT64_MAX, engine, false, reply))
		return true;
	if (reply->status != DFX_EUNSUPPORTED && reply->status != DFX_EUNAVAILABLE)
		load_raise(model, reply);
	return false;
}

/* Into every engine that is ready, and one at least. */
void
dfx_model_load(const DfxModelRef *model)
{
	int			first = load_first_engine();
	DfxReply	reply;
	bool		loaded = load_if_able(model, first, &reply);

	for (int i = 0; i < dfx_nengines(); i++)
		if (i != first && dfx_engine_state(i) == DFX_ENGINE_READY)
			loaded |= load_if_able(model, i, &reply);
	if (!loaded)
		load_raise(model, &reply);
}

/* dfx_preload(model text DEFAULT NULL) -> text: load a model before its first use. */
Datum
dfx_preload(PG_FUNCTION_ARGS)
{
	DfxModelRef model;
	char		hex[DFX_VERSION_HEX_LEN];

	dfx_require_ring();
	dfx_model_resolve(PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0), &model);
	dfx_model_load(&model);
	dfx_version_hex(model.version, hex);
	PG_RETURN_TEXT_P(cstring_to_text(hex));
}

static void
evict_from(const DfxModelRef *model, int engine)
{
	int64		give_up = dfx_clock_ms() + dfx_queue_timeout;
	DfxReply	reply;

	for (;;)
	{
		while (!dfx_loader_begin(model->version, engine))
			;
		dfx_loader_send(DFX_RING_EVICT, model->version, 0, &reply);
		dfx_loader_end();
		if (reply.status != DFX_BUSY)
			break;
		if (dfx_clock_left(give_up) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("model \"%s\" was in use all through dfx.queue_timeout", model->name)));
		load_wait(LOAD_BUSY_MS);
	}
	dfx_reply_raise(&reply);
}

/*
 * dfx_evict(model text) -> void: have the engines forget a model's version now.
 * Nothing is lost by it; whoever needs the version next loads it.  Other names
 * of the version, also those of other databases, share its fate.
 */
Datum
dfx_evict(PG_FUNCTION_ARGS)
{
	char	   *name = dfx_name_arg(fcinfo, 0);
	DfxModelRef model;

	dfx_require_ring();
	dfx_model_resolve_own(cstring_to_text(name), &model);
	for (int i = 0; i < dfx_nengines(); i++)
		if (dfx_nengines() == 1 || dfx_engine_state(i) == DFX_ENGINE_READY)
			evict_from(&model, i);
	PG_RETURN_VOID();
}
