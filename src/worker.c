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

#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "databases.h"
#include "launcher.h"
#include "live_runs.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "prepared.h"
#include "run_batch.h"
#include "runners.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "worker.h"

static const char *const task_names[ACR_N_TASKS] = {
	[ACR_TASK_SETTLE] = "applying deferred finalizations",
	[ACR_TASK_BOOT_SWEEP] = "boot sweep",
	[ACR_TASK_REAP] = "aborting runs of departed runners",
	[ACR_TASK_SWEEP_SILENT] = "sweep of silent runs",
	[ACR_TASK_PURGE] = "retention",
};

static AcrTask *
current_task(AcrWork *work)
{
	return &work->visit.tasks[work->task];
}

/* The current task is due again then, or never; earlier failures count on. */
void
acr_work_task_put_off(AcrWork *work, TimestampTz next_due)
{
	current_task(work)->due = next_due;
}

/* The current task is done for now, and due again then, or never. */
void
acr_work_task_done(AcrWork *work, TimestampTz next_due)
{
	acr_work_task_put_off(work, next_due);
	current_task(work)->failures = 0;
}

/*
 * The current task left out what clients have locked: again after a pause that
 * grows, but that is nothing to complain of.
 */
void
acr_work_task_blocked(AcrWork *work)
{
	(void) acr_task_book_failure(current_task(work));
}

TimestampTz
acr_work_in_ms(int64 ms)
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
	AcrWork    *work = arg;
	Oid			owner;

	work->visit.has_extension = acr_table_exists(&owner);
	work->leave = !work->visit.has_extension || database_is_wanted();
}

static void
look_around(AcrWork *work)
{
	ErrorData  *failure;

	failure = acr_unit_run("ai_chat_run: looking around", look_around_body, work);
	if (failure != NULL)
		ReThrowError(failure);
}

/*
 * The current task failed: a WARNING, a pause, and the reason for the registry.
 * A failure during the pause, which can only be one of another row, stays out
 * of the log.  If the extension was dropped under our feet, that was no failure.
 */
void
acr_work_task_failed(AcrWork *work, const ErrorData *failure)
{
	AcrTask    *task = current_task(work);

	/* An ALTER TABLE has the table; only the boot sweep cannot wait for long. */
	if (failure->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE &&
		work->task != ACR_TASK_BOOT_SWEEP)
	{
		acr_work_task_blocked(work);
		return;
	}

	look_around(work);
	if (!work->visit.has_extension)
		return;

	work->visit.error = failure->message;
	if (!acr_task_book_failure(task))
		return;
	ereport(WARNING,
			(errcode(failure->sqlerrcode),
			 errmsg("%s of database \"%s\" failed: %s",
					task_names[work->task], work->database, failure->message),
			 failure->detail ? errdetail_internal("%s", failure->detail) : 0,
			 errhint("It is tried again in %d s.", acr_task_pause(task))));
}

/* What pg_stat_activity shows: the task, and how far it is. */
static char *
describe_activity(const AcrWork *work)
{
	if (work->done == 0)
		return psprintf("ai_chat_run: %s", task_names[work->task]);
	return psprintf("ai_chat_run: %s, %lld run(s) so far",
					task_names[work->task], (long long) work->done);
}

/*
 * Runs a step of the current task.  Returns false if the task ends here: the
 * step failed, which is booked, or we have to leave.
 */
bool
acr_work_step(AcrWork *work, AcrUnitBody body)
{
	char	   *activity = describe_activity(work);
	AcrSettleTally tally = work->tally; /* what was committed so far */
	ErrorData  *failure;

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}

	work->done_in_step = 0;
	failure = acr_unit_run(activity, body, work);
	pfree(activity);
	if (failure != NULL)
	{
		work->tally = tally;
		acr_work_task_failed(work, failure);
		return false;
	}
	work->done += work->done_in_step;
	look_around(work);
	return !work->leave;
}

static void
what_is_left_body(void *arg)
{
	AcrWork    *work = arg;

	if (acr_prepared_doubtful() && !acr_table_any_old_prepared())
		acr_prepared_none_is_old();
	work->any_active = acr_table_any(ACR_SQL_ANY_ACTIVE);
	work->any_deferred = acr_table_next_deferred(&work->next_deferred);
}

/* Decides when to come for what is left. */
static void
plan_next_visit(AcrWork *work)
{
	AcrTask    *settle = &work->visit.tasks[ACR_TASK_SETTLE];
	AcrTask    *silent = &work->visit.tasks[ACR_TASK_SWEEP_SILENT];
	AcrTask    *reap = &work->visit.tasks[ACR_TASK_REAP];

	/* If that cannot be found out, we come again as if something were. */
	work->any_active = work->any_deferred = true;
	work->next_deferred = DT_NOBEGIN;
	work->task = ACR_TASK_SWEEP_SILENT;
	work->done = 0;
	(void) acr_work_step(work, what_is_left_body);
	if (work->leave)
		return;

	if (work->any_active)
		silent->due = Min(silent->due, acr_work_in_ms(acr_reconcile_interval));
	if (work->any_deferred)
		settle->due = Min(settle->due,
						  Max(acr_work_in_ms(ACR_BLOCKED_RETRY_MS), work->next_deferred));
	else
		settle->failures = 0;

	/* Of a departure that was told since the launcher looked, only we know. */
	reap->due = Min(reap->due, Max(acr_runners_next_departure(MyDatabaseId),
								   reap->quiet_until));
}

static void
do_due_tasks(AcrWork *work)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < ACR_N_TASKS && !work->leave; i++)
	{
		work->task = i;
		work->done = 0;
		if (current_task(work)->due <= now ||
			(i == ACR_TASK_SETTLE && (work->visit.news & ACR_NEWS_DEFERRED) != 0))
			acr_work_do_task(work);
	}
	if (!work->leave)
		plan_next_visit(work);
}

/*
 * Without the extension nothing is due, not even later: runs of a table that
 * is made from now on are younger than this start, and will be told of.  What is
 * known of runs and runners is of tables that are gone.  A database that is
 * wanted is left alone for a while.
 */
static void
leave_early(AcrWork *work)
{
	if (work->visit.has_extension)
		acr_databases_raise_quietly(work->visit.news);
	else
	{
		acr_live_forget_database(MyDatabaseId);
		acr_runners_forget_database(MyDatabaseId);
	}
	for (int i = 0; i < ACR_N_TASKS; i++)
	{
		AcrTask    *task = &work->visit.tasks[i];

		if (!work->visit.has_extension)
			task->due = DT_NOEND;
		else
			task->due = Max(task->due, acr_work_in_ms(ACR_BLOCKED_RETRY_MS));
	}
}

static void
name_database_body(void *arg)
{
	AcrWork    *work = arg;

	work->database = MemoryContextStrdup(TopMemoryContext,
										 get_database_name(MyDatabaseId));
}

void
acr_worker_main(Datum main_arg)
{
	AcrVisitClaim claim;
	AcrWork		work = {.tally = {.context = TopMemoryContext}};
	ErrorData  *failure;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	memcpy(&claim, MyBgworkerEntry->bgw_extra, sizeof(claim));
	if (!acr_visits_begin(&claim, &work.visit))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(claim.dboid, InvalidOid, 0);
	acr_unit_pin_session("ai_chat_run worker");

	failure = acr_unit_run("ai_chat_run: looking around", name_database_body, &work);
	if (failure != NULL)
		ReThrowError(failure);
	look_around(&work);

	if (!work.leave)
		do_due_tasks(&work);
	if (work.leave)
		leave_early(&work);
	acr_visits_end(&work.visit);
}
