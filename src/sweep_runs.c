/*
 * Sweeps and purges, step by step.
 *
 * One step settles, or deletes, a batch; the worker makes each step a
 * transaction, the SQL functions take all steps in the caller's.  Steps go
 * through the table in the order of a key, so that a later one does not wade
 * through what the earlier ones have done.
 */
#include "postgres.h"

#include "ai_chat_run.h"
#include "arguments.h"
#include "attempt.h"
#include "commit_news.h"
#include "databases.h"
#include "deferral.h"
#include "live_runs.h"
#include "miscadmin.h"
#include "run_state.h"
#include "runner_row.h"
#include "runners.h"
#include "settings.h"
#include "shared_state.h"
#include "sweep.h"
#include "utils/builtins.h"

/* How long to wait for whoever is recording a decision that we want to record. */
#define RIVAL_WAIT_MS	10

PG_FUNCTION_INFO_V1(acr_sweep_runs);
PG_FUNCTION_INFO_V1(acr_purge_runs);

/* Keeps a run whose runner has called since, as shared memory knows. */
bool
acr_sweep_keep_if_called(const AcrSweepFilter *filter,
						 const AcrSweepCandidate *run)
{
	AcrLiveLook look;

	if (!acr_shared_exists())
		return false;
	acr_live_look(&run->id, &look);
	if (look.heard_at == 0)
		return false;

	/* At boot, whenever that was: this memory begins with the server. */
	return filter->at_boot || look.heard_at >= filter->silent_since;
}

/*
 * The same for the background worker, which leaves a runner alone that is
 * attached, or may come back: if it does not, its runs are aborted for that.
 */
bool
acr_sweep_keep_if_alive(const AcrSweepFilter *filter,
						const AcrSweepCandidate *run)
{
	return (run->runner != NULL &&
			acr_runners_looks_after(run->runner, run->begun_at)) ||
		acr_sweep_keep_if_called(filter, run);
}

/*
 * A filter for runs that have been silent since the given time.  Silence is
 * counted from server start at the earliest, since before it nobody could
 * call.  Returns false if no run can have been silent that long.
 */
bool
acr_sweep_silent_since(TimestampTz since, AcrSweepFilter *filter)
{
	memset(filter, 0, sizeof(*filter));
	filter->keep = acr_sweep_keep_if_called;
	filter->silent_since = since;
	acr_shared_note_start();
	return acr_shared_open_time() < since;
}

static void
begin_step(AcrCursor *cursor)
{
	CHECK_FOR_INTERRUPTS();
	if (!cursor->begun)
	{
		memset(cursor, 0, sizeof(*cursor));
		cursor->begun = true;
	}
}

/* Aborts the next batch.  Afterwards cursor->more tells whether to go on. */
int64
acr_sweep_step(const AcrSweepFilter *filter, const char *error, int64 limit,
			   AcrCursor *cursor)
{
	begin_step(cursor);
	return acr_table_sweep_batch(filter, error, limit, cursor);
}

typedef struct Decision
{
	const AcrRunKey *key;
	const char *error;
	bool		ours;
} Decision;

static void
decide_body(void *arg)
{
	Decision   *decision = arg;

	decision->ours = acr_table_defer(decision->key, ACR_RUN_ABORTED,
									 cstring_to_text(decision->error),
									 "the row was locked when its runner was found gone");
}

/*
 * What a sweep of all runs of a runner has left is locked by clients.  Decides
 * here that they are aborted, to be written when they are free.  Returns how
 * many were decided on.
 *
 * Somebody may be about to record another decision.  We do not wait for his
 * commit, which may be long in coming; *all_decided tells whether there is such
 * a run.
 */
