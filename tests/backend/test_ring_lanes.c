/*
 * test_ring_lanes.c
 *	  Do batches that run side by side keep to their size, give every request
 *	  its own answer, and let interactive requests go first?
 */
#include "tests/backend/ring_client.h"
#include "tests/unit/slurp.h"

#define BULK   40u
#define LANES  2
#define BATCH  3 /* images of a lane's batch: --max-batch is that of all lanes */
#define IMAGES 3

static const DfxModelMeta lone = {.kind = "backbone", .backbone = "resnet18", .input_size = 256};
static const char *const image_file[IMAGES] = {"tests/golden/images/photo-444-q75.jpg",
                                               "tests/golden/images/jpeg-255x257.jpg",
                                               "tests/golden/images/photo-progressive.jpg"};
static uint8_t *image[IMAGES];
static size_t image_len[IMAGES];
static float alone[IMAGES][512];

static bool
features_are(const Client *c, uint32_t slot, int i)
{
	return memcmp(client_reply(c, slot), alone[i], sizeof alone[i]) == 0;
}

static void
test_bulk(Client *c, const uint8_t *version)
{
	const DfxRingStats *s = &c->ring->engine[0].stats;
	uint64_t images = atomic_load(&s->images), batches = atomic_load(&s->batches);
	uint32_t last = BULK, before = 0, most = 0;
	int right = 0;

	for (uint32_t i = 0; i < BULK; i++)
	{
		client_fill(c, i, DFX_RING_FEATURES, image[i % IMAGES], image_len[i % IMAGES], version)->priority =
		    DFX_PRIORITY_BULK;
		client_submit(c, i);
	}
	client_fill(c, last, DFX_RING_FEATURES, image[0], image_len[0], version)->priority =
	    DFX_PRIORITY_INTERACTIVE;
	client_submit(c, last);
	right += client_wait(c, last) == DFX_OK && features_are(c, last, 0);
	for (uint32_t i = 0; i < BULK; i++)
	{
		right += client_wait(c, i) == DFX_OK && features_are(c, i, (int) (i % IMAGES));
		before += client_slot(c, i)->t_done < client_slot(c, last)->t_done;
		most = client_slot(c, i)->batch > most ? client_slot(c, i)->batch : most;
	}
	ok(right == BULK + 1, "%d of %d requests at once get, to the bit, what they get alone", right,
	   (int) BULK + 1);
	ok(most > 1 && most <= BATCH && atomic_load(&s->largest_batch) == most, "the largest batch has %d",
	   (int) most);
	images = atomic_load(&s->images) - images;
	batches = atomic_load(&s->batches) - batches;
	ok(images == BULK + 1 && batches * BATCH >= images && batches < images,
	   "%d images in %d batches are counted", (int) images, (int) batches);
	ok(client_slot(c, last)->batch == 1, "an interactive request runs by itself");
	ok(before < BULK - 2 * LANES * BATCH,
	   "... and before what a scan has asked earlier: it waited for %d of %d", (int) before, (int) BULK);
}

int
main(void)
{
	static const char *const extra[] = {"--max-batch", "7", "--threads", "2", NULL};
	Stream m = stream_make(&lone, 1, NULL);
	Client c;

	for (int i = 0; i < IMAGES; i++)
		if (!(image[i] = slurp(image_file[i], &image_len[i])))
			return 2;
	if (!ok(client_start(&c, extra) && client_load(&c, &m, 1, DFX_LOADER_BYTES) == DFX_OK,
	        "the engine starts and has a model"))
		return done_testing();
	for (int i = 0; i < IMAGES; i++)
	{
		ok(client_call(&c, 0, DFX_RING_FEATURES, image[i], image_len[i], m.version) == DFX_OK &&
		       client_slot(&c, 0)->batch == 1,
		   "a request alone is a batch of one");
		memcpy(alone[i], client_reply(&c, 0), sizeof alone[i]);
	}
	test_bulk(&c, m.version);
	client_stop(&c);
	free(m.bytes);
	for (int i = 0; i < IMAGES; i++)
		free(image[i]);
	return done_testing();
}
