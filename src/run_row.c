/*
 * One run: its row, typed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "ai_chat_run.h"
#include "arguments.h"
#include "funcapi.h"
#include "run_row.h"
#include "run_state.h"
#include "utils/builtins.h"

/* ---- begin ---- */

/*
 * Inserts a running run.  Returns false if there was a conflict: on the chat's
 * slot, or, with "once", also on the run id.  Waits for an uncommitted rival.
 */
bool
acr_table_insert(const AcrNewRun *new_run, bool once)
{
	AcrParams	p = {0};

	acr_param_pointer(&p, &new_run->key.id);
	acr_param_pointer(&p, &new_run->chat_id);
	acr_param_pointer(&p, &new_run->key.workspace_id);
	acr_param_pointer(&p, new_run->created_by);
	acr_param_pointer(&p, new_run->trigger);
	acr_param_pointer(&p, new_run->runner);
	acr_param_time(&p, GetCurrentTimestamp());
	return acr_table_run(once ? ACR_SQL_INSERT_RUN_ONCE : ACR_SQL_INSERT_RUN,
						 ACR_AS_WRITE, &p) > 0;
}

bool
acr_table_find_active(const pg_uuid_t *chat_id, const pg_uuid_t *workspace_id,
					  AcrActiveRun *active)
{
	AcrParams	p = {0};
	bool		found;

	acr_param_key(&p, chat_id, workspace_id);
	acr_table_open();
	found = acr_table_execute(ACR_SQL_FIND_ACTIVE_OF_CHAT, ACR_AS_OF_NOW, &p) > 0;
	if (found)
	{
		bool		isnull;

		acr_column_uuid(0, 1, &active->id);
		active->since = DatumGetTimestampTz(acr_column(0, 2, &isnull));
	}
	acr_table_close();
	return found;
}

/* Does the chat have an active run in another workspace? */
bool
acr_table_busy_elsewhere(const pg_uuid_t *chat_id,
						 const pg_uuid_t *workspace_id)
{
	AcrParams	p = {0};

	acr_param_key(&p, chat_id, workspace_id);
	return acr_table_run(ACR_SQL_CHAT_BUSY_ELSEWHERE, ACR_AS_OF_NOW, &p) > 0;
}

/* ---- one run ---- */

/*
 * Raises what there is to say of a write to a run that is there, was to be
 * written, and was not.
 */
void
acr_table_raise_no_effect(const pg_uuid_t *run_id)
{
	/* Our snapshot is too old to see the run as it is. */
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent update")));
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("the update of run %s had no effect", acr_uuid_string(run_id)),
			 errhint("Look for a trigger on table %s.%s that suppresses the update, or a policy that forbids it.",
					 ACR_SCHEMA, ACR_RUNS_TABLE)));
}

/* Takes a row of RUN_COLUMNS; the error text goes into the given context. */
static void
fill_run(AcrRun *run, MemoryContext context)
{
	bool		isnull;
	Datum		value;

	strlcpy(run->status, TextDatumGetCString(acr_column(0, 1, &isnull)),
			sizeof(run->status));
	run->is_terminal = acr_state_is_terminal(run->status);
	acr_column_uuid(0, 2, &run->chat_id);
	run->stop_requested = acr_column_bool(0, 3);
	value = acr_column(0, 4, &isnull);
	acr_copy_runner_name(run->runner, isnull ? "" : TextDatumGetCString(value));
	value = acr_column(0, 5, &isnull);
	run->error = isnull || !run->is_terminal ? NULL :
		MemoryContextStrdup(context, TextDatumGetCString(value));
}

/* Runs a statement that gives a run, or nothing. */
static bool
execute_for_run(AcrSqlId id, AcrSnapshotKind kind, AcrParams *p, AcrRun *run)
{
	MemoryContext caller = CurrentMemoryContext;
	bool		found;

	acr_table_open();
	found = acr_table_execute(id, kind, p) > 0;
	if (found)
		fill_run(run, caller);
	acr_table_close();
	return found;
}

/* Looks a run up as of now. */
bool
acr_table_find(const AcrRunKey *key, AcrRun *run)
{
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	return execute_for_run(ACR_SQL_FIND_RUN, ACR_AS_OF_NOW, &p, run);
}

/*
 * Is the run active, in whatever workspace?  Tells whether its row was written
 * since the given time, and whose it is.
 */
bool
acr_table_is_active(const pg_uuid_t *run_id, TimestampTz since,
					bool *written_since, char *runner)
{
	AcrParams	p = {0};
	bool		active;

	acr_param_pointer(&p, run_id);
	acr_param_time(&p, since);
	acr_table_open();
	active = acr_table_execute(ACR_SQL_IS_ACTIVE, ACR_AS_OF_NOW, &p) > 0;
	if (active)
	{
		bool		isnull;
		Datum		name = acr_column(0, 2, &isnull);

		*written_since = acr_column_bool(0, 1);
		acr_copy_runner_name(runner, isnull ? "" : TextDatumGetCString(name));
	}
	acr_table_close();
	return active;
}

/*
 * The once gate: true if this call made the run terminal.  A run with a deferred
 * finalization is left alone, as far as the statement's snapshot can see one.
 */
