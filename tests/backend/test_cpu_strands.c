/*
 * test_cpu_strands.c
 *	  Does a lone image of a tri-branch net, whose branches run side by side
 *	  when workers are free, get the bits that one worker gives it?
 */
#include "tests/backend/cpu_precisions.h"
#include "tests/unit/tiny_nets.h"

#define WORKERS 4
#define IMAGES  6
#define ROUNDS  5 /* of each: who finishes last differs */

static Subject many, one; /* workers */

/* Whether all outputs of images first .. first + n - 1 are those of the whole batch, want. */
static bool
images_agree(DfxPlan *plan, const DfxGraph *g, const char *in, int first, int n, float *const want[])
{
	float *got[DFX_MAX_OUT] = {NULL};
	bool rgb8, good;

	in += (size_t) first * graph_input_bytes(g, &rgb8);
	for (int i = 0; i < g->nout; i++)
		got[i] = calloc((size_t) n * graph_output_floats(g, i), sizeof(float));
	good = dfx_cpu_backend.forward(plan, in, n, got, NULL) == DFX_OK;
	for (int i = 0; i < g->nout && good; i++)
	{
		size_t floats = graph_output_floats(g, i);

		good = memcmp(got[i], want[i] + (size_t) first * floats, (size_t) n * floats * sizeof(float)) == 0;
	}
	free_outputs(got);
	return good;
}

/* How many of the batches that leave workers free go wrong. */
static int
count_wrong(DfxPlan *plan, const DfxGraph *g, const char *in, float *const want[])
{
	int wrong = 0;

	for (int n = 1; n < WORKERS + 1; n++)
		for (int r = 0; r < ROUNDS; r++)
			wrong += !images_agree(plan, g, in, r % (IMAGES - n + 1), n, want);
	return wrong;
}

static void
check_net(const DfxBackbone *bb, bool tri)
{
	DfxGraph *g = dfx_graph_new();
	DfxPlanOpts opts = {.max_batch = IMAGES, .precision = many.precision};
	float *want[DFX_MAX_OUT] = {NULL};
	DfxErr err = {.msg = ""};
	DfxPlan *plan = NULL;
	char *in = NULL;
	bool good;

	good = (tri ? dfx_build_trinet(g, bb, 2, &err) : dfx_build_backbone(g, bb, 3, &err)) == DFX_OK &&
	       dfx_weights_random(g, 5, &err) == DFX_OK &&
	       dfx_graph_optimize(g, dfx_cpu_backend.supports, many.dev, &err) == DFX_OK;
	if (good)
	{
		in = noise_images(g, IMAGES, 11);
		one.precision = many.precision;
		good = run_graph(&one, g, IMAGES, in, want, &err) == DFX_OK &&
		       dfx_cpu_backend.compile(many.dev, g, &opts, &plan, &err) == DFX_OK;
	}
	if (ok(good, "%s%s in %s", bb->name, tri ? ", three branches" : "", dfx_precision_name[many.precision]))
	{
		ok(dfx_cpu_plan_strands(plan) == (tri ? 3 : 1), "... is made of %d strand(s)",
		   dfx_cpu_plan_strands(plan));
		ok(count_wrong(plan, g, in, want) == 0, "... and few images at a time get one worker's bits");
	}
	else
		diag("%s", err.msg);
	if (plan)
		dfx_cpu_backend.release(plan);
	free_outputs(want);
	free(in);
	dfx_graph_free(g);
}

static void
check_nets(void)
{
	for (int i = 0; i < TINY_NETS; i++)
		check_net(&tiny_nets[i], true);
	check_net(&tiny_nets[0], false);
}

int
main(void)
{
	DfxDevOpts opts = {.threads = 1};

	one.be = &dfx_cpu_backend;
	if (!ok(dfx_cpu_backend.open(&opts, &one.dev, NULL) == DFX_OK, "a device of one worker opens"))
		return done_testing();
	for_cpu_precisions(&many, WORKERS, check_nets);
	dfx_cpu_backend.close(one.dev);
	return done_testing();
}
