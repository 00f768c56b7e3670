/*
 * test_sha256.c
 *	  Is SHA-256 right, in both implementations and however the input is cut?
 */
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "base/sha256_block.h"
#include "tests/unit/tap.h"

static void
to_hex(const uint8_t digest[32], char hex[65])
{
	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* The message `repeat` times over; FIPS 180-4's examples and NIST's long one. */
static void
check_vector(const char *message, int repeat, const char *expected)
{
	DfxSha256 s;
	uint8_t digest[32];
	char hex[65];

	dfx_sha256_init(&s);
	for (int i = 0; i < repeat; i++)
		dfx_sha256_update(&s, message, strlen(message));
	dfx_sha256_final(&s, digest);
	to_hex(digest, hex);
	ok(strcmp(hex, expected) == 0, "\"%.20s\" x %d", message, repeat);
}

/* The one-block message "abc" through a block function alone (FIPS 180-2 appendix B.1). */
static void
check_block_function(const char *name, void (*blocks)(uint32_t *, const uint8_t *, size_t))
{
	uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	static const uint32_t expected[8] = {0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223,
	                                     0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad};
	uint8_t block[64] = {'a', 'b', 'c', 0x80};

	block[63] = 24;
	blocks(state, block, 1);
	ok(memcmp(state, expected, sizeof state) == 0, "%s: block of \"abc\"", name);
}

static void
compare_block_functions(void)
{
	uint8_t data[7 * 64];
	uint32_t a[8], b[8];
	uint32_t random = 1;
	bool same = true;

	for (int round = 0; round < 200; round++)
	{
		for (size_t i = 0; i < sizeof data; i++)
			data[i] = (uint8_t) ((random = random * 1664525u + 1013904223u) >> 24);
		for (int i = 0; i < 8; i++)
			a[i] = b[i] = (random = random * 1664525u + 1013904223u);
		dfx_sha256_blocks_portable(a, data, (size_t) (round % 8));
		dfx_sha256_blocks_ni(b, data, (size_t) (round % 8));
		same = same && memcmp(a, b, sizeof a) == 0;
	}
	ok(same, "both block functions agree on random states and data");
}

/* Every length around the block boundaries, cut at every place, equals the uncut hash. */
static void
check_cuts(void)
{
	uint8_t data[200], whole[32], cut[32];
	bool same = true;

	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t) (i * 37);
	for (size_t len = 0; len <= sizeof data; len++)
		for (size_t at = 0; at <= len; at += 3)
		{
			DfxSha256 s;

			dfx_sha256_init(&s);
			dfx_sha256_update(&s, data, len);
			dfx_sha256_final(&s, whole);
			dfx_sha256_init(&s);
			dfx_sha256_update(&s, data, at);
			dfx_sha256_update(&s, NULL, 0);
			dfx_sha256_update(&s, data + at, len - at);
			dfx_sha256_final(&s, cut);
			same = same && memcmp(whole, cut, 32) == 0;
		}
	ok(same, "where updates are cut does not matter");
}

int
main(void)
{
	char thousand_as[1001];

	memset(thousand_as, 'a', 1000);
	thousand_as[1000] = '\0';
	check_vector("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	check_vector("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	check_vector("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
	             "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	check_vector(
	    "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqr"
	    "smnopqrstnopqrstu",
	    1, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
	check_vector(thousand_as, 1000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	check_cuts();

	check_block_function("portable", dfx_sha256_blocks_portable);
	if (dfx_sha256_have_ni())
	{
		check_block_function("SHA extensions", dfx_sha256_blocks_ni);
		compare_block_functions();
	}
	else
		ok(true, "SHA extensions # SKIP this CPU has none");
	return done_testing();
}
