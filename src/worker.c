/*
 * The worker: one visit to one database.
 *
 * In this order, as far as they are due: apply what was deferred; the boot
 * sweep; the sweep of silent runs; retention.  At the end the worker looks what
 * is left, and so decides when each task is due again.  Each step is a
 * transaction of its own.  A task that fails is reported with one WARNING and
 * tried again after a pause that grows; the other tasks are done all the same.
 *
 * The visit ends early when somebody wants the database for himself.  DROP
 * DATABASE and CREATE DATABASE ... TEMPLATE lock it first and then wait a few
 * seconds for other sessions to leave; we look for that lock between steps.
 */
#include "postgres.h"

#include "access/xact.h"
#include "ai_chat_run.h"
#include "arguments.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "counters.h"
#include "databases.h"
#include "deferral.h"
#include "launcher.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "shared_state.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "sweep.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "worker_unit.h"

/*
 * A deferred finalization whose row is locked is tried again this soon, so
 * that it is written within a second of the lock's release.
 */
#define BLOCKED_RETRY_MS	400

/* Retention looks at every run, so it is done at most this often. */
#define PURGE_INTERVAL_MAX_MS	(60 * 60 * 1000)

typedef struct Work
{
	AcrVisit	visit;
	char	   *database;
	bool		leave;			/* extension gone, or database wanted */

	/* the current task, and state of its steps */
	AcrTaskId	task;
	AcrRunKey	after;
	AcrSettleTally tally;
	AcrSweepFilter filter;
	const char *error_text;
	AcrCursor	cursor;
	TimestampTz purge_before;
	int64		done;
	bool		found;

	/* what is left */
	bool		any_active;
	bool		any_deferred;
	bool		any_prepared;
} Work;

static const char *const task_names[ACR_N_TASKS] = {
	[ACR_TASK_SETTLE] = "applying deferred finalizations",
	[ACR_TASK_BOOT_SWEEP] = "boot sweep",
	[ACR_TASK_SWEEP_SILENT] = "sweep of silent runs",
	[ACR_TASK_PURGE] = "retention",
};

/* ---- tasks ---- */

static AcrTask *
current_task(Work *work)
{
	return &work->visit.tasks[work->task];
}

/* The current task is done for now, and due again then, or never. */
static void
task_done(Work *work, TimestampTz next_due)
{
	current_task(work)->failures = 0;
	current_task(work)->due = next_due;
}

static TimestampTz
in_ms(int64 ms)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

/* Does somebody hold or want a lock on the whole database? */
static bool
database_is_wanted(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, MyDatabaseId, 0);
	if (LockAcquire(&tag, RowExclusiveLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, RowExclusiveLock, false);
	return false;
}

static void
look_around_body(void *arg)
{
	Work	   *work = arg;
	Oid			owner;

	work->visit.has_extension = acr_table_exists(&owner);
	work->leave = !work->visit.has_extension || database_is_wanted();
}

static void
look_around(Work *work)
{
	ErrorData  *failure;

	failure = acr_unit_run("ai_chat_run: looking around", look_around_body, work);
	if (failure != NULL)
		ReThrowError(failure);
}

/*
 * The current task failed: one WARNING, a pause, and the reason for the
 * registry.  If the extension was dropped under our feet, that was no failure.
 */
static void
task_failed(Work *work, const ErrorData *failure)
{
	AcrTask    *task = current_task(work);

	look_around(work);
	if (!work->visit.has_extension)
		return;

	acr_task_book_failure(task);
	work->visit.error = failure->message;
	ereport(WARNING,
			(errcode(failure->sqlerrcode),
			 errmsg("%s of database \"%s\" failed: %s",
					task_names[work->task], work->database, failure->message),
			 failure->detail ? errdetail_internal("%s", failure->detail) : 0,
			 errhint("It is tried again in %d s.", acr_task_pause(task))));
}

/*
 * Runs a step of the current task.  Returns false if the task ends here: the
 * step failed, which is booked, or we have to leave.
 */
static bool
step(Work *work, AcrUnitBody body)
{
	char	   *activity = psprintf("ai_chat_run: %s", task_names[work->task]);
	ErrorData  *failure;

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}

	failure = acr_unit_run(activity, body, work);
	pfree(activity);
	if (failure != NULL)
	{
		task_failed(work, failure);
		return false;
	}
	look_around(work);
	return !work->leave;
}

