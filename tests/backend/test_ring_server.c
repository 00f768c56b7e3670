/*
 * test_ring_server.c
 *	  Does the engine keep the contract of the ring: answers what needs no
 *	  model, survives malformed slots, refuses broken rings, ends when it should?
 */
#include "tests/backend/ring_client.h"
#include "tests/unit/slurp.h"

#define PINGS 2000

static int
compare_u64(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void
test_ping(Client *c)
{
	static uint64_t ns[PINGS];
	int wrong = 0;

	for (int i = 0; i < PINGS; i++)
	{
		uint64_t t0 = client_now_ns();

		wrong += client_call(c, 3, DFX_RING_PING, NULL, 0, NULL) != DFX_OK;
		ns[i] = client_now_ns() - t0;
	}
	qsort(ns, PINGS, sizeof ns[0], compare_u64);
	ok(wrong == 0, "%d pings are answered", PINGS);
	diag("round trip p50 %.1f us, p95 %.1f us", (double) ns[PINGS / 2] / 1e3,
	     (double) ns[PINGS * 95 / 100] / 1e3);
	ok(client_slot(c, 3)->start_gen == 0 || client_slot(c, 3)->start_gen <= client_slot(c, 3)->done_gen,
	   "a ping is never left as started but not done");

	for (uint32_t i = 0; i < CLIENT_SLOTS; i++)
	{
		client_fill(c, i, DFX_RING_PING, NULL, 0, NULL);
		client_submit(c, i);
	}
	for (uint32_t i = 0; i < CLIENT_SLOTS; i++)
		wrong += client_wait(c, i) != DFX_OK;
	ok(wrong == 0, "all slots at once are answered");
	ok(atomic_load(&c->ring->engine[0].stats.requests) == PINGS + CLIENT_SLOTS, "the requests are counted");
}

static int
info(Client *c, const char *file, DfxInfoReply *reply)
{
	size_t len;
	uint8_t *bytes = slurp(file, &len);
	int st;

	if (!bytes)
		return -1;
	st = client_call(c, 1, DFX_RING_IMAGE_INFO, bytes, len, NULL);
	memcpy(reply, client_reply(c, 1), sizeof *reply);
	free(bytes);
	return st;
}

static void
test_info(Client *c)
{
	DfxInfoReply r;
	DfxSlot *s;

	ok(info(c, "tests/golden/images/jpeg-17x9.jpg", &r) == DFX_OK && strcmp(r.format, "jpeg") == 0 &&
	       r.width == 17 && r.height == 9 && r.channels == 3 && r.bits == 8,
	   "a JPEG's header is read");
	ok(client_slot(c, 1)->reply_len == sizeof r, "the reply's length is given");
	ok(info(c, "tests/golden/images/png-c6-b16-adam7.png", &r) == DFX_OK && strcmp(r.format, "png") == 0 &&
	       r.channels == 4 && r.bits == 16,
	   "a PNG's header is read");

	ok(client_call(c, 1, DFX_RING_IMAGE_INFO, "no image at all", 15, NULL) == DFX_EIMAGE &&
	       client_slot(c, 1)->msg[0] != '\0',
	   "bytes that are no image: DFX_EIMAGE, with words");
	ok(client_call(c, 1, DFX_RING_IMAGE_INFO, NULL, 0, NULL) == DFX_EIMAGE, "so are no bytes");
	ok(atomic_load(&c->ring->engine[0].stats.image_errors) == 2, "bad images are counted");

	s = client_fill(c, 1, DFX_RING_IMAGE_INFO, "\x89PNG\r\n\x1a\n", 8, NULL);
	s->max_bytes = 7;
	client_submit(c, 1);
	ok(client_wait(c, 1) == DFX_ELIMIT, "the caller's limit of bytes is kept");
	ok(info(c, "tests/golden/images/jpeg-17x9.jpg", &r) == DFX_OK, "and does not outlive its request");
}

/* What a stray write could leave in a slot. */
static void
test_malformed(Client *c)
{
	static const struct
	{
		const char *what;
		uint64_t in_off, in_len, reply_off, reply_cap;
		uint32_t op, precision;
	} bad[] = {
	    {"payload past the end", ~0ull - 100, 50, 0, 0, DFX_RING_IMAGE_INFO, 0},
	    {"payload length that wraps around", DFX_PAGE * 40, ~0ull - 10, 0, 0, DFX_RING_IMAGE_INFO, 0},
	    {"payload inside the header", 0, 64, 0, 0, DFX_RING_IMAGE_INFO, 0},
	    {"reply over the slots", 0, 0, DFX_RING_HEADER, 512, DFX_RING_IMAGE_INFO, 0},
	    {"reply past the end", 0, 0, 1ull << 62, 512, DFX_RING_FEATURES, 0},
	    {"an operation that does not exist", 0, 0, 0, 0, 77, 0},
	    {"a loader's operation in an image slot", 0, 0, 0, 0, DFX_RING_LOAD_END, 0},
	    {"a precision that does not exist", 0, 0, 0, 0, DFX_RING_CLASSIFY, 99},
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
	{
		DfxSlot *s = client_fill(c, 5, DFX_RING_PING, NULL, 0, NULL);

		s->op = bad[i].op;
		s->precision = bad[i].precision;
		s->in_off = bad[i].in_off;
		s->in_len = bad[i].in_len;
		s->reply_off = bad[i].reply_off;
		s->reply_cap = bad[i].reply_cap;
		client_submit(c, 5);
		ok(client_wait(c, 5) == DFX_EINVAL, "%s: DFX_EINVAL (%s)", bad[i].what, s->msg);
	}
	ok(client_call(c, CLIENT_LOADER, DFX_RING_CLASSIFY, NULL, 0, NULL) == DFX_EINVAL,
	   "an image in the loader's slot: DFX_EINVAL");
	ok(client_call(c, CLIENT_LOADER, DFX_RING_LOAD_BEGIN, "abc", 3, NULL) == DFX_EINVAL,
	   "a LOAD_BEGIN that is too short: DFX_EINVAL");
	ok(client_call(c, CLIENT_LOADER, DFX_RING_LOAD_DATA, "abc", 3, NULL) == DFX_EINVAL,
	   "LOAD_DATA without LOAD_BEGIN: DFX_EINVAL");
	ok(client_call(c, CLIENT_LOADER, DFX_RING_LOAD_ABORT, NULL, 0, NULL) == DFX_OK,
	   "LOAD_ABORT without LOAD_BEGIN does nothing");
	ok(client_call(c, 3, DFX_RING_PING, NULL, 0, NULL) == DFX_OK, "the engine goes on");
}

/* Any words at all in every slot: whatever is answered, the engine lives. */
static void
test_noise(Client *c)
{
	uint32_t state = 1;
	int answered = 0;

	for (int round = 0; round < 50; round++)
	{
		for (uint32_t i = 0; i <= CLIENT_SLOTS; i++)
		{
			DfxSlot *s = client_slot(c, i);
			uint8_t *p = (uint8_t *) s;

			for (size_t k = 0; k < offsetof(DfxSlot, submit_gen); k++)
			{
				state = state * 1664525u + 1013904223u;
				p[k] = (uint8_t) (state >> 24);
			}
			s->op = (state >> 8) % (DFX_RING_OP_COUNT + 2);
			s->in_len = (state >> 4) % 8192;
			if (round % 2)
				s->in_off = c->ring->arena_off + (state >> 6) % 4096;
			client_submit(c, i);
		}
		for (uint32_t i = 0; i <= CLIENT_SLOTS; i++)
			answered += client_wait(c, i) >= 0;
	}
	ok(answered == 50 * (int) (CLIENT_SLOTS + 1), "slots full of noise are all answered");
	ok(client_call(c, 3, DFX_RING_PING, NULL, 0, NULL) == DFX_OK, "the engine goes on");
}

/* ---- rings that cannot be used, and how the engine ends ---- */

static void
test_broken_ring(const char *what, void (*spoil)(DfxRing *ring))
{
	Client c;
	int status;

	client_make_ring(&c);
	spoil(c.ring);
	client_spawn(&c, NULL);
	ok(client_expect(&c, 'F', CLIENT_WAIT), "%s: refused (%s)", what, c.said);
	status = client_reap(&c, 5000);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%s: the engine exits with 1", what);
	close(c.control);
	close(c.ring_fd);
}

static void
spoil_magic(DfxRing *r)
{
	r->magic++;
}

static void
spoil_slots(DfxRing *r)
{
	r->nslots = DFX_MAX_SLOTS + 1;
}

static void
spoil_arena(DfxRing *r)
{
	r->arena_bytes = ~0ull - 4096;
}

static void
spoil_loader(DfxRing *r)
{
	r->loader_off = r->total_bytes - 1;
}

static void
spoil_total(DfxRing *r)
{
	r->total_bytes += DFX_PAGE;
}

static void
test_no_device(void)
{
	static const char *const cuda[] = {"--device", "cuda:63", NULL};
	Client c;
	int status;

	client_make_ring(&c);
	client_spawn(&c, cuda);
	ok(client_expect(&c, 'F', CLIENT_WAIT) && strstr(c.said, "cuda:63"), "no such device: said (%s)", c.said);
	status = client_reap(&c, 5000);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 1, "no such device: the engine exits with 1");
	close(c.control);
	close(c.ring_fd);
}

/* Two engines on one ring: the second serves only after the first has gone. */
static void
test_lease(void)
{
	Client c, second;
	int status;

	ok(client_start(&c, NULL), "an engine serves");
	second = c;
	client_spawn(&second, NULL);
	ok(!client_expect(&second, 'R', 500), "a second one on the same ring waits");
	close(c.control);
	status = client_reap(&c, 5000);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the first exits with 0 when its socket closes");
	ok(client_expect(&second, 'R', CLIENT_WAIT), "then the second serves");
	ok(client_call(&second, 0, DFX_RING_PING, NULL, 0, NULL) == DFX_OK, "and answers");
	kill(second.pid, SIGTERM);
	status = client_reap(&second, 5000);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "SIGTERM: it exits with 0");
	close(second.control);
}

