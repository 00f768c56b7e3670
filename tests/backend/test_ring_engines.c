/*
 * test_ring_engines.c
 *	  Do two engines on one ring answer each request once, leave each other's
 *	  alone, and keep to what is meant for one of them?
 */
#include "tests/backend/ring_client.h"

#define ROUNDS 300 /* of pings in every slot */

static const char *const first[] = {"--engine", "0", "--engines", "2", "--threads", "2", NULL};
static const char *const second[] = {"--engine", "1", "--engines", "2", "--threads", "2", NULL};

/* Wait for slot i's answer from whichever engine; false when it takes too long. */
static bool
both_wait(Client c[2], uint32_t i)
{
	uint64_t until = client_now_ns() + (uint64_t) CLIENT_WAIT * 1000000u;

	while (!client_done(&c[0], i))
	{
		while (client_message(&c[1], 0) > 0)
			;
		client_message(&c[0], 1);
		if (client_now_ns() > until)
			return false;
	}
	return true;
}

/* Which engine has picked what was last submitted in slot i: a number + 1, or 0. */
static uint32_t
picker(const Client *c, uint32_t i)
{
	const DfxSlot *s = client_slot(c, i);

	return dfx_picked_by(atomic_load(&s->picked), atomic_load(&s->submit_gen));
}

static uint64_t
requests(const Client *c, int engine)
{
	return atomic_load(&c->ring->engine[engine].stats.requests);
}

/* A ping in every slot; how many were not answered by one of the engines from .. to. */
static int
ping_all(Client c[2], uint32_t from, uint32_t to)
{
	int wrong = 0;

	for (uint32_t i = 0; i < CLIENT_SLOTS; i++)
	{
		client_fill(&c[0], i, DFX_RING_PING, NULL, 0, NULL);
		client_submit(&c[0], i);
	}
	for (uint32_t i = 0; i < CLIENT_SLOTS; i++)
		wrong += !both_wait(c, i) || picker(&c[0], i) < from || picker(&c[0], i) > to;
	return wrong;
}

static void
test_share(Client c[2])
{
	int wrong = 0;

	for (int round = 0; round < ROUNDS; round++)
		wrong += ping_all(c, 1, 2);
	ok(wrong == 0, "%u requests are answered, each by an engine", ROUNDS * CLIENT_SLOTS);
	ok(requests(&c[0], 0) + requests(&c[0], 1) == ROUNDS * CLIENT_SLOTS, "... and by one only");
	diag("engine 0 took %llu, engine 1 %llu", (unsigned long long) requests(&c[0], 0),
	     (unsigned long long) requests(&c[0], 1));
	for (int i = 0; i < 2; i++)
	{
		kill(c[i].pid, SIGSTOP);
		ok(ping_all(c, 2 - (uint32_t) i, 2 - (uint32_t) i) == 0,
		   "while engine %d is stopped the other one serves", i);
		kill(c[i].pid, SIGCONT);
	}
}

static void
test_directed(Client c[2])
{
	int wrong = 0;

	for (uint32_t n = 0; n < 200; n++)
	{
		client_fill(&c[0], 5, DFX_RING_PING, NULL, 0, NULL)->engine = 1 + n % 2;
		client_submit(&c[0], 5);
		wrong += !both_wait(c, 5) || picker(&c[0], 5) != 1 + n % 2;
	}
	ok(wrong == 0, "what is for one engine is answered by that one");
}

/* An image that takes a while, given to the second engine. */
static void
submit_slow(Client *c)
{
	static const char slow[] = "DFXTEST:SLEEP 600 no image";

	client_fill(c, 7, DFX_RING_IMAGE_INFO, slow, sizeof slow - 1, NULL)->engine = 2;
	client_submit(c, 7);
	for (int ms = 0; ms < CLIENT_WAIT && picker(c, 7) == 0; ms++)
		client_sleep_ms(1);
}

static void
test_death(Client c[2])
{
	DfxSlot *s = client_slot(&c[0], 7);

	submit_slow(&c[0]);
	kill(c[1].pid, SIGKILL);
	client_reap(&c[1], 5000);
	s->engine = 0;
	client_kick(&c[0]);
	ok(client_call(&c[0], 1, DFX_RING_PING, NULL, 0, NULL) == DFX_OK && !client_done(&c[0], 7) &&
	       picker(&c[0], 7) == 2,
	   "what an engine had picked when it died is nobody else's");

	atomic_store(&s->picked, dfx_picked(atomic_load(&s->submit_gen), 0));
	client_kick(&c[0]);
	ok(client_wait(&c[0], 7) == DFX_EIMAGE && picker(&c[0], 7) == 1, "... until it is given back");
	close(c[1].control);
}

static void
test_lease(Client c[2])
{
	static const char *const none[] = {"--engine", "2", "--engines", "2", NULL};

	client_spawn(&c[1], first);
	ok(!client_expect(&c[1], 'R', 300), "a second engine of one number waits for the first to end");
	kill(c[1].pid, SIGTERM);
	client_reap(&c[1], 5000);
	close(c[1].control);
	client_spawn(&c[1], none);
	ok(client_expect(&c[1], 'F', CLIENT_WAIT) && client_reap(&c[1], 5000) >> 8 == 1,
	   "a number beyond those there are is refused: %s", c[1].said);
	close(c[1].control);
}

int
main(void)
{
	Client c[2];

	ok(client_start(&c[0], first), "an engine");
	c[1] = c[0];
	client_spawn(&c[1], second);
	ok(client_expect(&c[1], 'R', CLIENT_WAIT), "and another one on the same ring");
	test_share(c);
	test_directed(c);
	test_death(c);
	test_lease(c);
	ok(client_stop(&c[0]) == 0, "the one that is left ends as ever");
	return done_testing();
}
