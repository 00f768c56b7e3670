/*
 * test_image_bad.c
 *	  Is what cannot or must not be decoded refused, with the right status and
 *	  a reason, and nothing allocated?
 *
 * Broken files are made from the golden ones.  Runs from the top of the tree.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "image/image.h"
#include "tests/unit/png_maker.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

#define DIRECTORY "tests/golden/images/"

static const DfxImageLimits defaults = DFX_DEFAULT_LIMITS;

static uint8_t *
golden(const char *name, size_t *len)
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

/* Decode from an allocation of exactly len bytes, so that ASan sees any reading on. */
static DfxStatus
decode(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, DfxErr *err)
{
	uint8_t *copy = malloc(len ? len : 1);
	DfxImage image = {.pixels = (uint8_t *) 1};
	DfxStatus status;

	memcpy(copy, bytes, len);
	memset(err, 0, sizeof *err);
	status = dfx_image_decode(copy, len, limits, &image, err);
	if (status != DFX_OK && (image.pixels || err->code != status || err->msg[0] == '\0'))
	{
		diag("a failure left pixels, or no reason: %s", err->msg);
		status = DFX_STATUS_COUNT;
	}
	if (status == DFX_OK)
		dfx_image_free(&image);
	free(copy);
	return status;
}

static void
refused(const uint8_t *bytes, size_t len, DfxStatus expected, const char *reason, const char *what)
{
	DfxErr err;
	DfxStatus status = decode(bytes, len, &defaults, &err);

	if (!ok(status == expected && strstr(err.msg, reason), "%s: %s", what, err.msg))
		diag("status %d, expected %d and \"%s\"", status, expected, reason);
}

static void
test_not_images(void)
{
	static const char gif[] = "GIF89a\x01\x00\x01\x00\x00\x00\x00;";
	DfxImageInfo info;
	DfxImage image;
	DfxErr err;

	ok(dfx_image_decode(NULL, 0, &defaults, &image, &err) == DFX_EIMAGE && !image.pixels, "NULL");
	ok(dfx_image_info(NULL, 0, &defaults, &info, &err) == DFX_EIMAGE && info.format == DFX_FORMAT_UNKNOWN,
	   "info of NULL");
	ok(dfx_image_sniff("\xff\xd8", 2) == DFX_FORMAT_UNKNOWN && dfx_image_sniff("", 0) == DFX_FORMAT_UNKNOWN,
	   "sniffing reads no further than the input");
	refused((const uint8_t *) "", 0, DFX_EIMAGE, "empty", "no bytes");
	refused((const uint8_t *) gif, sizeof gif - 1, DFX_EIMAGE, "not a JPEG or PNG", "a GIF");
	refused((const uint8_t *) "\xff\xd8\xff", 3, DFX_EIMAGE, "truncated", "JPEG magic alone");
	refused((const uint8_t *) "\x89PNG\r\n\x1a\n", 8, DFX_EIMAGE, "truncated", "PNG magic alone");
	refused((const uint8_t *) "\xff\xd8\xff\xd9", 4, DFX_EIMAGE, "JPEG", "JPEG without an image");
}

/* Sixteenths of a file are refused; so is (for these kinds) the file without its last few bytes. */
static void
test_truncation(const char *name, size_t tail)
{
	size_t len;
	uint8_t *bytes = golden(name, &len);
	DfxErr err;

	for (size_t part = 1; part < 16; part++)
	{
		DfxStatus status = decode(bytes, len * part / 16, &defaults, &err);

		ok(status == DFX_EIMAGE && strstr(err.msg, "truncated"), "%s cut at %zu/16: %s", name, part, err.msg);
	}
	ok(decode(bytes, len - tail, &defaults, &err) == DFX_EIMAGE, "%s without its last %zu bytes: %s", name,
	   tail, err.msg);
	ok(decode(bytes, len, &defaults, &err) == DFX_OK, "%s whole", name);
	free(bytes);
}

