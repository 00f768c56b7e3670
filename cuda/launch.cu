/*
 * launch.cu
 *	  The kernels: grids over the element functions, and the entry that C calls.
 */
#include "cuda/dispatch.cuh"
#include "cuda/grid.cuh"
#include "cuda/mma_device.cuh"

/* A block has one head of one image (x) and a share of its queries (y), a warp a query. */
template <class T>
static __global__ void
__launch_bounds__(LAUNCH_THREADS) launch_attn(const __grid_constant__ GpuGroup<GpuAttnOp<T>> group)
{
	extern __shared__ __align__(16) unsigned char launch_head[];
	const GpuAttnArgs &a = group.op[blockIdx.z].a;
	size_t image = blockIdx.x / (unsigned) a.heads;
	int head = (int) (blockIdx.x % (unsigned) a.heads), warp = (int) threadIdx.x / 32,
	    warps = (int) blockDim.x / 32;
	T *copy = reinterpret_cast<T *>(launch_head);
	float *score = reinterpret_cast<float *>(launch_head + gpu_attn_bytes<T>(a)) + warp * a.tokens;

	gpu_attn_copy(a, gpu_attn_head<T>(a, image, head), copy, (int) threadIdx.x, (int) blockDim.x);
	__syncthreads();
	for (int q = (int) blockIdx.y * warps + warp; q < a.tokens; q += (int) gridDim.y * warps)
		gpu_attn_query<T, 2>(a, image, head, gpu_attn_copied(a, copy), q, score, GpuWarp());
}

template <class T>
static __global__ void
__launch_bounds__(GPU_TILE_THREADS)
    launch_tiled(const __grid_constant__ GpuGroup<GpuConvOp> group, size_t rows)
{
	const GpuConvArgs &a = group.op[blockIdx.z].a;
	__shared__ GpuTile tile;
	float sum[GPU_TILE_EACH][GPU_TILE_EACH] = {};
	size_t m0;
	int n0, depth = a.kh * a.kw * a.ci, thread = (int) threadIdx.x;

	gpu_block_at<GPU_TILE_M, GPU_TILE_N>(a, blockIdx.x, &m0, &n0);
	for (int k0 = 0; k0 < depth; k0 += GPU_TILE_K)
	{
		gpu_tile_load<T>(a, tile, rows, m0, n0, k0, thread);
		__syncthreads();
		gpu_tile_add(tile, thread, sum);
		__syncthreads();
	}
	gpu_tile_store<T>(a, rows, m0, n0, thread, sum);
}

/*
 * The stage that is loaded while tile k is multiplied was last read for tile
 * k - 1, before the barrier at the top: no second barrier is needed.
 */
template <class T, class S, bool Pre>
static __global__ void
__launch_bounds__(GPU_MMA_THREADS) launch_mma(const __grid_constant__ GpuGroup<GpuConvOp> group, size_t rows)
{
	const GpuConvArgs &a = group.op[blockIdx.z].a;
	extern __shared__ __align__(16) unsigned char launch_shared[];
	typename S::Tile &tile = *reinterpret_cast<typename S::Tile *>(launch_shared);
	typename S::Thread t;
	size_t m0;
	int n0, thread = (int) threadIdx.x, tiles = (a.kh * a.kw * a.ci + GPU_MMA_K - 1) / GPU_MMA_K;

	gpu_block_at<S::M, S::N>(a, blockIdx.x, &m0, &n0);
	gpu_mma_begin<S>(a, rows, m0, thread, t);
#pragma unroll
	for (int i = 0; i < GPU_MMA_STAGES - 1; i++)
	{
		if (i < tiles)
			gpu_mma_load<S>(a, tile, i, n0, i * GPU_MMA_K, thread, t);
		asm volatile("cp.async.commit_group;" ::: "memory");
	}
	for (int i = 0; i < tiles; i++)
	{
		int next = i + GPU_MMA_STAGES - 1;

		asm volatile("cp.async.wait_group %0;" ::"n"(GPU_MMA_STAGES - 2) : "memory");
		__syncthreads();
		if (next < tiles)
			gpu_mma_load<S>(a, tile, next % GPU_MMA_STAGES, n0, next * GPU_MMA_K, thread, t);
		asm volatile("cp.async.commit_group;" ::: "memory");
		launch_mma_stage<T, S, Pre>(a, tile, i % GPU_MMA_STAGES, i * GPU_MMA_K, t);
	}
	gpu_mma_store<T, S>(a, rows, m0, n0, thread, t);
}

