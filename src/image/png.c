/*
 * png.c
 *	  PNG by libpng, with the tolerance of Pillow's PngImagePlugin.
 *
 * libpng sees little of a hostile file.  This file walks the chunks up to the
 * first IDAT itself, verifies their checksums (Pillow does, for all of them)
 * and the limits, and then lets libpng read a signature, an IHDR and a PLTE
 * composed here from the values found, followed by the file's own bytes from
 * the first IDAT on.  So no ancillary chunk is ever stored or interpreted:
 * their size and number cost one pass of CRC, and gamma, profiles and
 * transparency cannot change pixels (Pillow's convert("RGB") ignores them).
 *
 * As in Pillow: checksums from the first IDAT on are not verified (zlib has
 * its own), nothing behind the compressed stream is read, and a palette index
 * beyond PLTE is grey of that level.  Damaged files that Pillow takes and this
 * refuses: image data that ends before the last row (Pillow leaves black) or
 * is damaged between the last row and the end of the compressed stream, and
 * IHDR methods that the PNG specification does not define.
 *
 * That is for any PNG, and for what is wrong with it.  The common kind, as long
 * as nothing is wrong, is decoded faster by png_whole.c, which is tried first.
 *
 * A libpng error longjmps to png_guarded(), the only setjmp; what must survive
 * it lives in the PngReader of the caller's frame.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>
#include <zlib.h>

#include "image/png_whole.h"

/* Signature, IHDR and PLTE as libpng gets them. */
#define PNG_SYNTHETIC_MAX (8 + 25 + 12 + 256 * 3)

typedef struct PngReader
{
	png_structp png;
	png_infop info;
	const uint8_t *bytes;
	size_t len, pos; /* of the file; pos begins at the first IDAT */
	uint8_t front[PNG_SYNTHETIC_MAX];
	size_t front_len, front_pos;
	char message[128]; /* of the libpng error that jumped */
	bool truncated, no_memory;
	const DfxPngHead *head;
	DfxRowSink *sink;
	uint8_t *pixels; /* the whole image, if it is interlaced */
	DfxErr *err;
} PngReader;

static void
png_put_u32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t) (v >> 24);
	p[1] = (uint8_t) (v >> 16);
	p[2] = (uint8_t) (v >> 8);
	p[3] = (uint8_t) v;
}

/* --- the walk to the first IDAT ------------------------------------------------ */

static uint32_t
png_channels(uint8_t colour)
{
	switch (colour)
	{
		case PNG_COLOR_TYPE_RGB:
			return 3;
		case PNG_COLOR_TYPE_GRAY_ALPHA:
			return 2;
		case PNG_COLOR_TYPE_RGB_ALPHA:
			return 4;
		default:
			return 1;
	}
}

/* The combinations of table 11.1 of the PNG specification. */
static bool
png_depth_allowed(uint8_t colour, uint8_t bits)
{
	switch (colour)
	{
		case PNG_COLOR_TYPE_GRAY:
			return bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16;
		case PNG_COLOR_TYPE_PALETTE:
			return bits == 1 || bits == 2 || bits == 4 || bits == 8;
		case PNG_COLOR_TYPE_RGB:
		case PNG_COLOR_TYPE_GRAY_ALPHA:
		case PNG_COLOR_TYPE_RGB_ALPHA:
			return bits == 8 || bits == 16;
		default:
			return false;
	}
}

static DfxStatus
png_take_ihdr(const uint8_t *data, uint32_t len, const DfxImageLimits *limits, DfxPngHead *head, DfxErr *err)
{
	if (len != 13)
		return dfx_fail(err, DFX_EIMAGE, "PNG is broken: IHDR has %" PRIu32 " bytes instead of 13", len);
	head->width = dfx_png_u32(data);
	head->height = dfx_png_u32(data + 4);
	head->bits = data[8];
	head->colour = data[9];
	head->interlace = data[12];
	if (!png_depth_allowed(head->colour, head->bits))
		return dfx_fail(err, DFX_EIMAGE, "PNG is broken: no colour type %u with %u bits exists", head->colour,
		                head->bits);
	if (data[10] != 0 || data[11] != 0 || head->interlace > 1)
		return dfx_fail(err, DFX_EIMAGE, "PNG is broken: unknown compression, filter or interlace method");
	return dfx_codec_check_size(head->width, head->height, limits, err);
}

static void
png_take_plte(const uint8_t *data, uint32_t len, DfxPngHead *head)
{
	size_t entries = len / 3 < 256 ? len / 3 : 256;

	memcpy(head->palette, data, entries * 3);
}

