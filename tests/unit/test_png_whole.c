/*
 * test_png_whole.c
 *	  Do the two ways through a PNG, libpng's and the fast one, end at the same
 *	  pixels for good files and at the same refusal for others?
 *
 * Files are made here, whole and then damaged; any bytes behind a filter byte
 * are an image.  Every file is decoded twice, and every promise of
 * png_whole.h is kept to.  In a build without libdeflate there is one way
 * only, and what is left of this is that the other is not taken.
 */
#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>

#include "image/png_whole.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/png_maker.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

#define DIRECTORY "tests/golden/images/"

static const DfxImageLimits limits = {.max_bytes = 8u << 20, .max_pixels = 1u << 24, .max_scans = 30};
static bool have_fast;

/* --- decoding, twice ------------------------------------------------------------------ */

/* Rows into one block of exactly their size, so that ASan sees any writing on. */
typedef struct Picture
{
	DfxRowSink sink;
	uint32_t width, height, rows;
	uint8_t *pixels;
} Picture;

static DfxStatus
picture_begin(DfxRowSink *sink, uint32_t width, uint32_t height, DfxErr *err)
{
	Picture *p = (Picture *) sink;

	(void) err;
	p->width = width;
	p->height = height;
	p->pixels = malloc((size_t) width * height * 3);
	return DFX_OK;
}

static uint8_t *
picture_row(DfxRowSink *sink)
{
	Picture *p = (Picture *) sink;

	return p->pixels + (size_t) p->rows * p->width * 3;
}

static void
picture_commit(DfxRowSink *sink)
{
	((Picture *) sink)->rows++;
}

/* What came of a file. */
typedef struct Outcome
{
	bool same, whole;
	DfxStatus status;
	char msg[DFX_MSG_LEN];
} Outcome;

static Outcome
both_ways(const uint8_t *bytes, size_t len)
{
	Picture slow = {.sink = {picture_begin, picture_row, picture_commit}}, fast = slow;
	DfxErr slow_err = {0}, fast_err = {0};
	uint8_t *exact = malloc(len ? len : 1);
	bool slow_whole = true;
	DfxStatus slow_status;
	Outcome o = {0};

	memcpy(exact, bytes, len);
	slow_status = dfx_png_decode_within(exact, len, &limits, 0, &slow.sink, &slow_whole, &slow_err);
	o.status = dfx_png_decode_within(exact, len, &limits, DFX_PNG_WHOLE_MAX, &fast.sink, &o.whole, &fast_err);
	o.same = slow_status == o.status && !slow_whole && strcmp(slow_err.msg, fast_err.msg) == 0 &&
	         slow.width == fast.width && slow.height == fast.height && slow.rows == fast.rows &&
	         (o.status != DFX_OK ||
	          (slow.rows == slow.height &&
	           memcmp(slow.pixels, fast.pixels, (size_t) slow.width * slow.height * 3) == 0));
	memcpy(o.msg, fast_err.msg, sizeof o.msg);
	if (!o.same)
		diag("libpng: status %d, %s, %u rows; fast: status %d, %s, %u rows", slow_status, slow_err.msg,
		     slow.rows, o.status, fast_err.msg, fast.rows);
	free(slow.pixels);
	free(fast.pixels);
	free(exact);
	return o;
}

/* A file that is decoded, by the fast way or not. */
static void
good(const Png *png, bool fast, const char *what)
{
	Outcome o = both_ways(png->bytes, png->len);

	ok(o.same && o.status == DFX_OK && o.whole == (fast && have_fast), "%s: decoded, %s %s", what,
	   fast ? "whole" : "by libpng", o.msg);
}

static void
refused(const Png *png, const char *reason, const char *what)
{
	Outcome o = both_ways(png->bytes, png->len);

	ok(o.same && o.status == DFX_EIMAGE && !o.whole && strstr(o.msg, reason), "%s: %s", what, o.msg);
}

/* --- files ------------------------------------------------------------------------------ */

