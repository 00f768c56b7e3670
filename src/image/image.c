/*
 * image.c
 *	  The public face of the room: which codec, the limits, the whole
 *	  preprocessing.
 */
#include "image/image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image/codec.h"
#include "image/filter.h"
#include "image/resize.h"

const char *
dfx_format_name(DfxFormat format)
{
	switch (format)
	{
		case DFX_FORMAT_JPEG:
			return "jpeg";
		case DFX_FORMAT_PNG:
			return "png";
		case DFX_FORMAT_UNKNOWN:
			break;
	}
	return "unknown";
}

DfxFormat
dfx_image_sniff(const void *bytes, size_t len)
{
	if (len >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0)
		return DFX_FORMAT_JPEG;
	if (len >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0)
		return DFX_FORMAT_PNG;
	return DFX_FORMAT_UNKNOWN;
}

/* --- limits -------------------------------------------------------------- */

DfxStatus
dfx_codec_check_size(uint32_t width, uint32_t height, const DfxImageLimits *limits, DfxErr *err)
{
	if (width == 0 || height == 0)
		return dfx_fail(err, DFX_EIMAGE, "image is empty (%" PRIu32 " x %" PRIu32 ")", width, height);
	if ((uint64_t) width * height > limits->max_pixels)
	{
		DfxStatus status =
		    dfx_fail(err, DFX_ELIMIT,
		             "image of %" PRIu32 " x %" PRIu32 " pixels is over the limit of %" PRIu64 " pixels",
		             width, height, limits->max_pixels);

		dfx_hint(err, "The limit is dfx.max_image_pixels.");
		return status;
	}
	if (width > DFX_MAX_SIDE || height > DFX_MAX_SIDE)
		return dfx_fail(err, DFX_ELIMIT, "image of %" PRIu32 " x %" PRIu32 " has a side over %u pixels",
		                width, height, DFX_MAX_SIDE);
	return DFX_OK;
}

/* What every entry point asks first; sets *format. */
static DfxStatus
image_admit(const void *bytes, size_t len, const DfxImageLimits *limits, DfxFormat *format, DfxErr *err)
{
	*format = DFX_FORMAT_UNKNOWN;
	if (!bytes || len == 0)
		return dfx_fail(err, DFX_EIMAGE, "image is empty (0 bytes)");
	if (len > limits->max_bytes)
	{
		DfxStatus status =
		    dfx_fail(err, DFX_ELIMIT, "image of %zu bytes is over the limit of %" PRIu64 " bytes", len,
		             limits->max_bytes);

		dfx_hint(err, "The limit is dfx.max_image_bytes.");
		return status;
	}
	*format = dfx_image_sniff(bytes, len);
	if (*format == DFX_FORMAT_UNKNOWN)
	{
		DfxStatus status = dfx_fail(err, DFX_EIMAGE, "not a JPEG or PNG image");

		dfx_hint(err, "The format is told by the first bytes; other formats must be converted first.");
		return status;
	}
	return DFX_OK;
}

DfxStatus
dfx_image_alloc(DfxImage *image, uint32_t width, uint32_t height, DfxErr *err)
{
	uint64_t size = (uint64_t) width * height * 3; /* sides up to DFX_MAX_SIDE cannot overflow it */

	*image = (DfxImage){width, height, size <= SIZE_MAX ? malloc((size_t) size) : NULL};
	if (!image->pixels)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for an image of %" PRIu32 " x %" PRIu32 " pixels",
		                width, height);
	return DFX_OK;
}

void
dfx_image_replace(DfxImage *image, DfxImage *result)
{
	free(image->pixels);
	*image = *result;
}

/* --- where rows go ------------------------------------------------------- */

/* Into one block of pixels. */
typedef struct PixelSink
{
	DfxRowSink sink; /* first: the codec's view of this */
	DfxImage *out;
	uint32_t next;
} PixelSink;

static DfxStatus
pixels_begin(DfxRowSink *sink, uint32_t width, uint32_t height, DfxErr *err)
{
	return dfx_image_alloc(((PixelSink *) sink)->out, width, height, err);
}

static uint8_t *
pixels_row(DfxRowSink *sink)
{
	PixelSink *s = (PixelSink *) sink;

	return s->out->pixels + (size_t) s->next * s->out->width * 3;
}

static void
pixels_commit(DfxRowSink *sink)
{
	((PixelSink *) sink)->next++;
}

/* Through the resizer, so that the whole image never exists. */
typedef struct ResizeSink
{
	DfxRowSink sink;
	DfxResizer resizer;
	uint8_t *dst;
} ResizeSink;

static DfxStatus
resize_begin(DfxRowSink *sink, uint32_t width, uint32_t height, DfxErr *err)
{
	ResizeSink *s = (ResizeSink *) sink;

	return dfx_resizer_begin(&s->resizer, dfx_resize_best(), width, height, DFX_RESIZE_SIDE, DFX_RESIZE_SIDE,
	                         s->dst, err);
}

static uint8_t *
resize_row(DfxRowSink *sink)
{
	return dfx_resizer_row(&((ResizeSink *) sink)->resizer);
}

