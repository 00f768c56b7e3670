/*
 * element_train.cuh
 *	  What the kernels of training compute, each for one element or one row, as
 *	  functions for device and host alike (see element.cuh): maps, pools, masks,
 *	  parameters.  reduce_train.cuh has those that sum over rows.
 *
 * Each is an op of dispatch.cuh: called with a row and a column (or with a team
 * of lanes).  What several threads would add to, one thread sums up: nothing
 * here is atomic, so that results do not depend on who comes first.
 */
#ifndef DFX_CUDA_ELEMENT_TRAIN_CUH
#define DFX_CUDA_ELEMENT_TRAIN_CUH

#include "cuda/element.cuh"
#include "nn/drop.h"

/* The derivative of an activation at its input (of a ReLU, at input or output). */
static GPU_HD float
gpu_slope(GpuAct act, float x)
{
	float s;

	switch (act)
	{
		case GPU_ACT_RELU:
			return x > 0.0f ? 1.0f : 0.0f;
		case GPU_ACT_SILU:
			s = 1.0f / (1.0f + expf(-x));
			return s * (1.0f + x * (1.0f - s));
		case GPU_ACT_GELU: /* the normal distribution, and x times its density */
			return 0.5f * (1.0f + erff(x * 0.70710678118654752f)) +
			       x * 0.39894228040143268f * expf(-0.5f * x * x);
		case GPU_ACT_SIGMOID:
			s = 1.0f / (1.0f + expf(-x));
			return s * (1.0f - s);
		case GPU_ACT_NONE:
			break;
	}
	return 1.0f;
}

/* Write v, or add it. */
template <class T>
static GPU_HD void
gpu_give(T *to, float v, bool add)
{
	gpu_put(to, add ? gpu_get(*to) + v : v);
}

template <class T>
static GPU_HD float
gpu_at(const void *p, size_t row, int ld, int c)
{
	return gpu_get(static_cast<const T *>(p)[row * (size_t) ld + (size_t) c]);
}

template <class T>
static GPU_HD T *
gpu_to(void *p, size_t row, int ld, int c)
{
	return static_cast<T *>(p) + row * (size_t) ld + (size_t) c;
}

/* row: over images and pixels. */
template <class T> struct GpuSeedOp
{
	GpuSeedArgs a;
	GPU_HD void operator()(size_t row, int c) const
	{
		size_t pixels = (size_t) a.pixels, image = row / pixels, pixel = row % pixels;

		gpu_give(gpu_to<T>(a.dx, row, a.lddx, c), a.src[(image * (size_t) a.c + (size_t) c) * pixels + pixel],
		         a.add);
	}
};

template <class T, int V> struct GpuPassOp
{
	GpuPassArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		size_t image = row / (size_t) a.rows, at = row % (size_t) a.rows;
		size_t from = image * (size_t) a.dy_rows + (size_t) a.dy_first + at;
		size_t to = image * (size_t) a.dx_rows + (size_t) a.dx_first + at;
		T *dx = gpu_to<T>(a.dx, to, a.lddx, i * V);
		GpuPack<T, V> dy = gpu_load<T, V>(static_cast<const T *>(a.dy) + from * (size_t) a.lddy + i * V),
		              out = {}, x = {};

		if (a.add)
			out = gpu_load<T, V>(dx);
		if (a.act != GPU_ACT_NONE)
			x = gpu_load<T, V>(static_cast<const T *>(a.x) + row * (size_t) a.ldx + i * V);
#pragma unroll
		for (int k = 0; k < V; k++)
			gpu_give(&out.v[k], gpu_get(dy.v[k]) * gpu_slope(a.act, gpu_get(x.v[k])), a.add);
		gpu_store<T, V>(dx, out);
	}
};

/* Whether input pixel (iy, ix) is the one that window (oy, ox) of a maximum takes: the first of the largest.
 */
template <class T>
static GPU_HD bool
gpu_pool_takes(const GpuPoolArgs &p, size_t image, int c, int oy, int ox, int iy, int ix)
{
	float top = 0;
	int first = -1;

	for (int ky = 0; ky < p.kh; ky++)
		for (int kx = 0; kx < p.kw; kx++)
		{
			int y = oy * p.s - p.p + ky, x = ox * p.s - p.p + kx;
			float v;

			if (y < 0 || y >= p.ih || x < 0 || x >= p.iw)
				continue;
			v = gpu_at<T>(p.x, (image * (size_t) p.ih + (size_t) y) * (size_t) p.iw + (size_t) x, p.ldx, c);
			if (first < 0 || v > top)
			{
				top = v;
				first = y * p.iw + x;
			}
		}
	return first == iy * p.iw + ix;
}