typedef struct Recipe
{
	uint32_t width, height;
	uint8_t bits, colour;
	size_t piece; /* bytes of an IDAT */
	int level;
} Recipe;

static const Recipe plain = {20, 9, 8, 2, 100, 6};

static size_t
recipe_row(const Recipe *r)
{
	static const uint8_t channels[] = {[0] = 1, [2] = 3, [3] = 1, [4] = 2, [6] = 4};

	return ((size_t) r->width * channels[r->colour] * r->bits + 7) / 8 + 1;
}

/* Rows as they are before filtering is undone: n bytes more than the image has, runs and noise. */
static uint8_t *
recipe_rows(const Recipe *r, size_t more)
{
	size_t row = recipe_row(r), n = row * r->height + more;
	uint8_t *rows = malloc(n);

	for (size_t i = 0; i < n; i++)
		rows[i] = i > 0 && fuzz_below(3) == 0 ? rows[i - 1] : (uint8_t) (fuzz_next() >> (8 * fuzz_below(3)));
	for (uint32_t y = 0; y < r->height; y++)
		rows[row * y] = (uint8_t) (fuzz_below(2) ? DFX_PNG_FILTERS - 1 : fuzz_below(DFX_PNG_FILTERS));
	return rows;
}

static uint8_t *
deflated(const uint8_t *rows, size_t n, int level, size_t *len)
{
	uLongf bound = compressBound(n);
	uint8_t *stream = malloc(bound + 16);

	compress2(stream, &bound, rows, n, level);
	*len = bound;
	return stream;
}

/* Signature to PLTE. */
static Png
file_front(const Recipe *r)
{
	Png png = png_begin(r->width, r->height, r->bits, r->colour);
	uint8_t palette[200 * 3];

	for (size_t i = 0; i < sizeof palette; i++)
		palette[i] = (uint8_t) fuzz_next();
	if (r->colour == 3)
		png_chunk(&png, "PLTE", palette, sizeof palette);
	return png;
}

static void
file_stream(Png *png, const uint8_t *stream, size_t len, size_t piece)
{
	for (size_t at = 0; at < len; at += piece)
		png_chunk(png, "IDAT", stream + at, len - at < piece ? len - at : piece);
}

static Png
file_of_stream(const Recipe *r, const uint8_t *stream, size_t len)
{
	Png png = file_front(r);

	file_stream(&png, stream, len, r->piece);
	png_chunk(&png, "IEND", NULL, 0);
	return png;
}

/* rows is consumed. */
static Png
file_of_rows(const Recipe *r, uint8_t *rows, size_t n)
{
	size_t len;
	uint8_t *stream = deflated(rows, n, r->level, &len);
	Png png = file_of_stream(r, stream, len);

	free(stream);
	free(rows);
	return png;
}

static Png
file_whole(const Recipe *r)
{
	return file_of_rows(r, recipe_rows(r, 0), recipe_row(r) * r->height);
}

/* --- the filters alone -------------------------------------------------------------------- */

/* dfx_png_unfilter() against the plain loops, n rows of pixels of one size. */
static bool
filters_agree(uint32_t bpp, uint32_t width, uint32_t height)
{
	size_t n = (size_t) width * bpp, room = n + DFX_PNG_SLACK;
	uint8_t *filtered = malloc((n + 1) * height + DFX_PNG_SLACK), *buffer[4];
	uint8_t **above = &buffer[0], **plain_row = &buffer[1];
	bool agree = true;

	for (int i = 0; i < 4; i++)
		buffer[i] = calloc(1, room);
	for (size_t i = 0; i < (n + 1) * height + DFX_PNG_SLACK; i++)
		filtered[i] = (uint8_t) fuzz_next();
	for (uint32_t y = 0; y < height; y++)
		filtered[(n + 1) * y] = (uint8_t) (fuzz_below(2) ? DFX_PNG_FILTERS - 1 : fuzz_below(DFX_PNG_FILTERS));
	for (uint32_t y = 0, done; y < height; y += done)
	{
		const uint8_t *from = filtered + (n + 1) * y;
		uint8_t *const row[2] = {buffer[2], buffer[3]};

		done = dfx_png_unfilter(from, height - y, bpp, n, *above, row);
		agree = agree && done >= 1 && done <= 2 && done <= height - y;
		for (uint32_t i = 0; i < done && agree; i++)
		{
			uint8_t *swap = *above;

			dfx_png_unfilter_plain(from + (n + 1) * i, bpp, n, *above, *plain_row);
			agree = memcmp(*plain_row, row[i], n) == 0;
			*above = *plain_row;
			*plain_row = swap;
		}
	}
	free(filtered);
	for (int i = 0; i < 4; i++)
		free(buffer[i]);
	return agree;
}

