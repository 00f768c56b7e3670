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
	const CpuView *v = &t->value[s->piece[0]].view;

	return s->npiece == 1 && s->norm == NULL && s->act == DFX_ACT_NONE && v->vec == want->vec &&
	       v->type == want->type;
}

/* Channels beyond the last real one must read as zero. */
static void
source_zero_padding(void *image, const CpuView *v)
{
	int used = v->c % v->vec;
	size_t size = cpu_size(v->type);
	char *last;

	if (used == 0)
		return;
	last = train_strip(image, v, v->c - used).at;
	for (size_t i = 0; i < cpu_pixels(v); i++)
		memset(last + (i * (size_t) v->vec + (size_t) used) * size, 0, (size_t) (v->vec - used) * size);
}

/* Channels from c of the piece (c0 + c of the whole) that lie together on both sides, not beyond the piece.
 */
static int
source_run(const CpuView *piece, int c, const CpuView *whole, int c0)
{
	int nl = cpu_min(cpu_lanes(piece, c), cpu_lanes(whole, c0 + c));

	return cpu_min(nl, piece->c - c);
}

/* Copy count numbers that lie together, from one kind to another. */
static void
source_convert(const TrainRun *r, CpuStrip to, CpuStrip from, size_t count)
{
	size_t whole = count / SOURCE_LANES, done = whole * SOURCE_LANES;

	to.ps = from.ps = SOURCE_LANES;
	r->plan->dev->train_kernels->copy(to, from, whole, SOURCE_LANES, false);
	to.at = (char *) to.at + done * cpu_size(to.type);
	from.at = (char *) from.at + done * cpu_size(from.type);
	if (count > done)
		r->plan->dev->train_kernels->copy(to, from, 1, (int) (count - done), false);
}

/* Copy an image's channels into channels c0 .. of another, whatever the two layouts and kinds of numbers. */
static void
source_copy_channels(const TrainRun *r, void *to, const CpuView *tv, int c0, const void *from,
                     const CpuView *fv)
{
	size_t npix = cpu_pixels(fv);

	if (tv->type == CPU_F32 && fv->type == CPU_F32)
	{
		cpu_copy_channels(to, tv, c0, from, fv);
		return;
	}
	if (tv->vec == fv->vec && tv->c == fv->c)
	{
		source_convert(r, train_strip(to, tv, 0), train_strip(from, fv, 0), cpu_floats(fv));
		return;
	}
	for (int c = 0, nl; c < fv->c; c += nl)
	{
		CpuStrip a = train_strip(to, tv, c0 + c), b = train_strip(from, fv, c);

		nl = source_run(fv, c, tv, c0);
		if (tv->type == fv->type && nl == tv->vec && nl == fv->vec)
			memcpy(a.at, b.at, npix * (size_t) nl * cpu_size(tv->type));
		else
			r->plan->dev->train_kernels->copy(a, b, npix, nl, false);
	}
}

/* A whole image from one layout and kind of numbers to another. */
void
train_relay(const TrainRun *r, void *to, const CpuView *tv, const void *from, const CpuView *fv)
{
	source_copy_channels(r, to, tv, 0, from, fv);
	source_zero_padding(to, tv);
}

static void
source_copy_image(const TrainRun *r, const TrainSource *s, int image, const CpuView *want, void *to)
{
	int c0 = 0;

	for (int j = 0; j < s->npiece; j++)
	{
		const CpuView *v = &r->t->value[s->piece[j]].view;
		const void *from = train_value(r->t, s->piece[j], image);

		if (s->norm == NULL && s->act == DFX_ACT_NONE)
			source_copy_channels(r, to, want, c0, from, v);
		else
			for (int c = 0, nl; c < v->c; c += nl)
			{
				CpuNorm norm;

				nl = source_run(v, c, want, c0);
				norm = source_norm(s, c0 + c, &nl);
				r->plan->dev->train_kernels->act(train_strip(to, want, c0 + c), train_strip(from, v, c),
				                                 cpu_pixels(v), nl, &norm, s->act);
			}
		c0 += v->c;
	}
	source_zero_padding(to, want);
}