static DfxStatus
png_walk(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, DfxPngHead *head, DfxErr *err)
{
	size_t pos = 8; /* the signature was sniffed */
	bool have_ihdr = false;

	for (int i = 0; i < 256; i++)
		memset(head->palette + 3 * i, i, 3);
	for (;;)
	{
		const uint8_t *chunk = bytes + pos;
		size_t left = len - pos;
		uint32_t size;
		DfxStatus status = DFX_OK;

		if (left < 8)
			return dfx_fail(err, DFX_EIMAGE, "PNG is truncated: it ends before its image data");
		size = dfx_png_u32(chunk);
		if (memcmp(chunk + 4, "IDAT", 4) == 0)
		{
			head->idat = pos;
			return have_ihdr ? DFX_OK : dfx_fail(err, DFX_EIMAGE, "PNG is broken: IDAT before IHDR");
		}
		if (left - 8 < 4 || size > left - 12)
			return dfx_fail(err, DFX_EIMAGE, "PNG is truncated: the chunk at byte %zu does not end", pos);
		if (crc32(crc32(0, NULL, 0), chunk + 4, size + 4) != dfx_png_u32(chunk + 8 + size))
			return dfx_fail(err, DFX_EIMAGE, "PNG is broken: the chunk at byte %zu fails its checksum", pos);
		if (memcmp(chunk + 4, "IHDR", 4) == 0 && !have_ihdr)
		{
			status = png_take_ihdr(chunk + 8, size, limits, head, err);
			have_ihdr = true;
		}
		else if (!have_ihdr)
			status = dfx_fail(err, DFX_EIMAGE, "PNG is broken: it does not begin with IHDR");
		else if (memcmp(chunk + 4, "PLTE", 4) == 0)
			png_take_plte(chunk + 8, size, head);
		else if (memcmp(chunk + 4, "IEND", 4) == 0)
			status = dfx_fail(err, DFX_EIMAGE, "PNG is broken: it has no image data");
		if (status != DFX_OK)
			return status;
		pos += 12 + (size_t) size;
	}
}

/* --- what libpng calls ------------------------------------------------------------ */

static void
png_on_error(png_structp png, png_const_charp message)
{
	PngReader *r = png_get_error_ptr(png);

	strncpy(r->message, message, sizeof r->message - 1);
	png_longjmp(png, 1);
}

static void
png_on_warning(png_structp png, png_const_charp message)
{
	(void) png;
	(void) message;
}

static png_voidp
png_on_malloc(png_structp png, png_alloc_size_t size)
{
	PngReader *r = png_get_mem_ptr(png);
	void *p = malloc(size);

	if (!p)
		r->no_memory = true;
	return p;
}

static void
png_on_free(png_structp png, png_voidp p)
{
	(void) png;
	free(p);
}

static void
png_on_read(png_structp png, png_bytep to, size_t n)
{
	PngReader *r = png_get_io_ptr(png);

	if (r->front_pos < r->front_len)
	{
		/* libpng asks for whole fields, so a request never spans the seam; if it did, it would fail here. */
		if (n > r->front_len - r->front_pos)
			png_error(png, "request across the composed header");
		memcpy(to, r->front + r->front_pos, n);
		r->front_pos += n;
		return;
	}
	if (n > r->len - r->pos)
	{
		r->truncated = true;
		png_error(png, "truncated");
	}
	memcpy(to, r->bytes + r->pos, n);
	r->pos += n;
}

/* --- decoding ------------------------------------------------------------------------ */

static uint8_t *
png_put_chunk(uint8_t *p, const char *name, const uint8_t *data, uint32_t len)
{
	png_put_u32(p, len);
	memcpy(p + 4, name, 4);
	memcpy(p + 8, data, len);
	png_put_u32(p + 8 + len, (uint32_t) crc32(crc32(0, NULL, 0), p + 4, len + 4));
	return p + 12 + len;
}

static void
png_compose_front(PngReader *r)
{
	const DfxPngHead *head = r->head;
	uint8_t ihdr[13] = {0};
	uint8_t *p = r->front + 8;

	memcpy(r->front, r->bytes, 8);
	png_put_u32(ihdr, head->width);
	png_put_u32(ihdr + 4, head->height);
	ihdr[8] = head->bits;
	ihdr[9] = head->colour;
	ihdr[12] = head->interlace;
	p = png_put_chunk(p, "IHDR", ihdr, sizeof ihdr);
	if (head->colour == PNG_COLOR_TYPE_PALETTE)
		p = png_put_chunk(p, "PLTE", head->palette, 3u << head->bits);
	r->front_len = (size_t) (p - r->front);
}

