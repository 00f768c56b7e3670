/*
 * kernels_train_windows.c
 *	  The loops of training over windows of pixels: pooling's gradient and that
 *	  of a depthwise convolution's weights; compiled and rounding as those of
 *	  kernels_train.c.
 */
#include "cpu/kernels_train.h"
#include "cpu/kernels_vec.h"

KERNEL void
unpool_avg(float *dz, size_t zps, V16 dy, int n, const CpuPoolGeom *g, int y, int x)
{
	for (int i = y; i < y + g->kh; i++)
		for (int j = x; j < x + g->kw; j++)
		{
			float *at = dz + ((size_t) i * (size_t) g->iw + (size_t) j) * zps;

			store(at, load(at, n) + dy, n);
		}
}

/* Padding never wins; of equal pixels the first one does, as in PyTorch. */
KERNEL void
unpool_max(float *dz, const float *z, size_t zps, V16 dy, int n, const CpuPoolGeom *g, int y, int x)
{
	int y0 = y < 0 ? 0 : y, x0 = x < 0 ? 0 : x;
	int y1 = y + g->kh < g->ih ? y + g->kh : g->ih, x1 = x + g->kw < g->iw ? x + g->kw : g->iw;
	V16 best = load(z + ((size_t) y0 * (size_t) g->iw + (size_t) x0) * zps, n);
	I16 where = {0};

	for (int i = y0, k = 0; i < y1; i++)
		for (int j = x0; j < x1; j++, k++)
		{
			V16 v = load(z + ((size_t) i * (size_t) g->iw + (size_t) j) * zps, n);
			I16 more = v > best;

			best = pick(more, v, best);
			where = (more & k) | (~more & where);
		}
	for (int i = y0, k = 0; i < y1; i++)
		for (int j = x0; j < x1; j++, k++)
		{
			float *at = dz + ((size_t) i * (size_t) g->iw + (size_t) j) * zps;

			store(at, load(at, n) + (V16) ((I16) dy & (where == k)), n);
		}
}

KERNEL void
unpool_lanes(float *dz, const float *z, size_t zps, const float *dy, size_t yps, int n, const CpuPoolGeom *g,
             bool avg)
{
	const float inv = 1.0f / (float) (g->kh * g->kw);

	for (size_t i = 0; i < (size_t) g->ih * (size_t) g->iw; i++)
		store(dz + i * zps, (V16){0}, n);
	for (int y = 0; y < g->oh; y++)
		for (int x = 0; x < g->ow; x++)
		{
			V16 d = load(dy + ((size_t) y * (size_t) g->ow + (size_t) x) * yps, n);

			if (avg)
				unpool_avg(dz, zps, d * inv, n, g, y * g->s - g->p, x * g->s - g->p);
			else
				unpool_max(dz, z, zps, d, n, g, y * g->s - g->p, x * g->s - g->p);
		}
}

KERNEL void
unpool_body(float *dz, const float *z, size_t zps, const float *dy, size_t yps, int nl, const CpuPoolGeom *g,
            bool avg)
{
	LANES(unpool_lanes(dz + l, avg ? NULL : z + l, zps, dy + l, yps, n, g, avg));
}

/* x * dy over count pixels of a row, from numbers i and j on, in four sums so that one addition need not wait
 * for the last. */
KERNEL V16
row_product(const CpuStrip *x, size_t i, size_t xstep, const CpuStrip *dy, size_t j, int count, int n,
            CpuType type)
{
	V16 s[4] = {{0}};
	int done = 0;

	for (; done + 4 <= count; done += 4)
		for (int k = 0; k < 4; k++, i += xstep, j += dy->ps)
			s[k] += load_as(x->at, i, n, type) * load_as(dy->at, j, n, type);
	for (; done < count; done++, i += xstep, j += dy->ps)
		s[0] += load_as(x->at, i, n, type) * load_as(dy->at, j, n, type);
	return (s[0] + s[1]) + (s[2] + s[3]);
}

/* Outputs from .. to - 1 of a side are those whose input at tap k lies inside. */
static inline void
depthwise_range(int k, int s, int p, int in, int out, int *from, int *to)
{
	*from = p > k ? (p - k + s - 1) / s : 0;
	*to = in + p - k <= 0 ? 0 : (in + p - k - 1) / s + 1;
	*to = *to < out ? *to : out;
}

KERNEL void
depthwise_lanes(float *dw, const CpuStrip *x, const CpuStrip *dy, int l, int n, const CpuDepthwise *g,
                CpuType type)
{
	for (int ky = 0; ky < g->kh; ky++)
		for (int kx = 0; kx < g->kw; kx++)
		{
			int y0, y1, x0, x1;
			V16 sum = {0};

			depthwise_range(ky, g->sh, g->ph, g->ih, g->oh, &y0, &y1);
			depthwise_range(kx, g->sw, g->pw, g->iw, g->ow, &x0, &x1);
			for (int y = y0; y < y1 && x0 < x1; y++)
			{
				size_t in =
				    (size_t) (y * g->sh - g->ph + ky) * (size_t) g->iw + (size_t) (x0 * g->sw - g->pw + kx);
				size_t out = (size_t) y * (size_t) g->ow + (size_t) x0;

				sum += row_product(x, in * x->ps + (size_t) l, (size_t) g->sw * x->ps, dy,
				                   out * dy->ps + (size_t) l, x1 - x0, n, type);
			}
			for (int i = 0; i < n; i++)
				dw[(i * g->kh + ky) * g->kw + kx] += sum[i];
		}
}

KERNEL void
depthwise_body(float *dw, const CpuStrip *x, const CpuStrip *dy, int nl, const CpuDepthwise *g)
{
	if (x->type == CPU_BF16)
		LANES(depthwise_lanes(dw + l * g->kh * g->kw, x, dy, l, n, g, CPU_BF16));
	else
		LANES(depthwise_lanes(dw + l * g->kh * g->kw, x, dy, l, n, g, CPU_F32));
}

#define VARIANT(suffix, attr)                                                                                \
	attr static void unpool_##suffix(float *dz, const float *z, size_t zps, const float *dy, size_t yps,     \
	                                 int nl, const CpuPoolGeom *g, bool avg)                                 \
	{                                                                                                        \
		if (avg)                                                                                             \
			unpool_body(dz, z, zps, dy, yps, nl, g, true);                                                   \
		else                                                                                                 \
			unpool_body(dz, z, zps, dy, yps, nl, g, false);                                                  \
	}                                                                                                        \
	attr static void depthwise_##suffix(float *dw, CpuStrip x, CpuStrip dy, int nl, const CpuDepthwise *g)   \
	{                                                                                                        \
		depthwise_body(dw, &x, &dy, nl, g);                                                                  \
	}                                                                                                        \
	static const CpuTrainWindowKernels train_window_kernels_##suffix = {#suffix, unpool_##suffix,            \
	                                                                    depthwise_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, __attribute__((target("avx512f,avx512bw,avx512vl,prefer-vector-width=512"))))
VARIANT(avx2, __attribute__((target("avx2"))))
#endif
VARIANT(portable, )

CPU_KERNEL_CHOICE(CpuTrainWindowKernels, cpu_train_window_kernels, train_window_kernels)
