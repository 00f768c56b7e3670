/*
 * train_source.c
 *	  Reading values that are not stored, and passing gradients through them
 *	  (train.h).
 *
 * All loops walk a source's pieces in runs: as many neighbouring channels as
 * lie together both in the piece and in the layout that the consumer wants.
 */
#include <string.h>

#include "cpu/train.h"

/* For sources without a BN: mean 0, scale 1, shift 0. */
#define SOURCE_LANES 16
static const float source_ones[SOURCE_LANES] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static const float source_zeros[SOURCE_LANES];
static const CpuNorm source_identity = {source_zeros, source_ones, source_zeros};

/* The norm of a source's channels from c on; *nl is cut to how many it holds. */
static CpuNorm
source_norm(const TrainSource *s, int c, int *nl)
{
	if (s->norm)
		return (CpuNorm){s->norm->mean + c, s->norm->scale + c, s->norm->shift + c};
	*nl = cpu_min(*nl, SOURCE_LANES);
	return source_identity;
}

CpuView
train_relayout(const CpuView *v, int vec)
{
	CpuView to = *v;

	to.off = 0;
	to.vec = vec;
	if (vec == 1)
		to.tag = dnnl_nchw;
	else if (vec == v->c)
		to.tag = dnnl_nhwc;
	else
		to.tag = vec == 16 ? dnnl_nChw16c : dnnl_nChw8c;
	to.stride = cpu_floats(&to);
	return to;
}

/* Whether the source is one stored value as it lies, in the layout of want. */
static bool
source_is_plain(const CpuTrain *t, const TrainSource *s, const CpuView *want)
{
	return s->npiece == 1 && s->norm == NULL && s->act == DFX_ACT_NONE &&
	       t->value[s->piece[0]].view.vec == want->vec;
}

/* Channels from c of the piece (c0 + c of the whole) that lie together on both sides, not beyond the piece.
 */
static int
source_run(const CpuView *piece, int c, const CpuView *whole, int c0)
{
	int nl = cpu_min(cpu_lanes(piece, c), cpu_lanes(whole, c0 + c));

	return cpu_min(nl, piece->c - c);
}

static void
source_copy_image(const TrainRun *r, const TrainSource *s, int image, const CpuView *want, float *to)
{
	const DfxDev *dev = r->plan->dev;
	int c0 = 0;

	for (int j = 0; j < s->npiece; j++)
	{
		const CpuView *v = &r->t->value[s->piece[j]].view;
		const float *from = train_value(r->t, s->piece[j], image);

		if (s->norm == NULL && s->act == DFX_ACT_NONE)
			cpu_copy_channels(to, want, c0, from, v);
		else
			for (int c = 0, nl; c < v->c; c += nl)
			{
				CpuNorm norm;

				nl = source_run(v, c, want, c0);
				norm = source_norm(s, c0 + c, &nl);
				dev->train_kernels->act(to + cpu_channel(want, c0 + c), (size_t) want->vec,
				                        from + cpu_channel(v, c), (size_t) v->vec, cpu_pixels(v), nl, &norm,
				                        s->act);
			}
		c0 += v->c;
	}
	cpu_zero_padding(to, want);
}

/* Make n images of the source at to, in the layout of want, one after the other. */
void
train_copy(const TrainRun *r, const TrainSource *s, int image, int n, const CpuView *want, float *to)
{
	for (int i = 0; i < n; i++)
		source_copy_image(r, s, image + i, want, to + (size_t) i * want->stride);
}

/* n images of the source in the layout of want: where they lie, or made in scratch. */
const float *
train_read(const TrainRun *r, const TrainSource *s, int image, int n, const CpuView *want, float *scratch)
{
	if (source_is_plain(r->t, s, want))
		return train_value(r->t, s->piece[0], image);
	train_copy(r, s, image, n, want, scratch);
	return scratch;
}

/* Whether anything wants the gradient by this source: a piece, or the BN for its own parameters. */
bool
train_wanted(const TrainRun *r, const TrainSource *s)
{
	if (s->norm)
		return true;
	for (int j = 0; j < s->npiece; j++)
		if (r->t->value[s->piece[j]].wants_grad && (r->want_din || s->piece[j] != r->t->input))
			return true;
	return false;
}

/* Where the gradient by the source may be written instead of pushed, for images from image on; NULL: nowhere.
 */
float *
train_direct(const TrainRun *r, const TrainSource *s, int image, const CpuView *want)
{
	if (!source_is_plain(r->t, s, want) || !s->first[0] || !r->t->value[s->piece[0]].wants_grad)
		return NULL;
	return train_grad(r->t, s->piece[0], image);
}

