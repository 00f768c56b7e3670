/*
 * kernels_train.c
 *	  Vector loops of training (kernels_train.h), compiled once per instruction
 *	  set as those of kernels.c are, and rounding alike in all of them.
 *
 * Long sums are taken in floats over TRAIN_BLOCK pixels and in doubles over those.
 */
#include <math.h>

#include "cpu/kernels_train.h"
#include "cpu/kernels_vec.h"

#define TRAIN_BLOCK 128

/* Add a block's sums, in floats, to the doubles they belong to. */
KERNEL void
flush(double *to, V16 sums, int n)
{
	for (int i = 0; i < n; i++)
		to[i] += (double) sums[i];
}

KERNEL V16
all(float x)
{
	return (V16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}

KERNEL V16
pick(I16 mask, V16 yes, V16 no)
{
	return (V16) ((mask & (I16) yes) | (~mask & (I16) no));
}

/* e^x as in kernels_tokens.c, for any x: clamped to where it is a normal number. */
KERNEL V16
exp16(V16 x)
{
	const float magic = 0x1.8p23f;
	V16 shifted, n, r, e;

	x = pick(x < -87.0f, all(-87), x);
	x = pick(x > 88.0f, all(88), x);
	shifted = x * 1.44269504f + magic;
	n = shifted - magic;
	r = x - n * 0.693359375f + n * 2.12194440e-4f;
	e = r * (1 / 5040.0f) + 1 / 720.0f;
	e = e * r + 1 / 120.0f;
	e = e * r + 1 / 24.0f;
	e = e * r + 1 / 6.0f;
	e = e * r + 0.5f;
	e = e * r + 1;
	e = e * r + 1;
	return (V16) ((I16) e + ((I16) shifted << 23));
}

KERNEL V16
sigmoid16(V16 x)
{
	return 1 / (1 + exp16(-x));
}

/*
 * erf as a quotient of polynomials over [-4, 4], beyond which it is 1 to the
 * last place: the approximation of Eigen's generic_fast_erf_float, within a few
 * units in the last place.
 */
KERNEL V16
erf16(V16 x)
{
	V16 s, p, q;

	x = pick(x < -4.0f, all(-4), x);
	x = pick(x > 4.0f, all(4), x);
	s = x * x;
	p = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
	p = p * s - 2.10102402082508e-06f;
	p = p * s - 5.69250639462346e-05f;
	p = p * s - 7.34990630326855e-04f;
	p = p * s - 2.95459980854025e-03f;
	p = p * s - 1.60960333262415e-02f;
	q = s * -1.45660718464996e-05f - 2.13374055278905e-04f;
	q = q * s - 1.68282697438203e-03f;
	q = q * s - 7.37332916720468e-03f;
	q = q * s - 1.42647390514189e-02f;
	return x * p / q;
}

KERNEL V16
act_of(V16 t, DfxAct act)
{
	switch (act)
	{
		case DFX_ACT_RELU:
			return (V16) ((I16) t & ~(t < 0));
		case DFX_ACT_SILU:
			return t * sigmoid16(t);
		case DFX_ACT_GELU:
			return 0.5f * t * (1 + erf16(t * 0.70710678f));
		case DFX_ACT_SIGMOID:
			return sigmoid16(t);
		default:
			return t;
	}
}

/* dz * act'(t) */
KERNEL V16
act_gradient(V16 dz, V16 t, DfxAct act)
{
	V16 s;

	switch (act)
	{
		case DFX_ACT_RELU:
			return (V16) ((I16) dz & (t > 0));
		case DFX_ACT_SILU:
			s = sigmoid16(t);
			return dz * (s * (1 + t * (1 - s)));
		case DFX_ACT_GELU:
			return dz * (0.5f * (1 + erf16(t * 0.70710678f)) + t * 0.39894228f * exp16(t * t * -0.5f));
		case DFX_ACT_SIGMOID:
			s = sigmoid16(t);
			return dz * (s * (1 - s));
		default:
			return dz;
	}
}

KERNEL void
act_lanes(float *dst, size_t dps, const float *src, size_t sps, size_t npix, int n, const CpuNorm *norm,
          int l, DfxAct act)
{
	V16 mean = load(norm->mean + l, n), scale = load(norm->scale + l, n), shift = load(norm->shift + l, n);

	for (size_t i = 0; i < npix; i++)
	{
		V16 x = (load(src + i * sps, n) - mean) * scale;

		store(dst + i * dps, act_of(x + shift, act), n);
	}
}

KERNEL void
act_body(float *dst, size_t dps, const float *src, size_t sps, size_t npix, int nl, const CpuNorm *norm,
         DfxAct act)
{
	LANES(act_lanes(dst + l, dps, src + l, sps, npix, n, norm, l, act));
}

KERNEL void
push_lanes(const CpuPush *p, int l, int n, DfxAct act, bool add)
{
	V16 scale = load(p->norm.scale + l, n), shift = load(p->norm.shift + l, n);
	V16 mean = load(p->norm.mean + l, n);

	for (size_t from = 0; from < p->npix; from += TRAIN_BLOCK)
	{
		size_t to = from + TRAIN_BLOCK < p->npix ? from + TRAIN_BLOCK : p->npix;
		V16 sum = {0}, sum_x = {0};

		for (size_t i = from; i < to; i++)
		{
			V16 x = load(p->x + i * p->xps + l, n) - mean, t = x * scale;
			V16 dt = act_gradient(load(p->dz + i * p->zps + l, n), t + shift, act);
			V16 g = dt * scale;

			sum += dt;
			sum_x += dt * x;
			if (add)
				g += load(p->g + i * p->gps + l, n);
			store(p->g + i * p->gps + l, g, n);
		}
		flush(p->sum + l, sum, n);
		flush(p->sum_x + l, sum_x, n);
	}
}

KERNEL void
push_body(const CpuPush *p, DfxAct act, bool add)
{
	int nl = p->nl;

	LANES(push_lanes(p, l, n, act, add));
}

/* Two passes over a run that the caches still hold: the difference of two large sums would lose the variance.
 */
KERNEL void
moments_lanes(const float *src, size_t sps, size_t npix, int n, float *mean, float *m2)
{
	double sum[16] = {0}, squares[16] = {0};
	V16 middle = {0};

	for (size_t from = 0; from < npix; from += TRAIN_BLOCK)
	{
		size_t to = from + TRAIN_BLOCK < npix ? from + TRAIN_BLOCK : npix;
		V16 s = {0};

		for (size_t i = from; i < to; i++)
			s += load(src + i * sps, n);
		flush(sum, s, n);
	}
	for (int i = 0; i < n; i++)
		middle[i] = (float) (sum[i] / (double) npix);
	for (size_t from = 0; from < npix; from += TRAIN_BLOCK)
	{
		size_t to = from + TRAIN_BLOCK < npix ? from + TRAIN_BLOCK : npix;
		V16 s = {0};

		for (size_t i = from; i < to; i++)
		{
			V16 x = load(src + i * sps, n) - middle;

			s += x * x;
		}
		flush(squares, s, n);
	}
	/* middle is rounded; the squares are about it, not about the mean. */
	for (int i = 0; i < n; i++)
	{
		double off = sum[i] / (double) npix - (double) middle[i];

		mean[i] = middle[i];
		m2[i] = (float) (squares[i] - off * off * (double) npix);
		m2[i] = m2[i] > 0 ? m2[i] : 0;
	}
}

KERNEL void
moments_body(const float *src, size_t sps, size_t npix, int nl, float *mean, float *m2)
{
	LANES(moments_lanes(src + l, sps, npix, n, mean + l, m2 + l));
}

KERNEL void
finish_lanes(float *g, const float *y, size_t ps, size_t npix, int n, bool relu, const float *mean,
             const float *a, const float *b)
{
	V16 m = {0}, ca = {0}, cb = {0};

	if (a)
	{
		m = load(mean, n);
		ca = load(a, n);
		cb = load(b, n);
	}
	for (size_t i = 0; i < npix; i++)
	{
		V16 x = load(y + i * ps, n), d = load(g + i * ps, n);

		if (a)
			d = d - ca - (x - m) * cb;
		if (relu)
			d = (V16) ((I16) d & (x > 0));
		store(g + i * ps, d, n);
	}
}

KERNEL void
finish_body(float *g, const float *y, size_t ps, size_t npix, int nl, bool relu, const float *mean,
            const float *a, const float *b)
{
	if (a && relu)
		LANES(finish_lanes(g + l, y + l, ps, npix, n, true, mean + l, a + l, b + l));
	else if (a)
		LANES(finish_lanes(g + l, y + l, ps, npix, n, false, mean + l, a + l, b + l));
	else
		LANES(finish_lanes(g + l, y + l, ps, npix, n, true, NULL, NULL, NULL));
}

KERNEL void
sum_lanes(double *dst, const float *a, size_t aps, const float *b, size_t bps, size_t npix, int n)
{
	for (size_t from = 0; from < npix; from += TRAIN_BLOCK)
	{
		size_t to = from + TRAIN_BLOCK < npix ? from + TRAIN_BLOCK : npix;
		V16 s = {0};

		if (b)
			for (size_t i = from; i < to; i++)
				s += load(a + i * aps, n) * load(b + i * bps, n);
		else
			for (size_t i = from; i < to; i++)
				s += load(a + i * aps, n);
		flush(dst, s, n);
	}
}

KERNEL void
sum_body(double *dst, const float *a, size_t aps, const float *b, size_t bps, size_t npix, int nl)
{
	LANES(sum_lanes(dst + l, a + l, aps, b ? b + l : NULL, bps, npix, n));
}

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

/* x * dy over n pixels of a row, in four sums so that one addition need not wait for the last. */
KERNEL V16
row_product(const float *x, size_t xstep, const float *dy, size_t yps, int count, int n)
{
	V16 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
	int i = 0;

	for (; i + 4 <= count; i += 4, x += 4 * xstep, dy += 4 * yps)
	{
		s0 += load(x, n) * load(dy, n);
		s1 += load(x + xstep, n) * load(dy + yps, n);
		s2 += load(x + 2 * xstep, n) * load(dy + 2 * yps, n);
		s3 += load(x + 3 * xstep, n) * load(dy + 3 * yps, n);
	}
	for (; i < count; i++, x += xstep, dy += yps)
		s0 += load(x, n) * load(dy, n);
	return (s0 + s1) + (s2 + s3);
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
depthwise_lanes(float *dw, const float *x, size_t xps, const float *dy, size_t yps, int n,
                const CpuDepthwise *g)
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

				sum += row_product(x + in * xps, (size_t) g->sw * xps,
				                   dy + ((size_t) y * (size_t) g->ow + (size_t) x0) * yps, yps, x1 - x0, n);
			}
			for (int l = 0; l < n; l++)
				dw[(l * g->kh + ky) * g->kw + kx] += sum[l];
		}
}

