/*
 * dispatch.cuh
 *	  From a launch record to the function that does it: types, vector widths,
 *	  tile shapes.  How the function is run is the Runner's: a grid on the
 *	  device (launch.cu), loops on the host (tests/cuda).
 *
 * Several records of one shape (those of the three branches) go together: a
 * group, of which a grid's z picks one.
 *
 * A Runner has
 *	each(group, rows, width)		op(row, i) for all rows and all i < width
 *	lanes<T>(group, rows, floats)	op(row, scratch, lanes), a team of lanes a row, with so many
 *									floats of scratch
 *	attn<T>(group, n)				attention with a head's keys and values copied together first
 *	tiled<T>(group, n)				tile.cuh
 *	mma<T, Shape>(group, n)			mma.cuh
 * for every op of the group, each of which returns 0 or an error's number.
 */
#ifndef DFX_CUDA_DISPATCH_CUH
#define DFX_CUDA_DISPATCH_CUH

#include "cuda/element.cuh"
#include "cuda/group.cuh"
#include "cuda/mma.cuh"
#include "cuda/tile.cuh"

#define GPU_ATTN_SHARED                                                                                      \
	((size_t) 64 << 10) /* bytes of a head: three blocks a multiprocessor, with the scores */

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
		size_t tokens = (size_t) a.tokens, heads = (size_t) a.heads, image = row / tokens / heads;
		int head = (int) (row / tokens % heads);

		gpu_attn_query<T, 1>(a, image, head, gpu_attn_head<T>(a, image, head), (int) (row % tokens), scratch,
		                     lanes);
	}
};

/* A product: its record is all there is to it. */
struct GpuConvOp
{
	GpuConvArgs a;
};

template <class T, class Runner>
static int
gpu_dispatch_map(Runner &r, const GpuArgs *args, int count, size_t n)
{
	const int V = 16 / sizeof(T);
	const GpuMapArgs &a = args[0].map;
	size_t rows = n * (size_t) a.rows;
	bool wide = true;

	for (int i = 0; i < count; i++)
		wide = wide && gpu_wide<T, V>(a.c, a.ldx, args[i].map.x) && gpu_wide<T, V>(a.c, a.ldy, args[i].map.y);
	if (wide)
		return r.each(gpu_group<GpuMapOp<T, V>>(args, count, &GpuArgs::map), rows, a.c / V);
	return r.each(gpu_group<GpuMapOp<T, 1>>(args, count, &GpuArgs::map), rows, a.c);
}

template <class T, class Runner>
static int
gpu_dispatch_binary(Runner &r, const GpuArgs *args, int count, size_t n)
{
	const int V = 16 / sizeof(T);
	const GpuBinaryArgs &a = args[0].binary;
	size_t rows = n * (size_t) a.rows;
	bool wide = true;

	for (int i = 0; i < count; i++)
		wide = wide && gpu_wide<T, V>(a.c, a.lda, args[i].binary.a) &&
		       gpu_wide<T, V>(a.c, a.ldb, args[i].binary.b) && gpu_wide<T, V>(a.c, a.ldy, args[i].binary.y);
	if (wide)
		return r.each(gpu_group<GpuBinaryOp<T, V>>(args, count, &GpuArgs::binary), rows, a.c / V);
	return r.each(gpu_group<GpuBinaryOp<T, 1>>(args, count, &GpuArgs::binary), rows, a.c);
}

template <class T, class Runner>
static int
gpu_dispatch_pool(Runner &r, const GpuArgs *args, int count, size_t n)
{
	const int V = 16 / sizeof(T);
	const GpuPoolArgs &a = args[0].pool;
	size_t rows = n * (size_t) a.oh * (size_t) a.ow;
	bool wide = rows > n; /* a global pool has few results: one a thread keeps more of the device busy */

	for (int i = 0; i < count; i++)
		wide =
		    wide && gpu_wide<T, V>(a.c, a.ldx, args[i].pool.x) && gpu_wide<T, V>(a.c, a.ldy, args[i].pool.y);
	if (wide)
		return r.each(gpu_group<GpuPoolOp<T, V>>(args, count, &GpuArgs::pool), rows, a.c / V);
	return r.each(gpu_group<GpuPoolOp<T, 1>>(args, count, &GpuArgs::pool), rows, a.c);
}

/* Bytes of shared memory for a head's keys and values. */
template <class T>
static GPU_HD size_t
gpu_attn_bytes(const GpuAttnArgs &a)
{
	return 2 * (size_t) a.tokens * (size_t) gpu_attn_pitch(a) * sizeof(T);
}

