/*
 * test_cuda_lt.c
 *	  Do our calls of cuBLASLt say what we mean: matrices, residuals, biases and
 *	  channel ranges at any multiple of 16 bytes?  A library that does what the
 *	  documentation says (stub/cublaslt.c) must get what the plain kernel gets.
 *	  And is a call that fails taken for what it is, not for the device's end?
 */
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/host/launch.h"
#include "cuda/load.h"
#include "tests/cuda/host_rt.h"
#include "tests/cuda/stub_path.h"
#include "tests/unit/tap.h"

enum
{
	IMAGES = 2,
	SIDE = 3,
	ROWS = IMAGES * SIDE * SIDE,
	MOST = 64 /* channels from one row to the next */
};

static const struct
{
	const char *what;
	int ci, co, x0, y0; /* channels, and where their ranges begin in rows of MOST */
	bool add, in_place, relu;
	GpuType type;
} product[] = {
    {"a product", 32, 40, 0, 0, false, false, false, GPU_F16},
    {"with ReLU", 32, 40, 0, 0, false, false, true, GPU_F16},
    {"onto a residual", 16, 24, 0, 0, true, false, true, GPU_F16},
    {"onto its own output", 16, 24, 0, 0, true, true, false, GPU_BF16},
    {"in bf16", 32, 40, 0, 0, false, false, true, GPU_BF16},
    {"from a range of channels", 24, 40, 8, 0, false, false, true, GPU_F16},
    {"into a range of channels", 24, 16, 0, 24, false, false, true, GPU_F16},
    {"from one range onto another", 24, 16, 40, 8, true, true, false, GPU_BF16},
};

/* Operands as they would lie on the device, at multiples of 256 bytes. */
static struct
{
	_Alignas(256) uint16_t x[ROWS * MOST], add[ROWS * MOST], w[MOST * MOST], typed_bias[MOST];
	_Alignas(256) uint16_t want[ROWS * MOST], got[ROWS * MOST];
	float bias[MOST];
} o;

/* Small numbers that both half types hold: -1, -3/4 ... 3/4. */
static float
small_number(int i, uint16_t *half, GpuType type)
{
	static const uint16_t f16[] = {0xbc00, 0xba00, 0xb800, 0xb400, 0, 0x3400, 0x3800, 0x3a00};
	static const uint16_t bf16[] = {0xbf80, 0xbf40, 0xbf00, 0xbe80, 0, 0x3e80, 0x3f00, 0x3f40};
	int k = (i * 7 + i / 5) % 8;

	*half = type == GPU_F16 ? f16[k] : bf16[k];
	return (float) (k - 4) / 4;
}

static void
fill(GpuType type)
{
	for (int i = 0; i < ROWS * MOST; i++)
	{
		small_number(i, &o.x[i], type);
		small_number(i + 3, &o.add[i], type);
	}
	for (int i = 0; i < MOST * MOST; i++)
		small_number(i + 1, &o.w[i], type);
	for (int i = 0; i < MOST; i++)
		o.bias[i] = small_number(i + 2, &o.typed_bias[i], type);
	memcpy(o.want, o.add, sizeof o.want);
	memcpy(o.got, o.add, sizeof o.got);
}

static GpuArgs
product_args(size_t i)
{
	GpuArgs args = {.conv = {.x = o.x + product[i].x0,
	                         .w = o.w,
	                         .y = o.want + product[i].y0,
	                         .ci = product[i].ci,
	                         .co = product[i].co,
	                         .ldx = MOST,
	                         .ldy = MOST,
	                         .ih = SIDE,
	                         .iw = SIDE,
	                         .oh = SIDE,
	                         .ow = SIDE,
	                         .kh = 1,
	                         .kw = 1,
	                         .sh = 1,
	                         .sw = 1,
	                         .groups = 1}};
	GpuConvArgs *a = &args.conv;

	a->epi.bias = o.bias;
	a->epi.act = product[i].relu ? GPU_ACT_RELU : GPU_ACT_NONE;
	if (product[i].add)
	{
		a->epi.add = product[i].in_place ? a->y : o.add;
		a->epi.ldadd = MOST;
	}
	return args;
}

static void
check_product(GpuLib *lib, size_t i, void *work)
{
	GpuProduct p = {.w = o.w, .bias = o.typed_bias};
	GpuArgs args = product_args(i);
	GpuConvArgs *a = &args.conv;
	DfxErr err = {0};
	void *plan = NULL;
	DfxStatus st;

	fill(product[i].type);
	if (gpu_host_launch(GPU_CONV_TILED, product[i].type, &args, 1, IMAGES) != 0)
		abort();
	a->y = o.got + product[i].y0;
	if (product[i].in_place)
		a->epi.add = a->y;
	st = lib->ops->fits(a, product[i].type) ? DFX_OK : dfx_fail(&err, DFX_EUNSUPPORTED, "it does not fit");
	if (st == DFX_OK)
		st = lib->ops->build(lib, a, &p, product[i].type, IMAGES, "", &plan, &err);
	if (st == DFX_OK)
		st = lib->ops->run(lib, plan, a, &p, work, NULL, &err);
	if (!ok(st == DFX_OK && memcmp(o.got, o.want, sizeof o.got) == 0, "%s", product[i].what))
		diag("%s", st == DFX_OK ? "other numbers than the plain kernel's" : err.msg);
	if (plan)
		lib->ops->drop(lib, plan);
}

/* Whether the device is lost is not for a library to say. */
static void
check_failure(GpuLib *lib, void *work, int failed, DfxStatus wanted, const char *what)
{
	int *status = dlsym(RTLD_DEFAULT, "stub_matmul_status");
	GpuProduct p = {.w = o.w, .bias = o.typed_bias};
	GpuArgs args = product_args(0);
	DfxErr err = {0};
	void *plan = NULL;

	if (!status || lib->ops->build(lib, &args.conv, &p, GPU_F16, IMAGES, "", &plan, &err) != DFX_OK)
		abort();
	*status = failed;
	ok(lib->ops->run(lib, plan, &args.conv, &p, work, NULL, &err) == wanted, "%s: %s", what, err.msg);
	*status = CUBLAS_STATUS_SUCCESS;
	lib->ops->drop(lib, plan);
}

int
main(int argc, char **argv)
{
	HostRt *rt = host_rt_new();
	void *work = malloc(GPU_WORK_BYTES);
	GpuLib *lib;
	DfxErr err = {0};

	(void) argc;
	if (!ok(load_stub(argv[0], "libcublasLt.so.13"), "the library that pretends to be cuBLASLt loads"))
	{
		diag("%s", dlerror());
		return done_testing();
	}
	gpu_load_libraries(&err); /* cuDNN may be missing: nobody asks for it here */
	if (!ok(gpu_lt_open(&rt->rt, &lib, &err) == DFX_OK && strstr(rt->rt.versions, "cuBLAS 13.1"),
	        "and opens: %s", rt->rt.versions))
		return done_testing();
	for (size_t i = 0; i < sizeof product / sizeof product[0]; i++)
		check_product(lib, i, work);
	check_failure(lib, work, CUBLAS_STATUS_EXECUTION_FAILED, DFX_EDEVICE, "a launch that fails");
	check_failure(lib, work, CUBLAS_STATUS_NOT_SUPPORTED, DFX_EUNSUPPORTED, "a refusal");
	lib->ops->close(lib);
	free(work);
	free(rt);
	return done_testing();
}