static void
test_limits(void)
{
	size_t len;
	uint8_t *bytes = golden("jpeg-256x90.jpg", &len);
	DfxImageLimits limits = defaults;
	DfxImageInfo info;
	DfxErr err;

	limits.max_bytes = len - 1;
	ok(decode(bytes, len, &limits, &err) == DFX_ELIMIT && strstr(err.hint, "dfx.max_image_bytes"),
	   "bytes: %s", err.msg);
	ok(dfx_image_info(bytes, len, &limits, &info, &err) == DFX_ELIMIT, "bytes, info too");
	limits.max_bytes = len;
	limits.max_pixels = 256 * 90 - 1;
	ok(decode(bytes, len, &limits, &err) == DFX_ELIMIT && strstr(err.hint, "dfx.max_image_pixels"),
	   "pixels: %s", err.msg);
	ok(dfx_image_info(bytes, len, &limits, &info, &err) == DFX_ELIMIT, "pixels, info too");
	limits.max_pixels = 256 * 90;
	ok(decode(bytes, len, &limits, &err) == DFX_OK, "exactly at both limits");
	free(bytes);

	bytes = golden("photo-progressive.jpg", &len);
	limits = defaults;
	limits.max_scans = 4;
	ok(decode(bytes, len, &limits, &err) == DFX_ELIMIT && strstr(err.msg, "scans"), "scans: %s", err.msg);
	free(bytes);
	bytes = golden("png-c2-b8.png", &len);
	limits = defaults;
	limits.max_pixels = 37 * 29 - 1;
	ok(decode(bytes, len, &limits, &err) == DFX_ELIMIT, "pixels of a PNG: %s", err.msg);
	free(bytes);
}

/* Patch the frame header of a JPEG: height and width are big-endian words after SOF0, length and precision.
 */
static void
test_lying_jpeg(void)
{
	size_t len, sof;
	uint8_t *bytes = golden("jpeg-256x256.jpg", &len);

	for (sof = 2; bytes[sof] != 0xff || bytes[sof + 1] != 0xc0; sof++)
		;
	memset(bytes + sof + 5, 0xff, 4);
	refused(bytes, len, DFX_EIMAGE, "65500", "a JPEG that claims 65535 x 65535");
	memcpy(bytes + sof + 5, "\xf0\0\xf0\0", 4);
	refused(bytes, len, DFX_ELIMIT, "61440 x 61440", "a JPEG that claims 61440 x 61440");
	memcpy(bytes + sof + 5, "\x23\0\x23\0", 4);
	/* With its end marker this decodes, as in Pillow: libjpeg conceals the missing data. */
	refused(bytes, len - 2, DFX_EIMAGE, "truncated", "a JPEG that claims 8960 x 8960");
	memcpy(bytes + sof + 5, "\0\0\1\0", 4);
	refused(bytes, len, DFX_EIMAGE, "", "a JPEG that claims no rows");
	memcpy(bytes + sof + 5, "\1\0\1\0", 4);
	bytes[sof + 4] = 12;
	refused(bytes, len, DFX_EIMAGE, "precision", "a JPEG of 12 bits");
	bytes[sof + 4] = 8;
	bytes[sof + 11] = 0x55;
	refused(bytes, len, DFX_EIMAGE, "", "a JPEG with impossible sampling");
	free(bytes);
}

/* --- PNG files made here ----------------------------------------------------------- */

/* IDAT with n zero bytes deflated. */
static void
png_zeros(Png *png, size_t n)
{
	uint8_t *zeros = calloc(n ? n : 1, 1);
	uLongf packed_len = compressBound(n);
	uint8_t *packed = malloc(packed_len);

	compress2(packed, &packed_len, zeros, n, 9);
	png_chunk(png, "IDAT", packed, packed_len);
	free(zeros);
	free(packed);
}

static void
test_bomb(void)
{
	Png png = png_begin(30000, 30000, 1, 0);
	struct rusage before, after;

	png_zeros(&png, 1000000);
	png_chunk(&png, "IEND", NULL, 0);
	getrusage(RUSAGE_SELF, &before);
	refused(png.bytes, png.len, DFX_ELIMIT, "30000 x 30000", "a bomb of few bytes");
	getrusage(RUSAGE_SELF, &after);
	ok(after.ru_maxrss - before.ru_maxrss < 20000, "and it cost no memory");
	free(png.bytes);

	png = png_begin(2000000, 1, 1, 0);
	png_zeros(&png, 1);
	refused(png.bytes, png.len, DFX_ELIMIT, "side", "an image two million pixels wide");
	free(png.bytes);
	png = png_begin(0xffffffff, 0xffffffff, 8, 2);
	png_zeros(&png, 1);
	refused(png.bytes, png.len, DFX_ELIMIT, "over the limit", "the largest size that can be written");
	free(png.bytes);
	png = png_begin(0, 5, 8, 2);
	png_zeros(&png, 1);
	refused(png.bytes, png.len, DFX_EIMAGE, "empty", "no columns");
	free(png.bytes);
}

