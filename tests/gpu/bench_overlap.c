/*
 * bench_overlap.c
 *	  What page-locked memory and a second lane are worth on a GPU, for part 8 of
 *	  run.sh.
 *
 *		bench_overlap upload BATCH SECONDS
 *		bench_overlap BACKBONE BRANCHES BATCH SECONDS
 *
 * One line of JSON.  upload: milliseconds of a forward that does next to nothing
 * with its pixels (it averages them), from page-locked memory and from other
 * memory.  A network: images per second by one thread and by as many as the
 * device has lanes, each of which gathers its batch first, as the engine does;
 * and the share of that time that the device computed.  Both sides take turns;
 * figures are medians over the rounds, ratios medians of those within a round.
 */
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "tests/backend/against_ref.h"
#include "tests/bench/bench.h"
#include "tests/gpu/gpu_device.h"

enum
{
	BENCH_ROUNDS = 9,
	BENCH_THREADS = 4,
	BENCH_FEW = 10 /* forwards of a round of upload */
};

static double
bench_median_ratio(const double *a, const double *b)
{
	double ratio[BENCH_ROUNDS];

	for (int i = 0; i < BENCH_ROUNDS; i++)
		ratio[i] = a[i] / b[i];
	return median(ratio, BENCH_ROUNDS);
}

/* A network ready to run, and a batch of images for it. */
typedef struct Bench
{
	const DfxBackend *be;
	DfxDev *dev;
	DfxGraph *g;
	DfxPlan *plan;
	int n;
	size_t bytes; /* of the batch */
	char *images;
	int lanes;
} Bench;

static DfxStatus
bench_compile(Bench *b, DfxErr *err)
{
	DfxPlanOpts opts = {.max_batch = b->n, .precision = DFX_PRECISION_FP16};
	DfxStatus st = dfx_weights_random(b->g, 1, err);
	bool rgb8;

	if (st == DFX_OK)
		st = dfx_graph_optimize(b->g, b->be->supports, b->dev, err);
	if (st == DFX_OK)
		st = b->be->compile(b->dev, b->g, &opts, &b->plan, err);
	if (st != DFX_OK)
		return st;
	b->bytes = (size_t) b->n * graph_input_bytes(b->g, &rgb8);
	b->images = noise_images(b->g, b->n, 1);
	return DFX_OK;
}

/* Whole pages for a batch, locked if they are to be. */
static char *
bench_room(const Bench *b, bool locked, DfxErr *err)
{
	size_t page = 4096, room = (b->bytes + page - 1) / page * page;
	char *p = aligned_alloc(page, room);

	if (!p)
		abort();
	memcpy(p, b->images, b->bytes);
	if (!locked || b->be->lock(b->dev, p, room, err) == DFX_OK)
		return p;
	free(p);
	return NULL;
}

/* ---- upload ---- */

static DfxStatus
bench_forwards(const Bench *b, const char *in, int times, double *ms, DfxErr *err)
{
	float out[3 * 1024], *const outs[DFX_MAX_OUT] = {out};
	double began = now(CLOCK_MONOTONIC);
	DfxStatus st = DFX_OK;

	for (int i = 0; st == DFX_OK && i < times; i++)
		st = b->be->forward(b->plan, in, b->n, outs, err);
	*ms = (now(CLOCK_MONOTONIC) - began) * 1e3 / times;
	return st;
}

static DfxStatus
bench_upload(Bench *b, double seconds, DfxErr *err)
{
	double locked_ms[BENCH_ROUNDS], other_ms[BENCH_ROUNDS], warm, ratio;
	char *locked, *other;
	DfxStatus st;
	DfxVal x;
	int times;

	x = dfx_pool(b->g, dfx_input_rgb8(b->g, 256, 256), (DfxPool){.k = 16, .s = 16, .avg = true});
	dfx_output(b->g, dfx_pool(b->g, x, (DfxPool){.avg = true}), "mean");
	st = dfx_graph_finish(b->g, err);
	if (st == DFX_OK)
		st = bench_compile(b, err);
	if (st != DFX_OK)
		return st;
	locked = bench_room(b, true, err);
	if (!locked)
		return err->code;
	other = bench_room(b, false, err);
	st = bench_forwards(b, locked, BENCH_FEW, &warm, err);
	if (st == DFX_OK)
		st = bench_forwards(b, other, BENCH_FEW, &warm, err);
	times = 1 + (int) (seconds * 1e3 / BENCH_ROUNDS / 2 / (warm + 0.01));
	for (int i = 0; st == DFX_OK && i < BENCH_ROUNDS; i++)
	{
		st = bench_forwards(b, locked, times, &locked_ms[i], err);
		if (st == DFX_OK)
			st = bench_forwards(b, other, times, &other_ms[i], err);
	}
	b->be->unlock(b->dev, locked);
	free(locked);
	free(other);
	ratio = st == DFX_OK ? bench_median_ratio(other_ms, locked_ms) : 0;
	if (st == DFX_OK)
		printf("{\"what\": \"upload\", \"batch\": %d, \"mb\": %.2f, \"locked_ms\": %.4f, \"other_ms\": %.4f, "
		       "\"ratio\": %.3f}\n",
		       b->n, (double) b->bytes / 1e6, median(locked_ms, BENCH_ROUNDS), median(other_ms, BENCH_ROUNDS),
		       ratio);
	return st;
}

/* ---- lanes ---- */