/* A head is copied to shared memory where it fits and goes by pairs of channels. */
template <class T, class Runner>
static int
gpu_dispatch_attn(Runner &r, const GpuArgs *args, int count, size_t n)
{
	const GpuAttnArgs &a = args[0].attn;
	bool copied = a.c / a.heads % 2 == 0 && gpu_attn_bytes<T>(a) <= GPU_ATTN_SHARED;

	for (int i = 0; i < count; i++)
		copied = copied && gpu_wide<T, 2>(a.c, a.ldx, args[i].attn.x) &&
		         gpu_wide<T, 2>(a.c, a.ldy, args[i].attn.y);
	if (copied)
		return r.template attn<T>(gpu_group<GpuAttnOp<T>>(args, count, &GpuArgs::attn), n);
	return r.template lanes<T>(gpu_group<GpuAttnOp<T>>(args, count, &GpuArgs::attn),
	                           n * (size_t) a.heads * (size_t) a.tokens, a.tokens);
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
	static int run(Runner &r, const GpuGroup<GpuConvOp> &group, size_t n)
	{
		int co = group.op[0].a.co;

		for (int i = 0; i < group.count; i++)
			if (!gpu_mma_fits(group.op[i].a))
				return GPU_DISPATCH_INVALID;
		if (co <= GpuMma32::N)
			return r.template mma<T, GpuMma32>(group, n);
		if (co <= GpuMma64::N || (co % GpuMma128::N != 0 && co < 2 * GpuMma128::N))
			return r.template mma<T, GpuMma64>(group, n);
		return r.template mma<T, GpuMma128>(group, n);
	}
};
template <class Runner> struct GpuMmaDispatch<float, Runner>
{
	static int run(Runner &, const GpuGroup<GpuConvOp> &, size_t)
	{
		return GPU_DISPATCH_INVALID;
	}
};

template <class T, class Runner>
static int
gpu_dispatch_type(Runner &r, GpuKernel kernel, const GpuArgs *args, int count, size_t n)
{
	const GpuArgs &a = args[0];

	switch (kernel)
	{
		case GPU_INPUT:
			return r.each(gpu_group<GpuInputOp<T>>(args, count, &GpuArgs::input), n * (size_t) a.input.pixels,
			              a.input.width);
		case GPU_MAP:
			return gpu_dispatch_map<T>(r, args, count, n);
		case GPU_BINARY:
			return gpu_dispatch_binary<T>(r, args, count, n);
		case GPU_POOL:
			return gpu_dispatch_pool<T>(r, args, count, n);
		case GPU_STACK:
			return r.each(gpu_group<GpuStackOp<T>>(args, count, &GpuArgs::stack), n, a.stack.c);
		case GPU_TOKENS:
			return r.each(gpu_group<GpuTokensOp<T>>(args, count, &GpuArgs::tokens),
			              n * (size_t) a.tokens.tokens, a.tokens.c);
		case GPU_LAYERNORM:
			return r.template lanes<T>(gpu_group<GpuLayernormOp<T>>(args, count, &GpuArgs::layernorm),
			                           n * (size_t) a.layernorm.rows, 0);
		case GPU_ATTN:
			return gpu_dispatch_attn<T>(r, args, count, n);
		case GPU_CONV_DIRECT:
			return r.each(gpu_group<GpuConvDirectOp<T>>(args, count, &GpuArgs::conv),
			              n * (size_t) a.conv.oh * (size_t) a.conv.ow, a.conv.co);
		case GPU_CONV_TILED:
			return r.template tiled<T>(gpu_group<GpuConvOp>(args, count, &GpuArgs::conv), n);
		case GPU_CONV_MMA:
			return GpuMmaDispatch<T, Runner>::run(r, gpu_group<GpuConvOp>(args, count, &GpuArgs::conv), n);
		case GPU_OUTPUT:
			return r.each(gpu_group<GpuOutputOp<T>>(args, count, &GpuArgs::output),
			              n * (size_t) a.output.pixels, a.output.c);
		case GPU_COMPARE:
			return r.each(gpu_group<GpuCompareOp<T>>(args, count, &GpuArgs::compare),
			              n * (size_t) a.compare.rows, a.compare.c);
		default: /* dispatch_train.cuh */
			return GPU_DISPATCH_INVALID;
	}
}

template <class Runner>
static int
gpu_dispatch(Runner &r, GpuKernel kernel, GpuType type, const GpuArgs *args, int count, size_t n)
{
	if (count < 1 || count > GPU_BRANCHES)
		return GPU_DISPATCH_INVALID;
	switch (type)
	{
		case GPU_F32:
			return gpu_dispatch_type<float>(r, kernel, args, count, n);
		case GPU_F16:
			return gpu_dispatch_type<__half>(r, kernel, args, count, n);
		case GPU_BF16:
			return gpu_dispatch_type<__nv_bfloat16>(r, kernel, args, count, n);
		case GPU_TYPE_COUNT:
			break;
	}
	return GPU_DISPATCH_INVALID;
}

#endif /* DFX_CUDA_DISPATCH_CUH */
