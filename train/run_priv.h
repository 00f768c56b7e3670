/*
 * run_priv.h
 *	  What the files of a run share: run.c (the order of things), recipe.c
 *	  (which networks there are and what they learn), features.c, report.c,
 *	  checkpoint.c.
 */
#ifndef DFX_TRAIN_RUN_PRIV_H
#define DFX_TRAIN_RUN_PRIV_H

#include "base/safetensors.h"
#include "nn/models.h"
#include "train/run.h"

#define RUN_NETS  4
#define RUN_GIVEN (DFX_TRAIN_CLASSES + 1)

/* What a network tells apart. */
typedef enum RunTask
{
	RUN_BASE,     /* others, main class */
	RUN_HEAD,     /* dm, gan, real, from features */
	RUN_THREE,    /* dm, gan, real */
	RUN_BINARY,   /* synthetic, real */
	RUN_TYPE,     /* dm, gan */
	RUN_GENERATOR /* of one class */
} RunTask;

typedef struct RunNet
{
	char scope[DFX_TRAIN_PHASE];
	RunTask task;
	int class;                     /* RUN_BASE, RUN_GENERATOR: which */
	int nclass;                    /* logits; 0: given, and used for its features only */
	int generator[DFX_GENERATORS]; /* RUN_GENERATOR: label of each of the config's, -1: none */
	DfxGraph *graph;
	bool done;           /* the graph has its final weights */
	uint64_t best_epoch; /* 0: it has not learnt */
	double best_loss;
} RunNet;

/* A weight file that was given. */
typedef struct RunGiven
{
	char name[DFX_TRAIN_PHASE];
	DfxSafetensors st;
} RunGiven;

struct DfxRun
{
	const DfxTrainConfig *config;
	DfxTrainDevice device;
	const DfxBackbone *backbone;
	const DfxSamples *samples;
	DfxTrainWatch outer; /* the caller's */
	DfxTrainWatch watch; /* the networks', which adds the estimate of the end */
	RunGiven given[RUN_GIVEN];
	int ngiven;

	DfxModelMeta meta;
	RunNet net[RUN_NETS];
	int nnet, at;

	DfxLearn learn; /* of net[at], while it learns */
	bool learning;
	DfxSafetensors resume; /* not yet taken up by net[at]; no tensors: none */

	/* Of what the head trains and is tested on: rows are samples by row[]. */
	DfxData rows;
	float *feature[DFX_TRAIN_CLASSES];
	float *base_logits[DFX_TRAIN_CLASSES]; /* 2 of each row; NULL: the Base Models have none */
	size_t feature_bytes;

	char *metrics;

	/*
	 * For the estimate of the end, arithmetic: of the whole run, of what is
	 * finished (before this process began), of an epoch or of a pass; and when
	 * this process began.
	 */
	double work_all, work_done, work_before, work_unit, work_began;
};

/* ---- recipe.c ---- */

/* Fill run->net and run->meta; for a hierarchy the samples say which generators there are. */
extern DfxStatus run_recipe(DfxRun *run, DfxErr *err);

/* The label that net learns for a sample of one of two splits (or of the test, for both the same). */
typedef struct RunWanted
{
	const RunNet *net;
	DfxSplit split;
} RunWanted;
extern int run_label(const DfxSample *s, const void *wanted);

/* How many samples of a split there are for net. */
extern size_t run_count(const DfxRun *run, const RunNet *net, DfxSplit split);

/* Which splits a network learns from. */
extern DfxSplit run_train_split(const RunNet *net);
extern DfxSplit run_val_split(const RunNet *net);

/* Name of class i of a network, for figures. */
extern const char *run_class_name(const DfxRun *run, const RunNet *net, int i);

/* ---- features.c ---- */

/* A copy of net's network for inference, optimised. */
extern DfxStatus run_infer_graph(const DfxRun *run, const RunNet *net, DfxGraph **g, DfxErr *err);

/* Outputs of that for all items: out[i] as DfxBackend.forward, of all items. */
extern DfxStatus
run_infer(DfxRun *run, const char *phase, DfxGraph *g, const DfxData *data, float *const *out, DfxErr *err);

/* run->rows and the features of the three Base Models. */
extern DfxStatus run_features(DfxRun *run, DfxErr *err);
extern void run_features_free(DfxRun *run);

/* The head's data in one split: rows of the features. */
extern DfxStatus run_head_data(const DfxRun *run, DfxSplit split, DfxData *d, DfxErr *err);

/* ---- test.c ---- */

/* The test: run->metrics. */
extern DfxStatus run_test(DfxRun *run, DfxErr *err);

/* ---- checkpoint.c ---- */

/* Take up what the checkpoint says of net[at], which has begun to learn. */
extern DfxStatus run_restore(DfxRun *run, DfxErr *err);

#endif /* DFX_TRAIN_RUN_PRIV_H */
