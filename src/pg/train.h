/*
 * train.h
 *	  Training as a session sees it: CALL dfx_train and its relatives.
 *
 * A training procedure is an ordinary session's.  It starts an engine of its
 * own (train_engine.c), tells it what to do (train_args.c), sends it the
 * labelled rows (train_source.c, train_read.c), and then holds no snapshot for
 * as long as the epochs take: it waits for frames, and writes each epoch and
 * its checkpoint in a transaction of its own (train_run.c, train_epochs.c).
 * train_call.c has the order of it all and what happens when it goes wrong.
 *
 * Transactions.  SPI_commit() leaves no snapshot, and a portal that commits
 * must get one before it runs anything again: every part that reads or writes
 * begins with EnsurePortalSnapshotExists() and ends with SPI_commit(), and
 * nothing else is held while the session waits.
 */
#ifndef DFX_PG_TRAIN_H
#define DFX_PG_TRAIN_H

#include "postgres.h"

#include "engine/proto.h"
#include "engine/proto_train.h"
#include "nodes/pg_list.h"
#include "pg/model.h"
#include "pg/shmem.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"

#define DFX_TRAIN_IMAGE_BYTES 196608	/* of a decoded image in the engine's cache: 256 x 256 x 3 */
#define DFX_TRAIN_INITS 3

typedef enum DfxTrainColumn
{
	DFX_TRAIN_IMAGE,
	DFX_TRAIN_LABEL,
	DFX_TRAIN_GROUP,
	DFX_TRAIN_SPLIT,
	DFX_TRAIN_KEY,
	DFX_TRAIN_GENERATOR,
	DFX_TRAIN_COLUMNS
} DfxTrainColumn;

/* Arguments of the procedures, and members of dfx_training_run.source. */
extern const char *const dfx_train_column_arg[DFX_TRAIN_COLUMNS];

/* Where the samples come from. */
typedef struct DfxTrainSource
{
	Oid			relid;
	char	   *relation;		/* its qualified name */
	char	   *column[DFX_TRAIN_COLUMNS];	/* NULL: none */
	Jsonb	   *labels;			/* {"text": "dm" | "gan" | "real"} */
	Datum		generators;		/* text[]: their names, by their numbers */
	int			max_errors;
} DfxTrainSource;

/* A sample as it was sent, or (of a run that is resumed) as it is to be sent again. */
typedef struct DfxTrainRow
{
	int64		number;
	char	   *key;
	uint8		sha256[32];
	uint8		label;			/* DFX_CLASS_* */
	uint8		split;			/* DfxSplit, from PLAN */
	uint8		base;			/* bits DFX_CLASS_*, from PLAN */
	bool		usable;			/* TAKEN said so; of a stored one: it was found again */
	bool		moved;			/* PLAN says other than what is stored */
	int32		generator;		/* -1: none */
	int64		next;			/* of stored rows alike, or -1 */
} DfxTrainRow;

/* A row that cannot be a sample. */
typedef struct DfxTrainError
{
	char	   *key;			/* NULL: none is known */
	char	   *message;
} DfxTrainError;

/* A model to start from. */
typedef struct DfxTrainInit
{
	char		name[16];		/* of DfxTrainBlob: "", or a class */
	DfxModelRef model;
} DfxTrainInit;

/* One run while its procedure is at work; everything in it lives in context. */
typedef struct DfxTrainRun
{
	MemoryContext context;		/* outlives transactions */
	int64		id;				/* 0: there is no row yet */
	char	   *model;			/* the name for the result */
	char	   *kind;
	char	   *owner;			/* of the run */
	Jsonb	   *options;		/* what CONFIG says */
	DfxTrainSource source;
	DfxTrainInit init[DFX_TRAIN_INITS];
	int			ninit;

	DfxTrainRow *row;			/* as sent */
	int64		nrow,
				row_room,
				ntaken;			/* of them, answered */
	DfxTrainRow *stored;		/* of a run that is resumed */
	int64		nstored;
	HTAB	   *stored_by;		/* what a row is -> the first in stored like it */
	DfxTrainError *error;
	int64		nerror,
				error_room,
				nerror_stored;	/* of them, those in the table already */

	int			nepoch;			/* written down so far, earlier sessions' included */
	bool		has_checkpoint;
	DfxTrainEpoch *pending;		/* epochs that no checkpoint covers yet */
	int			npending;
	text	   *metrics;		/* NULL: not told yet */
	List	   *models;			/* of TrainResult, see train_result.c */
	DfxTrainShow show;
} DfxTrainRun;

/* ---- names (train_args.c) ---- */

/* Names of splits in SQL, by DfxSplit. */
extern const char *const dfx_train_split_name[DFX_SPLIT_COUNT];

/* Names of the classes by DFX_CLASS_*. */
extern const char *const dfx_train_class_name[DFX_NCLASS];

/* DFX_CLASS_* of a name, -1 for none; DfxSplit of a name that a split column may hold, -1 for none. */
extern int	dfx_train_class(const char *name);
extern int	dfx_train_split(const char *name);

/* ---- train_live.c ---- */

/*
 * Say that this backend is busy with the run (0: with none); false when
 * another one is.  The caller holds the run's row, so that nobody decides by it
 * meanwhile.
 */
extern bool dfx_train_live_claim(int64 run);
extern bool dfx_train_live_is(int64 run);
extern void dfx_train_live_show(const DfxTrainShow *show);

/* ---- train_engine.c ---- */

typedef struct DfxTrainMessage
{
	DfxFrameType type;
	const char *data;			/* until the next receive; not aligned */
	Size		len;
} DfxTrainMessage;

/*
 * Start this session's training engine, and end it, whatever it is doing.
 * Ending is also done when the backend exits, and harmless when there is none.
 */
