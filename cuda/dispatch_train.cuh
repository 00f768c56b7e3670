/*
 * dispatch_train.cuh
 *	  From the records of kernels_train.h to the functions that do them, as
 *	  dispatch.cuh does for inference.  One record a launch.
 *
 * A Runner has, beside each and lanes,
 *	wgrad<T>(op, co blocks, depth blocks, chunks)	the tiles of a weight's gradient
 *	wgrad_mma<T, Shape>(op, chunks)					the same on tensor cores
 */
#ifndef DFX_CUDA_DISPATCH_TRAIN_CUH
#define DFX_CUDA_DISPATCH_TRAIN_CUH

#include "cuda/group.cuh"
#include "cuda/mma_train.cuh"
#include "cuda/reduce_train.cuh"

template <class Op, class Args>
static GpuGroup<Op>
gpu_one(const Args &a)
{
	GpuGroup<Op> group = {};

	group.count = 1;
	group.op[0] = Op{a};
	return group;
}

template <class T, class Runner>
static int
gpu_dispatch_pass(Runner &r, const GpuPassArgs &a, size_t n)
{
	const int V = 16 / sizeof(T);
	size_t rows = n * (size_t) a.rows;

	if (gpu_wide<T, V>(a.c, a.lddy, a.dy) && gpu_wide<T, V>(a.c, a.lddx, a.dx) &&
	    (a.act == GPU_ACT_NONE || gpu_wide<T, V>(a.c, a.ldx, a.x)))
		return r.each(gpu_one<GpuPassOp<T, V>>(a), rows, a.c / V);
	return r.each(gpu_one<GpuPassOp<T, 1>>(a), rows, a.c);
}

template <class T, class Runner>
static int
gpu_dispatch_norm(Runner &r, GpuKernel kernel, GpuNormArgs a, size_t n)
{
	const int V = 16 / sizeof(T);
	size_t rows = n * (size_t) a.rows, chunks;
	bool wide = gpu_wide<T, V>(a.c, a.ldx, a.x) && gpu_wide<T, V>(a.c, a.ldy, a.y);

	a.n = (int) n;
	chunks = a.chunk > 0 ? (size_t) gpu_norm_chunks(a) : 0;
	switch (kernel)
	{
		case GPU_BN_PART:
			return r.each(gpu_one<GpuBnPartOp<T>>(a), chunks, a.c);
		case GPU_BN_STATS:
			return r.template lanes<T>(gpu_one<GpuBnStatsOp>(a), (size_t) a.c, 0);
		case GPU_BN_MAP:
			return wide ? r.each(gpu_one<GpuBnMapOp<T, V>>(a), rows, a.c / V)
			            : r.each(gpu_one<GpuBnMapOp<T, 1>>(a), rows, a.c);
		case GPU_SUM_PART:
			return r.each(gpu_one<GpuSumPartOp<T>>(a), chunks, a.c);
		case GPU_SUM:
			return r.template lanes<T>(gpu_one<GpuSumOp>(a), (size_t) a.c, 0);
		default:
			wide = wide && gpu_wide<T, V>(a.c, a.lddy, a.dy);
			return wide ? r.each(gpu_one<GpuBnGradOp<T, V>>(a), rows, a.c / V)
			            : r.each(gpu_one<GpuBnGradOp<T, 1>>(a), rows, a.c);
	}
}

template <class T, class Runner> struct GpuWgradMmaDispatch
{
	static int run(Runner &r, const GpuWgradArgs &a, size_t chunks)
	{
		if (!gpu_wgrad_mma_fits(a))
			return GPU_DISPATCH_INVALID;
		if (a.conv.co <= GpuMma32::N)
			return r.template wgrad_mma<T, GpuMma32>(a, chunks);
		if (a.conv.co <= GpuMma64::N)
			return r.template wgrad_mma<T, GpuMma64>(a, chunks);
		return r.template wgrad_mma<T, GpuMma128>(a, chunks);
	}
};
template <class Runner> struct GpuWgradMmaDispatch<float, Runner>
{
	static int run(Runner &, const GpuWgradArgs &, size_t)
	{
		return GPU_DISPATCH_INVALID;
	}
};

template <class T, class Runner>
static int
gpu_dispatch_wgrad(Runner &r, GpuKernel kernel, GpuWgradArgs a, size_t n)
{
	size_t depth, chunks, co = (size_t) a.conv.co;

	a.n = (int) n;
	depth = (size_t) gpu_wgrad_depth(a);
	chunks = gpu_wgrad_chunks(a);
	switch (kernel)
	{
		case GPU_WGRAD_TILED:
			if (a.conv.groups != 1)
				return GPU_DISPATCH_INVALID;
			return r.template wgrad<T>(gpu_one<GpuWgradTiledOp<T>>(a), (co + GPU_TILE_M - 1) / GPU_TILE_M,
			                           (depth + GPU_TILE_N - 1) / GPU_TILE_N, chunks);
		case GPU_WGRAD_MMA:
			return GpuWgradMmaDispatch<T, Runner>::run(r, a, chunks);
		case GPU_WGRAD_DIRECT:
			return r.each(gpu_one<GpuWgradDirectOp<T>>(a), chunks * depth, a.conv.co);
		default:
			return r.each(gpu_one<GpuWgradSumOp>(a), co, a.ci_to * a.conv.kh * a.conv.kw);
	}
}

