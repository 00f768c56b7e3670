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
act_lanes(CpuStrip dst, CpuStrip src, size_t npix, int n, const CpuNorm *norm, int l, DfxAct act, CpuType to,
          CpuType from)
{
	V16 mean = load(norm->mean + l, n), scale = load(norm->scale + l, n), shift = load(norm->shift + l, n);

	for (size_t i = 0; i < npix; i++)
	{
		V16 x = (load_as(src.at, i * src.ps + (size_t) l, n, from) - mean) * scale;

		store_as(dst.at, i * dst.ps + (size_t) l, act_of(x + shift, act), n, to);
	}
}

KERNEL void
act_body(CpuStrip dst, CpuStrip src, size_t npix, int nl, const CpuNorm *norm, DfxAct act)
{
	if (dst.type == CPU_BF16)
		LANES(act_lanes(dst, src, npix, n, norm, l, act, CPU_BF16, CPU_BF16));
	else if (src.type == CPU_BF16)
		LANES(act_lanes(dst, src, npix, n, norm, l, act, CPU_F32, CPU_BF16));
	else
		LANES(act_lanes(dst, src, npix, n, norm, l, act, CPU_F32, CPU_F32));
}

/* stored: the kind of x and g; of: that of dz */
KERNEL void
push_lanes(const CpuPush *p, int l, int n, DfxAct act, CpuType stored, CpuType of)
{
	V16 scale = load(p->norm.scale + l, n), shift = load(p->norm.shift + l, n);
	V16 mean = load(p->norm.mean + l, n);

	for (size_t from = 0; from < p->npix; from += TRAIN_BLOCK)
	{
		size_t to = from + TRAIN_BLOCK < p->npix ? from + TRAIN_BLOCK : p->npix;
		V16 sum = {0}, sum_x = {0};

		for (size_t i = from; i < to; i++)
		{
			V16 x = load_as(p->x.at, i * p->x.ps + (size_t) l, n, stored) - mean, t = x * scale;
			V16 dt = act_gradient(load_as(p->dz.at, i * p->dz.ps + (size_t) l, n, of), t + shift, act);
			V16 g = dt * scale;

			sum += dt;
			sum_x += dt * x;
			if (p->add)
				g += load_as(p->g.at, i * p->g.ps + (size_t) l, n, stored);
			store_as(p->g.at, i * p->g.ps + (size_t) l, g, n, stored);
		}
		flush(p->sum + l, sum, n);
		flush(p->sum_x + l, sum_x, n);
	}
}

KERNEL void
push_body(const CpuPush *p, DfxAct act)
{
	int nl = p->nl;

	if (p->dz.type == CPU_BF16)
		LANES(push_lanes(p, l, n, act, CPU_BF16, CPU_BF16));
	else if (p->g.type == CPU_BF16)
		LANES(push_lanes(p, l, n, act, CPU_BF16, CPU_F32));
	else
		LANES(push_lanes(p, l, n, act, CPU_F32, CPU_F32));
}

KERNEL void
copy_lanes(CpuStrip dst, CpuStrip src, size_t npix, int l, int n, bool add, CpuType to, CpuType from)
{
	for (size_t i = 0; i < npix; i++)
	{
		V16 x = load_as(src.at, i * src.ps + (size_t) l, n, from);

		if (add)
			x = load_as(dst.at, i * dst.ps + (size_t) l, n, to) + x;
		store_as(dst.at, i * dst.ps + (size_t) l, x, n, to);
	}
}

KERNEL void
copy_body(CpuStrip dst, CpuStrip src, size_t npix, int nl, bool add)
{
	if (dst.type == CPU_BF16 && src.type == CPU_BF16)
		LANES(copy_lanes(dst, src, npix, l, n, add, CPU_BF16, CPU_BF16));
	else if (dst.type == CPU_BF16)
		LANES(copy_lanes(dst, src, npix, l, n, add, CPU_BF16, CPU_F32));
	else if (src.type == CPU_BF16)
		LANES(copy_lanes(dst, src, npix, l, n, add, CPU_F32, CPU_BF16));
	else
		LANES(copy_lanes(dst, src, npix, l, n, add, CPU_F32, CPU_F32));
}

/* Two passes over a run that the caches still hold: the difference of two large sums would lose the variance.
 */
