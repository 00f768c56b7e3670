/*
 * mma_device.cuh
 *	  A warp's products on tensor cores: the part of mma.cuh that only the
 *	  device has.  cuda/host/mma.h is its twin.
 */
#ifndef DFX_CUDA_MMA_DEVICE_CUH
#define DFX_CUDA_MMA_DEVICE_CUH

#include "cuda/mma.cuh"

static __device__ __forceinline__ void
launch_mma_one(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const __half *)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
	             "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ __forceinline__ void
launch_mma_one(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const __nv_bfloat16 *)
{
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
	             "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Multiply one stage, whose first k is k0. */
template <class T, class S, bool Pre>
static __device__ __forceinline__ void
launch_mma_stage(const GpuConvArgs &a, const typename S::Tile &tile, int stage, int k0, typename S::Thread &t)
{
	int warp = (int) threadIdx.x / 32, lane = (int) threadIdx.x % 32;

#pragma unroll
	for (int kk = 0; kk < GPU_MMA_K; kk += 16)
	{
		uint32_t x[S::FM][4], w[S::FN][2];

#pragma unroll
		for (int i = 0; i < S::FM; i++)
			gpu_mma_fragment_x<T, S, Pre>(a, tile, stage, warp, lane, i, k0, kk, x[i]);
#pragma unroll
		for (int j = 0; j < S::FN; j++)
			gpu_mma_fragment_w<S>(tile, stage, warp, lane, j, kk, w[j]);
#pragma unroll
		for (int i = 0; i < S::FM; i++)
		{
#pragma unroll
			for (int j = 0; j < S::FN; j++)
				launch_mma_one(t.sum[i][j], x[i], w[j], static_cast<const T *>(nullptr));
		}
	}
}

#endif /* DFX_CUDA_MMA_DEVICE_CUH */
