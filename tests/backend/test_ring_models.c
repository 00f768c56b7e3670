/*
 * test_ring_models.c
 *	  Models through the ring: loading, verifying, features and verdicts in
 *	  batches, and two models that do not fit together.
 */
#include <math.h>

#include "cpu/cpu.h"
#include "image/image.h"
#include "tests/backend/ring_client.h"
#include "tests/unit/slurp.h"

static const DfxModelMeta lone = {.kind = "backbone", .backbone = "resnet18", .input_size = 256};
static const DfxModelMeta complete = {.kind = "trinet",
                                      .backbone = "resnet18",
                                      .classes = "dm,gan,real",
                                      .head_stride = 2,
                                      .input_size = 256};

/* The images of these tests, encoded. */
#define IMAGES 4
static const char *const image_file[IMAGES] = {
    "tests/golden/images/photo-444-q75.jpg", "tests/golden/images/jpeg-255x257.jpg",
    "tests/golden/images/photo-progressive.jpg", "tests/golden/images/png-c6-b16-adam7.png"};
static uint8_t *image[IMAGES];
static size_t image_len[IMAGES];

static int
call_image(Client *c, uint32_t slot, DfxRingOp op, int i, const uint8_t *version)
{
	return client_call(c, slot, op, image[i], image_len[i], version);
}

/* The outputs of a network for image i, by the backend itself: no ring, no batch. */
static void
direct(const DfxModelMeta *meta, uint64_t seed, int i, float *features, float *logits)
{
	static uint8_t pixels[256 * 256 * 3];
	const DfxBackend *b = &dfx_cpu_backend;
	float *out[DFX_MAX_OUT] = {features, logits};
	DfxImageLimits limits = DFX_DEFAULT_LIMITS;
	DfxPlanOpts po = {.max_batch = 1, .precision = DFX_PRECISION_FP32};
	DfxDevOpts o = {.threads = 1};
	DfxGraph *g = dfx_graph_new();
	DfxPlan *plan;
	DfxDev *dev;
	DfxErr err;

	if (dfx_build_model(g, meta, 0, &err) != DFX_OK || dfx_weights_random(g, seed, &err) != DFX_OK ||
	    b->open(&o, &dev, &err) != DFX_OK || dfx_graph_optimize(g, b->supports, dev, &err) != DFX_OK ||
	    b->compile(dev, g, &po, &plan, &err) != DFX_OK ||
	    dfx_image_prepare(image[i], image_len[i], &limits, 256, pixels, &err) != DFX_OK ||
	    b->forward(plan, pixels, 1, out, &err) != DFX_OK)
		abort();
	dfx_graph_free(g);
	b->release(plan);
	b->close(dev);
}

static float
worst(const float *a, const float *b, int n)
{
	float d = 0, scale = 0;

	for (int i = 0; i < n; i++)
	{
		scale = fmaxf(scale, fabsf(b[i]));
		d = fmaxf(d, fabsf(a[i] - b[i]));
	}
	return d / scale;
}

/* ---- calibrating ---- */

static void
test_calibrate(Client *c, const Stream *a)
{
	static const char first[] = "layer1.0.conv1.input_scale";
	const char *reply = (const char *) client_reply(c, 0);
	DfxSlot *s = client_fill(c, 0, DFX_RING_CALIBRATE, image[0], image_len[0], a->version);
	float largest = 0;

	s->precision = DFX_PRECISION_FP32;
	client_submit(c, 0);
	ok(client_wait(c, 0) == DFX_OK && s->reply_len > sizeof first + sizeof largest &&
	       memcmp(reply, first, sizeof first) == 0,
	   "calibration names the first convolution behind the stem");
	memcpy(&largest, reply + sizeof first, sizeof largest);
	ok(largest > 0 && largest < 1000, "... and its largest input: %g", (double) largest);
	s = client_fill(c, 0, DFX_RING_CALIBRATE, image[0], image_len[0], a->version);
	s->precision = DFX_PRECISION_FP32;
	s->reply_cap = 100;
	client_submit(c, 0);
	ok(client_wait(c, 0) == DFX_TOO_SMALL && s->reply_len > 100,
	   "too little room for it: DFX_TOO_SMALL, %d needed", (int) s->reply_len);
}

/* ---- loading ---- */

