/*
 * request_stop: the only thing that stops a run.
 *
 * The request is a stamp on the row, made once, which the runner is told with
 * its next call; and a NOTIFY at commit, for those who listen.  A client that
 * disconnects stops nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "arguments.h"
#include "attempt.h"
#include "commands/async.h"
#include "counters.h"
#include "miscadmin.h"
#include "run_row.h"

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

/*
 * Makes the request.  It is notified each time, also when the stamp is there
 * already: whoever asks again may do so because nothing happened.
 */
static void
request_stop(AcrAttemptBody body, StopRequest *request)
{
	ErrorData  *failure = acr_attempt(body, request);

	if (failure != NULL)
		ReThrowError(failure);
	if (request->marked)
		acr_count_at_commit(ACR_STOPS, 1);
	if (request->active)
		Async_Notify(STOP_CHANNEL, acr_uuid_string(&request->key.id));
}

/*
 * request_stop(run_id uuid, workspace_id uuid) returns boolean
 *
 * Requests an active run to stop.  Returns whether there was something to stop.
 *
 * Errors: 22004 for a null, 25006 in a read-only transaction or on a standby,
 * 55P03 if somebody holds the row for longer than ai_chat_run.lock_timeout.
 */
Datum
acr_request_stop(PG_FUNCTION_ARGS)
{
	StopRequest request = {0};

	request.key.id = *acr_require_uuid(fcinfo, 0, "run_id");
	request.key.workspace_id = *acr_require_uuid(fcinfo, 1, "workspace_id");
	PreventCommandIfReadOnly("request_stop()");

	request_stop(stop_run_body, &request);
	PG_RETURN_BOOL(request.active);
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
	pg_uuid_t  *run_id;

	request.chat_id = *acr_require_uuid(fcinfo, 0, "chat_id");
	request.key.workspace_id = *acr_require_uuid(fcinfo, 1, "workspace_id");
	PreventCommandIfReadOnly("request_stop_for_chat()");

	request_stop(stop_chat_body, &request);
	if (!request.active)
		PG_RETURN_NULL();
	run_id = palloc(sizeof(pg_uuid_t));
	*run_id = request.key.id;
	PG_RETURN_UUID_P(run_id);
}
