/*
 * test_ring_faults.c
 *	  What the engine promises about requests that are cancelled, suspected or deadly.
 *
 * Deadly ones need build/test/dfx-engine, whose decoder obeys "DFXTEST:".
 */
#include "tests/backend/ring_client.h"
#include "tests/unit/slurp.h"

static const DfxModelMeta lone = {.kind = "backbone", .backbone = "resnet18", .input_size = 256};
static const char *const options[] = {"--max-batch", "4", "--threads", "2", NULL};

static uint8_t *photo;
static size_t photo_len;
static Stream model;

/* FEATURES of the photograph behind a prefix that the triggers understand. */
static DfxSlot *
fill(Client *c, uint32_t slot, const char *prefix)
{
	static uint8_t buf[CLIENT_INPUT];
	size_t n = strlen(prefix);

	memcpy(buf, prefix, n);
	memcpy(buf + n, photo, photo_len);
	return client_fill(c, slot, DFX_RING_FEATURES, buf, n + photo_len, model.version);
}

static void
submit(Client *c, uint32_t slot, const char *prefix)
{
	fill(c, slot, prefix);
	client_submit(c, slot);
}

static bool
started(Client *c, uint32_t slot)
{
	DfxSlot *s = client_slot(c, slot);

	return atomic_load(&s->start_gen) == atomic_load(&s->submit_gen);
}

static void
cancel(Client *c, uint32_t slot)
{
	DfxSlot *s = client_slot(c, slot);

	atomic_store(&s->cancel_gen, atomic_load(&s->submit_gen));
	client_kick(c);
}

/* ---- order and bounds ---- */

static void
test_bounds(Client *c)
{
	int running = 0, early = 0, failed = 0;

	/* Both decode threads asleep; the others wait their turn. */
	for (uint32_t i = 0; i < 20; i++)
		submit(c, i, i < 2 ? "DFXTEST:SLEEP 400 " : "");
	client_sleep_ms(200);
	for (uint32_t i = 0; i < 20; i++)
		running += started(c, i);
	ok(running == 2, "only what a thread has taken up has started: %d", running);
	ok(client_call(c, 40, DFX_RING_PING, NULL, 0, NULL) == DFX_OK, "a ping is answered meanwhile");
	cancel(c, 19);
	ok(client_wait(c, 19) == DFX_ECANCELED && !client_done(c, 0),
	   "and a cancelled one for which there is no room");

	/* The last of these arrives last, but is wanted first. */
	fill(c, 30, "")->priority = DFX_PRIORITY_INTERACTIVE;
	client_submit(c, 30);
	for (uint32_t i = 0; i < 19; i++)
		failed += client_wait(c, i) != DFX_OK;
	failed += client_wait(c, 30) != DFX_OK;
	ok(failed == 0, "all are served");
	for (uint32_t i = 2; i < 19; i++)
		early += client_slot(c, i)->t_start < client_slot(c, 30)->t_start;
	ok(early <= 6, "an interactive request overtakes all but the %d that were admitted before", early);
}

/* Reading a header takes as long as whoever made the image likes: not in the scan's time. */
static void
test_info(Client *c)
{
	static const char slow[] = "DFXTEST:SLEEP 300 ";
	uint8_t *bytes = malloc(strlen(slow) + photo_len);

	memcpy(bytes, slow, strlen(slow));
	memcpy(bytes + strlen(slow), photo, photo_len);
	client_fill(c, 41, DFX_RING_IMAGE_INFO, bytes, strlen(slow) + photo_len, NULL);
	client_submit(c, 41);
	client_sleep_ms(100);
	ok(client_call(c, 40, DFX_RING_PING, NULL, 0, NULL) == DFX_OK && started(c, 41) && !client_done(c, 41),
	   "a ping is answered while a header is being read");
	ok(client_wait(c, 41) == DFX_OK && client_slot(c, 41)->reply_len == sizeof(DfxInfoReply),
	   "and then IMAGE_INFO is");
	free(bytes);
}

static void
test_cancel(Client *c)
{
	uint64_t canceled = atomic_load(&c->ring->engine[0].stats.canceled);

	for (uint32_t i = 0; i < 6; i++)
		submit(c, i, i < 2 ? "DFXTEST:SLEEP 300 " : "");
	client_sleep_ms(100);
	cancel(c, 0); /* being decoded */
	cancel(c, 4); /* waiting for a decoder */
	ok(client_wait(c, 4) == DFX_ECANCELED && !started(c, 4),
	   "cancelled while it waits: DFX_ECANCELED, never started");
	ok(client_wait(c, 0) == DFX_ECANCELED, "cancelled while it is decoded: DFX_ECANCELED, not inferred");
	ok(client_wait(c, 1) == DFX_OK && client_wait(c, 2) == DFX_OK && client_wait(c, 3) == DFX_OK &&
	       client_wait(c, 5) == DFX_OK,
	   "the others are served");
	ok(atomic_load(&c->ring->engine[0].stats.canceled) == canceled + 2, "both are counted");
}

