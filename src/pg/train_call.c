/*
 * train_call.c
 *	  CALL dfx_train() and its relatives: the order of a run, and its end.
 *
 *	  in the caller's transaction: who may, which rows, which options
 *	  ---- commit: the run has a row and a session ----
 *	  READY, weights to start from, samples, PLAN
 *	  ---- commit: which row went where; the cursor's snapshot is gone ----
 *	  epochs, each with its checkpoint, each committed
 *	  ---- commit: the model, the run is done ----
 *
 * What goes wrong after the first commit is written into the run's row.  The
 * error may come from anywhere, so the transaction is rolled back here before
 * the caller's is: this needs a connection to SPI of its own, for the ones
 * below are dead, and no more active snapshots than the portal knows of.  A
 * FATAL error passes by; its run is known by having no session.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "pg/queue.h"
#include "pg/reply.h"
#include "pg/train.h"

PG_FUNCTION_INFO_V1(dfx_train);
PG_FUNCTION_INFO_V1(dfx_train_base);
PG_FUNCTION_INFO_V1(dfx_train_head);
PG_FUNCTION_INFO_V1(dfx_train_baseline);
PG_FUNCTION_INFO_V1(dfx_train_resume);
PG_FUNCTION_INFO_V1(dfx_drop_training_run);

void
dfx_train_require(FunctionCallInfo fcinfo, const char *procedure)
{
	if (!fcinfo->context || !IsA(fcinfo->context, CallContext) || castNode(CallContext, fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("%s cannot run inside a transaction block", procedure),
				 errdetail("It commits what it has done so far.")));
	PreventCommandIfReadOnly(procedure);
	if (dfx_shared == NULL)
		dfx_require_ring();
}

/* ---- from the samples to the model ---- */

static void
call_ready(DfxTrainRun *run)
{
	char	   *config = dfx_train_config(run->options);
	DfxTrainMessage m;
	DfxTrainReady ready;
	char		device[sizeof(ready.device)];

	dfx_train_engine_start();
	dfx_train_send(DFX_FRAME_CONFIG, config, strlen(config), NULL, 0);
	dfx_train_expect(DFX_FRAME_READY, &m);
	memcpy(&ready, m.data, sizeof(ready));
	if (ready.version != DFX_TRAIN_VERSION)
		dfx_train_broken("another version of it");
	dfx_clean_text(device, sizeof(device), ready.device, sizeof(ready.device));
	dfx_train_run_begin(run, device);
}

static void
call_converse(DfxTrainRun *run)
{
	dfx_train_live_show(&run->show);
	EnsurePortalSnapshotExists();
	call_ready(run);
	SPI_commit();

	EnsurePortalSnapshotExists();
	/* A checkpoint has all weights but those of networks that are not trained. */
	if (!run->has_checkpoint || strcmp(run->kind, "head") == 0)
		dfx_train_send_inits(run);
	dfx_train_read(run);
	dfx_train_run_planned(run);
	SPI_commit();

	dfx_train_epochs(run);
}

/* See the top of the file; raises the error again. */
pg_noreturn static void
call_failed(DfxTrainRun *run)
{
	ErrorData  *error;

	MemoryContextSwitchTo(run->context);
	error = CopyErrorData();
	FlushErrorState();
	dfx_train_engine_end();
	PG_TRY();
	{
		if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		while (ActiveSnapshotSet() && GetActiveSnapshot() != ActivePortal->portalSnapshot)
			PopActiveSnapshot();
		SPI_rollback();
		EnsurePortalSnapshotExists();
		dfx_train_run_failed(run, error);
		SPI_commit();
	}
	PG_CATCH();
	{
		/* The run will be seen to have no session; the first error says more than this one. */
		FlushErrorState();
	}
	PG_END_TRY();
	(void) dfx_train_live_claim(0);
	ReThrowError(error);
}