KERNEL void
moments_lanes(CpuStrip src, size_t npix, int l, int n, float *mean, float *m2, CpuType type)
{
	double sum[16] = {0}, squares[16] = {0};
	V16 middle = {0};

	for (size_t from = 0; from < npix; from += TRAIN_BLOCK)
	{
		size_t to = from + TRAIN_BLOCK < npix ? from + TRAIN_BLOCK : npix;
		V16 s = {0};

		for (size_t i = from; i < to; i++)
			s += load_as(src.at, i * src.ps + (size_t) l, n, type);
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
			V16 x = load_as(src.at, i * src.ps + (size_t) l, n, type) - middle;

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
moments_body(CpuStrip src, size_t npix, int nl, float *mean, float *m2)
{
	if (src.type == CPU_BF16)
		LANES(moments_lanes(src, npix, l, n, mean + l, m2 + l, CPU_BF16));
	else
		LANES(moments_lanes(src, npix, l, n, mean + l, m2 + l, CPU_F32));
}

KERNEL void
finish_lanes(CpuStrip g, CpuStrip y, size_t npix, int l, int n, bool relu, const float *mean, const float *a,
             const float *b, CpuType type)
{
	V16 m = {0}, ca = {0}, cb = {0};

	if (a)
	{
		m = load(mean + l, n);
		ca = load(a + l, n);
		cb = load(b + l, n);
	}
	for (size_t i = 0; i < npix; i++)
	{
		V16 x = load_as(y.at, i * y.ps + (size_t) l, n, type);
		V16 d = load_as(g.at, i * g.ps + (size_t) l, n, type);

		if (a)
			d = d - ca - (x - m) * cb;
		if (relu)
			d = (V16) ((I16) d & (x > 0));
		store_as(g.at, i * g.ps + (size_t) l, d, n, type);
	}
}

KERNEL void
finish_as(CpuStrip g, CpuStrip y, size_t npix, int nl, bool relu, const float *mean, const float *a,
          const float *b, CpuType type)
{
	if (a && relu)
		LANES(finish_lanes(g, y, npix, l, n, true, mean, a, b, type));
	else if (a)
		LANES(finish_lanes(g, y, npix, l, n, false, mean, a, b, type));
	else
		LANES(finish_lanes(g, y, npix, l, n, true, NULL, NULL, NULL, type));
}

KERNEL void
finish_body(CpuStrip g, CpuStrip y, size_t npix, int nl, bool relu, const float *mean, const float *a,
            const float *b)
{
	if (g.type == CPU_BF16)
		finish_as(g, y, npix, nl, relu, mean, a, b, CPU_BF16);
	else
		finish_as(g, y, npix, nl, relu, mean, a, b, CPU_F32);
}

KERNEL void
sum_lanes(double *dst, CpuStrip a, const CpuStrip *b, size_t npix, int l, int n, CpuType type)
{
	for (size_t from = 0; from < npix; from += TRAIN_BLOCK)
	{
		size_t to = from + TRAIN_BLOCK < npix ? from + TRAIN_BLOCK : npix;
		V16 s = {0};

		if (b)
			for (size_t i = from; i < to; i++)
				s += load_as(a.at, i * a.ps + (size_t) l, n, type) *
				     load_as(b->at, i * b->ps + (size_t) l, n, type);
		else
			for (size_t i = from; i < to; i++)
				s += load_as(a.at, i * a.ps + (size_t) l, n, type);
		flush(dst, s, n);
	}
}

KERNEL void
sum_body(double *dst, CpuStrip a, const CpuStrip *b, size_t npix, int nl)
{
	if (a.type == CPU_BF16)
		LANES(sum_lanes(dst + l, a, b, npix, l, n, CPU_BF16));
	else
		LANES(sum_lanes(dst + l, a, b, npix, l, n, CPU_F32));
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
		push_body(p, act);                                                                                   \
		break;

#define ACT(act)                                                                                             \
	case act:                                                                                                \
		act_body(dst, src, npix, nl, norm, act);                                                             \
		break;

#define VARIANT(suffix, attr)                                                                                \
	attr static void act_##suffix(CpuStrip dst, CpuStrip src, size_t npix, int nl, const CpuNorm *norm,      \
	                              DfxAct act)                                                                \
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
	attr static void copy_##suffix(CpuStrip dst, CpuStrip src, size_t npix, int nl, bool add)                \
	{                                                                                                        \
		copy_body(dst, src, npix, nl, add);                                                                  \
	}                                                                                                        \
	attr static void moments_##suffix(CpuStrip src, size_t npix, int nl, float *mean, float *m2)             \
	{                                                                                                        \
		moments_body(src, npix, nl, mean, m2);                                                               \
	}                                                                                                        \
	attr static void finish_##suffix(CpuStrip g, CpuStrip y, size_t npix, int nl, bool relu,                 \
	                                 const float *mean, const float *a, const float *b)                      \
	{                                                                                                        \
		finish_body(g, y, npix, nl, relu, mean, a, b);                                                       \
	}                                                                                                        \
	attr static void sum_##suffix(double *dst, CpuStrip a, const CpuStrip *b, size_t npix, int nl)           \
	{                                                                                                        \
		sum_body(dst, a, b, npix, nl);                                                                       \
	}                                                                                                        \
	attr static void add_##suffix(float *dst, const float *src, size_t n)                                    \
	{                                                                                                        \
		add_body(dst, src, n);                                                                               \
	}                                                                                                        \
	attr static void adam_##suffix(float *p, const float *g, float *m, float *v, size_t n, const DfxAdamScalars *a) \
	{                                                                                                        \
		adam_body(p, g, m, v, n, a);                                                                         \
	}                                                                                                        \
	static const CpuTrainKernels train_kernels_##suffix = {#suffix,       act_##suffix,     push_##suffix,   \
	                                                       copy_##suffix, moments_##suffix, finish_##suffix, \
	                                                       sum_##suffix,  add_##suffix,     adam_##suffix};

#if defined(__x86_64__)
VARIANT(avx512, __attribute__((target("avx512f,avx512bw,avx512vl,prefer-vector-width=512"))))
VARIANT(avx2, __attribute__((target("avx2"))))
#endif
VARIANT(portable, )

CPU_KERNEL_CHOICE(CpuTrainKernels, cpu_train_kernels, train_kernels)
