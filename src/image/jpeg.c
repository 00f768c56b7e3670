/*
 * jpeg.c
 *	  JPEG by libjpeg-turbo, with the settings and the tolerance of Pillow's
 *	  JpegDecode.c, so that pixels and refusals are the same.
 *
 * The whole input is in memory, but the source manager suspends at its end as
 * Pillow's does, instead of inventing an end marker: libjpeg then says by
 * itself whether it could finish, and what it could not finish is truncated.
 * Its warnings (corrupt data it knows how to conceal) are ignored.
 *
 * A libjpeg error longjmps to jpeg_guarded(), the only setjmp.  Everything
 * that must survive the jump lives in the JpegReader of the caller's frame,
 * so no local needs to be volatile and every exit frees the same things.
 *
 * Memory: a few rows; for multi-scan files libjpeg keeps the
 * coefficients, two bytes a sample, capped by max_memory_to_use.  Markers
 * (APPn, COM) are skipped, never stored.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs FILE */
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "image/codec.h"

typedef struct JpegReader
{
	struct jpeg_decompress_struct cinfo;
	struct jpeg_error_mgr errors;
	struct jpeg_source_mgr source;
	struct jpeg_progress_mgr progress;
	jmp_buf escape;
	char message[JMSG_LENGTH_MAX]; /* of the libjpeg error that jumped */
	bool over_scans;
	const DfxImageLimits *limits;
	uint32_t enough;  /* sides that may be reduced to this, 0: none */
	DfxRowSink *sink; /* NULL to read the header only */
	uint8_t *row;     /* one row of CMYK */
	DfxErr *err;
} JpegReader;

/* --- what libjpeg calls --------------------------------------------------- */

static void
jpeg_on_error(j_common_ptr cinfo)
{
	JpegReader *r = cinfo->client_data;

	r->errors.format_message(cinfo, r->message);
	longjmp(r->escape, 1);
}

static void
jpeg_on_message(j_common_ptr cinfo)
{
	(void) cinfo; /* warnings and traces go nowhere */
}

static void
jpeg_source_nothing(j_decompress_ptr cinfo)
{
	(void) cinfo;
}

static boolean
jpeg_source_fill(j_decompress_ptr cinfo)
{
	(void) cinfo;
	return FALSE; /* suspend: there is no more */
}

static void
jpeg_source_skip(j_decompress_ptr cinfo, long n)
{
	struct jpeg_source_mgr *s = cinfo->src;
	size_t skip = n > 0 ? (size_t) n : 0;

	if (skip > s->bytes_in_buffer)
		skip = s->bytes_in_buffer;
	s->next_input_byte += skip;
	s->bytes_in_buffer -= skip;
}

/* Called for every row of blocks of every scan while a multi-scan file is read in. */
static void
jpeg_on_progress(j_common_ptr cinfo)
{
	JpegReader *r = cinfo->client_data;

	if ((uint32_t) r->cinfo.input_scan_number > r->limits->max_scans)
	{
		r->over_scans = true;
		longjmp(r->escape, 1);
	}
}

/* --- decoding, inside the guard --------------------------------------------- */

static DfxStatus
jpeg_truncated(JpegReader *r, const char *where)
{
	return dfx_fail(r->err, DFX_EIMAGE, "JPEG is truncated: it ends %s", where);
}

static DfxStatus
jpeg_read_head(JpegReader *r)
{
	struct jpeg_decompress_struct *c = &r->cinfo;
	int got;

	do
		got = jpeg_read_header(c, FALSE);
	while (got == JPEG_HEADER_TABLES_ONLY);
	if (got == JPEG_SUSPENDED)
		return jpeg_truncated(r, "before its image data");
	if (c->num_components != 1 && c->num_components != 3 && c->num_components != 4)
		return dfx_fail(r->err, DFX_EIMAGE, "JPEG has %d components; 1, 3 and 4 are known",
		                c->num_components);
	return dfx_codec_check_size(c->image_width, c->image_height, r->limits, r->err);
}

/*
 * CMYK as libjpeg delivers it, to RGB.  Pillow takes every four-component file
 * for Adobe's inverted convention, marker or not, and then converts by
 * multiplication (Convert.c, cmyk2rgb).
 */
static void
jpeg_cmyk_to_rgb(const uint8_t *cmyk, uint8_t *rgb, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++, cmyk += 4, rgb += 3)
	{
		uint32_t light = cmyk[3]; /* 255 - K, K being 255 - what the file says */

		for (int c = 0; c < 3; c++)
		{
			uint32_t t = (255u - cmyk[c]) * light + 128;

			rgb[c] = (uint8_t) (light - (((t >> 8) + t) >> 8)); /* t / 255, rounded */
		}
	}
}

static DfxStatus
jpeg_read_rows(JpegReader *r)
{
	struct jpeg_decompress_struct *c = &r->cinfo;

	while (c->output_scanline < c->output_height)
	{
		uint8_t *rgb = r->sink->row(r->sink);
		JSAMPROW row = r->row ? r->row : rgb;

		if (jpeg_read_scanlines(c, &row, 1) != 1)
			return dfx_fail(r->err, DFX_EIMAGE, "JPEG is truncated: it ends in row %u of %u",
			                c->output_scanline * c->scale_denom, c->image_height);
		if (r->row)
			jpeg_cmyk_to_rgb(r->row, rgb, c->output_width);
		r->sink->commit(r->sink);
	}
	/* All rows are there; like Pillow, do not insist on what may follow them. */
	jpeg_finish_decompress(c);
	return DFX_OK;
}

