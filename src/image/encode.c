/*
 * encode.c
 *	  RGB pixels to JPEG and PNG, in memory (encode.h).
 *
 * Both codecs write through encode_append(), which grows the target and
 * refuses what would go beyond its limit; the codec is then left by a longjmp
 * to the only setjmp of its encoder.  What must survive the jump lives in the
 * caller's frame, as in the decoders.
 */
#include "image/encode.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs FILE */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

#define ENCODE_PIECE 65536 /* bytes that libjpeg hands over at once, and the least room */

/* Before anything is written. */
static DfxStatus
encode_check(const DfxImage *image, DfxErr *err)
{
	if (image->width == 0 || image->height == 0 || !image->pixels)
		return dfx_fail(err, DFX_EINVAL, "an empty image cannot be encoded");
	return DFX_OK;
}

static DfxStatus
encode_append(DfxEncoded *out, const uint8_t *bytes, size_t n, DfxErr *err)
{
	if (n == 0)
		return DFX_OK;
	if (n > out->limit - out->len)
		return dfx_fail(err, DFX_ELIMIT, "the encoded image takes more than %zu bytes", out->limit);
	if (n > out->room - out->len)
	{
		size_t room = out->room < ENCODE_PIECE ? ENCODE_PIECE : out->room;
		uint8_t *data;

		while (room - out->len < n && room <= out->limit / 2)
			room *= 2;
		if (room - out->len < n)
			room = out->limit;
		data = realloc(out->data, room);
		if (!data)
			return dfx_fail(err, DFX_ENOMEM, "out of memory for an encoded image of %zu bytes", out->len + n);
		out->data = data;
		out->room = room;
	}
	memcpy(out->data + out->len, bytes, n);
	out->len += n;
	return DFX_OK;
}

static DfxStatus
encode_end(DfxEncoded *out, DfxStatus status)
{
	if (status != DFX_OK)
	{
		free(out->data);
		*out = (DfxEncoded){.limit = out->limit};
	}
	return status;
}

/* ---- JPEG ---- */

typedef struct JpegWriter
{
	struct jpeg_compress_struct cinfo;
	struct jpeg_error_mgr errors;
	struct jpeg_destination_mgr target;
	jmp_buf escape;
	DfxStatus status; /* of what jumped */
	DfxEncoded *out;
	DfxErr *err;
	uint8_t piece[ENCODE_PIECE];
} JpegWriter;

static void
jpegw_on_error(j_common_ptr cinfo)
{
	JpegWriter *w = cinfo->client_data;
	char message[JMSG_LENGTH_MAX];

	w->errors.format_message(cinfo, message);
	w->status = dfx_fail(w->err, DFX_EINTERNAL, "JPEG cannot be written: %s", message);
	longjmp(w->escape, 1);
}

static void
jpegw_on_message(j_common_ptr cinfo)
{
	(void) cinfo; /* warnings and traces go nowhere */
}

static void
jpegw_hand_over(JpegWriter *w, size_t n)
{
	w->status = encode_append(w->out, w->piece, n, w->err);
	if (w->status != DFX_OK)
		longjmp(w->escape, 1);
	w->target.next_output_byte = w->piece;
	w->target.free_in_buffer = sizeof w->piece;
}

static void
jpegw_begin(j_compress_ptr cinfo)
{
	jpegw_hand_over(cinfo->client_data, 0);
}

static boolean
jpegw_full(j_compress_ptr cinfo)
{
	/* By libjpeg's contract the whole buffer, whatever free_in_buffer says. */
	jpegw_hand_over(cinfo->client_data, ENCODE_PIECE);
	return TRUE;
}

static void
jpegw_end(j_compress_ptr cinfo)
{
	JpegWriter *w = cinfo->client_data;

	jpegw_hand_over(w, sizeof w->piece - w->target.free_in_buffer);
}

