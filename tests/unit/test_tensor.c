/*
 * test_tensor.c
 *	  Are dtypes, sizes and conversions of tensors right?
 *
 * The conversions are held against tests/golden/floats.txt
 * (tests/golden/make_floats.py).  Runs from the top of the tree.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"
#include "tests/unit/slurp.h"
#include "tests/unit/tap.h"

static void
test_dtypes(void)
{
	static const struct
	{
		const char *name;
		size_t size;
	} expected[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}};
	DfxDtype d;

	for (int i = 0; i < DFX_DTYPE_COUNT; i++)
		ok(strcmp(dfx_dtype_name((DfxDtype) i), expected[i].name) == 0 &&
		       dfx_dtype_size((DfxDtype) i) == expected[i].size &&
		       dfx_dtype_parse(expected[i].name, strlen(expected[i].name), &d) && d == (DfxDtype) i,
		   "dtype %s", expected[i].name);
	ok(!dfx_dtype_parse("F64", 3, &d) && !dfx_dtype_parse("", 0, &d) && !dfx_dtype_parse("F3", 2, &d) &&
	       !dfx_dtype_parse("F32 ", 4, &d) && !dfx_dtype_parse("f32", 3, &d),
	   "other spellings are refused");
}

static void
test_counts(void)
{
	DfxTensor t = {.dtype = DFX_F32, .rank = 0};
	uint64_t n, bytes;

	ok(dfx_tensor_count(&t, &n, &bytes) && n == 1 && bytes == 4, "a scalar has one element");
	t = (DfxTensor){.dtype = DFX_I64, .rank = 3, .dim = {2, 3, 5}};
	ok(dfx_tensor_count(&t, &n, &bytes) && n == 30 && bytes == 240, "2 x 3 x 5 of I64");
	t = (DfxTensor){.dtype = DFX_F32, .rank = 2, .dim = {UINT64_MAX, 2}};
	ok(!dfx_tensor_count(&t, &n, &bytes), "elements overflow");
	t = (DfxTensor){.dtype = DFX_F32, .rank = 1, .dim = {UINT64_MAX / 2}};
	ok(!dfx_tensor_count(&t, &n, &bytes), "bytes overflow");
	t = (DfxTensor){.dtype = DFX_F32, .rank = 3, .dim = {UINT64_MAX, UINT64_MAX, 0}};
	ok(dfx_tensor_count(&t, &n, &bytes) && n == 0 && bytes == 0, "a zero dimension wins over overflow");
	t.rank = DFX_MAX_RANK + 1;
	ok(!dfx_tensor_count(&t, &n, &bytes), "rank above the maximum");
}

static void
check_conversion(const char *line)
{
	char dtype[8], expected[16];
	unsigned bits;
	/* One byte off any alignment: files promise none. */
	uint8_t raw[1 + 3 * 2] = {0};
	DfxTensor t = {.rank = 1, .dim = {3}, .data = raw + 1, .nbytes = 6};
	float f[2];
	uint32_t got;
	char text[16];

	if (sscanf(line, "%7s %x %15s", dtype, &bits, expected) != 3)
	{
		ok(false, "golden line is well-formed: %s", line);
		return;
	}
	t.dtype = strcmp(dtype, "f16") == 0 ? DFX_F16 : DFX_BF16;
	raw[3] = (uint8_t) bits;
	raw[4] = (uint8_t) (bits >> 8);
	f[1] = 42.0f;
	dfx_tensor_to_f32(&t, 1, 1, f);
	memcpy(&got, f, 4);
	snprintf(text, sizeof text, isnan(f[0]) ? "nan" : "%08x", got);
	ok(strcmp(text, expected) == 0 && f[1] == 42.0f, "%s %04x is %s", dtype, bits, expected);
}