/* The run has a row, and nothing is committed yet. */
static void
call_run(DfxTrainRun *run)
{
	if (!dfx_train_live_claim(run->id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session is busy with training run " INT64_FORMAT, run->id)));
	PG_TRY();
	{
		SPI_commit();
		ereport(NOTICE,
				(errmsg("training run " INT64_FORMAT " for model \"%s\"", run->id, run->model)));
		call_converse(run);
	}
	PG_CATCH();
	{
		call_failed(run);
	}
	PG_END_TRY();
	dfx_train_engine_end();
	(void) dfx_train_live_claim(0);
}

static DfxTrainRun *
call_new_run(void)
{
	DfxTrainRun *run;

	/* What SPI allocates in a procedure that commits lives as long as the portal. */
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	EnsurePortalSnapshotExists();
	run = palloc0(sizeof(DfxTrainRun));
	run->context = AllocSetContextCreate(CurrentMemoryContext, "dfx training run", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(run->context);
	return run;
}

/* ---- a new run ---- */

static void
call_init(DfxTrainRun *run, const char *name, const char *model)
{
	DfxTrainInit *init = &run->init[run->ninit++];

	strlcpy(init->name, name, sizeof(init->name));
	dfx_model_resolve(cstring_to_text(model), &init->model);
}

/* The three Base Models of a head; returns the name of their backbone. */
static char *
call_base_models(DfxTrainRun *run, const DfxTrainArgs *args)
{
	DfxModelMeta meta;

	for (int i = 0; i < DFX_NCLASS; i++)
	{
		char	   *arg = psprintf("%s_model", dfx_train_class_name[i]);
		char	   *model = dfx_train_arg_text(args, arg);

		if (!model)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s must not be null", arg)));
		call_init(run, dfx_train_class_name[i], model);
	}
	dfx_model_meta(&run->init[0].model, &meta);
	return pstrdup(meta.backbone);
}

static Datum
call_train(FunctionCallInfo fcinfo, const char *kind, const char *procedure)
{
	char	   *model = dfx_name_arg(fcinfo, 0);
	DfxTrainRun *run;
	DfxTrainArgs args;
	char	   *backbone,
			   *init;

	dfx_train_require(fcinfo, procedure);
	run = call_new_run();
	dfx_train_args(fcinfo, &args);
	run->model = pstrdup(model);
	run->owner = GetUserNameFromId(GetUserId(), false);
	(void) dfx_model_owner(run->model);	/* 42501 now rather than in the end */
	dfx_train_source_args(&args, &run->source);
	if (strcmp(kind, "head") == 0)
		backbone = call_base_models(run, &args);
	else
		backbone = dfx_train_arg_text(&args, "backbone");
	init = dfx_train_arg_text(&args, "init");
	if (init)
		call_init(run, "", init);
	dfx_train_source_survey(&run->source);
	run->options = dfx_train_options(&args, kind, backbone, &run->source);
	run->kind = pstrdup(kind);
	dfx_train_run_create(run);
	call_run(run);
	SPI_finish();
	PG_RETURN_VOID();
}

/* dfx_train(model, samples, ...): three Base Models and the head. */
Datum
dfx_train(PG_FUNCTION_ARGS)
{
	return call_train(fcinfo, "trinet", "CALL dfx_train()");
}

/* dfx_train_base(model, samples, main_class, ...): one Base Model. */
Datum
dfx_train_base(PG_FUNCTION_ARGS)
{
	return call_train(fcinfo, "base", "CALL dfx_train_base()");
}

/* dfx_train_head(model, samples, dm_model, gan_model, real_model, ...): the head over three of them. */
Datum
dfx_train_head(PG_FUNCTION_ARGS)
{
	return call_train(fcinfo, "head", "CALL dfx_train_head()");
}

/* dfx_train_baseline(model, samples, ...): one backbone as a classifier, or what a recipe says. */
Datum
dfx_train_baseline(PG_FUNCTION_ARGS)
{
	return call_train(fcinfo, "classifier", "CALL dfx_train_baseline()");
}

/* ---- an old one ---- */

static int64
call_run_arg(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("training run must not be null")));
	return PG_GETARG_INT64(0);
}

/* dfx_train_resume(run bigint, samples regclass DEFAULT NULL) */
Datum
dfx_train_resume(PG_FUNCTION_ARGS)
{
	int64		id = call_run_arg(fcinfo);
	DfxTrainRun *run;
	char	   *state;

	dfx_train_require(fcinfo, "CALL dfx_train_resume()");
	run = call_new_run();
	run->id = id;
	dfx_train_run_load(run, &state);
	dfx_train_run_check_rights(run);
	if (strcmp(state, "done") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("training run " INT64_FORMAT " is done", id)));
	dfx_train_run_load_samples(run);
	if (run->nstored == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("training run " INT64_FORMAT " ended before its samples were read", id),
				 errhint("Start another one.")));
	(void) dfx_model_owner(run->model);
	run->source.relid = !PG_ARGISNULL(1) ? PG_GETARG_OID(1) :
		DatumGetObjectId(DirectFunctionCall1(regclassin, CStringGetDatum(run->source.relation)));
	dfx_train_source_check(&run->source);
	call_run(run);
	SPI_finish();
	PG_RETURN_VOID();
}

/* dfx_drop_training_run(run bigint) -> void: all its rows; the model stays. */
Datum
dfx_drop_training_run(PG_FUNCTION_ARGS)
{
	DfxTrainRun run = {.id = call_run_arg(fcinfo),.context = CurrentMemoryContext};
	char	   *state;

	PreventCommandIfReadOnly("dfx_drop_training_run()");
	PreventCommandIfParallelMode("dfx_drop_training_run()");
	dfx_train_run_load(&run, &state);
	if (dfx_train_live_is(run.id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a session is busy with training run " INT64_FORMAT, run.id)));
	dfx_train_run_drop(run.id);
	PG_RETURN_VOID();
}