KERNEL void
depthwise_body(float *dw, const float *x, size_t xps, const float *dy, size_t yps, int nl,
               const CpuDepthwise *g)
{
	LANES(depthwise_lanes(dw + l * g->kh * g->kw, x + l, xps, dy + l, yps, n, g));
}

KERNEL void
add_body(float *dst, const float *src, size_t count)
{
	size_t i = 0;

	for (; i + 16 <= count; i += 16)
		*(V16 *) (dst + i) += *(const V16 *) (src + i);
	for (; i < count; i++)
		dst[i] += src[i];
}

/* torch.optim.Adam, operation by operation in floats; n is a multiple of 16. */
KERNEL void
adam_body(float *p, const float *g, float *m, float *v, size_t n, const DfxAdamScalars *a)
{
	for (size_t i = 0; i < n; i += 16)
	{
		V16 x = *(V16 *) (p + i), d = *(const V16 *) (g + i) + a->decay * x;
		V16 avg = *(V16 *) (m + i) * a->beta1 + a->rest1 * d;
		V16 sq = *(V16 *) (v + i) * a->beta2 + a->rest2 * d * d;
		V16 root;

		for (int j = 0; j < 16; j++)
			root[j] = sqrtf(sq[j]);
		*(V16 *) (m + i) = avg;
		*(V16 *) (v + i) = sq;
		*(V16 *) (p + i) = x + a->step * avg / (root / a->root + a->eps);
	}
}

