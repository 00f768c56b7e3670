/*
 * test_fast_decode.c
 *	  Is fast decoding close to exact decoding for large JPEGs of every kind,
 *	  the same for everything else, and of the same mind about broken files?
 *
 * Large files are made here of a golden photograph, enlarged and grained: the
 * more detail there is, the further apart the two ways are.  Runs from the
 * top of the tree.
 */
#include <stdio.h> /* jpeglib.h needs FILE */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "image/encode.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

#define INPUT_BYTES ((size_t) DFX_RESIZE_SIDE * DFX_RESIZE_SIDE * 3)

/* What README and docs/PERFORMANCE.md promise: levels of 255, on average over an image. */
#define MEAN_BOUND 2.0

static const DfxImageLimits limits = DFX_DEFAULT_LIMITS;

/* The photograph at that size, with noise of a few levels. */
static DfxImage
photo(uint32_t width, uint32_t height)
{
	DfxImage small = {0}, large = {width, height, malloc((size_t) width * height * 3)};
	size_t len = 0;
	uint8_t *bytes = slurp("tests/golden/images/photo-420-q90.jpg", &len);
	DfxErr err = {.msg = "no such file"};

	if (!bytes || dfx_image_decode(bytes, len, &limits, &small, &err) != DFX_OK ||
	    dfx_image_resize(&small, width, height, large.pixels, &err) != DFX_OK)
	{
		ok(false, "the golden photograph can be read: %s", err.msg);
		exit(done_testing());
	}
	for (size_t i = 0; i < (size_t) width * height * 3; i++)
	{
		int v = large.pixels[i] + (int) fuzz_below(9) - 4;

		large.pixels[i] = (uint8_t) (v < 0 ? 0 : v > 255 ? 255 : v);
	}
	free(bytes);
	dfx_image_free(&small);
	return large;
}

typedef struct Jpeg
{
	unsigned char *bytes;
	unsigned long len;
} Jpeg;

typedef enum JpegKind
{
	BASELINE, /* 4:2:0 */
	FULL_CHROMA,
	PROGRESSIVE,
	GREY,
	CMYK,
	KINDS
} JpegKind;

static const char *const kind_name[KINDS] = {"baseline", "4:4:4", "progressive", "grey", "CMYK"};

/* image as a JPEG of quality 90; as CMYK its red, green and blue, and no black. */
static Jpeg
encoded(const DfxImage *image, JpegKind kind)
{
	int channels = kind == GREY ? 1 : kind == CMYK ? 4 : 3;
	struct jpeg_compress_struct c;
	struct jpeg_error_mgr errors;
	uint8_t *row = malloc((size_t) image->width * 4);
	Jpeg j = {0};

	c.err = jpeg_std_error(&errors);
	jpeg_create_compress(&c);
	jpeg_mem_dest(&c, &j.bytes, &j.len);
	c.image_width = image->width;
	c.image_height = image->height;
	c.input_components = channels;
	c.in_color_space = kind == GREY ? JCS_GRAYSCALE : kind == CMYK ? JCS_CMYK : JCS_RGB;
	jpeg_set_defaults(&c);
	jpeg_set_quality(&c, 90, TRUE);
	if (kind == FULL_CHROMA)
		c.comp_info[0].h_samp_factor = c.comp_info[0].v_samp_factor = 1;
	if (kind == PROGRESSIVE)
		jpeg_simple_progression(&c);
	jpeg_start_compress(&c, TRUE);
	for (uint32_t y = 0; y < image->height; y++)
	{
		const uint8_t *rgb = image->pixels + (size_t) y * image->width * 3;

		for (uint32_t x = 0; x < image->width; x++, rgb += 3)
		{
			memcpy(row + (size_t) x * (size_t) channels, rgb, channels == 1 ? 1 : 3);
			if (channels == 4)
				row[4 * (size_t) x + 3] = 255;
		}
		jpeg_write_scanlines(&c, &row, 1);
	}
	jpeg_finish_compress(&c);
	jpeg_destroy_compress(&c);
	free(row);
	return j;
}

static Jpeg
photo_jpeg(uint32_t width, uint32_t height, JpegKind kind)
{
	DfxImage image = photo(width, height);
	Jpeg j = encoded(&image, kind);

	dfx_image_free(&image);
	return j;
}

/* Mean difference of the two ways; negative when either fails. */
static double
difference(const uint8_t *bytes, size_t len)
{
	uint8_t *exact = malloc(INPUT_BYTES), *fast = malloc(INPUT_BYTES);
	DfxErr err;
	double sum = 0;

	if (dfx_image_prepare(bytes, len, &limits, DFX_RESIZE_SIDE, exact, &err) != DFX_OK ||
	    dfx_image_prepare_fast(bytes, len, &limits, DFX_RESIZE_SIDE, fast, &err) != DFX_OK)
	{
		diag("%s", err.msg);
		sum = -1.0 * INPUT_BYTES;
	}
	for (size_t i = 0; i < INPUT_BYTES && sum >= 0; i++)
		sum += abs(exact[i] - fast[i]);
	free(exact);
	free(fast);
	return sum / INPUT_BYTES;
}

