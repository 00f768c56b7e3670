/*
 * init.c
 *	  First weights.
 *
 *	family			convolution				linear					embedding
 *	resnet, -next	normal, 2 / fan_out		(last only)
 *	densenet		normal, 2 / fan_in		(last only)
 *	efficientnet	normal, 2 / fan_out		(last only)
 *	vit				normal, 1 / fan_in		xavier uniform; the attention's output: default
 *											class token 0, positions normal 0.02^2
 *	head, last		uniform within 1 / sqrt(fan_in), biases too ("default": torch.nn.Linear, Conv1d)
 *
 * (variance given.)  Other biases are 0, but ViT's perceptrons', which are
 * normal with 1e-6; scales are 1, running means 0, variances 1.
 */
#include "train/init.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/names.h"
#include "train/random.h"

#define INIT_PI 3.14159265358979323846

typedef struct InitStream
{
	uint64_t key; /* of one parameter */
} InitStream;

static double
init_uniform(const InitStream *s, size_t i, double range)
{
	return (dfx_unit64(dfx_draw_next(s->key, i)) * 2 - 1) * range;
}

/* Box and Muller, two draws a number. */
static double
init_normal(const InitStream *s, size_t i, double sigma)
{
	double u = 1 - dfx_unit64(dfx_draw_next(s->key, 2 * i)), v = dfx_unit64(dfx_draw_next(s->key, 2 * i + 1));

	return sigma * sqrt(-2 * log(u)) * cos(2 * INIT_PI * v);
}

typedef enum InitRule
{
	INIT_CONSTANT,
	INIT_UNIFORM,
	INIT_NORMAL
} InitRule;

typedef struct InitHow
{
	InitRule rule;
	double value; /* the constant, the range, the standard deviation */
} InitHow;

static bool
init_ends(const char *name, const char *with)
{
	size_t n = strlen(name), k = strlen(with);

	return n >= k && strcmp(name + n - k, with) == 0;
}

/* fans of a weight of PyTorch's shape (out, in / groups, k ...) */
static void
init_fans(const DfxParam *w, double *fan_in, double *fan_out)
{
	double field = 1;

	for (int i = 2; i < w->rank; i++)
		field *= w->dim[i];
	*fan_in = w->dim[1] * field;
	*fan_out = w->dim[0] * field;
}

static InitHow
init_weight(const char *family, const DfxOp *op, const DfxParam *w, bool by_default)
{
	double fan_in, fan_out;

	init_fans(w, &fan_in, &fan_out);
	if (by_default || strcmp(family, "head") == 0 || init_ends(w->name, "out_proj.weight"))
		return (InitHow){INIT_UNIFORM, 1 / sqrt(fan_in)};
	if (op->kind == DFX_OP_LINEAR)
		return (InitHow){INIT_UNIFORM, sqrt(6 / (fan_in + fan_out))};
	if (strcmp(family, "vit") == 0)
		return (InitHow){INIT_NORMAL, sqrt(1 / fan_in)};
	return (InitHow){INIT_NORMAL, sqrt(2 / (strcmp(family, "densenet") == 0 ? fan_in : fan_out))};
}

static InitHow
init_bias(const char *family, const DfxOp *op, const DfxParam *w, const DfxParam *b, bool by_default)
{
	double fan_in, fan_out;

	if (by_default || (strcmp(family, "head") == 0 && w->role == DFX_ROLE_WEIGHT))
	{
		init_fans(w, &fan_in, &fan_out);
		return (InitHow){INIT_UNIFORM, 1 / sqrt(fan_in)};
	}
	if (op->kind == DFX_OP_LINEAR && strstr(b->name, "mlp."))
		return (InitHow){INIT_NORMAL, 1e-6};
	return (InitHow){INIT_CONSTANT, 0};
}

static InitHow
init_how(const DfxGraph *g, const char *family, const DfxOp *op, const DfxParam *p, bool by_default)
{
	switch (p->role)
	{
		case DFX_ROLE_WEIGHT:
			return init_weight(family, op, p, by_default);
		case DFX_ROLE_BIAS:
			return init_bias(family, op, &g->param[op->param[DFX_W]], p, by_default);
		case DFX_ROLE_SCALE:
		case DFX_ROLE_VAR:
			return (InitHow){INIT_CONSTANT, 1};
		case DFX_ROLE_EMBED:
			if (init_ends(p->name, "pos_embedding"))
				return (InitHow){INIT_NORMAL, 0.02};
			break;
		case DFX_ROLE_MEAN:
			break;
	}
	return (InitHow){INIT_CONSTANT, 0};
}

/* The op of the last linear layer, which is the classifier of a network with logits; -1: there is none. */
static int
init_classifier(const DfxGraph *g)
{
	bool logits = false;

	for (int i = 0; i < g->nout; i++)
		logits = logits || strcmp(g->out_name[i], "logits") == 0;
	for (int i = g->nop - 1; logits && i >= 0; i--)
		if (g->op[i].kind == DFX_OP_LINEAR)
			return i;
	return -1;
}

