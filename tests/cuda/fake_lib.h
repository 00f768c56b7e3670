/*
 * fake_lib.h
 *	  A library for products as tests want it, and a log that can be read.
 */
#ifndef DFX_TESTS_CUDA_FAKE_LIB_H
#define DFX_TESTS_CUDA_FAKE_LIB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/host_rt.h"

/* A library that computes by the plain kernel, or badly, or not at all. */
typedef struct FakeLib
{
	GpuLib lib;
	HostRt *rt;
	double cost;  /* milliseconds of a product */
	bool wrong;   /* forgets the bias */
	bool tidy;    /* makes 0 of a NaN in its first result */
	bool refuses; /* to make plans */
	bool fails;   /* to run */
	bool lethal;  /* its 3x3 convolutions are the end of the device */
	int patience; /* runs until it fails; 0: it does not */
	int built, recalled, dropped, run;
} FakeLib;

/* What it was asked for. */
typedef struct FakePlan
{
	GpuType type;
	int n;
} FakePlan;

static FakeLib *
fake(GpuLib *lib)
{
	return (FakeLib *) (void *) lib;
}

static void
fake_close(GpuLib *lib)
{
	(void) lib;
}

__attribute__((unused)) static bool
fake_fits_all(const GpuConvArgs *a, GpuType type)
{
	return a->groups == 1 && type != GPU_F32;
}

/* As cuBLASLt, it takes no prologues. */
static bool
fake_fits(const GpuConvArgs *a, GpuType type)
{
	return fake_fits_all(a, type) && !a->pre_scale;
}

static DfxStatus
fake_build(GpuLib *lib, const GpuConvArgs *a, const GpuProduct *p, GpuType type, int n, const char *saved,
           void **plan, DfxErr *err)
{
	FakePlan *made = malloc(sizeof *made);

	(void) a;
	(void) p;
	if (!made)
		abort();
	*made = (FakePlan){type, n};
	*plan = made;
	if (fake(lib)->refuses)
	{
		free(made);
		*plan = NULL;
		return dfx_fail(err, DFX_EUNSUPPORTED, "the fake does not want to");
	}
	fake(lib)->built++;
	fake(lib)->recalled += strcmp(saved, "two words") == 0;
	return DFX_OK;
}

static DfxStatus
fake_run(GpuLib *lib, void *plan, const GpuConvArgs *a, const GpuProduct *p, void *work, void *stream,
         DfxErr *err)
{
	FakeLib *f = fake(lib);
	const FakePlan *of = plan;
	GpuArgs args = {.conv = *a};
	HostRt *rt = f->rt;
	double tiled = rt->cost[GPU_CONV_TILED];
	DfxStatus st;

	(void) work;
	(void) stream;
	if (f->fails || (f->patience && f->run >= f->patience))
		return dfx_fail(err, DFX_EUNSUPPORTED, "the fake cannot");
	f->run++;
	if (f->lethal && a->kh == 3)
		rt->lose_after = rt->launches;
	args.conv.w = p->w;
	if (f->wrong)
		args.conv.epi.bias = NULL;
	rt->cost[GPU_CONV_TILED] = f->cost;
	/* Through the device's own launch, so that it is part of a graph. */
	st = rt->rt.ops->launch(&rt->rt, GPU_CONV_TILED, of->type, &args, 1, of->n, err);
	rt->cost[GPU_CONV_TILED] = tiled;
	if (f->tidy && of->type == GPU_F16 && (*(uint16_t *) a->y & 0x7fff) > 0x7c00)
		*(uint16_t *) a->y = 0;
	return st;
}

static char *
fake_save(GpuLib *lib, void *plan)
{
	(void) lib;
	(void) plan;
	return strdup("two\twords");
}

static void
fake_drop(GpuLib *lib, void *plan)
{
	fake(lib)->dropped++;
	free(plan);
}

__attribute__((unused)) static const GpuLibOps fake_ops = {
    .name = "fake",
    .close = fake_close,
    .fits = fake_fits,
    .build = fake_build,
    .run = fake_run,
    .save = fake_save,
    .drop = fake_drop,
};

static char logged[8192];

__attribute__((unused)) static void
keep_log(char level, const char *message, void *arg)
{
	size_t used = strlen(logged);

	(void) arg;
	snprintf(logged + used, sizeof logged - used, "%c %s\n", level, message);
}

#endif /* DFX_TESTS_CUDA_FAKE_LIB_H */
