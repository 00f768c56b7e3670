/*
 * eval.h
 *	  Evaluation: from a relation of labelled images to figures of merit.
 *
 *	eval_source.c	the relation: rows, labels, groups
 *	eval_run.c		each row, each perturbation, one request; many in flight
 *	eval_score.c	what came of them: counts, scores, figures
 *	evaluate.c		dfx_evaluate() and dfx_confusion()
 *
 * Memory is bounded by what is in flight, except for the scores that an area
 * under a curve needs: 17 bytes an image and perturbation.
 */
#ifndef DFX_PG_EVAL_H
#define DFX_PG_EVAL_H

#include "postgres.h"

#include "pg/model.h"
#include "pg/verdict.h"
#include "utils/jsonb.h"
#include "utils/portal.h"

#define DFX_EVAL_MAX_GROUPS 1000
#define DFX_EVAL_MAX_PERTURBATIONS 64
#define DFX_EVAL_CLASSES (DFX_CLASS_SYNTHETIC + 1)	/* that a truth or a verdict may be */

/* What the caller of the SQL functions asks for. */
typedef struct DfxEvalArgs
{
	DfxModelRef model;
	Oid			samples;
	char	   *image_column;
	char	   *label_column;	/* NULL: rows have no truth */
	char	   *group_column;	/* NULL: all rows are one group */
	char	   *split_column;	/* NULL: all rows count */
	char	   *split;
	Jsonb	   *labels;			/* NULL: labels are the names of classes */
	int			nperturb;
	char	  **perturb;		/* as text ... */
	DfxPerturbation *how;		/* ... and as numbers */
	int64		max_errors;		/* images that may be unreadable */
	int64		draw;			/* rows to draw at random; 0: all, as they come */
} DfxEvalArgs;

/* ---- eval_source.c ---- */

typedef struct DfxEvalRow
{
	Datum		image;			/* as stored, perhaps toasted; palloc'd */
	bool		no_image;
	int			truth;			/* DFX_CLASS_*; -1: not told */
	int			group;
} DfxEvalRow;

typedef struct DfxEvalSource
{
	char	   *name;			/* of the relation, quoted */
	bool		labelled;		/* rows have a truth */
	int			nlabels;
	char	  **label;			/* the user's ... */
	int		   *class;			/* ... and what each stands for */
	int			ngroups;
	char	  **group;			/* in byte order; NULL, the last, for rows without one */

	/* private to eval_source.c */
	Portal		portal;
} DfxEvalSource;

/*
 * Open within SPI, as the caller and under the active snapshot.  Raises 42P01,
 * 42703 and 42804 for relation and columns, 42501 as any SELECT does, 22023
 * naming the labels that are not known, 54000 for too many groups.
 */
extern void dfx_eval_open(DfxEvalSource *s, const DfxEvalArgs *args);

/* The next row, its image in context; false at the end. */
extern bool dfx_eval_next(DfxEvalSource *s, DfxEvalRow *row, MemoryContext context);
extern void dfx_eval_close(DfxEvalSource *s);

/* ---- eval_score.c ---- */

/* One perturbation of one group. */
typedef struct DfxEvalCell
{
	uint64		n[DFX_EVAL_CLASSES][DFX_EVAL_CLASSES];	/* truth, predicted */
	uint64		unreadable[DFX_EVAL_CLASSES];	/* by truth */

	/* of readable images, when scores are kept */
	Size		nscores,
				room;
	float	   *p_class;		/* DFX_NCLASS for each */
	float	   *p_synthetic;
	uint8	   *truth;
} DfxEvalCell;

typedef struct DfxEvalScores
{
	bool		keep;			/* scores, besides counts */
	bool		binary;			/* the model tells no DM from GAN */
	int			ngroups;
	DfxEvalCell *cell;			/* perturbations x groups */
	MemoryContext context;
} DfxEvalScores;

extern void dfx_eval_count(DfxEvalScores *s, int perturb, const DfxEvalRow *row, const DfxVerdictReply *verdict);

static inline DfxEvalCell *
dfx_eval_cell(const DfxEvalScores *s, int perturb, int group)
{
	return &s->cell[perturb * s->ngroups + group];
}

/* Figures of merit; an index into the columns of dfx_evaluate(). */
typedef enum DfxFigure
{
	DFX_FIGURE_ACCURACY,
	DFX_FIGURE_BALANCED,
	DFX_FIGURE_PRECISION,
	DFX_FIGURE_RECALL,
	DFX_FIGURE_F1,
	DFX_FIGURE_AUC,
	DFX_FIGURE_COUNT
} DfxFigure;

struct DfxEstimate;

/* Images that a verdict was given on. */
extern uint64 dfx_eval_images(const DfxEvalCell *cell);

/* By three classes, and by real or not; NaN where there is no such figure. */
extern void dfx_eval_classes(const DfxEvalScores *s, const DfxEvalCell *cell, struct DfxEstimate *figure);
extern void dfx_eval_binary(const DfxEvalCell *cell, struct DfxEstimate *figure);

/* ---- eval_run.c ---- */

/*
 * Ask about every row of the samples under every perturbation, and fill scores,
 * which is zeroed but for keep and context.  names: the groups'.
 * Raises as dfx_eval_open(), as dfx_queue_call(), and the error of the first
 * image beyond args->max_errors that cannot be read.
 */
extern void dfx_eval_run(const DfxEvalArgs *args, DfxEvalScores *scores, char ***groups);

#endif							/* DFX_PG_EVAL_H */
