/*
 * test_cuda_overlap.c
 *	  Are batches of several threads really under way at one time, with the
 *	  results that their images have alone; from page-locked memory without a
 *	  copy; beside compilations; and does a failure of one leave the others, and
 *	  the lanes, as they were?
 */
#include "tests/backend/against_ref.h"
#include "tests/backend/large_sums.h"
#include "tests/cuda/host_rt.h"

#define IMAGES 13
#define ROUNDS 60

/* A network, what it gives for each image alone, and the images. */
typedef struct Net
{
	DfxDev *dev;
	HostRt *rt;
	DfxGraph *g;
	DfxPlan *plan;
	char *in;
	size_t in_bytes, out_floats;
	float *alone;
} Net;

static DfxGraph *
small_graph(DfxDev *dev)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_input_f32(g, 16, 4, 4);
	DfxErr err;

	x = dfx_act(g, dfx_conv(g, x, "3x3", 16, DFX_CONV2D(3, 1, 1), true), DFX_ACT_RELU);
	dfx_output(g, dfx_linear(g, dfx_pool(g, x, (DfxPool){.avg = true}), "linear", 8), "out");
	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 3, &err) != DFX_OK ||
	    dfx_graph_optimize(g, gpu_supports, dev, &err) != DFX_OK)
		abort();
	return g;
}

/* A device of its own, on which g (NULL: a small network) is compiled for batches of max_batch. */
static void
net_open(Net *net, DfxGraph *g, int max_batch)
{
	DfxDevOpts opts = {0};
	DfxPlanOpts plan_opts = {.max_batch = max_batch, .precision = DFX_PRECISION_FP16};
	DfxErr err;
	bool rgb8;

	*net = (Net){.rt = host_rt_new()};
	net->dev = host_device(net->rt, &opts);
	net->g = g ? g : small_graph(net->dev);
	if (gpu_compile(net->dev, net->g, &plan_opts, &net->plan, &err) != DFX_OK)
		abort();
	net->in_bytes = graph_input_bytes(net->g, &rgb8);
	net->out_floats = graph_output_floats(net->g, 0);
	net->in = noise_images(net->g, IMAGES, 7);
	net->alone = calloc(IMAGES * net->out_floats, sizeof *net->alone);
	for (int i = 0; i < IMAGES; i++)
	{
		float *const out[DFX_MAX_OUT] = {net->alone + (size_t) i * net->out_floats};

		if (gpu_forward(net->plan, net->in + (size_t) i * net->in_bytes, 1, out, &err) != DFX_OK)
			abort();
	}
	net->rt->most_in_flight = 0;
}

static void
net_close(Net *net, const char *what)
{
	gpu_release(net->plan);
	gpu_close(net->dev);
	ok(net->rt->blocks == 0 && net->rt->graphs == 0 && net->rt->locks == 0 && net->rt->in_flight == 0,
	   "%s: all is given back, nothing is in flight", what);
	dfx_graph_free(net->g);
	free(net->rt);
	free(net->in);
	free(net->alone);
}

/* Images first .. first + n - 1 of in, which is net->in or a copy of it; are they what they are alone? */
static bool
same_alone(const Net *net, const char *in, int first, int n, DfxStatus *st, DfxErr *err)
{
	float *got = calloc((size_t) n * net->out_floats, sizeof *got);
	float *const out[DFX_MAX_OUT] = {got};
	bool same;

	*st = gpu_forward(net->plan, in + (size_t) first * net->in_bytes, n, out, err);
	same = *st == DFX_OK && relative_error(got, net->alone + (size_t) first * net->out_floats,
	                                       (size_t) n * net->out_floats) < 1e-6;
	free(got);
	return same;
}

/* ---- callers ---- */

typedef struct Caller
{
	const Net *net;
	int first, rounds;
	int most; /* images of a batch */
	bool compiles;
	int wrong;
	DfxStatus st; /* of the last */
	DfxErr err;
} Caller;

