/*
 * reduce_train.cuh
 *	  The kernels of training that sum: statistics and gradients of norms,
 *	  attention's gradient, gradients of weights.  Ops as in element_train.cuh.
 *
 * Sums over all rows of a batch go in two passes: partial ones over chunks of
 * rows, a thread a chunk and channel, and then a team of lanes a channel over
 * the chunks.
 */
#ifndef DFX_CUDA_REDUCE_TRAIN_CUH
#define DFX_CUDA_REDUCE_TRAIN_CUH

#include "cuda/element_train.cuh"
#include "cuda/tile.cuh"

/* ---- norms ---- */

/* Rows of all images, and chunks of them. */
static GPU_HD size_t
gpu_norm_rows(const GpuNormArgs &a)
{
	return (size_t) a.n * (size_t) a.rows;
}
static GPU_HD int
gpu_norm_chunks(const GpuNormArgs &a)
{
	return (int) ((gpu_norm_rows(a) + (size_t) a.chunk - 1) / (size_t) a.chunk);
}
static GPU_HD size_t
gpu_norm_end(const GpuNormArgs &a, size_t chunk)
{
	size_t end = (chunk + 1) * (size_t) a.chunk;

	return end < gpu_norm_rows(a) ? end : gpu_norm_rows(a);
}

/* row: a chunk.  About the chunk's first value, so that a large mean costs no digits. */
template <class T> struct GpuBnPartOp
{
	GpuNormArgs a;
	GPU_HD void operator()(size_t chunk, int c) const
	{
		size_t first = chunk * (size_t) a.chunk, end = gpu_norm_end(a, chunk);
		float *part = a.part + (chunk * (size_t) a.c + (size_t) c) * 2;
		float about = gpu_at<T>(a.x, first, a.ldx, c), sum = 0, square = 0, count = (float) (end - first);

		for (size_t row = first; row < end; row++)
		{
			float d = gpu_at<T>(a.x, row, a.ldx, c) - about;

			sum += d;
			square += d * d;
		}
		part[0] = about + sum / count;
		part[1] = fmaxf(square - sum * sum / count, 0.0f);
	}
};

/*
 * row: a channel, by all lanes.  The squares about the chunks' means become
 * squares about the common one (Chan, Golub, LeVeque, 1979).
 */
struct GpuBnStatsOp
{
	GpuNormArgs a;
	template <class Lanes> GPU_HD void operator()(size_t c, float *, const Lanes &lanes) const
	{
		float total = (float) gpu_norm_rows(a), sum = 0, square = 0, mean, var;

		if (a.eval)
		{
			if (lanes.id() == 0)
			{
				a.mean[c] = a.run_mean[c];
				a.inv[c] = 1.0f / sqrtf(a.run_var[c] + a.eps);
			}
			return;
		}
		for (int i = lanes.id(); i < gpu_norm_chunks(a); i += Lanes::count)
			sum += a.part[((size_t) i * (size_t) a.c + c) * 2] *
			       (float) (gpu_norm_end(a, (size_t) i) - (size_t) i * (size_t) a.chunk);
		mean = lanes.sum(sum) / total;
		for (int i = lanes.id(); i < gpu_norm_chunks(a); i += Lanes::count)
		{
			const float *part = a.part + ((size_t) i * (size_t) a.c + c) * 2;
			float d = part[0] - mean;

			square += part[1] + d * d * (float) (gpu_norm_end(a, (size_t) i) - (size_t) i * (size_t) a.chunk);
		}
		var = lanes.sum(square) / total;
		if (lanes.id() != 0)
			return;
		a.mean[c] = mean;
		a.inv[c] = 1.0f / sqrtf(var + a.eps);
		a.run_mean[c] += GPU_BN_MOMENTUM * (mean - a.run_mean[c]);
		a.run_var[c] += GPU_BN_MOMENTUM * (var * total / (total - 1.0f) - a.run_var[c]);
	}
};

