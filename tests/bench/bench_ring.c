/*
 * bench_ring.c
 *	  What the engine adds to decoding and inference: one warm client, one request at a time.
 *
 *	bench_ring [PINGS] [IMAGES]
 *
 * The overhead of a request is its round trip less what the engine's own
 * statistics say was spent decoding and inferring.  Set
 * DFX_ENGINE=build/dfx-engine to measure the program that is installed.
 */
#include "tests/backend/ring_client.h"
#include "tests/unit/slurp.h"

static int
by_value(const void *a, const void *b)
{
	double x = *(const double *) a, y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* n requests of one kind; prints percentiles of the round trip and of the overhead. */
static int
measure(Client *c, const char *what, DfxRingOp op, const uint8_t *data, size_t len, const uint8_t *version,
        int n)
{
	double *trip = malloc((size_t) n * sizeof *trip), *over = malloc((size_t) n * sizeof *over);
	DfxRingStats *s = &c->ring->engine[0].stats;

	for (int i = 0; i < n; i++)
	{
		uint64_t work = atomic_load(&s->decode_ns) + atomic_load(&s->inference_ns), t0 = client_now_ns();

		if (client_call(c, 0, op, data, len, version) != DFX_OK)
		{
			fprintf(stderr, "bench_ring: %s\n", client_slot(c, 0)->msg);
			return 1;
		}
		trip[i] = (double) (client_now_ns() - t0) / 1e3;
		work = atomic_load(&s->decode_ns) + atomic_load(&s->inference_ns) - work;
		over[i] = trip[i] - (double) work / 1e3;
	}
	qsort(trip, (size_t) n, sizeof *trip, by_value);
	qsort(over, (size_t) n, sizeof *over, by_value);
	printf("{\"request\": \"%s\", \"n\": %d, \"round_trip_us_p50\": %.1f, \"round_trip_us_p95\": %.1f, "
	       "\"overhead_us_p50\": %.1f, \"overhead_us_p95\": %.1f}\n",
	       what, n, trip[n / 2], trip[n * 95 / 100], over[n / 2], over[n * 95 / 100]);
	free(trip);
	free(over);
	return 0;
}

int
main(int argc, char **argv)
{
	static const DfxModelMeta meta = {.kind = "trinet",
	                                  .backbone = "resnet18",
	                                  .classes = "dm,gan,real",
	                                  .head_stride = 2,
	                                  .input_size = 256};
	int pings = argc > 1 ? atoi(argv[1]) : 20000, images = argc > 2 ? atoi(argv[2]) : 40;
	size_t small_len, large_len;
	uint8_t *small = slurp("tests/golden/images/jpeg-256x256.jpg", &small_len);
	uint8_t *large = slurp("tests/golden/images/photo-420-q90.jpg", &large_len);
	Stream m = stream_make(&meta, 1, NULL);
	Client c;
	int rc;

	if (!small || !large || pings < 1 || images < 1 || !client_start(&c, NULL))
	{
		fprintf(stderr, "bench_ring: run it in the repository's root, after make\n");
		return 1;
	}
	rc = measure(&c, "ping", DFX_RING_PING, NULL, 0, NULL, pings);
	if (client_load(&c, &m, 1, DFX_LOADER_BYTES) != DFX_OK)
		rc = 1;
	rc = rc || measure(&c, "classify, small image", DFX_RING_CLASSIFY, small, small_len, m.version, images);
	rc = rc || measure(&c, "classify, photograph", DFX_RING_CLASSIFY, large, large_len, m.version, images);
	client_stop(&c);
	free(small);
	free(large);
	free(m.bytes);
	return rc;
}
