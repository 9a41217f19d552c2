/*
 * request_stop: the only thing that stops a run.
 *
 * The request is a flag in shared memory, which the runner is told with its
 * next call, or at once if it waits; a stamp on the row, made once; and a NOTIFY
 * at commit, for those who listen.  A client that disconnects stops nothing.
 *
 * The flag comes first.  It is the one thing that does not wait for the commit,
 * nor for the row: like pg_cancel_backend() it works now, whatever becomes of
 * the transaction.  If the row cannot be written, the flag stands for it, and
 * the runner's next record_step() makes up for the stamp.
 */
#include "postgres.h"

#include "access/xact.h"
#include "arguments.h"
#include "attempt.h"
#include "commands/async.h"
#include "commit_news.h"
#include "miscadmin.h"
#include "shared_state.h"
#include "stop.h"
#include "tracking.h"
#include "wakeup.h"

PG_FUNCTION_INFO_V1(acr_request_stop);
PG_FUNCTION_INFO_V1(acr_request_stop_for_chat);

/*
 * A run that is active but was not stamped has appeared since our statement
 * looked; then we stamp again, unless our snapshot will never see it.
 */
#define MAX_ROUNDS		10

#define STOP_CHANNEL	"ai_chat_run_stop"

typedef struct StopRequest
{
	AcrRunKey	key;
	pg_uuid_t	chat_id;
	bool		active;			/* there is a run to stop: key.id */
	bool		marked;			/* and this call stamped it */
} StopRequest;

static void
stop_run_body(void *arg)
{
	StopRequest *request = arg;
	AcrRun		run;

	for (int round = 0; round < MAX_ROUNDS; round++)
	{
		request->marked = acr_table_mark_stop(&request->key);
		request->active = request->marked ||
			(acr_table_find(&request->key, &run) && !run.is_terminal);
		if (request->marked || !request->active || run.stop_requested)
			return;
		CHECK_FOR_INTERRUPTS();
		if (IsolationUsesXactSnapshot())
			break;
	}
	acr_table_raise_no_effect(&request->key.id);
}

static void
stop_chat_body(void *arg)
{
	StopRequest *request = arg;
	AcrActiveRun active;
	AcrRun		run;

	for (int round = 0; round < MAX_ROUNDS; round++)
	{
		request->marked = acr_table_mark_stop_of_chat(&request->chat_id,
													  &request->key.workspace_id,
													  &request->key.id);
		request->active = request->marked;
		if (request->marked ||
			!acr_table_find_active(&request->chat_id, &request->key.workspace_id,
								   &active))
			return;

		request->key.id = active.id;
		request->active = true;
		if (acr_table_find(&request->key, &run) && run.stop_requested)
			return;				/* even if it is terminal by now */
		CHECK_FOR_INTERRUPTS();
		if (IsolationUsesXactSnapshot())
			break;
	}
	acr_table_raise_no_effect(&request->key.id);
}

/* Lets shared memory know the run, if it is active. */
static void
track_body(void *arg)
{
	StopRequest *request = arg;
	AcrRun		run;
	bool		tracked;

	request->active = acr_track(&request->key, false, &run, &tracked) &&
		!run.is_terminal;
}

/*
 * Raises the flag and wakes who waits for it; false if shared memory cannot
 * know the run.
 */
static bool
raise_flag(StopRequest *request)
{
	AcrLiveRun	stopped;

	if (!acr_live_request_stop(&request->key, &stopped))
	{
		ErrorData  *failure = acr_attempt(track_body, request);

		if (failure != NULL || !acr_live_request_stop(&request->key, &stopped))
			return false;
	}
	acr_wakeup_signal(acr_wakeup_of_uuid(&request->key.id));
	acr_wakeup_signal(acr_wakeup_of_runner(stopped.runner));
	return true;
}

/*
 * The flag is raised, but the row could not be written.  Is there something to
 * stop?  A reader does not wait for the row.  Returns false if that cannot be
 * found out either.
 */
static bool
look_again(StopRequest *request, const pg_uuid_t *flagged)
{
	request->key.id = *flagged;
	return acr_attempt(track_body, request) == NULL;
}

static void
warn_not_recorded(const StopRequest *request, const ErrorData *failure)
{
	char	   *cause = acr_attempt_cause(failure);

	ereport(WARNING,
			(errcode(failure->sqlerrcode),
			 errmsg("could not record the stop of run %s: %s",
					acr_uuid_string(&request->key.id), cause),
			 errdetail("Its runner is told all the same.")));
}

/*
 * Makes the request.  It is notified each time, also when the stamp is there
 * already: whoever asks again may do so because nothing happened.
 */
static void
request_stop(AcrAttemptBody body, StopRequest *request, bool run_known)
{
	bool		flagged = acr_shared_exists() && run_known && raise_flag(request);
	pg_uuid_t	flagged_id = request->key.id;
	ErrorData  *failure = acr_attempt(body, request);

	if (failure != NULL)
	{
		if (!flagged || !look_again(request, &flagged_id))
			ReThrowError(failure);
		if (request->active)
		{
			warn_not_recorded(request, failure);
			acr_count_now(ACR_STOPS);
		}
	}
	else if (request->marked)
		acr_count_at_commit(ACR_STOPS, 1);
	if (request->active)
		Async_Notify(STOP_CHANNEL, acr_uuid_string(&request->key.id));
}

/* Requests a run to stop; for supersede_run(), too. */
bool
acr_request_stop_of(const AcrRunKey *key)
{
	StopRequest request = {.key = *key};

	request_stop(stop_run_body, &request,
				 acr_shared_exists() && acr_track_is_visible(key));
	return request.active;
}

/*
 * request_stop(run_id uuid, workspace_id uuid) returns boolean
 *
 * Requests an active run to stop.  Returns whether there was something to stop.
 *
 * Messages: a WARNING if the row could not be written but the runner is told.
 *
 * Errors: 22004 for a null, 25006 in a read-only transaction or on a standby;
 * if shared memory does not track the run, 55P03 if somebody holds the row for
 * longer than ai_chat_run.lock_timeout.
 */
Datum
acr_request_stop(PG_FUNCTION_ARGS)
{
	AcrRunKey	key;

	key.id = *acr_require_uuid(fcinfo, 0, "run_id");
	key.workspace_id = *acr_require_uuid(fcinfo, 1, "workspace_id");
	PreventCommandIfReadOnly("request_stop()");

	PG_RETURN_BOOL(acr_request_stop_of(&key));
}

/*
 * request_stop_for_chat(chat_id uuid, workspace_id uuid) returns uuid
 *
 * The same for whatever run is active in the chat.  Returns its id, or null if
 * there was nothing to stop.
 *
 * Errors: as request_stop.
 */
Datum
acr_request_stop_for_chat(PG_FUNCTION_ARGS)
{
	StopRequest request = {0};
	AcrActiveRun active;
	bool		run_known;
	pg_uuid_t  *run_id;

	request.chat_id = *acr_require_uuid(fcinfo, 0, "chat_id");
	request.key.workspace_id = *acr_require_uuid(fcinfo, 1, "workspace_id");
	PreventCommandIfReadOnly("request_stop_for_chat()");

	run_known = acr_table_find_active(&request.chat_id, &request.key.workspace_id,
									  &active);
	if (run_known)
		request.key.id = active.id;
	request_stop(stop_chat_body, &request, run_known);
	if (!request.active)
		PG_RETURN_NULL();
	run_id = palloc(sizeof(pg_uuid_t));
	*run_id = request.key.id;
	PG_RETURN_UUID_P(run_id);
}
