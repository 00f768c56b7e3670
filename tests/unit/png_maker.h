/*
 * png_maker.h
 *	  PNG files made chunk by chunk, also such as no encoder would write.
 */
#ifndef DFX_TESTS_PNG_MAKER_H
#define DFX_TESTS_PNG_MAKER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#define PNG_ROOM (64u << 10)

typedef struct Png
{
	uint8_t *bytes; /* PNG_ROOM */
	size_t len;
} Png;

static void
png_put(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t) (v >> (24 - 8 * i));
}

__attribute__((unused)) static void
png_chunk(Png *png, const char *name, const uint8_t *data, size_t n)
{
	uint8_t *p = png->bytes + png->len;

	png_put(p, (uint32_t) n);
	memcpy(p + 4, name, 4);
	if (n > 0)
		memcpy(p + 8, data, n);
	png_put(p + 8 + n, (uint32_t) crc32(0, p + 4, (uInt) n + 4));
	png->len += 12 + n;
}

__attribute__((unused)) static Png
png_begin(uint32_t width, uint32_t height, uint8_t bits, uint8_t colour)
{
	Png png = {.bytes = malloc(PNG_ROOM), .len = 8};
	uint8_t ihdr[13] = {0};

	memcpy(png.bytes, "\x89PNG\r\n\x1a\n", 8);
	png_put(ihdr, width);
	png_put(ihdr + 4, height);
	ihdr[8] = bits;
	ihdr[9] = colour;
	png_chunk(&png, "IHDR", ihdr, sizeof ihdr);
	return png;
}

/* Make the checksums of all chunks right that a changed file still has. */
__attribute__((unused)) static void
png_repair(uint8_t *p, size_t len)
{
	size_t pos = 8;

	while (len >= pos + 12)
	{
		uint32_t size =
		    (uint32_t) p[pos] << 24 | (uint32_t) p[pos + 1] << 16 | (uint32_t) p[pos + 2] << 8 | p[pos + 3];

		if (size > len - pos - 12)
			return;
		png_put(p + pos + 8 + size, (uint32_t) crc32(0, p + pos + 4, size + 4));
		pos += 12 + (size_t) size;
	}
}

#endif /* DFX_TESTS_PNG_MAKER_H */
