/*
 * await_run, await_stop and await_stops: wait, without asking again and again.
 *
 * Each goes round: look at the row, commit, sleep until something has happened
 * that concerns it (wakeup.c says how no wake-up is lost), and look again; once
 * more when the time is over, since nobody tells of what is done with triggers
 * off.  While it sleeps it runs no query and holds nothing.  A procedure keeps nothing
 * between two calls, so it does not matter through which of a pooler's sessions
 * the next one goes.
 */
#include "postgres.h"

#include "arguments.h"
#include "catalog/pg_type_d.h"
#include "commit_news.h"
#include "compat.h"
#include "procedure.h"
#include "run_batch.h"
#include "run_row.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "wakeup.h"

PG_FUNCTION_INFO_V1(acr_await_run);
PG_FUNCTION_INFO_V1(acr_await_stop);
PG_FUNCTION_INFO_V1(acr_await_stops);

static void
get_key(FunctionCallInfo fcinfo, AcrRunKey *key)
{
	key->id = *acr_require_uuid(fcinfo, 0, "run_id");
	key->workspace_id = *acr_require_uuid(fcinfo, 1, "workspace_id");
}

/* A look at the row, as a step of its own. */
static bool
look_at_run(AcrProcedure *proc, const AcrRunKey *key, AcrRun *run)
{
	bool		found;

	acr_procedure_enter(proc);
	found = acr_table_find(key, run);
	acr_procedure_commit(proc);
	return found;
}

static Datum
text_or_null(const char *string, bool *isnull)
{
	*isnull = string == NULL;
	return string == NULL ? (Datum) 0 : CStringGetTextDatum(string);
}

/*
 * await_run(run_id uuid, workspace_id uuid, timeout interval default '30 s',
 *			 inout status text, inout error text)
 *
 * Returns when the run is terminal, with its status and error; both null if the
 * time is over before.  A run that is not there, or is deleted meanwhile, is
 * not_found.
 *
 * Errors: 55000 without preloading, 25001 inside a transaction block, 22004 for
 * a null, 22023 for a negative timeout, 25006 on a standby.
 */
Datum
acr_await_run(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	AcrProcedure proc;
	AcrRunKey	key;
	AcrRun		run;
	AcrWait		wait;
	bool		in_time = true;
	bool		found;
	const char *status = NULL;
	const char *error = NULL;
	Datum		values[2];
	bool		nulls[2];

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AiChatRunAwaitRun");

	acr_procedure_begin(&proc, fcinfo, "await_run()");
	get_key(fcinfo, &key);
	acr_wait_init(&wait, acr_wakeup_of_uuid(&key.id),
				  acr_require_timeout(fcinfo, 2), wait_event);
	acr_count_now(ACR_WAITS);
	for (;;)
	{
		acr_wait_before_look(&wait);
		found = look_at_run(&proc, &key, &run);
		if (!found || run.is_terminal || !in_time)
			break;
		in_time = acr_wait_sleep(&wait);
	}
	acr_procedure_end(&proc);

	if (!found)
		status = "not_found";
	else if (run.is_terminal)
	{
		status = run.status;
		error = run.error;
	}
	values[0] = text_or_null(status, &nulls[0]);
	values[1] = text_or_null(error, &nulls[1]);
	return acr_procedure_result(&proc, values, nulls);
}

/* What the runner is to be told: a signal of record_step's, or NULL. */
static const char *
signal_of(bool found, const AcrRun *run, const pg_uuid_t *run_id)
{
	AcrLiveLook look;

	if (!found)
		return "not_found";
	if (run->is_terminal)
		return "finalized";

	/* A stop may be requested that the row does not bear. */
	acr_live_look(run_id, &look);
	return run->stop_requested || look.stop_requested ? "stop" : NULL;
}

/*
 * await_stop(run_id uuid, workspace_id uuid, timeout interval default '30 s',
 *			  inout signal text)
 *
 * Returns when the run is to stop (stop), is settled (finalized) or is not there
 * (not_found), also if it was so before the call; null if the time is over.
 *
 * Errors: as await_run.
 */
Datum
acr_await_stop(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	AcrProcedure proc;
	AcrRunKey	key;
	AcrRun		run;
	AcrWait		wait;
	bool		in_time = true;
	const char *signal;
	Datum		value;
	bool		isnull;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AiChatRunAwaitStop");

	acr_procedure_begin(&proc, fcinfo, "await_stop()");
	get_key(fcinfo, &key);
	acr_wait_init(&wait, acr_wakeup_of_uuid(&key.id),
				  acr_require_timeout(fcinfo, 2), wait_event);
	acr_count_now(ACR_WAITS);
	for (;;)
	{
		bool		found;

		acr_wait_before_look(&wait);
		found = look_at_run(&proc, &key, &run);
		signal = signal_of(found, &run, &key.id);
		if (signal != NULL || !in_time)
			break;
		in_time = acr_wait_sleep(&wait);
	}
	acr_procedure_end(&proc);

	value = text_or_null(signal, &isnull);
	return acr_procedure_result(&proc, &value, &isnull);
}

