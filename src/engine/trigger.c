/*
 * trigger.c
 *	  Faults on demand (trigger.h); empty in the installed program.
 */
#include "engine/trigger.h"

#ifdef DFX_TEST_TRIGGERS

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void
trigger_segv(void)
{
	/* Sanitizers must not turn it into an exit. */
	volatile int *volatile nowhere = (volatile int *) 64;

	signal(SIGSEGV, SIG_DFL);
	*nowhere = 1;
}

static void
trigger_hang(void)
{
	for (;;)
		pause();
}

static void
trigger_exit3(void)
{
	_exit(3);
}

/* As the kernel does for want of memory */
static void
trigger_kill(void)
{
	raise(SIGKILL);
}

static const struct
{
	const char *text;
	void (*act)(void);
} trigger_table[] = {
    {"DFXTEST:SEGV", trigger_segv},   {"DFXTEST:ABORT", abort},       {"DFXTEST:HANG", trigger_hang},
    {"DFXTEST:EXIT3", trigger_exit3}, {"DFXTEST:KILL", trigger_kill},
};

static bool
trigger_is(const uint8_t *bytes, uint64_t len, const char *text)
{
	size_t n = strlen(text);

	return len >= n && memcmp(bytes, text, n) == 0;
}

/* "DFXTEST:SLEEP 250 " */
static void
trigger_sleep(const uint8_t **bytes, uint64_t *len)
{
	static const char word[] = "DFXTEST:SLEEP ";
	const uint8_t *p = *bytes, *end = *bytes + *len;
	struct timespec ts;
	long ms = 0;

	if (!trigger_is(*bytes, *len, word))
		return;
	for (p += sizeof word - 1; p < end && *p >= '0' && *p <= '9' && ms < 100000; p++)
		ms = ms * 10 + (*p - '0');
	if (p < end && *p == ' ')
		p++;
	ts = (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	nanosleep(&ts, NULL);
	*bytes = p;
	*len = (uint64_t) (end - p);
}

/* Set in the decode stage, taken by the next batch. */
static atomic_bool trigger_lost_next;

/* "DFXTEST:LOST " */
static void
trigger_lost(const uint8_t **bytes, uint64_t *len)
{
	static const char word[] = "DFXTEST:LOST ";

	if (!trigger_is(*bytes, *len, word))
		return;
	atomic_store(&trigger_lost_next, true);
	*bytes += sizeof word - 1;
	*len -= sizeof word - 1;
}

DfxStatus
dfx_trigger_batch(DfxStatus st, DfxErr *err)
{
	if (atomic_exchange(&trigger_lost_next, false))
		return dfx_fail(err, DFX_ELOST, "the test has taken the device away");
	return st;
}

void
dfx_trigger(const uint8_t **bytes, uint64_t *len)
{
	for (size_t i = 0; i < sizeof trigger_table / sizeof trigger_table[0]; i++)
		if (trigger_is(*bytes, *len, trigger_table[i].text))
			trigger_table[i].act();
	trigger_sleep(bytes, len);
	trigger_lost(bytes, len);
}

void
dfx_trigger_stream(const uint8_t *bytes, uint64_t len)
{
	static const char before[] = "dfx1\nbackbone=";

	if (!trigger_is(bytes, len, before))
		return;
	bytes += sizeof before - 1;
	len -= sizeof before - 1;
	dfx_trigger(&bytes, &len);
}

#endif /* DFX_TEST_TRIGGERS */
