/*
 * element.cuh
 *	  What each simple kernel computes for one element (or one row), as
 *	  functions for device and host alike.
 *
 * The kernels are thin loops over these; tests/cuda runs the same functions in
 * host loops and compares them with the oracle, so that indices and formulas
 * are proven on machines without a GPU.  Arithmetic is fp32.  Loops over
 * arrays that are to stay in registers are unrolled: an index known only at
 * run time would move them to memory.
 */
#ifndef DFX_CUDA_ELEMENT_CUH
#define DFX_CUDA_ELEMENT_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>

#include "cuda/kernels.h"

#ifdef __CUDACC__
#define GPU_HD __host__ __device__ __forceinline__
#else
#define GPU_HD inline
#endif

static GPU_HD float
gpu_get(float v)
{
	return v;
}
static GPU_HD float
gpu_get(__half v)
{
	return __half2float(v);
}
static GPU_HD float
gpu_get(__nv_bfloat16 v)
{
	return __bfloat162float(v);
}

static GPU_HD void
gpu_put(float *to, float v)
{
	*to = v;
}
static GPU_HD void
gpu_put(__half *to, float v)
{
	*to = __float2half_rn(v);
}
static GPU_HD void
gpu_put(__nv_bfloat16 *to, float v)
{
	*to = __float2bfloat16_rn(v);
}

/* V neighbouring channels, moved as one access. */
template <class T, int V> struct alignas(sizeof(T) * V) GpuPack
{
	T v[V];
};

template <class T, int V>
static GPU_HD GpuPack<T, V>
gpu_load(const T *from)
{
	return *reinterpret_cast<const GpuPack<T, V> *>(from);
}

template <class T, int V>
static GPU_HD void
gpu_store(T *to, const GpuPack<T, V> &pack)
{
	*reinterpret_cast<GpuPack<T, V> *>(to) = pack;
}

static GPU_HD float
gpu_activate(GpuAct act, float x)
{
	switch (act)
	{
		case GPU_ACT_RELU:
			return x > 0.0f || x != x ? x : 0.0f; /* a NaN must stay one: the guard looks for it */
		case GPU_ACT_SILU:
			return x / (1.0f + expf(-x));
		case GPU_ACT_GELU:
			return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
		case GPU_ACT_SIGMOID:
			return 1.0f / (1.0f + expf(-x));
		case GPU_ACT_NONE:
			break;
	}
	return x;
}

template <class T>
static GPU_HD float
gpu_epilogue(const GpuEpilogue &e, float sum, size_t row, int c)
{
	if (e.bias)
		sum += e.bias[c];
	if (e.add)
		sum += gpu_get(static_cast<const T *>(e.add)[row * (size_t) e.ldadd + (size_t) c]);
	sum = gpu_activate(e.act, sum);
	return e.scale ? sum * e.scale[c] + e.shift[c] : sum;
}

/* row: over images and pixels. */
template <class T>
static GPU_HD void
gpu_input_at(const GpuInputArgs &a, size_t row, int c)
{
	T *to = static_cast<T *>(a.dst) + row * (size_t) a.ld + (size_t) c;
	size_t pixels = (size_t) a.pixels, image = row / pixels, pixel = row % pixels;

	if (c >= a.c)
		gpu_put(to, 0.0f);
	else if (a.rgb8)
		gpu_put(to, ((float) static_cast<const uint8_t *>(a.src)[row * 3 + (size_t) c] / 255.0f - a.mean[c]) /
		                a.std[c]);
	else
		gpu_put(to, static_cast<const float *>(a.src)[(image * (size_t) a.c + (size_t) c) * pixels + pixel]);
}

template <class T, int V>
static GPU_HD void
gpu_map_at(const GpuMapArgs &a, size_t row, int c)
{
	size_t rows = (size_t) a.rows;
	size_t from = a.step == 1 && a.first == 0
	                  ? row
	                  : row / rows * rows * (size_t) a.step + row % rows * (size_t) a.step + (size_t) a.first;
	GpuPack<T, V> p = gpu_load<T, V>(static_cast<const T *>(a.x) + from * (size_t) a.ldx + (size_t) c);

#pragma unroll
	for (int i = 0; i < V; i++)
	{
		float v = gpu_get(p.v[i]);

		if (a.scale)
			v = v * a.scale[c + i] + a.shift[c + i];
		gpu_put(&p.v[i], gpu_activate(a.act, v));
	}
	gpu_store<T, V>(static_cast<T *>(a.y) + row * (size_t) a.ldy + (size_t) c, p);
}