/* Gradient dz by channels c0 .. of a source with neither BN nor activation. */
static void
source_push_plain(const TrainRun *r, const TrainSource *s, int j, int c0, int image, const float *dz,
                  const CpuView *dv)
{
	const CpuView *v = &r->t->value[s->piece[j]].view;
	float *g = train_grad(r->t, s->piece[j], image);

	for (int c = 0, nl; c < v->c; c += nl)
	{
		float *to = g + cpu_channel(v, c);
		const float *from = dz + cpu_channel(dv, c0 + c);
		size_t gps = (size_t) v->vec, zps = (size_t) dv->vec;

		nl = source_run(v, c, dv, c0);
		if (!s->first[j])
			r->plan->dev->kernels->binary(to, gps, to, gps, from, zps, cpu_pixels(v), nl, false, false);
		else
			for (size_t i = 0; i < cpu_pixels(v); i++)
				memcpy(to + i * gps, from + i * zps, (size_t) nl * sizeof *to);
	}
	if (s->first[j])
		cpu_zero_padding(g, v);
}

static void
source_push_image(const TrainRun *r, const TrainSource *s, int j, int c0, int image, const float *dz,
                  const CpuView *dv)
{
	const CpuView *v = &r->t->value[s->piece[j]].view;
	float *g = train_grad(r->t, s->piece[j], image);
	const float *x = train_value(r->t, s->piece[j], image);
	const TrainNorm *norm = s->norm;
	double unwanted[2 * SOURCE_LANES];

	for (int c = 0, nl; c < v->c; c += nl)
	{
		CpuPush p = {.g = g + cpu_channel(v, c),
		             .gps = (size_t) v->vec,
		             .dz = dz + cpu_channel(dv, c0 + c),
		             .zps = (size_t) dv->vec,
		             .x = x + cpu_channel(v, c),
		             .xps = (size_t) v->vec,
		             .npix = cpu_pixels(v),
		             .act = s->act,
		             .add = !s->first[j],
		             .sum = unwanted,
		             .sum_x = unwanted + SOURCE_LANES};

		nl = source_run(v, c, dv, c0);
		p.norm = source_norm(s, c0 + c, &nl);
		p.nl = nl;
		if (norm)
		{
			p.sum = norm->sum + (size_t) r->worker * 2 * (size_t) norm->c + c0 + c;
			p.sum_x = p.sum + norm->c;
		}
		else
			memset(unwanted, 0, sizeof unwanted);
		r->plan->dev->train_kernels->push(&p);
	}
	if (s->first[j])
		cpu_zero_padding(g, v);
}

/* Take the gradient dz by the source (n images in the layout of dv) to its pieces, and BN's sums with it. */
void
train_push(const TrainRun *r, const TrainSource *s, int image, int n, const float *dz, const CpuView *dv)
{
	int c0 = 0;

	for (int j = 0; j < s->npiece; j++)
	{
		const TrainValue *val = &r->t->value[s->piece[j]];
		bool plain = s->norm == NULL && s->act == DFX_ACT_NONE;

		for (int i = 0; i < n && val->wants_grad; i++)
		{
			const float *from = dz + (size_t) i * dv->stride;

			if (plain)
				source_push_plain(r, s, j, c0, image + i, from, dv);
			else
				source_push_image(r, s, j, c0, image + i, from, dv);
		}
		c0 += val->view.c;
	}
}

/* The ReLU in place, on n images that have just been made. */
void
train_relu(const TrainRun *r, DfxVal v, int image, int n)
{
	const CpuView *view = &r->t->value[v].view;

	for (int i = 0; i < n; i++)
		for (int c = 0, nl; c < view->c; c += nl)
		{
			float *y = train_value(r->t, v, image + i) + cpu_channel(view, c);

			nl = cpu_min(cpu_min(cpu_lanes(view, c), view->c - c), SOURCE_LANES);
			r->plan->dev->train_kernels->act(y, (size_t) view->vec, y, (size_t) view->vec, cpu_pixels(view),
			                                 nl, &source_identity, DFX_ACT_RELU);
		}
}

/*
 * The gradient of stored value v becomes that of what its op computed: through
 * the ReLU applied in place, and with the corrections of all BNs that read it.
 */
void
train_finish(const TrainRun *r, DfxVal v, int image, int n)
{
	const TrainValue *val = &r->t->value[v];
	const CpuView *view = &val->view;

	if (!val->relu && !val->normed)
		return;
	for (int i = 0; i < n; i++)
	{
		float *g = train_grad(r->t, v, image + i);
		const float *y = train_value(r->t, v, image + i);

		for (int c = 0, nl; c < view->c; c += nl)
		{
			size_t at = cpu_channel(view, c);

			nl = cpu_min(cpu_lanes(view, c), view->c - c);
			r->plan->dev->train_kernels->finish(g + at, y + at, (size_t) view->vec, cpu_pixels(view), nl,
			                                    val->relu, val->normed ? val->mean_f + c : NULL,
			                                    val->normed ? val->correct_a + c : NULL,
			                                    val->normed ? val->correct_b + c : NULL);
		}
	}
}