/* ---- deferred finalizations ---- */

static void
settle_body(void *arg)
{
	Work	   *work = arg;

	work->found = acr_deferral_settle_some(&work->after, NULL, &work->tally) > 0;
}

static void
settle_deferred(Work *work)
{
	bool		complete;

	do
	{
		complete = step(work, settle_body);
	} while (complete && work->found);

	if (work->tally.settled > 0)
		ereport(LOG,
				(errmsg("database \"%s\": %lld deferred finalization(s) applied",
						work->database, (long long) work->tally.settled)));
	if (!complete)
		return;
	if (work->tally.failed > 0)
		task_failed(work, work->tally.failure);
	else
		task_done(work, DT_NOEND);
}

/* ---- sweeps ---- */

static void
sweep_body(void *arg)
{
	Work	   *work = arg;
	int64		n = acr_sweep_step(&work->filter, work->error_text,
								   acr_sweep_batch_size, &work->cursor);

	acr_count_at_commit(work->filter.at_boot ? ACR_SWEPT_AT_BOOT :
						ACR_SWEPT_STALE, n);
	work->done += n;
}

/* Sweeps to the end; false if it ended early. */
static bool
sweep(Work *work, const char *error_text)
{
	work->error_text = error_text;
	work->done = 0;
	memset(&work->cursor, 0, sizeof(work->cursor));
	do
	{
		if (!step(work, sweep_body))
			return false;
	} while (work->cursor.more);
	return true;
}

/* How long to wait still for runners to call, in ms. */
static int64
grace_left(void)
{
	TimestampTz until;

	if (acr_boot_sweep != ACR_BOOT_SWEEP_GRACE)
		return 0;
	until = TimestampTzPlusMilliseconds(acr_shared_open_time(), acr_boot_grace);
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
}

static void
choose_boot_filter(Work *work)
{
	AcrSweepFilter *filter = &work->filter;

	memset(filter, 0, sizeof(*filter));
	filter->at_boot = true;

	/*
	 * A database that was made since server start, from a template, is not
	 * judged by time: what was copied into it may bear any.
	 */
	filter->created_before = work->visit.present_at_start ?
		acr_shared_start_time() : DT_NOBEGIN;
	filter->silent_since = acr_boot_sweep == ACR_BOOT_SWEEP_GRACE ?
		acr_shared_open_time() : DT_NOEND;
}

static void
boot_sweep_left_body(void *arg)
{
	Work	   *work = arg;

	work->found = acr_table_boot_sweep_left(&work->filter);
}

/*
 * The boot sweep.  A run whose row a client has locked is left for the next
 * visit, and the sweep is not done before.
 */
static void
boot_sweep(Work *work)
{
	int64		wait_ms = grace_left();
	bool		complete;

	if (wait_ms > 0)
	{
		task_done(work, in_ms(wait_ms));
		return;
	}
	if (acr_boot_sweep == ACR_BOOT_SWEEP_OFF)
	{
		task_done(work, DT_NOEND);
		return;
	}

	choose_boot_filter(work);
	complete = sweep(work, ACR_SWEPT_AT_BOOT_TEXT);
	work->visit.boot_runs = work->done;
	if (work->done > 0)
		ereport(LOG,
				(errmsg("boot sweep of database \"%s\": %lld dangling agent run(s) aborted",
						work->database, (long long) work->done)));

	if (complete && step(work, boot_sweep_left_body))
		task_done(work, work->found ? in_ms(BLOCKED_RETRY_MS) : DT_NOEND);
}

static void
sweep_silent(Work *work)
{
	TimestampTz since = in_ms(-(int64) acr_stale_after);

	if (acr_stale_after > 0 && acr_sweep_silent_since(since, &work->filter))
	{
		bool		complete = sweep(work, ACR_SWEPT_STALE_TEXT);

		if (work->done > 0)
			ereport(LOG,
					(errmsg("database \"%s\": %lld silent agent run(s) aborted",
							work->database, (long long) work->done)));
		if (!complete)
			return;
	}
	task_done(work, DT_NOEND);
}

/* ---- retention ---- */

static void
purge_body(void *arg)
{
	Work	   *work = arg;

	work->done += acr_purge_step(work->purge_before, acr_sweep_batch_size,
								 &work->cursor);
}