static void
test_load(Client *c, const Stream *a, const Stream *partial)
{
	float want[512], got[512];
	Stream wrong = *a;
	DfxLoadReply reply;
	DfxSlot *s;

	ok(call_image(c, 0, DFX_RING_FEATURES, 0, a->version) == DFX_NEED_MODEL, "an absent model is asked for");
	wrong.version[0] ^= 1;
	ok(client_load(c, &wrong, 1, DFX_LOADER_BYTES) == DFX_ECORRUPT,
	   "a stream of another hash: DFX_ECORRUPT (%s)", client_slot(c, CLIENT_LOADER)->msg);
	ok(call_image(c, 0, DFX_RING_FEATURES, 0, wrong.version) == DFX_NEED_MODEL, "it is not there afterwards");
	ok(client_load(c, partial, 1, DFX_LOADER_BYTES) == DFX_EWEIGHTS, "a missing tensor: DFX_EWEIGHTS (%s)",
	   client_slot(c, CLIENT_LOADER)->msg);
	s = client_slot(c, CLIENT_LOADER);
	ok(s->reply_len > 9 && s->reply_len < s->reply_cap &&
	       memcmp(client_reply(c, CLIENT_LOADER), "missing: ", 9) == 0,
	   "... the reply names it: %.*s", (int) s->reply_len, (const char *) client_reply(c, CLIENT_LOADER));

	client_load_begin(c, a, 1);
	ok(client_call(c, CLIENT_LOADER, DFX_RING_LOAD_DATA, a->bytes, 1000, a->version) == DFX_OK &&
	       client_call(c, CLIENT_LOADER, DFX_RING_LOAD_END, NULL, 0, a->version) == DFX_ECORRUPT,
	   "a stream that ends early: DFX_ECORRUPT");
	client_load_begin(c, partial, 1);
	ok(client_call(c, CLIENT_LOADER, DFX_RING_LOAD_DATA, a->bytes, 1000, a->version) == DFX_EINVAL,
	   "data of another model than was begun: DFX_EINVAL");

	client_load_begin(c, a, 1);
	client_fill(c, CLIENT_LOADER, DFX_RING_LOAD_DATA, a->bytes, 1000, a->version);
	atomic_store(&client_slot(c, CLIENT_LOADER)->cancel_gen, c->gen + 1);
	client_submit(c, CLIENT_LOADER);
	ok(client_wait(c, CLIENT_LOADER) == DFX_ECANCELED, "a canceled piece: DFX_ECANCELED");
	ok(client_call(c, CLIENT_LOADER, DFX_RING_LOAD_DATA, a->bytes, 1000, a->version) == DFX_EINVAL,
	   "... and the load that it belonged to is forgotten");
	client_load_begin(c, partial, 1); /* and dies; the next load begins anew */
	ok(client_load(c, a, 1, 1234567) == DFX_OK, "a model is loaded in odd pieces");
	memcpy(&reply, client_reply(c, CLIENT_LOADER), sizeof reply);
	ok(reply.resident && reply.bytes > a->len / 2, "its size is told: %llu bytes",
	   (unsigned long long) reply.bytes);
	ok(client_load_begin(c, a, 1) == DFX_OK, "a second load of it is answered");
	memcpy(&reply, client_reply(c, CLIENT_LOADER), sizeof reply);
	ok(reply.resident == 1, "it is resident already");

	ok(call_image(c, 0, DFX_RING_FEATURES, 0, a->version) == DFX_OK, "features come back");
	s = client_slot(c, 0);
	memcpy(got, client_reply(c, 0), sizeof got);
	direct(&lone, 1, 0, want, NULL);
	ok(s->reply_len == sizeof got && worst(got, want, 512) < 1e-4f, "they are the network's own (%.1e)",
	   (double) worst(got, want, 512));

	s = client_fill(c, 0, DFX_RING_FEATURES, image[0], image_len[0], a->version);
	s->reply_cap = 100;
	client_submit(c, 0);
	ok(client_wait(c, 0) == DFX_TOO_SMALL && s->reply_len == sizeof got,
	   "too little room: DFX_TOO_SMALL, %d needed", (int) s->reply_len);
	ok(call_image(c, 0, DFX_RING_CLASSIFY, 0, a->version) == DFX_EINVAL,
	   "a lone backbone gives no verdict: %s", s->msg);
	s = client_fill(c, 0, DFX_RING_FEATURES, image[0], image_len[0], a->version);
	s->precision = DFX_PRECISION_FP16;
	client_submit(c, 0);
	ok(client_wait(c, 0) == DFX_EUNSUPPORTED, "a precision the device lacks: DFX_EUNSUPPORTED");
	test_calibrate(c, a);
	ok(client_call(c, 0, DFX_RING_FEATURES, image[0], 1000, a->version) == DFX_EIMAGE,
	   "half an image: DFX_EIMAGE (%s)", s->msg);
}

/* ---- verdicts ---- */