static void
test_filters(void)
{
	static const uint32_t bpps[] = {1, 3, 4};

	for (int k = 0; k < 3; k++)
	{
		int disagree = 0;

		for (uint32_t width = 1; width <= 40; width++)
			for (uint32_t height = 1; height <= 12; height++)
				disagree += !filters_agree(bpps[k], width, height);
		ok(disagree == 0, "filters undone for %u bytes a pixel: %d of 480 images differ", bpps[k], disagree);
	}
}

/* --- good files ------------------------------------------------------------------------------ */

static void
test_kinds(void)
{
	static const struct
	{
		uint8_t colour, bits;
		bool fast;
	} kinds[] = {{0, 8, true},  {2, 8, true},   {3, 8, true},   {6, 8, true},  {4, 8, false},
	             {0, 4, false}, {0, 16, false}, {2, 16, false}, {3, 2, false}, {6, 16, false}};
	char what[80];

	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
		for (int i = 0; i < 12; i++)
		{
			Recipe r = {1 + (uint32_t) fuzz_below(i < 3 ? 3 : 70),
			            1 + (uint32_t) fuzz_below(i < 6 ? 3 : 40),
			            kinds[k].bits,
			            kinds[k].colour,
			            20 + fuzz_below(3000),
			            (int) fuzz_below(10)};
			Png png = file_whole(&r);

			snprintf(what, sizeof what, "colour type %u, %u bits, %u x %u, IDATs of %zu", r.colour, r.bits,
			         r.width, r.height, r.piece);
			good(&png, kinds[k].fast, what);
			free(png.bytes);
		}
}

static int
only_png(const struct dirent *entry)
{
	return strstr(entry->d_name, ".png") != NULL;
}

static void
test_golden(void)
{
	struct dirent **files;
	int n = scandir(DIRECTORY, &files, only_png, alphasort), fast = 0;

	for (int i = 0; i < n; i++)
	{
		char path[512];
		size_t len = 0;
		uint8_t *bytes;
		Outcome o = {0};

		snprintf(path, sizeof path, DIRECTORY "%s", files[i]->d_name);
		bytes = slurp(path, &len);
		if (bytes)
			o = both_ways(bytes, len);
		ok(o.same && o.status == DFX_OK, "%s %s", files[i]->d_name, o.msg);
		fast += o.whole;
		free(bytes);
		free(files[i]);
	}
	if (n >= 0)
		free(files);
	ok(n > 20 && (have_fast ? fast >= 4 && fast < n : fast == 0), "%d of %d golden files take the fast way",
	   fast, n);
}

static void
test_size_limit(void)
{
	Png png = file_whole(&plain);
	size_t size = recipe_row(&plain) * plain.height;
	Picture p = {.sink = {picture_begin, picture_row, picture_commit}};
	DfxErr err;
	bool whole;

	ok(dfx_png_decode_within(png.bytes, png.len, &limits, size, &p.sink, &whole, &err) == DFX_OK &&
	       whole == have_fast,
	   "an image of just the size that may be held whole");
	free(p.pixels);
	p.rows = 0;
	ok(dfx_png_decode_within(png.bytes, png.len, &limits, size - 1, &p.sink, &whole, &err) == DFX_OK &&
	       !whole && p.rows == plain.height,
	   "one byte more is decoded by libpng");
	free(p.pixels);
	free(png.bytes);
}