template <class T, int V>
static GPU_HD void
gpu_binary_at(const GpuBinaryArgs &a, size_t row, int c)
{
	size_t brow = a.gate ? row / (size_t) a.rows : row;
	GpuPack<T, V> p = gpu_load<T, V>(static_cast<const T *>(a.a) + row * (size_t) a.lda + (size_t) c);
	GpuPack<T, V> q = gpu_load<T, V>(static_cast<const T *>(a.b) + brow * (size_t) a.ldb + (size_t) c);

#pragma unroll
	for (int i = 0; i < V; i++)
	{
		float x = gpu_get(p.v[i]), y = gpu_get(q.v[i]);

		gpu_put(&p.v[i], gpu_activate(a.act, a.mul ? x * y : x + y));
	}
	gpu_store<T, V>(static_cast<T *>(a.y) + row * (size_t) a.ldy + (size_t) c, p);
}

/* row: over images and output pixels. */
template <class T, int V>
static GPU_HD void
gpu_pool_at(const GpuPoolArgs &a, size_t row, int c)
{
	size_t image = row / ((size_t) a.oh * (size_t) a.ow);
	int pixel = (int) (row % ((size_t) a.oh * (size_t) a.ow));
	int y0 = pixel / a.ow * a.s - a.p, x0 = pixel % a.ow * a.s - a.p;
	const T *x = static_cast<const T *>(a.x) + image * (size_t) a.ih * (size_t) a.iw * (size_t) a.ldx;
	GpuPack<T, V> p;
	float v[V];

#pragma unroll
	for (int i = 0; i < V; i++)
		v[i] = a.avg ? 0.0f : -INFINITY;
	for (int ky = 0; ky < a.kh; ky++)
		for (int kx = 0; kx < a.kw; kx++)
		{
			int iy = y0 + ky, ix = x0 + kx;

			if (iy < 0 || iy >= a.ih || ix < 0 || ix >= a.iw)
				continue;
			p = gpu_load<T, V>(x + ((size_t) iy * (size_t) a.iw + (size_t) ix) * (size_t) a.ldx + (size_t) c);
#pragma unroll
			for (int i = 0; i < V; i++)
			{
				float f = gpu_get(p.v[i]);

				if (a.avg)
					v[i] += f;
				else if (f > v[i] || f != f)
					v[i] = f;
			}
		}
#pragma unroll
	for (int i = 0; i < V; i++)
		gpu_put(&p.v[i], a.avg ? v[i] / (float) (a.kh * a.kw) : v[i]);
	gpu_store<T, V>(static_cast<T *>(a.y) + row * (size_t) a.ldy + (size_t) c, p);
}

/* row: over images; c: the vector's element, which is the signal's place. */
template <class T>
static GPU_HD void
gpu_stack_at(const GpuStackArgs &a, size_t row, int c)
{
	static_cast<T *>(a.y)[(row * (size_t) a.c + (size_t) c) * (size_t) a.ldy + (size_t) a.channel] =
	    static_cast<const T *>(a.x)[row * (size_t) a.ldx + (size_t) c];
}

/* row: over images and tokens. */
template <class T>
static GPU_HD void
gpu_tokens_at(const GpuTokensArgs &a, size_t row, int c)
{
	size_t tokens = (size_t) a.tokens, image = row / tokens, t = row % tokens;
	float v = a.pos[t * (size_t) a.c + (size_t) c];

	if (t == 0)
		v += a.cls[c];
	else
		v += gpu_get(
		    static_cast<const T *>(a.x)[(image * (tokens - 1) + t - 1) * (size_t) a.ldx + (size_t) c]);
	gpu_put(static_cast<T *>(a.y) + row * (size_t) a.ldy + (size_t) c, v);
}

/*
 * Work shared by `count` lanes that sum and maximise across each other: a warp
 * on the device (kernels.cu), one lane on the host.
 */
struct GpuOneLane
{
	static const int count = 1;
	GPU_HD int id() const
	{
		return 0;
	}
	GPU_HD float sum(float v) const
	{
		return v;
	}
	GPU_HD float max(float v) const
	{
		return v;
	}
	GPU_HD void sync() const
	{
	}
};

