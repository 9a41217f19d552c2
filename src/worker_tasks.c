/*
 * The tasks of a worker's visit: deferred finalizations, the boot sweep, the
 * sweep of silent runs, retention.
 */
#include "postgres.h"

#include "ai_chat_run.h"
#include "commit_news.h"
#include "miscadmin.h"
#include "run_batch.h"
#include "runner_row.h"
#include "runners.h"
#include "settings.h"
#include "shared_state.h"
#include "tracking.h"
#include "utils/builtins.h"
#include "worker.h"

/* No transaction begins before the opening is noted by more than this. */
#define NOTED_LATE_MS	10000

/* Retention looks at every run, so it is done at most this often. */
#define PURGE_INTERVAL_MAX_MS	(60 * 60 * 1000)

/* A runner that comes back after a longer time is a new one. */
#define RUNNER_KEPT_MS		(INT64CONST(7) * 24 * 60 * 60 * 1000)

/* ---- deferred finalizations ---- */

static void
settle_body(void *arg)
{
	AcrWork    *work = arg;
	int64		before = work->tally.settled;

	work->found = acr_deferral_settle_due(&work->from, &work->tally);
	work->done_in_step = work->tally.settled - before;
}

static void
settle_deferred(AcrWork *work)
{
	bool		complete;

	do
	{
		complete = acr_work_step(work, settle_body);
	} while (complete && work->found);

	if (work->tally.settled > 0)
		ereport(LOG,
				(errmsg("database \"%s\": %lld deferred finalization(s) applied",
						work->database, (long long) work->tally.settled)));
	if (!complete)
		return;
	if (work->tally.failed > 0)
		acr_work_task_failed(work, work->tally.failure);

	/* What is left, and when its time comes, is looked up at the end. */
	acr_work_task_put_off(work, DT_NOEND);
}

/* ---- sweeps ---- */

static void
sweep_body(void *arg)
{
	AcrWork    *work = arg;
	int64		n = acr_sweep_step(&work->filter, work->error_text,
								   acr_sweep_batch_size, &work->cursor);

	acr_count_at_commit(work->counter, n);
	work->done_in_step = n;
}

