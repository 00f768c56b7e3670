/*
 * test_fuzz_image.c
 *	  Do decoders survive mutated files, and keep their promises about them?
 *
 * Every golden image is changed in a few places and decoded.  A PNG's
 * checksums are made right again half of the time, or nothing behind them
 * would ever be reached.  Runs from the top of the tree.
 */
#include <dirent.h>
#include <stdio.h>

#include "image/image.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/png_maker.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

#define DIRECTORY "tests/golden/images/"
#define ROUNDS    100 /* per file and unit of DFX_FUZZ_ROUNDS */

/* Small, so that a mutated size costs a refusal and not a second. */
static const DfxImageLimits limits = {.max_bytes = 1u << 20, .max_pixels = 1u << 20, .max_scans = 30};

static size_t decoded, refused;

/* NULL, or the promise of image.h that was broken. */
static const char *
check(const uint8_t *bytes, size_t len)
{
	DfxImageInfo info;
	DfxImage image = {.pixels = (uint8_t *) 1};
	DfxErr err = {0};
	DfxStatus header = dfx_image_info(bytes, len, &limits, &info, &err), status;
	uint8_t small[7 * 5 * 3];
	volatile unsigned sum = 0;

	if (header != DFX_OK && (header != err.code || err.msg[0] == '\0'))
		return "dfx_image_info failed without a reason";
	memset(&err, 0, sizeof err);
	status = dfx_image_decode(bytes, len, &limits, &image, &err);
	if (status != DFX_OK)
	{
		refused++;
		if (status != DFX_EIMAGE && status != DFX_ELIMIT)
			return "a status that an image cannot have";
		if (image.pixels || err.code != status || err.msg[0] == '\0')
			return "a failure left pixels, or no reason";
		return NULL;
	}
	decoded++;
	if (header != DFX_OK || info.width != image.width || info.height != image.height)
		return "header and pixels disagree";
	if ((uint64_t) image.width * image.height > limits.max_pixels)
		return "a decoded image is over the limit";
	for (size_t i = 0; i < (size_t) image.width * image.height * 3; i++)
		sum += image.pixels[i]; /* all of it is there to be read */
	(void) sum;
	if (dfx_image_resize(&image, 7, 5, small, &err) != DFX_OK)
		return "a decoded image cannot be resized";
	dfx_image_free(&image);
	return NULL;
}

static void
fuzz_file(const char *name, size_t rounds)
{
	char path[512];
	const char *broken = NULL;
	size_t len;
	uint8_t *original;

	snprintf(path, sizeof path, DIRECTORY "%s", name);
	original = slurp(path, &len);
	if (!original)
	{
		ok(false, "%s can be read", path);
		return;
	}
	for (size_t round = 0; round < rounds && !broken; round++)
	{
		size_t cap = len + 256, n = len;
		uint8_t *copy = malloc(cap), *exact;
		size_t changes = 1 + fuzz_below(4);

		memcpy(copy, original, len);
		while (changes-- > 0)
			fuzz_mutate(copy, &n, cap);
		if (n >= 8 && copy[0] == 0x89 && fuzz_below(2) == 0)
			png_repair(copy, n);
		exact = malloc(n ? n : 1); /* so that ASan sees any reading on */
		memcpy(exact, copy, n);
		broken = check(exact, n);
		free(exact);
		free(copy);
	}
	ok(!broken, "%s mutated %zu times%s%s", name, rounds, broken ? ": " : "", broken ? broken : "");
	free(original);
}

static int
only_images(const struct dirent *entry)
{
	return strstr(entry->d_name, ".jpg") || strstr(entry->d_name, ".png");
}

int
main(void)
{
	size_t rounds = fuzz_begin() * ROUNDS;
	struct dirent **files;
	int n = scandir(DIRECTORY, &files, only_images, alphasort);

	ok(n > 50, "%d golden images to mutate", n);
	for (int i = 0; i < n; i++)
	{
		fuzz_file(files[i]->d_name, rounds);
		free(files[i]);
	}
	if (n >= 0)
		free(files);
	ok(decoded > 100 && refused > 100, "%zu were decoded, %zu refused", decoded, refused);
	return done_testing();
}
