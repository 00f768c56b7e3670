/*
 * lib.h
 *	  A vendor library that can compute products, behind one small table.
 *
 * A library is asked for a plan for one product and one batch; what it cannot
 * do it refuses with a reason, and the plain kernels do it.  Who computes what
 * is decided by choose.c, by trying.
 */
#ifndef DFX_CUDA_LIB_H
#define DFX_CUDA_LIB_H

#include "base/err.h"
#include "cuda/kernels.h"

#define GPU_WORK_BYTES ((size_t) 32 << 20) /* what a plan may use beside its operands */

typedef enum GpuLibKind
{
	GPU_LIB_LT = 0, /* cuBLASLt: 1x1 convolutions and linear layers */
	GPU_LIB_DNN,    /* cuDNN: other convolutions, and 1x1 ones with a prologue */
	GPU_LIBS
} GpuLibKind;

/* A product as libraries want it. */
typedef struct GpuProduct
{
	const void *w;    /* [co][kh][kw][ci / groups]; NULL: not a product */
	const void *bias; /* in the program's type; NULL: none */
} GpuProduct;

typedef struct GpuLib GpuLib;

typedef struct GpuLibOps
{
	const char *name;
	void (*close)(GpuLib *lib);

	/* Whether a residual may be the output itself (epi.add == y). */
	bool adds_in_place;

	/* Whether it is worth asking. */
	bool (*fits)(const GpuConvArgs *a, GpuType type);

	/*
	 * A plan for n images.  saved: what an earlier plan for the same product
	 * gave for keeping, "" for none.  DFX_EUNSUPPORTED with the reason.
	 */
	DfxStatus (*build)(GpuLib *lib, const GpuConvArgs *a, const GpuProduct *p, GpuType type, int n,
	                   const char *saved, void **plan, DfxErr *err);

	/*
	 * On stream; work has GPU_WORK_BYTES.  Never DFX_ELOST: a plan that cannot be
	 * launched fails as well, and its product has a kernel of ours.  Whether the
	 * device is gone the next call of rt.h says.
	 */
	DfxStatus (*run)(GpuLib *lib, void *plan, const GpuConvArgs *a, const GpuProduct *p, void *work,
	                 void *stream, DfxErr *err);

	/* What to keep on disk so that the next build is quick; malloc'd text, NULL: nothing. */
	char *(*save)(GpuLib *lib, void *plan);
	void (*drop)(GpuLib *lib, void *plan);
} GpuLibOps;

struct GpuLib
{
	const GpuLibOps *ops;
};

/* How a product runs for one bucket: by a library's plan, or by the step's own kernel. */
typedef struct GpuChoice
{
	GpuLib *lib; /* NULL: kernel */
	void *plan;
	GpuKernel kernel;
} GpuChoice;

#endif /* DFX_CUDA_LIB_H */
