/*
 * The triggers: a terminal run stays as it is, and a deleted chat takes its
 * runs along.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "ai_chat_run.h"
#include "arguments.h"
#include "commands/trigger.h"
#include "databases.h"
#include "miscadmin.h"
#include "run_state.h"
#include "run_row.h"
#include "shared_state.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(acr_run_inserted);
PG_FUNCTION_INFO_V1(acr_terminal_is_final);
PG_FUNCTION_INFO_V1(acr_delete_runs_of_chat);

/* What may not change once the run is terminal. */
static const char *const final_columns[] = {
	"status", "finished_at", "error", "chat_id", "workspace_id",
};

/* The number of a column, or InvalidAttrNumber. */
static int
find_column(Relation rel, const char *name)
{
	TupleDesc	tupdesc = RelationGetDescr(rel);

	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(tupdesc, i);

		if (!attr->attisdropped && strcmp(NameStr(attr->attname), name) == 0)
			return attr->attnum;
	}
	return InvalidAttrNumber;
}

/* The number of a column that has to be there, of that type. */
static int
require_column(Relation rel, const char *name, Oid type)
{
	int			attnum = find_column(rel, name);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						name, RelationGetRelationName(rel))));
	if (TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid != type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" is not of type %s",
						name, RelationGetRelationName(rel), format_type_be(type))));
	return attnum;
}

static bool
was_terminal(Relation rel, HeapTuple old)
{
	int			attnum = require_column(rel, "status", TEXTOID);
	bool		isnull;
	Datum		status = heap_getattr(old, attnum, RelationGetDescr(rel), &isnull);

	return !isnull && acr_state_is_terminal(TextDatumGetCString(status));
}

static bool
column_differs(Relation rel, int attnum, HeapTuple old, HeapTuple new)
{
	TupleDesc	tupdesc = RelationGetDescr(rel);
	Form_pg_attribute attr = TupleDescAttr(tupdesc, attnum - 1);
	bool		old_isnull,
				new_isnull;
	Datum		old_value = heap_getattr(old, attnum, tupdesc, &old_isnull);
	Datum		new_value = heap_getattr(new, attnum, tupdesc, &new_isnull);

	if (old_isnull || new_isnull)
		return old_isnull != new_isnull;
	return !datum_image_eq(old_value, new_value, attr->attbyval, attr->attlen);
}

/* The first column among the final ones that the update changes, or NULL. */
static const char *
changed_column(Relation rel, HeapTuple old, HeapTuple new)
{
	for (size_t i = 0; i < lengthof(final_columns); i++)
	{
		int			attnum = find_column(rel, final_columns[i]);

		if (attnum != InvalidAttrNumber && column_differs(rel, attnum, old, new))
			return final_columns[i];
	}
	return NULL;
}

/*
 * run_inserted() returns trigger
 *
 * AFTER INSERT FOR EACH STATEMENT on the run table: lets the background worker
 * know that there may be an active run, whoever wrote it, and, if this is the
 * first since server start, which transactions came before.
 */
Datum
acr_run_inserted(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by a trigger",
						"run_inserted")));
	acr_shared_note_start();
	acr_news_at_commit(ACR_NEWS_ACTIVE);
	return PointerGetDatum(NULL);
}

/*
 * terminal_is_final() returns trigger
 *
 * AFTER UPDATE FOR EACH ROW on the run table: refuses to reopen a terminal run
 * or to change how it ended or whose it is.  It fires after the update so that
 * no BEFORE trigger can change the row behind its back, and because a BEFORE
 * trigger would have each update lock its row first, with a WAL record of its
 * own.
 *
 * Errors: RN410.
 */