/* A suspected request runs with nothing beside it. */
static void
test_solo(Client *c)
{
	bool apart = true;
	DfxSlot *solo;

	for (uint32_t i = 0; i < 3; i++)
		submit(c, i, "DFXTEST:SLEEP 100 ");
	solo = fill(c, 3, "DFXTEST:SLEEP 100 ");
	solo->solo = 1;
	client_submit(c, 3);
	for (uint32_t i = 4; i < 8; i++)
		submit(c, i, "");
	for (uint32_t i = 0; i < 8; i++)
		if (client_wait(c, i) != DFX_OK)
			apart = false;
	ok(apart, "all are served");
	for (uint32_t i = 0; i < 8; i++)
	{
		const DfxSlot *s = client_slot(c, i);

		if (i != 3 && s->t_done > solo->t_start && s->t_start < solo->t_done)
			apart = false;
	}
	ok(apart, "none ran at the time of the solo one");
	ok(solo->batch == 1, "its batch was itself");

	/* The loader keeps away too. */
	submit(c, 0, "DFXTEST:SLEEP 200 ");
	client_slot(c, 0)->solo = 0;
	fill(c, 1, "DFXTEST:SLEEP 200 ")->solo = 1;
	client_submit(c, 1);
	client_sleep_ms(30);
	client_fill(c, CLIENT_LOADER, DFX_RING_PING, NULL, 0, NULL);
	client_submit(c, CLIENT_LOADER);
	ok(client_wait(c, 1) == DFX_OK && client_wait(c, CLIENT_LOADER) == DFX_OK &&
	       client_slot(c, CLIENT_LOADER)->t_start >= client_slot(c, 1)->t_done,
	   "the loader waits for it as well");
}

/* ---- deadly ---- */

static void
test_deadly(const char *trigger, int signo, int code)
{
	Client c;
	int status;

	if (!client_start(&c, options) || client_load(&c, &model, 1, DFX_LOADER_BYTES) != DFX_OK)
	{
		ok(false, "the engine starts");
		return;
	}
	for (uint32_t i = 0; i < 2; i++)
		submit(&c, i, "DFXTEST:SLEEP 2000 ");
	for (uint32_t i = 2; i < 40; i++)
		submit(&c, i, i == 2 ? trigger : "");
	cancel(&c, 0);
	client_sleep_ms(50);
	status = client_reap(&c, 10000);
	if (signo)
		ok(status != -1 && (WIFSIGNALED(status) ? WTERMSIG(status) == signo : WEXITSTATUS(status) != 0),
		   "%s ends the process", trigger);
	else
		ok(status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == code, "%s: exit status %d", trigger,
		   code);
	ok(started(&c, 2) && !client_done(&c, 2), "the culprit is marked as started, and not done");
	ok(!started(&c, 39) && !client_done(&c, 39), "the last of the queue has not started");
	close(c.control);
	close(c.ring_fd);
}

static void
test_hang(void)
{
	Client c;
	uint64_t progress;

	client_start(&c, options);
	client_load(&c, &model, 1, DFX_LOADER_BYTES);
	submit(&c, 0, "DFXTEST:HANG");
	submit(&c, 1, "");
	ok(client_wait(&c, 1) == DFX_OK, "one image hangs in a decoder, the next is served by the other");
	progress = atomic_load(&c.ring->engine[0].stats.progress);
	client_sleep_ms(300);
	ok(started(&c, 0) && !client_done(&c, 0) && atomic_load(&c.ring->engine[0].stats.progress) == progress,
	   "nothing moves: a watchdog can see it");
	ok(client_stop(&c) == 0, "the engine still exits with 0 when the socket closes");
}

int
main(void)
{
	Client c;

	photo = slurp("tests/golden/images/jpeg-255x257.jpg", &photo_len);
	if (!photo)
		return 2;
	model = stream_make(&lone, 1, NULL);
	if (!ok(client_start(&c, options) && client_load(&c, &model, 1, DFX_LOADER_BYTES) == DFX_OK,
	        "the engine starts and has a model"))
		return done_testing();
	test_bounds(&c);
	test_info(&c);
	test_cancel(&c);
	test_solo(&c);
	client_stop(&c);
	test_deadly("DFXTEST:SEGV", SIGSEGV, 0);
	test_deadly("DFXTEST:ABORT", SIGABRT, 0);
	test_deadly("DFXTEST:EXIT3", 0, 3);
	test_hang();
	return done_testing();
}
