/*
 * image.h
 *	  Encoded bytes to RGB pixels, as Pillow would have made them.
 *
 * The input is hostile: every entry point checks bytes, pixels and memory
 * against DfxImageLimits before a codec allocates anything, and a codec's
 * error never escapes its file (setjmp there, DfxErr here).  All functions
 * are thread-safe; none keeps state.
 */
#ifndef DFX_IMAGE_IMAGE_H
#define DFX_IMAGE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef enum DfxFormat
{
	DFX_FORMAT_UNKNOWN = 0,
	DFX_FORMAT_JPEG,
	DFX_FORMAT_PNG
} DfxFormat;

/* What the header says; channels and bits are the file's own (a palette PNG has 1 channel). */
typedef struct DfxImageInfo
{
	DfxFormat format;
	uint32_t width, height;
	uint32_t channels;
	uint32_t bits; /* per channel */
} DfxImageInfo;

typedef struct DfxImageLimits
{
	uint64_t max_bytes;  /* of encoded input */
	uint64_t max_pixels; /* width x height */
	uint32_t max_scans;  /* of a progressive JPEG */
} DfxImageLimits;

/* dfx.max_image_bytes and dfx.max_image_pixels at their defaults. */
#define DFX_DEFAULT_LIMITS                                                                                   \
	((DfxImageLimits){.max_bytes = 64u << 20, .max_pixels = 100000000u, .max_scans = 100})

/* 8-bit interleaved RGB, rows without padding; pixels is malloc'd, height x width x 3 bytes. */
typedef struct DfxImage
{
	uint32_t width, height;
	uint8_t *pixels;
} DfxImage;

/* "jpeg", "png" or "unknown". */
extern const char *dfx_format_name(DfxFormat format);

/* What inflates the common PNGs: "libdeflate 1.14", or "zlib 1.2.13" in a build without it. */
extern const char *dfx_image_inflater(void);

/* By magic bytes alone; reads at most 8. */
extern DfxFormat dfx_image_sniff(const void *bytes, size_t len);

/*
 * Parse the header, decode nothing.
 * Errors: DFX_EIMAGE (not an image, header broken), DFX_ELIMIT (over limits).
 */
extern DfxStatus
dfx_image_info(const void *bytes, size_t len, const DfxImageLimits *limits, DfxImageInfo *info, DfxErr *err);

/*
 * Decode to RGB exactly as Pillow's Image.open(f).convert("RGB") does: alpha
 * dropped, palette and grey expanded, CMYK/YCCK converted, EXIF orientation
 * not applied.  16-bit grey PNG takes the high byte.
 * Errors: DFX_EIMAGE with what is wrong, DFX_ELIMIT, DFX_ENOMEM.  On error
 * out->pixels is NULL.
 */
extern DfxStatus
dfx_image_decode(const void *bytes, size_t len, const DfxImageLimits *limits, DfxImage *out, DfxErr *err);
extern void dfx_image_free(DfxImage *image);

/*
 * Pillow's Image.resize((width, height), BILINEAR), bit for bit: separable,
 * antialiased (support scales with the reduction), 8-bit between the passes,
 * 22-bit fixed-point coefficients, horizontal pass first.
 * dst: height x width x 3 bytes.  Errors: DFX_ENOMEM, DFX_EINVAL (empty size).
 */
extern DfxStatus
dfx_image_resize(const DfxImage *src, uint32_t width, uint32_t height, uint8_t *dst, DfxErr *err);

/* The side every network input is resized to before any crop (paper section 3; METHOD "Preprocessing"). */
#define DFX_RESIZE_SIDE 256

/*
 * The whole preprocessing: decode, resize to 256x256, centre crop to
 * input_size (256: no crop; 224 for ViT).  dst: input_size^2 x 3 bytes, RGB,
 * row-major.  Normalisation belongs to the network's input op.
 */
extern DfxStatus dfx_image_prepare(const void *bytes, size_t len, const DfxImageLimits *limits,
                                   uint32_t input_size, uint8_t *dst, DfxErr *err);

/*
 * Faster, and not Pillow's pixels: a JPEG whose sides are both at least twice
 * DFX_FAST_SIDE is decoded at a half, a quarter or an eighth of its size, no
 * side below DFX_FAST_SIDE, and resized from there.  Everything else, and
 * every error, is as with dfx_image_prepare().
 */
#define DFX_FAST_SIDE (2 * DFX_RESIZE_SIDE)
extern DfxStatus dfx_image_prepare_fast(const void *bytes, size_t len, const DfxImageLimits *limits,
                                        uint32_t input_size, uint8_t *dst, DfxErr *err);

/* The same for an image that is decoded already. */
extern DfxStatus dfx_image_fit(const DfxImage *image, uint32_t input_size, uint8_t *dst, DfxErr *err);

#endif /* DFX_IMAGE_IMAGE_H */
