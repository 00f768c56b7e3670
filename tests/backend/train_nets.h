/*
 * train_nets.h
 *	  Reduced networks in training, on any backend: against the oracle, and
 *	  against themselves.
 */
#ifndef DFX_TESTS_TRAIN_NETS_H
#define DFX_TESTS_TRAIN_NETS_H

#include "tests/backend/train_subject.h"
#include "tests/unit/tiny_nets.h"

/* What is allowed in fp32. */
#define TOLERANCE_NET ((TrainTolerance){1e-4, 1e-3})

/* One test, as trains_as_ref(). */
__attribute__((unused)) static void
check_train_net(const Subject *on, const DfxBackbone *b, int n, int max, TrainTolerance t)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};

	if (dfx_build_backbone(g, b, 5, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK)
		trains_as_ref(on, g, max, n, t, b->name);
	else if (!ok(false, "%s", b->name))
		diag("%s", err.msg);
	dfx_graph_free(g);
}

/*
 * One test, for half precision, where single gradients may be anything (what
 * rounds to the other side of a ReLU's 0 is lost): taken together, they point
 * where the oracle's do.  least: the cosine of the angle between them.
 */
__attribute__((unused)) static void
check_train_direction(const Subject *on, const DfxBackbone *b, int n, double least)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	TrainPair p = {.ref_dev = NULL};
	double dot = 0, a2 = 0, b2 = 0, cosine;
	bool good = dfx_build_backbone(g, b, 5, &err) == DFX_OK && dfx_weights_random(g, 1, &err) == DFX_OK;

	good = good && pair_pass(&p, on, g, n, n, &err);
	for (int i = 0; good && i < g->nparam; i++)
		for (size_t k = 0; k < dfx_param_count(&g->param[i]); k++)
		{
			dot += (double) p.got.param[i][k] * (double) p.ref.param[i][k];
			a2 += pow((double) p.got.param[i][k], 2);
			b2 += pow((double) p.ref.param[i][k], 2);
		}
	cosine = dot / sqrt(a2 * b2);
	if (!ok(good && cosine >= least, "%s, %d images, %s: gradients point the same way", b->name, n,
	        dfx_precision_name[on->precision]))
		diag("cosine %g, at least %g; %s", cosine, least, err.msg);
	pair_close(&p, g);
	dfx_graph_free(g);
}

/* ---- repeatability ---- */

enum
{
	REPEAT_BATCH = 7,
	REPEAT_STEPS = 3
};

/* Some steps from the same weights, the last with fewer images; parameters into p. */
static bool
train_once(const Subject *on, const DfxGraph *g, float **p)
{
	const DfxAdam adam = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 1e-3};
	DfxErr err = {0};
	TrainSide s;
	void *in = noise_images(g, REPEAT_BATCH, 3);
	bool good = side_open(&s, on, g, REPEAT_BATCH, &err);

	for (int i = 0; good && i < REPEAT_STEPS; i++)
	{
		DfxAdam a = adam;

		a.step = (uint64_t) i + 1;
		good = side_pass(&s, g, in, REPEAT_BATCH - 2 * (i == 2), (uint64_t) i, &err) == DFX_OK &&
		       on->be->step(s.plan, &a, &err) == DFX_OK;
	}
	good = good && on->be->read_params(s.plan, DFX_STATE_VALUE, p, &err) == DFX_OK;
	if (!good)
		diag("%s", err.msg);
	side_close(&s, g);
	free(in);
	return good;
}

static bool
same_bits(const DfxGraph *g, float **a, float **b)
{
	for (int i = 0; i < g->nparam; i++)
		if (memcmp(a[i], b[i], dfx_param_count(&g->param[i]) * sizeof(float)) != 0)
			return false;
	return true;
}

/* One test: two devices of one kind give the same bits. */
__attribute__((unused)) static void
check_repeats(const Subject *one, const Subject *other, const DfxBackbone *bb, const char *what)
{
	DfxGraph *g = dfx_graph_new();
	DfxErr err = {0};
	bool good = dfx_build_backbone(g, bb, 5, &err) == DFX_OK && dfx_weights_random(g, 3, &err) == DFX_OK;
	float **a = train_new_params(g), **b = train_new_params(g);

	good = good && train_once(one, g, a) && train_once(other, g, b);
	ok(good && same_bits(g, a, b), "%s: the same bits again", what);
	train_free_params(g, a);
	train_free_params(g, b);
	dfx_graph_free(g);
}

#endif /* DFX_TESTS_TRAIN_NETS_H */