extern void dfx_train_engine_start(void);
extern void dfx_train_engine_end(void);

/* Send a frame in two parts, either of which may be empty.  Takes in what the engine says meanwhile. */
extern void dfx_train_send(DfxFrameType type, const void *head, Size head_len, const void *data, Size len);

/*
 * The next frame; false when there is none now and wait is not set.  LOG goes
 * to the server's log.  Raises what FAIL says, 58000 when the engine has ended,
 * XX000 for a frame that cannot be, query cancel, and the loss of the client.
 */
extern bool dfx_train_receive(DfxTrainMessage *m, bool wait);

/* The next frame, which must be of that type. */
extern void dfx_train_expect(DfxFrameType type, DfxTrainMessage *m);

/* XX000: the engine does not keep to the protocol. */
pg_noreturn extern void dfx_train_broken(const char *what);

/* ---- train_args.c ---- */

/* The arguments of a procedure by their names. */
typedef struct DfxTrainArgs
{
	FunctionCallInfo fcinfo;
	int			n;
	char	  **name;
	Oid		   *type;
} DfxTrainArgs;

extern void dfx_train_args(FunctionCallInfo fcinfo, DfxTrainArgs *args);

/* An argument's value; false when it is null or the procedure has none of that name. */
extern bool dfx_train_arg(const DfxTrainArgs *args, const char *name, Datum *value);

/* The same as a C string; NULL when it is null or the procedure has none of that name. */
extern char *dfx_train_arg_text(const DfxTrainArgs *args, const char *name);

/* CONFIG as jsonb: the kind, what the recipe says, the arguments that are options, limits, generators. */
extern Jsonb *dfx_train_options(const DfxTrainArgs *args, const char *kind, const char *backbone,
								const DfxTrainSource *source);

/* The same as the text that the engine gets, in UTF-8. */
extern char *dfx_train_config(const Jsonb *options);

/* ---- train_source.c ---- */

/* From the arguments: relation, columns, labels; 42P01, 42703, 42804, 42809, 22004, 22023. */
extern void dfx_train_source_args(const DfxTrainArgs *args, DfxTrainSource *source);

/* Check that the relation still is one that the columns fit, and set relation. */
extern void dfx_train_source_check(DfxTrainSource *source);

/*
 * Look at the rows as the caller: labels outside the mapping (22023), more than
 * the cache may hold (53100); and find out the generators.
 */
extern void dfx_train_source_survey(DfxTrainSource *source);

/* The query for dfx_train_read(); its parameters are labels and generators. */
extern char *dfx_train_source_query(const DfxTrainSource *source);

/* ---- train_read.c ---- */

/* Send all samples, and receive the plan for them. */
extern void dfx_train_read(DfxTrainRun *run);

/* ---- train_run.c: rows of the tables ---- */

/* One statement as the owner of the tables (dfx_store_sql), whose result is not looked at. */
extern void dfx_train_run_sql(const char *sql, int nargs, Oid *types, Datum *values);

extern void dfx_train_run_create(DfxTrainRun *run);

/* The run's row, locked; 42704, 42501. */
extern void dfx_train_run_load(DfxTrainRun *run, char **state);

/*
 * 42501 unless the user may use the models that a loaded run starts from, and
 * dfx.max_image_bytes and dfx.max_image_pixels allow what it takes.
 */
extern void dfx_train_run_check_rights(const DfxTrainRun *run);

/* What CALL dfx_train_resume() needs besides. */
extern void dfx_train_run_load_samples(DfxTrainRun *run);

/* The engine is there; with its name for the device. */
extern void dfx_train_run_begin(const DfxTrainRun *run, const char *device);

/* All samples and errors, as planned; of a resumed run only that it trains again. */
extern void dfx_train_run_planned(DfxTrainRun *run);

/* The pending epochs, in the order they came. */
extern void dfx_train_run_epochs(DfxTrainRun *run);

/* It is over: with models as jsonb text, or with the error that ended it. */
extern void dfx_train_run_done(const DfxTrainRun *run, const char *versions);
extern void dfx_train_run_failed(DfxTrainRun *run, const ErrorData *error);

/* Delete all of it. */
extern void dfx_train_run_drop(int64 run);

/* ---- train_stored.c ---- */

/* A checkpoint takes the place of the one before: delete, chunks in order, then the row that makes them one. */
extern void dfx_train_run_checkpoint_begin(const DfxTrainRun *run);
extern void dfx_train_run_checkpoint_chunk(int64 run, int32 number, const char *data, Size len);
extern void dfx_train_run_checkpoint_end(const DfxTrainRun *run, uint64 bytes, const uint8 *sha256);

/* Each chunk of the checkpoint in order, checked against its hash: XX001. */
typedef void (*DfxTrainChunk) (const char *data, Size len, void *arg);
extern uint64 dfx_train_run_checkpoint_size(int64 run);
extern void dfx_train_run_checkpoint_read(int64 run, DfxTrainChunk each, void *arg);

/* ---- train_epochs.c ---- */

/* From GO to DONE; leaves what the result needs in run. */
extern void dfx_train_epochs(DfxTrainRun *run);

/* ---- train_result.c ---- */

/* Take in a model that the engine sends. */
extern void dfx_train_result_receive(DfxTrainRun *run, const DfxTrainBlob *blob);

/* Make models of them, and end the run: in the transaction that received them. */
extern void dfx_train_result_store(DfxTrainRun *run);

/* Send the models to start from. */
extern void dfx_train_send_inits(const DfxTrainRun *run);

/* ---- train_call.c ---- */

/* 25001, 25006, 55000: what every training procedure asks first. */
extern void dfx_train_require(FunctionCallInfo fcinfo, const char *procedure);

#endif							/* DFX_PG_TRAIN_H */