typedef struct Lane
{
	const Bench *b;
	char *in;
	double end;
	long images;
	DfxStatus st;
	DfxErr err;
} Lane;

/* Gather a batch and run it, over and over. */
static void *
bench_lane(void *arg)
{
	Lane *l = arg;
	const Bench *b = l->b;
	float *const none[DFX_MAX_OUT] = {NULL};

	do
	{
		memcpy(l->in, b->images, b->bytes);
		l->st = b->be->forward(b->plan, l->in, b->n, none, &l->err);
		l->images += b->n;
	} while (l->st == DFX_OK && now(CLOCK_MONOTONIC) < l->end);
	return NULL;
}

/* So many threads for so long: images per second, and the share of the time that the device computed. */
static DfxStatus
bench_round(const Bench *b, Lane *lane, int n, double seconds, double *rate, double *busy, DfxErr *err)
{
	pthread_t thread[BENCH_THREADS];
	DfxDevInfo before, after;
	double began = now(CLOCK_MONOTONIC), took;
	long images = 0;
	DfxStatus st = DFX_OK;

	b->be->info(b->dev, &before);
	for (int i = 0; i < n; i++)
	{
		lane[i].end = began + seconds;
		lane[i].images = 0;
		if (pthread_create(&thread[i], NULL, bench_lane, &lane[i]) != 0)
			abort();
	}
	for (int i = 0; i < n; i++)
	{
		pthread_join(thread[i], NULL);
		images += lane[i].images;
		if (lane[i].st != DFX_OK)
		{
			st = lane[i].st;
			*err = lane[i].err;
		}
	}
	took = now(CLOCK_MONOTONIC) - began;
	b->be->info(b->dev, &after);
	*rate = (double) images / took;
	*busy = (double) (after.busy_ns - before.busy_ns) * 1e-9 / took;
	return st;
}

static DfxStatus
bench_lanes(Bench *b, const char *name, int branches, double seconds, DfxErr *err)
{
	const DfxBackbone *bb = dfx_backbone_find(name);
	double rate[2][BENCH_ROUNDS], busy[2][BENCH_ROUNDS], each = seconds / BENCH_ROUNDS / 2, ratio;
	Lane lane[BENCH_THREADS] = {{.b = b}};
	DfxStatus st;

	if (!bb)
		return dfx_fail(err, DFX_EINVAL, "there is no backbone %s", name);
	st = branches == 1 ? dfx_build_backbone(b->g, bb, 10, err) : dfx_build_trinet(b->g, bb, 1, err);
	if (st == DFX_OK)
		st = bench_compile(b, err);
	for (int i = 0; st == DFX_OK && i < b->lanes; i++)
	{
		lane[i] = (Lane){.b = b, .in = bench_room(b, true, err)};
		st = lane[i].in ? DFX_OK : err->code;
	}
	if (st == DFX_OK)
		st = bench_round(b, lane, b->lanes, 0, &rate[0][0], &busy[0][0], err);
	for (int i = 0; st == DFX_OK && i < BENCH_ROUNDS; i++)
	{
		st = bench_round(b, lane, 1, each, &rate[0][i], &busy[0][i], err);
		if (st == DFX_OK)
			st = bench_round(b, lane, b->lanes, each, &rate[1][i], &busy[1][i], err);
	}
	for (int i = 0; i < b->lanes; i++)
		if (lane[i].in)
		{
			b->be->unlock(b->dev, lane[i].in);
			free(lane[i].in);
		}
	ratio = st == DFX_OK ? bench_median_ratio(rate[1], rate[0]) : 0;
	if (st == DFX_OK)
		printf("{\"what\": \"%s\", \"branches\": %d, \"batch\": %d, \"lanes\": %d, \"one\": %.1f, \"all\": "
		       "%.1f, "
		       "\"ratio\": %.3f, \"busy_one\": %.3f, \"busy_all\": %.3f}\n",
		       bb->name, branches, b->n, b->lanes, median(rate[0], BENCH_ROUNDS),
		       median(rate[1], BENCH_ROUNDS), ratio, median(busy[0], BENCH_ROUNDS),
		       median(busy[1], BENCH_ROUNDS));
	return st;
}

int
main(int argc, char **argv)
{
	bool upload = argc == 4 && strcmp(argv[1], "upload") == 0;
	Bench b = {.n = argc > 2 ? atoi(argv[argc - 2]) : 0};
	DfxDevInfo info;
	DfxErr err = {0};
	DfxStatus st;

	if ((!upload && argc != 5) || b.n < 1 || b.n > 1024)
	{
		fprintf(stderr, "usage: bench_overlap upload BATCH SECONDS\n"
		                "       bench_overlap BACKBONE BRANCHES BATCH SECONDS\n");
		return 2;
	}
	if (!gpu_open(&b.be, &b.dev))
		return 1;
	b.be->info(b.dev, &info);
	b.lanes = info.lanes < BENCH_THREADS ? info.lanes : BENCH_THREADS;
	b.g = dfx_graph_new();
	st = upload ? bench_upload(&b, atof(argv[3]), &err)
	            : bench_lanes(&b, argv[1], atoi(argv[2]), atof(argv[4]), &err);
	if (st != DFX_OK)
		fprintf(stderr, "bench_overlap: %s %s\n", err.msg, err.hint);
	if (b.plan)
		b.be->release(b.plan);
	b.be->close(b.dev);
	dfx_graph_free(b.g);
	free(b.images);
	return st == DFX_OK ? 0 : 1;
}
