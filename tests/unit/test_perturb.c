/*
 * test_perturb.c
 *	  Are perturbations those of Pillow (JPEG, to the bit) and OpenCV (to one
 *	  level), and are wrong ones refused?
 *
 * tests/golden/perturb was made by tests/golden/make_perturb.py.  Runs from
 * the top of the tree.
 */
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "image/perturb.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

static const DfxImageLimits limits = DFX_DEFAULT_LIMITS;

/* A decoded file of the golden directory; ends the program when there is none. */
static DfxImage
golden_image(const char *name)
{
	char path[256];
	size_t len = 0;
	uint8_t *bytes;
	DfxImage image = {0};
	DfxErr err = {.msg = "no such file"};

	snprintf(path, sizeof path, "tests/golden/perturb/%s", name);
	bytes = slurp(path, &len);
	if (!bytes || dfx_image_decode(bytes, len, &limits, &image, &err) != DFX_OK)
	{
		ok(false, "%s can be read: %s", path, err.msg);
		exit(done_testing());
	}
	free(bytes);
	return image;
}

static DfxPerturbation
parsed(const char *how)
{
	DfxPerturbation p = {0};
	DfxErr err = {.msg = ""};

	if (dfx_perturbation_parse(how, &p, &err) != DFX_OK)
		ok(false, "\"%s\" is understood: %s", how, err.msg);
	return p;
}

static int
largest_difference(const DfxImage *a, const DfxImage *b)
{
	int most = 0;

	if (a->width != b->width || a->height != b->height)
		return 256;
	for (size_t i = 0; i < (size_t) a->width * a->height * 3; i++)
		if (abs(a->pixels[i] - b->pixels[i]) > most)
			most = abs(a->pixels[i] - b->pixels[i]);
	return most;
}

static void
check_pixels(const char *source, const char *how, const char *expected)
{
	DfxPerturbation p = parsed(how);
	DfxImage image = golden_image(source), golden = golden_image(expected), again = golden_image(source);
	bool to_the_bit = p.kind != DFX_PERTURB_SCALE;
	DfxEncoded encoded = {.limit = 1 << 20};
	DfxErr err = {.msg = ""};
	int difference;

	ok(dfx_image_perturb(&image, &p, &limits, &err) == DFX_OK, "%s %s %s", source, how, err.msg);
	difference = largest_difference(&image, &golden);
	if (!ok(difference <= (to_the_bit ? 0 : 1), "... is the golden image"))
		diag("off by up to %d levels", difference);

	ok(dfx_image_perturb_encode(&again, &p, &limits, &encoded, &err) == DFX_OK && !again.pixels &&
	       dfx_image_sniff(encoded.data, encoded.len) ==
	           (p.kind == DFX_PERTURB_JPEG ? DFX_FORMAT_JPEG : DFX_FORMAT_PNG) &&
	       dfx_image_decode(encoded.data, encoded.len, &limits, &again, &err) == DFX_OK &&
	       largest_difference(&again, &image) == 0,
	   "... and comes back from its file");
	free(encoded.data);
	dfx_image_free(&image);
	dfx_image_free(&again);
	dfx_image_free(&golden);
}

static void
check_jpeg(const char *source, const char *how, const char *expected)
{
	DfxPerturbation p = parsed(how);
	DfxImage image = golden_image(source);
	DfxEncoded encoded = {.limit = 1 << 20};
	DfxErr err = {.msg = ""};
	DfxSha256 sha;
	uint8_t digest[32];
	char hex[65];

	ok(dfx_encode_jpeg(&image, (int) p.value, &encoded, &err) == DFX_OK, "%s as %s %s", source, how, err.msg);
	dfx_sha256_init(&sha);
	dfx_sha256_update(&sha, encoded.data, encoded.len);
	dfx_sha256_final(&sha, digest);
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	ok(strcmp(hex, expected) == 0, "... byte for byte");
	free(encoded.data);
	dfx_image_free(&image);
}