/* Make n images of the source at to, in the layout of want, one after the other. */
void
train_copy(const TrainRun *r, const TrainSource *s, int image, int n, const CpuView *want, void *to)
{
	for (int i = 0; i < n; i++)
		source_copy_image(r, s, image + i, want, train_image(to, want, i));
}

/* n images of the source in the layout of want: where they lie, or made in scratch. */
const void *
train_read(const TrainRun *r, const TrainSource *s, int image, int n, const CpuView *want, void *scratch)
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
void *
train_direct(const TrainRun *r, const TrainSource *s, int image, const CpuView *want)
{
	if (!source_is_plain(r->t, s, want) || !s->first[0] || !r->t->value[s->piece[0]].wants_grad)
		return NULL;
	return train_grad(r->t, s->piece[0], image);
}

/* Gradient dz by channels c0 .. of a source with neither BN nor activation. */
static void
source_push_plain(const TrainRun *r, const TrainSource *s, int j, int c0, int image, const void *dz,
                  const CpuView *dv)
{
	const CpuView *v = &r->t->value[s->piece[j]].view;
	void *g = train_grad(r->t, s->piece[j], image);

	for (int c = 0, nl; c < v->c; c += nl)
	{
		nl = source_run(v, c, dv, c0);
		r->plan->dev->train_kernels->copy(train_strip(g, v, c), train_strip(dz, dv, c0 + c), cpu_pixels(v),
		                                  nl, !s->first[j]);
	}
	if (s->first[j])
		source_zero_padding(g, v);
}

static void
source_push_image(const TrainRun *r, const TrainSource *s, int j, int c0, int image, const void *dz,
                  const CpuView *dv)
{
	const CpuView *v = &r->t->value[s->piece[j]].view;
	void *g = train_grad(r->t, s->piece[j], image);
	const void *x = train_value(r->t, s->piece[j], image);
	const TrainNorm *norm = s->norm;
	double unwanted[2 * SOURCE_LANES];

	for (int c = 0, nl; c < v->c; c += nl)
	{
		CpuPush p = {.g = train_strip(g, v, c),
		             .dz = train_strip(dz, dv, c0 + c),
		             .x = train_strip(x, v, c),
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
		source_zero_padding(g, v);
}

/* Take the gradient dz by the source (n images in the layout of dv) to its pieces, and BN's sums with it. */
void
train_push(const TrainRun *r, const TrainSource *s, int image, int n, const void *dz, const CpuView *dv)
{
	int c0 = 0;

	for (int j = 0; j < s->npiece; j++)
	{
		const TrainValue *val = &r->t->value[s->piece[j]];
		bool plain = s->norm == NULL && s->act == DFX_ACT_NONE;

		for (int i = 0; i < n && val->wants_grad; i++)
		{
			const void *from = train_image(dz, dv, i);

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
			CpuStrip y = train_strip(train_value(r->t, v, image + i), view, c);

			nl = cpu_min(cpu_min(cpu_lanes(view, c), view->c - c), SOURCE_LANES);
			r->plan->dev->train_kernels->act(y, y, cpu_pixels(view), nl, &source_identity, DFX_ACT_RELU);
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
		void *g = train_grad(r->t, v, image + i);
		const void *y = train_value(r->t, v, image + i);

		for (int c = 0, nl; c < view->c; c += nl)
		{
			nl = cpu_min(cpu_lanes(view, c), view->c - c);
			r->plan->dev->train_kernels->finish(
			    train_strip(g, view, c), train_strip(y, view, c), cpu_pixels(view), nl, val->relu,
			    val->normed ? val->mean_f + c : NULL, val->normed ? val->correct_a + c : NULL,
			    val->normed ? val->correct_b + c : NULL);
		}
	}
}
