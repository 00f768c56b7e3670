/*
 * bench_decode.c
 *	  What decoding and resizing cost on one core.
 *
 * Files given as arguments, or the golden photographs; for each the median of
 * several runs of: decode, resize with either kernel, and the whole
 * dfx_image_prepare(), exact and fast in alternation; of a PNG also the rows alone, as they are decoded and
 *by libpng, in alternation.  One JSON object a line.  Runs from the top of the tree.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "image/png_whole.h"
#include "image/resize.h"
#include "tests/unit/slurp.h"

#define RUNS 15

/* CPU time, which a busy machine disturbs less than the clock on the wall. */
static double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double) t.tv_sec * 1e3 + (double) t.tv_nsec / 1e6;
}

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return x < y ? -1 : x > y;
}

static double
median(double *times)
{
	qsort(times, RUNS, sizeof *times, by_value);
	return times[RUNS / 2];
}

static double
time_resize(const DfxResizeKernels *kernels, const DfxImage *image, uint8_t *dst)
{
	double times[RUNS];
	DfxErr err;

	for (int i = 0; i < RUNS; i++)
	{
		double start = now_ms();

		dfx_resize_with(kernels, image, DFX_RESIZE_SIDE, DFX_RESIZE_SIDE, dst, &err);
		times[i] = now_ms() - start;
	}
	return median(times);
}

/* Rows that nobody wants, all into the same place. */
typedef struct Discard
{
	DfxRowSink sink;
	uint8_t *row;
} Discard;

static DfxStatus
discard_begin(DfxRowSink *sink, uint32_t width, uint32_t height, DfxErr *err)
{
	Discard *d = (Discard *) sink;

	(void) height;
	d->row = malloc((size_t) width * 3);
	return d->row ? DFX_OK : dfx_fail(err, DFX_ENOMEM, "out of memory");
}

static uint8_t *
discard_row(DfxRowSink *sink)
{
	return ((Discard *) sink)->row;
}

static void
discard_commit(DfxRowSink *sink)
{
	(void) sink;
}

/* Milliseconds for a PNG's rows, larger images than max by libpng; negative for what is no PNG. */
static double
png_rows_ms(const uint8_t *bytes, size_t len, const DfxImageLimits *limits, size_t max)
{
	Discard d = {.sink = {discard_begin, discard_row, discard_commit}};
	double start = now_ms();
	bool whole;
	DfxErr err;
	DfxStatus st = dfx_png_decode_within(bytes, len, limits, max, &d.sink, &whole, &err);

	free(d.row);
	return st == DFX_OK ? now_ms() - start : -1;
}

static void
bench_png(const uint8_t *bytes, size_t len, const DfxImageLimits *limits)
{
	double ours[RUNS], libpng[RUNS];

	for (int i = 0; i < RUNS; i++)
	{
		ours[i] = png_rows_ms(bytes, len, limits, DFX_PNG_WHOLE_MAX);
		libpng[i] = png_rows_ms(bytes, len, limits, 0);
	}
	printf(",\"inflated_by\":");
	dfx_json_string(stdout, dfx_image_inflater());
	printf(",\"png_rows_ms\":%.2f,\"libpng_rows_ms\":%.2f", median(ours), median(libpng));
}

static int
bench_file(const char *path)
{
	DfxImageLimits limits = DFX_DEFAULT_LIMITS;
	uint8_t *dst = malloc((size_t) DFX_RESIZE_SIDE * DFX_RESIZE_SIDE * 3);
	double decode[RUNS], prepare[RUNS], fast[RUNS];
	DfxImage image = {0};
	DfxErr err;
	size_t len;
	uint8_t *bytes = slurp(path, &len);

	if (!bytes)
	{
		fprintf(stderr, "could not read \"%s\"\n", path);
		return 1;
	}
	for (int i = 0; i < RUNS; i++)
	{
		double start = now_ms();

		dfx_image_free(&image);
		if (dfx_image_decode(bytes, len, &limits, &image, &err) != DFX_OK)
		{
			fprintf(stderr, "%s: %s\n", path, err.msg);
			return 1;
		}
		decode[i] = now_ms() - start;
		start = now_ms();
		dfx_image_prepare(bytes, len, &limits, DFX_RESIZE_SIDE, dst, &err);
		prepare[i] = now_ms() - start;
		start = now_ms();
		dfx_image_prepare_fast(bytes, len, &limits, DFX_RESIZE_SIDE, dst, &err);
		fast[i] = now_ms() - start;
	}
	printf("{\"image\":");
	dfx_json_string(stdout, path);
	printf(",\"width\":%u,\"height\":%u,\"bytes\":%zu,\"decode_ms\":%.2f,\"resize_scalar_ms\":%.2f",
	       image.width, image.height, len, median(decode), time_resize(&dfx_resize_scalar, &image, dst));
	if (dfx_resize_avx2())
		printf(",\"resize_avx2_ms\":%.2f", time_resize(dfx_resize_avx2(), &image, dst));
	if (dfx_image_sniff(bytes, len) == DFX_FORMAT_PNG)
		bench_png(bytes, len, &limits);
	printf(",\"prepare_ms\":%.2f,\"prepare_fast_ms\":%.2f}\n", median(prepare), median(fast));
	dfx_image_free(&image);
	free(bytes);
	free(dst);
	return 0;
}

int
main(int argc, char **argv)
{
	int failed = 0;

	if (argc < 2)
		return bench_file("tests/golden/images/photo-420-q90.jpg") ||
		       bench_file("tests/golden/images/photo-progressive.jpg");
	for (int i = 1; i < argc; i++)
		failed |= bench_file(argv[i]);
	return failed;
}