static bool
verdict_fits(const DfxVerdictReply *v, const float *logits)
{
	double e[3], sum = 0;
	int top = 0;

	for (int i = 0; i < 3; i++)
	{
		sum += e[i] = exp((double) logits[i]);
		top = logits[i] > logits[top] ? i : top;
	}
	return fabs(v->p_dm - e[0] / sum) < 1e-4 && fabs(v->p_gan - e[1] / sum) < 1e-4 &&
	       fabs(v->p_real - e[2] / sum) < 1e-4 && fabsf(v->p_synthetic - v->p_dm - v->p_gan) < 1e-6f &&
	       v->label == (uint32_t) top && fabs(v->confidence - e[top] / sum) < 1e-4 && v->binary == 0;
}

static const DfxModelStat *
roster_of(const Client *c, const uint8_t *version)
{
	for (int i = 0; i < DFX_RING_MODELS; i++)
		if (memcmp(c->ring->engine[0].model[i].stat.version, version, DFX_VERSION_LEN) == 0)
			return &c->ring->engine[0].model[i].stat;
	return NULL;
}

static void
test_classify(Client *c, const Stream *m)
{
	float features[3 * 512], logits[IMAGES][3];
	int right = 0, batched = 0, failed = 0;
	const DfxModelStat *roster;

	ok(client_load(c, m, 1, DFX_LOADER_BYTES) == DFX_OK, "a complete model is loaded");
	for (int i = 0; i < IMAGES; i++)
		direct(&complete, 2, i, features, logits[i]);
	for (uint32_t i = 0; i < 24; i++)
	{
		client_fill(c, i, DFX_RING_CLASSIFY, image[i % IMAGES], image_len[i % IMAGES], m->version);
		if (i == 11)
			client_slot(c, i)->in_len = 50;
		client_submit(c, i);
	}
	for (uint32_t i = 0; i < 24; i++)
	{
		DfxVerdictReply v;
		int st = client_wait(c, i);

		memcpy(&v, client_reply(c, i), sizeof v);
		failed += st == DFX_EIMAGE && i == 11;
		right += st == DFX_OK && verdict_fits(&v, logits[i % IMAGES]);
		batched += client_slot(c, i)->batch > 1;
	}
	ok(right == 23, "%d of 23 verdicts in one flight are the network's own", right);
	ok(failed == 1, "the one bad image among them fails alone");
	ok(batched > 10, "%d of them ran in a batch of several", batched);
	ok(atomic_load(&c->ring->engine[0].stats.largest_batch) <= 8, "none larger than --max-batch");
	ok(call_image(c, 0, DFX_RING_FEATURES, 1, m->version) == DFX_OK &&
	       client_slot(c, 0)->reply_len == sizeof features,
	   "features of a complete model are 3 x D");
	roster = roster_of(c, m->version);
	ok(roster && roster->resident && roster->loads == 1 && roster->bytes > 0 &&
	       roster->bytes < atomic_load(&c->ring->engine[0].stats.model_bytes),
	   "the roster has the model");
	ok(roster && roster->hits == 25 && roster->last_use > 0, "... and how many requests it has served: %d",
	   roster ? (int) roster->hits : -1);
	ok(client_call(c, CLIENT_LOADER, DFX_RING_EVICT, NULL, 0, m->version) == DFX_OK &&
	       call_image(c, 0, DFX_RING_CLASSIFY, 0, m->version) == DFX_NEED_MODEL,
	   "an evicted model is gone");
	ok(roster && !roster->resident && roster->loads == 1 && roster->hits == 25, "... its figures stay");
}

/* ---- two models that do not fit together ---- */

/* A request that holds its model for ms, in a decode thread. */
static void
submit_slow(Client *c, uint32_t slot, int ms, const uint8_t *version, uint64_t order)
{
	static uint8_t buf[CLIENT_INPUT];
	int n = snprintf((char *) buf, sizeof buf, "DFXTEST:SLEEP %d ", ms);

	memcpy(buf + n, image[0], image_len[0]);
	client_fill(c, slot, DFX_RING_FEATURES, buf, (size_t) n + image_len[0], version)->order = order;
	client_submit(c, slot);
}

static void
submit_features(Client *c, uint32_t slot, const uint8_t *version, uint64_t order)
{
	client_fill(c, slot, DFX_RING_FEATURES, image[0], image_len[0], version)->order = order;
	client_submit(c, slot);
}