static void
test_kinds(void)
{
	DfxImage image = photo(1100, 1300);

	for (JpegKind kind = BASELINE; kind < KINDS; kind++)
	{
		Jpeg j = encoded(&image, kind);
		double d = difference(j.bytes, j.len);

		ok(d > 0 && d < MEAN_BOUND, "%s: another image, by %.3f levels on average", kind_name[kind], d);
		free(j.bytes);
	}
	dfx_image_free(&image);
}

/* Halves are taken as long as both sides stay at 512. */
static void
test_sizes(void)
{
	static const struct
	{
		uint32_t width, height;
		bool differs;
	} sizes[] = {{1023, 1500, false}, {1500, 1023, false}, {512, 512, false},
	             {3000, 900, false},  {1024, 1024, true},  {1025, 2049, true},
	             {2048, 2048, true},  {4097, 4100, true},  {6000, 4000, true}};

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
	{
		Jpeg j = photo_jpeg(sizes[i].width, sizes[i].height, BASELINE);
		double d = difference(j.bytes, j.len);

		ok((sizes[i].differs ? d > 0 : d == 0) && d < MEAN_BOUND, "%u x %u: %.3f levels", sizes[i].width,
		   sizes[i].height, d);
		free(j.bytes);
	}
}

static void
test_cropped(void)
{
	Jpeg j = photo_jpeg(1200, 1100, BASELINE);
	uint8_t *whole = malloc(INPUT_BYTES), *crop = malloc((size_t) 224 * 224 * 3);
	DfxErr err = {.msg = ""};
	bool same = dfx_image_prepare_fast(j.bytes, j.len, &limits, DFX_RESIZE_SIDE, whole, &err) == DFX_OK &&
	            dfx_image_prepare_fast(j.bytes, j.len, &limits, 224, crop, &err) == DFX_OK;

	for (size_t y = 0; y < 224 && same; y++)
		same = memcmp(crop + y * 224 * 3, whole + ((y + 16) * 256 + 16) * 3, (size_t) 224 * 3) == 0;
	ok(same, "an input of 224 is the middle of that of 256 %s", err.msg);
	free(j.bytes);
	free(whole);
	free(crop);
}

static void
test_png(void)
{
	DfxEncoded png = {.limit = 32u << 20};
	DfxImage image = photo(1100, 1300);
	DfxErr err = {.msg = ""};

	ok(dfx_encode_png(&image, &png, &err) == DFX_OK && difference(png.data, png.len) == 0,
	   "PNG is not affected %s", err.msg);
	dfx_image_free(&image);
	free(png.data);
}

/* Do both ways refuse, or both not, with the same words? */
static bool
same_verdict(const uint8_t *bytes, size_t len, const DfxImageLimits *within, DfxErr *fast_err)
{
	static uint8_t pixels[DFX_RESIZE_SIDE * DFX_RESIZE_SIDE * 3];
	uint8_t *copy = malloc(len ? len : 1);
	DfxErr err = {0};
	DfxStatus exact, fast;

	memcpy(copy, bytes, len);
	*fast_err = (DfxErr){0};
	exact = dfx_image_prepare(copy, len, within, DFX_RESIZE_SIDE, pixels, &err);
	fast = dfx_image_prepare_fast(copy, len, within, DFX_RESIZE_SIDE, pixels, fast_err);
	free(copy);
	if (exact != fast)
		diag("exact: %d %s; fast: %d %s", exact, err.msg, fast, fast_err->msg);
	return exact == fast;
}

static void
test_broken(size_t rounds)
{
	DfxImageLimits tight = limits;
	DfxErr err;

	for (JpegKind kind = BASELINE; kind < KINDS; kind++)
	{
		Jpeg j = photo_jpeg(1040, 1030, kind);
		size_t differ = 0;

		for (size_t part = 1; part < 16; part++)
			differ += !same_verdict(j.bytes, j.len * part / 16, &limits, &err) || err.code != DFX_EIMAGE;
		ok(differ == 0, "%s: cut at each sixteenth: %s", kind_name[kind], err.msg);
		tight.max_pixels = 1040 * 1030 - 1;
		ok(same_verdict(j.bytes, j.len, &tight, &err) && err.code == DFX_ELIMIT,
		   "%s: the limit is for the size of the file: %s", kind_name[kind], err.msg);

		differ = 0;
		for (size_t i = 0; i < rounds; i++)
		{
			size_t n = j.len, cap = j.len + 64, head = 600;
			uint8_t *copy = malloc(cap);

			memcpy(copy, j.bytes, n);
			for (int change = 0; change < 3; change++)
				fuzz_mutate(copy, &n, cap);
			fuzz_mutate(copy, &head, head); /* the tables, where little is concealed */
			differ += !same_verdict(copy, n, &limits, &err);
			free(copy);
		}
		ok(differ == 0, "%s: mutated %zu times, %zu verdicts differ", kind_name[kind], rounds, differ);
		free(j.bytes);
	}
}

int
main(void)
{
	size_t rounds = fuzz_begin();

	test_kinds();
	test_sizes();
	test_cropped();
	test_png();
	test_broken(rounds * 20);
	return done_testing();
}
