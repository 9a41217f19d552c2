/*
 * get_run and its kin: zero or one row of the run table.
 */
#include "postgres.h"

#include "arguments.h"
#include "run_row.h"

PG_FUNCTION_INFO_V1(acr_get_run);
PG_FUNCTION_INFO_V1(acr_get_latest_for_chat);
PG_FUNCTION_INFO_V1(acr_get_active_for_chat);

/*
 * get_run(run_id uuid, workspace_id uuid) returns setof ai_chat_runs
 *
 * The run.  Errors: 22004 for a null.
 */
Datum
acr_get_run(PG_FUNCTION_ARGS)
{
	return acr_table_get(fcinfo, ACR_SQL_GET_RUN,
						 acr_require_uuid(fcinfo, 0, "run_id"),
						 acr_require_uuid(fcinfo, 1, "workspace_id"));
}

/*
 * get_latest_for_chat(chat_id uuid, workspace_id uuid)
 *		returns setof ai_chat_runs
 *
 * The chat's latest run, active or terminal, by its time-ordered id: what a
 * client that comes back looks for.  Errors: 22004 for a null.
 */
Datum
acr_get_latest_for_chat(PG_FUNCTION_ARGS)
{
	return acr_table_get(fcinfo, ACR_SQL_GET_LATEST_OF_CHAT,
						 acr_require_uuid(fcinfo, 0, "chat_id"),
						 acr_require_uuid(fcinfo, 1, "workspace_id"));
}

/*
 * get_active_for_chat(chat_id uuid, workspace_id uuid)
 *		returns setof ai_chat_runs
 *
 * The chat's active run, if any.  Errors: 22004 for a null.
 */
Datum
acr_get_active_for_chat(PG_FUNCTION_ARGS)
{
	return acr_table_get(fcinfo, ACR_SQL_GET_ACTIVE_OF_CHAT,
						 acr_require_uuid(fcinfo, 0, "chat_id"),
						 acr_require_uuid(fcinfo, 1, "workspace_id"));
}
