/*
 * queue.h
 *	  The client side of the ring, as the SQL functions see it.
 *
 * dfx_queue_call() is all that most callers need.  The ticket functions under
 * it exist for callers that keep several requests in flight (model loading,
 * read-ahead).  A ticket belongs to CurrentResourceOwner: ERROR, savepoint
 * rollback and FATAL give its slot back.
 *
 * A backend blocks only for its FIRST slot; while it holds one, further
 * submissions must be nowait.  That rules out deadlock between backends that
 * each hold slots and want more.  dfx_queue_call() keeps to it by itself: it
 * asks those who registered with dfx_queue_on_wait() to give back what they
 * hold before it waits.
 */
#ifndef DFX_PG_QUEUE_H
#define DFX_PG_QUEUE_H

#include "postgres.h"

#include "engine/proto.h"

typedef struct DfxCall
{
	DfxRingOp	op;
	const void *data;			/* payload, copied into the arena by submit ... */
	Datum		image;			/* ... or a bytea that is, in whatever form it is stored, if not 0 */
	Size		len;			/* of the payload's bytes, detoasted */
	DfxPerturbation how;		/* done to the image first; zeroes: nothing */
	const uint8 *version;		/* 32 bytes, or NULL when the op needs no model */
	Size		reply_cap;		/* bytes to reserve for the reply */
	uint32		class;			/* of a heatmap: DFX_CLASS_* */
	int			rounds;			/* how many times dfx.request_timeout it may take; 0: once */

	/*
	 * Called when an engine answers DFX_NEED_MODEL; must make the version
	 * resident in it, or raise.  order is the request's queue position.  The time
	 * spent in it does not count against the deadline.
	 */
	void		(*need_model) (const uint8 *version, uint64 order, int engine, void *arg);
	void	   *need_model_arg;
} DfxCall;

typedef struct DfxReply
{
	DfxStatus	status;			/* never DFX_NEED_MODEL or DFX_TOO_SMALL after dfx_queue_call() */
	uint32		batch;
	int			engine;			/* number of the one that answered */
	Size		len;
	void	   *data;			/* palloc'd, len bytes, NULL when len is 0 */
	char		msg[DFX_MSG_LEN];
	char		hint[DFX_HINT_LEN];
} DfxReply;

typedef struct DfxTicket
{
	int			slot;			/* -1: none */
	uint64		gen;
	uint64		order;			/* 0 before the first submission */
	int64		deadline;		/* by dfx_clock_ms(); 0 before the first submission */
	int			blame;			/* for engines that died while they ran it */
	int			rounds;			/* the call's, 1 or more */
	int			engine;			/* that it goes to: a number + 1, or 0 for any */
	int			refused;		/* engines that cannot do it, by 1 << number */
} DfxTicket;

#define DFX_TICKET_INIT {.slot = -1, .rounds = 1}

/*
 * Run one request to its end: claim, copy, submit, wait, copy the reply out.
 * Repeats by itself after DFX_NEED_MODEL (with call->need_model) and
 * DFX_TOO_SMALL.  Raises: 53000 no slot within dfx.queue_timeout; 55000
 * library not preloaded; 57P03 no engine; 58000 deadline passed; query cancel.
 * Failures of the request itself come back in reply->status, the engine's as
 * well as data larger than the arena (DFX_ELIMIT): see dfx_reply_raise().
 */
extern void dfx_queue_call(const DfxCall *call, DfxReply *reply);

/* The same for a request that has been submitted before, without an answer that counts. */
extern void dfx_queue_go_on(const DfxCall *call, DfxTicket *ticket, DfxReply *reply);

/* ereport(ERROR) with the status's SQLSTATE, message and hint; returns when the status is DFX_OK. */
extern void dfx_reply_raise(const DfxReply *reply);

/*
 * Submit.  A ticket with order != 0 is a resubmission and keeps its position,
 * its deadline, and the suspicion of killing engines.  Raises as
 * dfx_queue_call(), and 54000 for data larger than the arena.  nowait raises
 * nothing of that: false when there is no slot, no room or no engine now, or
 * never will be for data of this size.  Either raises what reading a stored
 * image may raise, query cancel included.
 */
extern bool dfx_queue_submit(const DfxCall *call, DfxTicket *ticket, bool nowait);
extern bool dfx_queue_done(const DfxTicket *ticket);

/*
 * Raises on cancel, at the ticket's deadline and when the engine is gone for
 * good.  Answers to other tickets are collected meanwhile, and so may this one
 * be, if it is in the charge of those who collect.
 */
extern void dfx_queue_wait(const DfxTicket *ticket);
extern bool dfx_queue_wait_until(const DfxTicket *ticket, int64 until);	/* false: not done by then */

/*
 * Done tickets only; frees the slot.  False when the answer is lost, because
 * the slot, got with nowait, was taken back: answers that lie there for a
 * second give way to those who need the slot.  It can be submitted again.
 */
extern bool dfx_queue_harvest(DfxTicket *ticket, DfxReply *reply);
extern void dfx_queue_drop(DfxTicket *ticket);	/* cancels what is in flight */
extern int	dfx_queue_held(void);	/* slots this backend holds */

/*
 * Register who keeps several requests in flight.  yield is called before this
 * backend waits for a slot or for the loader, and must see to it that the
 * backend holds no slot any more; collect while it waits for an answer, to take
 * those that are there out of their slots.
 */
extern void dfx_queue_on_wait(void (*yield) (void), void (*collect) (void));

/*
 * The loader: at most one backend streams weights at a time, through a slot
 * and 16 MB of ring that image requests never use.
 *
 * dfx_loader_begin() returns true when this backend is now the loader, for the
 * engine of that number (it must call dfx_loader_end(); an error does it too),
 * false when it waited for another backend that was loading the same version
 * into it and has ended, well or badly: ask the engine again.
 * dfx_loader_send() takes len bytes that the caller has put at
 * dfx_loader_buffer() and waits for the answer, without a deadline.  Raises
 * 57P03 when no engine can be started, and query cancel.  When the engine was
 * replaced since LOAD_BEGIN, or cannot be started while another one can, it
 * does not raise but answers with DFX_EUNAVAILABLE: start again with
 * LOAD_BEGIN, no dfx_loader_begin() needed, but not for ever, for it may be
 * these weights that kill it (dfx_reply_raise() makes 57P03 of it).  The reply
 * has at most one page.
 */
extern bool dfx_loader_begin(const uint8 *version, int engine);
extern char *dfx_loader_buffer(Size *capacity);
extern void dfx_loader_send(DfxRingOp op, const uint8 *version, Size len, DfxReply *reply);
extern void dfx_loader_end(void);

/* Raises 55000 with a HINT when the library was not preloaded, 57P03 when the ring could not be made. */
extern void dfx_require_ring(void);

#endif							/* DFX_PG_QUEUE_H */