/* Pillow's JpegEncode.c, with its defaults. */
static DfxStatus
jpegw_guarded(JpegWriter *w, const DfxImage *image, int quality)
{
	struct jpeg_compress_struct *c = &w->cinfo;

	if (setjmp(w->escape))
		return w->status;
	c->err = jpeg_std_error(&w->errors);
	c->client_data = w;
	w->errors.error_exit = jpegw_on_error;
	w->errors.output_message = jpegw_on_message;
	jpeg_create_compress(c);
	w->target.init_destination = jpegw_begin;
	w->target.empty_output_buffer = jpegw_full;
	w->target.term_destination = jpegw_end;
	c->dest = &w->target;

	c->image_width = image->width;
	c->image_height = image->height;
	c->input_components = 3;
	c->in_color_space = JCS_RGB;
	jpeg_set_defaults(c);
	jpeg_set_quality(c, quality, TRUE);
	c->comp_info[0].h_samp_factor = c->comp_info[0].v_samp_factor = 1;
	jpeg_start_compress(c, TRUE);
	while (c->next_scanline < c->image_height)
	{
		JSAMPROW row = image->pixels + (size_t) c->next_scanline * image->width * 3;

		jpeg_write_scanlines(c, &row, 1);
	}
	jpeg_finish_compress(c);
	return DFX_OK;
}

DfxStatus
dfx_encode_jpeg(const DfxImage *image, int quality, DfxEncoded *out, DfxErr *err)
{
	JpegWriter *w;
	DfxStatus status = encode_check(image, err);

	if (status == DFX_OK && (image->width > JPEG_MAX_DIMENSION || image->height > JPEG_MAX_DIMENSION))
		status = dfx_fail(err, DFX_ELIMIT,
		                  "image of %" PRIu32 " x %" PRIu32 " is too large for JPEG, which has %ld a side",
		                  image->width, image->height, JPEG_MAX_DIMENSION);
	if (status != DFX_OK)
		return encode_end(out, status);
	w = calloc(1, sizeof *w);
	if (!w)
		return encode_end(out, dfx_fail(err, DFX_ENOMEM, "out of memory starting to encode a JPEG"));
	w->out = out;
	w->err = err;
	status = jpegw_guarded(w, image, quality);
	jpeg_destroy_compress(&w->cinfo);
	free(w);
	return encode_end(out, status);
}

/* ---- PNG ---- */

typedef struct PngWriter
{
	png_structp png;
	png_infop info;
	DfxStatus status; /* of what jumped */
	DfxEncoded *out;
	DfxErr *err;
} PngWriter;

static void
pngw_on_error(png_structp png, png_const_charp message)
{
	PngWriter *w = png_get_error_ptr(png);

	if (w->status == DFX_OK)
		w->status = dfx_fail(w->err, DFX_EINTERNAL, "PNG cannot be written: %s", message);
	png_longjmp(png, 1);
}

static void
pngw_on_warning(png_structp png, png_const_charp message)
{
	(void) png;
	(void) message;
}

static void
pngw_on_write(png_structp png, png_bytep bytes, size_t n)
{
	PngWriter *w = png_get_io_ptr(png);

	w->status = encode_append(w->out, bytes, n, w->err);
	if (w->status != DFX_OK)
		png_error(png, "no room");
}

static void
pngw_on_flush(png_structp png)
{
	(void) png;
}

static DfxStatus
pngw_guarded(PngWriter *w, const DfxImage *image)
{
	if (setjmp(png_jmpbuf(w->png)))
		return w->status;
	png_set_write_fn(w->png, w, pngw_on_write, pngw_on_flush);
	png_set_user_limits(w->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
	png_set_compression_level(w->png, 1);
	png_set_filter(w->png, PNG_FILTER_TYPE_BASE, PNG_FILTER_SUB);
	png_set_IHDR(w->png, w->info, image->width, image->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
	             PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
	png_write_info(w->png, w->info);
	for (uint32_t y = 0; y < image->height; y++)
		png_write_row(w->png, image->pixels + (size_t) y * image->width * 3);
	png_write_end(w->png, w->info);
	return DFX_OK;
}

DfxStatus
dfx_encode_png(const DfxImage *image, DfxEncoded *out, DfxErr *err)
{
	PngWriter w = {.out = out, .err = err};
	DfxStatus status = encode_check(image, err);

	if (status != DFX_OK)
		return encode_end(out, status);
	w.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &w, pngw_on_error, pngw_on_warning);
	if (w.png)
		w.info = png_create_info_struct(w.png);
	status = w.info ? pngw_guarded(&w, image)
	                : dfx_fail(err, DFX_ENOMEM, "out of memory starting to encode a PNG");
	png_destroy_write_struct(&w.png, &w.info);
	return encode_end(out, status);
}