/* row: over images and input pixels; sums over the windows that cover the pixel. */
template <class T> struct GpuPoolGradOp
{
	GpuPoolGradArgs a;
	GPU_HD void operator()(size_t row, int c) const
	{
		const GpuPoolArgs &p = a.p;
		size_t image = row / ((size_t) p.ih * (size_t) p.iw);
		int pixel = (int) (row % ((size_t) p.ih * (size_t) p.iw)), iy = pixel / p.iw, ix = pixel % p.iw;
		int y0 = iy + p.p - p.kh + p.s, x0 = ix + p.p - p.kw + p.s; /* of the first window, times s, above */
		int y1 = (iy + p.p) / p.s, x1 = (ix + p.p) / p.s;
		float sum = 0;

		for (int oy = y0 > 0 ? y0 / p.s : 0; oy <= y1 && oy < p.oh; oy++)
			for (int ox = x0 > 0 ? x0 / p.s : 0; ox <= x1 && ox < p.ow; ox++)
			{
				size_t out = (image * (size_t) p.oh + (size_t) oy) * (size_t) p.ow + (size_t) ox;
				float d = gpu_at<T>(a.dy, out, a.lddy, c);

				if (p.avg)
					sum += d / (float) (p.kh * p.kw);
				else if (gpu_pool_takes<T>(p, image, c, oy, ox, iy, ix))
					sum += d;
			}
		gpu_give(gpu_to<T>(a.dx, row, a.lddx, c), sum, a.add);
	}
};

template <class T> struct GpuMulGradOp
{
	GpuMulGradArgs a;
	GPU_HD void operator()(size_t row, int c) const
	{
		size_t brow = a.gate ? row / (size_t) a.rows : row;

		gpu_give(gpu_to<T>(a.da, row, a.ldda, c),
		         gpu_at<T>(a.dy, row, a.lddy, c) * gpu_at<T>(a.b, brow, a.ldb, c), a.add);
	}
};

/* row: over images. */
template <class T> struct GpuGateGradOp
{
	GpuGateGradArgs a;
	GPU_HD void operator()(size_t image, int c) const
	{
		float sum = 0;

		for (int i = 0; i < a.rows; i++)
		{
			size_t row = image * (size_t) a.rows + (size_t) i;

			sum += gpu_at<T>(a.dy, row, a.lddy, c) * gpu_at<T>(a.a, row, a.lda, c);
		}
		gpu_give(gpu_to<T>(a.db, image, a.lddb, c), sum, a.add);
	}
};

/* row: over images and pixels. */
template <class T> struct GpuDropOp
{
	GpuDropArgs a;
	GPU_HD void operator()(size_t row, int c) const
	{
		size_t rows = (size_t) a.rows, image = row / rows, pixel = row % rows;
		bool keep = dfx_drop_draw(a.p, a.whole, a.seed, a.op, image, (uint64_t) c * rows + pixel);

		gpu_give(gpu_to<T>(a.y, row, a.ldy, c),
		         keep ? gpu_at<T>(a.x, row, a.ldx, c) * (float) (1 / (1 - (double) a.p)) : 0.0f, a.add);
	}
};

/* row: over images; c: the vector's element. */
template <class T> struct GpuUnstackOp
{
	GpuUnstackArgs a;
	GPU_HD void operator()(size_t image, int c) const
	{
		gpu_give(gpu_to<T>(a.s.y, image, a.s.ldy, c),
		         gpu_at<T>(a.s.x, image * (size_t) a.s.c + (size_t) c, a.s.ldx, a.s.channel), a.add);
	}
};

/* row: a token. */
template <class T> struct GpuPosGradOp
{
	GpuPosGradArgs a;
	GPU_HD void operator()(size_t token, int c) const
	{
		float sum = 0;

		for (int i = 0; i < a.n; i++)
			sum += gpu_at<T>(a.dy, (size_t) i * (size_t) a.tokens + token, a.lddy, c);
		a.dpos[token * (size_t) a.c + (size_t) c] = sum;
		if (token == 0)
			a.dcls[c] = sum;
	}
};

/* row: output channel; i: (channel of the group, tap) as PyTorch has them. */
template <class T> struct GpuLayoutOp
{
	GpuLayoutArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		int ci = i / a.taps, tap = i % a.taps, co = (int) row, cog = a.co / a.groups;
		float v = a.src[row * (size_t) (a.ci * a.taps) + (size_t) i];
		size_t to = 0;

		switch (a.layout)
		{
			case GPU_LAYOUT_FILTERS:
				to = (row * (size_t) a.taps + (size_t) tap) * (size_t) a.to_ci + (size_t) ci;
				break;
			case GPU_LAYOUT_FLIPPED:
				to = ((size_t) ci * (size_t) a.taps + (size_t) (a.taps - 1 - tap)) * (size_t) a.co + row;
				break;
			case GPU_LAYOUT_TAPS:
				to = ((size_t) tap * (size_t) a.ci + (size_t) ci) * (size_t) a.co + row;
				break;
			case GPU_LAYOUT_TAPS_BACK:
				to = ((size_t) (a.taps - 1 - tap) * (size_t) cog + (size_t) (co % cog)) *
				         (size_t) (a.ci * a.groups) +
				     (size_t) (co / cog * a.ci + ci);
				break;
		}
		gpu_put(static_cast<T *>(a.dst) + to, v);
	}
};

/* As adam_body() of src/cpu/kernels_train.c. */
struct GpuAdamOp
{
	GpuAdamArgs a;
	GPU_HD void operator()(size_t i, int) const
	{
		float x = a.value[i], d = a.grad[i] + a.decay * x;
		float m = a.m[i] * a.beta1 + a.rest1 * d, v = a.v[i] * a.beta2 + a.rest2 * d * d;

		a.m[i] = m;
		a.v[i] = v;
		a.value[i] = x + a.step * m / (sqrtf(v) / a.root + a.eps);
	}
};

#endif /* DFX_CUDA_ELEMENT_TRAIN_CUH */
