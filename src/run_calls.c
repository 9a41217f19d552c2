/*
 * What a runner calls while its run goes on: record_step, heartbeat and
 * link_assistant_message.
 *
 * All are best effort.  The turn matters more than its bookkeeping, so a write
 * that fails is undone, told as a WARNING, and answered with a null; it never
 * fails the caller's transaction.  Only what means "stop now", and what can
 * never work (bad arguments, a read-only transaction), is an error.
 */
#include "postgres.h"

#include "arguments.h"
#include "attempt.h"
#include "commit_news.h"
#include "miscadmin.h"
#include "run_row.h"
#include "settings.h"
#include "shared_state.h"
#include "tracking.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(acr_record_step);
PG_FUNCTION_INFO_V1(acr_heartbeat);
PG_FUNCTION_INFO_V1(acr_link_assistant_message);

/* lock waiting for one who has better things to do */
#define HURRIED_LOCK_TIMEOUT_MS		100

typedef struct RunCall
{
	AcrRunKey	key;
	int32		step_count;
	pg_uuid_t	message_id;

	bool		known;			/* shared memory knows that the run is active */
	bool		stop_requested; /* and that it is to stop */

	const char *signal;			/* the answers */
	bool		linked;
} RunCall;

/* What a runner is told whose write found no active run. */
static const char *
signal_without_run(const AcrRunKey *key)
{
	AcrRun		run;

	if (!acr_table_find(key, &run))
		return "not_found";
	if (run.is_terminal)
		return "finalized";

	acr_table_raise_no_effect(&key->id);
	return NULL;				/* keep compiler quiet */
}

/*
 * Tells the runner; and shared memory, at commit, if it did not know the run.
 */
static void
record_step_body(void *arg)
{
	RunCall    *call = arg;
	AcrRun		run;

	if (!acr_table_record_step(&call->key, call->step_count,
							   call->stop_requested, &run))
	{
		call->signal = signal_without_run(&call->key);
		return;
	}
	call->signal = run.stop_requested ? "stop" : "continue";
	if (!call->known)
	{
		AcrLiveRun	live;

		acr_track_fill(&live, &call->key.workspace_id, &run.chat_id, run.runner);
		acr_news_run_active(&call->key.id, &live, run.stop_requested);
	}
}

/* For a run that shared memory does not know, or cannot. */
static void
heartbeat_body(void *arg)
{
	RunCall    *call = arg;
	AcrRun		run;
	bool		tracked = false;

	if (acr_shared_exists() && acr_track(&call->key, true, &run, &tracked) && tracked)
	{
		AcrLiveLook look;

		/* A stop may be requested that the row does not bear. */
		acr_live_look(&call->key.id, &look);
		call->signal = run.stop_requested || look.stop_requested ? "stop" : "continue";
	}
	else if (acr_table_heartbeat(&call->key, &run))
		call->signal = run.stop_requested ? "stop" : "continue";
	else
		call->signal = signal_without_run(&call->key);
}

/* The signal of a run that is settled or gone, as of now; or none. */
static void
settled_body(void *arg)
{
	RunCall    *call = arg;
	AcrRun		run;

	call->signal = NULL;
	if (!acr_table_find(&call->key, &run))
		call->signal = "not_found";
	else if (run.is_terminal)
		call->signal = "finalized";
}

/*
 * A transaction with a snapshot of its own cannot write a run that was settled
 * since; but that the runner shall quit can be told all the same.
 */
static bool
is_settled_since(const ErrorData *failure, RunCall *call)
{
	return acr_attempt_is_futile(failure) &&
		acr_attempt(settled_body, call) == NULL && call->signal != NULL;
}

static void
link_body(void *arg)
{
	RunCall    *call = arg;

	call->linked = acr_table_link(&call->key, &call->message_id);
}

/*
 * Makes the attempt; false, after a WARNING, if it failed.  A runner that is to
 * stop is not kept waiting.
 */
