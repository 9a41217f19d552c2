/*
 * The triggers of the run table: a terminal run stays as it is, and what
 * happens to a run is told to those who wait for it, whoever writes the row.
 *
 * They fire after the change, but for that on INSERT, so that no BEFORE trigger
 * can change the row behind their backs, and because a BEFORE UPDATE trigger
 * would have each update lock its row first, with a WAL record of its own.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "ai_chat_run.h"
#include "arguments.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "commit_news.h"
#include "databases.h"
#include "run_state.h"
#include "shared_state.h"
#include "tracking.h"
#include "trigger_columns.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(acr_run_inserted);
PG_FUNCTION_INFO_V1(acr_terminal_is_final);
PG_FUNCTION_INFO_V1(acr_run_deleted);
PG_FUNCTION_INFO_V1(acr_runs_truncated);

/* What may not change once the run is terminal. */
static const AcrRunColumn final_columns[] = {
	ACR_COLUMN_STATUS, ACR_COLUMN_FINISHED_AT, ACR_COLUMN_ERROR,
	ACR_COLUMN_CHAT_ID, ACR_COLUMN_WORKSPACE_ID,
};

/* By what shared memory knows an active run. */
static const AcrRunColumn tracked_columns[] = {
	ACR_COLUMN_ID, ACR_COLUMN_WORKSPACE_ID, ACR_COLUMN_CHAT_ID, ACR_COLUMN_RUNNER,
};

/* The trigger's data, if it was called as it should be. */
static TriggerData *
require_event(FunctionCallInfo fcinfo, const char *function, TriggerEvent event,
			  const char *event_name)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		(trigdata->tg_event & (TRIGGER_EVENT_OPMASK | TRIGGER_EVENT_ROW |
							   TRIGGER_EVENT_TIMINGMASK)) != event)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by a trigger %s",
						function, event_name)));
	return trigdata;
}

static pg_uuid_t *
run_id_of(Relation rel, HeapTuple row)
{
	return acr_run_column_uuid(rel, row, ACR_COLUMN_ID);
}

static bool
is_terminal(Relation rel, HeapTuple row)
{
	bool		isnull;
	Datum		status = acr_run_column(rel, row, ACR_COLUMN_STATUS, &isnull);

	return !isnull && acr_state_is_terminal(TextDatumGetCString(status));
}

static bool
column_is_null(Relation rel, HeapTuple row, AcrRunColumn column)
{
	return heap_attisnull(row, acr_run_column_number(rel, column),
						  RelationGetDescr(rel));
}

static bool
column_differs(Relation rel, AcrRunColumn column, HeapTuple old, HeapTuple new)
{
	TupleDesc	tupdesc = RelationGetDescr(rel);
	int			attnum = acr_run_column_number(rel, column);
	Form_pg_attribute attr = TupleDescAttr(tupdesc, attnum - 1);
	bool		old_isnull,
				new_isnull;
	Datum		old_value = heap_getattr(old, attnum, tupdesc, &old_isnull);
	Datum		new_value = heap_getattr(new, attnum, tupdesc, &new_isnull);

	if (old_isnull || new_isnull)
		return old_isnull != new_isnull;
	return !datum_image_eq(old_value, new_value, attr->attbyval, attr->attlen);
}

/* The name of the first of these columns that the update changes, or NULL. */
static const char *
changed_column(Relation rel, HeapTuple old, HeapTuple new,
			   const AcrRunColumn *columns, size_t n)
{
	for (size_t i = 0; i < n; i++)
	{
		if (column_differs(rel, columns[i], old, new))
			return acr_run_column_name(columns[i]);
	}
	return NULL;
}

static void
raise_final(Relation rel, HeapTuple row, const char *column)
{
	ereport(ERROR,
			(errcode(ACR_ERRCODE_RUN_IS_FINAL),
			 errmsg("run %s is terminal and stays so",
					acr_uuid_string(run_id_of(rel, row))),
			 errdetail("Column \"%s\" of a terminal run cannot be changed.",
					   column),
			 err_generic_string(PG_DIAG_SCHEMA_NAME, ACR_SCHEMA),
			 err_generic_string(PG_DIAG_TABLE_NAME, ACR_RUNS_TABLE),
			 err_generic_string(PG_DIAG_COLUMN_NAME, column)));
}

static char *
runner_of(Relation rel, HeapTuple row)
{
	bool		isnull;
	Datum		runner = acr_run_column(rel, row, ACR_COLUMN_RUNNER, &isnull);

	return isnull ? "" : TextDatumGetCString(runner);
}

/* Tells that the run, which is active, bears a stop request. */
static void
tell_stop(Relation rel, HeapTuple row)
{
	acr_news_run_stopped(run_id_of(rel, row), runner_of(rel, row));
}

/*
 * Tells that the run is not the same run any more, or another's.  A stop that
 * only shared memory knows stays with it, unless it has got another id.
 */
