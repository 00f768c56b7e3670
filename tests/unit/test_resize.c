/*
 * test_resize.c
 *	  Do the vectorised resize kernels give exactly what the plain ones give,
 *	  at every size, and stay inside their buffers?
 *
 * The plain kernels are held against Pillow in test_image_golden.c.
 */
#include <stdlib.h>
#include <string.h>

#include "image/resize.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/tap.h"

/* Noise, or only black and white, which shows saturation. */
static DfxImage
random_image(uint32_t width, uint32_t height)
{
	size_t n = (size_t) width * height * 3;
	DfxImage image = {.width = width, .height = height, .pixels = malloc(n)};
	bool extreme = fuzz_below(3) == 0;

	for (size_t i = 0; i < n; i++)
		image.pixels[i] = extreme ? (uint8_t) -fuzz_below(2) : (uint8_t) fuzz_next();
	return image;
}

static bool
same(const DfxResizeKernels *fast, uint32_t w, uint32_t h, uint32_t to_w, uint32_t to_h)
{
	DfxImage image = random_image(w, h);
	size_t n = (size_t) to_w * to_h * 3;
	uint8_t *a = malloc(n), *b = malloc(n);
	DfxErr err;
	bool equal;

	memset(b, 0xa5, n); /* so that a byte not written shows */
	equal = dfx_resize_with(&dfx_resize_scalar, &image, to_w, to_h, a, &err) == DFX_OK &&
	        dfx_resize_with(fast, &image, to_w, to_h, b, &err) == DFX_OK && memcmp(a, b, n) == 0;
	if (!equal)
		diag("%u x %u to %u x %u differs", w, h, to_w, to_h);
	free(a);
	free(b);
	free(image.pixels);
	return equal;
}

static void
compare_kernels(const DfxResizeKernels *fast)
{
	static const uint32_t sides[] = {1, 2, 3, 4, 5, 7, 16, 85, 255, 256, 257, 1021, 5000};
	const size_t n = sizeof sides / sizeof sides[0];
	bool equal = true;

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++)
			if (sides[i] * sides[j] < 300000)
				equal = same(fast, sides[i], sides[j], 256, 256) && equal;
	ok(equal, "%s: telling sizes to 256 x 256", fast->name);

	equal = true;
	for (int i = 0; i < 300; i++)
		equal = same(fast, 1 + (uint32_t) fuzz_below(300), 1 + (uint32_t) fuzz_below(300),
		             1 + (uint32_t) fuzz_below(120), 1 + (uint32_t) fuzz_below(120)) &&
		        equal;
	ok(equal, "%s: random sizes", fast->name);
	ok(same(fast, 30000, 1, 256, 256) && same(fast, 1, 30000, 256, 256), "%s: 30000 x 1 and 1 x 30000",
	   fast->name);
	ok(same(fast, 3, 2, 2000, 1500), "%s: enlarged", fast->name);
}

/* A constant image stays constant: the weights of every output sum to one. */
static void
test_constant(const DfxResizeKernels *kernels)
{
	bool constant = true;

	for (uint32_t w = 1; w < 2000; w = w * 3 + 1)
		for (int value = 0; value < 256; value += 51)
		{
			DfxImage image = random_image(w, 13);
			uint8_t out[40 * 30 * 3];
			DfxErr err;

			memset(image.pixels, value, (size_t) w * 13 * 3);
			constant = dfx_resize_with(kernels, &image, 40, 30, out, &err) == DFX_OK && constant;
			for (size_t i = 0; i < sizeof out; i++)
				constant = constant && out[i] == value;
			free(image.pixels);
		}
	ok(constant, "%s: a constant image stays constant", kernels->name);
}

static void
test_arguments(void)
{
	DfxImage image = random_image(4, 4), none = {0};
	uint8_t out[3];
	DfxErr err;

	ok(dfx_image_resize(&image, 0, 4, out, &err) == DFX_EINVAL, "no width: %s", err.msg);
	ok(dfx_image_resize(&image, 4, 0, out, &err) == DFX_EINVAL, "no height");
	ok(dfx_image_resize(&none, 1, 1, out, &err) == DFX_EINVAL, "an empty source");
	free(image.pixels);
}

int
main(void)
{
	const DfxResizeKernels *fast = dfx_resize_avx2();

	fuzz_begin();
	test_arguments();
	test_constant(&dfx_resize_scalar);
	if (fast)
	{
		test_constant(fast);
		compare_kernels(fast);
	}
	else
		ok(true, "vectorised kernels # SKIP this CPU has no AVX2");
	return done_testing();
}
