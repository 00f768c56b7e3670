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
	bool automatic;         /* that is what AUTO stands for, with this model on this device */
	const DfxBackend *backend;
	DfxPlan *plan;
	uint32_t input_size;                            /* side of the square RGB input */
	int features;                                   /* floats per image of that output; 0: there is none */
	int logits;                                     /* of all other outputs together, in their order */
	int nout, out_features, out_count[DFX_MAX_OUT]; /* outputs of the plan; out_features -1: absent */
	int nscale; /* convolutions that can be calibrated: their indices in the plan's graph, their scales' names
	             */
	int *scale_op;
	char (*scale_name)[DFX_NAME_LEN];
	size_t bytes; /* that the plan holds */
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
 * Optimise and compile; frees the graph in any case.  AUTO is int8 for a
 * calibrated model where the device has it, else what the device says.
 * Errors: those of the backend, DFX_EUNSUPPORTED for the precision.
 */
extern DfxStatus dfx_model_compile(const DfxDevice *device, const DfxModelMeta *meta, DfxGraph *g,
                                   DfxPrecision precision, int max_batch, DfxModel **model, DfxErr *err);
extern void dfx_model_free(DfxModel *model);

/* Bytes of one image of the model's input. */
extern size_t dfx_model_input_bytes(const DfxModel *model);

/*
 * Forward n images; features (n x model->features) and logits (n x
 * model->logits: an image's networks side by side) may be NULL.  As many at a
 * time as the device has lanes (nn/backend.h).
 */
extern DfxStatus
dfx_model_run(const DfxModel *model, const uint8_t *in, int n, float *features, float *logits, DfxErr *err);

/*
 * Calibration, on a plan in fp32: of n images, each convolution's largest
 * input (n x model->nscale).  DFX_EUNSUPPORTED with a hint where the network
 * or the device cannot, which check alone says as well.
 */
extern DfxStatus dfx_model_check_calibration(const DfxModel *model, DfxErr *err);
extern DfxStatus
dfx_model_largest(const DfxModel *model, const uint8_t *in, int n, float *largest, DfxErr *err);

/* Metadata of an untrained network; head_stride 0 but for a trinet, classes of at most DFX_CLASSES_LEN - 1
 * bytes. */
extern DfxModelMeta
dfx_model_meta(const char *kind, const DfxBackbone *b, const char *classes, int head_stride);
extern DfxModelMeta dfx_model_meta_trinet(const DfxBackbone *b, int head_stride);
extern DfxModelMeta dfx_model_meta_backbone(const DfxBackbone *b);

#endif /* DFX_ENGINE_MODEL_H */