static void
check_golden(void)
{
	size_t len;
	char *manifest = (char *) slurp("tests/golden/perturb/manifest.txt", &len);
	int facts = 0;

	if (!ok(manifest != NULL, "the manifest can be read"))
		return;
	for (char *line = strtok(manifest, "\n"); line; line = strtok(NULL, "\n"), facts++)
	{
		char kind[8], source[32], how[32], expected[65];

		if (sscanf(line, "%7s %31s %31s %64s", kind, source, how, expected) != 4)
			ok(false, "\"%s\" is well-formed", line);
		else if (strcmp(kind, "jpeg") == 0)
			check_jpeg(source, how, expected);
		else
			check_pixels(source, how, expected);
	}
	ok(facts > 100, "the manifest holds %d facts", facts);
	free(manifest);
}

static void
check_refusals(void)
{
	static const char *const wrong[] = {
	    "",          "rave",        "raw:",       "raw:1",    "jpeg",       "jpeg:",     "jpeg:0",
	    "jpeg:101",  "jpeg:7.5",    "jpeg:x",     "jpeg:70 ", "jpeg: 70",   "JPEG:70",   "blur:2",
	    "blur:0",    "blur:33",     "blur:-3",    "scale:0",  "scale:1001", "scale:nan", "scale:1e2",
	    "rotate:",   "rotate:inf",  "rotate:361", "flip:",    "flip:hv",    "flip:1",    "rotate:1.2.3",
	    "jpeg:0x10", "blur:3,flip", "jpeg:70:80",
	};

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
	{
		DfxPerturbation p;
		DfxErr err = {.code = DFX_OK};

		ok(dfx_perturbation_parse(wrong[i], &p, &err) == DFX_EINVAL && err.code == DFX_EINVAL &&
		       strstr(err.msg, wrong[i]) != NULL && strstr(err.hint, "jpeg:1..100") != NULL,
		   "\"%s\" is refused: %s", wrong[i], err.msg);
	}
}

/* Numbers that no text gives come from a ring that somebody scribbled on. */
static void
check_numbers(void)
{
	static const DfxPerturbation wrong[] = {
	    {DFX_PERTURB_COUNT, 0},    {0xffffffffu, 1},        {DFX_PERTURB_JPEG, 0},
	    {DFX_PERTURB_JPEG, 1e300}, {DFX_PERTURB_FLIP, 3},   {DFX_PERTURB_RAW, 1},
	    {DFX_PERTURB_BLUR, 4},     {DFX_PERTURB_SCALE, -1}, {DFX_PERTURB_ROTATE, 0.0 / 0.0},
	};

	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
	{
		DfxImage image = golden_image("tiny.png");
		DfxErr err = {.code = DFX_OK};

		ok(dfx_image_perturb(&image, &wrong[i], &limits, &err) == DFX_EINVAL && err.code == DFX_EINVAL &&
		       !image.pixels,
		   "kind %u, value %g: %s", (unsigned) wrong[i].kind, wrong[i].value, err.msg);
		dfx_image_free(&image);
	}
}

static void
check_limits(void)
{
	DfxImage image = golden_image("photo.png");
	DfxPerturbation scale = parsed("scale:1000"), jpeg = parsed("jpeg:90");
	DfxImageLimits small = limits;
	DfxEncoded encoded = {.limit = 100};
	DfxErr err = {.msg = ""};

	ok(dfx_perturb_pixels(&scale, 45, 32) == 45 * 32 * 100 && dfx_perturb_pixels(&jpeg, 45, 32) == 45 * 32,
	   "what a perturbation makes of a size");
	small.max_pixels = 10000;
	ok(dfx_image_perturb(&image, &scale, &small, &err) == DFX_ELIMIT && !image.pixels,
	   "too large a result: %s", err.msg);
	image = golden_image("photo.png");
	ok(dfx_encode_jpeg(&image, 90, &encoded, &err) == DFX_ELIMIT && !encoded.data, "too long a JPEG: %s",
	   err.msg);
	ok(dfx_encode_png(&image, &encoded, &err) == DFX_ELIMIT && !encoded.data, "too long a PNG: %s", err.msg);
	small.max_bytes = 1;
	ok(dfx_image_perturb(&image, &jpeg, &small, &err) == DFX_OK,
	   "the limit on bytes is for those of others %s", err.msg);
	dfx_image_free(&image);

	image = (DfxImage){65501, 1, calloc(65501, 3)};
	encoded.limit = 1 << 20;
	ok(dfx_encode_jpeg(&image, 90, &encoded, &err) == DFX_ELIMIT, "too wide for JPEG: %s", err.msg);
	dfx_image_free(&image);
	ok(dfx_encode_png(&image, &encoded, &err) == DFX_EINVAL, "nothing to encode: %s", err.msg);
}

