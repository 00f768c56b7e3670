/*
 * verdict.c
 *	  What the logits mean, for each way in which a model can answer.
 */
#include "engine/verdict.h"

#include <float.h>
#include <math.h>
#include <string.h>

const char *const dfx_class_label[DFX_CLASS_SYNTHETIC + 1] = {"dm", "gan", "real", "synthetic"};

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

static DfxStatus
verdict_finite(const DfxModelMeta *meta, const float *logits, DfxErr *err)
{
	int n = 0;

	for (int net = 0; net < DFX_NET_COUNT; net++)
		n += dfx_class_count(meta->classes, net);
	for (int i = 0; i < n; i++)
		if (!isfinite(logits[i]))
			return dfx_fail(err, DFX_EDEVICE, "the network's output is not a finite number");
	return DFX_OK;
}

/* --- the rules ----------------------------------------------------------- */

/*
 * Probabilities of dm, gan, real.  A binary model has that of synthetic in the
 * place of dm, and 0 for gan.
 */
static void
verdict_probabilities(const DfxModelMeta *meta, const float *logits, double p[DFX_NCLASS])
{
	double ai[2], type[2];

	switch (verdict_rule(meta))
	{
		case VERDICT_THREE:
			verdict_softmax(logits, DFX_NCLASS, p);
			break;
		case VERDICT_BINARY:
			verdict_softmax(logits, 2, ai);
			p[DFX_CLASS_DM] = ai[0];
			p[DFX_CLASS_GAN] = 0;
			p[DFX_CLASS_REAL] = ai[1];
			break;
		case VERDICT_HIERARCHY:
			verdict_softmax(logits, 2, ai);
			verdict_softmax(logits + dfx_class_count(meta->classes, DFX_NET_AI), 2, type);
			p[DFX_CLASS_DM] = ai[0] * type[0];
			p[DFX_CLASS_GAN] = ai[0] * type[1];
			p[DFX_CLASS_REAL] = ai[1];
			break;
		case VERDICT_NONE:
			p[DFX_CLASS_DM] = p[DFX_CLASS_GAN] = p[DFX_CLASS_REAL] = 0;
			break;
	}
}

static uint32_t
verdict_label(VerdictRule rule, const double p[DFX_NCLASS])
{
	double synthetic = p[DFX_CLASS_DM] + p[DFX_CLASS_GAN];
	uint32_t made = p[DFX_CLASS_GAN] > p[DFX_CLASS_DM] ? DFX_CLASS_GAN : DFX_CLASS_DM;

	switch (rule)
	{
		case VERDICT_BINARY:
			return p[DFX_CLASS_REAL] >= synthetic ? DFX_CLASS_REAL : DFX_CLASS_SYNTHETIC;
		case VERDICT_HIERARCHY:
			return p[DFX_CLASS_REAL] >= synthetic ? DFX_CLASS_REAL : made;
		default:
			return p[DFX_CLASS_REAL] > p[made] ? DFX_CLASS_REAL : made;
	}
}

/* The likeliest generator of the label's network; "" without one. */
static void
verdict_generator(const DfxModelMeta *meta, const float *logits, DfxVerdictReply *v)
{
	int net = v->label == DFX_CLASS_GAN ? DFX_NET_GAN : DFX_NET_DM;

	if (v->label == DFX_CLASS_REAL)
		return;
	for (int i = 0; i < net; i++)
		logits += dfx_class_count(meta->classes, i);
	dfx_class_name(meta->classes, net, verdict_top(logits, dfx_class_count(meta->classes, net)),
	               v->generator);
}

DfxStatus
dfx_verdict(const DfxModelMeta *meta, const float *logits, DfxVerdictReply *v, DfxErr *err)
{
	VerdictRule rule = verdict_rule(meta);
	double p[DFX_NCLASS];

	memset(v, 0, sizeof *v);
	if (dfx_verdict_check(meta, err) != DFX_OK || verdict_finite(meta, logits, err) != DFX_OK)
		return err->code;
	verdict_probabilities(meta, logits, p);
	v->label = verdict_label(rule, p);
	v->binary = rule == VERDICT_BINARY;
	v->p_synthetic = (float) (p[DFX_CLASS_DM] + p[DFX_CLASS_GAN]);
	v->p_dm = v->binary ? 0 : (float) p[DFX_CLASS_DM];
	v->p_gan = (float) p[DFX_CLASS_GAN];
	v->p_real = (float) p[DFX_CLASS_REAL];
	v->confidence = v->label == DFX_CLASS_SYNTHETIC ? v->p_synthetic : (float) p[v->label];
	if (rule == VERDICT_HIERARCHY)
		verdict_generator(meta, logits, v);
	return DFX_OK;
}

/* --- evidence ------------------------------------------------------------ */

DfxStatus
dfx_verdict_knows(const DfxModelMeta *meta, uint32_t class, DfxErr *err)
{
	if (dfx_verdict_check(meta, err) != DFX_OK)
		return err->code;
	if (class > DFX_CLASS_SYNTHETIC)
		return dfx_fail(err, DFX_EINVAL, "there is no class number %u", class);
	if (verdict_rule(meta) == VERDICT_BINARY && class != DFX_CLASS_SYNTHETIC && class != DFX_CLASS_REAL)
		return dfx_fail(err, DFX_EINVAL, "a binary model knows the classes synthetic and real, not %s",
		                dfx_class_label[class]);
	return DFX_OK;
}

DfxStatus
dfx_verdict_evidence(const DfxModelMeta *meta, const float *logits, uint32_t class, double *log_odds,
                     DfxErr *err)
{
	double p[DFX_NCLASS], of = 0, other = 0;

	if (verdict_finite(meta, logits, err) != DFX_OK)
		return err->code;
	verdict_probabilities(meta, logits, p);
	for (uint32_t i = 0; i < DFX_NCLASS; i++)
		if (i == class || (class == DFX_CLASS_SYNTHETIC && i != DFX_CLASS_REAL))
			of += p[i];
		else
			other += p[i];
	*log_odds = log(fmax(of, DBL_MIN)) - log(fmax(other, DBL_MIN));
	return DFX_OK;
}