static void
png_configure(PngReader *r)
{
	/* The size was checked, and no chunk but IDAT can need memory: libpng's own limits are not ours. */
	png_set_user_limits(r->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
	png_set_chunk_malloc_max(r->png, 0);
	png_set_crc_action(r->png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
	/* Encoders exist that announce too small a window; zlib's inflateInit() accepts them. */
	png_set_option(r->png, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);
}

/* Everything to 8-bit RGB; returns the number of passes. */
static int
png_transform(PngReader *r)
{
	const DfxPngHead *head = r->head;
	int passes;

	if (head->bits == 16)
		png_set_strip_16(r->png); /* the high byte */
	if (head->colour == PNG_COLOR_TYPE_PALETTE)
		png_set_palette_to_rgb(r->png);
	if (head->colour == PNG_COLOR_TYPE_GRAY && head->bits < 8)
		png_set_expand_gray_1_2_4_to_8(r->png);
	if (!(head->colour & PNG_COLOR_MASK_COLOR))
		png_set_gray_to_rgb(r->png);
	if (head->colour & PNG_COLOR_MASK_ALPHA)
		png_set_strip_alpha(r->png);
	passes = png_set_interlace_handling(r->png);
	png_read_update_info(r->png, r->info);
	return passes;
}

/* Rows of an interlaced image are complete only after the last pass. */
static DfxStatus
png_read_interlaced(PngReader *r, int passes, size_t stride)
{
	uint32_t height = r->head->height;

	r->pixels = malloc(stride * height);
	if (!r->pixels)
		return dfx_fail(r->err, DFX_ENOMEM,
		                "out of memory for an interlaced PNG of %" PRIu32 " x %" PRIu32 " pixels",
		                r->head->width, height);
	for (int pass = 0; pass < passes; pass++)
		for (uint32_t y = 0; y < height; y++)
			png_read_row(r->png, r->pixels + y * stride, NULL);
	for (uint32_t y = 0; y < height; y++)
	{
		memcpy(r->sink->row(r->sink), r->pixels + y * stride, stride);
		r->sink->commit(r->sink);
	}
	return DFX_OK;
}

static DfxStatus
png_read_image_rows(PngReader *r)
{
	size_t stride = (size_t) r->head->width * 3;
	int passes;

	png_configure(r);
	png_set_read_fn(r->png, r, png_on_read);
	png_read_info(r->png, r->info);
	passes = png_transform(r);
	if (png_get_rowbytes(r->png, r->info) != stride)
		return dfx_fail(r->err, DFX_EINTERNAL, "PNG rows of %zu bytes where %zu were expected",
		                png_get_rowbytes(r->png, r->info), stride);
	if (passes > 1)
		return png_read_interlaced(r, passes, stride);
	for (uint32_t y = 0; y < r->head->height; y++)
	{
		png_read_row(r->png, r->sink->row(r->sink), NULL);
		r->sink->commit(r->sink);
	}
	return DFX_OK;
}

static DfxStatus
png_failure(PngReader *r)
{
	if (r->no_memory)
		return dfx_fail(r->err, DFX_ENOMEM,
		                "out of memory decoding a PNG of %" PRIu32 " x %" PRIu32 " pixels", r->head->width,
		                r->head->height);
	if (r->truncated)
		return dfx_fail(r->err, DFX_EIMAGE,
		                "PNG is truncated: the file ends at byte %zu, inside its image data", r->len);
	return dfx_fail(r->err, DFX_EIMAGE, "PNG is broken: %s", r->message);
}

static DfxStatus
png_guarded(PngReader *r)
{
	if (setjmp(png_jmpbuf(r->png)))
		return png_failure(r);
	return png_read_image_rows(r);
}

DfxStatus
dfx_png_info(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, DfxImageInfo *info, DfxErr *err)
{
	DfxPngHead head = {0};
	DfxStatus status = png_walk(bytes, len, limits, &head, err);

	if (status == DFX_OK)
		*info = (DfxImageInfo){
		    .format = DFX_FORMAT_PNG,
		    .width = head.width,
		    .height = head.height,
		    .channels = png_channels(head.colour),
		    .bits = head.bits,
		};
	return status;
}

/* By libpng, once the sink knows the size. */
static DfxStatus
png_decode_rows(const DfxPngHead *head, const uint8_t *bytes, size_t len, DfxRowSink *sink, DfxErr *err)
{
	PngReader r = {.bytes = bytes, .len = len, .pos = head->idat, .head = head, .sink = sink, .err = err};
	DfxStatus status;

	png_compose_front(&r);
	r.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &r, png_on_error, png_on_warning, &r,
	                                 png_on_malloc, png_on_free);
	if (r.png)
		r.info = png_create_info_struct(r.png);
	if (r.info)
		status = png_guarded(&r);
	else
		status = dfx_fail(err, DFX_ENOMEM, "out of memory starting to decode a PNG");
	png_destroy_read_struct(&r.png, &r.info, NULL);
	free(r.pixels);
	return status;
}

DfxStatus
dfx_png_decode_within(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, size_t whole_max,
                      DfxRowSink *sink, bool *whole, DfxErr *err)
{
	DfxPngHead head = {0};
	DfxStatus status = png_walk(bytes, len, limits, &head, err);

	*whole = false;
	if (status == DFX_OK)
		status = sink->begin(sink, head.width, head.height, err);
	if (status == DFX_OK)
		*whole = dfx_png_whole(&head, bytes, len, whole_max, sink);
	return status != DFX_OK || *whole ? status : png_decode_rows(&head, bytes, len, sink, err);
}

DfxStatus
dfx_png_decode(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, DfxRowSink *sink, DfxErr *err)
{
	bool whole;

	return dfx_png_decode_within(bytes, len, limits, DFX_PNG_WHOLE_MAX, sink, &whole, err);
}