/* Parameter number k of the classifier; NULL: there is none. */
static const DfxParam *
init_classifier_param(const DfxGraph *g, int k)
{
	int op = init_classifier(g), p = op >= 0 ? g->op[op].param[k] : -1;

	return p >= 0 ? &g->param[p] : NULL;
}

static DfxStatus
init_fill(DfxParam *p, InitHow how, uint64_t key, DfxErr *err)
{
	InitStream s = {key};
	size_t n = dfx_param_count(p);

	if (!p->data)
		p->data = malloc(n * sizeof *p->data);
	if (!p->data)
		return dfx_fail(err, DFX_ENOMEM, "out of memory for parameter \"%s\"", p->name);
	for (size_t i = 0; i < n; i++)
		p->data[i] = (float) (how.rule == INIT_UNIFORM  ? init_uniform(&s, i, how.value)
		                      : how.rule == INIT_NORMAL ? init_normal(&s, i, how.value)
		                                                : how.value);
	return DFX_OK;
}

DfxStatus
dfx_init_weights(DfxGraph *g, const char *family, const char *scope, uint64_t seed, DfxErr *err)
{
	int classifier = init_classifier(g);

	for (int i = 0; i < g->nop; i++)
		for (int k = 0; k < DFX_MAX_PARAM; k++)
		{
			const DfxOp *op = &g->op[i];
			DfxParam *p;
			DfxStatus st;

			if (op->param[k] < 0)
				continue;
			p = &g->param[op->param[k]];
			st = init_fill(p, init_how(g, family, op, p, i == classifier),
			               dfx_draw_key(seed, DFX_DRAW_INIT, dfx_draw_name(scope), dfx_draw_name(p->name)),
			               err);
			if (st != DFX_OK)
				return st;
		}
	return DFX_OK;
}

/* --- given weights ------------------------------------------------------- */

/*
 * The classifier stays as it is: its own values stand in for what the file
 * has.  copy: room for them, since a parameter is not to be set from itself.
 */
static void
init_keep(const DfxGraph *g, float *copy, DfxTensor *t, size_t *k)
{
	for (int i = 0; i < DFX_MAX_PARAM; i++)
	{
		const DfxParam *p = init_classifier_param(g, i);

		if (!p)
			continue;
		t[*k] = dfx_param_tensor(p);
		memcpy(copy, p->data, t[*k].nbytes);
		t[(*k)++].data = copy;
		copy += dfx_param_count(p);
	}
}

static size_t
init_kept(const DfxGraph *g)
{
	size_t n = 0;

	for (int i = 0; i < DFX_MAX_PARAM; i++)
		n += init_classifier_param(g, i) ? dfx_param_count(init_classifier_param(g, i)) : 0;
	return n;
}

/* How the tensors behind the prefix are called. */
static DfxStatus
init_scheme(const DfxTensor *tensor, size_t n, const char *prefix, const DfxScheme **scheme, DfxErr *err)
{
	size_t skip = strlen(prefix);

	*scheme = NULL;
	for (size_t i = 0; i < n && !*scheme; i++)
		if (strncmp(tensor[i].name, prefix, skip) == 0)
			*scheme = dfx_scheme_told_by(tensor[i].name + skip);
	if (!*scheme)
		*scheme = dfx_scheme_default();
	if (dfx_scheme_refusal(*scheme))
		return dfx_fail(err, DFX_EWEIGHTS, "weights to start from: %s", dfx_scheme_refusal(*scheme));
	return DFX_OK;
}

DfxStatus
dfx_init_from(DfxGraph *g, const DfxTensor *tensor, size_t n, const char *prefix, DfxErr *err)
{
	DfxTensor *t = calloc(n + DFX_MAX_PARAM, sizeof *t);
	float *copy = malloc((init_kept(g) + 1) * sizeof *copy);
	size_t k = 0, skip = strlen(prefix);
	const DfxScheme *scheme = NULL;
	DfxStatus st = t && copy ? init_scheme(tensor, n, prefix, &scheme, err)
	                         : dfx_fail(err, DFX_ENOMEM, "out of memory for %zu tensors", n);

	for (size_t i = 0; i < n && st == DFX_OK; i++)
	{
		if (strncmp(tensor[i].name, prefix, skip) != 0)
			continue;
		t[k] = tensor[i];
		k += dfx_backbone_tensor_name(scheme, tensor[i].name + skip, t[k].name);
	}
	if (st == DFX_OK)
	{
		init_keep(g, copy, t, &k);
		qsort(t, k, sizeof *t, dfx_tensor_compare);
		st = dfx_weights_set(g, t, k, err);
	}
	free(t);
	free(copy);
	return st;
}