static void
purge_old(Work *work)
{
	int64		retention_ms = (int64) acr_retention * 1000;

	if (acr_retention == 0)
	{
		task_done(work, DT_NOEND);
		return;
	}

	work->purge_before = in_ms(-retention_ms);
	work->done = 0;
	memset(&work->cursor, 0, sizeof(work->cursor));
	do
	{
		if (!step(work, purge_body))
			return;
	} while (work->cursor.more);

	if (work->done > 0)
		ereport(LOG,
				(errmsg("database \"%s\": %lld old agent run(s) deleted",
						work->database, (long long) work->done)));
	task_done(work, in_ms(Min(Max(retention_ms / 10, acr_reconcile_interval),
							  PURGE_INTERVAL_MAX_MS)));
}

/* ---- the visit ---- */

static void
what_is_left_body(void *arg)
{
	Work	   *work = arg;

	work->any_active = acr_table_any(ACR_SQL_ANY_ACTIVE);
	work->any_deferred = acr_table_any(ACR_SQL_ANY_DEFERRED);
	work->any_prepared = (work->visit.news & ACR_NEWS_PREPARED) != 0 &&
		acr_table_any(ACR_SQL_ANY_PREPARED_XACT);
}

/*
 * Decides when to come for what is left.  Of a prepared transaction we only
 * know that it may hold something; we come with growing pauses until it is
 * gone.
 */
static void
plan_next_visit(Work *work)
{
	AcrTask    *settle = &work->visit.tasks[ACR_TASK_SETTLE];
	AcrTask    *silent = &work->visit.tasks[ACR_TASK_SWEEP_SILENT];

	work->task = ACR_TASK_SWEEP_SILENT;
	if (!step(work, what_is_left_body))
		return;

	if (work->any_active && acr_stale_after > 0)
		silent->due = Min(silent->due, in_ms(acr_reconcile_interval));
	if (work->any_deferred && settle->failures == 0)
		settle->due = in_ms(BLOCKED_RETRY_MS);
	if (work->any_prepared)
	{
		acr_databases_raise_quietly(ACR_NEWS_PREPARED);
		acr_task_book_failure(settle);
	}
}

static void
do_task(Work *work)
{
	switch (work->task)
	{
		case ACR_TASK_SETTLE:
			settle_deferred(work);
			break;
		case ACR_TASK_BOOT_SWEEP:
			boot_sweep(work);
			break;
		case ACR_TASK_SWEEP_SILENT:
			sweep_silent(work);
			break;
		case ACR_TASK_PURGE:
			purge_old(work);
			break;
		case ACR_N_TASKS:
			break;
	}
}

static void
do_due_tasks(Work *work)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < ACR_N_TASKS && !work->leave; i++)
	{
		work->task = i;
		if (current_task(work)->due <= now ||
			(i == ACR_TASK_SETTLE && (work->visit.news & ACR_NEWS_DEFERRED) != 0))
			do_task(work);
	}
	if (!work->leave)
		plan_next_visit(work);
}

/*
 * Without the extension nothing is due, not even later: runs of a table that
 * is made from now on are younger than this start.  A database that is wanted
 * is left alone for a while.
 */
static void
leave_early(Work *work)
{
	for (int i = 0; i < ACR_N_TASKS; i++)
	{
		AcrTask    *task = &work->visit.tasks[i];

		if (!work->visit.has_extension)
			task->due = DT_NOEND;
		else
			task->due = Max(task->due, in_ms(BLOCKED_RETRY_MS));
	}
}

static void
name_database_body(void *arg)
{
	Work	   *work = arg;

	work->database = MemoryContextStrdup(TopMemoryContext,
										 get_database_name(MyDatabaseId));
}

void
acr_worker_main(Datum main_arg)
{
	Oid			dboid = DatumGetObjectId(main_arg);
	Work		work = {0};
	ErrorData  *failure;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	acr_databases_visit_begin(dboid, &work.visit);
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	acr_unit_pin_session("ai_chat_run worker");

	failure = acr_unit_run("ai_chat_run: looking around", name_database_body, &work);
	if (failure != NULL)
		ReThrowError(failure);
	look_around(&work);

	if (!work.leave)
		do_due_tasks(&work);
	if (work.leave)
		leave_early(&work);
	acr_databases_visit_end(&work.visit);
}
