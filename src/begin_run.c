/*
 * begin_run: take the chat's slot.
 *
 * The partial unique index is the only gate.  The INSERT carries ON CONFLICT
 * DO NOTHING for that index, which looks before it leaps: against a committed
 * rival it writes nothing, no row, no dead tuple, no transaction id; against an
 * uncommitted one it waits, and takes the slot if the rival rolls back.  A
 * conflict on any other unique index is raised as ever.
 *
 * After a conflict we look who holds the slot.  Interleavings to get right:
 *
 * - The rival ends between the conflict and the look: nobody is found, and we
 *	 insert again.
 * - The chat is active under another workspace: the look, scoped to our own,
 *	 finds nobody for ever; a second look tells this from the first case.
 * - The rival has a deferred finalization: it is applied, and we insert again.
 * - In REPEATABLE READ and SERIALIZABLE the server answers a conflict with a
 *	 row that our snapshot cannot see with a serialization failure.  The slot
 *	 is taken all the same, so we look as of now and say so; only if nobody is
 *	 found, twice, the failure goes up.
 * - Somebody supersedes the chat's run, and must not be forestalled while he
 *	 waits: see claims.c.  Our row, if it is in already, is undone at once and
 *	 altogether: he waits for us otherwise.  An error does that; for callers who
 *	 want none, each insert is a subtransaction.
 * - A given run id is there already.  Without a rival for the slot the primary
 *	 key would raise its violation after the row was written; so for given ids
 *	 a first INSERT shies from any conflict, and only if neither the id nor a
 *	 rival explains it, the second, which names the slot alone, lets the server
 *	 raise what there is to raise.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "ai_chat_run.h"
#include "arguments.h"
#include "attempt.h"
#include "begin.h"
#include "claims.h"
#include "commit_news.h"
#include "deferral.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "run_id.h"
#include "settings.h"
#include "shared_state.h"
#include "tracking.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(acr_begin_run);
PG_FUNCTION_INFO_V1(acr_try_begin_run);

/*
 * Each round without an answer takes a rival that came and went, so even two
 * are rare.  A trigger that swallows the INSERT looks the same, for ever.
 */
#define MAX_ROUNDS	100

typedef struct InsertRequest
{
	const AcrNewRun *run;
	bool		once;
	bool		inserted;
} InsertRequest;

static int
detail_busy(AcrBeginOutcome outcome, const AcrActiveRun *active)
{
	switch (outcome)
	{
		case ACR_BUSY:
			return errdetail("Run %s has been active since %s.",
							 acr_uuid_string(&active->id),
							 timestamptz_to_str(active->since));
		case ACR_BUSY_CLAIMED:
			return errdetail("Run %s is being superseded.",
							 acr_uuid_string(&active->id));
		case ACR_BUSY_UNNAMED:
			return errdetail("Another session is about to begin one.");
		default:
			return errdetail("The active run belongs to another workspace.");
	}
}

static void
raise_busy(const AcrNewRun *run, AcrBeginOutcome outcome,
		   const AcrActiveRun *active)
{
	ereport(ERROR,
			(errcode(ACR_ERRCODE_RUN_ALREADY_ACTIVE),
			 errmsg("an agent run is already in progress for chat %s",
					acr_uuid_string(&run->chat_id)),
			 detail_busy(outcome, active),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, ACR_SCHEMA),
			 err_generic_string(PG_DIAG_TABLE_NAME, ACR_RUNS_TABLE),
			 err_generic_string(PG_DIAG_CONSTRAINT_NAME, ACR_ACTIVE_INDEX)));
}

/*
 * Another session is about to supersede the target.  If that is a run of this
 * chat and workspace, and not just what somebody took for one, *active names it.
 */
static AcrBeginOutcome
outcome_of_claim(const AcrNewRun *run, const AcrRunKey *target,
				 AcrActiveRun *active)
{
	AcrRun		found;

	if (memcmp(&target->workspace_id, &run->key.workspace_id, UUID_LEN) != 0)
		return ACR_BUSY_ELSEWHERE;
	if (!acr_table_find(target, &found) ||
		memcmp(&found.chat_id, &run->chat_id, UUID_LEN) != 0)
		return ACR_BUSY_UNNAMED;
	active->id = target->id;
	return ACR_BUSY_CLAIMED;
}

/* The row is to be undone: somebody else supersedes the chat's run. */
static void
raise_claimed(const AcrNewRun *run, const AcrRunKey *target)
{
	AcrActiveRun active;
	AcrBeginOutcome outcome = outcome_of_claim(run, target, &active);

	raise_busy(run, outcome, &active);
}