template <class T, class Runner>
static int
gpu_dispatch_attn_grad(Runner &r, GpuKernel kernel, const GpuAttnGradArgs &a, size_t n)
{
	size_t rows = n * (size_t) a.heads * (size_t) a.tokens;

	return kernel == GPU_ATTN_GRAD_Q
	           ? r.template lanes<T>(gpu_one<GpuAttnGradQOp<T>>(a), rows, 2 * a.tokens)
	           : r.template lanes<T>(gpu_one<GpuAttnGradKvOp<T>>(a), rows, 2 * a.tokens);
}

template <class T, class Runner>
static int
gpu_dispatch_pos(Runner &r, GpuPosGradArgs a, size_t n)
{
	a.n = (int) n;
	return r.each(gpu_one<GpuPosGradOp<T>>(a), (size_t) a.tokens, a.c);
}

template <class T, class Runner>
static int
gpu_dispatch_train_type(Runner &r, GpuKernel kernel, const GpuArgs &a, size_t n)
{
	switch (kernel)
	{
		case GPU_SEED:
			return r.each(gpu_one<GpuSeedOp<T>>(a.seed), n * (size_t) a.seed.pixels, a.seed.c);
		case GPU_PASS:
			return gpu_dispatch_pass<T>(r, a.pass, n);
		case GPU_BN_PART:
		case GPU_BN_STATS:
		case GPU_BN_MAP:
		case GPU_SUM_PART:
		case GPU_SUM:
		case GPU_BN_GRAD:
			return gpu_dispatch_norm<T>(r, kernel, a.norm, n);
		case GPU_POOL_GRAD:
			return r.each(gpu_one<GpuPoolGradOp<T>>(a.pool_grad),
			              n * (size_t) a.pool_grad.p.ih * (size_t) a.pool_grad.p.iw, a.pool_grad.p.c);
		case GPU_MUL_GRAD:
			return r.each(gpu_one<GpuMulGradOp<T>>(a.mul_grad), n * (size_t) a.mul_grad.rows, a.mul_grad.c);
		case GPU_GATE_GRAD:
			return r.each(gpu_one<GpuGateGradOp<T>>(a.gate_grad), n, a.gate_grad.c);
		case GPU_DROP:
			return r.each(gpu_one<GpuDropOp<T>>(a.drop), n * (size_t) a.drop.rows, a.drop.c);
		case GPU_UNSTACK:
			return r.each(gpu_one<GpuUnstackOp<T>>(a.unstack), n, a.unstack.s.c);
		case GPU_POS_GRAD:
			return gpu_dispatch_pos<T>(r, a.pos_grad, n);
		case GPU_LAYERNORM_GRAD:
			return r.template lanes<T>(gpu_one<GpuLayernormGradOp<T>>(a.layernorm_grad),
			                           n * (size_t) a.layernorm_grad.rows, 0);
		case GPU_ATTN_GRAD_Q:
		case GPU_ATTN_GRAD_KV:
			return gpu_dispatch_attn_grad<T>(r, kernel, a.attn_grad, n);
		case GPU_WGRAD_TILED:
		case GPU_WGRAD_MMA:
		case GPU_WGRAD_DIRECT:
		case GPU_WGRAD_SUM:
			return gpu_dispatch_wgrad<T>(r, kernel, a.wgrad, n);
		case GPU_LAYOUT:
			return r.each(gpu_one<GpuLayoutOp<T>>(a.layout), (size_t) a.layout.co,
			              a.layout.ci * a.layout.taps);
		case GPU_ADAM:
			return r.each(gpu_one<GpuAdamOp>(a.adam), (size_t) a.adam.count, 1);
		default:
			return GPU_DISPATCH_INVALID;
	}
}

template <class Runner>
static int
gpu_dispatch_train(Runner &r, GpuKernel kernel, GpuType type, const GpuArgs *args, int count, size_t n)
{
	if (count != 1)
		return GPU_DISPATCH_INVALID;
	switch (type)
	{
		case GPU_F32:
			return gpu_dispatch_train_type<float>(r, kernel, args[0], n);
		case GPU_BF16:
			return gpu_dispatch_train_type<__nv_bfloat16>(r, kernel, args[0], n);
		default:
			return GPU_DISPATCH_INVALID;
	}
}

#endif /* DFX_CUDA_DISPATCH_TRAIN_CUH */
