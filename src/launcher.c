/*
 * The launcher: a background worker without a database that sends short-lived
 * workers to the databases where there is work.
 *
 * It learns of work from the registry (databases.c): every database is visited
 * once after server start, and again when its sessions or the last worker have
 * said so.  A server on which nothing happens sees no worker.  The list of
 * databases is read from pg_database, which is shared and needs no connection,
 * so that nobody is in the way of DROP DATABASE and CREATE DATABASE.
 *
 * On a standby the launcher is started at promotion, since it is registered
 * for the time when recovery has finished.  After a crash of any backend it is
 * started anew with everything else, and finds the registry empty: that is a
 * server start, too.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "ai_chat_run.h"
#include "catalog/pg_database.h"
#include "compat.h"
#include "databases.h"
#include "launcher.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "shared_state.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "visits.h"

/* Several, so that one slow database does not hold up the others. */
#define MAX_WORKERS			4

/* How often new databases are looked for. */
#define SCAN_INTERVAL_MS	10000

#define RESTART_AFTER_S		1

typedef struct RunningWorker
{
	BackgroundWorkerHandle *handle; /* NULL: a free place */
	AcrVisitClaim claim;
} RunningWorker;

static RunningWorker workers[MAX_WORKERS];

/* Pauses after the server had no place for a worker: 1, 2, 4 ... 60 seconds. */
static int	refusals = 0;
static TimestampTz refused_until = DT_NOBEGIN;

static void
see_database(Form_pg_database database, bool first_scan)
{
	bool		connectable = database->datallowconn &&
		!database_is_invalid_form(database);

	if (!acr_databases_see(database->oid, connectable, first_scan) && first_scan)
		ereport(WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s cannot look after database \"%s\"",
						ACR_EXTENSION, NameStr(database->datname)),
				 errdetail("It looks after at most %d databases.",
						   ACR_MAX_DATABASES)));
}

/* Brings the registry up to date with pg_database. */
static void
scan_databases(void)
{
	bool		first_scan = acr_databases_begin_scan();
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());

	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
		see_database((Form_pg_database) GETSTRUCT(tuple), first_scan);
	table_endscan(scan);
	table_close(rel, AccessShareLock);

	PopActiveSnapshot();
	CommitTransactionCommand();

	acr_databases_end_scan();
}

static RunningWorker *
free_place(void)
{
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		if (workers[i].handle == NULL)
			return &workers[i];
	}
	return NULL;
}

/* Takes back the places of workers that have ended. */
static void
reap_workers(void)
{
	for (int i = 0; i < MAX_WORKERS; i++)
	{
		pid_t		pid;

		if (workers[i].handle == NULL ||
			GetBackgroundWorkerPid(workers[i].handle, &pid) != BGWH_STOPPED)
			continue;
		acr_visits_lost(&workers[i].claim);
		pfree(workers[i].handle);
		workers[i].handle = NULL;
	}
}

/* Asks the postmaster for a worker; false if there is no place for one. */
static bool
start_worker(RunningWorker *place, const AcrVisitClaim *claim)
{
	BackgroundWorker worker = {0};

	snprintf(worker.bgw_name, BGW_MAXLEN, "ai_chat_run worker for database %u",
			 claim->dboid);
	strlcpy(worker.bgw_type, "ai_chat_run worker", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, ACR_EXTENSION, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "acr_worker_main",
			sizeof(worker.bgw_function_name));
	memcpy(worker.bgw_extra, claim, sizeof(*claim));
	worker.bgw_notify_pid = MyProcPid;

	place->claim = *claim;
	return RegisterDynamicBackgroundWorker(&worker, &place->handle);
}

/* The server has no place for a worker: says so, and tries again later. */
static void
book_refusal(TimestampTz now)
{
	int			pause_s = Min(1 << Min(refusals, 6), 60);

	refusals++;
	refused_until = TimestampTzPlusMilliseconds(now, pause_s * 1000L);
	ereport(WARNING,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("%s could not start a background worker", ACR_EXTENSION),
			 errdetail("All places for background workers are taken.  It is tried again in %d s.",
					   pause_s),
			 errhint("Consider increasing the configuration parameter \"max_worker_processes\".")));
}

/*
 * Starts workers where they are due, as far as there are places.  Returns when
 * to look again at the latest.
 */
static TimestampTz
start_due_workers(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz periodic_due;
	TimestampTz next_due = DT_NOEND;
	RunningWorker *place;

	if (now < refused_until)
		return refused_until;

	periodic_due = TimestampTzPlusMilliseconds(now, acr_reconcile_interval);
	while ((place = free_place()) != NULL)
	{
		AcrVisitClaim claim = acr_visits_claim_due(now, periodic_due, &next_due);

		if (!OidIsValid(claim.dboid))
			break;
		if (!start_worker(place, &claim))
		{
			acr_visits_unclaim(&claim);
			book_refusal(now);
			return refused_until;
		}
		refusals = 0;
	}
	return next_due;
}

static void
wait_until(TimestampTz until)
{
	static uint32 wait_event = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AiChatRunLauncherMain");

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 TimestampDifferenceMilliseconds(now, until), wait_event);
	ResetLatch(MyLatch);
}

void
acr_launcher_main(Datum main_arg)
{
	TimestampTz scan_due = DT_NOBEGIN;
	TimestampTz last = DT_NOBEGIN;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	acr_shared_note_start();
	acr_shared_become_launcher();
	acr_visits_forget_claims();

	for (;;)
	{
		TimestampTz now;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			acr_visits_reconsider();
		}

		now = GetCurrentTimestamp();
		if (now < last)
		{
			/* The clock was set back; all that is due later is void. */
			scan_due = refused_until = DT_NOBEGIN;
			acr_visits_reconsider();
		}
		last = now;
		if (now >= scan_due)
		{
			scan_databases();
			scan_due = TimestampTzPlusMilliseconds(now, SCAN_INTERVAL_MS);
		}
		reap_workers();
		wait_until(Min(start_due_workers(), scan_due));
	}
}

/* Called while the library is being preloaded. */
void
acr_launcher_register(void)
{
	BackgroundWorker worker = {0};

	strlcpy(worker.bgw_name, "ai_chat_run launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "ai_chat_run launcher", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = RESTART_AFTER_S;
	strlcpy(worker.bgw_library_name, ACR_EXTENSION, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "acr_launcher_main",
			sizeof(worker.bgw_function_name));
	RegisterBackgroundWorker(&worker);
}