/*
 * The insert, and a look at the claims that comes after it.  If there is one,
 * the error undoes the insert.
 */
static void
insert_body(void *arg)
{
	InsertRequest *request = arg;
	AcrRunKey	target;

	request->inserted = acr_table_insert(request->run, request->once);
	if (request->inserted && acr_claims_has_other(&request->run->chat_id, &target))
		raise_claimed(request->run, &target);
}

/*
 * Inserts the run; false means a conflict.  With a snapshot for the whole
 * transaction, a serialization failure comes back as a conflict too, with
 * *failure set.  So does a claim, if the caller cannot do with an error.
 */
static bool
insert(const AcrNewRun *run, bool once, bool quietly, ErrorData **failure)
{
	InsertRequest request = {.run = run,.once = once};

	*failure = NULL;
	if (!quietly && !IsolationUsesXactSnapshot())
	{
		insert_body(&request);
		return request.inserted;
	}

	*failure = acr_attempt_unbounded(insert_body, &request);
	if (*failure == NULL)
		return request.inserted;
	if (quietly && (*failure)->sqlerrcode == ACR_ERRCODE_RUN_ALREADY_ACTIVE)
	{
		*failure = NULL;		/* the claim is met again */
		return false;
	}
	if (!acr_attempt_is_futile(*failure))
		ReThrowError(*failure);
	return false;
}

/* Is the given run there, in this chat and workspace? */
static bool
is_there(const AcrNewRun *run)
{
	AcrRun		found;

	return acr_table_find(&run->key, &found) &&
		memcmp(&found.chat_id, &run->chat_id, UUID_LEN) == 0;
}

/*
 * Applies the deferred finalization of the run that holds the slot, if it has
 * one.  A settler that is just at work is waited for, within the bound.
 */
static bool
settle_holder(const AcrNewRun *run, const AcrActiveRun *holder)
{
	AcrRunKey	key = {.id = holder->id,.workspace_id = run->key.workspace_id};
	ErrorData  *failure;

	if (acr_deferral_make_way(&key, true, &failure))
		return true;
	if (failure != NULL && acr_attempt_is_futile(failure))
		ReThrowError(failure);
	return false;
}

/*
 * Another session is about to supersede the run of this chat: the slot is
 * taken, even if there is no active run just now.
 */
static AcrBeginOutcome
busy_with_claim(const AcrNewRun *run, const AcrRunKey *target,
				AcrActiveRun *active)
{
	acr_count_now(ACR_REJECTED);
	if (acr_table_find_active(&run->chat_id, &run->key.workspace_id, active))
		return ACR_BUSY;
	return outcome_of_claim(run, target, active);
}

/* The run is ours; shared memory will know when it is committed. */
static AcrBeginOutcome
began(const AcrNewRun *run, bool id_given)
{
	AcrLiveRun	live;

	/*
	 * What may be known of an earlier run of a given id, which is gone, is
	 * not of it.
	 */
	if (id_given && acr_shared_exists())
	{
		AcrLiveKey	key;

		acr_live_key(&key, &run->key.id);
		acr_live_forget(&key);
	}

	acr_track_fill(&live, &run->key.workspace_id, &run->chat_id,
				   run->runner != NULL ? text_to_cstring(run->runner) : "");
	acr_news_run_active(&run->key.id, &live, false);
	acr_count_at_commit(ACR_BEGUN, 1);
	return ACR_BEGAN;
}

/*
 * Begins the run or tells why not.  With ACR_BUSY, *active is the run that
 * holds the slot; with ACR_BUSY_CLAIMED, its id is that of the run that is being
 * superseded.  Unless "quietly", a claim that comes up meanwhile is an error.
 */
AcrBeginOutcome
acr_begin(const AcrNewRun *run, bool id_given, bool quietly,
		  AcrActiveRun *active)
{
	for (int round = 0; round < MAX_ROUNDS; round++)
	{
		ErrorData  *failure;
		AcrRunKey	target;

		CHECK_FOR_INTERRUPTS();

		/* Looks at the claims before, to leave nothing; after is to be sure. */
		if (acr_claims_has_other(&run->chat_id, &target))
			return id_given && is_there(run) ? ACR_RESUMED :
				busy_with_claim(run, &target, active);
		if (insert(run, id_given && round % 2 == 0, quietly, &failure))
			return began(run, id_given);
		if (id_given && is_there(run))
			return ACR_RESUMED;
		if (acr_table_find_active(&run->chat_id, &run->key.workspace_id, active))
		{
			if (settle_holder(run, active))
				continue;
			acr_count_now(ACR_REJECTED);
			return ACR_BUSY;
		}
		if (acr_table_busy_elsewhere(&run->chat_id, &run->key.workspace_id))
		{
			acr_count_now(ACR_REJECTED);
			return ACR_BUSY_ELSEWHERE;
		}
		if (failure != NULL && round > 0)
			ReThrowError(failure);
	}

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not begin a run for chat %s",
					acr_uuid_string(&run->chat_id)),
			 errdetail("The row was not inserted, yet no active run is there."),
			 errhint("Look for a trigger on table %s.%s that suppresses the insert, or a policy that hides the active run.",
					 ACR_SCHEMA, ACR_RUNS_TABLE)));
	return ACR_BUSY;			/* keep compiler quiet */
}