static void
test_pins(Client *c, const Stream *a, const Stream *b)
{
	ok(client_load(c, a, 100, DFX_LOADER_BYTES) == DFX_OK, "A is loaded");
	ok(client_load_begin(c, b, 110) == DFX_BUSY, "A has not served anybody yet: B gets DFX_BUSY");
	submit_features(c, 0, a->version, 100);
	ok(client_wait(c, 0) == DFX_OK, "A serves");

	submit_slow(c, 0, 700, a->version, 105);
	client_sleep_ms(100);
	ok(client_load_begin(c, b, 110) == DFX_BUSY, "A is in use, for an older request: DFX_BUSY");
	submit_features(c, 1, a->version, 106);
	ok(client_wait(c, 1) == DFX_OK, "requests older than B's still run on A");
	ok(client_wait(c, 0) == DFX_OK, "so does the slow one");

	submit_slow(c, 0, 700, a->version, 120);
	client_sleep_ms(100);
	ok(client_load_begin(c, b, 110) == DFX_BUSY, "A is in use, for a younger request: DFX_BUSY for now");
	submit_features(c, 1, a->version, 121);
	client_sleep_ms(200);
	ok(!client_done(c, 1), "A is closed: a younger request waits");
	ok(client_wait(c, 0) == DFX_OK, "what ran on A ends");
	ok(client_load(c, b, 110, DFX_LOADER_BYTES) == DFX_OK, "then B is loaded");
	ok(client_wait(c, 1) == DFX_NEED_MODEL, "and the one that waited for A is told to load it");
	submit_features(c, 2, b->version, 110);
	ok(client_wait(c, 2) == DFX_OK, "B serves");

	submit_slow(c, 0, 300, b->version, 130);
	client_sleep_ms(50);
	ok(client_load_begin(c, a, 121) == DFX_BUSY, "B is closed for the sake of A");
	submit_features(c, 1, b->version, 131);
	ok(client_wait(c, 0) == DFX_OK && client_wait(c, 1) == DFX_OK,
	   "when nobody comes for A, B opens again by itself");
}

/* Clients as in PostgreSQL: one loader at a time, everybody wants one of two models. */
static void
test_turns(Client *c, const Stream *a, const Stream *b)
{
	const Stream *want[8] = {a, b, a, b, b, a, a, b};
	uint64_t order[8], until = client_now_ns() + 60000000000u;
	int left = 8, loads = 0, served[8] = {0};

	for (uint32_t i = 0; i < 8; i++)
	{
		order[i] = 1000 + i;
		submit_features(c, i, want[i]->version, order[i]);
	}
	while (left > 0 && client_now_ns() < until)
	{
		client_message(c, 5);
		for (uint32_t i = 0; i < 8; i++)
		{
			if (served[i] == 3 || !client_done(c, i))
				continue;
			if (client_slot(c, i)->status == DFX_NEED_MODEL)
				loads += client_load(c, want[i], order[i], DFX_LOADER_BYTES) == DFX_OK;
			else if (client_slot(c, i)->status == DFX_OK)
			{
				order[i] += 8;
				left -= ++served[i] == 3;
			}
			if (served[i] < 3)
				submit_features(c, i, want[i]->version, order[i]);
		}
	}
	ok(left == 0, "requests for two models that do not fit together are all served (%d loads)", loads);
	ok(atomic_load(&c->ring->engine[0].stats.models) == 1, "one of them is resident at a time");
}

int
main(void)
{
	static const char *const plenty[] = {"--max-batch", "8", "--threads", "2", NULL};
	char limit[32];
	const char *tight[] = {"--max-batch", "8", "--threads", "2", "--model-memory", limit, NULL};
	Stream a = stream_make(&lone, 1, NULL), b = stream_make(&lone, 3, NULL);
	Stream partial = stream_make(&lone, 1, "layer3.0.conv1.weight"), m;
	uint64_t bytes;
	Client c;

	for (int i = 0; i < IMAGES; i++)
		if (!(image[i] = slurp(image_file[i], &image_len[i])))
			return 2;
	if (!ok(client_start(&c, plenty), "the engine starts"))
		return done_testing();
	test_load(&c, &a, &partial);
	bytes = atomic_load(&c.ring->engine[0].stats.model_bytes);
	m = stream_make(&complete, 2, NULL);
	test_classify(&c, &m);
	client_stop(&c);

	/* One plan and a little, less than the other model's stream even before its plan's size is known. */
	snprintf(limit, sizeof limit, "%llu", (unsigned long long) (bytes + a.len / 2));
	if (!ok(client_start(&c, tight), "an engine with little memory starts"))
		return done_testing();
	test_pins(&c, &a, &b);
	test_turns(&c, &a, &b);
	client_stop(&c);

	snprintf(limit, sizeof limit, "%d", 10 << 20);
	client_start(&c, tight);
	ok(client_load(&c, &a, 1, DFX_LOADER_BYTES) == DFX_ELIMIT &&
	       strstr(client_slot(&c, CLIENT_LOADER)->hint, "dfx.model_memory"),
	   "a model larger than the limit: DFX_ELIMIT, and what to raise");
	client_stop(&c);
	free(a.bytes);
	free(b.bytes);
	free(partial.bytes);
	free(m.bytes);
	for (int i = 0; i < IMAGES; i++)
		free(image[i]);
	return done_testing();
}
