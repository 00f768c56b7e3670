/*
 * png_whole.h
 *	  The fast way through a common PNG; private to src/image and its tests.
 *
 * libpng's way is the one that knows every PNG and says what is wrong with a
 * broken one.  This one only ever says yes or no: yes, and the rows are those
 * that libpng would have given; no, and nothing has happened.
 */
#ifndef DFX_IMAGE_PNG_WHOLE_H
#define DFX_IMAGE_PNG_WHOLE_H

#include "image/codec.h"

/* What png.c found before the image data. */
typedef struct DfxPngHead
{
	uint32_t width, height;
	uint8_t bits, colour, interlace;
	uint8_t palette[256 * 3];
	size_t idat; /* offset of the first IDAT's length field */
} DfxPngHead;

/* A larger image is left to libpng, which needs two rows at a time: bytes after inflating. */
#define DFX_PNG_WHOLE_MAX ((size_t) 64 << 20)

/*
 * Give all rows to sink, whose begin() was called, and return true; or return
 * false before the first one: the image is not of the common kind, is larger
 * than max bytes, is damaged in any way, or there is no memory for it.
 * Always false in a build without libdeflate.
 */
extern bool
dfx_png_whole(const DfxPngHead *head, const uint8_t *bytes, size_t len, size_t max, DfxRowSink *sink);

/*
 * dfx_png_decode() with a maximum of the caller's choice, 0 for libpng alone
 * (png.c); *whole: the rows came from dfx_png_whole().
 */
extern DfxStatus dfx_png_decode_within(const uint8_t *bytes, size_t len, const DfxImageLimits *limits,
                                       size_t whole_max, DfxRowSink *sink, bool *whole, DfxErr *err);

/* A number as PNG writes them. */
static inline uint32_t
dfx_png_u32(const uint8_t *p)
{
	return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16 | (uint32_t) p[2] << 8 | p[3];
}

/* --- filters (png_unfilter.c) ------------------------------------------------ */

#define DFX_PNG_FILTERS 5

/* Bytes after a row that unfiltering may read, or write over. */
#define DFX_PNG_SLACK 4

/*
 * Undo the filter of one row, or of the first two of left rows where that is
 * faster; returns how many.  filtered: rows of a filter byte, below
 * DFX_PNG_FILTERS, and n bytes; above: the row over the first, zeroes if there
 * is none; row: room for two rows.  All of them have DFX_PNG_SLACK.
 * bpp: bytes a pixel, 1, 3 or 4.
 */
extern uint32_t dfx_png_unfilter(const uint8_t *filtered, uint32_t left, uint32_t bpp, size_t n,
                                 const uint8_t *above, uint8_t *const row[2]);

/* The plain loops, which are the specification's; the oracle of the others. */
extern void
dfx_png_unfilter_plain(const uint8_t *filtered, uint32_t bpp, size_t n, const uint8_t *above, uint8_t *row);

#endif /* DFX_IMAGE_PNG_WHOLE_H */