static void
resize_commit(DfxRowSink *sink)
{
	dfx_resizer_commit(&((ResizeSink *) sink)->resizer);
}

/* --- public -------------------------------------------------------------- */

DfxStatus
dfx_image_info(const void *bytes, size_t len, const DfxImageLimits *limits, DfxImageInfo *info, DfxErr *err)
{
	DfxFormat format;
	DfxStatus status = image_admit(bytes, len, limits, &format, err);

	memset(info, 0, sizeof *info);
	if (status != DFX_OK)
		return status;
	if (format == DFX_FORMAT_JPEG)
		return dfx_jpeg_info(bytes, len, limits, info, err);
	return dfx_png_info(bytes, len, limits, info, err);
}

static DfxStatus
image_decode_to(const void *bytes, size_t len, const DfxImageLimits *limits, uint32_t enough,
                DfxRowSink *sink, DfxErr *err)
{
	DfxFormat format;
	DfxStatus status = image_admit(bytes, len, limits, &format, err);

	if (status != DFX_OK)
		return status;
	if (format == DFX_FORMAT_JPEG)
		return dfx_jpeg_decode(bytes, len, limits, enough, sink, err);
	return dfx_png_decode(bytes, len, limits, sink, err);
}

DfxStatus
dfx_image_decode(const void *bytes, size_t len, const DfxImageLimits *limits, DfxImage *out, DfxErr *err)
{
	PixelSink pixels = {{pixels_begin, pixels_row, pixels_commit}, out, 0};
	DfxStatus status;

	memset(out, 0, sizeof *out);
	status = image_decode_to(bytes, len, limits, 0, &pixels.sink, err);
	if (status != DFX_OK)
		dfx_image_free(out);
	return status;
}

void
dfx_image_free(DfxImage *image)
{
	free(image->pixels);
	memset(image, 0, sizeof *image);
}

/* torchvision's CenterCrop: offset round((256 - size) / 2), halves to the even number (Python's round). */
static void
image_crop(const uint8_t *resized, uint32_t size, uint8_t *dst)
{
	uint32_t margin = DFX_RESIZE_SIDE - size;
	uint32_t offset = margin / 2;

	if (margin % 2 == 1 && offset % 2 == 1)
		offset++;
	for (uint32_t y = 0; y < size; y++)
		memcpy(dst + (size_t) y * size * 3, resized + ((size_t) (y + offset) * DFX_RESIZE_SIDE + offset) * 3,
		       (size_t) size * 3);
}

/* What the two ways to a network's input have in common. */
typedef struct Fit
{
	uint32_t size;
	uint8_t *resized, *dst; /* the same where nothing is cropped */
} Fit;

static DfxStatus
fit_begin(Fit *fit, uint32_t input_size, uint8_t *dst, DfxErr *err)
{
	*fit = (Fit){input_size, dst, dst};
	if (input_size == 0 || input_size > DFX_RESIZE_SIDE)
		return dfx_fail(err, DFX_EINVAL, "input size %" PRIu32 " is not within 1 .. %d", input_size,
		                DFX_RESIZE_SIDE);
	if (input_size != DFX_RESIZE_SIDE)
		fit->resized = malloc((size_t) DFX_RESIZE_SIDE * DFX_RESIZE_SIDE * 3);
	if (!fit->resized)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for a resized image");
	return DFX_OK;
}

static DfxStatus
fit_end(Fit *fit, DfxStatus status)
{
	if (fit->resized == fit->dst)
		return status;
	if (status == DFX_OK)
		image_crop(fit->resized, fit->size, fit->dst);
	free(fit->resized);
	return status;
}

static DfxStatus
image_prepare(const void *bytes, size_t len, const DfxImageLimits *limits, uint32_t enough,
              uint32_t input_size, uint8_t *dst, DfxErr *err)
{
	ResizeSink resize = {.sink = {resize_begin, resize_row, resize_commit}};
	Fit fit;
	DfxStatus status = fit_begin(&fit, input_size, dst, err);

	if (status != DFX_OK)
		return status;
	resize.dst = fit.resized;
	status = image_decode_to(bytes, len, limits, enough, &resize.sink, err);
	dfx_resizer_end(&resize.resizer);
	return fit_end(&fit, status);
}

DfxStatus
dfx_image_prepare(const void *bytes, size_t len, const DfxImageLimits *limits, uint32_t input_size,
                  uint8_t *dst, DfxErr *err)
{
	return image_prepare(bytes, len, limits, 0, input_size, dst, err);
}

DfxStatus
dfx_image_prepare_fast(const void *bytes, size_t len, const DfxImageLimits *limits, uint32_t input_size,
                       uint8_t *dst, DfxErr *err)
{
	return image_prepare(bytes, len, limits, DFX_FAST_SIDE, input_size, dst, err);
}

DfxStatus
dfx_image_fit(const DfxImage *image, uint32_t input_size, uint8_t *dst, DfxErr *err)
{
	Fit fit;
	DfxStatus status = fit_begin(&fit, input_size, dst, err);

	if (status != DFX_OK)
		return status;
	return fit_end(&fit, dfx_image_resize(image, DFX_RESIZE_SIDE, DFX_RESIZE_SIDE, fit.resized, err));
}
