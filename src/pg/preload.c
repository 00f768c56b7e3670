/*
 * preload.c
 *	  Loading the models of dfx.preload_models into each new engine.
 *
 * The supervisor never connects to a database.  When an engine is ready it
 * registers one dynamic background worker for each database in the list and
 * forgets them: they are ordinary clients of the ring, do their work and end.
 * What goes wrong there (no such database, no such model, no worker slot) is
 * logged and delays nothing.  They only read, so they work on a standby too.
 *
 * A model that kills the engine while it is loaded would be loaded into the
 * next one as well, and so on; so after engines that did not live for a minute
 * preloading waits, from 1 s up to a minute.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "pg/clock.h"
#include "pg/model.h"
#include "pg/preload.h"
#include "pg/settings.h"

#define PRELOAD_PAUSE_MIN_MS 1000
#define PRELOAD_PAUSE_MAX_MS 60000
#define PRELOAD_MAX_DATABASES 64

StaticAssertDecl(NAMEDATALEN <= BGW_EXTRALEN, "a worker is told its database's name");

static int64 preload_due;		/* when to start workers, by dfx_clock_ms(); 0: not now */
static int	preload_pause;		/* ms to wait when the next engine is ready */
static char *preload_seen;		/* the setting's value when workers were last scheduled */

/* ---- the list: db.model, ... ----
 *
 * Blanks around names do not count.  A database's name ends at the first dot,
 * a model's at a comma; names that this would not leave whole are written in
 * double quotes, which are doubled inside.
 */

typedef struct PreloadItem
{
	char		database[NAMEDATALEN];
	char		model[NAMEDATALEN];
} PreloadItem;

static const char *
preload_skip(const char *p)
{
	while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')
		p++;
	return p;
}

/* One name from p, which ends before any of the characters in stop; returns what follows it, or NULL. */
static const char *
preload_name(const char *p, const char *stop, char name[NAMEDATALEN])
{
	bool		quoted,
				open;
	int			n = 0,
				trimmed = 0;

	p = preload_skip(p);
	quoted = open = *p == '"';
	for (p += quoted; *p && (quoted || !strchr(stop, *p)); p++)
	{
		if (*p == '"' && (!quoted || *++p != '"'))
		{
			open = !quoted;		/* the closing one, or one where none may be */
			break;
		}
		if (n == NAMEDATALEN - 1)
			return NULL;
		name[n++] = *p;
		if (quoted || preload_skip(p) == p)
			trimmed = n;
	}
	if (open || trimmed == 0)
		return NULL;
	name[trimmed] = '\0';
	return preload_skip(p);
}

/* The item at *p, and *p after it; false at the end, and with *p NULL when there is no item but something else. */
static bool
preload_next(const char **p, PreloadItem *item)
{
	const char *s = preload_skip(*p);

	if (*s == '\0')
		return false;
	s = preload_name(s, ".,", item->database);
	s = s && *s == '.' ? preload_name(s + 1, ",", item->model) : NULL;
	if (s && *s == ',')
		s = *preload_skip(s + 1) != '\0' ? s + 1 : NULL;	/* no comma at the end */
	else if (s && *s != '\0')
		s = NULL;
	*p = s;
	return s != NULL;
}

bool
dfx_preload_check(char **newval, void **extra, GucSource source)
{
	const char *p = *newval;
	PreloadItem item;

	while (preload_next(&p, &item))
		;
	if (p)
		return true;
	GUC_check_errdetail("It is a list of models, each as \"database.model\", separated by commas;"
						" names with such characters in them stand in double quotes.");
	return false;
}

/* ---- the supervisor's part ---- */

static void
preload_schedule(int ms)
{
	preload_due = dfx_clock_ms() + ms;
	if (preload_seen)
		pfree(preload_seen);
	preload_seen = MemoryContextStrdup(TopMemoryContext, dfx_preload_models);
}

void
dfx_preload_engine_ready(void)
{
	preload_schedule(preload_pause);
}

void
dfx_preload_engine_died(bool healthy)
{
	preload_due = 0;
	if (healthy)
		preload_pause = 0;
	else
		preload_pause = Max(PRELOAD_PAUSE_MIN_MS, Min(2 * preload_pause, PRELOAD_PAUSE_MAX_MS));
}

/* Before the first engine nothing was seen, and what is in the list then is loaded when it is ready. */
void
dfx_preload_reload(void)
{
	if (preload_seen && strcmp(preload_seen, dfx_preload_models) != 0)
		preload_schedule(0);
}

static void
preload_start_worker(const char *database)
{
	BackgroundWorker worker = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_ConsistentState,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = "deepfeaturex",
		.bgw_function_name = "dfx_preload_main",
		.bgw_name = "deepfeaturex preload",
		.bgw_type = "deepfeaturex preload",
	};

	strlcpy(worker.bgw_extra, database, sizeof(worker.bgw_extra));
	if (!RegisterDynamicBackgroundWorker(&worker, NULL))
		ereport(LOG,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not start a worker to preload models of database \"%s\"", database),
				 errhint("Increase max_worker_processes.")));
}

void
dfx_preload_turn(void)
{
	const char *p = dfx_preload_models;
	PreloadItem item;
	char		database[PRELOAD_MAX_DATABASES][NAMEDATALEN];
	int			n = 0;

	if (preload_due == 0 || dfx_clock_ms() < preload_due)
		return;
	preload_due = 0;
	while (preload_next(&p, &item))
	{
		bool		known = false;

		for (int i = 0; i < n && !known; i++)
			known = strcmp(database[i], item.database) == 0;
		if (known)
			continue;
		if (n == PRELOAD_MAX_DATABASES)
		{
			ereport(LOG,
					(errmsg("dfx.preload_models names more than %d databases; the others are left out",
							PRELOAD_MAX_DATABASES)));
			break;
		}
		strlcpy(database[n++], item.database, NAMEDATALEN);
		preload_start_worker(item.database);
	}
}

/* ---- the workers' part ---- */

static void
preload_model(const PreloadItem *item)
{
	MemoryContext context = CurrentMemoryContext;
	DfxModelRef model;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, item->model);
	PG_TRY();
	{
		dfx_model_resolve(cstring_to_text(item->model), &model);
		dfx_model_load(&model);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		ereport(LOG,
				(errcode(error->sqlerrcode),
				 errmsg("could not preload model \"%s\" of database \"%s\": %s",
						item->model, item->database, error->message)));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* Load the models of one database, as the bootstrap superuser; a FATAL here is only this worker's end. */
void
dfx_preload_main(Datum arg)
{
	char		database[NAMEDATALEN];
	const char *p;
	char	   *list;
	PreloadItem item;

	strlcpy(database, MyBgworkerEntry->bgw_extra, sizeof(database));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(database, NULL, 0);
	list = MemoryContextStrdup(TopMemoryContext, dfx_preload_models);
	p = list;
	while (preload_next(&p, &item))
	{
		CHECK_FOR_INTERRUPTS();
		if (strcmp(item.database, database) == 0)
			preload_model(&item);
	}
	proc_exit(0);
}