/* --- odd and broken files ------------------------------------------------------------------- */

static void
test_streams(void)
{
	size_t n = recipe_row(&plain) * plain.height, len;
	uint8_t *rows = recipe_rows(&plain, 1), *stream;
	Png png;

	stream = deflated(rows, n - 1, 6, &len);
	png = file_of_stream(&plain, stream, len);
	refused(&png, "ot enough", "a stream that is one byte short");
	free(png.bytes);
	free(stream);

	stream = deflated(rows, n + 1, 6, &len);
	png = file_of_stream(&plain, stream, len);
	good(&png, false, "a stream that is one byte long");
	free(png.bytes);
	free(stream);

	stream = deflated(rows, n, 6, &len);
	memset(stream + len, 7, 16);
	png = file_of_stream(&plain, stream, len + 16);
	good(&png, true, "bytes after the stream");
	free(png.bytes);

	/* Of a stream cut short libpng says why; how much of it there is decides where it notices. */
	for (size_t cut = 1; cut <= len; cut++)
	{
		Outcome o;

		png = file_of_stream(&plain, stream, len - cut);
		o = both_ways(png.bytes, png.len);
		if (!o.same || o.whole || o.status != DFX_EIMAGE)
			ok(false, "a stream without its last %zu bytes: %s", cut, o.msg);
		free(png.bytes);
	}
	ok(true, "a stream without its last 1 .. %zu bytes", len);

	stream[len - 1] ^= 1;
	png = file_of_stream(&plain, stream, len);
	ok(both_ways(png.bytes, png.len).same && !both_ways(png.bytes, png.len).whole,
	   "a wrong checksum of the stream");
	free(png.bytes);
	stream[len - 1] ^= 1;

	/* The first two bytes: method 8, window 2^15, no dictionary, and together a multiple of 31. */
	stream[0] = 0x08;
	stream[1] = 0x1d;
	png = file_of_stream(&plain, stream, len);
	good(&png, true, "a window announced too small");
	free(png.bytes);
	memcpy(stream, "\x78\x20", 2);
	png = file_of_stream(&plain, stream, len);
	refused(&png, "broken", "a preset dictionary");
	free(png.bytes);
	memcpy(stream, "\x88\x1c", 2);
	png = file_of_stream(&plain, stream, len);
	refused(&png, "broken", "a window of 64 kB");
	free(png.bytes);
	memcpy(stream, "\x77\x01", 2);
	png = file_of_stream(&plain, stream, len);
	refused(&png, "broken", "a method other than deflate");
	free(png.bytes);
	free(stream);
	free(rows);
}

static void
test_filter_bytes(void)
{
	static const uint8_t wrong[] = {5, 6, 128, 255};
	size_t row = recipe_row(&plain);

	for (uint32_t y = 0; y < plain.height; y++)
	{
		uint8_t *rows = recipe_rows(&plain, 0);
		char what[40];
		Png png;

		rows[y * row] = wrong[y % sizeof wrong];
		png = file_of_rows(&plain, rows, row * plain.height);
		snprintf(what, sizeof what, "filter %u in row %u", wrong[y % sizeof wrong], y);
		refused(&png, "filter", what);
		free(png.bytes);
	}
}

