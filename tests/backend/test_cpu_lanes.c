/*
 * test_cpu_lanes.c
 *	  Do forwards that run side by side on the CPU give the bits that they give
 *	  alone, while plans come and go beside them?
 */
#include <pthread.h>

#include "cpu/cpu.h"
#include "tests/backend/against_ref.h"
#include "tests/unit/tiny_nets.h"

#define LANES   3
#define CALLERS 5 /* more than there are workers: some wait */
#define ROUNDS  20
#define IMAGES  8

/* A network, what it gives for each image alone, and the images. */
typedef struct Net
{
	DfxGraph *g;
	DfxPlan *plan;
	char *in;
	size_t in_bytes, out_floats;
	float *alone;
} Net;

typedef struct Caller
{
	DfxDev *dev;
	const Net *net;
	int number, wrong, failed;
} Caller;

static bool
net_open(Net *net, DfxDev *dev, const DfxBackbone *bb, bool tri)
{
	DfxPlanOpts opts = {.max_batch = IMAGES};
	DfxErr err = {.msg = ""};
	bool good = true, rgb8;

	*net = (Net){.g = dfx_graph_new()};
	good =
	    (tri ? dfx_build_trinet(net->g, bb, 1, &err) : dfx_build_backbone(net->g, bb, 10, &err)) == DFX_OK &&
	    dfx_weights_random(net->g, 3, &err) == DFX_OK &&
	    dfx_graph_optimize(net->g, dfx_cpu_backend.supports, dev, &err) == DFX_OK &&
	    dfx_cpu_backend.compile(dev, net->g, &opts, &net->plan, &err) == DFX_OK;
	if (!good)
	{
		diag("%s", err.msg);
		return false;
	}
	net->in_bytes = graph_input_bytes(net->g, &rgb8);
	net->out_floats = graph_output_floats(net->g, 0);
	net->in = noise_images(net->g, IMAGES, 7);
	net->alone = calloc(IMAGES, net->out_floats * sizeof *net->alone);
	for (int i = 0; i < IMAGES; i++)
	{
		float *const out[DFX_MAX_OUT] = {net->alone + (size_t) i * net->out_floats};

		good = good && dfx_cpu_backend.forward(net->plan, net->in + (size_t) i * net->in_bytes, 1, out,
		                                       &err) == DFX_OK;
	}
	return good;
}

static void
net_close(Net *net)
{
	dfx_cpu_backend.release(net->plan);
	dfx_graph_free(net->g);
	free(net->in);
	free(net->alone);
}

/* Batches of every size, the callers out of step. */
static void *
call(void *arg)
{
	Caller *c = arg;

	for (int r = 0; r < ROUNDS; r++)
	{
		const Net *net = &c->net[(r + c->number) % 2];
		int n = 1 + (r + 3 * c->number) % IMAGES, first = (r * 5 + c->number) % (IMAGES - n + 1);
		float *got = calloc((size_t) n, net->out_floats * sizeof *got);
		float *const out[DFX_MAX_OUT] = {got};

		if (dfx_cpu_backend.forward(net->plan, net->in + (size_t) first * net->in_bytes, n, out, NULL) !=
		    DFX_OK)
			c->failed++;
		c->wrong += memcmp(got, net->alone + (size_t) first * net->out_floats,
		                   (size_t) n * net->out_floats * sizeof *got) != 0;
		free(got);
	}
	return NULL;
}

int
main(void)
{
	DfxDevOpts opts = {.threads = LANES};
	int wrong = 0, failed = 0, compiled = 0;
	pthread_t thread[CALLERS];
	Caller caller[CALLERS];
	DfxDevInfo info;
	Net net[2] = {0};
	DfxDev *dev;

	if (!ok(dfx_cpu_backend.open(&opts, &dev, NULL) == DFX_OK, "a device of %d workers opens", LANES))
		return done_testing();
	dfx_cpu_backend.info(dev, &info);
	ok(info.lanes == LANES && info.batch > 0, "it has a lane for each, for batches of %d", info.batch);
	if (!ok(net_open(&net[0], dev, &tiny_nets[0], true) && net_open(&net[1], dev, &tiny_nets[1], false),
	        "two networks run"))
		return done_testing();

	for (int i = 0; i < CALLERS; i++)
	{
		caller[i] = (Caller){.dev = dev, .net = net, .number = i};
		if (pthread_create(&thread[i], NULL, call, &caller[i]) != 0)
			abort();
	}
	for (int i = 0; i < ROUNDS; i++)
	{
		DfxPlanOpts po = {.max_batch = 1};
		DfxPlan *plan = NULL;

		compiled += dfx_cpu_backend.compile(dev, net[i % 2].g, &po, &plan, NULL) == DFX_OK;
		dfx_cpu_backend.release(plan);
	}
	for (int i = 0; i < CALLERS; i++)
	{
		pthread_join(thread[i], NULL);
		wrong += caller[i].wrong;
		failed += caller[i].failed;
	}
	ok(failed == 0, "%d forwards side by side all run", CALLERS * ROUNDS);
	ok(wrong == 0, "... and give the bits that they give alone");
	ok(compiled == ROUNDS, "plans are made and released meanwhile");
	net_close(&net[0]);
	net_close(&net[1]);
	dfx_cpu_backend.close(dev);
	return done_testing();
}