#define PUSH(act)                                                                                            \
	case act:                                                                                                \
		if (p->add)                                                                                          \
			push_body(p, act, true);                                                                         \
		else                                                                                                 \
			push_body(p, act, false);                                                                        \
		break;

#define ACT(act)                                                                                             \
	case act:                                                                                                \
		act_body(dst, dps, src, sps, npix, nl, norm, act);                                                   \
		break;

#define VARIANT(suffix, attr)                                                                                \
	attr static void act_##suffix(float *dst, size_t dps, const float *src, size_t sps, size_t npix, int nl, \
	                              const CpuNorm *norm, DfxAct act)                                           \
	{                                                                                                        \
		switch (act)                                                                                         \
		{                                                                                                    \
			ACT(DFX_ACT_NONE)                                                                                \
			ACT(DFX_ACT_RELU)                                                                                \
			ACT(DFX_ACT_SILU)                                                                                \
			ACT(DFX_ACT_GELU)                                                                                \
			ACT(DFX_ACT_SIGMOID)                                                                             \
			case DFX_ACT_COUNT:                                                                              \
				break;                                                                                       \
		}                                                                                                    \
	}                                                                                                        \
	attr static void push_##suffix(const CpuPush *p)                                                         \
	{                                                                                                        \
		switch (p->act)                                                                                      \
		{                                                                                                    \
			PUSH(DFX_ACT_NONE)                                                                               \
			PUSH(DFX_ACT_RELU)                                                                               \
			PUSH(DFX_ACT_SILU)                                                                               \
			PUSH(DFX_ACT_GELU)                                                                               \
			PUSH(DFX_ACT_SIGMOID)                                                                            \
			case DFX_ACT_COUNT:                                                                              \
				break;                                                                                       \
		}                                                                                                    \
	}                                                                                                        \
	attr static void moments_##suffix(const float *src, size_t sps, size_t npix, int nl, float *mean,        \
	                                  float *m2)                                                             \
	{                                                                                                        \
		moments_body(src, sps, npix, nl, mean, m2);                                                          \
	}                                                                                                        \
	attr static void finish_##suffix(float *g, const float *y, size_t ps, size_t npix, int nl, bool relu,    \
	                                 const float *mean, const float *a, const float *b)                      \
	{                                                                                                        \
		finish_body(g, y, ps, npix, nl, relu, mean, a, b);                                                   \
	}                                                                                                        \
	attr static void sum_##suffix(double *dst, const float *a, size_t aps, const float *b, size_t bps,       \
	                              size_t npix, int nl)                                                       \
	{                                                                                                        \
		sum_body(dst, a, aps, b, bps, npix, nl);                                                             \
	}                                                                                                        \
	attr static void unpool_##suffix(float *dz, const float *z, size_t zps, const float *dy, size_t yps,     \
	                                 int nl, const CpuPoolGeom *g, bool avg)                                 \
	{                                                                                                        \
		if (avg)                                                                                             \
			unpool_body(dz, z, zps, dy, yps, nl, g, true);                                                   \
		else                                                                                                 \
			unpool_body(dz, z, zps, dy, yps, nl, g, false);                                                  \
	}                                                                                                        \
	attr static void depthwise_##suffix(float *dw, const float *x, size_t xps, const float *dy, size_t yps,  \
	                                    int nl, const CpuDepthwise *g)                                       \
	{                                                                                                        \
		depthwise_body(dw, x, xps, dy, yps, nl, g);                                                          \
	}                                                                                                        \
	attr static void add_##suffix(float *dst, const float *src, size_t n)                                    \
	{                                                                                                        \
		add_body(dst, src, n);                                                                               \
	}                                                                                                        \
	attr static void adam_##suffix(float *p, const float *g, float *m, float *v, size_t n, const DfxAdamScalars *a) \
	{                                                                                                        \
		adam_body(p, g, m, v, n, a);                                                                         \
	}                                                                                                        \
	static const CpuTrainKernels train_kernels_##suffix = {                                                  \
	    #suffix,      act_##suffix,    push_##suffix,      moments_##suffix, finish_##suffix,                \
	    sum_##suffix, unpool_##suffix, depthwise_##suffix, add_##suffix,     adam_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, __attribute__((target("avx512f,prefer-vector-width=512"))))
VARIANT(avx2, __attribute__((target("avx2"))))
#endif
VARIANT(portable, )

CPU_KERNEL_CHOICE(CpuTrainKernels, cpu_train_kernels, train_kernels)