static void
test_chunks(void)
{
	size_t len, n = recipe_row(&plain) * plain.height;
	uint8_t *rows = recipe_rows(&plain, 0), *stream = deflated(rows, n, 6, &len);
	Png png = file_front(&plain);
	size_t idat = png.len;

	png_chunk(&png, "IDAT", NULL, 0);
	file_stream(&png, stream, len / 2, 7);
	png_chunk(&png, "IDAT", NULL, 0);
	file_stream(&png, stream + len / 2, len - len / 2, 1);
	good(&png, true, "empty IDATs, IDATs of one byte, and no IEND");
	png.bytes[idat + 8] ^= 0x55;
	good(&png, true, "a wrong checksum of an IDAT, as in Pillow");
	png.bytes[png.len++] = 0;
	good(&png, true, "a byte after the last chunk");

	png.len = idat;
	file_stream(&png, stream, len / 2, 100);
	png_chunk(&png, "tEXt", (const uint8_t *) "a\0b", 3);
	file_stream(&png, stream + len / 2, len - len / 2, 100);
	refused(&png, "ot enough", "another chunk amid the IDATs");

	png.len = idat;
	file_stream(&png, stream, len, len);
	png_chunk(&png, "tEXt", (const uint8_t *) "a\0b", 3);
	memcpy(png.bytes + png.len, "\xff\xff\xff\xffIDAT", 8);
	png.len += 8;
	good(&png, true, "rubbish after a complete stream");

	png.len = idat;
	file_stream(&png, stream, len, len);
	png_put(png.bytes + idat, 0x80000000u);
	refused(&png, "broken", "an IDAT of 2 GB");
	free(png.bytes);
	free(stream);
	free(rows);
}

static void
test_cut_anywhere(void)
{
	Png png = file_whole(&plain);
	int differ = 0, decoded = 0;

	for (size_t len = 8; len <= png.len; len++)
	{
		Outcome o = both_ways(png.bytes, len);

		differ += !o.same;
		decoded += o.status == DFX_OK;
	}
	/* Only the 12 bytes of IEND are not missed. */
	ok(differ == 0 && decoded == 13, "a file cut at each byte: %d differ, %d decoded", differ, decoded);
	free(png.bytes);
}

static void
test_mutated(size_t rounds)
{
	size_t differ = 0, decoded = 0, fast = 0;

	for (size_t i = 0; i < rounds; i++)
	{
		static const uint8_t colours[] = {0, 2, 3, 6};
		Recipe r = {1 + (uint32_t) fuzz_below(24), 1 + (uint32_t) fuzz_below(12), 8, colours[i % 4],
		            1 + fuzz_below(600),           (int) fuzz_below(10)};
		Png png = file_whole(&r);
		Outcome o;

		for (size_t changes = 1 + fuzz_below(3); changes > 0; changes--)
			fuzz_mutate(png.bytes, &png.len, png.len + 64);
		if (png.len >= 8 && memcmp(png.bytes, "\x89PNG\r\n\x1a\n", 8) == 0)
		{
			if (fuzz_below(4) > 0)
				png_repair(png.bytes, png.len);
			o = both_ways(png.bytes, png.len);
			differ += !o.same;
			decoded += o.status == DFX_OK;
			fast += o.whole;
		}
		free(png.bytes);
	}
	ok(differ == 0 && decoded > 0 && (fast > 0) == have_fast && fast < rounds,
	   "%zu files mutated: %zu decoded, %zu whole, %zu differ", rounds, decoded, fast, differ);
}

/* 48 MB as the header has it, of which a few bytes are there. */
static void
test_bomb(void)
{
	Recipe r = {4000, 4000, 8, 2, 1000, 9};
	uint8_t *rows = calloc(1000, 1);
	struct rusage before, after;
	Png png = file_of_rows(&r, rows, 1000);

	getrusage(RUSAGE_SELF, &before);
	refused(&png, "ot enough", "a large image of few bytes");
	getrusage(RUSAGE_SELF, &after);
	ok(after.ru_maxrss - before.ru_maxrss < 20000, "and it cost no memory");
	free(png.bytes);
}

int
main(void)
{
	size_t rounds = fuzz_begin();

	have_fast = strncmp(dfx_image_inflater(), "libdeflate", 10) == 0;
	diag("inflated by %s", dfx_image_inflater());
	test_bomb();
	test_filters();
	test_kinds();
	test_golden();
	test_size_limit();
	test_streams();
	test_filter_bytes();
	test_chunks();
	test_cut_anywhere();
	test_mutated(rounds * 10000);
	return done_testing();
}
