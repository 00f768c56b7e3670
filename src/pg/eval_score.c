/*
 * eval_score.c
 *	  Counts and scores of an evaluation, and the figures made of them.
 *
 * Three classes: figures over the model's most probable class, the area being
 * the mean of each class against the rest.  Two: DM and GAN count as synthetic,
 * as truth and as prediction; precision, recall and F1 are those of synthetic,
 * and the area is of p_synthetic.
 */
#include "postgres.h"

#include "base/metrics.h"
#include "pg/eval.h"
#include "utils/memutils.h"

#include <math.h>

#define SCORE_FIRST_ROOM 1024	/* images */

enum
{
	SCORE_SYNTHETIC = 0,
	SCORE_REAL,
	SCORE_NBINARY
};

static void
score_grow(DfxEvalScores *s, DfxEvalCell *cell)
{
	MemoryContext old = MemoryContextSwitchTo(s->context);
	Size		room = cell->room > 0 ? 2 * cell->room : SCORE_FIRST_ROOM;

	if (cell->room == 0)
	{
		cell->p_class = palloc(room * DFX_NCLASS * sizeof(float));
		cell->p_synthetic = palloc(room * sizeof(float));
		cell->truth = palloc(room);
	}
	else
	{
		cell->p_class = repalloc_huge(cell->p_class, room * DFX_NCLASS * sizeof(float));
		cell->p_synthetic = repalloc_huge(cell->p_synthetic, room * sizeof(float));
		cell->truth = repalloc_huge(cell->truth, room);
	}
	cell->room = room;
	MemoryContextSwitchTo(old);
}

/* Count a row's verdict; NULL when its image cannot be read. */
void
dfx_eval_count(DfxEvalScores *s, int perturb, const DfxEvalRow *row, const DfxVerdictReply *verdict)
{
	DfxEvalCell *cell = dfx_eval_cell(s, perturb, row->group);
	float	   *p;

	if (verdict == NULL)
	{
		cell->unreadable[row->truth]++;
		return;
	}
	s->binary = verdict->binary != 0;
	cell->n[row->truth][verdict->label]++;
	if (!s->keep)
		return;
	if (cell->nscores == cell->room)
		score_grow(s, cell);
	p = cell->p_class + cell->nscores * DFX_NCLASS;
	p[DFX_CLASS_DM] = verdict->p_dm;
	p[DFX_CLASS_GAN] = verdict->p_gan;
	p[DFX_CLASS_REAL] = verdict->p_real;
	cell->p_synthetic[cell->nscores] = verdict->p_synthetic;
	cell->truth[cell->nscores++] = row->truth;
}

uint64
dfx_eval_images(const DfxEvalCell *cell)
{
	uint64		n = 0;

	for (int truth = 0; truth < DFX_EVAL_CLASSES; truth++)
		for (int said = 0; said < DFX_EVAL_CLASSES; said++)
			n += cell->n[truth][said];
	return n;
}

static void
score_undefined(DfxEstimate *figure)
{
	for (int i = 0; i < DFX_FIGURE_COUNT; i++)
		figure[i] = (DfxEstimate) {NAN, NAN, NAN};
}

/* Are truth and verdicts of three classes throughout? */
static bool
score_has_classes(const DfxEvalCell *cell)
{
	uint64		other = 0;

	for (int i = 0; i < DFX_EVAL_CLASSES; i++)
		other += cell->n[DFX_CLASS_SYNTHETIC][i] + cell->n[i][DFX_CLASS_SYNTHETIC];
	return other == 0 && dfx_eval_images(cell) > 0;
}

void
dfx_eval_classes(const DfxEvalScores *s, const DfxEvalCell *cell, DfxEstimate *figure)
{
	DfxConfusion *c;
	float	   *one;
	uint8	   *positive;

	score_undefined(figure);
	if (s->binary || !score_has_classes(cell))
		return;
	c = palloc0(sizeof(*c));
	c->nclass = DFX_NCLASS;
	for (int truth = 0; truth < DFX_NCLASS; truth++)
		for (int said = 0; said < DFX_NCLASS; said++)
			c->n[truth][said] = cell->n[truth][said];
	figure[DFX_FIGURE_ACCURACY] = dfx_accuracy(c);
	figure[DFX_FIGURE_BALANCED] = dfx_balanced_accuracy(c);
	figure[DFX_FIGURE_PRECISION] = dfx_macro_precision(c);
	figure[DFX_FIGURE_RECALL] = figure[DFX_FIGURE_BALANCED];	/* the mean of the recalls is its definition */
	figure[DFX_FIGURE_F1] = dfx_macro_f1(c);
	pfree(c);

	one = MemoryContextAllocHuge(CurrentMemoryContext, cell->nscores * sizeof(float));
	positive = MemoryContextAllocHuge(CurrentMemoryContext, cell->nscores);
	figure[DFX_FIGURE_AUC] = dfx_macro_auc(cell->p_class, cell->truth, cell->nscores, DFX_NCLASS, one, positive);
	pfree(one);
	pfree(positive);
}

void
dfx_eval_binary(const DfxEvalCell *cell, DfxEstimate *figure)
{
	DfxConfusion *c;
	float	   *score;
	uint8	   *positive;

	score_undefined(figure);
	if (dfx_eval_images(cell) == 0)
		return;
	c = palloc0(sizeof(*c));
	c->nclass = SCORE_NBINARY;
	for (int truth = 0; truth < DFX_EVAL_CLASSES; truth++)
		for (int said = 0; said < DFX_EVAL_CLASSES; said++)
			c->n[truth == DFX_CLASS_REAL ? SCORE_REAL : SCORE_SYNTHETIC]
				[said == DFX_CLASS_REAL ? SCORE_REAL : SCORE_SYNTHETIC] += cell->n[truth][said];
	figure[DFX_FIGURE_ACCURACY] = dfx_accuracy(c);
	figure[DFX_FIGURE_BALANCED] = dfx_balanced_accuracy(c);
	figure[DFX_FIGURE_PRECISION] = dfx_precision(c, SCORE_SYNTHETIC);
	figure[DFX_FIGURE_RECALL] = dfx_recall(c, SCORE_SYNTHETIC);
	figure[DFX_FIGURE_F1] = dfx_f1(c, SCORE_SYNTHETIC);
	pfree(c);

	/* dfx_auc() sorts what it gets. */
	score = MemoryContextAllocHuge(CurrentMemoryContext, cell->nscores * sizeof(float));
	positive = MemoryContextAllocHuge(CurrentMemoryContext, cell->nscores);
	memcpy(score, cell->p_synthetic, cell->nscores * sizeof(float));
	for (Size i = 0; i < cell->nscores; i++)
		positive[i] = cell->truth[i] != DFX_CLASS_REAL;
	figure[DFX_FIGURE_AUC] = dfx_auc(score, positive, cell->nscores);
	pfree(score);
	pfree(positive);
}
