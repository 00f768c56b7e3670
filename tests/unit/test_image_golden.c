/*
 * test_image_golden.c
 *	  Are decoding and resizing Pillow's, bit for bit?
 *
 * tests/golden/images holds encoded files of every supported kind, and in
 * manifest.txt the hashes of what Debian 12's Pillow makes of them
 * (tests/golden/make_images.py).  Runs from the top of the tree.
 */
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "image/image.h"
#include "tests/unit/tap.h"
#include "tests/unit/slurp.h"

#define DIRECTORY "tests/golden/images/"
#define DIGEST    65 /* hexadecimal, with NUL */

static bool
same_digest(const void *bytes, size_t len, const char *expected)
{
	char hex[DIGEST];
	uint8_t digest[32];
	DfxSha256 s;

	dfx_sha256_init(&s);
	dfx_sha256_update(&s, bytes, len);
	dfx_sha256_final(&s, digest);
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	return strcmp(hex, expected) == 0;
}

/* A file of the golden directory; ends the program when it is not there. */
static uint8_t *
golden_file(const char *name, size_t *len)
{
	char path[256];
	uint8_t *bytes;

	snprintf(path, sizeof path, DIRECTORY "%s", name);
	bytes = slurp(path, len);
	if (!bytes)
	{
		ok(false, "%s can be read", path);
		exit(done_testing());
	}
	return bytes;
}

static void
check_decode(const char *line)
{
	char name[64], format[8], rgb[DIGEST], whole[DIGEST], cropped[DIGEST];
	unsigned width, height, channels, bits;
	DfxImageLimits limits = DFX_DEFAULT_LIMITS;
	DfxImageInfo info;
	DfxImage image;
	DfxErr err;
	size_t len;
	uint8_t *bytes, *input = malloc((size_t) DFX_RESIZE_SIDE * DFX_RESIZE_SIDE * 3);

	if (!ok(sscanf(line, "decode %63s %7s %u %u %u %u %64s %64s %64s", name, format, &width, &height,
	               &channels, &bits, rgb, whole, cropped) == 9,
	        "manifest line is well-formed"))
	{
		free(input);
		return;
	}
	bytes = golden_file(name, &len);

	err.msg[0] = '\0';
	ok(dfx_image_info(bytes, len, &limits, &info, &err) == DFX_OK &&
	       strcmp(dfx_format_name(info.format), format) == 0 && info.width == width &&
	       info.height == height && info.channels == channels && info.bits == bits,
	   "%s: header %s", name, err.msg);
	if (ok(dfx_image_decode(bytes, len, &limits, &image, &err) == DFX_OK, "%s: decodes %s", name, err.msg))
	{
		ok(image.width == width && image.height == height &&
		       same_digest(image.pixels, (size_t) width * height * 3, rgb),
		   "%s: pixels", name);
		dfx_image_free(&image);
	}
	ok(dfx_image_prepare(bytes, len, &limits, 256, input, &err) == DFX_OK &&
	       same_digest(input, 256 * 256 * 3, whole),
	   "%s: prepared at 256", name);
	ok(dfx_image_prepare(bytes, len, &limits, 224, input, &err) == DFX_OK &&
	       same_digest(input, 224 * 224 * 3, cropped),
	   "%s: prepared at 224", name);
	free(input);
	free(bytes);
}

static void
check_resize(const char *line)
{
	char name[64], expected[DIGEST];
	unsigned width, height;
	DfxImageLimits limits = DFX_DEFAULT_LIMITS;
	DfxImage image;
	DfxErr err;
	size_t len;
	uint8_t *bytes, *resized;

	if (!ok(sscanf(line, "resize %63s %u %u %64s", name, &width, &height, expected) == 4,
	        "manifest line is well-formed"))
		return;
	bytes = golden_file(name, &len);
	resized = malloc((size_t) width * height * 3);
	if (ok(dfx_image_decode(bytes, len, &limits, &image, &err) == DFX_OK, "%s: decodes", name))
	{
		ok(dfx_image_resize(&image, width, height, resized, &err) == DFX_OK &&
		       same_digest(resized, (size_t) width * height * 3, expected),
		   "%s: %u x %u resized to %u x %u", name, image.width, image.height, width, height);
		dfx_image_free(&image);
	}
	free(resized);
	free(bytes);
}

int
main(void)
{
	size_t len;
	char *manifest = (char *) golden_file("manifest.txt", &len);
	int facts = 0;

	for (char *line = strtok(manifest, "\n"); line; line = strtok(NULL, "\n"), facts++)
		if (strncmp(line, "decode ", 7) == 0)
			check_decode(line);
		else
			check_resize(line);
	ok(facts > 100, "the manifest holds %d facts", facts);
	free(manifest);
	return done_testing();
}
