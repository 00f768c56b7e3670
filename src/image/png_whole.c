/*
 * png_whole.c
 *	  A common PNG by libdeflate: inflated whole, then unfiltered row by row.
 *
 * libdeflate inflates twice as fast as zlib because it has all of its input
 * and room for all of its output.  Common is a PNG of 8 bits, not interlaced,
 * grey, RGB, RGBA or of a palette.
 *
 * Nothing is decided here about broken files: whatever is not in order makes
 * dfx_png_whole() return false, and libpng goes over the file and says what is
 * wrong with it, or that it does not mind.  So that there can be no difference,
 * a file is taken only if each IDAT chunk that is looked at is whole, the
 * deflate stream, its checksum included, is sound and gives the image to the
 * byte, and every filter exists.  libdeflate overlooks a few ill-formed
 * Huffman codes that zlib refuses (incomplete ones, reserved symbols): no
 * encoder writes those, and damage does not leave the checksum right.
 */
#include "image/png_whole.h"

#ifdef DFX_LIBDEFLATE

#include <stdlib.h>
#include <string.h>

#include <libdeflate.h>

typedef struct Whole
{
	const DfxPngHead *head;
	uint32_t bpp;  /* bytes a pixel */
	size_t stride; /* of a row, without its filter byte */
	const uint8_t *stream;
	size_t stream_len;
	uint8_t *joined;     /* the stream, if it lies in several chunks */
	uint8_t *filtered;   /* all rows, as inflated */
	uint8_t *rows;       /* three of them */
	uint8_t rgb[256][4]; /* what a pixel of one byte means */
	DfxRowSink *sink;
} Whole;

/* Bytes a pixel of a common PNG; 0 for others.  Colour types as in the specification, table 11.1. */
static uint32_t
whole_bpp(const DfxPngHead *head)
{
	if (head->bits != 8 || head->interlace != 0)
		return 0;
	switch (head->colour)
	{
		case 0: /* grey */
		case 3: /* palette */
			return 1;
		case 2:
			return 3;
		case 6:
			return 4;
		default:
			return 0;
	}
}

/* The IDAT at *pos: its data and their length; moves *pos behind it.  False when there is no whole one. */
static bool
whole_next_chunk(const uint8_t *bytes, size_t len, size_t *pos, const uint8_t **data, size_t *size)
{
	const uint8_t *chunk = bytes + *pos;
	size_t left = len - *pos;

	*size = left < 12 ? 0 : dfx_png_u32(chunk);
	if (left < 12 || memcmp(chunk + 4, "IDAT", 4) != 0 || *size > left - 12)
		return false;
	*data = chunk + 8;
	*pos += 12 + *size;
	return true;
}

/*
 * The stream in one piece.  The file may lie in the ring, where others could
 * change it meanwhile: what the second look finds must fit the first.
 */
static bool
whole_join(Whole *w, const uint8_t *bytes, size_t len)
{
	const uint8_t *data;
	size_t size, pos = w->head->idat, nchunk = 0, at = 0;

	for (; whole_next_chunk(bytes, len, &pos, &data, &size); nchunk++)
	{
		w->stream = data;
		w->stream_len += size;
	}
	if (nchunk < 2)
		return nchunk == 1;
	w->stream = w->joined = malloc(w->stream_len + 1);
	if (!w->joined)
		return false;
	for (pos = w->head->idat; whole_next_chunk(bytes, len, &pos, &data, &size) && size <= w->stream_len - at;
	     at += size)
		memcpy(w->joined + at, data, size);
	return at == w->stream_len;
}

/* Inflate; true when it is exactly the image. */
static bool
whole_inflate(Whole *w)
{
	size_t row = w->stride + 1, want = row * w->head->height, used, got = 0;
	struct libdeflate_decompressor *d = libdeflate_alloc_decompressor();
	bool good = d && libdeflate_zlib_decompress_ex(d, w->stream, w->stream_len, w->filtered, want, &used,
	                                               &got) == LIBDEFLATE_SUCCESS;

	libdeflate_free_decompressor(d);
	if (!good || got != want)
		return false;
	for (size_t at = 0; at < want; at += row)
		if (w->filtered[at] >= DFX_PNG_FILTERS)
			return false;
	return true;
}

static void
whole_table(Whole *w)
{
	for (int i = 0; i < 256; i++)
		if (w->head->colour == 0)
			memset(w->rgb[i], i, 3);
		else
			memcpy(w->rgb[i], w->head->palette + 3 * i, 3);
}

/* A row's pixels to RGB.  Four bytes are written for each but the last, which has no room for the fourth. */
static void
whole_emit(Whole *w, const uint8_t *row)
{
	uint8_t *to = w->sink->row(w->sink);
	size_t last = w->head->width - 1;

	if (w->bpp == 3)
		memcpy(to, row, w->stride);
	else if (w->bpp == 4)
	{
		for (size_t i = 0; i < last; i++)
			memcpy(to + 3 * i, row + 4 * i, 4);
		memcpy(to + 3 * last, row + 4 * last, 3);
	}
	else
	{
		for (size_t i = 0; i < last; i++)
			memcpy(to + 3 * i, w->rgb[row[i]], 4);
		memcpy(to + 3 * last, w->rgb[row[last]], 3);
	}
	w->sink->commit(w->sink);
}

static void
whole_rows(Whole *w)
{
	size_t room = w->stride + DFX_PNG_SLACK;
	uint8_t *above = w->rows, *row[2] = {above + room, above + 2 * room};
	uint32_t n;

	for (uint32_t y = 0; y < w->head->height; y += n)
	{
		uint8_t *spare = above;

		n = dfx_png_unfilter(w->filtered + (w->stride + 1) * y, w->head->height - y, w->bpp, w->stride, above,
		                     row);
		for (uint32_t i = 0; i < n; i++)
			whole_emit(w, row[i]);
		above = row[n - 1];
		row[n - 1] = spare;
	}
}

const char *
dfx_image_inflater(void)
{
	return "libdeflate " LIBDEFLATE_VERSION_STRING;
}

bool
dfx_png_whole(const DfxPngHead *head, const uint8_t *bytes, size_t len, size_t max, DfxRowSink *sink)
{
	Whole w = {.head = head, .bpp = whole_bpp(head), .sink = sink};
	size_t size;
	bool done = false;

	w.stride = (size_t) head->width * w.bpp;
	size = (w.stride + 1) * head->height; /* cannot overflow: sides and pixels were checked */
	if (w.bpp == 0 || size > max || !whole_join(&w, bytes, len))
	{
		free(w.joined);
		return false;
	}
	w.filtered = malloc(size + DFX_PNG_SLACK);
	w.rows = calloc(3, w.stride + DFX_PNG_SLACK);
	if (w.filtered && w.rows && whole_inflate(&w))
	{
		whole_table(&w);
		whole_rows(&w);
		done = true;
	}
	free(w.joined);
	free(w.filtered);
	free(w.rows);
	return done;
}

#else

#include <zlib.h>

const char *
dfx_image_inflater(void)
{
	return "zlib " ZLIB_VERSION;
}

bool
dfx_png_whole(const DfxPngHead *head, const uint8_t *bytes, size_t len, size_t max, DfxRowSink *sink)
{
	(void) head, (void) bytes, (void) len, (void) max, (void) sink;
	return false;
}

#endif
