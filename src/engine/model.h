/*
 * model.h
 *	  One model made ready to run on a device, from whatever its weights came
 *	  from: the ring, a file, or the formula of the command line.
 */
#ifndef DFX_ENGINE_MODEL_H
#define DFX_ENGINE_MODEL_H

#include "engine/device.h"
#include "engine/proto.h"

typedef struct DfxModel
{
	DfxModelMeta meta;
	uint8_t version[DFX_VERSION_LEN];
	DfxPrecision precision; /* never AUTO */
	const DfxBackend *backend;
	DfxPlan *plan;
	uint32_t input_size; /* side of the square RGB input */
	int features;        /* floats per image of that output; 0: there is none */
	int logits;
	int nout, out_features, out_logits; /* outputs of the plan, -1: absent */
	size_t bytes;                       /* that the plan holds */
} DfxModel;

/*
 * The network of meta with its parameters set from tensors sorted by name.
 * A lone backbone gets its classifier if the tensors have one.  The tensors
 * are copied.  DFX_EWEIGHTS, DFX_EUNSUPPORTED, DFX_ENOMEM.
 */
extern DfxStatus
dfx_model_graph(const DfxModelMeta *meta, const DfxTensor *tensor, size_t n, DfxGraph **g, DfxErr *err);

/*
 * Every tensor that is missing, unexpected or misshapen, when dfx_model_graph()
 * has failed with DFX_EWEIGHTS; malloc'd, NULL when names and shapes were not it.
 */
extern char *dfx_model_misfits(const DfxModelMeta *meta, const DfxTensor *tensor, size_t n);

/*
 * Optimise and compile; frees the graph in any case.  Errors: those of
 * the backend, DFX_EUNSUPPORTED for the precision.
 */
extern DfxStatus dfx_model_compile(const DfxDevice *device, const DfxModelMeta *meta, DfxGraph *g,
                                   DfxPrecision precision, int max_batch, DfxModel **model, DfxErr *err);
extern void dfx_model_free(DfxModel *model);

/* Bytes of one image of the model's input. */
extern size_t dfx_model_input_bytes(const DfxModel *model);

/* Forward n images; features (n x model->features) and logits (n x model->logits) may be NULL. */
extern DfxStatus
dfx_model_run(const DfxModel *model, const uint8_t *in, int n, float *features, float *logits, DfxErr *err);

/* Metadata of an untrained network. */
extern DfxModelMeta dfx_model_meta_trinet(const DfxBackbone *b, int head_stride);
extern DfxModelMeta dfx_model_meta_backbone(const DfxBackbone *b);

/*
 * logits (dm, gan, real) to a verdict: softmax in double, p_synthetic =
 * p_dm + p_gan, label the most probable class.  DFX_EDEVICE when a logit is
 * not finite: a broken device must never look like a verdict.
 */
extern DfxStatus dfx_verdict(const float logits[DFX_NCLASS], DfxVerdictReply *verdict, DfxErr *err);

#endif /* DFX_ENGINE_MODEL_H */