bool
acr_table_finish(const AcrRunKey *key, const char *status, text *error)
{
	bool		none_deferred = acr_table_deferred_is_blank();
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_param_value(&p, CStringGetTextDatum(status));
	acr_param_pointer(&p, error);
	acr_param_time(&p, GetCurrentTimestamp());
	return acr_table_run(none_deferred ? ACR_SQL_FINISH_RUN :
						 ACR_SQL_FINISH_RUN_UNDECIDED, ACR_AS_WRITE, &p) > 0;
}

/* With stop_requested, stamps that too, unless it is there. */
bool
acr_table_record_step(const AcrRunKey *key, int32 step_count,
					  bool stop_requested, AcrRun *run)
{
	TimestampTz now = GetCurrentTimestamp();
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_param_value(&p, Int32GetDatum(step_count));
	acr_param_time(&p, now);
	if (stop_requested)
		acr_param_time(&p, now);
	else
		acr_param_pointer(&p, NULL);
	return execute_for_run(ACR_SQL_RECORD_STEP, ACR_AS_WRITE, &p, run);
}

bool
acr_table_heartbeat(const AcrRunKey *key, AcrRun *run)
{
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_param_time(&p, GetCurrentTimestamp());
	return execute_for_run(ACR_SQL_HEARTBEAT, ACR_AS_WRITE, &p, run);
}

bool
acr_table_link(const AcrRunKey *key, const pg_uuid_t *message_id)
{
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_param_pointer(&p, message_id);
	acr_param_time(&p, GetCurrentTimestamp());
	return acr_table_run(ACR_SQL_LINK_MESSAGE, ACR_AS_WRITE, &p) > 0;
}

/* Stamps the stop request.  False if the run is not active or has one. */
bool
acr_table_mark_stop(const AcrRunKey *key)
{
	AcrParams	p = {0};

	acr_param_key(&p, &key->id, &key->workspace_id);
	acr_param_time(&p, GetCurrentTimestamp());
	return acr_table_run(ACR_SQL_MARK_STOP, ACR_AS_WRITE, &p) > 0;
}

/* The same for whatever run is active in the chat; tells which. */
bool
acr_table_mark_stop_of_chat(const pg_uuid_t *chat_id,
							const pg_uuid_t *workspace_id, pg_uuid_t *run_id)
{
	AcrParams	p = {0};
	bool		marked;

	acr_param_key(&p, chat_id, workspace_id);
	acr_param_time(&p, GetCurrentTimestamp());
	acr_table_open();
	marked = acr_table_execute(ACR_SQL_MARK_STOP_OF_CHAT, ACR_AS_WRITE, &p) > 0;
	if (marked)
		acr_column_uuid(0, 1, run_id);
	acr_table_close();
	return marked;
}

/*
 * The runner's active runs whose rows bear a stop request, as of now, but for
 * those that are seen already.
 */
int
acr_table_stops_of_runner(const char *runner, ArrayType *seen,
						  pg_uuid_t **run_ids)
{
	MemoryContext caller = CurrentMemoryContext;
	AcrParams	p = {0};
	uint64		n;

	acr_param_value(&p, CStringGetTextDatum(runner));
	acr_param_pointer(&p, seen);
	acr_table_open();
	n = acr_table_execute(ACR_SQL_STOPS_OF_RUNNER, ACR_AS_OF_NOW, &p);
	*run_ids = MemoryContextAlloc(caller, Max(n, 1) * sizeof(pg_uuid_t));
	for (uint64 i = 0; i < n; i++)
		acr_column_uuid(i, 1, *run_ids + i);
	acr_table_close();
	return (int) n;
}

/* Deletes a chat's runs, in any workspace if none is given. */
void
acr_table_delete_of_chat(const pg_uuid_t *chat_id,
						 const pg_uuid_t *workspace_id)
{
	AcrParams	p = {0};

	acr_param_pointer(&p, chat_id);
	if (workspace_id != NULL)
		acr_param_pointer(&p, workspace_id);
	acr_table_run(workspace_id != NULL ? ACR_SQL_DELETE_OF_CHAT :
				  ACR_SQL_DELETE_OF_CHAT_ANYWHERE, ACR_AS_WRITE, &p);
}

/*
 * Answers a get function: zero or one row of the table.  The row comes as one
 * composite value, which has the table's own shape whatever columns somebody
 * has added or dropped.
 */
Datum
acr_table_get(FunctionCallInfo fcinfo, AcrSqlId which, const pg_uuid_t *id,
			  const pg_uuid_t *workspace_id)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	AcrParams	p = {0};

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);

	acr_param_key(&p, id, workspace_id);
	acr_table_open();
	if (acr_table_execute(which, ACR_AS_OF_CALLER, &p) > 0)
	{
		bool		isnull;
		HeapTupleHeader row = DatumGetHeapTupleHeader(acr_column(0, 1, &isnull));
		HeapTupleData tuple = {0};

		tuple.t_len = HeapTupleHeaderGetDatumLength(row);
		tuple.t_data = row;
		tuplestore_puttuple(rsinfo->setResult, &tuple);
	}
	acr_table_close();
	return (Datum) 0;
}