static void
test_broken_png(void)
{
	Png png = png_begin(4, 4, 8, 0);

	png_chunk(&png, "IEND", NULL, 0);
	refused(png.bytes, png.len, DFX_EIMAGE, "no image data", "a PNG without IDAT");
	free(png.bytes);

	png = png_begin(4, 4, 8, 0);
	png_zeros(&png, 4 * 5 - 1);
	png_chunk(&png, "IEND", NULL, 0);
	refused(png.bytes, png.len, DFX_EIMAGE, "ot enough", "a PNG whose data ends one byte early");
	free(png.bytes);

	png = png_begin(4, 4, 8, 0);
	png_chunk(&png, "IDAT", (const uint8_t *) "not deflate", 11);
	refused(png.bytes, png.len, DFX_EIMAGE, "broken", "a PNG that is not deflated");
	free(png.bytes);

	png = png_begin(4, 4, 4, 2);
	png_zeros(&png, 100);
	refused(png.bytes, png.len, DFX_EIMAGE, "colour type 2 with 4 bits", "a forbidden depth");
	free(png.bytes);

	png = png_begin(4, 4, 8, 0);
	png.bytes[29] ^= 1;
	png_zeros(&png, 4 * 5);
	refused(png.bytes, png.len, DFX_EIMAGE, "checksum", "a wrong checksum of IHDR");
	free(png.bytes);

	png = png_begin(4, 4, 8, 0);
	png_chunk(&png, "tEXt", (const uint8_t *) "a\0b", 3);
	png.bytes[png.len - 1] ^= 1;
	png_zeros(&png, 4 * 5);
	refused(png.bytes, png.len, DFX_EIMAGE, "checksum",
	        "a wrong checksum of an ancillary chunk, as in Pillow");
	free(png.bytes);

	png = png_begin(4, 4, 8, 0);
	memcpy(png.bytes + png.len, "\xff\xff\xff\xf0tEXt", 8);
	png.len += 8;
	refused(png.bytes, png.len, DFX_EIMAGE, "does not end", "a chunk of 4 GB");
	free(png.bytes);
}

static void
test_extreme_shapes(void)
{
	uint8_t *dst = malloc(256 * 256 * 3);
	DfxErr err = {0};
	Png png = png_begin(1, 30000, 8, 2);
	bool zero = true;

	png_zeros(&png, 30000 * 4);
	memset(dst, 1, 256 * 256 * 3);
	ok(dfx_image_prepare(png.bytes, png.len, &defaults, 256, dst, &err) == DFX_OK, "1 x 30000 %s", err.msg);
	for (int i = 0; i < 256 * 256 * 3; i++)
		zero = zero && dst[i] == 0;
	ok(zero, "all of it written");
	free(png.bytes);
	png = png_begin(30000, 1, 8, 2);
	png_zeros(&png, 90001);
	ok(dfx_image_prepare(png.bytes, png.len, &defaults, 256, dst, &err) == DFX_OK, "30000 x 1 %s", err.msg);
	ok(dfx_image_prepare(png.bytes, png.len, &defaults, 0, dst, &err) == DFX_EINVAL &&
	       dfx_image_prepare(png.bytes, png.len, &defaults, 257, dst, &err) == DFX_EINVAL,
	   "input sizes that no network has");
	free(png.bytes);
	free(dst);
}

int
main(void)
{
	test_not_images();
	test_truncation("photo-444-q75.jpg", 100);
	test_truncation("photo-progressive.jpg", 2);
	test_truncation("jpeg-cmyk-adobe.jpg", 100);
	test_truncation("png-c2-b8.png", 12 + 4 + 50);
	test_truncation("png-c6-b16-adam7.png", 12 + 4 + 50);
	test_limits();
	test_lying_jpeg();
	test_bomb();
	test_broken_png();
	test_extreme_shapes();
	return done_testing();
}