static bool
best_effort(AcrAttemptBody body, RunCall *call, const char *what)
{
	ErrorData  *failure = call->stop_requested ?
		acr_attempt_within(body, call, Min(HURRIED_LOCK_TIMEOUT_MS, acr_lock_timeout)) :
		acr_attempt(body, call);
	char	   *cause;

	if (failure == NULL || (body != link_body && is_settled_since(failure, call)))
		return true;
	cause = acr_attempt_cause(failure);
	ereport(WARNING,
			(errcode(failure->sqlerrcode),
			 errmsg("could not %s run %s: %s", what,
					acr_uuid_string(&call->key.id), cause)));
	return false;
}

static void
get_key(FunctionCallInfo fcinfo, AcrRunKey *key)
{
	key->id = *acr_require_uuid(fcinfo, 0, "run_id");
	key->workspace_id = *acr_require_uuid(fcinfo, 1, "workspace_id");
	acr_shared_note_start();
}

/*
 * Notes in shared memory that the runner calls.  Where this transaction has
 * changed runs, only their rows tell it how they are.
 */
static void
note_call(RunCall *call)
{
	if (acr_shared_exists() && acr_track_is_visible(&call->key))
		call->known = acr_live_hear(&call->key, &call->stop_requested) &&
			!acr_news_of_runs_pending();
}

/*
 * record_step(run_id uuid, workspace_id uuid, step_count int) returns text
 *
 * Stores the number of finished steps, which never goes down, and that the
 * runner is alive.  Returns the signal to the runner: continue, stop (a stop
 * is requested), finalized (somebody settled the run: quit) or not_found; null,
 * after a WARNING, if the write failed.  A stop that shared memory knows of is
 * told even then.
 *
 * Errors: 22004 for a null, 22023 for a negative count, 25006 in a read-only
 * transaction or on a standby, class 57 for a cancel or a shutdown.
 */
Datum
acr_record_step(PG_FUNCTION_ARGS)
{
	RunCall		call = {0};

	get_key(fcinfo, &call.key);
	acr_require_not_null(fcinfo, 2, "step_count");
	call.step_count = PG_GETARG_INT32(2);
	if (call.step_count < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("step_count must not be negative")));
	PreventCommandIfReadOnly("record_step()");

	note_call(&call);
	if (!best_effort(record_step_body, &call, "record a step of"))
	{
		if (!call.stop_requested)
			PG_RETURN_NULL();
		call.signal = "stop";
	}
	PG_RETURN_TEXT_P(cstring_to_text(call.signal));
}

/*
 * heartbeat(run_id uuid, workspace_id uuid) returns text
 *
 * Says that the runner is alive: with the library preloaded, in shared memory
 * alone, without a write.  Returns the signal as record_step does.
 *
 * Errors: as record_step.
 */
Datum
acr_heartbeat(PG_FUNCTION_ARGS)
{
	RunCall		call = {0};

	get_key(fcinfo, &call.key);
	PreventCommandIfReadOnly("heartbeat()");

	note_call(&call);
	if (call.known)
		call.signal = call.stop_requested ? "stop" : "continue";
	else if (!best_effort(heartbeat_body, &call, "record the heartbeat of"))
		PG_RETURN_NULL();
	acr_count_now(ACR_HEARTBEATS);
	PG_RETURN_TEXT_P(cstring_to_text(call.signal));
}

/*
 * link_assistant_message(run_id uuid, workspace_id uuid,
 *						  assistant_message_id uuid) returns boolean
 *
 * Links the assistant's message to its run, also to a terminal one.  Returns
 * whether the run is there; null, after a WARNING, if the write failed.
 *
 * Errors: as record_step.
 */
Datum
acr_link_assistant_message(PG_FUNCTION_ARGS)
{
	RunCall		call = {0};

	get_key(fcinfo, &call.key);
	call.message_id = *acr_require_uuid(fcinfo, 2, "assistant_message_id");
	PreventCommandIfReadOnly("link_assistant_message()");

	if (!best_effort(link_body, &call, "link the assistant message of"))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(call.linked);
}