/* The runner given, or the session's, or none. */
text *
acr_begin_runner(text *runner)
{
	if (runner == NULL && acr_runner != NULL)
	{
		/* A connection's options and a role's settings are any bytes. */
		(void) pg_verifymbstr(acr_runner, strlen(acr_runner), false);
		runner = cstring_to_text(acr_runner);
	}
	if (runner == NULL || VARSIZE_ANY_EXHDR(runner) == 0)
		return NULL;
	acr_check_runner_name(text_to_cstring(runner));
	return runner;
}

/* The arguments that begin_run and try_begin_run share. */
static AcrBeginOutcome
begin_from_arguments(FunctionCallInfo fcinfo, const char *function,
					 bool quietly, AcrNewRun *run, AcrActiveRun *active)
{
	pg_uuid_t  *run_id = acr_optional_uuid(fcinfo, 4);

	run->chat_id = *acr_require_uuid(fcinfo, 0, "chat_id");
	run->key.workspace_id = *acr_require_uuid(fcinfo, 1, "workspace_id");
	run->created_by = acr_optional_uuid(fcinfo, 2);
	run->trigger = acr_optional_text(fcinfo, 3);
	if (run->trigger == NULL)
		run->trigger = cstring_to_text("user");
	run->runner = acr_begin_runner(acr_optional_text(fcinfo, 5));
	PreventCommandIfReadOnly(function);

	if (run_id != NULL)
		run->key.id = *run_id;
	else
		acr_run_id_new(&run->key.id);
	return acr_begin(run, run_id != NULL, quietly, active);
}

/*
 * begin_run(chat_id uuid, workspace_id uuid, created_by uuid default null,
 *			 trigger text default 'user', run_id uuid default null,
 *			 runner text default null) returns uuid
 *
 * Begins a run and returns its id.  A run_id makes the call repeatable: if that
 * run is there, for this chat and workspace, its id is returned.
 *
 * Errors: RN409 if the chat has an active run; 22004 without a chat or a
 * workspace; 22023 for a runner name that is too long; 22021 for one of the
 * setting that is no text in this database's encoding; 25006 in a read-only
 * transaction or on a standby.  Anything else is the server's own, such as
 * 23505 for a run_id that another chat's run has.
 *
 * After beginRun and RunAlreadyActiveError of the service that this grew from.
 */
Datum
acr_begin_run(PG_FUNCTION_ARGS)
{
	AcrNewRun	run;
	AcrActiveRun active;
	AcrBeginOutcome outcome;
	pg_uuid_t  *result;

	outcome = begin_from_arguments(fcinfo, "begin_run()", false, &run, &active);
	if (outcome != ACR_BEGAN && outcome != ACR_RESUMED)
		raise_busy(&run, outcome, &active);

	result = palloc(sizeof(pg_uuid_t));
	*result = run.key.id;
	PG_RETURN_UUID_P(result);
}

/*
 * try_begin_run(... as begin_run ..., out outcome text, out run_id uuid)
 *
 * The same, with the outcome as data: began (the new run), resumed (the given
 * run_id was there), busy (the run that is active, or null if it belongs to
 * another workspace, or another session is about to begin it).
 *
 * Errors: as begin_run, but for RN409.
 */
Datum
acr_try_begin_run(PG_FUNCTION_ARGS)
{
	AcrNewRun	run;
	AcrActiveRun active;
	AcrBeginOutcome outcome;
	const char *name = "busy";
	TupleDesc	tupdesc;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	outcome = begin_from_arguments(fcinfo, "try_begin_run()", true, &run, &active);
	values[1] = UUIDPGetDatum(&run.key.id);
	if (outcome == ACR_BEGAN)
		name = "began";
	else if (outcome == ACR_RESUMED)
		name = "resumed";
	else if (outcome == ACR_BUSY || outcome == ACR_BUSY_CLAIMED)
		values[1] = UUIDPGetDatum(&active.id);
	else
		nulls[1] = true;
	values[0] = CStringGetTextDatum(name);

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc),
													  values, nulls)));
}