/* One row by all lanes.  Mean first, then the variance about it, as the definition has it. */
template <class T, class Lanes>
static GPU_HD void
gpu_layernorm_row(const GpuLayernormArgs &a, size_t row, const Lanes &lanes)
{
	const T *x = static_cast<const T *>(a.x) + row * (size_t) a.ldx;
	T *y = static_cast<T *>(a.y) + row * (size_t) a.ldy;
	float sum = 0, square = 0, mean, inv;

	for (int c = lanes.id(); c < a.c; c += Lanes::count)
		sum += gpu_get(x[c]);
	mean = lanes.sum(sum) / (float) a.c;
	for (int c = lanes.id(); c < a.c; c += Lanes::count)
	{
		float d = gpu_get(x[c]) - mean;

		square += d * d;
	}
	inv = 1.0f / sqrtf(lanes.sum(square) / (float) a.c + a.eps);
	for (int c = lanes.id(); c < a.c; c += Lanes::count)
		gpu_put(&y[c], (gpu_get(x[c]) - mean) * inv * a.weight[c] + a.bias[c]);
}

/* Keys and values of one head, a token a row: within the packed rows, or copied together. */
template <class T> struct GpuAttnHead
{
	const T *k, *v;
	int ld;
};

template <class T>
static GPU_HD GpuAttnHead<T>
gpu_attn_head(const GpuAttnArgs &a, size_t image, int head)
{
	const T *x = static_cast<const T *>(a.x) + image * (size_t) a.tokens * (size_t) a.ldx;
	int c0 = head * (a.c / a.heads);

	return GpuAttnHead<T>{x + a.c + c0, x + 2 * a.c + c0, a.ldx};
}

/* The copy's rows: 2 channels more than a head has, so that neighbouring keys lie in different banks. */
static GPU_HD int
gpu_attn_pitch(const GpuAttnArgs &a)
{
	return a.c / a.heads + 2;
}

/* This thread's share of copying a head to `to`: its keys, then its values. */
template <class T>
static GPU_HD void
gpu_attn_copy(const GpuAttnArgs &a, const GpuAttnHead<T> &head, T *to, int thread, int threads)
{
	int pairs = a.c / a.heads / 2, pitch = gpu_attn_pitch(a);

	for (int i = thread; i < a.tokens * pairs; i += threads)
	{
		int token = i / pairs, c = i % pairs * 2;
		size_t from = (size_t) token * (size_t) head.ld + (size_t) c;
		T *row = to + token * pitch + c;

		gpu_store<T, 2>(row, gpu_load<T, 2>(head.k + from));
		gpu_store<T, 2>(row + a.tokens * pitch, gpu_load<T, 2>(head.v + from));
	}
}

/* The head as it lies there. */
template <class T>
static GPU_HD GpuAttnHead<T>
gpu_attn_copied(const GpuAttnArgs &a, const T *copy)
{
	return GpuAttnHead<T>{copy, copy + a.tokens * gpu_attn_pitch(a), gpu_attn_pitch(a)};
}

/* One query of one head by all lanes, V channels at a time; score holds tokens floats of theirs. */
template <class T, int V, class Lanes>
static GPU_HD void
gpu_attn_query(const GpuAttnArgs &a, size_t image, int head, const GpuAttnHead<T> &rows, int query,
               float *score, const Lanes &lanes)
{
	int width = a.c / a.heads;
	size_t row = image * (size_t) a.tokens + (size_t) query;
	const T *q = static_cast<const T *>(a.x) + row * (size_t) a.ldx + head * width;
	T *y = static_cast<T *>(a.y) + row * (size_t) a.ldy + head * width;
	float factor = 1.0f / sqrtf((float) width), top = -INFINITY, norm = 0;

	lanes.sync(); /* the scores of the query before are read no more */
	for (int s = lanes.id(); s < a.tokens; s += Lanes::count)
	{
		const T *k = rows.k + (size_t) s * (size_t) rows.ld;
		float dot = 0;

		for (int i = 0; i < width; i += V)
		{
			GpuPack<T, V> x = gpu_load<T, V>(q + i), z = gpu_load<T, V>(k + i);

#pragma unroll
			for (int j = 0; j < V; j++)
				dot += gpu_get(x.v[j]) * gpu_get(z.v[j]);
		}
		score[s] = dot * factor;
		top = fmaxf(top, score[s]);
	}
	top = lanes.max(top);
	for (int s = lanes.id(); s < a.tokens; s += Lanes::count)
	{
		score[s] = expf(score[s] - top);
		norm += score[s];
	}
	norm = lanes.sum(norm);
	lanes.sync();
	for (int i = lanes.id() * V; i < width; i += Lanes::count * V)
	{
		float sum[V] = {};
		GpuPack<T, V> z;

		for (int s = 0; s < a.tokens; s++)
		{
			z = gpu_load<T, V>(rows.v + (size_t) s * (size_t) rows.ld + i);
#pragma unroll
			for (int j = 0; j < V; j++)
				sum[j] += score[s] * gpu_get(z.v[j]);
		}
#pragma unroll
		for (int j = 0; j < V; j++)
			gpu_put(&z.v[j], sum[j] / norm);
		gpu_store<T, V>(y + i, z);
	}
}

