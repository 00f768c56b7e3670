/*
 * encode.h
 *	  RGB pixels to JPEG and PNG, in memory.
 */
#ifndef DFX_IMAGE_ENCODE_H
#define DFX_IMAGE_ENCODE_H

#include "image/image.h"

/* Where encoded bytes go: malloc'd, growing up to limit.  Start with {.limit = n}; free data. */
typedef struct DfxEncoded
{
	uint8_t *data;
	size_t len, room;
	size_t limit;
} DfxEncoded;

/*
 * The bytes that Pillow's save("JPEG", quality=quality, subsampling=0) makes:
 * baseline, 4:4:4, libjpeg's tables and standard Huffman codes.  quality: 1 to 100.
 * Errors: DFX_ELIMIT (over the limit, or a side over 65,500), DFX_ENOMEM, DFX_EINVAL.
 * On error there is nothing to free.
 */
extern DfxStatus dfx_encode_jpeg(const DfxImage *image, int quality, DfxEncoded *out, DfxErr *err);

/* 8-bit RGB PNG, compressed for speed rather than for size.  Errors as above. */
extern DfxStatus dfx_encode_png(const DfxImage *image, DfxEncoded *out, DfxErr *err);

#endif /* DFX_IMAGE_ENCODE_H */