static void
test_other_conversions(void)
{
	static const float value[3] = {1.5f, -0.0f, 3e38f};
	int64_t integers[3] = {1, 2, 3};
	uint8_t raw[13];
	float out[2];
	DfxTensor t = {.dtype = DFX_F32, .rank = 1, .dim = {3}, .data = raw + 1, .nbytes = 12};

	memcpy(raw + 1, value, 12);
	ok(dfx_tensor_to_f32(&t, 1, 2, out) && memcmp(out, value + 1, 8) == 0, "F32 is copied bit for bit");
	t.dtype = DFX_I64;
	t.data = integers;
	ok(!dfx_tensor_to_f32(&t, 0, 2, out), "I64 is not converted");
}

static float
widen(DfxDtype dtype, uint16_t bits)
{
	DfxTensor t = {.dtype = dtype, .rank = 0, .data = &bits, .nbytes = 2};
	float f;

	dfx_tensor_to_f32(&t, 0, 1, &f);
	return f;
}

static uint16_t
narrow(DfxDtype dtype, float f)
{
	uint16_t bits = 0xdead;

	dfx_tensor_of_f32(dtype, &f, 1, &bits);
	return bits;
}

/*
 * Every 16-bit number comes back from F32 as it was.  What lies in the middle
 * between two of them goes to the even one, and what lies next to the middle
 * to the nearer one.
 */
static void
test_narrowing(DfxDtype dtype, uint16_t infinity)
{
	bool same = true, even = true, nearest = true;

	for (unsigned b = 0; b <= 0xffff; b++)
		if ((b & 0x7fff) <= infinity)
			same = same && narrow(dtype, widen(dtype, (uint16_t) b)) == b;
		else
			same = same && isnan(widen(dtype, narrow(dtype, widen(dtype, (uint16_t) b))));
	for (unsigned b = 0; b + 1 < infinity; b++)
	{
		float lo = widen(dtype, (uint16_t) b), hi = widen(dtype, (uint16_t) (b + 1));
		float middle = (float) (((double) lo + hi) / 2);

		even = even && narrow(dtype, middle) == b + (b & 1) &&
		       narrow(dtype, -middle) == (0x8000 | (b + (b & 1)));
		nearest = nearest && narrow(dtype, nextafterf(middle, lo)) == b &&
		          narrow(dtype, nextafterf(middle, hi)) == b + 1;
	}
	ok(same, "%s: all numbers survive the way through F32", dfx_dtype_name(dtype));
	ok(even, "%s: halves go to the even number", dfx_dtype_name(dtype));
	ok(nearest, "%s: others to the nearest", dfx_dtype_name(dtype));
}

static void
test_narrowing_edges(void)
{
	static const float value[4] = {65519, 65520, INFINITY, -1e-30f};
	uint16_t out[4];
	float same[4];

	ok(dfx_tensor_of_f32(DFX_F16, value, 1, out) && out[0] == 0x7bff,
	   "F16: what rounds to the largest number does");
	ok(!dfx_tensor_of_f32(DFX_F16, value, 2, out) && out[1] == 0x7c00, "F16: what does not is told");
	ok(dfx_tensor_of_f32(DFX_F16, value + 2, 2, out) && out[0] == 0x7c00 && out[1] == 0x8000,
	   "F16: infinity stays, what is too small becomes a zero");
	ok(dfx_tensor_of_f32(DFX_F32, value, 4, same) && memcmp(same, value, sizeof value) == 0, "F32 is copied");
	ok(!dfx_tensor_of_f32(DFX_I64, value, 1, out), "I64 is not made of floats");
}

int
main(void)
{
	size_t len;
	char *golden = (char *) slurp("tests/golden/floats.txt", &len);

	test_dtypes();
	test_counts();
	test_other_conversions();
	test_narrowing(DFX_F16, 0x7c00);
	test_narrowing(DFX_BF16, 0x7f80);
	test_narrowing_edges();
	if (ok(golden != NULL, "tests/golden/floats.txt can be read"))
		for (char *line = strtok(golden, "\n"); line; line = strtok(NULL, "\n"))
			check_conversion(line);
	free(golden);
	return done_testing();
}
