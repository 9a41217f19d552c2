/*
 * Deferred finalizations.
 *
 * finalize_run() records one when it cannot write the run's row; from then on
 * the status is decided.  Applying it is one conditional update of the run and
 * the removal of the record, in one transaction.  Lock order: first the run's
 * row, then the record.  Two that apply the same one meet at the run's row, and
 * the second finds the run terminal.
 *
 * A record may turn out moot: a finalizer that was still writing when it was
 * recorded has committed since, or the run was deleted.  Then the row has
 * spoken, and the record is forgotten.
 */
#include "postgres.h"

#include "arguments.h"
#include "attempt.h"
#include "commit_news.h"
#include "deferral.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(acr_settle_deferred);

typedef struct SettleRequest
{
	const AcrRunKey *key;
	bool		wait;
	AcrSettleOutcome outcome;
} SettleRequest;

/*
 * Makes the run terminal if nothing else was decided for it; true if it did.
 * The update leaves a decided run alone, but goes by its snapshot, which is
 * older than a record that was committed while the update waited for the row.
 * That decision came first, so we look again.  A look at the size of the table,
 * of which there is nothing as a rule, saves the look into it.
 *
 * To be called within an attempt: 40001 means that the update must go.
 */
bool
acr_deferral_finish_undecided(const AcrRunKey *key, const char *status,
							  text *error)
{
	if (!acr_table_finish(key, status, error))
		return false;
	if (!acr_table_deferred_is_blank() && acr_table_find_deferred(key) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent deferral")));
	return true;
}

/*
 * Nothing was applied.  Is that because the run is terminal or gone?  If not,
 * the decision must not be forgotten: our snapshot may be too old to see the
 * record or the run, or somebody's trigger swallowed the update.
 */
static void
require_moot(const AcrRunKey *key)
{
	AcrRun		run;

	if (!acr_table_find(key, &run) || run.is_terminal ||
		acr_table_find_deferred(key) == NULL)
		return;
	acr_table_raise_no_effect(&key->id);
}

/*
 * The body of an attempt to apply one.  With "wait" it waits for the run's row,
 * within the attempt's bound; otherwise it never waits behind a client's lock.
 */
static void
settle_body(void *arg)
{
	SettleRequest *request = arg;
	const AcrRunKey *key = request->key;

	request->outcome = ACR_SETTLE_MOOT;
	if (!request->wait && !acr_table_lock_now(key))
	{
		AcrRun		run;

		if (acr_table_find(key, &run) && !run.is_terminal)
		{
			request->outcome = ACR_SETTLE_BLOCKED;
			return;
		}
	}

	if (acr_table_apply_deferred(key))
		request->outcome = ACR_SETTLED;
	else
		require_moot(key);
	acr_table_forget_deferred(key);
}

/*
 * Applies the deferred finalization of a run, in a subtransaction.  *failure
 * is set with ACR_SETTLE_BLOCKED and ACR_SETTLE_FAILED, if an error was met.
 */
AcrSettleOutcome
acr_deferral_settle(const AcrRunKey *key, bool wait, ErrorData **failure)
{
	SettleRequest request = {.key = key,.wait = wait};

	*failure = acr_attempt(settle_body, &request);
	if (*failure != NULL)
		return (*failure)->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ?
			ACR_SETTLE_BLOCKED : ACR_SETTLE_FAILED;
	if (request.outcome == ACR_SETTLED)
		acr_count_at_commit(ACR_SETTLED_LATER, 1);
	return request.outcome;
}

/*
 * An active run was found in the way.  Returns true if it is so no more: what
 * was deferred for it is applied.  *failure as above.
 *
 * Another one may have applied it since the run was found.  Then there is no
 * record any more, and the run is to be asked again; but if there never was a
 * record there is no page of them.
 */
bool
acr_deferral_make_way(const AcrRunKey *key, bool wait, ErrorData **failure)
{
	AcrRun		run;

	*failure = NULL;
	if (acr_table_deferred_is_blank())
		return false;
	if (acr_table_find_deferred(key) == NULL)
		return !acr_table_find(key, &run) || run.is_terminal;
	switch (acr_deferral_settle(key, wait, failure))
	{
		case ACR_SETTLED:
		case ACR_SETTLE_MOOT:
			return true;
		default:
			return false;
	}
}

/*
 * The same within an attempt that is under way already.  Waits for the row;
 * errors go up.
 */
void
acr_deferral_settle_here(const AcrRunKey *key)
{
	SettleRequest request = {.key = key,.wait = true};

	settle_body(&request);
	if (request.outcome == ACR_SETTLED)
		acr_count_at_commit(ACR_SETTLED_LATER, 1);
}

/*
 * Keeps what is reported of a failure.  The worker reports when the transaction
 * whose memory the failure is in has ended.
 */
static ErrorData *
keep_failure(const ErrorData *failure, MemoryContext context)
{
	ErrorData  *kept = MemoryContextAllocZero(context, sizeof(ErrorData));

	kept->sqlerrcode = failure->sqlerrcode;
	kept->message = MemoryContextStrdup(context, failure->message);
	if (failure->detail != NULL)
		kept->detail = MemoryContextStrdup(context, failure->detail);
	return kept;
}

static void
tally_one(AcrSettleTally *tally, const AcrRunKey *key)
{
	ErrorData  *failure;

	switch (acr_deferral_settle(key, false, &failure))
	{
		case ACR_SETTLED:
			tally->settled++;
			break;
		case ACR_SETTLE_MOOT:
			break;
		case ACR_SETTLE_BLOCKED:
			tally->blocked++;
			if (failure != NULL)
				FreeErrorData(failure);
			break;
		case ACR_SETTLE_FAILED:
			if (tally->failed++ == 0)
			{
				tally->failed_key = *key;
				tally->failure = keep_failure(failure, tally->context);
			}
			else
				FreeErrorData(failure);
			break;
	}
}

/*
 * Applies the next few from *from on (all zeroes: from the first) and moves
 * *from past them, until "limit" are settled in all.  Never waits behind a
 * client's row lock.  Returns whether to go on.
 */
static bool
settle_some(AcrRunKey *from, const pg_uuid_t *run_id, TimestampTz due_by,
			bool postpone, int64 limit, AcrSettleTally *tally)
{
	AcrRunKey  *keys;
	bool		more;
	int			n = acr_table_list_deferred(from, run_id, due_by, &keys, &more);

	for (int i = 0; i < n && tally->settled < limit; i++)
	{
		int64		failed = tally->failed;

		CHECK_FOR_INTERRUPTS();
		tally_one(tally, &keys[i]);
		if (postpone && tally->failed > failed)
			acr_table_postpone_deferred(&keys[i]);
	}
	pfree(keys);
	return more;
}

/*
 * The same for the background worker: those whose time has come, and one that
 * fails is put off, so that it neither holds up the others nor is tried all
 * the time.
 */
bool
acr_deferral_settle_due(AcrRunKey *from, AcrSettleTally *tally)
{
	return settle_some(from, NULL, GetCurrentTimestamp(), true, PG_INT64_MAX,
					   tally);
}

/*
 * Applies what can be applied now, of one run only if run_id is given, and at
 * most "limit".  If there are many, tells the client in between how many by now.
 */
void
acr_deferral_settle_all(const pg_uuid_t *run_id, int64 limit,
						AcrSettleTally *tally)
{
	AcrRunKey	from = {0};
	int64		told = 0;

	while (tally->settled < limit &&
		   settle_some(&from, run_id, DT_NOEND, false, limit, tally))
	{
		if (tally->settled < told + acr_sweep_batch_size || tally->settled >= limit)
			continue;
		told = tally->settled;
		ereport(INFO,
				(errmsg("%lld deferred finalization(s) applied so far",
						(long long) told)));
	}
}

/* Says which of them failed, if any did. */
void
acr_deferral_report(const AcrSettleTally *tally)
{
	char	   *cause;

	if (tally->failed == 0)
		return;
	cause = acr_attempt_cause(tally->failure);
	ereport(WARNING,
			(errcode(tally->failure->sqlerrcode),
			 errmsg("could not apply the deferred finalization of run %s: %s",
					acr_uuid_string(&tally->failed_key.id), cause),
			 tally->failed > 1 ?
			 errdetail("%lld deferred finalizations could not be applied.",
					   (long long) tally->failed) : 0));
}

/*
 * settle_deferred(run_id uuid default null) returns bigint
 *
 * Applies the deferred finalizations that can be applied now, all or that of
 * one run, without waiting behind a client's row lock.  Returns the number of
 * runs that it made terminal.  One that fails is a WARNING and stays deferred.
 *
 * Errors: 25006 in a read-only transaction or on a standby.
 */
Datum
acr_settle_deferred(PG_FUNCTION_ARGS)
{
	AcrSettleTally tally = {.context = CurrentMemoryContext};

	PreventCommandIfReadOnly("settle_deferred()");
	acr_deferral_settle_all(acr_optional_uuid(fcinfo, 0), PG_INT64_MAX, &tally);
	acr_deferral_report(&tally);
	PG_RETURN_INT64(tally.settled);
}
