/*
 * sha256_ni.c
 *	  The SHA-256 block function by the x86 SHA extensions.
 *
 * The function carries its own target attribute, so that the file compiles
 * without machine flags and the program still starts on a CPU without them.
 * sha256rnds2 keeps the state as two vectors, ABEF and CDGH, and does two
 * rounds; the schedule W is extended four words at a time by sha256msg1/2.
 */
#include "base/sha256_block.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>

/*
 * Asked of the CPU itself: clang 14's __builtin_cpu_supports() does not know
 * "sha".  In a virtual machine CPUID costs microseconds, so the answer, which
 * cannot change, is kept; two threads that both ask store the same one.
 */
bool
dfx_sha256_have_ni(void)
{
	static atomic_int known; /* 0 not asked yet, 1 no, 2 yes */
	int answer = atomic_load_explicit(&known, memory_order_relaxed);

	if (answer == 0)
	{
		unsigned a, b, c, d;

		answer = 1;
		if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_1) && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
		    (b & 1u << 29)) /* SHA; its name differs between compilers' cpuid.h */
			answer = 2;
		atomic_store_explicit(&known, answer, memory_order_relaxed);
	}
	return answer == 2;
}

/* Four rounds with W[4i .. 4i+3] in w. */
__attribute__((target("sha,sse4.1"))) static inline void
sha_ni_rounds(__m128i *abef, __m128i *cdgh, __m128i w, int i)
{
	__m128i wk = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *) (dfx_sha256_k + 4 * i)));

	*cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, wk);
	*abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32(wk, 0x0e));
}

/* The next four words of W from the sixteen before them. */
__attribute__((target("sha,sse4.1"))) static inline __m128i
sha_ni_extend(__m128i w0, __m128i w1, __m128i w2, __m128i w3)
{
	__m128i w7 = _mm_alignr_epi8(w3, w2, 4); /* W[i-7] */

	return _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), w7), w3);
}

__attribute__((target("sha,sse4.1"))) void
dfx_sha256_blocks_ni(uint32_t state[8], const uint8_t *p, size_t n)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
	__m128i dcba = _mm_loadu_si128((const __m128i *) state);
	__m128i hgfe = _mm_loadu_si128((const __m128i *) (state + 4));
	__m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
	__m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);
	__m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
	__m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
	__m128i feba, dchg;

	for (; n > 0; n--, p += 64)
	{
		__m128i abef_before = abef, cdgh_before = cdgh;
		__m128i w[4];

		for (int i = 0; i < 4; i++)
		{
			w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *) (p + 16 * i)), swap);
			sha_ni_rounds(&abef, &cdgh, w[i], i);
		}
		for (int i = 4; i < 16; i += 4)
			for (int j = 0; j < 4; j++)
			{
				w[j] = sha_ni_extend(w[j], w[(j + 1) & 3], w[(j + 2) & 3], w[(j + 3) & 3]);
				sha_ni_rounds(&abef, &cdgh, w[j], i + j);
			}
		abef = _mm_add_epi32(abef, abef_before);
		cdgh = _mm_add_epi32(cdgh, cdgh_before);
	}

	feba = _mm_shuffle_epi32(abef, 0x1b);
	dchg = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((__m128i *) state, _mm_blend_epi16(feba, dchg, 0xf0));
	_mm_storeu_si128((__m128i *) (state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

#else

bool
dfx_sha256_have_ni(void)
{
	return false;
}

/* Never reached: the dispatcher asks dfx_sha256_have_ni() first. */
void
dfx_sha256_blocks_ni(uint32_t state[8], const uint8_t *p, size_t n)
{
	dfx_sha256_blocks_portable(state, p, n);
}

#endif
