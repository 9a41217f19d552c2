/*
 * delete_runs_of_chat: a deleted chat takes its runs along.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "run_row.h"
#include "trigger_columns.h"
#include "utils/acl.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(acr_delete_runs_of_chat);

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

	if (!asked_for && acr_column_number(rel, name) == InvalidAttrNumber)
		return NULL;

	value = heap_getattr(trigdata->tg_trigtuple, acr_column_require(rel, name, UUIDOID),
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