/* Sweeps to the end; false if it ended early. */
static bool
sweep(AcrWork *work, AcrCounter counter, const char *error_text)
{
	work->counter = counter;
	work->error_text = error_text;
	work->done = 0;
	memset(&work->cursor, 0, sizeof(work->cursor));
	do
	{
		if (!acr_work_step(work, sweep_body))
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
choose_boot_filter(AcrWork *work)
{
	AcrSweepFilter *filter = &work->filter;

	/*
	 * A standby may have started long before it was promoted; then the time
	 * when it was seen open says more, less what may have passed before that
	 * was noted.
	 */
	TimestampTz noted_late = TimestampTzPlusMilliseconds(acr_shared_open_time(),
														 -NOTED_LATE_MS);

	memset(filter, 0, sizeof(*filter));
	filter->at_boot = true;
	filter->keep = acr_boot_sweep == ACR_BOOT_SWEEP_GRACE ?
		acr_sweep_keep_if_alive : NULL;

	/*
	 * A database that was made since server start, from a template, is not
	 * judged by time: what was copied into it may bear any.
	 */
	filter->created_before = work->visit.present_at_start ?
		Max(acr_shared_start_time(), noted_late) : DT_NOBEGIN;
	filter->silent_since = acr_boot_sweep == ACR_BOOT_SWEEP_GRACE ?
		acr_shared_open_time() : DT_NOEND;
}

static void
boot_sweep_left_body(void *arg)
{
	AcrWork    *work = arg;

	work->found = acr_table_boot_sweep_left(&work->filter);
}

/*
 * The boot sweep.  A run whose row a client has locked is left for the next
 * visit, and the sweep is not done before.
 */
static void
boot_sweep(AcrWork *work)
{
	int64		wait_ms = grace_left();
	bool		complete;

	if (wait_ms > 0)
	{
		acr_work_task_done(work, acr_work_in_ms(wait_ms));
		return;
	}
	if (acr_boot_sweep == ACR_BOOT_SWEEP_OFF)
	{
		acr_work_task_done(work, DT_NOEND);
		return;
	}

	choose_boot_filter(work);
	complete = sweep(work, ACR_SWEPT_AT_BOOT, ACR_SWEPT_AT_BOOT_TEXT);
	work->visit.boot_runs = work->done;
	if (work->done > 0)
		ereport(LOG,
				(errmsg("boot sweep of database \"%s\": %lld dangling agent run(s) aborted",
						work->database, (long long) work->done)));

	if (!complete || !acr_work_step(work, boot_sweep_left_body))
		return;
	if (work->found)
		acr_work_task_blocked(work);
	else
		acr_work_task_done(work, DT_NOEND);
}

/*
 * Compares what shared memory tracks with the rows, where nobody has for long.
 */
static void
check_tracked_body(void *arg)
{
	AcrWork    *work = arg;

	work->found = acr_track_check_some(work->task_begun) > 0;
}

static bool
check_tracked(AcrWork *work)
{
	work->task_begun = GetCurrentTimestamp();
	do
	{
		if (!acr_work_step(work, check_tracked_body))
			return false;
	} while (work->found);
	return true;
}

static void
sweep_silent(AcrWork *work)
{
	TimestampTz since;

	if (!check_tracked(work))
		return;

	/* Only now: a step may reload the settings, and this may have been off. */
	since = acr_work_in_ms(-(int64) acr_stale_after);
	if (acr_stale_after > 0 && acr_sweep_silent_since(since, &work->filter))
	{
		bool		complete;

		work->filter.keep = acr_sweep_keep_if_alive;
		complete = sweep(work, ACR_SWEPT_STALE, ACR_SWEPT_STALE_TEXT);
		if (work->done > 0)
			ereport(LOG,
					(errmsg("database \"%s\": %lld silent agent run(s) aborted",
							work->database, (long long) work->done)));
		if (!complete)
			return;
	}
	acr_work_task_done(work, DT_NOEND);
}

/* ---- departed runners ---- */

static void
reaped_body(void *arg)
{
	AcrWork    *work = arg;

	(void) acr_sweep_defer_locked(work->filter.runner, ACR_REAPED_TEXT,
								  &work->found);
	acr_table_see_runner(work->filter.runner);
}

/*
 * Those that were there before server start have as much time to come back from
 * then on.
 */
static void
forget_runners_body(void *arg)
{
	TimestampTz before = acr_work_in_ms(-RUNNER_KEPT_MS);

	if (acr_shared_open_time() < before)
		acr_table_forget_runners(acr_runners_list(), before);
}

/*
 * Aborts the runs of one departed runner; those that clients have locked as soon
 * as they are free.  Returns false if that is not decided for all of them: it
 * failed, or somebody may be deciding otherwise.
 */
static bool
reap_runner(AcrWork *work, const char *runner)
{
	bool		complete;

	memset(&work->filter, 0, sizeof(work->filter));
	work->filter.silent_since = DT_NOEND;
	work->filter.runner = cstring_to_text(runner);
	complete = sweep(work, ACR_SWEPT_DEPARTED, ACR_REAPED_TEXT);
	if (work->done > 0)
		ereport(LOG,
				(errmsg("database \"%s\": %lld agent run(s) of departed runner \"%s\" aborted",
						work->database, (long long) work->done, runner)));
	if (!complete || !acr_work_step(work, reaped_body))
		return false;
	if (!work->found)
		acr_work_task_blocked(work);
	return work->found;
}

/* One after the other; who comes back meanwhile waits for his turn to end. */
static void
reap_departed(AcrWork *work)
{
	TimestampTz now = GetCurrentTimestamp();
	char	  **names;
	int			n = acr_runners_list_due(now, &names);
	bool		all_done = true;

	for (int i = 0; i < n && !work->leave; i++)
	{
		bool		done;

		if (!acr_runners_begin_reaping(names[i], now))
			continue;
		done = reap_runner(work, names[i]);
		acr_runners_end_reaping(done);
		all_done &= done;
	}

	if (all_done && !work->leave && acr_work_step(work, forget_runners_body))
		acr_work_task_done(work, acr_runners_next_departure(MyDatabaseId));
}

/* ---- retention ---- */

static void
purge_body(void *arg)
{
	AcrWork    *work = arg;

	work->done_in_step = acr_purge_step(work->purge_before, acr_sweep_batch_size,
										&work->cursor);
}

static void
purge_old(AcrWork *work)
{
	int64		retention_ms = (int64) acr_retention * 1000;

	if (acr_retention == 0)
	{
		acr_work_task_done(work, DT_NOEND);
		return;
	}

	work->purge_before = acr_work_in_ms(-retention_ms);
	work->done = 0;
	memset(&work->cursor, 0, sizeof(work->cursor));
	do
	{
		if (!acr_work_step(work, purge_body))
			return;
	} while (work->cursor.more);

	if (work->done > 0)
		ereport(LOG,
				(errmsg("database \"%s\": %lld old agent run(s) deleted",
						work->database, (long long) work->done)));
	acr_work_task_done(work, acr_work_in_ms(Min(Max(retention_ms / 10, acr_reconcile_interval),
												PURGE_INTERVAL_MAX_MS)));
}

/* Does the current task. */
void
acr_work_do_task(AcrWork *work)
{
	switch (work->task)
	{
		case ACR_TASK_SETTLE:
			settle_deferred(work);
			break;
		case ACR_TASK_BOOT_SWEEP:
			boot_sweep(work);
			break;
		case ACR_TASK_REAP:
			reap_departed(work);
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
