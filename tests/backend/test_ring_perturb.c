/*
 * test_ring_perturb.c
 *	  Does the engine perturb images: to a file, within the room there is, and
 *	  on the way to a verdict?
 *
 * Expected pixels are those of tests/golden/perturb.
 */
#include "image/image.h"
#include "tests/backend/ring_client.h"
#include "tests/unit/slurp.h"

#define GOLDEN "tests/golden/perturb/"

static uint8_t *photo;
static size_t photo_len;

/* Ask for a perturbed file; its status. */
static int
perturb(Client *c, const uint8_t *bytes, size_t len, DfxPerturbation how, size_t room)
{
	DfxSlot *s = client_fill(c, 2, DFX_RING_PERTURB, bytes, len, NULL);

	s->how = how;
	s->reply_cap = room;
	client_submit(c, 2);
	return client_wait(c, 2);
}

static bool
reply_is(Client *c, const char *expected)
{
	DfxImageLimits limits = DFX_DEFAULT_LIMITS;
	DfxImage got = {0}, golden = {0};
	size_t len = 0;
	uint8_t *file = slurp(expected, &len);
	DfxErr err;
	bool same =
	    file && dfx_image_decode(file, len, &limits, &golden, &err) == DFX_OK &&
	    dfx_image_decode(client_reply(c, 2), client_slot(c, 2)->reply_len, &limits, &got, &err) == DFX_OK &&
	    got.width == golden.width && got.height == golden.height &&
	    memcmp(got.pixels, golden.pixels, (size_t) got.width * got.height * 3) == 0;

	free(file);
	dfx_image_free(&got);
	dfx_image_free(&golden);
	return same;
}

static void
test_files(Client *c)
{
	static const struct
	{
		DfxPerturbation how;
		const char *expected;
		DfxFormat format;
	} files[] = {
	    {{DFX_PERTURB_RAW, 0}, GOLDEN "photo.png", DFX_FORMAT_PNG},
	    {{DFX_PERTURB_JPEG, 50}, GOLDEN "photo-jpeg50.png", DFX_FORMAT_JPEG},
	    {{DFX_PERTURB_BLUR, 15}, GOLDEN "photo-blur15.png", DFX_FORMAT_PNG},
	    {{DFX_PERTURB_ROTATE, -12.5}, GOLDEN "photo-rotate-12.5.png", DFX_FORMAT_PNG},
	    {{DFX_PERTURB_FLIP, DFX_FLIP_H}, GOLDEN "photo-fliph.png", DFX_FORMAT_PNG},
	};

	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		ok(perturb(c, photo, photo_len, files[i].how, CLIENT_REPLY) == DFX_OK &&
		       dfx_image_sniff(client_reply(c, 2), client_slot(c, 2)->reply_len) == files[i].format &&
		       reply_is(c, files[i].expected),
		   "%s", files[i].expected);
}

static void
test_room(Client *c)
{
	DfxPerturbation blur = {DFX_PERTURB_BLUR, 3};
	uint64_t need;

	ok(perturb(c, photo, photo_len, blur, 100) == DFX_TOO_SMALL && client_slot(c, 2)->reply_len > 100,
	   "too little room: the answer says how much it takes");
	need = client_slot(c, 2)->reply_len;
	ok(perturb(c, photo, photo_len, blur, need - 1) == DFX_TOO_SMALL, "one byte less is too little");
	ok(perturb(c, photo, photo_len, blur, need) == DFX_OK && client_slot(c, 2)->reply_len == need &&
	       reply_is(c, GOLDEN "photo-blur3.png"),
	   "that much is enough");
}

static void
test_refusals(Client *c)
{
	static const DfxPerturbation wrong[] = {
	    {DFX_PERTURB_COUNT, 0}, {DFX_PERTURB_BLUR, 4}, {DFX_PERTURB_JPEG, 0.0 / 0.0}};
	DfxPerturbation scale = {DFX_PERTURB_SCALE, 1000};
	DfxSlot *s;

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		ok(perturb(c, photo, photo_len, wrong[i], CLIENT_REPLY) == DFX_EINVAL, "no such perturbation: %s",
		   client_slot(c, 2)->msg);
	ok(perturb(c, photo, 60, scale, CLIENT_REPLY) == DFX_EIMAGE, "no image: %s", client_slot(c, 2)->msg);

	s = client_fill(c, 2, DFX_RING_PERTURB, photo, photo_len, NULL);
	s->how = scale;
	s->max_pixels = 45 * 32;
	client_submit(c, 2);
	ok(client_wait(c, 2) == DFX_ELIMIT, "the limit holds for the result too: %s", s->msg);
}

/* A verdict on a perturbed image is that on its file. */
static void
test_verdicts(Client *c)
{
	const DfxModelMeta meta = {.kind = "trinet",
	                           .backbone = "resnet18",
	                           .classes = "dm,gan,real",
	                           .head_stride = 2,
	                           .input_size = 256};
	Stream s = stream_make(&meta, 5, NULL);
	DfxPerturbation blur = {DFX_PERTURB_BLUR, 7};
	DfxVerdictReply raw, perturbed, by_file;
	uint8_t file[CLIENT_REPLY];
	size_t len;

	ok(client_load(c, &s, 1, 8u << 20) == DFX_OK, "a model is loaded");
	ok(client_call(c, 4, DFX_RING_CLASSIFY, photo, photo_len, s.version) == DFX_OK, "a verdict");
	memcpy(&raw, client_reply(c, 4), sizeof raw);

	client_fill(c, 4, DFX_RING_CLASSIFY, photo, photo_len, s.version)->how = blur;
	client_submit(c, 4);
	ok(client_wait(c, 4) == DFX_OK, "a verdict on the image blurred");
	memcpy(&perturbed, client_reply(c, 4), sizeof perturbed);
	ok(memcmp(&raw, &perturbed, sizeof raw) != 0, "... is another one");

	perturb(c, photo, photo_len, blur, CLIENT_REPLY);
	len = client_slot(c, 2)->reply_len;
	memcpy(file, client_reply(c, 2), len);
	ok(client_call(c, 4, DFX_RING_CLASSIFY, file, len, s.version) == DFX_OK, "a verdict on the blurred file");
	memcpy(&by_file, client_reply(c, 4), sizeof by_file);
	ok(memcmp(&by_file, &perturbed, sizeof by_file) == 0, "... is the same");
	free(s.bytes);
}

int
main(void)
{
	static const char *const options[] = {"--threads", "2", NULL};
	Client c;

	photo = slurp(GOLDEN "photo.png", &photo_len);
	if (!ok(photo != NULL, "the image can be read") || !ok(client_start(&c, options), "the engine starts"))
		return done_testing();
	test_files(&c);
	test_room(&c);
	test_refusals(&c);
	test_verdicts(&c);
	ok(client_call(&c, 3, DFX_RING_PING, NULL, 0, NULL) == DFX_OK, "the engine is there");
	ok(client_stop(&c) == 0, "and ends when it is told to");
	free(photo);
	return done_testing();
}