/* row: over images and pixels. */
template <class T, int V> struct GpuBnMapOp
{
	GpuNormArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		GpuPack<T, V> p = gpu_load<T, V>(static_cast<const T *>(a.x) + row * (size_t) a.ldx + i * V);

#pragma unroll
		for (int k = 0; k < V; k++)
		{
			int c = i * V + k;
			float z = (gpu_get(p.v[k]) - a.mean[c]) * a.inv[c];

			gpu_put(&p.v[k], gpu_activate(a.act, z * a.weight[c] + a.bias[c]));
		}
		gpu_store<T, V>(gpu_to<T>(a.y, row, a.ldy, i * V), p);
	}
};

/* row: a chunk. */
template <class T> struct GpuSumPartOp
{
	GpuNormArgs a;
	GPU_HD void operator()(size_t chunk, int c) const
	{
		float *part = a.part + (chunk * (size_t) a.c + (size_t) c) * 2, sum = 0, product = 0;

		for (size_t row = chunk * (size_t) a.chunk; row < gpu_norm_end(a, chunk); row++)
		{
			float d = gpu_at<T>(a.dy, row, a.lddy, c);

			if (a.x)
			{
				size_t k = a.by_row ? row : (size_t) c;
				float z = (gpu_at<T>(a.x, row, a.ldx, c) - a.mean[k]) * a.inv[k];

				if (a.act != GPU_ACT_NONE)
					d *= gpu_slope(a.act, z * a.weight[c] + a.bias[c]);
				product += d * z;
			}
			sum += d;
		}
		part[0] = sum;
		part[1] = product;
	}
};

/* row: a channel, by all lanes. */
struct GpuSumOp
{
	GpuNormArgs a;
	template <class Lanes> GPU_HD void operator()(size_t c, float *, const Lanes &lanes) const
	{
		float sum = 0, product = 0;

		for (int i = lanes.id(); i < gpu_norm_chunks(a); i += Lanes::count)
		{
			sum += a.part[((size_t) i * (size_t) a.c + c) * 2];
			product += a.part[((size_t) i * (size_t) a.c + c) * 2 + 1];
		}
		sum = lanes.sum(sum);
		product = lanes.sum(product);
		if (lanes.id() == 0)
		{
			a.dbias[c] = sum;
			if (a.dweight)
				a.dweight[c] = product;
		}
	}
};

/*
 * row: over images and pixels (Ioffe, Szegedy, "Batch Normalization", ICML
 * 2015, section 3; dbias and dweight are the sums over the batch).
 */
template <class T, int V> struct GpuBnGradOp
{
	GpuNormArgs a;
	GPU_HD void operator()(size_t row, int i) const
	{
		float share = 1.0f / (float) gpu_norm_rows(a);
		T *to = gpu_to<T>(a.y, row, a.ldy, i * V);
		GpuPack<T, V> p = gpu_load<T, V>(static_cast<const T *>(a.x) + row * (size_t) a.ldx + i * V);
		GpuPack<T, V> q = gpu_load<T, V>(static_cast<const T *>(a.dy) + row * (size_t) a.lddy + i * V);
		GpuPack<T, V> out = {};

		if (a.add)
			out = gpu_load<T, V>(to);
#pragma unroll
		for (int k = 0; k < V; k++)
		{
			int c = i * V + k;
			float z = (gpu_get(p.v[k]) - a.mean[c]) * a.inv[c], d = gpu_get(q.v[k]);

			if (a.act != GPU_ACT_NONE)
				d *= gpu_slope(a.act, z * a.weight[c] + a.bias[c]);
			d -= (a.dbias[c] + z * a.dweight[c]) * share;
			gpu_give(&out.v[k], a.weight[c] * a.inv[c] * d, a.add);
		}
		gpu_store<T, V>(to, out);
	}
};

