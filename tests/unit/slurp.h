/*
 * slurp.h
 *	  A whole file in memory, for tests.
 */
#ifndef DFX_TESTS_SLURP_H
#define DFX_TESTS_SLURP_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* malloc'd and followed by a NUL that *len does not count; NULL if the file cannot be read. */
__attribute__((unused)) static uint8_t *
slurp(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	uint8_t *bytes = NULL;
	long size = -1;

	if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0)
		bytes = malloc((size_t) size + 1);
	if (bytes && fread(bytes, 1, (size_t) size, f) != (size_t) size)
	{
		free(bytes);
		bytes = NULL;
	}
	if (bytes)
	{
		bytes[size] = '\0';
		*len = (size_t) size;
	}
	if (f)
		fclose(f);
	return bytes;
}

#endif /* DFX_TESTS_SLURP_H */