/* ---- all runs of a runner ---- */

typedef struct StopList
{
	ArrayType  *seen;
	Datum	   *ids;
	int			n;
} StopList;

static bool
is_in(const pg_uuid_t *id, const Datum *ids, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (memcmp(DatumGetUUIDP(ids[i]), id, UUID_LEN) == 0)
			return true;
	}
	return false;
}

/* Adds those that are neither seen nor in the list. */
static void
add_stops(StopList *list, pg_uuid_t *ids, int n)
{
	Datum	   *seen;
	int			n_seen;

	if (n == 0)
		return;
	deconstruct_array(list->seen, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR, &seen,
					  NULL, &n_seen);
	if (list->ids == NULL)
		list->ids = palloc(n * sizeof(Datum));
	else
		list->ids = repalloc(list->ids, (list->n + n) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		if (!is_in(&ids[i], seen, n_seen) && !is_in(&ids[i], list->ids, list->n))
			list->ids[list->n++] = UUIDPGetDatum(&ids[i]);
	}
}

/*
 * A look, as a step of its own: into shared memory, and at the rows unless
 * "memory_first" and that is enough.  A waiter that was woken is so by what
 * shared memory knows, as a rule.
 */
static void
look_at_stops(AcrProcedure *proc, const char *runner, bool memory_first,
			  StopList *list)
{
	pg_uuid_t  *ids;
	bool		all_current;
	int			n;

	acr_procedure_enter(proc);
	list->ids = NULL;
	n = acr_live_list_stops(runner, &ids, &all_current);
	if (!all_current || acr_table_has_policies())
		n = acr_table_which_active(ids, n, &ids);
	add_stops(list, ids, n);
	if (list->n == 0 || !memory_first)
	{
		n = acr_table_stops_of_runner(runner, list->seen, &ids);
		add_stops(list, ids, n);
	}
	acr_procedure_commit(proc);
}

/* The ids given, without nulls, since one would make "<> ALL" unknown. */
static ArrayType *
get_seen(FunctionCallInfo fcinfo, int argno)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n = 0;
	int			kept = 0;

	if (!PG_ARGISNULL(argno))
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(argno), UUIDOID, UUID_LEN, false,
						  TYPALIGN_CHAR, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			elements[kept++] = elements[i];
	}
	return kept == 0 ? construct_empty_array(UUIDOID) :
		construct_array(elements, kept, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
}

/*
 * await_stops(runner text, already_seen uuid[] default '{}',
 *			   timeout interval default '30 s', inout run_ids uuid[])
 *
 * Returns when a stop is requested of any active run of that runner, but for
 * those already seen, also if that was before the call: their ids; null if the
 * time is over.  One waiting session serves a whole application process.
 *
 * Errors: as await_run.
 */
Datum
acr_await_stops(PG_FUNCTION_ARGS)
{
	static uint32 wait_event = 0;
	AcrProcedure proc;
	char	   *runner;
	AcrWait		wait;
	StopList	list = {0};
	bool		woken = false;
	bool		in_time = true;
	Datum		value = (Datum) 0;
	bool		isnull;

	if (wait_event == 0)
		wait_event = WaitEventExtensionNew("AiChatRunAwaitStops");

	acr_procedure_begin(&proc, fcinfo, "await_stops()");
	acr_require_not_null(fcinfo, 0, "runner");
	runner = text_to_cstring(PG_GETARG_TEXT_PP(0));
	acr_check_runner_name(runner);
	list.seen = get_seen(fcinfo, 1);
	acr_wait_init(&wait, acr_wakeup_of_runner(runner),
				  acr_require_timeout(fcinfo, 2), wait_event);
	acr_count_now(ACR_WAITS);
	for (;;)
	{
		acr_wait_before_look(&wait);
		look_at_stops(&proc, runner, woken && in_time, &list);
		if (list.n > 0 || !in_time)
			break;
		in_time = acr_wait_sleep(&wait);
		woken = true;
	}
	acr_procedure_end(&proc);

	isnull = list.n == 0;
	if (!isnull)
		value = PointerGetDatum(construct_array(list.ids, list.n, UUIDOID,
												UUID_LEN, false, TYPALIGN_CHAR));
	return acr_procedure_result(&proc, &value, &isnull);
}