int64
acr_sweep_defer_locked(text *runner, const char *error, bool *all_decided)
{
	AcrRunKey  *keys;
	int			n = acr_table_active_of_runner(runner, &keys);
	int64		decided = 0;

	*all_decided = true;
	for (int i = 0; i < n; i++)
	{
		Decision	decision = {.key = &keys[i],.error = error};
		ErrorData  *failure = acr_attempt_within(decide_body, &decision, RIVAL_WAIT_MS);

		if (failure != NULL && failure->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ReThrowError(failure);
		*all_decided &= failure == NULL;
		if (failure == NULL && decision.ours)
			decided++;
	}
	if (decided > 0)
	{
		acr_count_at_commit(ACR_DEFERRED, decided);
		acr_news_at_commit(ACR_NEWS_DEFERRED);
	}
	return decided;
}

/* Deletes the next batch, likewise. */
int64
acr_purge_step(TimestampTz before, int64 limit, AcrCursor *cursor)
{
	begin_step(cursor);
	return acr_table_purge_batch(before, limit, &cursor->from, &cursor->more);
}

/* How many the next step may take, if max_runs are wanted in all. */
static int64
step_limit(int64 max_runs, int64 done)
{
	return Min(max_runs - done, acr_sweep_batch_size);
}

/* For whoever calls a long one by hand; of the last batch the result tells. */
static void
tell_progress(const char *what, int64 in_step, int64 done, bool more)
{
	if (in_step > 0 && more)
		ereport(INFO,
				(errmsg("%lld agent run(s) %s so far", (long long) done, what)));
}

/*
 * sweep_runs(stale_after interval default null, runner text default null,
 *			  max_runs bigint default null) returns bigint
 *
 * Aborts active runs: all, or those silent for stale_after, as the latest of
 * their rows, their last heartbeats and server start tells; or those of one
 * runner; at most max_runs.  Deferred finalizations are applied first, and a
 * run that has one is never aborted.  Rows that a client has locked are left
 * out.  Returns the number of runs made terminal; of a long sweep, an INFO after
 * each batch tells how many by now.
 *
 * Errors: 22023 for a negative argument, 25006 in a read-only transaction or on
 * a standby.
 */
Datum
acr_sweep_runs(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		only_silent = !PG_ARGISNULL(0);
	int64		max_runs = acr_optional_count(fcinfo, 2, "max_runs");
	AcrSweepFilter filter = {.silent_since = DT_NOEND};
	AcrSettleTally tally = {.context = CurrentMemoryContext};
	AcrCursor	cursor = {.more = true};
	int64		aborted = 0;

	if (only_silent &&
		!acr_sweep_silent_since(acr_require_age(fcinfo, 0, "stale_after", now),
								&filter))
		cursor.more = false;
	filter.runner = acr_optional_text(fcinfo, 1);
	PreventCommandIfReadOnly("sweep_runs()");

	acr_deferral_settle_all(NULL, max_runs, &tally);
	acr_deferral_report(&tally);
	while (cursor.more && tally.settled + aborted < max_runs)
	{
		int64		n = acr_sweep_step(&filter, only_silent ? ACR_SWEPT_STALE_TEXT :
									   ACR_SWEPT_BY_HAND_TEXT,
									   step_limit(max_runs, tally.settled + aborted),
									   &cursor);

		aborted += n;
		tell_progress("aborted", n, aborted,
					  cursor.more && tally.settled + aborted < max_runs);
	}

	acr_count_at_commit(ACR_SWEPT_STALE, aborted);
	PG_RETURN_INT64(tally.settled + aborted);
}

/*
 * purge_runs(older_than interval, max_runs bigint default null) returns bigint
 *
 * Deletes terminal runs that finished longer ago than that, at most max_runs;
 * never one that has a deferred finalization.  Rows that a client has locked
 * are left out.  Returns the number deleted, with INFOs likewise.
 *
 * Errors: 22004 for a null older_than, 22023 for a negative argument, 25006 in
 * a read-only transaction or on a standby.
 */
Datum
acr_purge_runs(PG_FUNCTION_ARGS)
{
	TimestampTz before = acr_require_age(fcinfo, 0, "older_than",
										 GetCurrentTimestamp());
	int64		max_runs = acr_optional_count(fcinfo, 1, "max_runs");
	AcrCursor	cursor = {.more = true};
	int64		deleted = 0;

	PreventCommandIfReadOnly("purge_runs()");
	while (cursor.more && deleted < max_runs)
	{
		int64		n = acr_purge_step(before, step_limit(max_runs, deleted), &cursor);

		deleted += n;
		tell_progress("deleted", n, deleted, cursor.more && deleted < max_runs);
	}
	PG_RETURN_INT64(deleted);
}
