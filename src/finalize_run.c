/*
 * finalize_run: write the terminal status, exactly once, and never lose it.
 *
 * The row decides.  One conditional update makes an active run terminal; who
 * comes second waits for the row, finds it terminal, and says so.  If the
 * first rolls back, the second's update goes through.  The interleavings:
 *
 *	 A: update, row locked		B: update waits for the row
 *	 A: commits					B: re-reads, not active: already_finalized
 *	 A: rolls back				B: updates: finalized
 *	 A: keeps the row locked	B: gives up after its attempts, and defers
 *
 * Each attempt is a subtransaction, so that a failure can be survived.  When
 * all attempts have failed, the decision is recorded in deferred_finalizations
 * as part of the caller's transaction.  That takes no lock on the run's row,
 * which is just what may be unavailable; hence no foreign key.
 */
#include "postgres.h"

#include "access/xact.h"
#include "ai_chat_run.h"
#include "arguments.h"
#include "attempt.h"
#include "commit_news.h"
#include "databases.h"
#include "deferral.h"
#include "miscadmin.h"
#include "run_state.h"
#include "run_row.h"
#include "settings.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(acr_finalize_run);

/* How often to look again for what came and went while we looked. */
#define MAX_ROUNDS	10

typedef struct Finalization
{
	AcrRunKey	key;
	const char *status;			/* the terminal status decided */
	text	   *error;			/* or NULL */

	const char *outcome;		/* set by an attempt that succeeded */

	int			attempts;		/* made so far */
	ErrorData  *failure;		/* of the last one */

	/* what giving up finds out */
	bool		found;
	AcrRun		run;
	char	   *deferred;		/* the status that is recorded */
} Finalization;

/*
 * The body of an attempt.  An update without effect is explained by the row as
 * of now.
 */
static void
finish_body(void *arg)
{
	Finalization *fin = arg;
	AcrRun		run;

	/* A second round only follows a row that appeared meanwhile. */
	for (int round = 0; round < 2; round++)
	{
		fin->outcome = "finalized";
		if (acr_deferral_finish_undecided(&fin->key, fin->status, fin->error))
			return;

		fin->outcome = "not_found";
		if (!acr_table_find(&fin->key, &run))
			return;
		fin->outcome = "already_finalized";
		if (run.is_terminal)
			return;

		/* Decided earlier, and not written yet: that decision goes first. */
		if (acr_table_find_deferred(&fin->key) != NULL)
		{
			acr_deferral_settle_here(&fin->key);
			return;
		}

		if (IsolationUsesXactSnapshot())
			break;
	}
	acr_table_raise_no_effect(&fin->key.id);
}

/* Tries the terminal write; true if an attempt succeeded. */
static bool
try_to_finish(Finalization *fin)
{
	int			max_attempts = acr_finalize_max_attempts;

	for (;;)
	{
		char	   *cause;

		fin->attempts++;
		fin->failure = acr_attempt(finish_body, fin);
		if (fin->failure == NULL)
			return true;

		cause = acr_attempt_cause(fin->failure);
		ereport(WARNING,
				(errcode(fin->failure->sqlerrcode),
				 errmsg("failed to finalize run %s (attempt %d/%d): %s",
						acr_uuid_string(&fin->key.id), fin->attempts,
						max_attempts, cause)));

		if (fin->attempts >= max_attempts ||
			acr_attempt_is_futile(fin->failure))
			return false;
		acr_count_now(ACR_RETRIES);
		acr_attempt_pause((long) acr_finalize_retry_base * fin->attempts);
	}
}

/* Is the run there, and in which chat?  The table itself may be locked. */
static void
look_body(void *arg)
{
	Finalization *fin = arg;

	fin->found = acr_table_find(&fin->key, &fin->run);
}

static void
defer_body(void *arg)
{
	Finalization *fin = arg;

	(void) acr_table_defer(&fin->key, fin->status, fin->error,
						   fin->failure->message);
}

/* Which status is recorded now?  The first one recorded wins. */
static void
recorded_body(void *arg)
{
	Finalization *fin = arg;

	fin->deferred = acr_table_find_deferred(&fin->key);
}

static void
forget_body(void *arg)
{
	Finalization *fin = arg;

	(void) acr_table_forget_deferred(&fin->key);
}

/*
 * Why nothing is to be deferred: the outcome, or NULL if the run is active, or
 * cannot be looked at.
 */
