/*
 * The state machine: which states there are, which of them are terminal, and
 * which terminal state a finished turn leads to.  Nothing here reads a table
 * or shared memory.
 */
#include "postgres.h"

#include "arguments.h"
#include "compat.h"
#include "fmgr.h"
#include "run_state.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(acr_map_turn_status);
PG_FUNCTION_INFO_V1(acr_is_run_status);
PG_FUNCTION_INFO_V1(acr_is_terminal_status);

typedef struct RunState
{
	const char *name;
	bool		terminal;
	const char *turn_status;	/* the turn's word for it, or NULL */
} RunState;

static const RunState run_states[] = {
	{"pending", false, NULL},
	{ACR_RUN_RUNNING, false, NULL},
	{"succeeded", true, "completed"},
	{"failed", true, "error"},
	{ACR_RUN_ABORTED, true, "aborted"},
};

/* The state of that name, or NULL if there is none. */
static const RunState *
find_state(const char *name, size_t len)
{
	for (size_t i = 0; i < lengthof(run_states); i++)
	{
		if (strlen(run_states[i].name) == len &&
			memcmp(run_states[i].name, name, len) == 0)
			return &run_states[i];
	}
	return NULL;
}

bool
acr_state_is_terminal(const char *status)
{
	const RunState *state = find_state(status, strlen(status));

	/* The table's check keeps others out, so only a bug gets here. */
	if (state == NULL)
		elog(ERROR, "unknown run status \"%s\"", status);
	return state->terminal;
}

static const RunState *
state_of_argument(FunctionCallInfo fcinfo)
{
	text	   *status = PG_GETARG_TEXT_PP(0);

	return find_state(VARDATA_ANY(status), VARSIZE_ANY_EXHDR(status));
}

/*
 * The next two are for the table's checks, which the server calls with the
 * rights of whoever writes.  As a check does with a null, they know nothing of
 * it.
 */

/*
 * is_run_status(status text) returns boolean
 *
 * Is there such a state?
 */
Datum
acr_is_run_status(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(state_of_argument(fcinfo) != NULL);
}

/*
 * is_terminal_status(status text) returns boolean
 *
 * Is it one without a way out?  False if there is no such state.
 */
Datum
acr_is_terminal_status(PG_FUNCTION_ARGS)
{
	const RunState *state;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	state = state_of_argument(fcinfo);
	PG_RETURN_BOOL(state != NULL && state->terminal);
}

/*
 * The terminal state of a run whose turn ended with turn_status, or NULL if
 * there is no such turn status.
 */
static const char *
state_of_turn(const char *turn_status)
{
	for (size_t i = 0; i < lengthof(run_states); i++)
	{
		if (run_states[i].turn_status != NULL &&
			strcmp(run_states[i].turn_status, turn_status) == 0)
			return run_states[i].name;
	}
	return NULL;
}

/*
 * As above, for an argument of an SQL function; anything that is not a turn
 * status is the caller's error.
 */
const char *
acr_state_require_turn(FunctionCallInfo fcinfo, int argno)
{
	char	   *turn_status;
	const char *status;

	acr_require_not_null(fcinfo, argno, "turn_status");
	turn_status = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	status = state_of_turn(turn_status);
	if (status == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown turn status \"%s\"", turn_status),
				 errhint("A turn ends as \"completed\", \"error\" or \"aborted\".")));
	return status;
}

/*
 * map_turn_status(turn_status text) returns text
 *
 * The run status that a turn status leads to: completed is succeeded, error is
 * failed, aborted is aborted.
 *
 * Errors: 22004 for a null, 22023 for anything else.
 */
Datum
acr_map_turn_status(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(acr_state_require_turn(fcinfo, 0)));
}