Datum
acr_terminal_is_final(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Relation	rel;
	const char *column;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by an AFTER UPDATE trigger for each row",
						"terminal_is_final")));

	rel = trigdata->tg_relation;
	if (!was_terminal(rel, trigdata->tg_trigtuple))
	{
		/* An active run that is written directly is activity, too. */
		acr_databases_raise(ACR_NEWS_ACTIVE);
		return PointerGetDatum(NULL);
	}

	column = changed_column(rel, trigdata->tg_trigtuple, trigdata->tg_newtuple);
	if (column != NULL)
	{
		int			attnum = require_column(rel, "id", UUIDOID);
		bool		isnull;
		Datum		id = heap_getattr(trigdata->tg_trigtuple, attnum,
									  RelationGetDescr(rel), &isnull);

		ereport(ERROR,
				(errcode(ACR_ERRCODE_RUN_IS_FINAL),
				 errmsg("run %s is terminal and stays so",
						acr_uuid_string(DatumGetUUIDP(id))),
				 errdetail("Column \"%s\" of a terminal run cannot be changed.",
						   column),
				 err_generic_string(PG_DIAG_SCHEMA_NAME, ACR_SCHEMA),
				 err_generic_string(PG_DIAG_TABLE_NAME, ACR_RUNS_TABLE),
				 err_generic_string(PG_DIAG_COLUMN_NAME, column)));
	}
	return PointerGetDatum(NULL);
}

/*
 * The uuid column of the deleted row that a trigger argument, or else the
 * default, names.  NULL if the row has no such column and none was asked for.
 */
static pg_uuid_t *
uuid_of_deleted(TriggerData *trigdata, int argno, const char *default_name)
{
	Relation	rel = trigdata->tg_relation;
	bool		asked_for = trigdata->tg_trigger->tgnargs > argno;
	const char *name = asked_for ? trigdata->tg_trigger->tgargs[argno] : default_name;
	Datum		value;
	bool		isnull;

	if (!asked_for && find_column(rel, name) == InvalidAttrNumber)
		return NULL;

	value = heap_getattr(trigdata->tg_trigtuple, require_column(rel, name, UUIDOID),
						 RelationGetDescr(rel), &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("column \"%s\" of relation \"%s\" must not be null",
						name, RelationGetRelationName(rel))));
	return DatumGetUUIDP(value);
}

/*
 * Without a workspace the chat's runs go wherever they are.  Anybody who may
 * call the function could put the trigger on a table of his own and so reach
 * into other workspaces; hence only a table whose owner has the rights of the
 * extension's owner, who is in force here, can do without.
 */
static void
require_trusted_table(Relation rel)
{
	if (!has_privs_of_role(rel->rd_rel->relowner, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("relation \"%s\" has no column \"workspace_id\"",
						RelationGetRelationName(rel)),
				 errhint("Name the column of the chat's workspace in the trigger's arguments.")));
}

/*
 * delete_runs_of_chat([chat id column [, workspace id column]])
 *		returns trigger
 *
 * AFTER DELETE FOR EACH ROW on an application's table of chats: removes the
 * deleted chat's runs, active ones too, and what is deferred for them.  The
 * columns are "id" and, if the table has one, "workspace_id", unless the
 * trigger's arguments name others.  Only a table whose owner has the rights of
 * the extension's owner can do without a workspace.
 *
 * Errors: 39P01 if not called by such a trigger; 42703, 42804 or 22004 for a
 * column that is not there, not a uuid, or null; 42501 without a workspace.
 */
Datum
acr_delete_runs_of_chat(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	pg_uuid_t  *chat_id;
	pg_uuid_t  *workspace_id;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		!TRIGGER_FIRED_BY_DELETE(trigdata->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by an AFTER DELETE trigger for each row",
						"delete_runs_of_chat")));

	chat_id = uuid_of_deleted(trigdata, 0, "id");
	if (chat_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("relation \"%s\" has no column \"id\"",
						RelationGetRelationName(trigdata->tg_relation)),
				 errhint("Name the column of the chat's id in the trigger's arguments.")));
	workspace_id = uuid_of_deleted(trigdata, 1, "workspace_id");
	if (workspace_id == NULL)
		require_trusted_table(trigdata->tg_relation);
	acr_table_delete_of_chat(chat_id, workspace_id);
	return PointerGetDatum(NULL);
}