/* row: over images and rows, by all lanes. */
template <class T> struct GpuLayernormGradOp
{
	GpuLayernormGradArgs a;
	template <class Lanes> GPU_HD void operator()(size_t row, float *, const Lanes &lanes) const
	{
		float sum = 0, square = 0, dz = 0, dzz = 0, mean, inv, share = 1.0f / (float) a.c;

		for (int c = lanes.id(); c < a.c; c += Lanes::count)
			sum += gpu_at<T>(a.x, row, a.ldx, c);
		mean = lanes.sum(sum) * share;
		for (int c = lanes.id(); c < a.c; c += Lanes::count)
		{
			float d = gpu_at<T>(a.x, row, a.ldx, c) - mean;

			square += d * d;
		}
		inv = 1.0f / sqrtf(lanes.sum(square) * share + a.eps);
		for (int c = lanes.id(); c < a.c; c += Lanes::count)
		{
			float d = gpu_at<T>(a.dy, row, a.lddy, c) * a.weight[c];

			dz += d;
			dzz += d * (gpu_at<T>(a.x, row, a.ldx, c) - mean) * inv;
		}
		dz = lanes.sum(dz) * share;
		dzz = lanes.sum(dzz) * share;
		for (int c = lanes.id(); c < a.c; c += Lanes::count)
		{
			float z = (gpu_at<T>(a.x, row, a.ldx, c) - mean) * inv;
			float d = gpu_at<T>(a.dy, row, a.lddy, c) * a.weight[c];

			gpu_give(gpu_to<T>(a.dx, row, a.lddx, c), inv * (d - dz - z * dzz), a.add);
		}
		if (lanes.id() == 0)
		{
			a.mean[row] = mean;
			a.inv[row] = inv;
		}
	}
};

/* ---- attention ---- */

/* The sum of x's row r from channel i on times y's row s from channel j on, over a head. */
template <class T>
static GPU_HD float
gpu_attn_dot(const GpuAttnGradArgs &a, const void *x, size_t r, int ldx, int i, const void *y, size_t s,
             int ldy, int j)
{
	float dot = 0;

	for (int k = 0; k < a.c / a.heads; k++)
		dot += gpu_at<T>(x, r, ldx, i + k) * gpu_at<T>(y, s, ldy, j + k);
	return dot;
}

/*
 * row: (image, head, query), by all lanes; scratch: 2 x tokens.  With p the
 * softmax of the scores and dp = dy . v, the scores' gradient is p (dp - sum
 * of p dp).
 */
template <class T> struct GpuAttnGradQOp
{
	GpuAttnGradArgs a;
	template <class Lanes> GPU_HD void operator()(size_t row, float *scratch, const Lanes &lanes) const
	{
		size_t tokens = (size_t) a.tokens, image = row / tokens / (size_t) a.heads, first = image * tokens;
		size_t query = first + row % tokens;
		int width = a.c / a.heads, c0 = (int) (row / tokens % (size_t) a.heads) * width;
		float factor = 1.0f / sqrtf((float) width), top = -INFINITY, norm = 0, sum = 0;
		float *p = scratch, *dp = scratch + tokens;

		lanes.sync(); /* what the row before left is read no more */
		for (int s = lanes.id(); s < a.tokens; s += Lanes::count)
		{
			size_t key = first + (size_t) s;

			p[s] = factor * gpu_attn_dot<T>(a, a.x, query, a.ldx, c0, a.x, key, a.ldx, a.c + c0);
			dp[s] = gpu_attn_dot<T>(a, a.dy, query, a.lddy, c0, a.x, key, a.ldx, 2 * a.c + c0);
			top = fmaxf(top, p[s]);
		}
		top = lanes.max(top);
		for (int s = lanes.id(); s < a.tokens; s += Lanes::count)
		{
			p[s] = expf(p[s] - top);
			norm += p[s];
		}
		norm = lanes.sum(norm);
		for (int s = lanes.id(); s < a.tokens; s += Lanes::count)
		{
			p[s] /= norm;
			sum += p[s] * dp[s];
		}
		sum = lanes.sum(sum);
		for (int s = lanes.id(); s < a.tokens; s += Lanes::count)
			dp[s] = p[s] * (dp[s] - sum) * factor;
		lanes.sync();
		for (int i = lanes.id(); i < width; i += Lanes::count)
		{
			float d = 0;

			for (int s = 0; s < a.tokens; s++)
				d += dp[s] * gpu_at<T>(a.x, first + (size_t) s, a.ldx, a.c + c0 + i);
			gpu_give(gpu_to<T>(a.dx, query, a.lddx, c0 + i), d, a.add);
		}
		if (lanes.id() == 0)
		{
			a.stat[2 * row] = top + logf(norm);
			a.stat[2 * row + 1] = sum;
		}
	}
};