/* All sizes up to 12 x 12 under everything: a flat image stays flat, and nothing is read beyond its edges
 * (ASan). */
static void
check_sizes(void)
{
	static const char *const hows[] = {"jpeg:80",   "blur:3",   "blur:31",   "scale:1",
	                                   "scale:37",  "scale:99", "scale:101", "scale:250",
	                                   "rotate:30", "flip",     "flip:h",    "flip:v"};
	int wrong = 0;

	for (uint32_t size = 0; size < 12 * 12; size++)
		for (size_t i = 0; i < sizeof hows / sizeof hows[0]; i++)
		{
			uint32_t width = size % 12 + 1, height = size / 12 + 1;
			DfxImage image = {width, height, malloc((size_t) width * height * 3)};
			DfxPerturbation p = parsed(hows[i]);
			uint32_t percent = p.kind == DFX_PERTURB_SCALE ? (uint32_t) p.value : 100;
			uint32_t across = (width * percent + 50) / 100, down = (height * percent + 50) / 100;
			DfxErr err;

			memset(image.pixels, 200, (size_t) width * height * 3);
			wrong += dfx_image_perturb(&image, &p, &limits, &err) != DFX_OK ||
			         image.width != (across ? across : 1) || image.height != (down ? down : 1);
			for (size_t k = 0; k < (size_t) image.width * image.height * 3; k++)
				wrong += p.kind != DFX_PERTURB_ROTATE && image.pixels[k] != 200;
			dfx_image_free(&image);
		}
	ok(wrong == 0, "sizes up to 12 x 12");
}

/* A network's input by way of the file, and directly. */
static void
check_prepare(void)
{
	uint8_t *direct = malloc(256 * 256 * 3), *by_file = malloc(256 * 256 * 3);
	DfxPerturbation how = parsed("blur:7"), raw = parsed("raw");
	DfxImage image = golden_image("photo.png");
	DfxEncoded encoded = {.limit = 1 << 20};
	DfxErr err = {.msg = ""};
	size_t len = 0;
	uint8_t *file = slurp("tests/golden/perturb/photo.png", &len);

	if (!ok(file && dfx_image_perturb_encode(&image, &how, &limits, &encoded, &err) == DFX_OK,
	        "a blurred file"))
		return;
	for (uint32_t side = 224; side <= 256; side += 32)
		ok(dfx_image_prepare(encoded.data, encoded.len, &limits, side, by_file, &err) == DFX_OK &&
		       dfx_image_prepare_as(file, len, &how, &limits, side, direct, &err) == DFX_OK &&
		       memcmp(by_file, direct, (size_t) side * side * 3) == 0,
		   "perturbed at %u: %s", (unsigned) side, err.msg);
	ok(dfx_image_prepare(file, len, &limits, 256, by_file, &err) == DFX_OK &&
	       dfx_image_prepare_as(file, len, &raw, &limits, 256, direct, &err) == DFX_OK &&
	       memcmp(by_file, direct, 256 * 256 * 3) == 0,
	   "raw is the image itself");
	ok(dfx_image_prepare_as(file, 100, &how, &limits, 256, direct, &err) == DFX_EIMAGE, "half a file: %s",
	   err.msg);
	free(encoded.data);
	free(file);
	free(direct);
	free(by_file);
}

int
main(void)
{
	check_golden();
	check_refusals();
	check_numbers();
	check_limits();
	check_sizes();
	check_prepare();
	return done_testing();
}