static void
tell_move(Relation rel, HeapTuple old, HeapTuple new)
{
	AcrLiveRun	run;

	acr_track_fill(&run, acr_run_column_uuid(rel, new, ACR_COLUMN_WORKSPACE_ID),
				   acr_run_column_uuid(rel, new, ACR_COLUMN_CHAT_ID), runner_of(rel, new));
	if (column_differs(rel, ACR_COLUMN_ID, old, new))
		acr_news_run_settled(run_id_of(rel, old));
	acr_news_run_moved(run_id_of(rel, new), &run);
}

/* Tells what an update of an active run has made of it. */
static void
tell_update(Relation rel, HeapTuple old, HeapTuple new)
{
	bool		moved;

	if (is_terminal(rel, new))
	{
		acr_news_run_settled(run_id_of(rel, old));
		return;
	}
	moved = changed_column(rel, old, new, tracked_columns,
						   lengthof(tracked_columns)) != NULL;
	if (moved)
		tell_move(rel, old, new);
	if (!column_is_null(rel, new, ACR_COLUMN_STOP_REQUESTED_AT) &&
		(moved || column_is_null(rel, old, ACR_COLUMN_STOP_REQUESTED_AT)))
		tell_stop(rel, new);
}

/*
 * run_inserted() returns trigger
 *
 * BEFORE INSERT FOR EACH ROW on the run table: lets the background worker know
 * that there may be an active run, whoever wrote it, and, if this is the first
 * since server start, which transactions came before; and tells of a stop that
 * the run bears from the start, which only a direct writer can give it.
 *
 * Before, since the row is at hand then; after, the server would note it down
 * for us, and read the trigger's condition for each statement if there were
 * one.  That costs more than all that we do.  What a later BEFORE trigger makes
 * of the row we do not know, so the worker is told in any case.
 */
Datum
acr_run_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = require_event(fcinfo, "run_inserted",
										  TRIGGER_EVENT_INSERT | TRIGGER_EVENT_ROW | TRIGGER_EVENT_BEFORE,
										  "BEFORE INSERT FOR EACH ROW");
	Relation	rel = trigdata->tg_relation;
	HeapTuple	row = trigdata->tg_trigtuple;

	acr_shared_note_start();
	acr_news_at_commit(ACR_NEWS_ACTIVE);

	/* The checks come later: the status may be any text here. */
	if (!column_is_null(rel, row, ACR_COLUMN_STOP_REQUESTED_AT) &&
		column_is_null(rel, row, ACR_COLUMN_FINISHED_AT))
		tell_stop(rel, row);
	return PointerGetDatum(row);
}

/*
 * terminal_is_final() returns trigger
 *
 * AFTER UPDATE FOR EACH ROW on the run table: refuses to reopen a terminal run
 * or to change how it ended or whose it is; and tells that an active run was
 * settled, or is to stop.
 *
 * Errors: RN410.
 */
Datum
acr_terminal_is_final(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = require_event(fcinfo, "terminal_is_final",
										  TRIGGER_EVENT_UPDATE | TRIGGER_EVENT_ROW | TRIGGER_EVENT_AFTER,
										  "AFTER UPDATE FOR EACH ROW");
	Relation	rel = trigdata->tg_relation;
	const char *column;

	if (!is_terminal(rel, trigdata->tg_trigtuple))
	{
		/* An active run that is written directly is activity, too. */
		acr_databases_raise(ACR_NEWS_ACTIVE);
		tell_update(rel, trigdata->tg_trigtuple, trigdata->tg_newtuple);
		return PointerGetDatum(NULL);
	}

	column = changed_column(rel, trigdata->tg_trigtuple, trigdata->tg_newtuple,
							final_columns, lengthof(final_columns));
	if (column != NULL)
		raise_final(rel, trigdata->tg_trigtuple, column);
	return PointerGetDatum(NULL);
}

/*
 * run_deleted() returns trigger
 *
 * AFTER DELETE FOR EACH ROW on the run table, for active runs: tells that the
 * run is gone.
 */
Datum
acr_run_deleted(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = require_event(fcinfo, "run_deleted",
										  TRIGGER_EVENT_DELETE | TRIGGER_EVENT_ROW | TRIGGER_EVENT_AFTER,
										  "AFTER DELETE FOR EACH ROW");

	acr_news_run_settled(run_id_of(trigdata->tg_relation,
								   trigdata->tg_trigtuple));
	return PointerGetDatum(NULL);
}

/*
 * runs_truncated() returns trigger
 *
 * AFTER TRUNCATE on the run table: tells that all runs are gone.
 */
Datum
acr_runs_truncated(PG_FUNCTION_ARGS)
{
	(void) require_event(fcinfo, "runs_truncated",
						 TRIGGER_EVENT_TRUNCATE | TRIGGER_EVENT_AFTER,
						 "AFTER TRUNCATE");
	acr_news_all_gone();
	return PointerGetDatum(NULL);
}
