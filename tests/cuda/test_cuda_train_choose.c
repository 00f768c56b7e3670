/*
 * test_cuda_train_choose.c
 *	  Who computes the products of a training step: is a library used where it
 *	  is right, whatever the clock says, for whole batches only, never to add to
 *	  its own output unless it can; is a wrong one found out?
 */
#include "cuda/train.h"
#include "tests/backend/train_subject.h"
#include "tests/cuda/fake_lib.h"

enum
{
	BATCH = 3,
	PRODUCTS = 8, /* four forward, four backward */
	WITH_BIAS = 4,
	ADDING = 1
};

/* Four products; two of them read one value, whose gradient is therefore added to. */
static DfxGraph *
four_products(void)
{
	DfxGraph *g = dfx_graph_new();
	DfxVal x = dfx_input_f32(g, 16, 4, 4), y;
	DfxErr err;

	x = dfx_act(g, dfx_conv(g, x, "a", 24, DFX_CONV2D(3, 1, 1), true), DFX_ACT_SILU);
	y = dfx_add(g, dfx_conv(g, x, "b", 16, DFX_CONV2D(1, 1, 0), true),
	            dfx_conv(g, x, "c", 16, DFX_CONV2D(3, 1, 1), true));
	dfx_output(g, dfx_linear(g, dfx_pool(g, y, (DfxPool){.avg = true}), "d", 8), "out");
	if (dfx_graph_finish(g, &err) != DFX_OK || dfx_weights_random(g, 3, &err) != DFX_OK)
		abort();
	/* Biases that matter. */
	for (int i = 0; i < g->nparam; i++)
		for (size_t k = 0; g->param[i].role == DFX_ROLE_BIAS && k < dfx_param_count(&g->param[i]); k++)
			g->param[i].data[k] *= 20;
	return g;
}

static int
count_list(const GpuTrainList *list, const GpuLib *lib)
{
	int n = 0;

	for (int i = 0; i < list->n; i++)
		n += list->step[i].choice.lib == lib;
	return n;
}

/* Train with a fake library on whole batches and on smaller ones; how many products it has got. */
static int
train_with(FakeLib *f, const char *what)
{
	GpuLib *const lib[GPU_LIBS] = {&f->lib, NULL};
	DfxDevOpts opts = {0};
	DfxPlanOpts plan_opts = {.max_batch = BATCH, .precision = DFX_PRECISION_BF16, .train = true};
	Subject on = {.be = &host_backend, .precision = DFX_PRECISION_BF16, .tolerance = 2e-2};
	DfxGraph *g = four_products();
	DfxPlan *plan = NULL;
	DfxErr err = {0};
	int n = -1, tried;

	f->lib.ops = f->lib.ops ? f->lib.ops : &fake_ops;
	f->rt = host_rt_new();
	logged[0] = '\0';
	if (ok(gpu_device_new(&f->rt->rt, lib, &opts, NULL, &on.dev, &err) == DFX_OK &&
	           gpu_compile(on.dev, g, &plan_opts, &plan, &err) == DFX_OK,
	       "%s: a plan is made", what))
	{
		n = count_list(&plan->train->forward, &f->lib) + count_list(&plan->train->backward, &f->lib);
		gpu_release(plan);
		tried = f->run;
		trains_as_ref(&on, g, BATCH, BATCH, (TrainTolerance){0}, what);
		ok(f->run == tried + n, "%s: it is asked for its %d products, and tried no more", what, n);
		trains_as_ref(&on, g, BATCH, BATCH - 1, (TrainTolerance){0}, what);
		ok(f->run == tried + n, "%s: it is not asked for a smaller batch", what);
	}
	else
		diag("%s", err.msg);
	gpu_close(on.dev);
	ok(f->rt->blocks == 0 && f->built == f->dropped, "%s: all is given back", what);
	dfx_graph_free(g);
	free(f->rt);
	return n;
}

int
main(void)
{
	GpuLibOps adds = fake_ops;
	FakeLib quick = {.cost = 0.1}, slow = {.cost = 10}, wrong = {.cost = 0.1, .wrong = true};
	FakeLib refusing = {.cost = 0.1, .refuses = true}, failing = {.cost = 0.1, .fails = true};
	FakeLib adding = {.lib.ops = &adds, .cost = 0.1};

	adds.adds_in_place = true;
	dfx_log_set_sink(keep_log, NULL);
	ok(train_with(&quick, "a quick library") == PRODUCTS - ADDING,
	   "it gets all but what is added to its output");
	ok(train_with(&adding, "one that adds in place") == PRODUCTS, "it gets that, too");
	ok(train_with(&slow, "a slow library") == PRODUCTS - ADDING, "the clock has no say");
	ok(train_with(&wrong, "a wrong library") == PRODUCTS - ADDING - WITH_BIAS,
	   "it is found out where it is wrong");
	ok(strstr(logged, "W fake computes train 3 bf16") && strstr(logged, "differently from the plain kernel"),
	   "which the log says");
	ok(train_with(&refusing, "a library that refuses") == 0, "its products run on our kernels");
	ok(train_with(&failing, "a library that fails") == 0, "its products run on our kernels");
	return done_testing();
}