/*
 * The inverse DCT can give 4x4, 2x2 or 1x1 pixels of a block instead of 8x8,
 * from its lowest frequencies (libjpeg.txt, "Scaled decoding").  Other scales
 * exist, but only these are vectorised in libjpeg-turbo.
 */
static void
jpeg_reduce(JpegReader *r)
{
	struct jpeg_decompress_struct *c = &r->cinfo;
	uint32_t least = c->image_width < c->image_height ? c->image_width : c->image_height;

	while (r->enough > 0 && c->scale_denom < 8 && least / (2 * c->scale_denom) >= r->enough)
		c->scale_denom *= 2;
}

static DfxStatus
jpeg_read_image(JpegReader *r)
{
	struct jpeg_decompress_struct *c = &r->cinfo;
	DfxStatus status = jpeg_read_head(r);

	if (status != DFX_OK || !r->sink)
		return status;

	/* All else stays at libjpeg's defaults, which are Pillow's: islow DCT, fancy upsampling. */
	jpeg_reduce(r);
	c->out_color_space = c->num_components == 4 ? JCS_CMYK : JCS_RGB;
	c->mem->max_memory_to_use = (long) c->image_width * c->image_height * 8 + (32l << 20);
	if (!jpeg_start_decompress(c))
		return jpeg_truncated(r, "in one of its scans"); /* only multi-scan files are read in here */
	status = r->sink->begin(r->sink, c->output_width, c->output_height, r->err);
	if (status == DFX_OK && c->num_components == 4)
	{
		r->row = malloc((size_t) c->output_width * 4);
		if (!r->row)
			status =
			    dfx_fail(r->err, DFX_ENOMEM, "out of memory for a row of %u CMYK pixels", c->output_width);
	}
	return status == DFX_OK ? jpeg_read_rows(r) : status;
}

/* --- the guard --------------------------------------------------------------- */

static DfxStatus
jpeg_failure(JpegReader *r)
{
	if (r->over_scans)
	{
		DfxStatus status =
		    dfx_fail(r->err, DFX_ELIMIT, "JPEG has more than %" PRIu32 " scans", r->limits->max_scans);

		dfx_hint(r->err, "Such a file is built to keep decoders busy; honest ones have about ten.");
		return status;
	}
	switch (r->errors.msg_code)
	{
		case JERR_OUT_OF_MEMORY:
			return dfx_fail(r->err, DFX_ENOMEM, "out of memory decoding a JPEG of %u x %u pixels",
			                r->cinfo.image_width, r->cinfo.image_height);
		case JERR_NO_BACKING_STORE:
			return dfx_fail(r->err, DFX_ELIMIT, "JPEG of %u x %u pixels needs too much memory to decode",
			                r->cinfo.image_width, r->cinfo.image_height);
		default:
			return dfx_fail(r->err, DFX_EIMAGE, "JPEG is broken: %s", r->message);
	}
}

static DfxStatus
jpeg_guarded(JpegReader *r, const uint8_t *bytes, size_t len)
{
	if (setjmp(r->escape))
		return jpeg_failure(r);
	r->cinfo.err = jpeg_std_error(&r->errors);
	r->cinfo.client_data = r;
	r->errors.error_exit = jpeg_on_error;
	r->errors.output_message = jpeg_on_message;
	jpeg_create_decompress(&r->cinfo);

	r->source.init_source = jpeg_source_nothing;
	r->source.fill_input_buffer = jpeg_source_fill;
	r->source.skip_input_data = jpeg_source_skip;
	r->source.resync_to_restart = jpeg_resync_to_restart;
	r->source.term_source = jpeg_source_nothing;
	r->source.next_input_byte = bytes;
	r->source.bytes_in_buffer = len;
	r->cinfo.src = &r->source;
	r->progress.progress_monitor = jpeg_on_progress;
	r->cinfo.progress = &r->progress;
	return jpeg_read_image(r);
}

DfxStatus
dfx_jpeg_info(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, DfxImageInfo *info, DfxErr *err)
{
	JpegReader r = {.limits = limits, .err = err};
	DfxStatus status = jpeg_guarded(&r, bytes, len);

	if (status == DFX_OK)
		*info = (DfxImageInfo){
		    .format = DFX_FORMAT_JPEG,
		    .width = r.cinfo.image_width,
		    .height = r.cinfo.image_height,
		    .channels = (uint32_t) r.cinfo.num_components,
		    .bits = (uint32_t) r.cinfo.data_precision,
		};
	jpeg_destroy_decompress(&r.cinfo);
	return status;
}

DfxStatus
dfx_jpeg_decode(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, uint32_t enough,
                DfxRowSink *sink, DfxErr *err)
{
	JpegReader r = {.limits = limits, .enough = enough, .sink = sink, .err = err};
	DfxStatus status = jpeg_guarded(&r, bytes, len);

	jpeg_destroy_decompress(&r.cinfo);
	free(r.row);
	return status;
}
