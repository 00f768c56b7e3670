/*
 * test_cuda_engine.c
 *	  Does the engine on a device whose lanes compute in turn (a GPU, here its
 *	  twin on the host) answer every request of many at once as it answers it
 *	  alone, in batches as large as it may make, also when one is cancelled?
 */
#include <math.h>

#include "nn/backend.h"
#include "tests/backend/ring_client.h"
#include "tests/unit/slurp.h"

#define BULK     24u
#define BATCH    4
#define FEATURES 64
#define IMAGES   3

static const DfxModelMeta lone = {.kind = "backbone", .backbone = "test_tiny", .input_size = 256};
static const char *const image_file[IMAGES] = {"tests/golden/images/photo-444-q75.jpg",
                                               "tests/golden/images/jpeg-255x257.jpg",
                                               "tests/golden/images/photo-progressive.jpg"};
static uint8_t *image[IMAGES];
static size_t image_len[IMAGES];
static float alone[IMAGES][FEATURES];

static bool
features_are(const Client *c, uint32_t slot, int i)
{
	const float *got = (const float *) (const void *) client_reply(c, slot);
	float most = 0, apart = 0;

	for (int k = 0; k < FEATURES; k++)
	{
		most = fmaxf(most, fabsf(alone[i][k]));
		apart = fmaxf(apart, fabsf(alone[i][k] - got[k]));
	}
	return apart <= 1e-5f * most;
}

static void
check_bulk(Client *c, const uint8_t *version)
{
	const DfxRingStats *s = &c->ring->engine[0].stats;
	uint64_t images = atomic_load(&s->images);
	uint32_t most = 0, canceled = 7;
	int right = 0;

	for (uint32_t i = 0; i < BULK; i++)
	{
		client_fill(c, i, DFX_RING_FEATURES, image[i % IMAGES], image_len[i % IMAGES], version)->priority =
		    i % 10 == 9 ? DFX_PRIORITY_INTERACTIVE : DFX_PRIORITY_BULK;
		client_submit(c, i);
	}
	atomic_store(&client_slot(c, canceled)->cancel_gen, atomic_load(&client_slot(c, canceled)->submit_gen));
	for (uint32_t i = 0; i < BULK; i++)
	{
		int st = client_wait(c, i);

		right += (st == DFX_OK && features_are(c, i, (int) (i % IMAGES))) ||
		         (i == canceled && st == DFX_ECANCELED);
		most = client_slot(c, i)->batch > most ? client_slot(c, i)->batch : most;
	}
	ok(right == BULK, "%d of %d requests at once get what they get alone", right, (int) BULK);
	ok(most > 1 && most <= BATCH, "the largest batch has %d of %d: it is not divided among lanes", (int) most,
	   BATCH);
	images = atomic_load(&s->images) - images;
	ok(images == BULK || images == BULK - 1, "%d images are counted", (int) images);
}

/* The engine is "build/test/twin/dfx-engine": test/twin beside the directory of this program's directory. */
static void
name_engine(const char *program)
{
	const char *up = strstr(program, "/t/cuda/");
	char path[4096];

	snprintf(path, sizeof path, "%.*s/test/twin/dfx-engine", up ? (int) (up - program) : 5,
	         up ? program : "build");
	setenv("DFX_ENGINE", path, 1);
}

int
main(int argc, char **argv)
{
	static const char *const extra[] = {"--device", "cuda", "--max-batch", "4", "--threads", "2", NULL};
	Stream m = stream_make(&lone, 1, NULL);
	Client c;

	(void) argc;
	name_engine(argv[0]);
	for (int i = 0; i < IMAGES; i++)
		if (!(image[i] = slurp(image_file[i], &image_len[i])))
			return 2;
	if (!ok(client_start(&c, extra), "the engine starts"))
	{
		diag("%s", c.said);
		return done_testing();
	}
	c.precision = DFX_PRECISION_FP32; /* on the host by far the fastest */
	if (!ok(client_load(&c, &m, 1, DFX_LOADER_BYTES) == DFX_OK, "it has a model"))
		return done_testing();
	ok(strncmp(c.ring->engine[0].device, "cuda: host twin", 15) == 0, "on %s", c.ring->engine[0].device);
	for (int i = 0; i < IMAGES; i++)
	{
		ok(client_call(&c, 0, DFX_RING_FEATURES, image[i], image_len[i], m.version) == DFX_OK &&
		       client_slot(&c, 0)->batch == 1,
		   "a request alone is a batch of one");
		memcpy(alone[i], client_reply(&c, 0), sizeof alone[i]);
	}
	check_bulk(&c, m.version);
	ok(client_stop(&c) == 0, "the engine ends with its supervisor");
	free(m.bytes);
	for (int i = 0; i < IMAGES; i++)
		free(image[i]);
	return done_testing();
}
