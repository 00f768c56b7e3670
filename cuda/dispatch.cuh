/*
 * dispatch.cuh
 *	  From a launch record to the function that does it: types, vector widths,
 *	  tile shapes.  How the function is run is the Runner's: a grid on the
 *	  device (launch.cu), loops on the host (tests/cuda).
 *
 * A Runner has
 *	each(op, rows, width)		op(row, i) for all rows and all i < width
 *	lanes<T>(op, rows, floats)	op(row, scratch, lanes), a team of lanes a row, with so many
 *								floats of scratch
 *	tiled<T>(conv, n)			tile.cuh
 *	mma<T, Shape>(conv, n)		mma.cuh
 * each of which returns 0 or an error's number.
 */
#ifndef DFX_CUDA_DISPATCH_CUH
#define DFX_CUDA_DISPATCH_CUH

#include "cuda/element.cuh"
#include "cuda/mma.cuh"
#include "cuda/tile.cuh"

#define GPU_DISPATCH_INVALID 1 /* cudaErrorInvalidValue */

template <class T> struct GpuInputOp
{
	GpuInputArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		gpu_input_at<T>(a, row, i);
	}
};

template <class T, int V> struct GpuMapOp
{
	GpuMapArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		gpu_map_at<T, V>(a, row, i * V);
	}
};

template <class T, int V> struct GpuBinaryOp
{
	GpuBinaryArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		gpu_binary_at<T, V>(a, row, i * V);
	}
};

template <class T, int V> struct GpuPoolOp
{
	GpuPoolArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		gpu_pool_at<T, V>(a, row, i * V);
	}
};

template <class T> struct GpuStackOp
{
	GpuStackArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		gpu_stack_at<T>(a, row, i);
	}
};

template <class T> struct GpuTokensOp
{
	GpuTokensArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		gpu_tokens_at<T>(a, row, i);
	}
};

template <class T> struct GpuConvDirectOp
{
	GpuConvArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		gpu_conv_direct_at<T>(a, row, i);
	}
};

template <class T> struct GpuOutputOp
{
	GpuOutputArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		if (!gpu_output_at<T>(a, row, i))
			*a.bad = 1; /* whoever writes last: all write the same */
	}
};

/* The larger of *to and v; bits of non-negative floats are in the floats' order. */
static GPU_HD void
gpu_keep_max(unsigned *to, float v)
{
	union
	{
		float f;
		unsigned u;
	} bits = {v};

#ifdef __CUDA_ARCH__
	if (bits.u > *(volatile unsigned *) to)
		atomicMax(to, bits.u);
#else
	if (bits.u > *to)
		*to = bits.u;
#endif
}

template <class T> struct GpuCompareOp
{
	GpuCompareArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		float size, diff = gpu_compare_at<T>(a, row, i, &size);

		gpu_keep_max(&a.result[0], diff);
		gpu_keep_max(&a.result[1], size);
	}
};

template <class T> struct GpuLayernormOp
{
	GpuLayernormArgs a;
	template <class Lanes> GPU_HD void operator()(size_t row, float *, const Lanes &lanes) const
	{
		gpu_layernorm_row<T>(a, row, lanes);
	}
};

/* Rows are (image, head, query), the query fastest. */
template <class T> struct GpuAttnOp
{
	GpuAttnArgs a;
	template <class Lanes> GPU_HD void operator()(size_t row, float *scratch, const Lanes &lanes) const
	{
		size_t tokens = (size_t) a.tokens, heads = (size_t) a.heads;

		gpu_attn_query<T>(a, row / tokens / heads, (int) (row / tokens % heads), (int) (row % tokens),
		                  scratch, lanes);
	}
};

/* Whether V channels at a time are aligned and without a rest. */
template <class T, int V>
static bool
gpu_wide(int c, int ld, const void *p)
{
	return c % V == 0 && ld % V == 0 && reinterpret_cast<uintptr_t>(p) % (sizeof(T) * V) == 0;
}

template <class T, class Runner>
static int
gpu_dispatch_map(Runner &r, const GpuMapArgs &a, size_t n)
{
	const int V = 16 / sizeof(T);
	size_t rows = n * (size_t) a.rows;

	if (gpu_wide<T, V>(a.c, a.ldx, a.x) && gpu_wide<T, V>(a.c, a.ldy, a.y))
		return r.each(GpuMapOp<T, V>{a}, rows, a.c / V);
	return r.each(GpuMapOp<T, 1>{a}, rows, a.c);
}

template <class T, class Runner>
static int
gpu_dispatch_binary(Runner &r, const GpuBinaryArgs &a, size_t n)
{
	const int V = 16 / sizeof(T);
	size_t rows = n * (size_t) a.rows;

	if (gpu_wide<T, V>(a.c, a.lda, a.a) && gpu_wide<T, V>(a.c, a.ldb, a.b) && gpu_wide<T, V>(a.c, a.ldy, a.y))
		return r.each(GpuBinaryOp<T, V>{a}, rows, a.c / V);
	return r.each(GpuBinaryOp<T, 1>{a}, rows, a.c);
}