static const char *
outcome_of_look(Finalization *fin, bool *run_known)
{
	*run_known = acr_attempt(look_body, fin) == NULL;
	if (!*run_known)
		return NULL;
	if (!fin->found)
		return "not_found";
	return fin->run.is_terminal ? "already_finalized" : NULL;
}

/*
 * Reports that the run stays active: exactly one line, to be grepped for,
 * beside the lines of the attempts.
 */
static void
report_given_up(const Finalization *fin, bool run_known)
{
	char	   *run_id = acr_uuid_string(&fin->key.id);
	char	   *chat_id = run_known ? acr_uuid_string(&fin->run.chat_id) : pstrdup("unknown");
	const char *status = run_known ? fin->run.status : ACR_RUN_RUNNING;
	char	   *cause = acr_attempt_cause(fin->failure);

	if (fin->deferred != NULL)
		ereport(WARNING,
				(errcode(ACR_ERRCODE_RUN_DEFERRED),
				 errmsg("run %s (chat %s) left NON-TERMINAL ('%s'): terminal write failed after %d attempts; '%s' is deferred",
						run_id, chat_id, status, fin->attempts, fin->deferred),
				 errdetail("%s", cause)));
	else
		ereport(ERROR,
				(errcode(fin->failure->sqlerrcode),
				 errmsg("run %s (chat %s) left NON-TERMINAL ('%s'): terminal write failed after %d attempts; '%s' could not be deferred",
						run_id, chat_id, status, fin->attempts, fin->status),
				 errdetail("%s", cause)));
}

/*
 * The last step: what was decided is recorded, or the failure goes up.
 *
 * The run may end between the look and the record, and the record of that end
 * be gone, so that ours is not in its way.  Hence another look, when ours is
 * there.  Who ends the run after that, and before the caller commits, decides at
 * the same time as we do.
 */
static const char *
give_up(Finalization *fin)
{
	bool		run_known;
	const char *outcome;
	ErrorData  *failure;
	int			round = 0;

	/*
	 * A record that was in our way and is gone at the second look has been
	 * applied in between, or rolled back: then we look again.  A trigger that
	 * swallows the record looks the same, for ever.
	 */
	do
	{
		CHECK_FOR_INTERRUPTS();
		outcome = outcome_of_look(fin, &run_known);
		if (outcome != NULL)
			return outcome;

		failure = acr_attempt(defer_body, fin);
		if (acr_attempt(recorded_body, fin) != NULL)
			fin->deferred = NULL;
	} while (failure == NULL && fin->deferred == NULL && ++round < MAX_ROUNDS);

	outcome = outcome_of_look(fin, &run_known);
	if (outcome != NULL)
	{
		(void) acr_attempt(forget_body, fin);
		return outcome;
	}

	if (failure != NULL && fin->deferred == NULL)
		fin->failure = failure;

	report_given_up(fin, run_known);

	acr_count_at_commit(ACR_DEFERRED, 1);
	acr_news_at_commit(ACR_NEWS_DEFERRED);
	return "deferred";
}

/*
 * finalize_run(run_id uuid, workspace_id uuid, turn_status text,
 *				error text default null) returns text
 *
 * Makes the run terminal as its turn ended: completed, error or aborted.
 * Returns finalized (this call wrote it), already_finalized (somebody had), or
 * not_found; or deferred, if the row could not be written: then the decision is
 * recorded with the caller's transaction and applied later.
 *
 * Messages: a WARNING for each failed attempt, and one of SQLSTATE RN500 when
 * the write is given up and deferred.
 *
 * Errors: 22004 for a null, 22023 for an unknown turn status, 25006 in a
 * read-only transaction or on a standby, class 57 for a cancel or a shutdown;
 * and the last failure, if not even the deferral could be recorded.
 *
 * After finalizeRun of the service that this grew from, whose once gate and
 * retries lived in one process's memory.
 */
Datum
acr_finalize_run(PG_FUNCTION_ARGS)
{
	Finalization fin = {0};
	const char *outcome;

	fin.key.id = *acr_require_uuid(fcinfo, 0, "run_id");
	fin.key.workspace_id = *acr_require_uuid(fcinfo, 1, "workspace_id");
	fin.status = acr_state_require_turn(fcinfo, 2);
	fin.error = acr_optional_text(fcinfo, 3);
	PreventCommandIfReadOnly("finalize_run()");

	outcome = try_to_finish(&fin) ? fin.outcome : give_up(&fin);
	if (strcmp(outcome, "finalized") == 0)
		acr_count_at_commit(acr_counter_of_status(fin.status), 1);
	PG_RETURN_TEXT_P(cstring_to_text(outcome));
}
