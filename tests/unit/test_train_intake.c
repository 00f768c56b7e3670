/*
 * test_train_intake.c
 *	  Do samples arrive in the cache as they would in the network, answered in
 *	  order, and is every limit of the cache a clean error?
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"
#include "train/samples.h"

#define IMAGE "tests/golden/images/photo-420-q90.jpg"

typedef struct Heard
{
	uint64_t next;
	bool ordered;
	int good, bad;
	char said[DFX_MSG_LEN];
} Heard;

static void
hear(void *arg, const DfxTrainSample *given, DfxStatus status, const DfxErr *err)
{
	Heard *h = arg;

	h->ordered = h->ordered && given->number == h->next;
	h->next++;
	h->good += status == DFX_OK;
	h->bad += status != DFX_OK;
	if (status != DFX_OK)
		memcpy(h->said, err->msg, sizeof h->said);
}

static DfxIntake *
begin(DfxSamples *s, Heard *h, uint64_t limit)
{
	DfxIntakeOpts o = {.threads = 3, .limits = DFX_DEFAULT_LIMITS, .ngenerator = 2, .done = hear, .arg = h};
	DfxIntake *in;
	DfxErr err;

	*s = (DfxSamples){.store.fd = -1};
	*h = (Heard){.ordered = true};
	if (dfx_store_open(&s->store, "", limit, &err) != DFX_OK || dfx_intake_start(s, &o, &in, &err) != DFX_OK)
		abort();
	return in;
}

/* Put a copy of the bytes as sample number n. */
static DfxStatus
put(DfxIntake *in, uint64_t n, const void *bytes, size_t len, DfxErr *err)
{
	DfxTrainSample given = {.number = n, .label = 2, .generator = -1};
	uint8_t *copy = malloc(len + 1);

	memcpy(copy, bytes, len);
	return dfx_intake_put(in, &given, copy, len, err);
}

static void
check_pixels(const uint8_t *jpeg, size_t len)
{
	static uint8_t want[DFX_STORE_BYTES];
	DfxImageLimits limits = DFX_DEFAULT_LIMITS;
	DfxSamples s;
	Heard h;
	DfxIntake *in = begin(&s, &h, 0);
	DfxErr err;
	bool same = true;

	for (uint64_t i = 0; i < 200; i++)
		put(in, i, i % 10 == 3 ? (const void *) "not an image" : jpeg, i % 10 == 3 ? 12 : len, &err);
	ok(dfx_intake_end(in, &err) == DFX_OK, "200 samples, among them 20 that are no images");
	ok(h.good == 180 && h.bad == 20 && h.ordered, "each is answered once, in order");
	ok(strstr(h.said, "not a JPEG or PNG"), "the bad ones with the reason");
	ok(s.n == 180 && s.sample[0].given.number == 0 && s.sample[3].given.number == 4,
	   "the table has the good ones, in order");
	ok(dfx_image_prepare(jpeg, len, &limits, DFX_STORE_SIDE, want, &err) == DFX_OK, "the image decodes");
	for (size_t i = 0; i < s.n; i++)
		same = same && memcmp(dfx_sample_pixels(&s, i), want, sizeof want) == 0;
	ok(same, "and all of its samples have these pixels");
	dfx_samples_free(&s);
}

static void
check_refused(const uint8_t *jpeg, size_t len)
{
	static const DfxTrainSample wrong[] = {{.label = 3, .generator = -1},
	                                       {.generator = 2},
	                                       {.generator = -2},
	                                       {.generator = -1, .split = DFX_SPLIT_UNUSED}};
	DfxSamples s;
	Heard h;
	DfxIntake *in = begin(&s, &h, 0);
	DfxErr err;
	bool refused = true;

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		refused = refused && dfx_intake_put(in, &wrong[i], malloc(1), 1, &err) == DFX_EINVAL;
	ok(refused, "no such class, generator or split");
	ok(put(in, 0, jpeg, len, &err) == DFX_OK && dfx_intake_end(in, &err) == DFX_OK && s.n == 1,
	   "and what is right still goes in");
	dfx_samples_free(&s);

	in = begin(&s, &h, 0);
	ok(dfx_intake_end(in, &err) == DFX_OK && s.n == 0, "no samples at all");
	dfx_samples_free(&s);
}

/* Put until it fails. */
static DfxStatus
overfill(DfxSamples *s, Heard *h, uint64_t limit, const uint8_t *jpeg, size_t len, DfxErr *err)
{
	DfxIntake *in = begin(s, h, limit);
	DfxStatus st = DFX_OK;

	for (uint64_t i = 0; i < 2000 && st == DFX_OK; i++)
		st = put(in, i, jpeg, len, err);
	if (st == DFX_OK)
		return dfx_intake_end(in, err);
	return dfx_intake_end(in, &(DfxErr){0}) == st ? st : DFX_EINTERNAL;
}

static void
check_limits(const uint8_t *jpeg, size_t len)
{
	struct rlimit before, small = {100 * DFX_STORE_BYTES + 12345, RLIM_INFINITY};
	DfxSamples s;
	Heard h;
	DfxErr err;

	ok(overfill(&s, &h, 70 * DFX_STORE_BYTES + 9, jpeg, len, &err) == DFX_ELIMIT &&
	       strstr(err.msg, "71 samples") && strstr(err.hint, "dfx.train_cache"),
	   "the cache's limit is a limit of samples");
	ok(s.store.n == 70, "up to which all were kept");
	dfx_samples_free(&s);

	/* As a full disk does, a limit on the file's size makes its growth fail. */
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	small.rlim_max = before.rlim_max;
	setrlimit(RLIMIT_FSIZE, &small);
	ok(overfill(&s, &h, 0, jpeg, len, &err) == DFX_EIO && strstr(err.msg, "100 samples"),
	   "a full disk is an error that says so");
	ok(s.store.n == 100, "and the last sample that fitted was kept");
	setrlimit(RLIMIT_FSIZE, &before);
	dfx_samples_free(&s);

	ok(dfx_store_open(&s.store, "/nonexistent", 0, &err) == DFX_EIO && strstr(err.msg, "/nonexistent"),
	   "no such directory");
}

static void
check_nameless(void)
{
	DfxStore s;
	struct stat sb;
	DfxErr err;

	ok(dfx_store_open(&s, "", 0, &err) == DFX_OK && fstat(s.fd, &sb) == 0 && sb.st_nlink == 0,
	   "the file has no name");
	dfx_store_close(&s);
}

int
main(void)
{
	size_t len = 0;
	uint8_t *jpeg = slurp(IMAGE, &len);

	if (ok(jpeg != NULL, IMAGE " can be read"))
	{
		check_pixels(jpeg, len);
		check_refused(jpeg, len);
		check_limits(jpeg, len);
		check_nameless();
	}
	free(jpeg);
	return done_testing();
}