/* What waited when the old engine went is answered by the new one; what was done is left alone. */
static void
test_inherited(void)
{
	Client c;
	DfxSlot *s;

	client_make_ring(&c);
	client_fill(&c, 0, DFX_RING_PING, NULL, 0, NULL);
	client_submit(&c, 0);
	s = client_fill(&c, 1, DFX_RING_PING, NULL, 0, NULL);
	atomic_store(&s->submit_gen, 7);
	atomic_store(&s->done_gen, 7);
	s->status = 4711;
	client_spawn(&c, NULL);
	ok(client_expect(&c, 'R', CLIENT_WAIT) && client_wait(&c, 0) == DFX_OK,
	   "a request from before the start is answered");
	ok(s->status == 4711, "an answered one is not touched");
	ok(c.ring->engine[0].device[0] != '\0', "the device is named: %s", c.ring->engine[0].device);
	client_stop(&c);
}

int
main(void)
{
	Client c;
	int status;

	if (!ok(client_start(&c, NULL), "the engine starts"))
		return done_testing();
	test_ping(&c);
	test_info(&c);
	test_malformed(&c);
	test_noise(&c);
	status = client_stop(&c);
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the engine exits with 0 when the socket closes");
	test_broken_ring("another magic number", spoil_magic);
	test_broken_ring("too many slots", spoil_slots);
	test_broken_ring("an arena that wraps around", spoil_arena);
	test_broken_ring("a loader region past the end", spoil_loader);
	test_broken_ring("a size that is not the file's", spoil_total);
	test_no_device();
	test_lease();
	test_inherited();
	return done_testing();
}
