/*
 * codec.h
 *	  What image.c asks of a codec; private to src/image.
 *
 * A codec may rely on: bytes is not NULL, len is within limits->max_bytes and
 * the magic bytes were seen.  It calls dfx_codec_check_size() as soon as it
 * knows the size and before it allocates anything proportional to it.
 */
#ifndef DFX_IMAGE_CODEC_H
#define DFX_IMAGE_CODEC_H

#include "image/image.h"

/* Neither side may exceed this, whatever max_pixels says; row buffers and filter tables stay small. */
#define DFX_MAX_SIDE 1000000u

/*
 * Where decoded rows go.  A codec calls begin once, when the size is known and
 * checked; then for every row, top to bottom, row() for the place to write
 * width x 3 bytes to and commit() when they are there.  So a consumer that
 * needs each row once never holds a whole image.
 *
 * The functions are called between a codec's setjmp and its longjmp: what a
 * sink allocates belongs to whoever made the sink, and is freed by it.
 */
typedef struct DfxRowSink
{
	DfxStatus (*begin)(struct DfxRowSink *sink, uint32_t width, uint32_t height, DfxErr *err);
	uint8_t *(*row)(struct DfxRowSink *sink);
	void (*commit)(struct DfxRowSink *sink);
} DfxRowSink;

extern DfxStatus dfx_jpeg_info(const uint8_t *bytes, size_t len, const DfxImageLimits *limits,
                               DfxImageInfo *info, DfxErr *err);

/*
 * enough: 0, or what either side may be reduced to: libjpeg then leaves out
 * detail by halves, down to an eighth, as long as no side falls below it.
 * The sink learns the reduced size; limits are for that of the file.
 */
extern DfxStatus dfx_jpeg_decode(const uint8_t *bytes, size_t len, const DfxImageLimits *limits,
                                 uint32_t enough, DfxRowSink *sink, DfxErr *err);

extern DfxStatus
dfx_png_info(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, DfxImageInfo *info, DfxErr *err);
extern DfxStatus
dfx_png_decode(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, DfxRowSink *sink, DfxErr *err);

/* DFX_EIMAGE for an empty image, DFX_ELIMIT for one that is too large. */
extern DfxStatus
dfx_codec_check_size(uint32_t width, uint32_t height, const DfxImageLimits *limits, DfxErr *err);

#endif /* DFX_IMAGE_CODEC_H */
