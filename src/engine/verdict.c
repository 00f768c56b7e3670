/*
 * verdict.c
 *	  What the logits mean, for each way in which a model can answer.
 */
#include "engine/verdict.h"

#include <math.h>
#include <string.h>

typedef enum VerdictRule
{
	VERDICT_NONE,
	VERDICT_THREE,  /* dm, gan, real */
	VERDICT_BINARY, /* whatever is not real, real */
	VERDICT_HIERARCHY
} VerdictRule;

static VerdictRule
verdict_rule(const DfxModelMeta *meta)
{
	if (strcmp(meta->kind, "hierarchy") == 0)
		return VERDICT_HIERARCHY;
	if (strcmp(meta->classes, "dm,gan,real") == 0)
		return VERDICT_THREE;
	if (strcmp(meta->classes, "synthetic,real") == 0 || strcmp(meta->classes, "others,real") == 0)
		return VERDICT_BINARY;
	return VERDICT_NONE;
}

DfxStatus
dfx_verdict_check(const DfxModelMeta *meta, DfxErr *err)
{
	char main_class[DFX_CLASS_NAME_LEN];

	if (verdict_rule(meta) != VERDICT_NONE)
		return DFX_OK;
	dfx_class_name(meta->classes, 0, 1, main_class);
	if (main_class[0] == '\0')
		return dfx_fail(err, DFX_EINVAL, "a model of kind \"%s\" gives features, not verdicts", meta->kind);
	dfx_fail(err, DFX_EINVAL,
	         "a Base Model of class \"%s\" gives features, not verdicts: to it, real is one of the others",
	         main_class);
	dfx_hint(err,
	         "Use dfx_features(), or train the complete model from three Base Models with dfx_train_head().");
	return err->code;
}

/* --- arithmetic ---------------------------------------------------------- */

/* The first of the largest. */
static int
verdict_top(const float *logits, int n)
{
	int top = 0;

	for (int i = 1; i < n; i++)
		if (logits[i] > logits[top])
			top = i;
	return top;
}

static void
verdict_softmax(const float *logits, int n, double *p)
{
	double top = logits[verdict_top(logits, n)], sum = 0;

	for (int i = 0; i < n; i++)
		sum += p[i] = exp(logits[i] - top);
	for (int i = 0; i < n; i++)
		p[i] /= sum;
}

static bool
verdict_finite(const DfxModelMeta *meta, const float *logits)
{
	int n = 0;

	for (int net = 0; net < DFX_NET_COUNT; net++)
		n += dfx_class_count(meta->classes, net);
	for (int i = 0; i < n; i++)
		if (!isfinite(logits[i]))
			return false;
	return true;
}

/* --- the rules ----------------------------------------------------------- */

static void
verdict_three(const float *logits, DfxVerdictReply *v)
{
	double p[DFX_NCLASS];

	verdict_softmax(logits, DFX_NCLASS, p);
	v->label = (uint32_t) verdict_top(logits, DFX_NCLASS);
	v->confidence = (float) p[v->label];
	v->p_dm = (float) p[DFX_CLASS_DM];
	v->p_gan = (float) p[DFX_CLASS_GAN];
	v->p_real = (float) p[DFX_CLASS_REAL];
	v->p_synthetic = (float) (p[DFX_CLASS_DM] + p[DFX_CLASS_GAN]);
}

static void
verdict_binary(const float *logits, DfxVerdictReply *v)
{
	double p[2];

	verdict_softmax(logits, 2, p);
	v->binary = 1;
	v->label = p[1] >= p[0] ? DFX_CLASS_REAL : DFX_CLASS_SYNTHETIC;
	v->p_synthetic = (float) p[0];
	v->p_real = (float) p[1];
	v->confidence = v->label == DFX_CLASS_REAL ? v->p_real : v->p_synthetic;
}

static void
verdict_hierarchy(const DfxModelMeta *meta, const float *logits, DfxVerdictReply *v)
{
	const float *net_logits[DFX_NET_COUNT];
	double ai[2], type[2];
	int net;

	for (net = 0; net < DFX_NET_COUNT; net++)
	{
		net_logits[net] = logits;
		logits += dfx_class_count(meta->classes, net);
	}
	verdict_softmax(net_logits[DFX_NET_AI], 2, ai);
	verdict_softmax(net_logits[DFX_NET_TYPE], 2, type);
	v->p_synthetic = (float) ai[0];
	v->p_real = (float) ai[1];
	v->p_dm = (float) (ai[0] * type[0]);
	v->p_gan = (float) (ai[0] * type[1]);
	if (ai[1] >= ai[0])
	{
		v->label = DFX_CLASS_REAL;
		v->confidence = v->p_real;
		return;
	}
	v->label = type[1] > type[0] ? DFX_CLASS_GAN : DFX_CLASS_DM;
	v->confidence = v->label == DFX_CLASS_GAN ? v->p_gan : v->p_dm;
	net = v->label == DFX_CLASS_GAN ? DFX_NET_GAN : DFX_NET_DM;
	dfx_class_name(meta->classes, net, verdict_top(net_logits[net], dfx_class_count(meta->classes, net)),
	               v->generator);
}

DfxStatus
dfx_verdict(const DfxModelMeta *meta, const float *logits, DfxVerdictReply *verdict, DfxErr *err)
{
	memset(verdict, 0, sizeof *verdict);
	if (!verdict_finite(meta, logits))
		return dfx_fail(err, DFX_EDEVICE, "the network's output is not a finite number");
	switch (verdict_rule(meta))
	{
		case VERDICT_THREE:
			verdict_three(logits, verdict);
			return DFX_OK;
		case VERDICT_BINARY:
			verdict_binary(logits, verdict);
			return DFX_OK;
		case VERDICT_HIERARCHY:
			verdict_hierarchy(meta, logits, verdict);
			return DFX_OK;
		case VERDICT_NONE:
			break;
	}
	return dfx_verdict_check(meta, err);
}