/* row: (image, head, key), by all lanes; after GpuAttnGradQOp; scratch: 2 x tokens. */
template <class T> struct GpuAttnGradKvOp
{
	GpuAttnGradArgs a;
	template <class Lanes> GPU_HD void operator()(size_t row, float *scratch, const Lanes &lanes) const
	{
		size_t tokens = (size_t) a.tokens, image = row / tokens / (size_t) a.heads, first = image * tokens;
		size_t key = first + row % tokens;
		int width = a.c / a.heads, c0 = (int) (row / tokens % (size_t) a.heads) * width;
		const float *stat = a.stat + row / tokens * tokens * 2;
		float factor = 1.0f / sqrtf((float) width), *p = scratch, *ds = scratch + tokens;

		lanes.sync();
		for (int q = lanes.id(); q < a.tokens; q += Lanes::count)
		{
			size_t query = first + (size_t) q;
			float score = factor * gpu_attn_dot<T>(a, a.x, query, a.ldx, c0, a.x, key, a.ldx, a.c + c0);
			float dp = gpu_attn_dot<T>(a, a.dy, query, a.lddy, c0, a.x, key, a.ldx, 2 * a.c + c0);

			p[q] = expf(score - stat[2 * q]);
			ds[q] = p[q] * (dp - stat[2 * q + 1]) * factor;
		}
		lanes.sync();
		for (int i = lanes.id(); i < width; i += Lanes::count)
		{
			float dk = 0, dv = 0;

			for (int q = 0; q < a.tokens; q++)
			{
				dk += ds[q] * gpu_at<T>(a.x, first + (size_t) q, a.ldx, c0 + i);
				dv += p[q] * gpu_at<T>(a.dy, first + (size_t) q, a.lddy, c0 + i);
			}
			gpu_give(gpu_to<T>(a.dx, key, a.lddx, a.c + c0 + i), dk, a.add);
			gpu_give(gpu_to<T>(a.dx, key, a.lddx, 2 * a.c + c0 + i), dv, a.add);
		}
	}
};

/* ---- weights ---- */

/* Output rows of all images; channels times taps that one output channel has weights for. */
static GPU_HD size_t
gpu_wgrad_rows(const GpuWgradArgs &a)
{
	return (size_t) a.n * (size_t) a.conv.oh * (size_t) a.conv.ow;
}
static GPU_HD int
gpu_wgrad_depth(const GpuWgradArgs &a)
{
	return a.conv.kh * a.conv.kw * (a.conv.ci / a.conv.groups);
}
static GPU_HD size_t
gpu_wgrad_chunks(const GpuWgradArgs &a)
{
	return (gpu_wgrad_rows(a) + (size_t) a.chunk - 1) / (size_t) a.chunk;
}
static GPU_HD size_t
gpu_wgrad_end(const GpuWgradArgs &a, size_t chunk)
{
	size_t end = (chunk + 1) * (size_t) a.chunk;

	return end < gpu_wgrad_rows(a) ? end : gpu_wgrad_rows(a);
}

/*
 * The product of gradients and inputs in tile.cuh's phases: its m are output
 * channels, its n are (tap, ci), and the sum runs over a chunk's output rows.
 * This thread's share of the tiles from row `row` on.
 */