/* From a place that a convolution asks for to the pixel that it reads there; false: there is none. */
static GPU_HD bool
gpu_conv_reads(const GpuConvArgs &a, int *iy, int *ix)
{
	if (*iy < 0 || *ix < 0)
		return false;
	if (a.uh > 1 || a.uw > 1)
	{
		int uh = a.uh > 1 ? a.uh : 1, uw = a.uw > 1 ? a.uw : 1;

		if (*iy % uh != 0 || *ix % uw != 0)
			return false;
		*iy /= uh;
		*ix /= uw;
	}
	return *iy < a.ih && *ix < a.iw;
}

/* row: over images and output pixels; c: output channel. */
template <class T>
static GPU_HD void
gpu_conv_direct_at(const GpuConvArgs &a, size_t row, int c)
{
	size_t image = row / ((size_t) a.oh * (size_t) a.ow);
	int pixel = (int) (row % ((size_t) a.oh * (size_t) a.ow));
	int y0 = pixel / a.ow * a.sh - a.ph, x0 = pixel % a.ow * a.sw - a.pw;
	int cig = a.ci / a.groups, first = c / (a.co / a.groups) * cig;
	const T *x = static_cast<const T *>(a.x) + image * (size_t) a.ih * (size_t) a.iw * (size_t) a.ldx + first;
	const T *w = static_cast<const T *>(a.w) + c;
	float sum = 0;

	for (int ky = 0; ky < a.kh; ky++)
		for (int kx = 0; kx < a.kw; kx++)
		{
			int iy = y0 + ky, ix = x0 + kx;
			const T *px, *pw;

			if (!gpu_conv_reads(a, &iy, &ix))
				continue;
			px = x + ((size_t) iy * (size_t) a.iw + (size_t) ix) * (size_t) a.ldx;
			pw = w + (size_t) (ky * a.kw + kx) * (size_t) cig * (size_t) a.co;
			for (int i = 0; i < cig; i++)
				sum += gpu_get(px[i]) * gpu_get(pw[(size_t) i * (size_t) a.co]);
		}
	gpu_put(static_cast<T *>(a.y) + row * (size_t) a.ldy + (size_t) c, gpu_epilogue<T>(a.epi, sum, row, c));
}

/* Whether the value was finite. */
template <class T>
static GPU_HD bool
gpu_output_at(const GpuOutputArgs &a, size_t row, int c)
{
	size_t pixels = (size_t) a.pixels, image = row / pixels, pixel = row % pixels;
	float v = gpu_get(static_cast<const T *>(a.x)[row * (size_t) a.ldx + (size_t) c]);

	a.dst[(image * (size_t) a.c + (size_t) c) * pixels + pixel] = v;
	return v - v == 0.0f;
}

/*
 * |a - b|, and |b| in *size.  Where neither is finite they are alike (noise may
 * overflow a network with large weights); infinity where only one is.
 */
template <class T>
static GPU_HD float
gpu_compare_at(const GpuCompareArgs &a, size_t row, int c, float *size)
{
	float x = gpu_get(static_cast<const T *>(a.a)[row * (size_t) a.lda + (size_t) c]);
	float y = gpu_get(static_cast<const T *>(a.b)[row * (size_t) a.ldb + (size_t) c]);
	bool x_finite = x - x == 0.0f, y_finite = y - y == 0.0f;

	*size = y_finite ? fabsf(y) : 0.0f;
	if (x_finite != y_finite)
		return INFINITY;
	return x_finite ? fabsf(x - y) : 0.0f;
}

#endif /* DFX_CUDA_ELEMENT_CUH */