static void *
call(void *arg)
{
	Caller *c = arg;
	DfxPlanOpts opts = {.max_batch = 4, .precision = DFX_PRECISION_FP16};
	DfxGraph *g = c->compiles ? small_graph(c->net->dev) : NULL;
	DfxPlan *plan;

	for (int i = 0; i < c->rounds && c->st == DFX_OK; i++)
		if (c->compiles)
		{
			c->st = gpu_compile(c->net->dev, g, &opts, &plan, &c->err);
			if (c->st == DFX_OK)
				gpu_release(plan);
		}
		else
			c->wrong +=
			    !same_alone(c->net, c->net->in, c->first, 1 + (c->first + i) % c->most, &c->st, &c->err);
	if (g)
		dfx_graph_free(g);
	return NULL;
}

static void
call_all(Caller *c, int n)
{
	pthread_t thread[8];

	for (int i = 0; i < n; i++)
		if (pthread_create(&thread[i], NULL, call, &c[i]) != 0)
			abort();
	for (int i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
}

/* Nobody's batch ends before there were two in flight: a device that does one after the other would not get
 * on. */
static void
check_two(void)
{
	Net net;
	Caller c[2];

	net_open(&net, NULL, 4);
	for (int i = 0; i < 2; i++)
		c[i] = (Caller){.net = &net, .first = 4 * i, .rounds = 1, .most = 4};
	net.rt->meet = 2;
	call_all(c, 2);
	ok(net.rt->most_in_flight == 2, "the batches of two threads are in flight at one time");
	ok(c[0].wrong + c[1].wrong == 0, "and give what their images give alone");
	net_close(&net, "two batches");
}

static void
check_many(void)
{
	Net net;
	Caller c[5];
	int wrong = 0, failed = 0;

	/* Buckets of 4 at the most for batches of 5: some are two pieces, which want both lanes. */
	net_open(&net, NULL, 5);
	net.plan->nbucket = 3;
	for (int i = 0; i < 5; i++)
		c[i] =
		    (Caller){.net = &net, .first = i, .rounds = i == 4 ? 2 : ROUNDS, .most = 5, .compiles = i == 4};
	call_all(c, 5);
	for (int i = 0; i < 5; i++)
	{
		wrong += c[i].wrong;
		failed += c[i].st != DFX_OK;
	}
	ok(wrong == 0 && failed == 0,
	   "four threads with batches of all sizes, and one that compiles: %d wrong, %d failed", wrong, failed);
	ok(net.rt->most_in_flight == 2, "two batches at a time");
	net_close(&net, "many batches");
}

static void
check_pieces(void)
{
	Net net;
	DfxStatus st;
	DfxErr err = {0};
	DfxDevInfo before, after;

	net_open(&net, NULL, IMAGES);
	net.plan->nbucket = 3;
	net.rt->meet = 2;
	gpu_info(net.dev, &before);
	ok(same_alone(&net, net.in, 0, IMAGES, &st, &err), "one thread's batch in four pieces is right");
	gpu_info(net.dev, &after);
	ok(net.rt->most_in_flight == 2, "and keeps both lanes busy");
	ok(after.lanes == 2 && after.in_turn && after.busy_ns > before.busy_ns,
	   "which the device says, and for how long");
	net_close(&net, "pieces");
}

/* ---- page-locked memory ---- */

static void
check_locked(void)
{
	Net net;
	DfxStatus st;
	DfxErr err = {0};
	size_t bytes;
	char *room;

	net_open(&net, NULL, 4);
	bytes = IMAGES * net.in_bytes;
	room = malloc(bytes);
	memcpy(room, net.in, bytes);
	ok(gpu_lock(net.dev, room, 4 * net.in_bytes, &err) == DFX_OK && net.rt->locks == 1, "memory is locked");
	net.rt->staged = 0;
	ok(same_alone(&net, room, 0, 4, &st, &err) && net.rt->staged == 0, "images go up from there");
	ok(same_alone(&net, room, 1, 3, &st, &err) && net.rt->staged == 0, "also from within");
	ok(same_alone(&net, room, 1, 4, &st, &err) && net.rt->staged == 1, "not those that end outside of it");
	ok(same_alone(&net, net.in, 1, 4, &st, &err) && net.rt->staged == 2, "nor those from elsewhere");
	gpu_unlock(net.dev, room);
	ok(net.rt->locks == 0 && same_alone(&net, room, 1, 3, &st, &err) && net.rt->staged > 2,
	   "nor those from memory that is not locked any more");

	net.rt->refuses_locks = true;
	ok(gpu_lock(net.dev, room, bytes, &err) == DFX_EDEVICE && strstr(err.msg, "does not lock"),
	   "a refusal is told");
	ok(same_alone(&net, room, 1, 3, &st, &err), "and harms nothing");
	net.rt->refuses_locks = false;
	for (int i = 0; i < GPU_LOCKS; i++)
		if (gpu_lock(net.dev, room + i, 1, &err) != DFX_OK)
			ok(false, "piece %d is locked", i);
	ok(gpu_lock(net.dev, room + GPU_LOCKS, 1, &err) == DFX_EUNSUPPORTED, "there is an end to it");
	for (int i = 0; i < GPU_LOCKS; i++)
		gpu_unlock(net.dev, room + i);
	net_close(&net, "locked memory");
	free(room);
}

/* Neither locked nor copied: the device's library does what it can. */
static void
check_unlocked(void)
{
	Net net;
	DfxStatus st;
	DfxErr err = {0};

	net_open(&net, NULL, 4);
	for (int l = 0; l < GPU_LANES; l++)
		if (net.plan->lane[l].in_host)
		{
			net.rt->rt.ops->release_host(&net.rt->rt, net.plan->lane[l].in_host);
			net.plan->lane[l].in_host = NULL;
		}
	net.rt->refuses_host = true;
	ok(same_alone(&net, net.in, 0, 4, &st, &err) && same_alone(&net, net.in, 3, 2, &st, &err),
	   "no page-locked memory at all: batches are right");
	net_close(&net, "no locked memory");
}

/* ---- what goes wrong ---- */

static void
check_redone(void)
{
	Net net;
	Caller c[3];
	int wrong = 0;
	uint64_t before;

	net_open(&net, large_sums(gpu_supports, NULL, 1.5e5f, false), 4);
	before = net.plan->redone;
	for (int i = 0; i < 3; i++)
		c[i] = (Caller){.net = &net, .first = i, .rounds = ROUNDS, .most = 2};
	call_all(c, 3);
	for (int i = 0; i < 3; i++)
		wrong += c[i].wrong;
	ok(wrong == 0 && net.plan->redone == before + 3 * ROUNDS,
	   "batches of three threads done again in bf16: all counted");
	net_close(&net, "batches done again");
}

static void
check_lost(void)
{
	Net net;
	Caller c[2];

	net_open(&net, NULL, 4);
	for (int i = 0; i < 2; i++)
		c[i] = (Caller){.net = &net, .first = i, .rounds = 1, .most = 4};
	net.rt->meet = 2;
	net.rt->lose_after = net.rt->launches + 3;
	call_all(c, 2);
	ok(c[0].st == DFX_ELOST && c[1].st == DFX_ELOST,
	   "a device that is lost is lost to both that are in flight");
	ok(strstr(c[0].err.msg, "the device is gone") && strstr(c[1].err.msg, "the device is gone"),
	   "and says so to both");
	net_close(&net, "a lost device");
}

static void
check_refused(void)
{
	Net net;
	DfxStatus st;
	DfxErr err = {0};

	net_open(&net, NULL, IMAGES);
	net.plan->nbucket = 3;
	for (int i = 1; i <= 4; i++)
	{
		net.rt->fail_submit = i;
		same_alone(&net, net.in, 0, IMAGES, &st, &err);
		ok(st == DFX_EDEVICE && strstr(err.msg, "takes no batch") && net.rt->in_flight == 0,
		   "piece %d is refused: the batch fails, and nothing is left in flight", i);
		ok(same_alone(&net, net.in, 0, IMAGES, &st, &err), "the next one is right");
	}
	net_close(&net, "refusals");
}

int
main(void)
{
	Net net;
	Subject on = {.be = &host_backend, .precision = DFX_PRECISION_FP16, .tolerance = 2e-2};

	net_open(&net, NULL, 4);
	on.dev = net.dev;
	same_as_ref(&on, net.g, IMAGES, 0, "the network is the oracle's");
	net_close(&net, "one batch");
	check_two();
	check_many();
	check_pieces();
	check_locked();
	check_unlocked();
	check_redone();
	check_lost();
	check_refused();
	return done_testing();
}
