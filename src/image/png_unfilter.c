/*
 * png_unfilter.c
 *	  PNG's filters, undone (PNG specification, section 9).
 *
 * Each byte is predicted from its neighbours to the left (a), above (b) and
 * above left (c), so a row is a chain of dependent steps, long ones for Paeth,
 * which encoders choose for most rows of a photograph.  Two things shorten it:
 * a pixel's channels are steps side by side in a vector, and two Paeth rows
 * are undone together, the second one pixel behind the first:
 *
 *	                i
 *	above     . c b .
 *	first     . a x			step i: pixel i of the first row
 *	second    . x			        and pixel i - 1 of the second
 *
 * The second row's b is then what the step before gave to the first row, and
 * its c what the first row's a was, so it needs no memory to get at them.
 *
 * SSE2 is part of x86-64, so nothing is chosen at run time.
 */
#include <string.h>

#include "image/png_whole.h"

enum
{
	UNFILTER_NONE,
	UNFILTER_SUB,
	UNFILTER_UP,
	UNFILTER_AVERAGE,
	UNFILTER_PAETH
};

/* The neighbour nearest to a + b - c; in case of a tie a before b before c. */
static inline uint8_t
unfilter_paeth(int a, int b, int c)
{
	int pa = b - c, pb = a - c, pc = pa + pb;

	pa = pa < 0 ? -pa : pa;
	pb = pb < 0 ? -pb : pb;
	pc = pc < 0 ? -pc : pc;
	if (pb < pa)
	{
		pa = pb;
		a = b;
	}
	return (uint8_t) (pc < pa ? c : a);
}

/* One row by the loops of the specification, inlined for each bpp. */
static inline __attribute__((always_inline)) void
unfilter_row(int filter, const uint8_t *x, size_t bpp, size_t n, const uint8_t *above, uint8_t *row)
{
	switch (filter)
	{
		case UNFILTER_SUB:
			memcpy(row, x, bpp);
			for (size_t i = bpp; i < n; i++)
				row[i] = (uint8_t) (x[i] + row[i - bpp]);
			break;
		case UNFILTER_UP:
			for (size_t i = 0; i < n; i++)
				row[i] = (uint8_t) (x[i] + above[i]);
			break;
		case UNFILTER_AVERAGE:
			for (size_t i = 0; i < bpp; i++)
				row[i] = (uint8_t) (x[i] + above[i] / 2);
			for (size_t i = bpp; i < n; i++)
				row[i] = (uint8_t) (x[i] + (row[i - bpp] + above[i]) / 2);
			break;
		case UNFILTER_PAETH:
			for (size_t i = 0; i < bpp; i++)
				row[i] = (uint8_t) (x[i] + above[i]);
			for (size_t i = bpp; i < n; i++)
				row[i] = (uint8_t) (x[i] + unfilter_paeth(row[i - bpp], above[i], above[i - bpp]));
			break;
		default:
			memcpy(row, x, n);
	}
}

void
dfx_png_unfilter_plain(const uint8_t *filtered, uint32_t bpp, size_t n, const uint8_t *above, uint8_t *row)
{
	if (bpp == 1)
		unfilter_row(filtered[0], filtered + 1, 1, n, above, row);
	else if (bpp == 3)
		unfilter_row(filtered[0], filtered + 1, 3, n, above, row);
	else
		unfilter_row(filtered[0], filtered + 1, 4, n, above, row);
}

#ifdef __SSE2__

#include <emmintrin.h>

/* Four bytes in the low half, as words. */
static inline __m128i
unfilter_load(const uint8_t *p)
{
	int32_t v;

	memcpy(&v, p, sizeof v);
	return _mm_unpacklo_epi8(_mm_cvtsi32_si128(v), _mm_setzero_si128());
}

static inline __m128i
unfilter_abs(__m128i v)
{
	return _mm_max_epi16(v, _mm_sub_epi16(_mm_setzero_si128(), v));
}

static inline __m128i
unfilter_select(__m128i mask, __m128i yes, __m128i no)
{
	return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
}

static inline __m128i
unfilter_paeth_step(__m128i x, __m128i a, __m128i b, __m128i c)
{
	__m128i pa = _mm_sub_epi16(b, c), pb = _mm_sub_epi16(a, c), pc = _mm_add_epi16(pa, pb), least;

	pa = unfilter_abs(pa);
	pb = unfilter_abs(pb);
	least = _mm_min_epi16(unfilter_abs(pc), _mm_min_epi16(pa, pb));
	a = unfilter_select(_mm_cmpeq_epi16(least, pa), a, unfilter_select(_mm_cmpeq_epi16(least, pb), b, c));
	return _mm_add_epi8(x, a); /* by bytes: modulo 256, and the words' upper bytes stay 0 */
}

/*
 * One Paeth row, or two; then first is the row over second.  Pixels of less
 * than four bytes are worked on and written with what follows them, which is
 * written again by the next step, at last into the slack.
 */
static inline __attribute__((always_inline)) void
unfilter_paeth_rows(bool two, const uint8_t *filtered, size_t bpp, size_t n, const uint8_t *above,
                    uint8_t *first, uint8_t *second)
{
	const uint8_t *x = filtered + 1, *x_second = filtered + n + 2;
	__m128i a = _mm_setzero_si128(), b = a, c = a; /* first row in the low half, second in the high one */

	for (size_t i = 0; i < n + (two ? bpp : 0); i += bpp)
	{
		__m128i words = i < n ? unfilter_load(x + i) : _mm_setzero_si128();
		uint64_t out;

		c = b;
		b = _mm_unpacklo_epi64(i < n ? unfilter_load(above + i) : words, a);
		if (two && i > 0)
			words = _mm_unpacklo_epi64(words, unfilter_load(x_second + i - bpp));
		a = unfilter_paeth_step(words, a, b, c);
		out = (uint64_t) _mm_cvtsi128_si64(_mm_packus_epi16(a, a));
		if (i < n)
			memcpy(first + i, &out, 4);
		out >>= 32;
		if (two && i > 0)
			memcpy(second + i - bpp, &out, 4);
	}
}

uint32_t
dfx_png_unfilter(const uint8_t *filtered, uint32_t left, uint32_t bpp, size_t n, const uint8_t *above,
                 uint8_t *const row[2])
{
	bool two = left > 1 && filtered[n + 1] == UNFILTER_PAETH;

	if (filtered[0] != UNFILTER_PAETH)
	{
		dfx_png_unfilter_plain(filtered, bpp, n, above, row[0]);
		return 1;
	}
	if (bpp == 1)
		unfilter_paeth_rows(two, filtered, 1, n, above, row[0], row[1]);
	else if (bpp == 3)
		unfilter_paeth_rows(two, filtered, 3, n, above, row[0], row[1]);
	else
		unfilter_paeth_rows(two, filtered, 4, n, above, row[0], row[1]);
	return two ? 2 : 1;
}

#else

uint32_t
dfx_png_unfilter(const uint8_t *filtered, uint32_t left, uint32_t bpp, size_t n, const uint8_t *above,
                 uint8_t *const row[2])
{
	(void) left;
	dfx_png_unfilter_plain(filtered, bpp, n, above, row[0]);
	return 1;
}

#endif
