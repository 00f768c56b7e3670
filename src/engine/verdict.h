/*
 * verdict.h
 *	  From a network's logits to a verdict, by what the model's classes say.
 */
#ifndef DFX_ENGINE_VERDICT_H
#define DFX_ENGINE_VERDICT_H

#include "engine/proto.h"
#include "nn/models.h"

_Static_assert(sizeof((DfxVerdictReply *) 0)->generator == DFX_CLASS_NAME_LEN,
               "a verdict has room for a class's name");

/* Logits of all networks together: no more names fit DfxModelMeta.classes. */
#define DFX_MAX_LOGITS (DFX_CLASSES_LEN / 2)

/* "dm", "gan", "real", "synthetic", by DFX_CLASS_*. */
extern const char *const dfx_class_label[DFX_CLASS_SYNTHETIC + 1];

/* Whether a model gives verdicts at all; DFX_EINVAL, with a hint, when it only gives features. */
extern DfxStatus dfx_verdict_check(const DfxModelMeta *meta, DfxErr *err);

/*
 * One image's logits, of all the model's networks in their order, to its
 * verdict.  Softmax in double.  The model passed dfx_verdict_check().
 *
 *	dm, gan, real	p_synthetic = p_dm + p_gan; label: the most probable class
 *	x, real			p_synthetic = 1 - p_real, p_dm and p_gan unknown; label: real or synthetic
 *	a hierarchy		p_synthetic = p(ai), p_dm = p_synthetic x p(dm | type), p_gan alike; label: real
 *					where p_real >= p_synthetic, else the likelier of dm and gan; generator: the
 *					likeliest of the label's network
 *
 * confidence is the label's probability.  DFX_EDEVICE when a logit is not
 * finite: a broken device must never look like a verdict.
 */
extern DfxStatus
dfx_verdict(const DfxModelMeta *meta, const float *logits, DfxVerdictReply *verdict, DfxErr *err);

/* Whether such a model has a probability for a class (DFX_CLASS_*); DFX_EINVAL when not. */
extern DfxStatus dfx_verdict_knows(const DfxModelMeta *meta, uint32_t class, DfxErr *err);

/*
 * What one image's logits say for a class that the model knows: the natural
 * logarithm of the odds of its probability, which does not go flat where the
 * probability is nearly 0 or 1.  DFX_EDEVICE as above.
 */
extern DfxStatus dfx_verdict_evidence(const DfxModelMeta *meta, const float *logits, uint32_t class,
                                      double *log_odds, DfxErr *err);

#endif /* DFX_ENGINE_VERDICT_H */