template <class T>
static GPU_HD void
gpu_wgrad_load(const GpuWgradArgs &a, GpuTile &tile, int co0, int k0, size_t row, size_t end, int thread)
{
	for (int i = thread; i < GPU_TILE_K * GPU_TILE_M; i += GPU_TILE_THREADS)
	{
		int m = i % GPU_TILE_M, k = i / GPU_TILE_M;
		bool in = row + (size_t) k < end && co0 + m < a.conv.co;

		tile.x[k][m] = in ? gpu_at<T>(a.dy, row + (size_t) k, a.lddy, co0 + m) : 0.0f;
	}
	for (int i = thread; i < GPU_TILE_K * GPU_TILE_N; i += GPU_TILE_THREADS)
	{
		int n = i % GPU_TILE_N, k = i / GPU_TILE_N;
		bool in = row + (size_t) k < end && k0 + n < gpu_wgrad_depth(a);

		tile.w[k][n] = in ? gpu_tile_x<T>(a.conv, row + (size_t) k, k0 + n) : 0.0f;
	}
}

static GPU_HD void
gpu_wgrad_store(const GpuWgradArgs &a, int co0, int k0, size_t chunk, int thread,
                const float (&sum)[GPU_TILE_EACH][GPU_TILE_EACH])
{
	int m = co0 + thread / (GPU_TILE_N / GPU_TILE_EACH) * GPU_TILE_EACH, depth = gpu_wgrad_depth(a);
	int n = k0 + thread % (GPU_TILE_N / GPU_TILE_EACH) * GPU_TILE_EACH;

#pragma unroll
	for (int i = 0; i < GPU_TILE_EACH; i++)
#pragma unroll
		for (int j = 0; j < GPU_TILE_EACH; j++)
			if (m + i < a.conv.co && n + j < depth)
				a.part[(chunk * (size_t) a.conv.co + (size_t) (m + i)) * (size_t) depth + (size_t) (n + j)] =
				    sum[i][j];
}

/* A record for the tiles. */
template <class T> struct GpuWgradTiledOp
{
	GpuWgradArgs a;
};

/* row: (chunk, tap, channel of the group); c: output channel. */
template <class T> struct GpuWgradDirectOp
{
	GpuWgradArgs a;
	GPU_HD void operator()(size_t row, int c) const
	{
		const GpuConvArgs &v = a.conv;
		size_t depth = (size_t) gpu_wgrad_depth(a), chunk = row / depth,
		       pixels = (size_t) v.oh * (size_t) v.ow;
		int cig = v.ci / v.groups, k = (int) (row % depth), tap = k / cig;
		int ci = c / (v.co / v.groups) * cig + k % cig;
		float sum = 0;

		for (size_t r = chunk * (size_t) a.chunk; r < gpu_wgrad_end(a, chunk); r++)
		{
			size_t image = r / pixels;
			int pixel = (int) (r % pixels), iy = pixel / v.ow * v.sh - v.ph + tap / v.kw,
			    ix = pixel % v.ow * v.sw - v.pw + tap % v.kw;

			if (!gpu_conv_reads(v, &iy, &ix))
				continue;
			sum += gpu_at<T>(a.dy, r, a.lddy, c) *
			       gpu_at<T>(v.x, (image * (size_t) v.ih + (size_t) iy) * (size_t) v.iw + (size_t) ix, v.ldx,
			                 ci);
		}
		a.part[row * (size_t) v.co + (size_t) c] = sum;
	}
};

/* row: output channel; i: (channel of the group, tap), PyTorch's order. */
struct GpuWgradSumOp
{
	GpuWgradArgs a;
	GPU_HD void operator()(size_t co, int i) const
	{
		const GpuConvArgs &v = a.conv;
		int taps = v.kh * v.kw, cig = v.ci / v.groups;
		size_t depth = (size_t) gpu_wgrad_depth(a), k = (size_t) (i % taps * cig + i / taps);
		size_t at = v.groups == 1 ? co * depth + k : k * (size_t) v.co + co;
		float sum = 0;

		for (size_t chunk = 0; chunk < gpu_wgrad_chunks(a); chunk++)
			sum += a.part[chunk * depth * (size_t) v.co + at];
		a.grad[co * (size_t) (a.ci_to * taps) + (size_t) i] = sum;
	}
};

#endif /* DFX_CUDA_REDUCE_TRAIN_CUH */