template <class T, class Runner>
static int
gpu_dispatch_pool(Runner &r, const GpuPoolArgs &a, size_t n)
{
	const int V = 16 / sizeof(T);
	size_t rows = n * (size_t) a.oh * (size_t) a.ow;

	/* A global pool has few results: one a thread keeps more of the device busy. */
	if (rows > n && gpu_wide<T, V>(a.c, a.ldx, a.x) && gpu_wide<T, V>(a.c, a.ldy, a.y))
		return r.each(GpuPoolOp<T, V>{a}, rows, a.c / V);
	return r.each(GpuPoolOp<T, 1>{a}, rows, a.c);
}

/* Whether the tensor-core path can take it. */
static inline bool
gpu_mma_fits(const GpuConvArgs &a)
{
	return a.groups == 1 && a.ci % GPU_MMA_CHUNK == 0 && a.ldx % GPU_MMA_CHUNK == 0 &&
	       reinterpret_cast<uintptr_t>(a.x) % 16 == 0 && reinterpret_cast<uintptr_t>(a.w) % 16 == 0;
}

template <class T, class Runner> struct GpuMmaDispatch
{
	static int run(Runner &r, const GpuConvArgs &a, size_t n)
	{
		if (!gpu_mma_fits(a))
			return GPU_DISPATCH_INVALID;
		if (a.co <= GpuMma32::N)
			return r.template mma<T, GpuMma32>(a, n);
		if (a.co <= GpuMma64::N || (a.co % GpuMma128::N != 0 && a.co < 2 * GpuMma128::N))
			return r.template mma<T, GpuMma64>(a, n);
		return r.template mma<T, GpuMma128>(a, n);
	}
};
template <class Runner> struct GpuMmaDispatch<float, Runner>
{
	static int run(Runner &, const GpuConvArgs &, size_t)
	{
		return GPU_DISPATCH_INVALID;
	}
};

template <class T, class Runner>
static int
gpu_dispatch_type(Runner &r, GpuKernel kernel, const GpuArgs &a, size_t n)
{
	switch (kernel)
	{
		case GPU_INPUT:
			return r.each(GpuInputOp<T>{a.input}, n * (size_t) a.input.pixels, a.input.width);
		case GPU_MAP:
			return gpu_dispatch_map<T>(r, a.map, n);
		case GPU_BINARY:
			return gpu_dispatch_binary<T>(r, a.binary, n);
		case GPU_POOL:
			return gpu_dispatch_pool<T>(r, a.pool, n);
		case GPU_STACK:
			return r.each(GpuStackOp<T>{a.stack}, n, a.stack.c);
		case GPU_TOKENS:
			return r.each(GpuTokensOp<T>{a.tokens}, n * (size_t) a.tokens.tokens, a.tokens.c);
		case GPU_LAYERNORM:
			return r.template lanes<T>(GpuLayernormOp<T>{a.layernorm}, n * (size_t) a.layernorm.rows, 0);
		case GPU_ATTN:
			return r.template lanes<T>(GpuAttnOp<T>{a.attn},
			                           n * (size_t) a.attn.heads * (size_t) a.attn.tokens, a.attn.tokens);
		case GPU_CONV_DIRECT:
			return r.each(GpuConvDirectOp<T>{a.conv}, n * (size_t) a.conv.oh * (size_t) a.conv.ow, a.conv.co);
		case GPU_CONV_TILED:
			return r.template tiled<T>(a.conv, n);
		case GPU_CONV_MMA:
			return GpuMmaDispatch<T, Runner>::run(r, a.conv, n);
		case GPU_OUTPUT:
			return r.each(GpuOutputOp<T>{a.output}, n * (size_t) a.output.pixels, a.output.c);
		case GPU_COMPARE:
			return r.each(GpuCompareOp<T>{a.compare}, n * (size_t) a.compare.rows, a.compare.c);
		case GPU_KERNEL_COUNT:
			break;
	}
	return GPU_DISPATCH_INVALID;
}

template <class Runner>
static int
gpu_dispatch(Runner &r, GpuKernel kernel, GpuType type, const GpuArgs &a, size_t n)
{
	switch (type)
	{
		case GPU_F32:
			return gpu_dispatch_type<float>(r, kernel, a, n);
		case GPU_F16:
			return gpu_dispatch_type<__half>(r, kernel, a, n);
		case GPU_BF16:
			return gpu_dispatch_type<__nv_bfloat16>(r, kernel, a, n);
		case GPU_TYPE_COUNT:
			break;
	}
	return GPU_DISPATCH_INVALID;
}

#endif /* DFX_CUDA_DISPATCH_CUH */
