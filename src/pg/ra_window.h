/*
 * ra_window.h
 *	  Requests sent before their answers are asked for.
 *
 * A window holds rows, each with a few questions ("asks") about its images.
 * Whoever reads ahead sends the asks of rows to come, then shows the rows one
 * by one; while a row is shown, dfx_window_answer() serves its answers to the
 * SQL functions, which need not know who asked.  An answer that is not there
 * (not sent, lost, not worth keeping) is no error: the function asks itself.
 *
 * That makes reading ahead invisible but for its speed.  A question is the
 * image's stored bytes, the model's version and the settings that matter, and
 * an answer depends on nothing else.
 */
#ifndef DFX_PG_RA_WINDOW_H
#define DFX_PG_RA_WINDOW_H

#include "postgres.h"

#include "lib/ilist.h"
#include "pg/model.h"
#include "pg/queue.h"
#include "utils/resowner.h"

#define DFX_WINDOW_MAX_ASKS 4	/* of a row */

typedef enum DfxAheadState
{
	DFX_AHEAD_NONE = 0,			/* not sent, or lost */
	DFX_AHEAD_IN_FLIGHT,
	DFX_AHEAD_DONE				/* the answer is in this backend's memory */
} DfxAheadState;

/* What an answer depends on, besides the image. */
typedef struct DfxQuestion
{
	DfxRingOp	op;
	int			precision;
	int			max_bytes;
	int			max_pixels;
	bool		fast_decode;
	uint32		perturb;		/* a DfxPerturbation, without what the compiler puts between its parts */
	double		perturb_value;
	uint8		version[DFX_VERSION_LEN];
} DfxQuestion;

/* One request of a row. */
typedef struct DfxAhead
{
	DfxAheadState state;
	DfxQuestion question;
	DfxTicket	ticket;
	Size		bytes;			/* of the image in the ring */
	DfxReply	reply;			/* when DONE; data is the window's */
} DfxAhead;

typedef struct DfxWindow
{
	dlist_node	node;
	MemoryContext context;		/* of the answers */
	MemoryContextCallback at_reset;
	ResourceOwner owner;		/* of the slots held; changes when there are none */
	int			nrows;
	int			nasks;
	DfxAhead   *ahead;			/* nrows x nasks */
	int			shown;			/* row, or -1 */
	Datum		image[DFX_WINDOW_MAX_ASKS]; /* of the row shown, as stored */
	bool		no_image[DFX_WINDOW_MAX_ASKS];
	bool		lost;			/* something that was sent must be sent again */
	bool		stalled;		/* ... because nobody came for it and others needed its slot */
	bool		hungry;			/* a model is missing; the next direct question loads it */
	int			held;			/* slots */
	Size		held_bytes;

	/* statistics */
	int			max_held;
	uint64		answers;		/* of images that came to a network */
	uint64		batches;		/* sum over them of the batch that each was in */
} DfxWindow;

/* Requests that one backend may have in flight now: dfx.read_ahead, at most half of the slots. */
extern int	dfx_window_limit(void);

/* Set a zeroed window up, which is in context, and have it end with that; close gives everything back. */
extern void dfx_window_open(DfxWindow *w, int nrows, int nasks, MemoryContext context);
extern void dfx_window_close(DfxWindow *w);

/*
 * Send a row's ask unless it has been.  False when there is no room now; true
 * also for what is not worth sending.  Raises nothing but what reading a
 * stored image may raise, query cancel included.
 */
extern bool dfx_window_send(DfxWindow *w, int row, int ask, Datum image, DfxRingOp op, const DfxPerturbation *how,
							const DfxModelRef *model);

/* Take what has been answered out of the slots. */
extern void dfx_window_collect(DfxWindow *w);

/* Hold no slot any more: collect, and drop what is still in flight. */
extern void dfx_window_suspend(DfxWindow *w);

/* The same, but wait for what is in flight, each as long as a request may take. */
extern void dfx_window_settle(DfxWindow *w);

/* This row's answers are wanted now; the caller fills image and no_image. */
extern void dfx_window_show(DfxWindow *w, int row);

/* Done with a row; its place may be used for another. */
extern void dfx_window_forget(DfxWindow *w, int row);

/*
 * The answer to call about its image, if a window shows it; waits for it if it
 * is on its way.  Raises as dfx_queue_wait().  False when there is none; ticket
 * then becomes that of a request that was sent and lost, if there was one.
 */
extern bool dfx_window_answer(const DfxCall *call, DfxTicket *ticket, DfxReply *reply);

extern void dfx_window_init(void);

#endif							/* DFX_PG_RA_WINDOW_H */