struct LaunchRunner : GpuGrid
{
	template <class T> int attn(const GpuGroup<GpuAttnOp<T>> &group, size_t n)
	{
		const GpuAttnArgs &a = group.op[0].a;
		size_t warps = LAUNCH_THREADS / 32, queries = ((size_t) a.tokens + warps - 1) / warps;
		dim3 grid(launch_blocks(n * (size_t) a.heads, 1, LAUNCH_BLOCKS), queries < 4 ? queries : 4,
		          group.count);
		int shared = (int) (gpu_attn_bytes<T>(a) + warps * (size_t) a.tokens * sizeof(float));
		cudaError_t error;

		if (grid.x == 0)
			return cudaErrorInvalidConfiguration;
		/* What any shape may take: the limit is the kernel's, and another graph may want more. */
		error = cudaFuncSetAttribute(launch_attn<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
		                             (int) (GPU_ATTN_SHARED + warps * GPU_MAX_TOKENS * sizeof(float)));
		if (error != cudaSuccess)
			return error;
		launch_attn<T><<<grid, LAUNCH_THREADS, shared, stream>>>(group);
		return cudaPeekAtLastError();
	}
	template <class T> int tiled(const GpuGroup<GpuConvOp> &group, size_t n)
	{
		const GpuConvArgs &a = group.op[0].a;
		size_t rows = n * (size_t) a.oh * (size_t) a.ow;
		dim3 grid(launch_blocks(gpu_blocks<GPU_TILE_M, GPU_TILE_N>(a, rows), 1, LAUNCH_BLOCKS), 1,
		          group.count);

		if (grid.x == 0 || a.groups != 1)
			return cudaErrorInvalidConfiguration;
		launch_tiled<T><<<grid, GPU_TILE_THREADS, 0, stream>>>(group, rows);
		return cudaPeekAtLastError();
	}
	template <class T, class S> int mma(const GpuGroup<GpuConvOp> &group, size_t n)
	{
		return group.op[0].a.pre_scale ? mma_pre<T, S, true>(group, n) : mma_pre<T, S, false>(group, n);
	}
	template <class T, class S, bool Pre> int mma_pre(const GpuGroup<GpuConvOp> &group, size_t n)
	{
		const GpuConvArgs &a = group.op[0].a;
		size_t rows = n * (size_t) a.oh * (size_t) a.ow;
		dim3 grid(launch_blocks(gpu_blocks<S::M, S::N>(a, rows), 1, LAUNCH_BLOCKS), 1, group.count);
		int shared = (int) sizeof(typename S::Tile);
		cudaError_t error;

		if (grid.x == 0)
			return cudaErrorInvalidConfiguration;
		error =
		    cudaFuncSetAttribute(launch_mma<T, S, Pre>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
		if (error != cudaSuccess)
			return error;
		launch_mma<T, S, Pre><<<grid, GPU_MMA_THREADS, shared, stream>>>(group, rows);
		return cudaPeekAtLastError();
	}
};

int
gpu_launch(GpuKernel kernel, GpuType type, const GpuArgs *args, int count, int n, void *stream)
{
	LaunchRunner runner = {{static_cast<cudaStream_t>(stream)}};

	if (kernel >= GPU_TRAIN_FIRST)
		return gpu_launch_train(kernel, type, args, count, n, stream);
	return gpu_dispatch(runner, kernel, type, args, count, (size_t) n);
}
